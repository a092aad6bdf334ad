#include "mmu_core/base/reason.h"

#include <array>
#include <cstddef>
#include <string_view>

namespace mmu {
namespace {

struct Named {
  Reason reason;
  std::string_view name;
};

constexpr std::array<Named, kReasons> kNames = {{
    {Reason::kNone, ""},
    {Reason::kInvalidName, "INVALID_NAME"},
    {Reason::kInvalidRequestId, "INVALID_REQUEST_ID"},
    {Reason::kInvalidPageSize, "INVALID_PAGE_SIZE"},
    {Reason::kInvalidPageToken, "INVALID_PAGE_TOKEN"},
    {Reason::kInvalidFilter, "INVALID_FILTER"},
    {Reason::kUnaligned, "UNALIGNED"},
    {Reason::kInvalidSize, "INVALID_SIZE"},
    {Reason::kInvalidRange, "INVALID_RANGE"},
    {Reason::kInvalidSlot, "INVALID_SLOT"},
    {Reason::kInvalidLabel, "INVALID_LABEL"},
    {Reason::kTooManyPages, "TOO_MANY_PAGES"},
    {Reason::kRegionOverlap, "REGION_OVERLAP"},
    {Reason::kInvalidVcpuCount, "INVALID_VCPU_COUNT"},
    {Reason::kInvalidMmuOption, "INVALID_MMU_OPTION"},
    {Reason::kInvalidPattern, "INVALID_PATTERN"},
    {Reason::kInvalidThrottle, "INVALID_THROTTLE"},
    {Reason::kInvalidDirtyLogMode, "INVALID_DIRTY_LOG_MODE"},
    {Reason::kInvalidSplitPolicy, "INVALID_SPLIT_POLICY"},
    {Reason::kInvalidTtl, "INVALID_TTL"},
    {Reason::kInvalidOwner, "INVALID_OWNER"},
    {Reason::kInvalidOwnerToken, "INVALID_OWNER_TOKEN"},
    {Reason::kInvalidLease, "INVALID_LEASE"},
    {Reason::kInvalidLogId, "INVALID_LOG_ID"},
    {Reason::kInvalidBitmap, "INVALID_BITMAP"},
    {Reason::kUnalignedClear, "UNALIGNED_CLEAR"},
    {Reason::kInvalidResumeOffset, "INVALID_RESUME_OFFSET"},
    {Reason::kInvalidMessageSize, "INVALID_MESSAGE_SIZE"},
    {Reason::kInvalidWindow, "INVALID_WINDOW"},
    {Reason::kInvalidAgingMode, "INVALID_AGING_MODE"},
    {Reason::kInvalidEnumValue, "INVALID_ENUM_VALUE"},
    {Reason::kMemslotImmutable, "MEMSLOT_IMMUTABLE"},
    {Reason::kInvalidRequest, "INVALID_REQUEST"},
    {Reason::kInvalidUpdateMask, "INVALID_UPDATE_MASK"},
    {Reason::kInvalidDuration, "INVALID_DURATION"},
    {Reason::kVmNotFound, "VM_NOT_FOUND"},
    {Reason::kMemslotNotFound, "MEMSLOT_NOT_FOUND"},
    {Reason::kOperationNotFound, "OPERATION_NOT_FOUND"},
    {Reason::kTraceNotFound, "TRACE_NOT_FOUND"},
    {Reason::kEpochUnknown, "EPOCH_UNKNOWN"},
    {Reason::kWorkloadNotFound, "WORKLOAD_NOT_FOUND"},
    {Reason::kGpaOutOfRange, "GPA_OUT_OF_RANGE"},
    {Reason::kVmExists, "VM_EXISTS"},
    {Reason::kDirtyLogActive, "DIRTY_LOG_ACTIVE"},
    {Reason::kRequestIdReused, "REQUEST_ID_REUSED"},
    {Reason::kOperationRunning, "OPERATION_RUNNING"},
    {Reason::kOperationDone, "OPERATION_DONE"},
    {Reason::kWorkloadRunning, "WORKLOAD_RUNNING"},
    {Reason::kWorkloadNotRunning, "WORKLOAD_NOT_RUNNING"},
    {Reason::kDirtyLogOff, "DIRTY_LOG_OFF"},
    {Reason::kUndeliveredPages, "UNDELIVERED_PAGES"},
    {Reason::kNoContents, "NO_CONTENTS"},
    {Reason::kNoShadowPages, "NO_SHADOW_PAGES"},
    {Reason::kGuestLost, "GUEST_LOST"},
    {Reason::kVmDeleted, "VM_DELETED"},
    {Reason::kLogOwned, "LOG_OWNED"},
    {Reason::kLogFenced, "LOG_FENCED"},
    {Reason::kInsufficientHistory, "INSUFFICIENT_HISTORY"},
    {Reason::kFastAgingUnavailable, "FAST_AGING_UNAVAILABLE"},
    {Reason::kNoGeneration, "NO_GENERATION"},
    {Reason::kSplitRunning, "SPLIT_RUNNING"},
    {Reason::kGenerationRunning, "GENERATION_RUNNING"},
    {Reason::kEpochMismatch, "EPOCH_MISMATCH"},
    {Reason::kEpochSuperseded, "EPOCH_SUPERSEDED"},
    {Reason::kLogChanged, "LOG_CHANGED"},
    {Reason::kDirtyLogStarting, "DIRTY_LOG_STARTING"},
    {Reason::kEtagMismatch, "ETAG_MISMATCH"},
    {Reason::kOperationCancelled, "OPERATION_CANCELLED"},
    {Reason::kCallCancelled, "CALL_CANCELLED"},
    {Reason::kResourceExhaustedMemory, "RESOURCE_EXHAUSTED_MEMORY"},
    {Reason::kLimitExceeded, "LIMIT_EXCEEDED"},
    {Reason::kTraceTooLarge, "TRACE_TOO_LARGE"},
    {Reason::kMmuPagesExhausted, "MMU_PAGES_EXHAUSTED"},
    {Reason::kShadowPagesExhausted, "SHADOW_PAGES_EXHAUSTED"},
    {Reason::kDraining, "DRAINING"},
    {Reason::kThreadsExhausted, "THREADS_EXHAUSTED"},
    {Reason::kTraceCorrupt, "TRACE_CORRUPT"},
    {Reason::kDebugDisabled, "DEBUG_DISABLED"},
    {Reason::kNxOptOutDenied, "NX_OPT_OUT_DENIED"},
    {Reason::kInternalError, "INTERNAL_ERROR"},
    {Reason::kAccounting, "ACCOUNTING"},
    {Reason::kDirtyRingFull, "DIRTY_RING_FULL"},
    {Reason::kGuestPageFault, "GUEST_PAGE_FAULT"},
    {Reason::kHostFrameMissing, "HOST_FRAME_MISSING"},
    {Reason::kHostReadOnly, "HOST_READ_ONLY"},
    {Reason::kInterrupted, "INTERRUPTED"},
    {Reason::kInvalidFlags, "INVALID_FLAGS"},
    {Reason::kInvalidNxHugePages, "INVALID_NX_HUGE_PAGES"},
    {Reason::kMemslotChanging, "MEMSLOT_CHANGING"},
    {Reason::kNoMemoryThere, "NO_MEMORY_THERE"},
    {Reason::kNoTdpMmu, "NO_TDP_MMU"},
    {Reason::kNxHugePagesNever, "NX_HUGE_PAGES_NEVER"},
    {Reason::kVmExistsAlready, "VM_EXISTS_ALREADY"},
}};

constexpr bool EachIsInItsPlace() {
  for (size_t i = 0; i < kNames.size(); ++i) {
    if (kNames[i].reason != static_cast<Reason>(i)) return false;
  }
  return true;
}
static_assert(EachIsInItsPlace());

}  // namespace

std::string_view ToString(Reason reason) {
  return kNames[static_cast<size_t>(reason)].name;
}

Reason ReasonNamed(std::string_view name) {
  for (const Named& named : kNames) {
    if (named.name == name) return named.reason;
  }
  return Reason::kNone;
}

}  // namespace mmu
