#include "server/base/request_id_cache.h"

#include <cstddef>
#include <functional>
#include <string>
#include <utility>

#include "absl/hash/hash.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/sync/timed_wait.h"
#include "server/base/errors.h"
#include "server/base/uuid.h"

namespace mmud {
namespace {

constexpr absl::Duration kPoll = absl::Milliseconds(50);

}  // namespace

absl::Status CheckRequestId(absl::string_view request_id) {
  if (IsUuid(request_id)) return absl::OkStatus();
  return InvalidField(
      mmu::Reason::kInvalidRequestId, "request_id",
      absl::StrCat("request_id is ", Quote(request_id),
                   "; it must be a UUID of version 4, or empty"));
}

RequestIdCache::RequestIdCache(Options options)
    : options_(std::move(options)) {}

absl::StatusOr<std::string> RequestIdCache::Run(
    absl::string_view request_id, absl::string_view request,
    const std::function<absl::Status()>& keep_waiting,
    const std::function<absl::StatusOr<std::string>()>& compute) {
  return RunWithTurn(request_id, request, keep_waiting,
                     [&compute](const SharedTurn&) { return compute(); });
}

absl::StatusOr<std::string> RequestIdCache::RunWithTurn(
    absl::string_view request_id, absl::string_view request,
    const std::function<absl::Status()>& keep_waiting,
    const std::function<absl::StatusOr<std::string>(SharedTurn)>& compute) {
  if (request_id.empty()) return compute(nullptr);
  if (absl::Status status = CheckRequestId(request_id); !status.ok()) {
    return status;
  }
  const std::string id = CanonicalUuid(request_id);
  const size_t hash = absl::Hash<absl::string_view>()(request);
  for (;;) {
    {
      mmu::MutexLock lock(mu_);
      std::string answer;
      absl::StatusOr<Found> found = FindLocked(id, hash, &answer);
      if (found.ok() && *found == Found::kComputing) {
        mmu::WaitUntil(turn_over_, mu_, mmu::MonotonicTime::Now() + kPoll);
        found = FindLocked(id, hash, &answer);
      }
      if (!found.ok()) return found.status();
      if (*found == Found::kAnswer) return answer;
      if (*found == Found::kMyTurn) break;
    }
    if (absl::Status status = keep_waiting(); !status.ok()) return status;
  }
  const auto turn = std::make_shared<Turn>(*this, id);
  absl::StatusOr<std::string> answer = compute(turn);
  if (answer.ok()) turn->Answer(*answer);
  return answer;
}

void RequestIdCache::AnswerTurn(const std::string& id,
                                const std::string& answer, bool* answered) {
  mmu::MutexLock lock(mu_);
  if (std::exchange(*answered, true)) return;
  Entry& entry = entries_.at(id);
  entry.answer = answer;
  entry.done = true;
  entry.expires = options_.now() + options_.time_to_live;
  bytes_ += answer.size() + kBytesPerEntry;
  order_.push_back(id);
  ForgetOldLocked();
  turn_over_.NotifyAll();
}

void RequestIdCache::EndTurn(const std::string& id, const bool& answered) {
  mmu::MutexLock lock(mu_);
  if (answered) return;
  // The next caller, waiting or new, finds no entry and gets the turn.
  entries_.erase(id);
  turn_over_.NotifyAll();
}

absl::StatusOr<RequestIdCache::Found> RequestIdCache::FindLocked(
    const std::string& id, size_t request_hash, std::string* answer) {
  ForgetOldLocked();
  const auto [it, is_new] = entries_.try_emplace(id);
  Entry& entry = it->second;
  if (is_new) {
    entry.request_hash = request_hash;
    return Found::kMyTurn;
  }
  if (entry.request_hash != request_hash) {
    return ApiError(absl::StatusCode::kAlreadyExists,
                    mmu::Reason::kRequestIdReused,
                    absl::StrCat("request_id ", Quote(id),
                                 " came before with another request; make up "
                                 "a new one for each new request"));
  }
  if (!entry.done) return Found::kComputing;
  *answer = entry.answer;
  return Found::kAnswer;
}

size_t RequestIdCache::size() const {
  mmu::MutexLock lock(mu_);
  return entries_.size();
}

void RequestIdCache::ForgetOldLocked() {
  const mmu::MonotonicTime now = options_.now();
  while (!order_.empty()) {
    const auto it = entries_.find(order_.front());
    const Entry& oldest = it->second;
    if (oldest.expires > now && bytes_ <= options_.max_bytes) return;
    bytes_ -= oldest.answer.size() + kBytesPerEntry;
    entries_.erase(it);
    order_.pop_front();
  }
}

}  // namespace mmud
