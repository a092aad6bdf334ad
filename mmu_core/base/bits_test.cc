#include "mmu_core/base/bits.h"

#include <array>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace mmu {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr uint64_t kAll = ~uint64_t{0};
constexpr uint64_t kTop = uint64_t{1} << 63;

std::vector<uint64_t> BitsIn(uint64_t word) {
  std::vector<uint64_t> bits;
  for (const uint64_t bit : SetBitsOf(word)) bits.push_back(bit);
  return bits;
}

std::vector<BitRun> RunsIn(const std::vector<uint64_t>& words) {
  std::vector<BitRun> runs;
  for (const BitRun run : RunsOf(words)) runs.push_back(run);
  return runs;
}

TEST(SetBitsOfTest, GoesFromLowToHigh) {
  EXPECT_THAT(BitsIn(0), IsEmpty());
  EXPECT_THAT(BitsIn(1), ElementsAre(0));
  EXPECT_THAT(BitsIn(kTop), ElementsAre(63));
  EXPECT_THAT(BitsIn(kTop | 0x15), ElementsAre(0, 2, 4, 63));
  std::vector<uint64_t> all;
  for (uint64_t bit = 0; bit < 64; ++bit) all.push_back(bit);
  EXPECT_EQ(BitsIn(kAll), all);
}

TEST(CountBitsTest, CountsWordsBitmapsAndBytes) {
  EXPECT_EQ(CountBits(uint64_t{0}), 0u);
  EXPECT_EQ(CountBits(kAll), 64u);
  EXPECT_EQ(CountBits(kTop | 1), 2u);
  EXPECT_EQ(CountBits(std::vector<uint64_t>{}), 0u);
  EXPECT_EQ(CountBits(std::vector<uint64_t>{kAll, 0, kTop}), 65u);
  EXPECT_EQ(CountBits(absl::string_view()), 0u);
  EXPECT_EQ(CountBits(absl::string_view("\xff\x00\x80", 3)), 9u);
}

TEST(WordsForTest, RoundsUp) {
  EXPECT_EQ(WordsFor(0), 0u);
  EXPECT_EQ(WordsFor(1), 1u);
  EXPECT_EQ(WordsFor(64), 1u);
  EXPECT_EQ(WordsFor(65), 2u);
}

TEST(BitOfTest, IsTheBitWithinItsWord) {
  EXPECT_EQ(BitOf(0), 1u);
  EXPECT_EQ(BitOf(63), kTop);
  EXPECT_EQ(BitOf(64), 1u);
  EXPECT_EQ(BitOf(129), 2u);
}

TEST(WordMaskTest, HasTheBitsOfTheRangeThatLieInTheWord) {
  EXPECT_EQ(WordMask(0, 0, 64), kAll);
  EXPECT_EQ(WordMask(0, 0, 1), 1u);
  EXPECT_EQ(WordMask(0, 63, 64), kTop);
  EXPECT_EQ(WordMask(0, 63, 65), kTop);
  EXPECT_EQ(WordMask(1, 63, 65), 1u);
  EXPECT_EQ(WordMask(1, 0, 200), kAll);
  EXPECT_EQ(WordMask(2, 130, 133), 0x1Cu);
}

TEST(SetRunTest, SetsTheBitsAndKeepsTheOthers) {
  std::vector<uint64_t> words = {1, 0, kTop};
  SetRun(absl::MakeSpan(words), {63, 129});
  EXPECT_THAT(words, ElementsAre(kTop | 1, kAll, kTop | 1));
  SetRun(absl::MakeSpan(words), {4, 5});
  EXPECT_THAT(words, ElementsAre(kTop | 0x11, kAll, kTop | 1));
  SetRun(absl::MakeSpan(words), {128, 192});
  EXPECT_THAT(words, ElementsAre(kTop | 0x11, kAll, kAll));
}

TEST(SetRunTest, AnEmptyRunChangesNothing) {
  std::vector<uint64_t> words = {0, 0};
  SetRun(absl::MakeSpan(words), {0, 0});
  SetRun(absl::MakeSpan(words), {64, 64});
  SetRun(absl::MakeSpan(words), {128, 128});
  EXPECT_THAT(words, ElementsAre(0, 0));
}

TEST(RunsOfTest, OfNothingAreNone) {
  EXPECT_THAT(RunsIn({}), IsEmpty());
  EXPECT_THAT(RunsIn({0}), IsEmpty());
  EXPECT_THAT(RunsIn({0, 0, 0}), IsEmpty());
}

TEST(RunsOfTest, AreAsLongAsCanBeWithinAWord) {
  EXPECT_THAT(RunsIn({1}), ElementsAre(BitRun{0, 1}));
  EXPECT_THAT(RunsIn({kTop}), ElementsAre(BitRun{63, 64}));
  EXPECT_THAT(RunsIn({kAll}), ElementsAre(BitRun{0, 64}));
  EXPECT_THAT(RunsIn({kTop | 0x36}),
              ElementsAre(BitRun{1, 3}, BitRun{4, 6}, BitRun{63, 64}));
}

TEST(RunsOfTest, GoOnOverTheBorderOfWords) {
  EXPECT_THAT(RunsIn({kTop, 1}), ElementsAre(BitRun{63, 65}));
  EXPECT_THAT(RunsIn({kTop, kAll, 3}), ElementsAre(BitRun{63, 130}));
  EXPECT_THAT(RunsIn({kAll, kAll}), ElementsAre(BitRun{0, 128}));
  EXPECT_THAT(RunsIn({kTop, 0, 1}),
              ElementsAre(BitRun{63, 64}, BitRun{128, 129}));
  EXPECT_THAT(RunsIn({kTop, 2}), ElementsAre(BitRun{63, 64}, BitRun{65, 66}));
}

TEST(RunsOfTest, SettingThemAgainGivesTheBitmap) {
  std::mt19937_64 random(7);
  for (int round = 0; round < 200; ++round) {
    std::vector<uint64_t> words(5);
    for (uint64_t& word : words) {
      switch (random() % 4) {
        case 0:
          break;
        case 1:
          word = kAll;
          break;
        case 2:
          word = random();
          break;
        default:
          word = random() & random() & random();
      }
    }
    std::vector<uint64_t> again(words.size());
    uint64_t count = 0;
    uint64_t before = 0;
    for (const BitRun run : RunsOf(words)) {
      EXPECT_TRUE(count == 0 || run.first > before) << "touches the last one";
      before = run.end;
      count += run.size();
      SetRun(absl::MakeSpan(again), run);
    }
    EXPECT_EQ(again, words);
    EXPECT_EQ(count, CountBits(words));
  }
}

// RunsOf, SetBitsOf and CountBits also work in constant expressions.
constexpr std::array<uint64_t, 2> kWords = {kTop | 1, 1};
constexpr uint64_t SumOfRuns() {
  uint64_t sum = 0;
  for (const BitRun run : RunsOf(kWords)) sum += run.first + run.end;
  for (const uint64_t bit : SetBitsOf(kWords[0])) sum += bit;
  return sum;
}
static_assert(SumOfRuns() == (0 + 1) + (63 + 65) + (0 + 63));
static_assert(CountBits(kWords) == 3);

}  // namespace
}  // namespace mmu
