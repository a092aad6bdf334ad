#include "server/convert/convert.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/vm/core/vm_config.h"
#include "mmu_core/vm/jobs/split_job.h"
#include "server/base/errors.h"
#include "server/base/resource_names.h"
#include "server/control/slot_ranges.h"

namespace mmud {
namespace {

constexpr int64_t kNanosPerSecond = 1'000'000'000;
// The limit of a valid Duration message.
constexpr int64_t kMaxDurationSeconds = 315'576'000'000;

// The form of a duration only: mmu::ValidateThrottle checks its bounds.
absl::Status ThrottleDuration(const google::protobuf::Duration& proto,
                              absl::string_view field, absl::string_view name,
                              absl::Duration* out) {
  if (FromProto(proto, out)) return absl::OkStatus();
  return WrongValue(mmu::Reason::kInvalidThrottle,
                    absl::StrCat(field, ".", name), Show(proto),
                    absl::StrCat("at most ", kMaxDurationSeconds,
                                 " seconds, and seconds and nanos of the same "
                                 "sign, with less than a second in nanos"));
}

}  // namespace

google::protobuf::Duration ToProto(absl::Duration duration) {
  duration = std::clamp(duration, -absl::Seconds(kMaxDurationSeconds),
                        absl::Seconds(kMaxDurationSeconds));
  google::protobuf::Duration proto;
  proto.set_seconds(absl::IDivDuration(duration, absl::Seconds(1), &duration));
  proto.set_nanos(static_cast<int32_t>(
      absl::IDivDuration(duration, absl::Nanoseconds(1), &duration)));
  return proto;
}

google::protobuf::Timestamp ToProto(WallTime time) {
  const int64_t nanos = time.unix_nanos();
  google::protobuf::Timestamp proto;
  proto.set_seconds(nanos / kNanosPerSecond);
  proto.set_nanos(static_cast<int32_t>(nanos % kNanosPerSecond));
  return proto;
}

std::string Show(const google::protobuf::Duration& proto) {
  absl::Duration duration;
  if (FromProto(proto, &duration)) return absl::FormatDuration(duration);
  return absl::StrCat("{seconds: ", proto.seconds(), ", nanos: ", proto.nanos(),
                      "}");
}

bool FromProto(const google::protobuf::Duration& proto, absl::Duration* out) {
  const bool same_sign = (proto.seconds() >= 0 && proto.nanos() >= 0) ||
                         (proto.seconds() <= 0 && proto.nanos() <= 0);
  if (!same_sign || proto.nanos() <= -kNanosPerSecond ||
      proto.nanos() >= kNanosPerSecond ||
      proto.seconds() < -kMaxDurationSeconds ||
      proto.seconds() > kMaxDurationSeconds) {
    return false;
  }
  *out = absl::Seconds(proto.seconds()) + absl::Nanoseconds(proto.nanos());
  return true;
}

v1::MmuCost ToProto(const mmu::MmuCost& cost) {
  v1::MmuCost proto;
  *proto.mutable_wall_time() = ToProto(cost.wall);
  *proto.mutable_lock_wait() = ToProto(cost.lock_wait);
  *proto.mutable_max_lock_hold() = ToProto(cost.max_lock_hold);
  proto.set_tlb_flush_count(cost.tlb_flush_count);
  proto.set_vcpus_kicked_count(cost.vcpus_kicked_count);
  proto.set_sptes_visited_count(cost.sptes_visited_count);
  return proto;
}

v1::DurationHistogram ToProto(const mmu::LatencySnapshot& histogram) {
  v1::DurationHistogram proto;
  const auto counts = histogram.counts();
  for (int i = 0; i <= mmu::kLatencyBounds; ++i) {
    auto* bucket = proto.add_buckets();
    if (i < mmu::kLatencyBounds) {
      *bucket->mutable_upper_bound() =
          ToProto(absl::Nanoseconds(mmu::LatencyBoundNanos(i)));
    }
    bucket->set_observation_count(static_cast<int64_t>(counts[i]));
  }
  proto.set_observation_count(static_cast<int64_t>(histogram.count));
  *proto.mutable_total() = ToProto(absl::Nanoseconds(histogram.sum_nanos));
  return proto;
}

v1::PageSize ToPageSize(mmu::Level level) {
  switch (level) {
    case mmu::Level::k4K:
      return v1::PAGE_SIZE_4K;
    case mmu::Level::k2M:
      return v1::PAGE_SIZE_2M;
    default:
      return v1::PAGE_SIZE_1G;
  }
}

absl::StatusOr<mmu::Level> ToLevel(v1::PageSize size, mmu::Level unset,
                                   absl::string_view field) {
  switch (size) {
    case v1::PAGE_SIZE_UNSPECIFIED:
      return unset;
    case v1::PAGE_SIZE_4K:
      return mmu::Level::k4K;
    case v1::PAGE_SIZE_2M:
      return mmu::Level::k2M;
    case v1::PAGE_SIZE_1G:
      return mmu::Level::k1G;
    default:
      return InvalidField(mmu::Reason::kInvalidPageSize, field,
                          absl::StrCat(field, " is ", static_cast<int>(size),
                                       "; it must be 4K, 2M or 1G"));
  }
}

v1::Throttle ToProto(const mmu::Throttle& throttle) {
  v1::Throttle proto;
  proto.set_max_pages_per_second(throttle.max_pages_per_second);
  proto.set_chunk_bytes(throttle.chunk_bytes);
  *proto.mutable_max_lock_hold() = ToProto(throttle.max_lock_hold);
  *proto.mutable_min_pause() = ToProto(throttle.min_pause);
  proto.set_max_flushes_per_second(throttle.max_flushes_per_second);
  proto.set_max_vcpu_stall_ratio(throttle.max_vcpu_stall_ratio);
  return proto;
}

absl::StatusOr<mmu::Throttle> ToThrottle(const v1::Throttle& proto,
                                         absl::string_view field,
                                         const mmu::Throttle& base) {
  mmu::Throttle throttle = base;
  if (proto.has_max_pages_per_second()) {
    throttle.max_pages_per_second = proto.max_pages_per_second();
  }
  if (proto.has_chunk_bytes()) throttle.chunk_bytes = proto.chunk_bytes();
  if (proto.has_max_lock_hold()) {
    absl::Status status = ThrottleDuration(
        proto.max_lock_hold(), field, "max_lock_hold", &throttle.max_lock_hold);
    if (!status.ok()) return status;
  }
  if (proto.has_min_pause()) {
    absl::Status status = ThrottleDuration(proto.min_pause(), field,
                                           "min_pause", &throttle.min_pause);
    if (!status.ok()) return status;
  }
  if (proto.has_max_flushes_per_second()) {
    throttle.max_flushes_per_second = proto.max_flushes_per_second();
  }
  if (proto.has_max_vcpu_stall_ratio()) {
    throttle.max_vcpu_stall_ratio = proto.max_vcpu_stall_ratio();
  }
  if (absl::Status status = mmu::ValidateThrottle(throttle); !status.ok()) {
    return InField(status, absl::StrCat(field, "."));
  }
  return throttle;
}

v1::Extent ToExtent(mmu::GfnRange range) {
  v1::Extent extent;
  extent.set_gpa_bytes(static_cast<int64_t>(mmu::ToGpa(range.start).value()));
  extent.set_size_bytes(static_cast<int64_t>(range.bytes()));
  return extent;
}

absl::StatusOr<mmu::GfnRange> ToRange(const v1::Extent& extent,
                                      absl::string_view field) {
  const auto bad = [field](mmu::Reason reason, absl::string_view name,
                           int64_t value, absl::string_view rule) {
    return InvalidField(
        reason, absl::StrCat(field, ".", name),
        absl::StrCat(field, ".", name, " is ", value, "; it must ", rule));
  };
  if (extent.gpa_bytes() < 0) {
    return bad(mmu::Reason::kInvalidRange, "gpa_bytes", extent.gpa_bytes(),
               "not be negative");
  }
  if (extent.size_bytes() <= 0) {
    return bad(mmu::Reason::kInvalidSize, "size_bytes", extent.size_bytes(),
               "be positive");
  }
  if (extent.gpa_bytes() % 4096 != 0) {
    return bad(mmu::Reason::kUnaligned, "gpa_bytes", extent.gpa_bytes(),
               "be a multiple of 4096");
  }
  if (extent.size_bytes() % 4096 != 0) {
    return bad(mmu::Reason::kUnaligned, "size_bytes", extent.size_bytes(),
               "be a multiple of 4096");
  }
  if (extent.size_bytes() >
      std::numeric_limits<int64_t>::max() - extent.gpa_bytes()) {
    return bad(mmu::Reason::kInvalidRange, "size_bytes", extent.size_bytes(),
               "not reach beyond the end of all addresses");
  }
  const mmu::Gpa start(static_cast<uint64_t>(extent.gpa_bytes()));
  return mmu::GfnRange::Of(
      mmu::ToGfn(start),
      static_cast<uint64_t>(extent.size_bytes()) >> mmu::kPageShift);
}

absl::StatusOr<std::vector<mmu::GfnRange>> ToRangesOfVm(
    const google::protobuf::RepeatedPtrField<v1::Extent>& extents,
    const std::vector<mmu::MemslotInfo>& slots, absl::string_view field) {
  if (extents.size() > kMaxExtents) {
    return LimitExceeded("max_extents_per_call",
                         absl::StrCat(field, " has ", extents.size(),
                                      " entries; it may have ", kMaxExtents));
  }
  const std::vector<mmu::GfnRange> covered = SlotRanges(slots);
  std::vector<mmu::GfnRange> ranges;
  if (extents.empty()) {
    for (const mmu::MemslotInfo& slot : slots) {
      ranges.push_back(
          mmu::GfnRange::Of(mmu::ToGfn(slot.config.gpa),
                            slot.config.size_bytes >> mmu::kPageShift));
    }
    return ranges;
  }
  for (int i = 0; i < extents.size(); ++i) {
    const std::string name = absl::StrCat(field, "[", i, "]");
    absl::StatusOr<mmu::GfnRange> range = ToRange(extents[i], name);
    if (!range.ok()) return range.status();
    if (absl::Status status = CheckInsideSlots(*range, covered, name);
        !status.ok()) {
      return status;
    }
    ranges.push_back(*range);
  }
  return ranges;
}

absl::StatusOr<int64_t> ToMessageBytes(int64_t bytes) {
  if (bytes == 0) return kDefaultMessageBytes;
  if (bytes >= kMinMessageBytes && bytes <= kMaxMessageBytes) {
    return bytes / 4096 * 4096;
  }
  return InvalidField(
      mmu::Reason::kInvalidMessageSize, "max_message_bytes",
      absl::StrCat("max_message_bytes is ", bytes, "; it must be 0 or from ",
                   kMinMessageBytes, " to ", kMaxMessageBytes));
}

absl::StatusOr<uint32_t> ToSlot(int32_t slot, absl::string_view field) {
  if (slot >= 0 && slot <= static_cast<int32_t>(kMaxSlot)) {
    return static_cast<uint32_t>(slot);
  }
  return InvalidField(
      mmu::Reason::kInvalidSlot, field,
      absl::StrCat(field, " is ", slot, "; it must be from 0 to ", kMaxSlot));
}

int32_t ToInt32(uint64_t value) {
  return static_cast<int32_t>(
      std::min<uint64_t>(value, std::numeric_limits<int32_t>::max()));
}

}  // namespace mmud
