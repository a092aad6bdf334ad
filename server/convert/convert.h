// Between mmud.v1's shared messages and mmu_core's values. Field rules are
// checked here; errors name the field as it stands in the message.

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
#include "mmu_core/vm/jobs/throttle.h"
#include "mmud/v1/common.pb.h"
#include "server/base/wall_time.h"
#include "server/control/managed_vm.h"

namespace mmud {

// Of one request: `ranges`, `extents` and the like.
inline constexpr int kMaxExtents = 65536;
// Payload of one stream message.
inline constexpr int64_t kDefaultMessageBytes = 256 << 10;
inline constexpr int64_t kMinMessageBytes = 4096;
inline constexpr int64_t kMaxMessageBytes = (1 << 20) - (64 << 10);
// A page of a list that has reached this ends, whatever page_size says: clients
// of gRPC receive 4 MiB.
inline constexpr size_t kMaxPageBytes = 1 << 20;

// For messages: "1.5s", or its fields if it is no valid duration.
std::string Show(const google::protobuf::Duration& proto);

google::protobuf::Duration ToProto(absl::Duration duration);
google::protobuf::Timestamp ToProto(WallTime time);
// False if it is not a valid Duration message.
bool FromProto(const google::protobuf::Duration& proto, absl::Duration* out);

v1::MmuCost ToProto(const mmu::MmuCost& cost);
v1::DurationHistogram ToProto(const mmu::LatencySnapshot& histogram);
v1::PageSize ToPageSize(mmu::Level level);

// INVALID_PAGE_SIZE for anything else than `unset` and the three sizes.
absl::StatusOr<mmu::Level> ToLevel(v1::PageSize size, mmu::Level unset,
                                   absl::string_view field);

v1::Throttle ToProto(const mmu::Throttle& throttle);
// `base` with what `proto` gives: the defaults for work that is started, the
// present throttle for an update. INVALID_THROTTLE.
absl::StatusOr<mmu::Throttle> ToThrottle(const v1::Throttle& proto,
                                         absl::string_view field,
                                         const mmu::Throttle& base = {});

v1::Extent ToExtent(mmu::GfnRange range);
// UNALIGNED, INVALID_RANGE, INVALID_SIZE.
absl::StatusOr<mmu::GfnRange> ToRange(const v1::Extent& extent,
                                      absl::string_view field);
// Several ranges inside the memslots of `vm`, in the order given; none given
// means every memslot, ascending. Also GPA_OUT_OF_RANGE, LIMIT_EXCEEDED.
absl::StatusOr<std::vector<mmu::GfnRange>> ToRangesOfVm(
    const google::protobuf::RepeatedPtrField<v1::Extent>& extents,
    const ManagedVm& vm, absl::string_view field);

// The bytes of one stream message's payload: INVALID_MESSAGE_SIZE.
absl::StatusOr<int64_t> ToMessageBytes(int64_t bytes);

// INVALID_SLOT unless 0..32763.
absl::StatusOr<uint32_t> ToSlot(int32_t slot, absl::string_view field);

// The largest there is for what does not fit.
int32_t ToInt32(uint64_t value);

}  // namespace mmud

#endif  // SERVER_CONVERT_CONVERT_H_
