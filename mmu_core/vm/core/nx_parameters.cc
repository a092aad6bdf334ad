#include "mmu_core/vm/core/nx_parameters.h"

#include <algorithm>
#include <cerrno>
#include <optional>

#include "mmu_core/base/check.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/format.h"
#include "mmu_core/base/reason.h"

namespace mmu {
namespace {

constexpr uint32_t kSecondsPerHour = 3600;

// Whether `value` switches the mitigation on or off; nullopt for another word.
std::optional<bool> Parse(std::string_view value, ItlbMultihit cpu) {
  if (value == "auto") return cpu == ItlbMultihit::kYes;
  for (const std::string_view on : {"force", "1", "y", "Y", "on"}) {
    if (value == on) return true;
  }
  for (const std::string_view off : {"off", "0", "n", "N", "never"}) {
    if (value == off) return false;
  }
  return std::nullopt;
}

}  // namespace

absl::Duration RecoveryPeriodOf(const NxRecoverySettings& settings) {
  if (settings.ratio == 0) return absl::InfiniteDuration();
  if (settings.period != absl::ZeroDuration()) return settings.period;
  return absl::Hours(1) / std::min(settings.ratio, kSecondsPerHour);
}

NxParameters& NxParameters::Process() {
  static auto* parameters = new NxParameters(ItlbMultihit::kNo);
  return *parameters;
}

absl::Status NxParameters::SetNxHugePages(std::string_view value) {
  MutexLock lock(mu_);
  if (never_) {
    return MakeError(absl::StatusCode::kPermissionDenied,
                     {Reason::kNxHugePagesNever, "nx_huge_pages", EPERM},
                     "nx_huge_pages was set to never, which lasts as long as "
                     "the process; start it again without");
  }
  const std::optional<bool> mitigated = Parse(value, cpu_);
  if (!mitigated.has_value()) {
    return MakeError(
        absl::StatusCode::kInvalidArgument,
        {Reason::kInvalidNxHugePages, "nx_huge_pages", EINVAL},
        Format("nx_huge_pages is \"%s\"; it must be off, force, auto, "
               "never, or one of 0, n, N, 1, y, Y, on",
               std::string(value)));
  }
  if (value == "never") {
    if (!vms_.empty()) {
      return MakeError(absl::StatusCode::kFailedPrecondition,
                       {Reason::kVmExistsAlready, "nx_huge_pages", EBUSY},
                       Format("nx_huge_pages can become never only "
                              "while there is no VM; there are %d",
                              vms_.size()));
    }
    never_ = true;
  }
  if (*mitigated == mitigated_) return absl::OkStatus();
  mitigated_ = *mitigated;
  for (Listener* vm : vms_) vm->on_mitigation(mitigated_);
  return absl::OkStatus();
}

std::string_view NxParameters::nx_huge_pages() const {
  MutexLock lock(mu_);
  if (never_) return "never";
  return mitigated_ ? "Y" : "N";
}

void NxParameters::SetRecovery(const NxRecoverySettings& settings) {
  MutexLock lock(mu_);
  recovery_ = settings;
  for (Listener* vm : vms_) vm->on_recovery();
}

NxRecoverySettings NxParameters::recovery() const {
  MutexLock lock(mu_);
  return recovery_;
}

void NxParameters::Register(Listener* vm) {
  MutexLock lock(mu_);
  vms_.push_back(vm);
  if (mitigated_) vm->on_mitigation(true);
}

void NxParameters::Unregister(Listener* vm) {
  MutexLock lock(mu_);
  const auto it = std::find(vms_.begin(), vms_.end(), vm);
  MMU_CHECK(it != vms_.end());
  vms_.erase(it);
}

}  // namespace mmu
