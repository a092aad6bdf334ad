// Places in lock-free code where a test can stop a thread, to build an
// interleaving step by step instead of hoping for it.
//
// Programs built with NDEBUG have none of it. Others pay a load and a branch.

#ifndef MMU_CORE_BASE_HOOKS_H_
#define MMU_CORE_BASE_HOOKS_H_

#include <atomic>
#include <cstdint>
#include <string_view>

#include "absl/base/optimization.h"

namespace mmu {

// Each stands between two steps that others may come in between; the RACE
// numbers are those of mmu_core/LOCKING.md.
enum class HookPoint : uint8_t {
  kStart,                // a thread of a test that has not begun yet
  kSnapshotToExchange,   // SPTE read -> compare-exchange, read mode (RACE-3)
  kFastFaultToExchange,  // SPTE read -> compare-exchange, no lock (RACE-1)
  kExchangeToMark,       // fast fault has set W -> mark (RACE-1)
  kMarkToInstall,        // slow fault has marked -> writable leaf (RACE-2)
  kUnlinkToCount,   // table unlinked -> counted as on its way back (RACE-4)
  kUnlinkToFreeze,  // table unlinked -> its entries frozen (RACE-3)
  kFreezeToFree,    // entries frozen -> table given to RCU (RACE-4)
  kBitToSummary,    // live bit set -> summaries raised (RACE-6)
  kSummaryToTake,   // summaries cleared -> words taken (RACE-6)
  kTakeToProtect,   // bits taken from a log -> pages protected (RACE-1)
  kProtectToFlush,  // W cleared -> TLBs flushed (RACE-12)
  kSlotToFault,     // memslot found -> used (RACE-13)
  kFrameToLock,     // frame resolved -> mmu_lock (RACE-9)
  kInvalidateToRequest,  // roots invalid -> vCPUs told so (RACE-8)
  kRootFoundToGet,       // root found in the list -> reference (RACE-10)
  kTableFilledToLink,    // split: table filled -> linked (RACE-11)
  kAgeToExchange,        // Accessed seen -> cleared (RACE-15)
  kEntryToAnd,           // W seen -> AND, whole tables (RACE-14)
  kWalkToTable,          // hardware walk: pointer read -> table read (RACE-4)
  kAnnounceToLook,       // access announced -> requests looked at (RACE-5)
  kJoinToLeave,          // page in its new set -> out of its old one (RACE-7)
  kEntryToFlags,         // ring entry written -> flagged as dirty (RACE-16)
  kRecordToCollected,    // page recorded -> entry collected (RACE-16)
  kFreeToIndex,          // ring entry freed -> reset index moved (RACE-16)
  kFlagToProtect,        // log of a slot published -> pages protected (RACE-18)
  kFaultToLook,          // fault announced -> looks for a writer (RACE-19)
  kWriterToLook,         // writer announced -> looks for faults (RACE-19)
  kMmioToCompare,        // MMIO SPTE read -> its generation compared (RACE-21)
  kNxTakenToZap,         // NX table off its list -> zapped (RACE-23)
  kUnmapToChange,        // host pages unmapped -> changed (RACE-24)
  kGuestWordToMark,      // word of the guest's written -> marked (RACE-26)
  kRmapLockToWalk,       // rmap locked by a reader -> walked (RACE-28)
  kRmapLockToChange,     // rmap locked by a writer -> changed (RACE-28)
  kReturnToPush,         // top read -> descriptors pushed on it (RACE-29)
  kRmapsToPublish,       // slots have rmaps -> it is said so (RACE-30)
  kLogToDrain,           // D set, in the CPU's log -> drained (RACE-31)
  kRootFoundToUse,       // kept root is valid -> it is current (RACE-36)
  kKickToWait,           // vCPUs asked to exit -> waited for (RACE-31)
  kMarksToUnsync,        // ancestors marked -> page unsync (RACE-33)
  kUnsyncToWritable,     // page unsync -> writable SPTE (RACE-33)
  kProtectToRead,        // unsync page protected -> table read (RACE-34)
  kHeldBackToWait,       // fault found to be held back -> waits (RACE-45)
  kChosenToLink,         // recover: leaf chosen -> huge leaf linked (RACE-11)
  kCountToSwitch,        // log found without dirty pages -> switched off
  kMissingToAsk,         // frame found missing -> its lender asked (RACE-48)
  // Not between two steps but at one, for traces of locks.
  kSnapshotToStore,  // SPTE read -> store or exchange, write mode
  kRmapContended,    // the lock of an rmap has to be waited for
  kTopUp,            // tables are about to be allocated
  kGracePeriod,      // the end of all RCU read sections is waited for
  kReadLocked,       // mmu_lock was taken in read mode
  kWriteLocked,      // mmu_lock was taken in write mode
  kYield,            // mmu_lock is about to be dropped and taken again
  kUnlock,           // mmu_lock is about to be dropped
  kHeavyBarrier,     // all threads are about to execute a barrier
};
inline constexpr int kHookPoints =
    static_cast<int>(HookPoint::kHeavyBarrier) + 1;

std::string_view ToString(HookPoint point);

#ifdef NDEBUG

inline void AtHook(HookPoint) {}

#else

// Called at each hook, on the thread that reached it. Null: nobody.
using HookFn = void (*)(HookPoint point);
extern constinit std::atomic<HookFn> hook_fn;

inline void AtHook(HookPoint point) {
  // Set and cleared while no other thread is at a hook, so nothing is ordered
  // by it.
  if (HookFn const fn = hook_fn.load(std::memory_order_relaxed);
      ABSL_PREDICT_FALSE(fn != nullptr)) {
    fn(point);
  }
}

#endif

}  // namespace mmu

#endif  // MMU_CORE_BASE_HOOKS_H_
