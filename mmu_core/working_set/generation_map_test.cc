#include "mmu_core/working_set/generation_map.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <random>
#include <tuple>
#include <vector>

#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "mmu_core/base/bits.h"
#include "mmu_core/working_set/generation_age.h"

namespace mmu {
namespace {

using AgeRun = std::tuple<uint64_t, uint64_t, GenerationAge>;

std::vector<AgeRun> RunsIn(const GenerationMap& map, uint64_t first,
                           uint64_t end, uint64_t newest) {
  std::vector<AgeRun> runs;
  map.ForEachRun(first, end, GenerationAges(newest),
                 [&](uint64_t begin, uint64_t stop, GenerationAge age) {
                   runs.emplace_back(begin, stop, age);
                 });
  return runs;
}

std::vector<AgeRun> AllRuns(const GenerationMap& map, uint64_t newest) {
  return RunsIn(map, 0, map.npages(), newest);
}

AgeHistogram HistogramOf(const GenerationMap& map, uint64_t newest) {
  AgeHistogram histogram{};
  map.AddTo(histogram, GenerationAges(newest));
  return histogram;
}

TEST(GenerationMapTest, NoPageOfANewMapWasYoung) {
  for (const uint64_t npages : {1, 7, 8, 63, 64, 65, 4096, 4097, 100'000}) {
    const auto map = GenerationMap::TryCreate(npages);
    EXPECT_EQ(AllRuns(*map, 3),
              (std::vector<AgeRun>{{0, npages, kNeverYoung}}));
    AgeHistogram expected{};
    expected[kNeverYoung] = npages;
    EXPECT_EQ(HistogramOf(*map, 3), expected) << npages;
  }
}

TEST(GenerationMapTest, MapHasAByteForEachPageAndABitForEachChunk) {
  EXPECT_EQ(GenerationMap::TryCreate(1)->allocated_bytes(), 16u);
  EXPECT_EQ(GenerationMap::TryCreate(1 << 20)->allocated_bytes(),
            (1u << 20) + 32);
}

TEST(GenerationMapTest, MapOfOnePage) {
  const auto map = GenerationMap::TryCreate(1);
  const std::vector<uint64_t> young = {uint64_t{1} << 63};
  map->Record(0, 1, young, 63, 5);
  EXPECT_EQ(map->AgeOf(0, 5), 0);
  EXPECT_EQ(map->AgeOf(0, 8), 3);
  EXPECT_EQ(AllRuns(*map, 8), (std::vector<AgeRun>{{0, 1, 3}}));
  AgeHistogram expected{};
  expected[3] = 1;
  EXPECT_EQ(HistogramOf(*map, 8), expected);
}

TEST(GenerationMapTest, OnlyPagesOfTheRangeAreRecorded) {
  const auto map = GenerationMap::TryCreate(300);
  const std::vector<uint64_t> young(5, ~uint64_t{0});
  map->Record(61, 200, young, 3, 1);
  EXPECT_EQ(AllRuns(*map, 1),
            (std::vector<AgeRun>{
                {0, 61, kNeverYoung}, {61, 200, 0}, {200, 300, kNeverYoung}}));
  map->Record(70, 70, {}, 0, 2);
  EXPECT_EQ(AllRuns(*map, 2),
            (std::vector<AgeRun>{
                {0, 61, kNeverYoung}, {61, 200, 1}, {200, 300, kNeverYoung}}));
  map->RecordAll(199, 300, 3);
  map->RecordAll(0, 1, 3);
  map->RecordAll(5, 5, 3);
  EXPECT_EQ(AllRuns(*map, 3),
            (std::vector<AgeRun>{
                {0, 1, 0}, {1, 61, kNeverYoung}, {61, 199, 2}, {199, 300, 0}}));
}

TEST(GenerationMapTest, BitsOfOldPagesChangeNothing) {
  const auto map = GenerationMap::TryCreate(64);
  map->RecordAll(0, 64, 1);
  const std::vector<uint64_t> young = {0x8000'0000'0000'0101};
  map->Record(0, 64, young, 0, 2);
  EXPECT_EQ(AllRuns(*map, 2),
            (std::vector<AgeRun>{
                {0, 1, 0}, {1, 8, 1}, {8, 9, 0}, {9, 63, 1}, {63, 64, 0}}));
}

TEST(GenerationMapTest, RunsAndYoungestPageOfARange) {
  const auto map = GenerationMap::TryCreate(3 * 4096);
  map->RecordAll(4096, 4100, 1);
  map->RecordAll(4100, 4103, 2);
  EXPECT_EQ(RunsIn(*map, 4094, 4102, 2),
            (std::vector<AgeRun>{
                {4094, 4096, kNeverYoung}, {4096, 4100, 1}, {4100, 4102, 0}}));
  EXPECT_EQ(RunsIn(*map, 4101, 4101, 2), std::vector<AgeRun>());
  const GenerationAges ages(2);
  EXPECT_EQ(map->YoungestOf(0, 4096, ages), kNeverYoung);
  EXPECT_EQ(map->YoungestOf(0, 4097, ages), 1);
  EXPECT_EQ(map->YoungestOf(4096, 4100, ages), 1);
  EXPECT_EQ(map->YoungestOf(4099, 4101, ages), 0);
  EXPECT_EQ(map->YoungestOf(4102, 4103, ages), 0);
  EXPECT_EQ(map->YoungestOf(4103, 3 * 4096, ages), kNeverYoung);
  EXPECT_EQ(map->YoungestOf(4097, 4097, ages), kNeverYoung);
}

TEST(GenerationMapTest, ClampKeepsAnOldPageAtTheGreatestAge) {
  const auto map = GenerationMap::TryCreate(5000);
  map->RecordAll(3, 4, 1);
  for (uint64_t sequence = 2; sequence <= 1000; ++sequence) {
    if (sequence % kClampInterval == 0) map->Clamp(sequence);
    map->RecordAll(0, 1, sequence);
    ASSERT_EQ(map->AgeOf(3, sequence), std::min<uint64_t>(sequence - 1, 127));
    ASSERT_EQ(map->AgeOf(0, sequence), 0);
    ASSERT_EQ(map->AgeOf(1, sequence), kNeverYoung);
    ASSERT_EQ(map->AgeOf(4999, sequence), kNeverYoung);
  }
}

TEST(GenerationMapDeathTest, WrongArgumentsAreABug) {
  EXPECT_DEATH(GenerationMap::TryCreate(0), "check failed");
  const auto map = GenerationMap::TryCreate(64);
  const std::vector<uint64_t> young = {1};
  EXPECT_DEATH(map->Record(0, 65, young, 0, 1), "check failed");
  EXPECT_DEATH(map->Record(0, 64, young, 1, 1), "check failed");
  EXPECT_DEATH(map->Record(0, 64, young, 0, 0), "check failed");
  EXPECT_DEATH(map->RecordAll(0, 65, 1), "check failed");
  EXPECT_DEATH(map->AgeOf(64, 1), "check failed");
  EXPECT_DEATH(map->YoungestOf(0, 65, GenerationAges(1)), "check failed");
}

// Random records, at all offsets between bitmap and map, against the last
// sequence number of each page.
TEST(GenerationMapTest, MapAgreesWithTheLastGenerationOfEachPage) {
  std::mt19937_64 random(11);
  const auto below = [&](uint64_t n) { return random() % n; };
  constexpr uint64_t kPages = 3 * 4096 + 77;
  const auto map = GenerationMap::TryCreate(kPages);
  std::vector<uint64_t> last(kPages);
  for (uint64_t newest = 1; newest <= 700; ++newest) {
    if (newest % kClampInterval == 0) map->Clamp(newest);
    for (int i = 0; i < 3; ++i) {
      const uint64_t first = below(kPages / 2);
      const uint64_t end =
          first + below(std::min<uint64_t>(kPages - first + 1, 300));
      const uint64_t first_bit = below(200);
      std::vector<uint64_t> young(WordsFor(first_bit + (end - first)) + 1);
      for (uint64_t& word : young) {
        const uint64_t kind = below(4);
        word = kind == 0   ? 0
               : kind == 1 ? ~uint64_t{0}
               : kind == 2 ? BitOf(below(64))
                           : random();
      }
      map->Record(first, end, young, first_bit, newest);
      for (uint64_t page = first; page < end; ++page) {
        const uint64_t bit = first_bit + (page - first);
        if ((young[bit / 64] & BitOf(bit)) != 0) last[page] = newest;
      }
    }
    const auto age_of = [&](uint64_t page) {
      return last[page] == 0 ? kNeverYoung
                             : static_cast<GenerationAge>(std::min<uint64_t>(
                                   newest - last[page], kMaxGenerationAge));
    };
    AgeHistogram histogram{};
    std::vector<AgeRun> runs;
    for (uint64_t page = 0; page < kPages; ++page) {
      const GenerationAge age = age_of(page);
      ++histogram[age];
      if (runs.empty() || std::get<2>(runs.back()) != age) {
        runs.emplace_back(page, page + 1, age);
      }
      std::get<1>(runs.back()) = page + 1;
    }
    ASSERT_EQ(HistogramOf(*map, newest), histogram) << newest;
    ASSERT_EQ(AllRuns(*map, newest), runs) << newest;
    const uint64_t begin = below(kPages);
    const uint64_t stop =
        begin + below(std::min<uint64_t>(600, kPages - begin));
    GenerationAge youngest = kNeverYoung;
    for (uint64_t page = begin; page < stop; ++page) {
      youngest = std::min(youngest, age_of(page));
    }
    ASSERT_EQ(map->YoungestOf(begin, stop, GenerationAges(newest)), youngest);
    ASSERT_EQ(map->AgeOf(begin, newest), age_of(begin));
  }
}

}  // namespace
}  // namespace mmu
