#include "mmu_core/dirty/slot_log.h"

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/bits.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/dirty/dirty_bitmap.h"
#include "mmu_core/dirty/dirty_log_types.h"
#include "mmu_core/testing/interleaving.h"

namespace mmu {
namespace {

using ::testing::ElementsAre;
using testing::Interleaving;
using ::testing::IsEmpty;

using Pages = std::vector<uint64_t>;

void AddPages(uint64_t i, uint64_t bits, Pages& pages) {
  for (const uint64_t bit : SetBitsOf(bits)) pages.push_back(64 * i + bit);
}

class SlotLogTest : public ::testing::Test {
 protected:
  static constexpr uint64_t kPages = 64 * 64 + 100;

  std::vector<uint64_t> Mask(const Pages& pages) const {
    std::vector<uint64_t> mask(log_->word_count());
    for (const uint64_t page : pages) mask[page / 64] |= BitOf(page);
    return mask;
  }
  SlotLog::Cleared Clear(size_t flight, const Pages& pages) {
    return log_->Clear(flight, 0, Mask(pages));
  }
  static Pages PagesOf(const std::vector<BitmapWord>& words) {
    Pages pages;
    for (const BitmapWord& word : words) {
      AddPages(word.index, word.bits, pages);
    }
    return pages;
  }
  Pages PagesIn(const std::function<bool(uint64_t)>& set) const {
    Pages pages;
    for (uint64_t page = 0; page < kPages; ++page) {
      if (set(page)) pages.push_back(page);
    }
    return pages;
  }
  Pages Sealed() const {
    return PagesIn([&](uint64_t page) { return log_->IsSealed(page); });
  }
  Pages Open() const {
    return PagesIn([&](uint64_t page) { return log_->IsOpen(page); });
  }
  Pages InFlight(size_t flight) const {
    return PagesIn(
        [&](uint64_t page) { return log_->IsInFlight(flight, page); });
  }
  // Marks, seals and clears.
  void TakeIntoFlight(size_t flight, const Pages& pages) {
    for (const uint64_t page : pages) open_->Mark(page);
    log_->Seal();
    EXPECT_EQ(Clear(flight, pages).moved_page_count, pages.size());
  }

  const std::shared_ptr<DirtyBitmap> open_ =
      std::make_shared<DirtyBitmap>(kPages, InitiallySet::kNo);
  const std::shared_ptr<SlotLog> log_ = SlotLog::TryCreate(7, open_);
};

TEST_F(SlotLogTest, ANewLogHasNothingInItsSets) {
  EXPECT_EQ(log_->slot(), 7u);
  EXPECT_EQ(log_->npages(), kPages);
  EXPECT_EQ(log_->sealed_count(), 0u);
  EXPECT_EQ(log_->in_flight_count(), 0u);
  EXPECT_EQ(log_->CountOpen(), 0u);
  EXPECT_FALSE(log_->IsUndelivered(0));
  EXPECT_EQ(SlotLog::TryCreate(7, nullptr), nullptr);
}

TEST_F(SlotLogTest, SealMovesWhatIsOpenAndKeepsWhatWasSealed) {
  open_->Mark(3);
  open_->Mark(kPages - 1);
  EXPECT_EQ(log_->Seal(), 2u);
  open_->Mark(3);  // written again: sealed and open
  open_->Mark(64);
  EXPECT_EQ(log_->Seal(), 1u);
  EXPECT_THAT(Sealed(), ElementsAre(3, 64, kPages - 1));
  EXPECT_THAT(Open(), IsEmpty());
  EXPECT_EQ(log_->sealed_count(), 3u);
}

TEST_F(SlotLogTest, ClearTakesWhatIsSealedAndNamedIntoFlight) {
  for (const uint64_t page : {3, 64, 65}) open_->Mark(page);
  log_->Seal();
  open_->Mark(66);
  const SlotLog::Cleared cleared = Clear(1, {3, 65, 66, 4000});
  EXPECT_EQ(cleared.moved_page_count, 2u);
  EXPECT_THAT(PagesOf(cleared.moved), ElementsAre(3, 65));
  EXPECT_EQ(cleared.already_in_flight_page_count, 0u);
  EXPECT_THAT(Sealed(), ElementsAre(64));
  EXPECT_THAT(InFlight(1), ElementsAre(3, 65));
  EXPECT_THAT(Open(), ElementsAre(66)) << "open pages are not cleared";
  EXPECT_EQ(log_->sealed_count(), 1u);
  EXPECT_EQ(log_->in_flight_count(1), 2u);
}

TEST_F(SlotLogTest, AClearThatIsRepeatedMovesNothingAndSaysSo) {
  TakeIntoFlight(0, {3, 65});
  const SlotLog::Cleared again = Clear(0, {3, 65});
  EXPECT_EQ(again.moved_page_count, 0u);
  EXPECT_THAT(again.moved, IsEmpty());
  EXPECT_EQ(again.already_in_flight_page_count, 2u);
  EXPECT_EQ(log_->in_flight_count(), 2u);
}

TEST_F(SlotLogTest, APageClearedAgainBelongsToTheLaterSet) {
  TakeIntoFlight(2, {3, 65, 66});
  open_->Mark(65);
  log_->Seal();
  const SlotLog::Cleared cleared = Clear(0, {3, 65});
  EXPECT_THAT(PagesOf(cleared.moved), ElementsAre(65)) << "3 was not sealed";
  EXPECT_THAT(cleared.moved_from, ElementsAre(0, 0, 1, 0));
  EXPECT_THAT(InFlight(2), ElementsAre(3, 66));
  EXPECT_THAT(InFlight(0), ElementsAre(65));
  EXPECT_EQ(log_->Acknowledge(2), 2u);
  EXPECT_TRUE(log_->IsUndelivered(65));
  EXPECT_FALSE(log_->IsUndelivered(66));
}

TEST_F(SlotLogTest, OnlyWhatIsInFlightIsDelivered) {
  TakeIntoFlight(0, {3, 65, 66});
  open_->Mark(65);  // written again, since the clear
  const std::vector<uint64_t> mask = Mask({65, 66, 67});
  EXPECT_EQ(log_->CountInFlight(0, 0, mask), 2u);
  EXPECT_EQ(log_->Acknowledge(0, 0, mask), 2u);
  EXPECT_EQ(log_->Acknowledge(0, 0, mask), 0u) << "twice is once";
  EXPECT_THAT(InFlight(0), ElementsAre(3));
  EXPECT_THAT(Open(), ElementsAre(65)) << "what was written since stays";
  EXPECT_EQ(log_->Acknowledge(0), 1u);
  EXPECT_EQ(log_->Acknowledge(0), 0u);
  EXPECT_EQ(log_->in_flight_count(), 0u);
}

TEST_F(SlotLogTest, WhatWasInFlightIsSealedAgain) {
  TakeIntoFlight(0, {1, 2});
  TakeIntoFlight(3, {70, 4000});
  open_->Mark(2);
  log_->Seal();
  EXPECT_EQ(log_->Return(), 4u);
  EXPECT_THAT(Sealed(), ElementsAre(1, 2, 70, 4000));
  EXPECT_EQ(log_->sealed_count(), 4u);
  EXPECT_EQ(log_->in_flight_count(), 0u);
  EXPECT_EQ(log_->Return(), 0u);
}

TEST_F(SlotLogTest, WordsAreReadSetBySet) {
  TakeIntoFlight(0, {128});
  TakeIntoFlight(1, {129});
  open_->Mark(130);
  log_->Seal();
  open_->Mark(131);
  std::vector<uint64_t> words(1);
  log_->OrInFlightInto(2, absl::MakeSpan(words));
  EXPECT_EQ(words[0], 0b0011u);
  log_->OrSealedInto(2, absl::MakeSpan(words));
  EXPECT_EQ(words[0], 0b0111u);
  log_->OrOpenInto(2, absl::MakeSpan(words));
  EXPECT_EQ(words[0], 0b1111u);
}

TEST_F(SlotLogTest, TheLastWordHasTheRestOfThePages) {
  EXPECT_EQ(log_->PagesOfWord(0), ~uint64_t{0});
  EXPECT_EQ(log_->PagesOfWord(log_->word_count() - 1),
            (uint64_t{1} << (kPages % 64)) - 1);
}

// Stops each move of a page between two sets when the page has joined its new
// set and has not left its old one. A process that ends there loses nothing
// (INV-10).
class SlotLogMoveTest : public SlotLogTest {
 protected:
  // Runs `move` to its hook, where the page must be in both sets, and then to
  // its end, where the page must be in one.
  void ExpectInBothSets(const std::function<void()>& move,
                        const std::function<bool()>& in_both) {
    Interleaving threads;
    threads.Add("move", move);
    threads.RunTo("move", HookPoint::kJoinToLeave);
    EXPECT_FALSE(threads.HasEnded("move")) << "the move has no hook";
    EXPECT_TRUE(in_both());
    threads.RunToEnd("move");
    EXPECT_FALSE(in_both());
  }
};

TEST_F(SlotLogMoveTest, AtASealThePageIsSealedBeforeItIsNoLongerOpen) {
  open_->Mark(5);
  ExpectInBothSets([&] { log_->Seal(); },
                   [&] { return log_->IsOpen(5) && log_->IsSealed(5); });
  EXPECT_TRUE(log_->IsSealed(5));
}

TEST_F(SlotLogMoveTest, AtAClearThePageIsInFlightBeforeItIsNoLongerSealed) {
  open_->Mark(5);
  log_->Seal();
  ExpectInBothSets([&] { Clear(0, {5}); },
                   [&] { return log_->IsSealed(5) && log_->IsInFlight(0, 5); });
  EXPECT_TRUE(log_->IsInFlight(0, 5));
}

TEST_F(SlotLogMoveTest,
       APageClearedAgainIsInTheLaterSetBeforeItLeavesTheOther) {
  TakeIntoFlight(2, {5});
  open_->Mark(5);
  log_->Seal();
  ExpectInBothSets(
      [&] { Clear(0, {5}); },
      [&] { return log_->IsInFlight(2, 5) && log_->IsInFlight(0, 5); });
  EXPECT_TRUE(log_->IsInFlight(0, 5));
}

TEST_F(SlotLogMoveTest, AtATakeoverThePageIsSealedBeforeItIsNoLongerInFlight) {
  TakeIntoFlight(2, {5});
  ExpectInBothSets([&] { log_->Return(); },
                   [&] { return log_->IsInFlight(2, 5) && log_->IsSealed(5); });
  EXPECT_TRUE(log_->IsSealed(5));
}

// A vCPU marks another page of the same word after the seal has read the word.
TEST_F(SlotLogMoveTest, APageMarkedBesideOneThatIsSealedStaysOpenAndFindable) {
  open_->Mark(5);
  Interleaving threads;
  threads.Add("seal", [&] { log_->Seal(); });
  threads.Add("vcpu", [&] { EXPECT_TRUE(open_->Mark(6)); });
  threads.RunTo("seal", HookPoint::kJoinToLeave);
  threads.RunToEnd("vcpu");
  threads.RunToEnd("seal");
  EXPECT_THAT(Sealed(), ElementsAre(5));
  EXPECT_THAT(Open(), ElementsAre(6));
  EXPECT_EQ(log_->Seal(), 1u) << "the summaries lead to it";
}

// A vCPU marks the page that is being sealed, after the seal has read the word.
// The page is still open, so the mark adds nothing, and the page is sealed.
TEST_F(SlotLogMoveTest, APageMarkedWhileItIsSealedIsInThatSeal) {
  open_->Mark(5);
  Interleaving threads;
  threads.Add("seal", [&] { log_->Seal(); });
  threads.Add("vcpu", [&] { EXPECT_FALSE(open_->Mark(5)); });
  threads.RunTo("seal", HookPoint::kJoinToLeave);
  threads.RunToEnd("vcpu");
  threads.RunToEnd("seal");
  EXPECT_THAT(Sealed(), ElementsAre(5));
  EXPECT_THAT(Open(), IsEmpty());
}

// A vCPU has set its bit and has not raised the summaries when a seal runs.
// That seal does not find the page; the next one does.
TEST_F(SlotLogMoveTest, APageWhoseSummariesComeLateIsFoundByTheNextSeal) {
  Interleaving threads;
  threads.Add("vcpu", [&] { open_->Mark(5); });
  threads.RunTo("vcpu", HookPoint::kBitToSummary);
  EXPECT_EQ(log_->Seal(), 0u);
  threads.RunToEnd("vcpu");
  EXPECT_TRUE(log_->IsUndelivered(5));
  EXPECT_EQ(log_->Seal(), 1u);
}

// A vCPU writes a page that is in flight, so the page is open as well. The
// acknowledgement of the flight leaves it open.
TEST_F(SlotLogMoveTest, AMarkBesideAnAcknowledgementStays) {
  TakeIntoFlight(0, {5});
  Interleaving threads;
  threads.Add("vcpu", [&] { open_->Mark(5); });
  threads.RunTo("vcpu", HookPoint::kBitToSummary);
  EXPECT_EQ(log_->Acknowledge(0), 1u);
  threads.RunToEnd("vcpu");
  EXPECT_EQ(log_->Seal(), 1u);
}

}  // namespace
}  // namespace mmu
