// Bugs that tests inject into the MMU on purpose, to check that the tests
// notice them. Linking this library makes them possible (memory/mark_dirty.h,
// tlb/tlb_flush_batch.h, shadow/unsync_gate.h).

#ifndef MMU_CORE_TESTING_FAULT_INJECTION_H_
#define MMU_CORE_TESTING_FAULT_INJECTION_H_

#include <cstdint>
#include <string>

#include "mmu_core/stats/labels.h"

namespace mmu::testing {

// From now on, counts marks of pages that were dirty, taken and re-protected
// twice before, and drops the `nth` of these marks (from 1), once. Such a page
// was copied by then, so its next write is in no copy. 0 disarms. Thread-safe.
void ArmDropOneMark(uint64_t nth);

// The page whose mark was dropped, as text: "slot 0 gfn 0x1234"; empty if none
// was dropped yet.
std::string DroppedMark();

// The number of marks dropped since the process began.
uint64_t DroppedMarks();

// From now on, counts remote flushes for `reason` and skips the `nth` (from 1),
// once: its caller continues as if it had flushed. 0 disarms. Thread-safe.
void ArmSkipOneFlush(FlushReason reason, uint64_t nth);

// The number of flushes skipped since the process began.
uint64_t SkippedFlushes();

// From now on, counts shadow pages that should become unsync. Skips this step
// for the `nth` of them (from 1), once, although the guest may write its table.
// 0 disarms. Thread-safe.
void ArmSkipOneUnsync(uint64_t nth);

// SkippedUnsyncs is the number of pages skipped in this way since the process
// began, the other function the number of pages that should have become unsync
// in all.
uint64_t SkippedUnsyncs();
uint64_t Unsyncs();

}  // namespace mmu::testing

#endif  // MMU_CORE_TESTING_FAULT_INJECTION_H_
