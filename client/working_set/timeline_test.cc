#include "client/working_set/timeline.h"

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/time/time.h"
#include "client/mmu_client/time_conversion.h"
#include "client/working_set/picture.h"
#include "gtest/gtest.h"
#include "mmu_core/base/clock.h"
#include "mmud/v1/aging_service.pb.h"

namespace mmud::client {
namespace {

using Sizes = std::vector<std::optional<int64_t>>;

constexpr mmu::MonotonicTime kStart = mmu::MonotonicTime::FromNanos(0);

void AddEnded(int64_t sequence, int seconds, v1::WorkingSet* working_set) {
  v1::Generation& generation = *working_set->add_generations();
  generation.set_sequence(sequence);
  *generation.mutable_since_end() = ToProto(absl::Seconds(seconds));
  generation.set_young_page_count(sequence);
}

v1::WorkingSet WithWindow(int64_t bytes) {
  v1::WorkingSet working_set;
  working_set.set_vm_uid("u");
  working_set.add_windows()->set_size_bytes(bytes);
  return working_set;
}

TEST(TimelineTest, OneAnswerHasAPointForEachEndedGeneration) {
  v1::WorkingSet working_set = WithWindow(4096);
  working_set.add_generations()->set_sequence(9);
  AddEnded(8, 5, &working_set);
  AddEnded(7, 20, &working_set);
  Timeline timeline;
  timeline.Observe(working_set, kStart);
  const auto points = timeline.Points(kStart + absl::Seconds(1));
  ASSERT_EQ(points.size(), 2u);
  EXPECT_EQ(points[0].ago, absl::Seconds(21));
  EXPECT_EQ(points[0].young_bytes, 7 * 4096);
  EXPECT_EQ(points[0].working_set_bytes, Sizes{std::nullopt});
  EXPECT_EQ(points[1].ago, absl::Seconds(6));
  EXPECT_EQ(points[1].working_set_bytes, Sizes{4096});
}

TEST(TimelineTest, LaterAnswersAddPointsAndKeepTheEarlierSizes) {
  Timeline timeline;
  v1::WorkingSet first = WithWindow(1000);
  AddEnded(1, 0, &first);
  timeline.Observe(first, kStart);
  v1::WorkingSet second = WithWindow(2000);
  AddEnded(3, 0, &second);
  AddEnded(2, 4, &second);
  AddEnded(1, 9, &second);
  timeline.Observe(second, kStart + absl::Seconds(10));
  // No generation has ended since.
  second.mutable_windows(0)->set_size_bytes(3000);
  timeline.Observe(second, kStart + absl::Seconds(10));
  const auto points = timeline.Points(kStart + absl::Seconds(10));
  ASSERT_EQ(points.size(), 3u);
  EXPECT_EQ(points[0].ago, absl::Seconds(10));
  EXPECT_EQ(points[0].working_set_bytes, Sizes{1000});
  EXPECT_EQ(points[1].working_set_bytes, Sizes{std::nullopt});
  EXPECT_EQ(points[2].working_set_bytes, Sizes{2000});
}

TEST(TimelineTest, AForgottenWorkingSetBeginsAnew) {
  Timeline timeline;
  v1::WorkingSet before = WithWindow(1000);
  AddEnded(5, 0, &before);
  timeline.Observe(before, kStart);
  v1::WorkingSet after = WithWindow(2000);
  AddEnded(1, 0, &after);
  timeline.Observe(after, kStart);
  EXPECT_EQ(timeline.Points(kStart).size(), 1u);
  // So does that of a new VM with the same name.
  after.set_vm_uid("v");
  after.mutable_generations(0)->set_sequence(2);
  timeline.Observe(after, kStart);
  EXPECT_EQ(timeline.Points(kStart).size(), 1u);
}

TEST(TimelineTest, TheOldestPointsAreDropped) {
  Timeline timeline;
  for (int64_t sequence = 1; sequence <= 1002; ++sequence) {
    v1::WorkingSet working_set = WithWindow(sequence);
    AddEnded(sequence, 0, &working_set);
    timeline.Observe(working_set, kStart);
  }
  const auto points = timeline.Points(kStart);
  ASSERT_EQ(points.size(), Timeline::kMaxPoints);
  EXPECT_EQ(points[0].young_bytes, 3 * 4096);
}

}  // namespace
}  // namespace mmud::client
