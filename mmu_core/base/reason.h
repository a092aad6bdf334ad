// The reasons of errors: one list for the whole project.
//
// A reason tells a program which rule was broken. The wire carries the
// reason's name. ErrorReason in proto/mmud/v1/error_reasons.proto describes
// each reason; //tests/proto_conventions compares the two lists.

#ifndef MMU_CORE_BASE_REASON_H_
#define MMU_CORE_BASE_REASON_H_

#include <cstddef>
#include <cstdint>
#include <ostream>
#include <string_view>

namespace mmu {

// In the order of ErrorReason, by the status code that most often goes with
// them.
enum class Reason : uint8_t {
  kNone,  // no reason was given

  // INVALID_ARGUMENT.
  kInvalidName,
  kInvalidRequestId,
  kInvalidPageSize,
  kInvalidPageToken,
  kInvalidFilter,
  kUnaligned,
  kInvalidSize,
  kInvalidRange,
  kInvalidSlot,
  kInvalidLabel,
  kTooManyPages,
  kRegionOverlap,
  kInvalidVcpuCount,
  kInvalidMmuOption,
  kInvalidPattern,
  kInvalidThrottle,
  kInvalidDirtyLogMode,
  kInvalidSplitPolicy,
  kInvalidTtl,
  kInvalidOwner,
  kInvalidOwnerToken,
  kInvalidLease,
  kInvalidLogId,
  kInvalidBitmap,
  kUnalignedClear,
  kInvalidResumeOffset,
  kInvalidMessageSize,
  kInvalidWindow,
  kInvalidAgingMode,
  kInvalidEnumValue,
  kMemslotImmutable,
  kInvalidRequest,
  kInvalidUpdateMask,
  kInvalidDuration,

  // NOT_FOUND.
  kVmNotFound,
  kMemslotNotFound,
  kOperationNotFound,
  kTraceNotFound,
  kEpochUnknown,
  kWorkloadNotFound,

  // OUT_OF_RANGE.
  kGpaOutOfRange,

  // ALREADY_EXISTS.
  kVmExists,
  kDirtyLogActive,
  kRequestIdReused,

  // FAILED_PRECONDITION.
  kOperationRunning,
  kOperationDone,
  kWorkloadRunning,
  kWorkloadNotRunning,
  kDirtyLogOff,
  kUndeliveredPages,
  kNoContents,
  kNoShadowPages,
  kGuestLost,
  kVmDeleted,
  kLogOwned,
  kLogFenced,
  kInsufficientHistory,
  kFastAgingUnavailable,
  kNoGeneration,

  // ABORTED.
  kSplitRunning,
  kGenerationRunning,
  kEpochMismatch,
  kEpochSuperseded,
  kLogChanged,
  kDirtyLogStarting,
  kEtagMismatch,

  // CANCELLED.
  kOperationCancelled,
  kCallCancelled,

  // RESOURCE_EXHAUSTED.
  kResourceExhaustedMemory,
  kLimitExceeded,
  kTraceTooLarge,
  kMmuPagesExhausted,
  kShadowPagesExhausted,

  // UNAVAILABLE.
  kDraining,
  kThreadsExhausted,

  // DATA_LOSS.
  kTraceCorrupt,

  // PERMISSION_DENIED or UNIMPLEMENTED.
  kDebugDisabled,
  kNxOptOutDenied,

  // INTERNAL.
  kInternalError,

  // The API has no call that ends with one of these.
  kAccounting,
  kDirtyRingFull,
  kGuestPageFault,
  kHostFrameMissing,
  kHostReadOnly,
  kInterrupted,
  kInvalidFlags,
  kInvalidNxHugePages,
  kMemslotChanging,
  kNoMemoryThere,
  kNoTdpMmu,
  kNxHugePagesNever,
  kVmExistsAlready,
};
inline constexpr size_t kReasons =
    static_cast<size_t>(Reason::kVmExistsAlready) + 1;

// "EPOCH_MISMATCH", ...; "" for kNone. Valid forever.
std::string_view ToString(Reason reason);

// The reason of this name; kNone where there is none.
Reason ReasonNamed(std::string_view name);

inline std::ostream& operator<<(std::ostream& os, Reason reason) {
  return os << ToString(reason);
}

}  // namespace mmu

#endif  // MMU_CORE_BASE_REASON_H_
