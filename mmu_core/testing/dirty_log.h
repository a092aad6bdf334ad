// The dirty log for tests in which its owner does not matter: one owner makes
// every call, before its lease ends.

#ifndef MMU_CORE_TESTING_DIRTY_LOG_H_
#define MMU_CORE_TESTING_DIRTY_LOG_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "mmu_core/dirty/dirty_log_calls.h"
#include "mmu_core/dirty/dirty_log_state.h"
#include "mmu_core/dirty/dirty_log_types.h"
#include "mmu_core/dirty/log_owner.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/vm/vm.h"

namespace mmu::testing {

// TestClaim is the claim of the owner, TestCall a call by it, TestStart the
// start of its log. Each start has its own log id.
LogClaim TestClaim();
LogCall TestCall();
DirtyLogStart TestStart(const DirtyLogConfig& config);

// Calls the functions of Vm with these names as the owner.
absl::Status StartLog(Vm& vm, const DirtyLogConfig& config = {},
                      MmuCost* cost = nullptr);
absl::StatusOr<StopResult> StopLog(
    Vm& vm, RecoverOnStop recover = RecoverOnStop::kNo,
    Undelivered undelivered = Undelivered::kDiscard, MmuCost* cost = nullptr);
absl::Status ReadLog(Vm& vm, uint32_t slot, uint64_t epoch, uint64_t first_page,
                     absl::Span<uint64_t> words);
absl::StatusOr<ClearResult> ClearLog(Vm& vm, uint32_t slot, uint64_t epoch,
                                     uint64_t first_page, uint64_t page_count,
                                     absl::Span<const uint64_t> mask,
                                     MmuCost* cost = nullptr);
// Like ClearLog, but also acknowledges the pages at once, like a sender whose
// copies need no time.
absl::StatusOr<ClearResult> ClearAndDeliver(Vm& vm, uint32_t slot,
                                            uint64_t epoch, uint64_t first_page,
                                            uint64_t page_count,
                                            absl::Span<const uint64_t> mask,
                                            MmuCost* cost = nullptr);

// SealLog seals all slots and returns the sealed pages of `slot`.
struct SealedSlot {
  uint64_t epoch = 0;
  uint64_t dirty_page_count = 0;   // fresh and merged
  uint64_t merged_page_count = 0;  // the part left over from earlier seals
};
absl::StatusOr<SealedSlot> SealLog(Vm& vm, uint32_t slot = 0,
                                   MmuCost* cost = nullptr);
// Seals all slots, stores the epoch in `epoch` and returns the sealed pages of
// `slot`.
std::vector<uint64_t> SealAndList(Vm& vm, uint32_t slot,
                                  uint64_t* epoch = nullptr);

}  // namespace mmu::testing

#endif  // MMU_CORE_TESTING_DIRTY_LOG_H_
