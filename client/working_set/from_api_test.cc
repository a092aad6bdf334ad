#include "client/working_set/from_api.h"

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "client/mmu_client/time_conversion.h"
#include "client/working_set/picture.h"
#include "gtest/gtest.h"
#include "mmud/v1/aging_service.pb.h"
#include "mmud/v1/common.pb.h"
#include "server/base/wall_time.h"

namespace mmud::client {
namespace {

constexpr int64_t kMiB = int64_t{1} << 20;
constexpr int64_t kGiB = int64_t{1} << 30;

// `count` generations, one each ten seconds; the newest ended five seconds ago.
v1::WorkingSet Sample(int count) {
  v1::WorkingSet working_set;
  working_set.set_vm("vms/alpha");
  for (int i = 0; i < count; ++i) {
    v1::Generation& generation = *working_set.add_generations();
    generation.set_sequence(count - i);
    *generation.mutable_since_end() = ToProto(absl::Seconds(5 + 10 * i));
    v1::AgeBin& bin = *working_set.add_bins();
    bin.set_generation(count - i);
    *bin.mutable_min_age() = ToProto(absl::Seconds(5 + 10 * i));
    if (i + 1 < count) {
      *bin.mutable_max_age() = ToProto(absl::Seconds(15 + 10 * i));
    }
    bin.set_page_count(2);
    bin.set_size_bytes(8192);
  }
  return working_set;
}

WorkingSetPicture Picture(const v1::WorkingSet& working_set,
                          int64_t wanted_cells = 1024) {
  return PictureOf(working_set, WallTime::FromUnixNanos(7), wanted_cells);
}

void AddMap(int slot, int64_t gpa, int64_t size, v1::PageSize unit,
            const std::string& ages, v1::WorkingSet* working_set) {
  v1::HeatMap& map = *working_set->add_heat_maps();
  map.set_slot(slot);
  map.mutable_extent()->set_gpa_bytes(gpa);
  map.mutable_extent()->set_size_bytes(size);
  map.set_unit(unit);
  map.set_ages(ages);
}

HeatCell Aged(int seconds) {
  return {.kind = HeatCell::Kind::kAged, .age = absl::Seconds(seconds)};
}

constexpr HeatCell kNever = {.kind = HeatCell::Kind::kNeverYoung, .age = {}};

TEST(FromApiTest, NumbersAreTaken) {
  v1::WorkingSet working_set = Sample(2);
  working_set.set_never_young_page_count(3);
  *working_set.mutable_staleness() = ToProto(absl::Seconds(5));
  v1::WorkingSetSize& window = *working_set.add_windows();
  *window.mutable_window() = ToProto(absl::Minutes(1));
  window.set_size_bytes(16384);
  window.set_complete(true);
  const WorkingSetPicture picture = Picture(working_set);
  EXPECT_EQ(picture.vm, "vms/alpha");
  EXPECT_EQ(picture.time.unix_nanos(), 7);
  ASSERT_EQ(picture.bins.size(), 2u);
  EXPECT_EQ(picture.bins[0].generation, 2);
  EXPECT_EQ(picture.bins[0].min_age, absl::Seconds(5));
  EXPECT_EQ(picture.bins[0].max_age, absl::Seconds(15));
  EXPECT_EQ(picture.bins[0].page_count, 2);
  EXPECT_EQ(picture.bins[1].max_age, absl::InfiniteDuration());
  EXPECT_EQ(picture.never_young_bytes, 3 * 4096);
  EXPECT_EQ(picture.staleness, absl::Seconds(5));
  ASSERT_EQ(picture.windows.size(), 1u);
  EXPECT_EQ(picture.windows[0].window, absl::Minutes(1));
  EXPECT_EQ(picture.windows[0].size_bytes, 16384);
  EXPECT_TRUE(picture.windows[0].complete);
  EXPECT_TRUE(picture.heat.empty());
  EXPECT_TRUE(picture.coverage.empty());
}

TEST(FromApiTest, ManyBinsAreFolded) {
  const WorkingSetPicture picture = Picture(Sample(128));
  EXPECT_LE(picture.bins.size(), 16u);
  int64_t pages = 0;
  for (const AgeBin& bin : picture.bins) pages += bin.page_count;
  EXPECT_EQ(pages, 2 * 128);
}

TEST(FromApiTest, AUnitHasTheLeastAgeOfItsGeneration) {
  v1::WorkingSet working_set = Sample(3);
  AddMap(4, 0, 5 * 4096, v1::PAGE_SIZE_4K, {0, 1, 2, 127, '\x80'},
         &working_set);
  const WorkingSetPicture picture = Picture(working_set);
  ASSERT_EQ(picture.heat.size(), 1u);
  EXPECT_EQ(picture.heat[0].slot, 4);
  EXPECT_EQ(picture.heat[0].cell_bytes, 4096);
  EXPECT_EQ(
      picture.heat[0].cells,
      (std::vector<HeatCell>{Aged(5), Aged(15), Aged(25), Aged(25), kNever}));
}

TEST(FromApiTest, ACellHasTheAgeOfItsYoungestUnit) {
  v1::WorkingSet working_set = Sample(3);
  AddMap(0, 0, 6 * 4096, v1::PAGE_SIZE_4K, {'\x80', 2, 1, 2, '\x80', '\x80'},
         &working_set);
  const WorkingSetPicture picture = Picture(working_set, 3);
  ASSERT_EQ(picture.heat.size(), 1u);
  EXPECT_EQ(picture.heat[0].cell_bytes, 8192);
  EXPECT_EQ(picture.heat[0].cells,
            (std::vector<HeatCell>{Aged(25), Aged(15), kNever}));
}

TEST(FromApiTest, UnitsAreCutOffByTheEndsOfTheirSlot) {
  v1::WorkingSet working_set = Sample(2);
  // From the middle of the first 1 GiB to the middle of the third.
  AddMap(0, kGiB / 2, 2 * kGiB, v1::PAGE_SIZE_1G, {0, '\x80', 1}, &working_set);
  const WorkingSetPicture picture = Picture(working_set, 4);
  ASSERT_EQ(picture.heat.size(), 1u);
  EXPECT_EQ(picture.heat[0].cell_bytes, kGiB);
  // Each cell touches two units.
  EXPECT_EQ(picture.heat[0].cells, (std::vector<HeatCell>{Aged(5), Aged(15)}));
}

TEST(FromApiTest, CellsAreNotSmallerThanUnits) {
  v1::WorkingSet working_set = Sample(2);
  AddMap(0, 0, 8 * kMiB, v1::PAGE_SIZE_2M, {0, 1, 0, 1}, &working_set);
  const WorkingSetPicture picture = Picture(working_set);
  ASSERT_EQ(picture.heat.size(), 1u);
  EXPECT_EQ(picture.heat[0].cell_bytes, 2 * kMiB);
}

TEST(FromApiTest, AMapThatIsTooShortOrHasNoUnitDoesNoHarm) {
  v1::WorkingSet working_set = Sample(1);
  AddMap(0, 0, 2 * 4096, v1::PAGE_SIZE_4K, {0}, &working_set);
  AddMap(1, kMiB, kMiB, v1::PAGE_SIZE_UNSPECIFIED, {0}, &working_set);
  const WorkingSetPicture picture = Picture(working_set, 2);
  ASSERT_EQ(picture.heat.size(), 1u);
  EXPECT_EQ(picture.heat[0].cells.back().kind, HeatCell::Kind::kAbsent);
}

TEST(FromApiTest, CoverageIsThatOfTheNewestEndedGeneration) {
  v1::WorkingSet working_set = Sample(3);
  working_set.mutable_generations(0)->clear_since_end();
  v1::Generation& ended = *working_set.mutable_generations(1);
  v1::AgedMmu& tdp = *ended.add_mmus();
  tdp.set_kind(v1::PAGE_TABLE_KIND_TDP);
  tdp.set_coverage(v1::AGING_COVERAGE_COVERED);
  v1::AgedMmu& shadow = *ended.add_mmus();
  shadow.set_kind(v1::PAGE_TABLE_KIND_SHADOW);
  shadow.set_coverage(v1::AGING_COVERAGE_SKIPPED);
  ended.set_scope(v1::GENERATION_SCOPE_LOOK_AROUND);
  ended.set_incomplete(true);
  ended.set_others_cleared(true);
  working_set.mutable_generations(2)->set_incomplete(true);
  EXPECT_EQ(
      Picture(working_set).coverage,
      (std::vector<std::string>{
          "shadow was skipped: accesses through it are missing (--may-lock "
          "examines it too)",
          "one page of each 64 was examined, and its neighbours where it was "
          "young: other pages are found young later",
          "the scan ended early: pages that it did not reach look old",
          "others cleared Accessed bits: what they found young may look old",
          "generation 3 is being made: what it found young so far is in it"}));
}

TEST(FromApiTest, NoGenerationHasEnded) {
  v1::WorkingSet working_set = Sample(1);
  working_set.mutable_generations(0)->clear_since_end();
  const WorkingSetPicture picture = Picture(working_set);
  EXPECT_EQ(picture.staleness, absl::InfiniteDuration());
  EXPECT_EQ(picture.coverage,
            (std::vector<std::string>{"no generation has ended yet: the sizes "
                                      "are those found so far"}));
}

}  // namespace
}  // namespace mmud::client
