// The labels by which costs are counted: the operation that took mmu_lock, the
// reason of a TLB flush, the cause of a vCPU's stall. The values of each label
// are bounded. They are exported, so a new value is a new series.

#ifndef MMU_CORE_STATS_LABELS_H_
#define MMU_CORE_STATS_LABELS_H_

#include <cstdint>
#include <string_view>

namespace mmu {

// The MMUs that a VM may have.
enum class MmuKind : uint8_t { kTdp, kShadow, kStage2 };
inline constexpr int kMmuKinds = 3;

// The operation that took mmu_lock.
enum class LockOp : uint8_t {
  kFault,
  kEnable,
  kSplit,
  kClear,
  kAge,
  kZap,
  kRecover,
  kMemslot,
  kNotifier,
};
inline constexpr int kLockOps = 9;

enum class LockMode : uint8_t { kRead, kWrite };
inline constexpr int kLockModes = 2;

enum class FlushScope : uint8_t { kVm, kRange, kVcpu };
inline constexpr int kFlushScopes = 3;

enum class FlushReason : uint8_t {
  kZap,
  kWriteProtect,
  kClearDirty,
  kSplit,
  kRecover,
  kUnsync,
  kRoot,
  kNotifier,
  kAge,
  kBbm,
};
inline constexpr int kFlushReasons = 10;

enum class StallCause : uint8_t {
  kWriteProtect,
  kSplit,
  kLock,
  kFlush,
  kRingFull,
  // The vCPU waited because the host was invalidating the page or its memslot
  // was changing.
  kInvalidation,
};
inline constexpr int kStallCauses = 6;

// Outcome of a page fault. kFast: fixed without mmu_lock. kFixed: fixed with
// it. kEmulate: no mapping allows the access, so it is emulated. kError: the
// host could not serve it.
enum class FaultOutcome : uint8_t {
  kFixed,
  kFast,
  kSpurious,
  kEmulate,
  kRetry,
  kError,
};
inline constexpr int kFaultOutcomes = 6;

// The cause of a huge page's split.
enum class SplitTrigger : uint8_t { kEager, kClear, kFault, kNx, kRequest };
inline constexpr int kSplitTriggers = 5;

enum class SplitFailure : uint8_t { kNoMemory, kRaced, kLimit, kInvalidRoot };
inline constexpr int kSplitFailures = 4;

// The lock that an MMU takes to age pages: none, the bit lock of each rmap, or
// mmu_lock in write mode.
enum class AgingLock : uint8_t { kNone, kRmap, kWrite };
inline constexpr int kAgingLocks = 3;

// The limit of a throttle that made an operation wait.
enum class ThrottleLimit : uint8_t { kRate, kLockHold, kFlush, kStall, kPause };
inline constexpr int kThrottleLimits = 5;

// A TLB invalidate instruction of arm64 (tlb/tlbi.h).
enum class TlbiKind : uint8_t {
  kIpa,
  kIpaRange,
  kVmid,
  kStage1,
  kIpaLocal,
  kStage1Local,
};
inline constexpr int kTlbiKinds = 6;

std::string_view ToString(MmuKind kind);
std::string_view ToString(LockOp op);
std::string_view ToString(LockMode mode);
std::string_view ToString(FlushScope scope);
std::string_view ToString(FlushReason reason);
std::string_view ToString(StallCause cause);
std::string_view ToString(FaultOutcome outcome);
std::string_view ToString(SplitTrigger trigger);
std::string_view ToString(SplitFailure failure);
std::string_view ToString(AgingLock lock);
std::string_view ToString(ThrottleLimit limit);
std::string_view ToString(TlbiKind kind);

}  // namespace mmu

#endif  // MMU_CORE_STATS_LABELS_H_
