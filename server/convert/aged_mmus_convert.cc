#include "server/convert/aged_mmus_convert.h"

#include <cstddef>
#include <vector>

#include "absl/status/statusor.h"
#include "mmu_core/aging/aging.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/stats/labels.h"
#include "server/base/errors.h"
#include "server/convert/page_table_convert.h"

namespace mmud {
namespace {

v1::AgingLock ToAgingLock(mmu::AgingLock lock) {
  switch (lock) {
    case mmu::AgingLock::kNone:
      return v1::AGING_LOCK_NONE;
    case mmu::AgingLock::kRmap:
      return v1::AGING_LOCK_RMAP;
    case mmu::AgingLock::kWrite:
      return v1::AGING_LOCK_MMU_LOCK_WRITE;
  }
  return v1::AGING_LOCK_UNSPECIFIED;
}

v1::AgedMmu ToAgedMmu(mmu::MmuKind kind, const mmu::AgeReach::Mmu& reach) {
  v1::AgedMmu mmu;
  mmu.set_kind(ToProto(kind));
  mmu.set_coverage(reach.skipped ? v1::AGING_COVERAGE_SKIPPED
                                 : v1::AGING_COVERAGE_COVERED);
  if (reach.asked) mmu.set_lock(ToAgingLock(reach.lock));
  return mmu;
}

}  // namespace

absl::StatusOr<mmu::AgeOptions> ToAgeOptions(v1::AgingLockMode lock_mode,
                                             v1::SlowMmus slow_mmus) {
  if (!v1::AgingLockMode_IsValid(lock_mode)) {
    return WrongValue(mmu::Reason::kInvalidEnumValue, "lock_mode",
                      static_cast<int>(lock_mode), "LOCKLESS_ONLY or MAY_LOCK");
  }
  if (!v1::SlowMmus_IsValid(slow_mmus)) {
    return WrongValue(mmu::Reason::kInvalidEnumValue, "slow_mmus",
                      static_cast<int>(slow_mmus), "SKIP or REFUSE");
  }
  mmu::AgeOptions options;
  if (lock_mode != v1::AGING_LOCK_MODE_MAY_LOCK) {
    options.fast_only = mmu::FastOnly::kYes;
  }
  if (slow_mmus == v1::SLOW_MMUS_REFUSE) options.slow = mmu::SlowMmus::kRefuse;
  return options;
}

void AddMmus(const std::vector<mmu::MmuKind>& mmus, const mmu::AgeReach& reach,
             google::protobuf::RepeatedPtrField<v1::AgedMmu>* out) {
  for (const mmu::MmuKind kind : mmus) {
    *out->Add() = ToAgedMmu(kind, reach.mmus[static_cast<size_t>(kind)]);
  }
}

}  // namespace mmud
