#include "mmu_core/dirty/log_owner.h"

#include <algorithm>
#include <cerrno>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/format.h"
#include "mmu_core/base/reason.h"

namespace mmu {
namespace {

// A tenth of a second is exact enough for messages and metadata.
std::string SecondsText(absl::Duration duration) {
  return Format("%.1f", absl::ToDoubleSeconds(duration));
}

}  // namespace

LogOwner::LogOwner(const LogClaim& claim, MonotonicTime now)
    : claim_(claim), since_(now), last_call_(now) {
  MMU_CHECK(claim.lease > absl::ZeroDuration());
}

void LogOwner::Renew(MonotonicTime now) {
  last_call_ = std::max(last_call_, now);
}

bool LogOwner::IsFormer(const OwnerKey& key) const {
  return std::find(former_keys_.begin(), former_keys_.end(), key) !=
         former_keys_.end();
}

std::map<std::string, std::string> LogOwner::Facts(MonotonicTime now) const {
  return {{"owner", claim_.owner},
          {"owned_for_seconds", SecondsText(now - since_)},
          {"lease_remaining_seconds",
           SecondsText(std::max(lease_end() - now, absl::ZeroDuration()))}};
}

absl::Status LogOwner::Fenced(MonotonicTime now) const {
  return MakeError(absl::StatusCode::kFailedPrecondition,
                   {Reason::kLogFenced, "key", 0, Facts(now)},
                   Format("the key belongs to a former owner of this dirty "
                          "log; %s acquired the log %ss ago and receives all "
                          "pages that were not acknowledged until then; stop, "
                          "or acquire the log with a new key",
                          claim_.owner, SecondsText(now - since_)));
}

absl::Status LogOwner::Owned(MonotonicTime now) const {
  const absl::Duration left = lease_end() - now;
  const std::string lease =
      left > absl::ZeroDuration()
          ? absl::StrCat("its lease lasts for another ", SecondsText(left),
                         "s: ask it, wait for the end, or acquire the log with "
                         "force")
          : std::string("its lease has run out: acquire the log");
  return MakeError(absl::StatusCode::kFailedPrecondition,
                   {Reason::kLogOwned, "key", 0, Facts(now)},
                   Format("the key is not that of the owner: %s has owned this "
                          "dirty log for %ss, and %s",
                          claim_.owner, SecondsText(now - since_), lease));
}

absl::Status LogOwner::Admit(const OwnerKey& key, MonotonicTime now) {
  if (Is(key)) {
    Renew(now);
    return absl::OkStatus();
  }
  return IsFormer(key) ? Fenced(now) : Owned(now);
}

absl::StatusOr<LogOwner::Acquired> LogOwner::Acquire(const LogClaim& claim,
                                                     Force force,
                                                     MonotonicTime now) {
  MMU_CHECK(claim.lease > absl::ZeroDuration());
  if (Is(claim.key)) {
    LogClaim renewed = claim;
    claim_ = std::move(renewed);
    Renew(now);
    return Acquired::kAlready;
  }
  if (IsFormer(claim.key)) return Fenced(now);
  if (force == Force::kNo && now < lease_end()) return Owned(now);
  LogClaim next = claim;
  former_keys_.push_back(claim_.key);
  // Nothing below allocates.
  if (former_keys_.size() > kMaxFormerKeys) former_keys_.pop_front();
  claim_ = std::move(next);
  since_ = std::max(since_, now);
  Renew(now);
  return Acquired::kNewly;
}

}  // namespace mmu
