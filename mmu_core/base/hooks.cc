#include "mmu_core/base/hooks.h"

#include <array>
#include <cstddef>
#include <string_view>

namespace mmu {

#ifndef NDEBUG
constinit std::atomic<HookFn> hook_fn = nullptr;
#endif

std::string_view ToString(HookPoint point) {
  static constexpr std::array<std::string_view, kHookPoints> kNames = {
      "kStart",
      "kSnapshotToExchange",
      "kFastFaultToExchange",
      "kExchangeToMark",
      "kMarkToInstall",
      "kUnlinkToCount",
      "kUnlinkToFreeze",
      "kFreezeToFree",
      "kBitToSummary",
      "kSummaryToTake",
      "kTakeToProtect",
      "kProtectToFlush",
      "kSlotToFault",
      "kFrameToLock",
      "kSequenceToFrame",
      "kInvalidateToRequest",
      "kRootFoundToGet",
      "kNoRootToLock",
      "kTableFilledToLink",
      "kAgeToExchange",
      "kParentToClear",
      "kClearToToken",
      "kTokenToScan",
      "kScanToCount",
      "kLeafToForget",
      "kEntryToAnd",
      "kEntryToWalk",
      "kWalkToTable",
      "kAnnounceToLook",
      "kJoinToLeave",
      "kEntryToFlags",
      "kRecordToCollected",
      "kFreeToIndex",
      "kFlagToProtect",
      "kFaultToLook",
      "kWriterToLook",
      "kMmioToCompare",
      "kNxTakenToZap",
      "kUnmapToChange",
      "kGuestWordToMark",
      "kRmapLockToWalk",
      "kRmapLockToChange",
      "kReturnToPush",
      "kRmapsToPublish",
      "kLogToDrain",
      "kRootFoundToUse",
      "kKickToWait",
      "kMarksToUnsync",
      "kUnsyncToWritable",
      "kProtectToRead",
      "kHeldBackToWait",
      "kChosenToLink",
      "kCountToSwitch",
      "kMissingToAsk",
      "kSequenceToCount",
      "kFlushToRequest",
      "kFoundHeldToQueue",
      "kQueuedToAwait",
      "kBreakToTlbi",
      "kTlbiToMake",
      "kSnapshotToStore",
      "kRmapContended",
      "kTopUp",
      "kGracePeriod",
      "kReadLocked",
      "kWriteLocked",
      "kYield",
      "kUnlock",
      "kHeavyBarrier"};
  static_assert(static_cast<size_t>(HookPoint::kHeavyBarrier) + 1 ==
                kNames.size());
  return kNames[static_cast<size_t>(point)];
}

}  // namespace mmu
