#include "mmu_core/vm/jobs/throttle.h"

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/format.h"
#include "mmu_core/base/level.h"
#include "mmu_core/base/reason.h"

namespace mmu {
namespace {

absl::Status BadThrottle(const char* field, const std::string& message) {
  return MakeError(absl::StatusCode::kInvalidArgument,
                   {Reason::kInvalidThrottle, field, 0}, message);
}

absl::Status CheckRate(const char* field, int64_t per_second) {
  if (per_second >= 0) return absl::OkStatus();
  return BadThrottle(
      field, Format("%s is %d; it must be 0 (no limit) or positive", field,
                    per_second));
}

absl::Status CheckDuration(const char* field, absl::Duration value,
                           absl::Duration least, absl::Duration most) {
  if (value >= least && value <= most) return absl::OkStatus();
  return BadThrottle(
      field, Format("%s is %s; it must be from %s to %s", field,
                    absl::FormatDuration(value), absl::FormatDuration(least),
                    absl::FormatDuration(most)));
}

}  // namespace

absl::Status ValidateThrottle(const Throttle& throttle) {
  if (absl::Status s =
          CheckRate("max_pages_per_second", throttle.max_pages_per_second);
      !s.ok()) {
    return s;
  }
  const auto two_mib = static_cast<int64_t>(BytesPer(Level::k2M));
  const auto gib = static_cast<int64_t>(BytesPer(Level::k1G));
  if (throttle.chunk_bytes <= 0 || throttle.chunk_bytes > gib ||
      throttle.chunk_bytes % two_mib != 0) {
    return BadThrottle("chunk_bytes",
                       Format("chunk_bytes is %d; it must be a positive "
                              "multiple of 2 MiB (%d), at most 1 GiB",
                              throttle.chunk_bytes, two_mib));
  }
  if (absl::Status s = CheckDuration("max_lock_hold", throttle.max_lock_hold,
                                     absl::Microseconds(10), absl::Seconds(1));
      !s.ok()) {
    return s;
  }
  if (absl::Status s = CheckDuration("min_pause", throttle.min_pause,
                                     absl::ZeroDuration(), absl::Seconds(10));
      !s.ok()) {
    return s;
  }
  if (absl::Status s =
          CheckRate("max_flushes_per_second", throttle.max_flushes_per_second);
      !s.ok()) {
    return s;
  }
  if (!(throttle.max_vcpu_stall_ratio >= 0 &&
        throttle.max_vcpu_stall_ratio <= 1)) {
    return BadThrottle(
        "max_vcpu_stall_ratio",
        Format("max_vcpu_stall_ratio is %g; it must be 0 (no limit) to 1",
               throttle.max_vcpu_stall_ratio));
  }
  return absl::OkStatus();
}

}  // namespace mmu
