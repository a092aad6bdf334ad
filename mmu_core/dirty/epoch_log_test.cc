#include "mmu_core/dirty/epoch_log.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdint>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/error.h"
#include "mmu_core/dirty/dirty_bitmap.h"
#include "mmu_core/dirty/dirty_log_types.h"

namespace mmu {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

MonotonicTime At(int64_t seconds) {
  return MonotonicTime::FromNanos(seconds * 1'000'000'000);
}

struct Log {
  explicit Log(uint64_t npages, InitiallySet set = InitiallySet::kNo)
      : open(std::make_shared<DirtyBitmap>(npages, set)),
        log(7, open, std::make_shared<DirtyBitmap>(npages, InitiallySet::kNo),
            {}) {}

  // The pages of `epoch` (0: of both), read in one go.
  std::vector<uint64_t> Pages(uint64_t epoch) {
    std::vector<uint64_t> words(open->word_count());
    EXPECT_TRUE(log.Read(epoch, 0, absl::MakeSpan(words)).ok());
    std::vector<uint64_t> pages;
    for (uint64_t i = 0; i < words.size(); ++i) {
      for (uint64_t bits = words[i]; bits != 0; bits &= bits - 1) {
        pages.push_back(64 * i + std::countr_zero(bits));
      }
    }
    return pages;
  }

  // Acknowledges `pages`; returns those that were taken out.
  std::vector<uint64_t> Ack(uint64_t epoch,
                            const std::vector<uint64_t>& pages) {
    std::vector<uint64_t> mask(open->word_count());
    for (const uint64_t page : pages) {
      mask[page / 64] |= uint64_t{1} << page % 64;
    }
    const auto taken = log.Acknowledge(epoch, 0, mask);
    EXPECT_TRUE(taken.ok()) << taken.status();
    std::vector<uint64_t> result;
    for (const BitmapWord& word : *taken) {
      for (uint64_t bits = word.bits; bits != 0; bits &= bits - 1) {
        result.push_back(64 * word.index + std::countr_zero(bits));
      }
    }
    return result;
  }

  std::shared_ptr<DirtyBitmap> open;
  EpochLog log;
};

std::string ReasonOf(const absl::Status& status) {
  return DetailOf(status).reason;
}

TEST(EpochLogTest, ANewLogHasOneOpenEpochAndNothingSealed) {
  Log t(100);
  const DirtyLogInfo info = t.log.Info();
  EXPECT_EQ(info.slot, 7u);
  EXPECT_EQ(info.open_epoch, 1u);
  EXPECT_EQ(info.sealed_epoch, 0u);
  EXPECT_EQ(info.unacked_page_count, 0u);
  EXPECT_EQ(info.sealed_at, MonotonicTime::InfiniteFuture());
  EXPECT_EQ(t.log.npages(), 100u);
  EXPECT_THAT(t.Pages(0), IsEmpty());
}

TEST(EpochLogTest, SealingMovesWhatIsMarkedAndForgetsNothing) {
  Log t(200);
  t.open->Mark(3);
  t.open->Mark(199);
  const SealResult seal = t.log.Seal(At(10));
  EXPECT_EQ(seal.epoch, 1u);
  EXPECT_EQ(seal.dirty_page_count, 2u);
  EXPECT_EQ(seal.merged_page_count, 0u);
  t.open->Mark(64);  // belongs to the next epoch
  EXPECT_THAT(t.Pages(1), ElementsAre(3, 199));
  EXPECT_THAT(t.Pages(1), ElementsAre(3, 199)) << "reading clears nothing";
  EXPECT_THAT(t.Pages(0), ElementsAre(3, 64, 199)) << "a peek shows both";
  EXPECT_TRUE(t.log.IsDirty(3));
  EXPECT_TRUE(t.log.IsDirty(64));
  EXPECT_FALSE(t.log.IsDirty(4));
}

TEST(EpochLogTest, ASealWithoutAcknowledgementsMergesWhatWasLeft) {
  Log t(200);
  t.open->Mark(1);
  t.open->Mark(2);
  t.open->Mark(70);
  t.log.Seal(At(10));
  EXPECT_THAT(t.Ack(1, {2}), ElementsAre(2));
  t.open->Mark(2);   // dirty again
  t.open->Mark(70);  // dirty still
  t.open->Mark(150);
  const SealResult seal = t.log.Seal(At(20));
  EXPECT_EQ(seal.epoch, 2u);
  EXPECT_EQ(seal.merged_page_count, 2u) << "1 and 70";
  EXPECT_EQ(seal.dirty_page_count, 4u) << "each page once";
  EXPECT_THAT(t.Pages(2), ElementsAre(1, 2, 70, 150));
  EXPECT_EQ(t.log.Info().sealed_at, At(10)) << "the oldest is still about";
  EXPECT_THAT(t.Ack(2, {1, 2, 70, 150}), ElementsAre(1, 2, 70, 150));
  EXPECT_EQ(t.log.Info().sealed_at, MonotonicTime::InfiniteFuture());
  t.open->Mark(5);
  t.log.Seal(At(30));
  EXPECT_EQ(t.log.Info().sealed_at, At(30));
}

TEST(EpochLogTest, AnEmptySealCountsAsAnEpoch) {
  Log t(64);
  EXPECT_EQ(t.log.Seal(At(1)).epoch, 1u);
  const SealResult seal = t.log.Seal(At(2));
  EXPECT_EQ(seal.epoch, 2u);
  EXPECT_EQ(seal.dirty_page_count, 0u);
  EXPECT_EQ(t.log.Info().sealed_at, MonotonicTime::InfiniteFuture());
  EXPECT_THAT(t.Pages(2), IsEmpty());
}

TEST(EpochLogTest, AnEpochThatWasSealedAgainIsSuperseded) {
  Log t(64);
  t.open->Mark(9);
  t.log.Seal(At(1));
  t.log.Seal(At(2));
  uint64_t word = 42;
  const absl::Status status = t.log.Read(1, 0, absl::MakeSpan(&word, 1));
  EXPECT_EQ(status.code(), absl::StatusCode::kAborted);
  EXPECT_EQ(ReasonOf(status), "EPOCH_SUPERSEDED");
  EXPECT_EQ(word, 42u) << "nothing was written";
  EXPECT_THAT(t.Pages(2), ElementsAre(9));
}

TEST(EpochLogTest, AnEpochThatWasNeverSealedIsUnknown) {
  Log t(64);
  t.log.Seal(At(1));
  uint64_t word;
  for (const uint64_t epoch : {uint64_t{2}, uint64_t{3}, ~uint64_t{0}}) {
    const absl::Status status = t.log.Read(epoch, 0, absl::MakeSpan(&word, 1));
    EXPECT_EQ(status.code(), absl::StatusCode::kNotFound) << epoch;
    EXPECT_EQ(ReasonOf(status), "EPOCH_UNKNOWN");
  }
}

TEST(EpochLogTest, OnlyTheLastSealedEpochCanBeAcknowledged) {
  Log t(64);
  const uint64_t mask = ~uint64_t{0};
  t.open->Mark(9);
  const auto expect_mismatch = [&](uint64_t epoch) {
    const auto taken = t.log.Acknowledge(epoch, 0, {&mask, 1});
    EXPECT_EQ(taken.status().code(), absl::StatusCode::kAborted) << epoch;
    EXPECT_EQ(ReasonOf(taken.status()), "EPOCH_MISMATCH");
  };
  expect_mismatch(0);
  expect_mismatch(1);  // still open
  t.log.Seal(At(1));
  expect_mismatch(0);
  expect_mismatch(2);
  expect_mismatch(~uint64_t{0});
  t.log.Seal(At(2));
  expect_mismatch(1);
  EXPECT_EQ(t.log.unacked_page_count(), 1u) << "and nothing changed";
  EXPECT_THAT(t.Ack(2, {9}), ElementsAre(9));
}

TEST(EpochLogTest, AcknowledgingTwiceTakesNothingTheSecondTime) {
  Log t(128);
  t.open->Mark(9);
  t.open->Mark(100);
  t.log.Seal(At(1));
  EXPECT_THAT(t.Ack(1, {8, 9, 10}), ElementsAre(9)) << "only what is sealed";
  EXPECT_THAT(t.Ack(1, {8, 9, 10}), IsEmpty());
  EXPECT_EQ(t.log.unacked_page_count(), 1u);
  EXPECT_THAT(t.Pages(1), ElementsAre(100));
}

TEST(EpochLogTest, AcknowledgingLeavesOpenPagesOfTheSameNumberAlone) {
  Log t(64);
  t.open->Mark(9);
  t.log.Seal(At(1));
  t.open->Mark(9);
  t.open->Mark(10);
  EXPECT_THAT(t.Ack(1, {9, 10}), ElementsAre(9));
  EXPECT_THAT(t.Pages(0), ElementsAre(9, 10));
  EXPECT_EQ(t.log.Seal(At(2)).dirty_page_count, 2u);
}

TEST(EpochLogTest, AcknowledgementsOfARangeBeginAtItsFirstPage) {
  Log t(256);
  for (const uint64_t page : {0, 128, 130, 255}) t.open->Mark(page);
  t.log.Seal(At(1));
  const uint64_t mask[] = {uint64_t{1} << 2, uint64_t{1} << 63};
  const auto taken = t.log.Acknowledge(1, 128, mask);
  ASSERT_TRUE(taken.ok());
  ASSERT_EQ(taken->size(), 2u);
  EXPECT_EQ((*taken)[0].index, 2u);
  EXPECT_EQ((*taken)[0].bits, uint64_t{1} << 2);
  EXPECT_EQ((*taken)[1].index, 3u);
  EXPECT_EQ((*taken)[1].bits, uint64_t{1} << 63);
  EXPECT_THAT(t.Pages(1), ElementsAre(0, 128));
}

TEST(EpochLogTest, ReadsBeginAtAWordAndStayInTheSlot) {
  Log t(130);  // three words
  for (const uint64_t page : {1, 65, 129}) t.open->Mark(page);
  t.log.Seal(At(1));
  std::vector<uint64_t> words(3, 7);
  ASSERT_TRUE(t.log.Read(1, 64, absl::MakeSpan(words.data(), 2)).ok());
  EXPECT_THAT(words, ElementsAre(2, 2, 7));
  EXPECT_TRUE(t.log.Read(1, 192, absl::Span<uint64_t>()).ok());
  for (const uint64_t first : {uint64_t{1}, uint64_t{64}, uint64_t{192},
                               uint64_t{256}, ~uint64_t{63}}) {
    const absl::Status status = t.log.Read(1, first, absl::MakeSpan(words));
    EXPECT_EQ(status.code(), absl::StatusCode::kOutOfRange) << first;
    EXPECT_EQ(ReasonOf(status), "INVALID_RANGE");
  }
}

TEST(EpochLogTest, ALogThatStartsAllSetSealsEveryPage) {
  Log t(130, InitiallySet::kYes);
  EXPECT_EQ(t.log.Seal(At(1)).dirty_page_count, 130u);
  EXPECT_EQ(t.Pages(1).size(), 130u);
}

// Marks, seals and acknowledgements at random, against two plain sets.
TEST(EpochLogTest, ItAgreesWithTwoPlainSetsWhateverIsDone) {
  std::mt19937_64 random(11);
  constexpr uint64_t kPages = 1000;
  Log t(kPages);
  std::set<uint64_t> open, sealed;
  uint64_t epoch = 0;
  for (int step = 0; step < 4000; ++step) {
    switch (random() % 8) {
      case 0: {
        const SealResult seal = t.log.Seal(At(step));
        ASSERT_EQ(seal.epoch, ++epoch);
        ASSERT_EQ(seal.merged_page_count, sealed.size());
        sealed.merge(open);
        open.clear();
        ASSERT_EQ(seal.dirty_page_count, sealed.size());
        break;
      }
      case 1: {
        if (epoch == 0) break;
        std::vector<uint64_t> asked, expected;
        for (uint64_t page = random() % 100; page < kPages;
             page += 1 + random() % 40) {
          asked.push_back(page);
          if (sealed.erase(page) != 0) expected.push_back(page);
        }
        ASSERT_EQ(t.Ack(epoch, asked), expected);
        break;
      }
      default:
        for (int i = 0; i < 20; ++i) {
          const uint64_t page = random() % kPages;
          ASSERT_EQ(t.open->Mark(page), open.insert(page).second);
        }
    }
    ASSERT_EQ(t.log.unacked_page_count(), sealed.size());
    std::set<uint64_t> both = sealed;
    both.insert(open.begin(), open.end());
    ASSERT_EQ(t.Pages(0), std::vector<uint64_t>(both.begin(), both.end()));
    if (epoch != 0) {
      ASSERT_EQ(t.Pages(epoch),
                std::vector<uint64_t>(sealed.begin(), sealed.end()));
    }
  }
}

// Guests write a page and mark it; one thread seals, acknowledges and then
// copies, as a migration does; another seals in between. At the end the copy is
// what was written last: no mark was lost.
TEST(EpochLogTest, WhoeverAcknowledgesBeforeCopyingMissesNoWrite) {
  constexpr uint64_t kPages = 512;
  constexpr int kWriters = 3;
  constexpr int kWrites = 20000;
  Log t(kPages);
  std::vector<std::atomic<uint64_t>> memory(kPages);
  std::vector<uint64_t> copy(kPages, 0);
  std::atomic<int> writing{kWriters};
  std::vector<std::thread> threads;
  for (int w = 0; w < kWriters; ++w) {
    threads.emplace_back([&, w] {
      std::mt19937_64 random(w);
      for (int i = 1; i <= kWrites; ++i) {
        // Each writer has pages of its own, so that the last value is known.
        const uint64_t page = random() % (kPages / kWriters) * kWriters + w;
        memory[page].exchange(i);  // a full barrier, as a TLB flush is
        t.open->Mark(page);
      }
      --writing;
    });
  }
  threads.emplace_back([&] {
    while (writing.load() != 0) {
      t.log.Seal(At(1));
      std::this_thread::yield();
    }
  });
  uint64_t harvested = 0;
  for (bool last = false; !last;) {
    last = writing.load() == 0;
    const SealResult seal = t.log.Seal(At(2));
    std::vector<uint64_t> words(t.open->word_count());
    if (!t.log.Read(seal.epoch, 0, absl::MakeSpan(words)).ok() && !last) {
      continue;  // superseded by the other sealer
    }
    auto taken = t.log.Acknowledge(seal.epoch, 0, words);
    if (!taken.ok()) {
      last = false;
      continue;
    }
    for (const BitmapWord& word : *taken) {
      for (uint64_t bits = word.bits; bits != 0; bits &= bits - 1) {
        const uint64_t page = 64 * word.index + std::countr_zero(bits);
        copy[page] = memory[page].load();
        ++harvested;
      }
    }
  }
  for (std::thread& thread : threads) thread.join();
  // What the other thread sealed after the last harvest.
  for (const uint64_t page : t.Pages(0)) copy[page] = memory[page].load();
  EXPECT_GT(harvested, 0u);
  for (uint64_t page = 0; page < kPages; ++page) {
    ASSERT_EQ(copy[page], memory[page].load()) << "page " << page;
  }
  const uint64_t left = t.log.Seal(At(3)).dirty_page_count;
  EXPECT_EQ(t.Pages(0).size(), left);
}

}  // namespace
}  // namespace mmu
