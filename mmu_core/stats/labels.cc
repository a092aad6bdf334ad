#include "mmu_core/stats/labels.h"

#include <array>
#include <cstddef>
#include <string_view>

namespace mmu {
namespace {

template <typename Enum, size_t N>
std::string_view Name(const std::array<std::string_view, N>& names,
                      Enum value) {
  const auto index = static_cast<size_t>(value);
  return index < N ? names[index] : "invalid";
}

constexpr std::array<std::string_view, kMmuKinds> kMmuKindNames = {
    "tdp", "shadow", "stage2"};
constexpr std::array<std::string_view, kLockOps> kLockOpNames = {
    "fault", "enable",  "split",   "clear",   "age",
    "zap",   "recover", "memslot", "notifier"};
constexpr std::array<std::string_view, kLockModes> kLockModeNames = {"read",
                                                                     "write"};
constexpr std::array<std::string_view, kFlushScopes> kFlushScopeNames = {
    "vm", "range", "vcpu"};
constexpr std::array<std::string_view, kFlushReasons> kFlushReasonNames = {
    "zap",    "write_protect", "clear_dirty", "split", "recover",
    "unsync", "root",          "notifier",    "age",   "bbm"};
constexpr std::array<std::string_view, kStallCauses> kStallCauseNames = {
    "write_protect", "split", "lock", "flush", "ring_full", "invalidation"};
constexpr std::array<std::string_view, kFaultOutcomes> kFaultOutcomeNames = {
    "fixed", "fast", "spurious", "emulate", "retry", "error"};
constexpr std::array<std::string_view, kSplitTriggers> kSplitTriggerNames = {
    "eager", "clear", "fault", "nx", "request"};
constexpr std::array<std::string_view, kSplitFailures> kSplitFailureNames = {
    "no_memory", "raced", "limit", "invalid_root"};
constexpr std::array<std::string_view, kAgingLocks> kAgingLockNames = {
    "none", "rmap", "write"};
constexpr std::array<std::string_view, kThrottleLimits> kThrottleLimitNames = {
    "rate", "lock_hold", "flush", "stall", "pause"};
constexpr std::array<std::string_view, kTlbiKinds> kTlbiKindNames = {
    "ipas2e1is", "ripas2e1is", "vmalls12e1is",
    "vmalle1is", "ipas2e1",    "vmalle1"};

}  // namespace

std::string_view ToString(MmuKind kind) { return Name(kMmuKindNames, kind); }
std::string_view ToString(LockOp op) { return Name(kLockOpNames, op); }
std::string_view ToString(LockMode mode) { return Name(kLockModeNames, mode); }
std::string_view ToString(FlushScope scope) {
  return Name(kFlushScopeNames, scope);
}
std::string_view ToString(FlushReason reason) {
  return Name(kFlushReasonNames, reason);
}
std::string_view ToString(StallCause cause) {
  return Name(kStallCauseNames, cause);
}
std::string_view ToString(FaultOutcome outcome) {
  return Name(kFaultOutcomeNames, outcome);
}
std::string_view ToString(SplitTrigger trigger) {
  return Name(kSplitTriggerNames, trigger);
}
std::string_view ToString(SplitFailure failure) {
  return Name(kSplitFailureNames, failure);
}
std::string_view ToString(AgingLock lock) {
  return Name(kAgingLockNames, lock);
}
std::string_view ToString(ThrottleLimit limit) {
  return Name(kThrottleLimitNames, limit);
}
std::string_view ToString(TlbiKind kind) { return Name(kTlbiKindNames, kind); }

}  // namespace mmu
