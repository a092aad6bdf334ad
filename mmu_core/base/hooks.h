// Places in lock-free code where a test can stop a thread, to build an
// interleaving deterministically, step by step.
//
// With NDEBUG, hooks compile to nothing. Otherwise each costs a load and a
// branch.

#ifndef MMU_CORE_BASE_HOOKS_H_
#define MMU_CORE_BASE_HOOKS_H_

#include <atomic>
#include <cstdint>
#include <string_view>

#include "absl/base/optimization.h"

namespace mmu {

// Each hook stands between two steps that other threads may interleave with.
// RACE numbers are those of mmu_core/LOCKING.md.
enum class HookPoint : uint8_t {
  kStart,                // test thread created -> begins
  kSnapshotToExchange,   // SPTE read -> compare-exchange, read mode (RACE-3)
  kFastFaultToExchange,  // SPTE read -> compare-exchange, no lock (RACE-1)
  kExchangeToMark,       // fast fault has set W -> mark (RACE-1)
  kMarkToInstall,        // slow fault has marked -> writable leaf (RACE-2)
  kUnlinkToCount,        // unlinked -> counted in its grace period (RACE-4)
  kUnlinkToFreeze,       // table unlinked -> its entries frozen (RACE-3)
  kFreezeToFree,         // entries frozen -> table given to RCU (RACE-4)
  kBitToSummary,         // live bit set -> summaries raised (RACE-6)
  kSummaryToTake,        // summaries cleared -> words taken (RACE-6)
  kTakeToProtect,        // bits taken from a log -> pages protected (RACE-1)
  kProtectToFlush,       // W cleared -> TLBs flushed (RACE-12)
  kSlotToFault,          // memslot found -> used (RACE-13)
  kFrameToLock,          // frame resolved -> mmu_lock (RACE-9)
  kSequenceToFrame,      // invalidation sequence read -> frame found (RACE-9)
  kInvalidateToRequest,  // roots invalid -> vCPUs notified (RACE-8)
  kRootFoundToGet,       // root found in the list -> reference (RACE-10)
  kNoRootToLock,         // no root found -> mutex of the list (TDP-02)
  kTableFilledToLink,    // split: table filled -> linked (RACE-11)
  kAgeToExchange,        // Accessed seen -> cleared (RACE-15)
  kParentToClear,        // entry of a table read -> A cleared (RACE-55)
  kClearToToken,         // its Accessed cleared -> token in the count (RACE-55)
  kTokenToScan,          // token in the count -> leafs read (RACE-55)
  kScanToCount,          // leafs read -> number in place of token (RACE-55)
  kLeafToForget,         // leaf came or went -> count unknown (RACE-55)
  kEntryToAnd,           // W seen -> AND, whole tables (RACE-14)
  kEntryToWalk,          // hardware walk: pointer read -> A set (RACE-55)
  kWalkToTable,          // hardware walk: pointer read -> table read (RACE-4)
  kAnnounceToLook,       // access announced -> requests loaded (RACE-5)
  kJoinToLeave,          // page in its new set -> out of its old one (RACE-7)
  kEntryToFlags,         // ring entry written -> flagged as dirty (RACE-16)
  kRecordToCollected,    // page recorded -> entry collected (RACE-16)
  kFreeToIndex,          // ring entry freed -> reset index moved (RACE-16)
  kFlagToProtect,        // log of a slot published -> pages protected (RACE-18)
  kFaultToLook,          // fault announced -> checks for a writer (RACE-19)
  kWriterToLook,         // writer announced -> checks for faults (RACE-19)
  kMmioToCompare,        // MMIO SPTE read -> its generation compared (RACE-21)
  kNxTakenToZap,         // NX table off its list -> zapped (RACE-23)
  kUnmapToChange,        // host pages unmapped -> changed (RACE-24)
  kGuestWordToMark,      // guest word written -> page marked (RACE-26)
  kRmapLockToWalk,       // rmap locked by a reader -> walked (RACE-28)
  kRmapLockToChange,     // rmap locked by a writer -> changed (RACE-28)
  kReturnToPush,         // stack top read -> descriptors pushed (RACE-29)
  kRmapsToPublish,       // rmaps allocated -> flag published (RACE-30)
  kLogToDrain,           // D set, gfn in the CPU's log -> drained (RACE-31)
  kRootFoundToUse,       // cached root is valid -> made current (RACE-36)
  kKickToWait,           // vCPUs asked to exit -> wait for exit (RACE-31)
  kMarksToUnsync,        // ancestors marked -> page unsync (RACE-33)
  kUnsyncToWritable,     // page unsync -> writable SPTE (RACE-33)
  kProtectToRead,        // unsync page protected -> table read (RACE-34)
  kHeldBackToWait,       // fault is held back -> waits (RACE-45)
  kChosenToLink,         // recover: leaf chosen -> huge leaf linked (RACE-11)
  kCountToSwitch,        // log found without dirty pages -> switched off
  kMissingToAsk,         // frame found missing -> its lender asked (RACE-48)
  kSequenceToCount,      // end: sequence moved -> count lowered (RACE-48)
  kFlushToRequest,       // flush in a vCPU's queue -> request (RACE-5)
  kFoundHeldToQueue,     // mmu_lock found held -> queued for it (RACE-50)
  kQueuedToAwait,        // queued for mmu_lock, not let in -> waits (RACE-50)
  kBreakToTlbi,          // entry broken -> TLBs invalidated (RACE-51)
  kTlbiToMake,           // TLBs invalidated -> new entry made (RACE-51)
  // The hooks below mark one step instead of a gap, for lock traces.
  kSnapshotToStore,  // SPTE read -> store or exchange, write mode
  kRmapContended,    // an rmap lock is contended
  kTopUp,            // tables are about to be allocated
  kGracePeriod,      // about to wait for an RCU grace period
  kReadLocked,       // mmu_lock was taken in read mode
  kWriteLocked,      // mmu_lock was taken in write mode
  kYield,            // mmu_lock is about to be dropped and taken again
  kUnlock,           // mmu_lock is about to be dropped
  kHeavyBarrier,     // about to issue a barrier on all threads
};
inline constexpr int kHookPoints =
    static_cast<int>(HookPoint::kHeavyBarrier) + 1;

std::string_view ToString(HookPoint point);

#ifdef NDEBUG

inline void AtHook(HookPoint) {}

#else

// Called at each hook, on the thread that reached the hook. Null: no call.
using HookFn = void (*)(HookPoint point);
extern constinit std::atomic<HookFn> hook_fn;

inline void AtHook(HookPoint point) {
  // Relaxed: tests set and clear the function only while no other thread is at
  // a hook.
  if (HookFn const fn = hook_fn.load(std::memory_order_relaxed);
      ABSL_PREDICT_FALSE(fn != nullptr)) {
    fn(point);
  }
}

#endif

}  // namespace mmu

#endif  // MMU_CORE_BASE_HOOKS_H_
