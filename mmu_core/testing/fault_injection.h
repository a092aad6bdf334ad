// Faults that tests put into the MMU on purpose, to see that they are noticed.
// Linking this library is what makes them possible (memory/mark_dirty.h,
// tlb/tlb_flush_batch.h, shadow/unsync_gate.h).

#ifndef MMU_CORE_TESTING_FAULT_INJECTION_H_
#define MMU_CORE_TESTING_FAULT_INJECTION_H_

#include <cstdint>
#include <string>

#include "mmu_core/stats/labels.h"

namespace mmu::testing {

// From now on marks are counted that turn a page dirty which was dirty, taken
// and re-protected twice before; the `nth` of them (from 1) is dropped, once.
// Such a page was copied by then, so what is written to it next is in nobody's
// copy. 0 disarms. Thread-safe.
void ArmDropOneMark(uint64_t nth);

// The page whose mark was dropped, for people: "slot 0 gfn 0x1234"; empty if
// none was yet.
std::string DroppedMark();

// From now on remote flushes for `reason` are counted; the `nth` of them (from
// 1) is skipped, once: whoever issued it goes on as if no TLB had anything to
// lose. 0 disarms. Thread-safe.
void ArmSkipOneFlush(FlushReason reason, uint64_t nth);

// How many flushes were skipped since the process began.
uint64_t SkippedFlushes();

// From now on shadow pages that would become unsync are counted; the `nth` of
// them (from 1) does not, once, though the guest may write its table. 0
// disarms. Thread-safe.
void ArmSkipOneUnsync(uint64_t nth);

// How often that was done since the process began, and how many pages were to
// become unsync in all.
uint64_t SkippedUnsyncs();
uint64_t Unsyncs();

}  // namespace mmu::testing

#endif  // MMU_CORE_TESTING_FAULT_INJECTION_H_
