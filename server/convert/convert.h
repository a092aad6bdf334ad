// Converts between mmud.v1's shared messages and mmu_core's values. Field rules
// are checked here; errors name the field by its path in the message.

#ifndef SERVER_CONVERT_CONVERT_H_
#define SERVER_CONVERT_CONVERT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "google/protobuf/duration.pb.h"
#include "google/protobuf/repeated_field.h"
#include "google/protobuf/timestamp.pb.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/stats/latency_histogram.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/vm/core/vm_config.h"
#include "mmu_core/vm/jobs/throttle.h"
#include "mmud/v1/common.pb.h"
#include "server/base/wall_time.h"

namespace mmud {

// Limit on the ranges of one request: `ranges`, `extents` and the like.
inline constexpr int kMaxExtents = 65536;
// Payload of one stream message.
inline constexpr int64_t kDefaultMessageBytes = 256 << 10;
inline constexpr int64_t kMinMessageBytes = 4096;
inline constexpr int64_t kMaxMessageBytes = (1 << 20) - (64 << 10);
// A page of a list ends once it has this size, even if page_size allows more:
// gRPC's clients receive at most 4 MiB.
inline constexpr size_t kMaxPageBytes = 1 << 20;

// The duration for error messages: "1.5s", or its fields if it is not valid.
std::string Show(const google::protobuf::Duration& proto);

google::protobuf::Duration ToProto(absl::Duration duration);
google::protobuf::Timestamp ToProto(WallTime time);
// False if it is not a valid Duration message.
bool FromProto(const google::protobuf::Duration& proto, absl::Duration* out);

v1::MmuCost ToProto(const mmu::MmuCost& cost);
v1::DurationHistogram ToProto(const mmu::LatencySnapshot& histogram);
v1::PageSize ToPageSize(mmu::Level level);

// The level of a page size, or `unset` if it is unspecified. INVALID_PAGE_SIZE
// for any other value.
absl::StatusOr<mmu::Level> ToLevel(v1::PageSize size, mmu::Level unset,
                                   absl::string_view field);

v1::Throttle ToProto(const mmu::Throttle& throttle);
// `base` with the fields that `proto` sets. `base` is the default throttle for
// work that is started, or the current throttle for an update.
// INVALID_THROTTLE.
absl::StatusOr<mmu::Throttle> ToThrottle(const v1::Throttle& proto,
                                         absl::string_view field,
                                         const mmu::Throttle& base = {});

v1::Extent ToExtent(mmu::GfnRange range);
// Errors: UNALIGNED, INVALID_RANGE, INVALID_SIZE.
absl::StatusOr<mmu::GfnRange> ToRange(const v1::Extent& extent,
                                      absl::string_view field);
// The given ranges, which must be inside a VM's memslots, in the given order.
// Without ranges: every memslot. `slots` are all of the VM's, ascending by
// address. Errors: as ToRange, and GPA_OUT_OF_RANGE, LIMIT_EXCEEDED.
absl::StatusOr<std::vector<mmu::GfnRange>> ToRangesOfVm(
    const google::protobuf::RepeatedPtrField<v1::Extent>& extents,
    const std::vector<mmu::MemslotInfo>& slots, absl::string_view field);

// The payload size of one stream message, in bytes. INVALID_MESSAGE_SIZE.
absl::StatusOr<int64_t> ToMessageBytes(int64_t bytes);

// INVALID_SLOT unless 0..32763.
absl::StatusOr<uint32_t> ToSlot(int32_t slot, absl::string_view field);

// The value, or the largest int32_t if it does not fit.
int32_t ToInt32(uint64_t value);

}  // namespace mmud

#endif  // SERVER_CONVERT_CONVERT_H_
