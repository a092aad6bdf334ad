#include "mmu_core/dirty/dirty_bitmap.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <random>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "mmu_core/dirty/dirty_log_types.h"
#include "mmu_core/testing/rounds.h"

namespace mmu {
namespace {

using ::mmu::testing::Rounds;

using Words = std::vector<std::pair<uint64_t, uint64_t>>;

Words NonZero(const DirtyBitmap& bitmap, uint64_t first, uint64_t end) {
  Words words;
  bitmap.ForEachNonZeroWord(first, end, [&](uint64_t i, uint64_t value) {
    words.emplace_back(i, value);
  });
  return words;
}

Words Take(DirtyBitmap& bitmap, uint64_t first, uint64_t end) {
  Words words;
  bitmap.TakeAll(first, end, [&](uint64_t i, uint64_t value) {
    words.emplace_back(i, value);
  });
  return words;
}

// Covers: SLOT-50
TEST(DirtyBitmapTest, BitmapIsWholeWordsAllocatedTwice) {
  for (auto [npages, bytes] : std::vector<std::pair<uint64_t, uint64_t>>{
           {1, 8}, {64, 8}, {65, 16}, {4096, 512}, {4097, 520}}) {
    DirtyBitmap bitmap(npages, InitiallySet::kNo);
    EXPECT_EQ(bitmap.size_bytes(), bytes);
    EXPECT_EQ(bitmap.allocated_bytes(), 2 * bytes);
    EXPECT_EQ(bitmap.word_count(), bytes / 8);
    EXPECT_EQ(bitmap.scratch().size(), bytes / 8);
  }
}

// Covers: SLOT-50
TEST(DirtyBitmapTest, ScratchAndLiveHalfDoNotMix) {
  DirtyBitmap bitmap(100, InitiallySet::kNo);
  for (uint64_t& word : bitmap.scratch()) word = ~uint64_t{0};
  EXPECT_EQ(bitmap.CountDirty(), uint64_t{0});
  EXPECT_EQ(bitmap.Word(0), uint64_t{0});
  EXPECT_EQ(bitmap.Word(1), uint64_t{0});
  bitmap.Mark(99);
  EXPECT_EQ(bitmap.scratch()[1], ~uint64_t{0});
}

// Covers: SLOT-51
TEST(DirtyBitmapTest, InitiallySetMarksEveryPageAndNoPadding) {
  for (uint64_t npages : {1, 63, 64, 65, 4095, 4097, 262145}) {
    DirtyBitmap bitmap(npages, InitiallySet::kYes);
    EXPECT_EQ(bitmap.CountDirty(), npages);
    uint64_t bits = 0;
    for (uint64_t i = 0; i < bitmap.word_count(); ++i) {
      bits += static_cast<uint64_t>(std::popcount(bitmap.Word(i)));
    }
    EXPECT_EQ(bits, npages);
    EXPECT_TRUE(bitmap.Test(npages - 1));
  }
}

// Covers: SLOT-52
TEST(DirtyBitmapTest, PageIsItsBitInLittleEndianOrder) {
  DirtyBitmap bitmap(200, InitiallySet::kNo);
  bitmap.Mark(0);
  bitmap.Mark(63);
  bitmap.Mark(66);
  EXPECT_EQ(bitmap.Word(0), uint64_t{0x8000000000000001});
  EXPECT_EQ(bitmap.Word(1), uint64_t{4});
  EXPECT_TRUE(bitmap.Test(66));
  EXPECT_FALSE(bitmap.Test(67));
}

TEST(DirtyBitmapTest, MarkTellsWhetherThePageWasClean) {
  DirtyBitmap bitmap(100, InitiallySet::kNo);
  EXPECT_TRUE(bitmap.Mark(7));
  EXPECT_FALSE(bitmap.Mark(7));
  EXPECT_TRUE(bitmap.Mark(8));
  EXPECT_EQ(Take(bitmap, 0, 1), (Words{{0, 0x180}}));
  EXPECT_TRUE(bitmap.Mark(7));
}

// Covers: DL-24
TEST(DirtyBitmapTest, ClearReturnsOnlyWhatWasReallySet) {
  DirtyBitmap bitmap(64, InitiallySet::kNo);
  bitmap.Mark(1);
  bitmap.Mark(2);
  EXPECT_EQ(bitmap.ClearBits(0, 0b1100), uint64_t{0b0100});
  EXPECT_EQ(bitmap.ClearBits(0, 0b1100), uint64_t{0});
  EXPECT_EQ(bitmap.Word(0), uint64_t{0b0010});
  EXPECT_EQ(NonZero(bitmap, 0, 1), (Words{{0, 0b0010}}));
}

TEST(DirtyBitmapTest, WordsAreVisitedInOrderWithinTheRange) {
  const uint64_t npages = 64 * 64 * 64 * 3;  // three words of summary 2
  DirtyBitmap bitmap(npages, InitiallySet::kNo);
  const uint64_t words[] = {0, 63, 64, 4095, 4096, 9000, 12287};
  for (uint64_t i : words) bitmap.Mark(i * 64 + 5);
  Words all;
  for (uint64_t i : words) all.emplace_back(i, 32);
  EXPECT_EQ(NonZero(bitmap, 0, bitmap.word_count()), all);
  EXPECT_EQ(NonZero(bitmap, 63, 4096),
            (Words(all.begin() + 1, all.begin() + 4)));
  EXPECT_EQ(NonZero(bitmap, 64, 64), Words());
  EXPECT_EQ(NonZero(bitmap, 65, 4095), Words());
  EXPECT_EQ(bitmap.CountDirty(), uint64_t{7});
}

TEST(DirtyBitmapTest, TakingPartOfAGroupLeavesTheRestFindable) {
  DirtyBitmap bitmap(64 * 128, InitiallySet::kNo);
  for (uint64_t i : {3, 10, 20, 100}) bitmap.Mark(i * 64);
  EXPECT_EQ(Take(bitmap, 10, 11), (Words{{10, 1}}));
  EXPECT_EQ(NonZero(bitmap, 0, 128), (Words{{3, 1}, {20, 1}, {100, 1}}));
  EXPECT_EQ(Take(bitmap, 10, 128), (Words{{20, 1}, {100, 1}}));
  EXPECT_EQ(Take(bitmap, 0, 128), (Words{{3, 1}}));
  EXPECT_EQ(Take(bitmap, 0, 128), Words());
  EXPECT_EQ(bitmap.CountDirty(), uint64_t{0});
}

TEST(DirtyBitmapTest, PageIsFoundAgainAfterEveryWayOfTakingIt) {
  DirtyBitmap bitmap(64 * 100, InitiallySet::kNo);
  const uint64_t page = 64 * 70 + 1;
  bitmap.Mark(page);
  EXPECT_EQ(Take(bitmap, 70, 71), (Words{{70, 2}}));
  EXPECT_TRUE(bitmap.Mark(page));
  EXPECT_EQ(Take(bitmap, 0, 100), (Words{{70, 2}}));
  EXPECT_TRUE(bitmap.Mark(page));
  EXPECT_EQ(bitmap.ClearBits(70, ~uint64_t{0}), uint64_t{2});
  EXPECT_TRUE(bitmap.Mark(page));
  EXPECT_EQ(NonZero(bitmap, 0, 100), (Words{{70, 2}}));
}

TEST(DirtyBitmapTest, WhatWasTakenCanBePutBack) {
  DirtyBitmap bitmap(64 * 100, InitiallySet::kNo);
  bitmap.MarkWord(99, 0xf0);
  EXPECT_EQ(Take(bitmap, 0, 100), (Words{{99, 0xf0}}));
  bitmap.Mark(99 * 64);
  bitmap.MarkWord(99, 0xf0);
  EXPECT_EQ(Take(bitmap, 0, 100), (Words{{99, 0xf1}}));
}

TEST(DirtyBitmapTest, OrIntoAddsTheLiveWords) {
  DirtyBitmap bitmap(64 * 4, InitiallySet::kNo);
  bitmap.Mark(64);
  bitmap.Mark(2 * 64 + 1);
  std::vector<uint64_t> out = {8, 8};
  bitmap.OrInto(1, absl::MakeSpan(out));
  EXPECT_EQ(out, (std::vector<uint64_t>{9, 10}));
  EXPECT_EQ(bitmap.CountDirty(), uint64_t{2});
}

TEST(DirtyBitmapTest, BitmapOfATebibyteIsSearchedByItsSummaries) {
  const uint64_t npages = uint64_t{1} << 28;
  DirtyBitmap bitmap(npages, InitiallySet::kNo);
  EXPECT_EQ(bitmap.size_bytes(), uint64_t{32} << 20);
  bitmap.Mark(0);
  bitmap.Mark(npages - 1);
  EXPECT_EQ(NonZero(bitmap, 0, bitmap.word_count()),
            (Words{{0, 1}, {bitmap.word_count() - 1, uint64_t{1} << 63}}));
  EXPECT_EQ(Take(bitmap, 0, bitmap.word_count()).size(), size_t{2});
}

TEST(DirtyBitmapDeathTest, RangeBeyondTheEndIsABug) {
  DirtyBitmap bitmap(64, InitiallySet::kNo);
  EXPECT_DEATH(NonZero(bitmap, 0, 2), "check failed");
  EXPECT_DEATH(DirtyBitmap(0, InitiallySet::kNo), "check failed");
}

// Random operations against a set of page numbers.
TEST(DirtyBitmapTest, BitmapAgreesWithASetOfPages) {
  std::mt19937 random(7);
  const uint64_t npages = 64 * 200 + 17;
  DirtyBitmap bitmap(npages, InitiallySet::kNo);
  std::set<uint64_t> model;
  const auto below = [&](uint64_t n) {
    return std::uniform_int_distribution<uint64_t>(0, n - 1)(random);
  };
  const auto in_words = [&](uint64_t first, uint64_t end) {
    Words words;
    for (uint64_t page : model) {
      const uint64_t i = page / 64;
      if (i < first || i >= end) continue;
      if (words.empty() || words.back().first != i) words.emplace_back(i, 0);
      words.back().second |= uint64_t{1} << (page % 64);
    }
    return words;
  };
  for (int step = 0; step < 20000; ++step) {
    const uint64_t page = below(npages);
    const uint64_t i = page / 64;
    uint64_t first = below(bitmap.word_count() + 1);
    uint64_t end = below(bitmap.word_count() + 1);
    if (first > end) std::swap(first, end);
    switch (below(40)) {
      case 0: {
        ASSERT_EQ(Take(bitmap, first, end), in_words(first, end));
        model.erase(model.lower_bound(first * 64), model.lower_bound(end * 64));
        break;
      }
      case 1: {
        ASSERT_EQ(Take(bitmap, i, i + 1), in_words(i, i + 1));
        model.erase(model.lower_bound(i * 64), model.lower_bound(i * 64 + 64));
        break;
      }
      case 2: {
        const uint64_t mask = uint64_t{1} << (page % 64);
        ASSERT_EQ(bitmap.ClearBits(i, mask), model.erase(page) > 0 ? mask : 0);
        break;
      }
      case 3:
        ASSERT_EQ(NonZero(bitmap, first, end), in_words(first, end));
        ASSERT_EQ(bitmap.CountDirty(), model.size());
        break;
      default:
        ASSERT_EQ(bitmap.Mark(page), model.insert(page).second);
    }
  }
}

struct Stress {
  static constexpr int kMarkers = 3;
  static constexpr int kRounds = 20000;
  // Few pages, so that threads often meet in the same words and summaries. The
  // pages span three groups.
  static constexpr uint64_t kPages = 64 * 64 * 2 + 100;
};

// Covers: SLOT-52
TEST(DirtyBitmapStressTest, EveryMarkIsTakenExactlyOnce) {
  DirtyBitmap bitmap(Stress::kPages, InitiallySet::kNo);
  std::vector<std::vector<uint64_t>> made_dirty(
      Stress::kMarkers, std::vector<uint64_t>(Stress::kPages));
  std::atomic<int> running = Stress::kMarkers;
  std::vector<std::thread> markers;
  for (int m = 0; m < Stress::kMarkers; ++m) {
    markers.emplace_back([&, m] {
      std::mt19937 random(static_cast<uint32_t>(m));
      std::uniform_int_distribution<uint64_t> pick(0, Stress::kPages - 1);
      for (int i = 0; i < Stress::kRounds; ++i) {
        const uint64_t page = pick(random);
        if (bitmap.Mark(page)) ++made_dirty[static_cast<size_t>(m)][page];
      }
      --running;
    });
  }
  std::vector<uint64_t> taken(Stress::kPages);
  const auto count = [&](uint64_t i, uint64_t value) {
    for (uint64_t bit = 0; bit < 64; ++bit) {
      if ((value >> bit & 1) != 0) ++taken[i * 64 + bit];
    }
  };
  // Takes pages in every way, over changing ranges.
  uint64_t round = 0;
  while (running.load() > 0) {
    const uint64_t words = bitmap.word_count();
    switch (round++ % 4) {
      case 0:
        bitmap.TakeAll(0, words, count);
        break;
      case 1:
        bitmap.TakeAll(round % 60, 70 + round % 50, count);
        break;
      case 2:
        bitmap.TakeAll(round % words, round % words + 1, count);
        break;
      default:
        count(round % words,
              bitmap.ClearBits(round % words, 0x5555555555555555));
    }
  }
  for (std::thread& marker : markers) marker.join();
  bitmap.TakeAll(0, bitmap.word_count(), count);
  for (uint64_t page = 0; page < Stress::kPages; ++page) {
    uint64_t marked = 0;
    for (const auto& log : made_dirty) marked += log[page];
    ASSERT_EQ(taken[page], marked) << page;
  }
  for (uint64_t i = 0; i < bitmap.word_count(); ++i) {
    ASSERT_EQ(bitmap.Word(i), uint64_t{0}) << i;
  }
}

// Two threads mark the same page. When one of the two calls has returned, a
// take must find the page, even if the other thread set the bit and has not yet
// raised the summaries.
//
// Covers: SLOT-52
TEST(DirtyBitmapStressTest, MarkThatReturnedIsFoundByTheNextTake) {
  DirtyBitmap bitmap(Stress::kPages, InitiallySet::kNo);
  std::atomic<uint64_t> requested = 0;  // the round; it determines the page
  std::atomic<uint64_t> finished = 0;   // the last round of `other`
  std::atomic<bool> done = false;
  const auto page_of = [](uint64_t round) {
    return round * 67 % Stress::kPages;
  };
  // Marks the page of each round as soon as the round begins.
  std::thread other([&] {
    uint64_t seen = 0;
    while (!done.load(std::memory_order_relaxed)) {
      const uint64_t round = requested.load(std::memory_order_acquire);
      if (round == seen) continue;
      seen = round;
      bitmap.Mark(page_of(round));
      finished.store(round, std::memory_order_release);
    }
  });
  uint64_t missed = 0;
  Rounds rounds(30'000);
  while (rounds.Next()) {
    const uint64_t round = static_cast<uint64_t>(rounds.done());
    const uint64_t page = page_of(round);
    requested.store(round, std::memory_order_release);
    // Each round marks a little later, so that the two calls overlap at every
    // possible distance.
    for (uint64_t i = 0; i < round % 1000; ++i) {
      std::atomic_signal_fence(std::memory_order_seq_cst);
    }
    bitmap.Mark(page);
    bool found = false;
    bitmap.TakeAll(0, bitmap.word_count(), [&](uint64_t i, uint64_t value) {
      if (i == page / 64 && (value >> (page % 64) & 1) != 0) found = true;
    });
    if (!found) ++missed;
    while (finished.load(std::memory_order_acquire) != round) {
      std::this_thread::yield();
    }
  }
  done = true;
  other.join();
  EXPECT_EQ(missed, uint64_t{0});
}

}  // namespace
}  // namespace mmu
