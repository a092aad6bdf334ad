#include "server/convert/convert.h"

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "google/protobuf/duration.pb.h"
#include "google/protobuf/repeated_field.h"
#include "gtest/gtest.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/jobs/throttle.h"
#include "mmu_core/vm/vm.h"
#include "mmud/v1/common.pb.h"
#include "server/base/wall_time.h"
#include "server/control/managed_vm.h"

namespace mmud {
namespace {

mmu::Reason Reason(const absl::Status& status) {
  return mmu::DetailOf(status).reason;
}
std::string Field(const absl::Status& status) {
  return mmu::DetailOf(status).field;
}

v1::Extent MakeExtent(int64_t gpa_bytes, int64_t size_bytes) {
  v1::Extent extent;
  extent.set_gpa_bytes(gpa_bytes);
  extent.set_size_bytes(size_bytes);
  return extent;
}

TEST(Convert, DurationsComeBackAsTheyWent) {
  for (const absl::Duration duration :
       {absl::ZeroDuration(), absl::Nanoseconds(1), absl::Milliseconds(-1500),
        absl::Hours(100)}) {
    absl::Duration back;
    ASSERT_TRUE(FromProto(ToProto(duration), &back));
    EXPECT_EQ(back, duration);
  }
}

TEST(Convert, InfiniteDurationsStayValidMessages) {
  absl::Duration back;
  EXPECT_TRUE(FromProto(ToProto(absl::InfiniteDuration()), &back));
  EXPECT_TRUE(FromProto(ToProto(-absl::InfiniteDuration()), &back));
}

TEST(Convert, RefusesDurationsThatAreNone) {
  absl::Duration out;
  google::protobuf::Duration mixed;
  mixed.set_seconds(1);
  mixed.set_nanos(-1);
  EXPECT_FALSE(FromProto(mixed, &out));
  google::protobuf::Duration too_many_nanos;
  too_many_nanos.set_nanos(1'000'000'000);
  EXPECT_FALSE(FromProto(too_many_nanos, &out));
  google::protobuf::Duration too_long;
  too_long.set_seconds(std::numeric_limits<int64_t>::min());
  EXPECT_FALSE(FromProto(too_long, &out));
}

TEST(Convert, AnEmptyThrottleHasTheDefaults) {
  const auto throttle = ToThrottle(v1::Throttle(), "throttle");
  ASSERT_TRUE(throttle.ok());
  EXPECT_EQ(throttle->chunk_bytes, int64_t{2} << 20);
  EXPECT_EQ(throttle->max_lock_hold, absl::Microseconds(200));
  // A field that is not given keeps its present value, though it reads as 0 in
  // the message. A given field counts, even if it is 0.
  const mmu::Throttle present{.max_pages_per_second = 7,
                              .chunk_bytes = int64_t{4} << 20,
                              .max_lock_hold = absl::Milliseconds(1),
                              .min_pause = absl::Seconds(1),
                              .max_flushes_per_second = 9,
                              .max_vcpu_stall_ratio = 0.5};
  v1::Throttle change;
  change.set_max_pages_per_second(0);
  change.set_max_vcpu_stall_ratio(0.25);
  const auto changed = ToThrottle(change, "throttle", present);
  ASSERT_TRUE(changed.ok());
  EXPECT_EQ(changed->max_pages_per_second, 0);
  EXPECT_EQ(changed->chunk_bytes, present.chunk_bytes);
  EXPECT_EQ(changed->max_lock_hold, present.max_lock_hold);
  EXPECT_EQ(changed->min_pause, present.min_pause);
  EXPECT_EQ(changed->max_flushes_per_second, 9);
  EXPECT_EQ(changed->max_vcpu_stall_ratio, 0.25);
  const auto again = ToThrottle(ToProto(*throttle), "throttle");
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(again->chunk_bytes, throttle->chunk_bytes);
  EXPECT_EQ(again->max_lock_hold, throttle->max_lock_hold);
}

TEST(Convert, NamesTheLimitOfAThrottleThatIsOutOfRange) {
  const auto field = [](auto set) {
    v1::Throttle proto;
    set(proto);
    const absl::Status status = ToThrottle(proto, "throttle").status();
    EXPECT_EQ(Reason(status), mmu::Reason::kInvalidThrottle);
    return Field(status);
  };
  EXPECT_EQ(field([](auto& t) { t.set_max_pages_per_second(-1); }),
            "throttle.max_pages_per_second");
  EXPECT_EQ(field([](auto& t) { t.set_chunk_bytes(4096); }),
            "throttle.chunk_bytes");
  EXPECT_EQ(field([](auto& t) { t.set_chunk_bytes(int64_t{2} << 30); }),
            "throttle.chunk_bytes");
  EXPECT_EQ(field([](auto& t) { t.mutable_max_lock_hold()->set_nanos(1); }),
            "throttle.max_lock_hold");
  EXPECT_EQ(field([](auto& t) { t.mutable_max_lock_hold()->set_seconds(2); }),
            "throttle.max_lock_hold");
  EXPECT_EQ(field([](auto& t) { t.mutable_min_pause()->set_seconds(11); }),
            "throttle.min_pause");
  EXPECT_EQ(field([](auto& t) { t.mutable_min_pause()->set_seconds(-1); }),
            "throttle.min_pause");
  EXPECT_EQ(field([](auto& t) { t.set_max_flushes_per_second(-5); }),
            "throttle.max_flushes_per_second");
  EXPECT_EQ(field([](auto& t) { t.set_max_vcpu_stall_ratio(std::nan("")); }),
            "throttle.max_vcpu_stall_ratio");
}

TEST(Convert, ADurationOfAThrottleNeedsTheFormOfADuration) {
  const auto message = [](auto set) {
    v1::Throttle proto;
    set(proto);
    return std::string(ToThrottle(proto, "throttle").status().message());
  };
  const std::string rule =
      "; it must be at most 315576000000 seconds, and seconds and nanos of the "
      "same sign, with less than a second in nanos";
  EXPECT_EQ(message([](auto& t) {
              t.mutable_min_pause()->set_seconds(315'576'000'001);
            }),
            "throttle.min_pause is {seconds: 315576000001, nanos: 0}" + rule);
  EXPECT_EQ(
      message([](auto& t) { t.mutable_min_pause()->set_nanos(1'000'000'000); }),
      "throttle.min_pause is {seconds: 0, nanos: 1000000000}" + rule);
  EXPECT_EQ(message([](auto& t) {
              t.mutable_max_lock_hold()->set_seconds(1);
              t.mutable_max_lock_hold()->set_nanos(-1);
            }),
            "throttle.max_lock_hold is {seconds: 1, nanos: -1}" + rule);
}

TEST(Convert, RangesMustBeAlignedPositiveAndRepresentable) {
  const auto check = [](int64_t gpa, int64_t size) {
    return Reason(ToRange(MakeExtent(gpa, size), "range").status());
  };
  EXPECT_EQ(check(0, 4096), mmu::Reason::kNone);
  EXPECT_EQ(check(-4096, 4096), mmu::Reason::kInvalidRange);
  EXPECT_EQ(check(0, 0), mmu::Reason::kInvalidSize);
  EXPECT_EQ(check(0, -4096), mmu::Reason::kInvalidSize);
  EXPECT_EQ(check(1, 4096), mmu::Reason::kUnaligned);
  EXPECT_EQ(check(0, 4097), mmu::Reason::kUnaligned);
  constexpr int64_t kMaxPage =
      std::numeric_limits<int64_t>::max() / 4096 * 4096;
  EXPECT_EQ(check(4096, kMaxPage), mmu::Reason::kInvalidRange);
}

// Slots at 0..1 MiB and 1..2 MiB, and one at 4..5 MiB.
class ConvertRangesTest : public ::testing::Test {
 protected:
  static constexpr uint64_t kMiB = 1 << 20;
  ConvertRangesTest()
      : vm_("vms/a",
            mmu::testing::MakeVm({mmu::testing::Slot(2, 4 * kMiB, kMiB),
                                  mmu::testing::Slot(0, 0, kMiB),
                                  mmu::testing::Slot(1, kMiB, kMiB)}),
            WallTime::FromUnixNanos(0), ManagedVm::MetricsLabel::kOwn) {}

  static mmu::GfnRange Range(uint64_t gpa, uint64_t size) {
    return mmu::GfnRange::Of(mmu::ToGfn(mmu::Gpa(gpa)), size >> 12);
  }

  ManagedVm vm_;
  google::protobuf::RepeatedPtrField<v1::Extent> extents_;
};

TEST_F(ConvertRangesTest, NoRangeMeansEveryMemslotAscending) {
  EXPECT_EQ(*ToRangesOfVm(extents_, vm_.SortedSlots(), "ranges"),
            (std::vector<mmu::GfnRange>{Range(0, kMiB), Range(kMiB, kMiB),
                                        Range(4 * kMiB, kMiB)}));
}

TEST_F(ConvertRangesTest, ARangeMaySpanAdjacentSlots) {
  *extents_.Add() = MakeExtent(4096, 2 * kMiB - 4096);
  EXPECT_EQ(*ToRangesOfVm(extents_, vm_.SortedSlots(), "ranges"),
            (std::vector<mmu::GfnRange>{Range(4096, 2 * kMiB - 4096)}));
}

TEST_F(ConvertRangesTest, ARangeOutsideIsNamedByItsIndex) {
  *extents_.Add() = MakeExtent(0, 4096);
  *extents_.Add() = MakeExtent(2 * kMiB - 4096, 8192);
  const absl::Status status =
      ToRangesOfVm(extents_, vm_.SortedSlots(), "ranges").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(Reason(status), mmu::Reason::kGpaOutOfRange);
  EXPECT_EQ(Field(status), "ranges[1]");
}

TEST_F(ConvertRangesTest, TooManyRangesAreRefused) {
  for (int i = 0; i <= kMaxExtents; ++i) *extents_.Add() = MakeExtent(0, 4096);
  EXPECT_EQ(
      Reason(ToRangesOfVm(extents_, vm_.SortedSlots(), "ranges").status()),
      mmu::Reason::kLimitExceeded);
}

TEST(Convert, MessageSizesAreWholePagesWithinTheirLimits) {
  EXPECT_EQ(ToMessageBytes(0).value(), kDefaultMessageBytes);
  EXPECT_EQ(ToMessageBytes(8191).value(), 4096);
  EXPECT_EQ(ToMessageBytes(kMaxMessageBytes).value(), kMaxMessageBytes);
  EXPECT_EQ(Reason(ToMessageBytes(4095).status()),
            mmu::Reason::kInvalidMessageSize);
  EXPECT_EQ(Reason(ToMessageBytes(kMaxMessageBytes + 1).status()),
            mmu::Reason::kInvalidMessageSize);
}

TEST(Convert, PageSizesThatDoNotExistAreRefused) {
  EXPECT_EQ(ToLevel(v1::PAGE_SIZE_UNSPECIFIED, mmu::Level::k2M, "f").value(),
            mmu::Level::k2M);
  EXPECT_EQ(
      Reason(
          ToLevel(static_cast<v1::PageSize>(9), mmu::Level::k4K, "f").status()),
      mmu::Reason::kInvalidPageSize);
}

}  // namespace
}  // namespace mmud
