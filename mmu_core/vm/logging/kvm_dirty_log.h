// KVM's own calls on one slot's dirty bitmap, like KVM_GET_DIRTY_LOG and
// KVM_CLEAR_DIRTY_LOG: no owner, no epochs, and pages that were taken leave the
// log. For comparisons with KVM: differential tests and benchmarks. Not for a
// log whose owner seals it: these calls would take its open pages.

#ifndef MMU_CORE_VM_LOGGING_KVM_DIRTY_LOG_H_
#define MMU_CORE_VM_LOGGING_KVM_DIRTY_LOG_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "mmu_core/dirty/dirty_log_calls.h"
#include "mmu_core/stats/mmu_cost.h"

namespace mmu {

struct VmCore;

// Manual protection (DL-14): bit 0 switches it on; bit 1 makes bitmaps start
// all dirty and needs bit 0. Replaces the previous value, for slots whose log
// is switched on later. `flags` is 0. INVALID_ARGUMENT INVALID_DIRTY_LOG_MODE
// (EINVAL) for any other value. StartDirtyLog ignores it for its slots.
inline constexpr uint64_t kManualProtectEnable = 1;
inline constexpr uint64_t kManualProtectInitiallySet = 2;
absl::Status EnableManualProtect(VmCore& vm, uint64_t bits, uint32_t flags);

// Legacy GET (DL-10..12): takes the bitmap, re-protects its pages, flushes if
// there were any, returns it. NOT_FOUND ENOENT without a log. These three
// calls: FAILED_PRECONDITION ENXIO if the VM logs into rings only (DL-25).
absl::StatusOr<std::vector<uint64_t>> GetAndClearDirtyLog(VmCore& vm,
                                                          uint32_t slot,
                                                          MmuCost* cost);
// Manual-protect GET (DL-13): copies, changes nothing.
absl::StatusOr<std::vector<uint64_t>> CopyDirtyLog(VmCore& vm, uint32_t slot);
// CLEAR (DL-20..26): clears those of the requested pages that are set in the
// bitmap, and re-protects them. `npages` is the slot's; see ClearDirtyLog.
absl::StatusOr<ClearResult> ClearBitmap(VmCore& vm, uint32_t slot,
                                        uint64_t first_page,
                                        uint64_t page_count,
                                        absl::Span<const uint64_t> mask,
                                        MmuCost* cost);

}  // namespace mmu

#endif  // MMU_CORE_VM_LOGGING_KVM_DIRTY_LOG_H_
