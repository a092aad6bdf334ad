#include "client/mmu_client/harvester.h"

#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "client/mmu_client/client.h"
#include "client/mmu_client/dirty_log_stream.h"
#include "client/mmu_client/error_info.h"
#include "client/mmu_client/fake_guest.h"
#include "client/mmu_client/owner_token.h"
#include "client/mmu_client/page_bitmap.h"
#include "client/mmu_client/page_reader.h"
#include "gtest/gtest.h"
#include "mmud/v1/error_reasons.pb.h"

namespace mmud::client {
namespace {

using Kind = StreamFault::Kind;
constexpr int64_t kPages = 1000;  // not a multiple of 64 on purpose
constexpr int64_t kOtherPages = 100;
constexpr int64_t kPosition = 128 * kPageBytes;  // where a chunk begins

grpc::Status Unavailable() {
  return grpc::Status(grpc::StatusCode::UNAVAILABLE, "gone");
}

grpc::Status Internal() {
  return grpc::Status(grpc::StatusCode::INTERNAL, "bad");
}

// The destination of the copy.
class CopySink : public PageSink {
 public:
  explicit CopySink(std::string* copy) : copy_(copy) {}
  absl::Status OnData(int64_t gpa, absl::string_view data) override {
    std::memcpy(copy_->data() + gpa - FakeGuest::kGpa, data.data(),
                data.size());
    return absl::OkStatus();
  }
  absl::Status OnZeros(GpaRange range) override {
    std::memset(copy_->data() + range.gpa_bytes - FakeGuest::kGpa, 0,
                range.size_bytes);
    return absl::OkStatus();
  }

 private:
  std::string* const copy_;
};

std::vector<int64_t> PagesOf(const Harvest& harvest) {
  std::vector<int64_t> pages;
  for (const GpaRange& range : harvest.Ranges()) {
    for (int64_t gpa = range.gpa_bytes; gpa < range.end_bytes();
         gpa += kPageBytes) {
      pages.push_back((gpa - FakeGuest::kGpa) / kPageBytes);
    }
  }
  return pages;
}

class HarvesterTest : public testing::Test {
 protected:
  Harvester NewHarvester(HarvesterOptions options = {}) {
    return Harvester(&client_->dirty_log(), FakeGuest::kVm, FakeGuest::kToken,
                     options);
  }

  void Write(const std::vector<int64_t>& pages) {
    for (const int64_t page : pages) guest_.Write(page);
  }

  absl::Status Copy(const Harvest& harvest) {
    CopySink sink(&copy_);
    PageReader reader(&client_->memory(), FakeGuest::kVm, {});
    return reader.Read(harvest.Ranges(), &sink).status();
  }

  // Another process takes over the log. Returns the token of that process.
  std::string TakeOver(bool force) {
    v1::AcquireDirtyLogRequest request;
    request.set_vm(FakeGuest::kVm);
    request.set_owner("second owner");
    request.set_owner_token(NewOwnerToken());
    request.set_force(force);
    EXPECT_TRUE(client_->dirty_log().AcquireDirtyLog(request).ok());
    return request.owner_token();
  }

  FakeGuest guest_{kPages, 128, kOtherPages};
  std::unique_ptr<Client> client_ = guest_.NewClient();
  std::string copy_ = guest_.MemoryCopy();
};

TEST_F(HarvesterTest, EndsBetweenTwoClearsWhenItMayNotGoOn) {
  Write({7, 1000});
  HarvesterOptions options;
  // `may_go_on` must not ask the guest itself, whose lock is held while the
  // stream is read. So count the calls here.
  std::atomic<int> calls = 0;
  guest_.OnCall([&calls] { ++calls; });
  // Stop after three calls: the seal, the read and the first clear.
  options.may_go_on = [&calls] {
    return calls < 3 ? absl::OkStatus() : absl::CancelledError("enough");
  };
  Harvester harvester = NewHarvester(options);
  EXPECT_TRUE(absl::IsCancelled(harvester.Run().status()));
  EXPECT_EQ(guest_.clears().size(), 1u);
  EXPECT_EQ(guest_.in_flight_page_count(), 1);
  EXPECT_TRUE(absl::IsCancelled(harvester.Run().status()));
  EXPECT_EQ(guest_.clears().size(), 1u);
  guest_.OnCall(nullptr);
  EXPECT_TRUE(NewHarvester().Run().ok());
  EXPECT_EQ(guest_.in_flight_page_count(), 2);
}

TEST_F(HarvesterTest, TakesTheDirtyPagesOfAllSlotsIntoFlight) {
  Write({0, 1, 64, 500, 999, 1000, 1099});
  Harvester harvester = NewHarvester();
  const auto harvest = harvester.Run();
  ASSERT_TRUE(harvest.ok()) << harvest.status();
  EXPECT_EQ(PagesOf(*harvest),
            (std::vector<int64_t>{0, 1, 64, 500, 999, 1000, 1099}));
  EXPECT_EQ(harvest->epoch, 1);
  EXPECT_EQ(harvest->log_id, guest_.log_id());
  EXPECT_EQ(harvest->fresh_page_count, 7);
  EXPECT_EQ(harvest->merged_page_count, 0);
  EXPECT_EQ(harvest->cleared_page_count, 7);
  EXPECT_EQ(harvest->resume_count, 0);
  EXPECT_EQ(guest_.sealed_page_count(), 0);
  EXPECT_EQ(guest_.in_flight_page_count(), 7);
}

TEST_F(HarvesterTest, SlotsThatWereNotAskedForStaySealed) {
  Write({7, 1000});
  HarvesterOptions options;
  options.slots = {FakeGuest::kOtherSlot};
  Harvester harvester = NewHarvester(options);
  const auto harvest = harvester.Run();
  ASSERT_TRUE(harvest.ok()) << harvest.status();
  EXPECT_EQ(PagesOf(*harvest), (std::vector<int64_t>{1000}));
  EXPECT_EQ(guest_.sealed_page_count(), 1);
}

TEST_F(HarvesterTest, NextSealCarriesTheAcknowledgement) {
  Write({7});
  Harvester harvester = NewHarvester();
  const auto first = harvester.Run();
  ASSERT_TRUE(first.ok());
  ASSERT_TRUE(Copy(*first).ok());
  ASSERT_TRUE(harvester.Delivered(first->epoch).ok());
  EXPECT_EQ(guest_.in_flight_page_count(), 1) << "not said to the daemon yet";
  const auto second = harvester.Run();
  ASSERT_TRUE(second.ok());
  EXPECT_EQ(second->acknowledged_page_count, 1);
  EXPECT_EQ(guest_.seals()[1].acknowledged_epoch(), 1);
  EXPECT_EQ(guest_.in_flight_page_count(), 0);
}

TEST_F(HarvesterTest, WithoutDeliveredNothingIsAcknowledged) {
  Write({7});
  Harvester harvester = NewHarvester();
  ASSERT_TRUE(harvester.Run().ok());
  ASSERT_TRUE(harvester.Acknowledge().ok());
  ASSERT_TRUE(harvester.Run().ok());
  EXPECT_EQ(guest_.in_flight_page_count(), 1);
}

TEST_F(HarvesterTest, LastRoundIsAcknowledgedByACallOfItsOwn) {
  Write({7});
  Harvester harvester = NewHarvester();
  const auto harvest = harvester.Run();
  ASSERT_TRUE(harvest.ok());
  ASSERT_TRUE(harvester.Delivered(harvest->epoch).ok());
  guest_.BreakCalls(FakeCall::kAcknowledge, {{Unavailable(), true}});
  ASSERT_TRUE(harvester.Acknowledge().ok());
  EXPECT_EQ(guest_.in_flight_page_count(), 0);
}

TEST_F(HarvesterTest, EpochThatWasNotHandedOutCannotBeDelivered) {
  Harvester harvester = NewHarvester();
  EXPECT_TRUE(absl::IsFailedPrecondition(harvester.Delivered(1)));
  ASSERT_TRUE(harvester.Run().ok());
  EXPECT_TRUE(harvester.Delivered(1).ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(harvester.Delivered(2)));
}

TEST_F(HarvesterTest, CountingChangesNothing) {
  Write({0, 999, 1000});
  guest_.SealByOther();
  Write({500});
  Harvester harvester = NewHarvester();
  const auto counts = harvester.CountUndelivered();
  ASSERT_TRUE(counts.ok()) << counts.status();
  EXPECT_EQ(counts->open_page_count(), 1);
  EXPECT_EQ(counts->sealed_page_count(), 3);
  EXPECT_EQ(counts->in_flight_page_count(), 0);
  EXPECT_EQ(guest_.sealed_epoch(), 1);
  EXPECT_EQ(guest_.open_page_count(), 1);
  EXPECT_EQ(guest_.sealed_page_count(), 3);
}

TEST_F(HarvesterTest, CountsAreOfTheSlotsThatItHarvests) {
  Write({7, 8, 1000});
  HarvesterOptions options;
  options.slots = {FakeGuest::kSlot};
  Harvester harvester = NewHarvester(options);
  ASSERT_TRUE(harvester.Run().ok());
  const auto counts = harvester.CountUndelivered();
  ASSERT_TRUE(counts.ok()) << counts.status();
  EXPECT_EQ(counts->sealed_page_count(), 0);
  EXPECT_EQ(counts->in_flight_page_count(), 2);
}

TEST_F(HarvesterTest, ClearsInBoundedRangesAndSkipsCleanOnes) {
  Write({0, 130, 999});
  HarvesterOptions options;
  options.clear_range_bytes = 64 * kPageBytes;
  Harvester harvester = NewHarvester(options);
  ASSERT_TRUE(harvester.Run().ok());
  std::vector<GpaRange> ranges;
  for (const auto& clear : guest_.clears()) {
    ranges.push_back({clear.pages().start_gpa_bytes() - FakeGuest::kGpa,
                      clear.pages().size_bytes()});
  }
  EXPECT_EQ(ranges,
            (std::vector<GpaRange>{{0, 64 * kPageBytes},
                                   {128 * kPageBytes, 64 * kPageBytes},
                                   {960 * kPageBytes, 40 * kPageBytes}}));
}

TEST_F(HarvesterTest, CleanSlotNeedsNoClear) {
  Harvester harvester = NewHarvester();
  const auto harvest = harvester.Run();
  ASSERT_TRUE(harvest.ok());
  EXPECT_EQ(harvest->page_count(), 0);
  EXPECT_TRUE(guest_.clears().empty());
}

TEST_F(HarvesterTest, BrokenStreamGoesOnWhereItBroke) {
  Write({0, 200, 300, 999, 1000});
  guest_.BreakDirtyLog({{Kind::kUnavailableAfter, 2}});
  Harvester harvester = NewHarvester();
  const auto harvest = harvester.Run();
  ASSERT_TRUE(harvest.ok()) << harvest.status();
  EXPECT_EQ(PagesOf(*harvest), (std::vector<int64_t>{0, 200, 300, 999, 1000}));
  EXPECT_EQ(harvest->resume_count, 1);
  ASSERT_EQ(guest_.reads().size(), 2u);
  EXPECT_EQ(guest_.reads()[1].epoch(), 1);
  EXPECT_EQ(guest_.reads()[1].start().slot(), FakeGuest::kSlot);
  EXPECT_EQ(guest_.reads()[1].start().gpa_bytes(),
            FakeGuest::kGpa + 2 * kPosition);
  EXPECT_EQ(guest_.seals().size(), 1u) << "resuming must not seal";
}

TEST_F(HarvesterTest, StreamThatBreaksInTheNextSlotGoesOnThere) {
  Write({0, 1000, 1099});
  // The first stream breaks after the 8 chunks of the first slot. The chunk of
  // the other slot is still missing.
  guest_.BreakDirtyLog({{Kind::kUnavailableAfter, 8}, {Kind::kNoTrailer}});
  Harvester harvester = NewHarvester();
  const auto harvest = harvester.Run();
  ASSERT_TRUE(harvest.ok()) << harvest.status();
  EXPECT_EQ(PagesOf(*harvest), (std::vector<int64_t>{0, 1000, 1099}));
  ASSERT_EQ(guest_.reads().size(), 3u);
  EXPECT_EQ(guest_.reads()[1].start().slot(), FakeGuest::kSlot);
  EXPECT_EQ(guest_.reads()[1].start().gpa_bytes(),
            FakeGuest::kGpa + kPages * kPageBytes);
  EXPECT_EQ(guest_.reads()[2].start().slot(), FakeGuest::kOtherSlot);
  EXPECT_EQ(guest_.reads()[2].start().gpa_bytes(),
            FakeGuest::kGpa + (kPages + kOtherPages) * kPageBytes);
}

TEST_F(HarvesterTest, CorruptChunkIsAskedForAgain) {
  Write({0, 200, 999});
  guest_.BreakDirtyLog({{Kind::kCorruptChunk, 1}});
  Harvester harvester = NewHarvester();
  const auto harvest = harvester.Run();
  ASSERT_TRUE(harvest.ok()) << harvest.status();
  EXPECT_EQ(PagesOf(*harvest), (std::vector<int64_t>{0, 200, 999}));
  EXPECT_EQ(guest_.reads()[1].start().gpa_bytes(), FakeGuest::kGpa + kPosition);
}

TEST_F(HarvesterTest, WrongTotalsMakeTheWholeStreamComeAgain) {
  Write({0, 999});
  guest_.BreakDirtyLog({{Kind::kWrongTrailer}});
  Harvester harvester = NewHarvester();
  const auto harvest = harvester.Run();
  ASSERT_TRUE(harvest.ok()) << harvest.status();
  EXPECT_EQ(PagesOf(*harvest), (std::vector<int64_t>{0, 999}));
  EXPECT_EQ(guest_.reads()[1].start().gpa_bytes(), FakeGuest::kGpa);
}

TEST_F(HarvesterTest, LostAnswerToTheSealDoesNotSealTwice) {
  Write({7});
  guest_.BreakCalls(FakeCall::kSeal,
                    {{Unavailable(), true}, {Unavailable(), false}});
  Harvester harvester = NewHarvester();
  const auto harvest = harvester.Run();
  ASSERT_TRUE(harvest.ok()) << harvest.status();
  EXPECT_EQ(harvest->epoch, 1);
  EXPECT_EQ(guest_.sealed_epoch(), 1);
  EXPECT_EQ(PagesOf(*harvest), (std::vector<int64_t>{7}));
}

TEST_F(HarvesterTest, SealWhoseAnswerNeverCameIsMergedIntoTheNext) {
  Write({7});
  guest_.BreakCalls(FakeCall::kSeal, {{Internal(), true}});
  Harvester harvester = NewHarvester();
  EXPECT_TRUE(absl::IsInternal(harvester.Run().status()));
  Write({8});
  const auto harvest = harvester.Run();
  ASSERT_TRUE(harvest.ok()) << harvest.status();
  EXPECT_EQ(harvest->epoch, 2);
  EXPECT_EQ(PagesOf(*harvest), (std::vector<int64_t>{7, 8}));
  EXPECT_EQ(harvest->fresh_page_count, 1);
  EXPECT_EQ(harvest->merged_page_count, 1);
}

TEST_F(HarvesterTest, StreamThatKeepsBreakingEndsWithItsErrorAndLosesNothing) {
  Write({7, 8});
  guest_.BreakDirtyLog(
      std::vector<StreamFault>(50, {Kind::kUnavailableAfter, 0}));
  HarvesterOptions options;
  options.retry.max_attempts = 3;
  Harvester harvester = NewHarvester(options);
  EXPECT_TRUE(absl::IsUnavailable(harvester.Run().status()));
  EXPECT_EQ(guest_.reads().size(), 3u);
  EXPECT_EQ(guest_.sealed_page_count(), 2);

  guest_.BreakDirtyLog({});
  const auto harvest = harvester.Run();
  ASSERT_TRUE(harvest.ok()) << harvest.status();
  EXPECT_EQ(PagesOf(*harvest), (std::vector<int64_t>{7, 8}));
}

TEST_F(HarvesterTest, AnotherSealDuringTheStreamStartsOver) {
  Write({7, 900});
  guest_.BreakDirtyLog({{Kind::kUnavailableAfter, 1}});
  int calls = 0;
  guest_.OnCall([&] {
    if (++calls == 3) {  // before the resumed stream
      guest_.Write(8);
      guest_.SealByOther();
    }
  });
  Harvester harvester = NewHarvester();
  const auto harvest = harvester.Run();
  ASSERT_TRUE(harvest.ok()) << harvest.status();
  EXPECT_EQ(PagesOf(*harvest), (std::vector<int64_t>{7, 8, 900}));
  EXPECT_EQ(harvest->restart_count, 1);
  EXPECT_EQ(guest_.sealed_page_count(), 0);
}

TEST_F(HarvesterTest, SlotThatMovesWhereAStreamBrokeStartsOver) {
  Write({7, 900, 1000});
  guest_.BreakDirtyLog({{Kind::kUnavailableAfter, 1}});
  int calls = 0;
  guest_.OnCall([&] {
    if (++calls == 3) guest_.MoveSlot();  // before the resumed stream
  });
  Harvester harvester = NewHarvester();
  const auto harvest = harvester.Run();
  ASSERT_TRUE(harvest.ok()) << harvest.status();
  ASSERT_GE(guest_.reads().size(), 2u);
  EXPECT_EQ(guest_.reads()[1].start().slot(), FakeGuest::kSlot);
  EXPECT_EQ(PagesOf(*harvest), (std::vector<int64_t>{7, 900, 1000}));
  EXPECT_EQ(harvest->restart_count, 1);
  EXPECT_EQ(guest_.sealed_page_count(), 0);
}

TEST_F(HarvesterTest, SlotThatMovesBetweenClearsKeepsWhatWasCleared) {
  Write({7, 900});
  int calls = 0;
  guest_.OnCall([&] {
    if (++calls == 4) guest_.MoveSlot();  // before the second clear
  });
  HarvesterOptions options;
  options.clear_range_bytes = 64 * kPageBytes;
  Harvester harvester = NewHarvester(options);
  const auto harvest = harvester.Run();
  ASSERT_TRUE(harvest.ok()) << harvest.status();
  EXPECT_EQ(PagesOf(*harvest), (std::vector<int64_t>{7, 900}));
  EXPECT_EQ(harvest->restart_count, 1);
  EXPECT_EQ(guest_.sealed_page_count(), 0);
}

TEST_F(HarvesterTest, ClearWhoseAnswerIsLostIsRepeatedUnderTheSameId) {
  Write({7});
  guest_.BreakCalls(FakeCall::kClear,
                    {{Unavailable(), true}, {Unavailable(), false}});
  Harvester harvester = NewHarvester();
  const auto harvest = harvester.Run();
  ASSERT_TRUE(harvest.ok()) << harvest.status();
  EXPECT_EQ(PagesOf(*harvest), (std::vector<int64_t>{7}));
  EXPECT_EQ(harvest->cleared_page_count, 1);
  ASSERT_EQ(guest_.clears().size(), 3u);
  EXPECT_EQ(guest_.clears()[0].request_id().size(), 36u);
  EXPECT_EQ(guest_.clears()[0].request_id(), guest_.clears()[2].request_id());
}

// Until the clear is answered, the daemon may still be about to write-protect
// its pages.
TEST_F(HarvesterTest, ClearThatWasNeverAnsweredIsRepeatedBeforeTheNextSeal) {
  Write({7});
  guest_.BreakCalls(FakeCall::kClear, {{Internal(), true}});
  Harvester harvester = NewHarvester();
  EXPECT_TRUE(absl::IsInternal(harvester.Run().status()));
  EXPECT_EQ(guest_.in_flight_page_count(), 1);

  guest_.BreakCalls(FakeCall::kClear, {{Internal(), false}});
  EXPECT_TRUE(absl::IsInternal(harvester.Run().status()));
  EXPECT_EQ(guest_.seals().size(), 1u)
      << "sealed before the clear was answered";

  const auto harvest = harvester.Run();
  ASSERT_TRUE(harvest.ok()) << harvest.status();
  EXPECT_EQ(harvest->epoch, 2);
  EXPECT_EQ(PagesOf(*harvest), (std::vector<int64_t>{7}));
  EXPECT_EQ(guest_.clears().back().epoch(), 1);
}

TEST_F(HarvesterTest, UnansweredClearOfASlotThatMovedIsForgotten) {
  Write({7});
  guest_.BreakCalls(FakeCall::kClear, {{Internal(), true}});
  Harvester harvester = NewHarvester();
  EXPECT_FALSE(harvester.Run().ok());
  guest_.MoveSlot();
  const auto harvest = harvester.Run();
  ASSERT_TRUE(harvest.ok()) << harvest.status();
  EXPECT_EQ(PagesOf(*harvest), (std::vector<int64_t>{7}));
  EXPECT_EQ(guest_.clears().back().epoch(), 2);
}

// It is no longer possible to know whether the clear took its pages and
// write-protected them.
TEST_F(HarvesterTest, SealOfOurTokenBesideAnUnansweredClearIsAnError) {
  Write({7});
  guest_.BreakCalls(FakeCall::kClear, {{Internal(), false}});
  Harvester harvester = NewHarvester();
  EXPECT_TRUE(absl::IsInternal(harvester.Run().status()));
  guest_.SealByOther();
  const absl::Status status = harvester.Run().status();
  EXPECT_TRUE(absl::IsAborted(status)) << status;
  EXPECT_EQ(guest_.seals().size(), 1u);
  EXPECT_EQ(guest_.sealed_page_count(), 1);
}

// The first attempt took pages of an epoch that is no longer the newest, so no
// retry can clear it.
TEST_F(HarvesterTest, SealOfOurTokenBetweenAttemptsAtAClearIsAnError) {
  Write({7});
  guest_.BreakCalls(FakeCall::kClear,
                    {{Unavailable(), /*done=*/true, /*ended_early=*/true}});
  int calls = 0;
  guest_.OnCall([&] {
    if (++calls == 4) guest_.SealByOther();  // before the second attempt
  });
  Harvester harvester = NewHarvester();
  for (int run = 0; run < 2; ++run) {
    const absl::Status status = harvester.Run().status();
    EXPECT_TRUE(absl::IsAborted(status)) << status;
    EXPECT_EQ(ReasonOf(status), v1::ERROR_REASON_UNSPECIFIED);
    EXPECT_EQ(guest_.seals().size(), 1u);
    EXPECT_EQ(guest_.in_flight_page_count(), 1);
  }
  Harvester next(&client_->dirty_log(), FakeGuest::kVm,
                 TakeOver(/*force=*/true), {});
  const auto harvest = next.Run();
  ASSERT_TRUE(harvest.ok()) << harvest.status();
  EXPECT_EQ(PagesOf(*harvest), (std::vector<int64_t>{7}));
}

TEST_F(HarvesterTest, PagesOfAClearThatFailedComeWithTheNextHarvest) {
  Write({7, 900});
  // The daemon clears the first range and refuses the second one.
  guest_.BreakCalls(
      FakeCall::kClear,
      {{grpc::Status::OK},
       {grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "no")}});
  HarvesterOptions options;
  options.clear_range_bytes = 64 * kPageBytes;
  Harvester harvester = NewHarvester(options);
  EXPECT_TRUE(absl::IsResourceExhausted(harvester.Run().status()));
  EXPECT_EQ(guest_.sealed_page_count(), 1);
  EXPECT_EQ(guest_.in_flight_page_count(), 1);

  Write({8});
  const auto harvest = harvester.Run();
  ASSERT_TRUE(harvest.ok()) << harvest.status();
  EXPECT_EQ(PagesOf(*harvest), (std::vector<int64_t>{7, 8, 900}));
  EXPECT_EQ(harvest->oldest_epoch, 1);
  EXPECT_EQ(harvest->epoch, 2);
  EXPECT_TRUE(absl::IsFailedPrecondition(harvester.Delivered(1)));
  EXPECT_TRUE(harvester.Delivered(2).ok());
  ASSERT_TRUE(harvester.Acknowledge().ok());
  EXPECT_EQ(guest_.in_flight_page_count(), 0);
}

TEST_F(HarvesterTest, EarlierHarvestCanBeDeliveredAfterALaterOneFailed) {
  Write({7});
  Harvester harvester = NewHarvester();
  ASSERT_TRUE(harvester.Run().ok());
  Write({8});
  guest_.BreakCalls(FakeCall::kClear, {{Internal(), false}});
  EXPECT_FALSE(harvester.Run().ok());
  EXPECT_TRUE(harvester.Delivered(1).ok());
  const auto harvest = harvester.Run();
  ASSERT_TRUE(harvest.ok()) << harvest.status();
  EXPECT_EQ(PagesOf(*harvest), (std::vector<int64_t>{8}));
  EXPECT_EQ(guest_.in_flight_page_count(), 1);
}

TEST_F(HarvesterTest, PagesGivenBackComeAgainAndAreNotAcknowledgedBefore) {
  Write({7});
  Harvester harvester = NewHarvester();
  const auto first = harvester.Run();
  ASSERT_TRUE(first.ok());
  harvester.GiveBack(*first);
  EXPECT_TRUE(absl::IsFailedPrecondition(harvester.Delivered(first->epoch)));
  const auto second = harvester.Run();
  ASSERT_TRUE(second.ok());
  EXPECT_EQ(PagesOf(*second), (std::vector<int64_t>{7}));
  EXPECT_TRUE(absl::IsFailedPrecondition(harvester.Delivered(first->epoch)));
  EXPECT_TRUE(harvester.Delivered(second->epoch).ok());
  const auto third = harvester.Run();
  ASSERT_TRUE(third.ok());
  EXPECT_EQ(third->page_count(), 0);
  EXPECT_EQ(third->acknowledged_page_count, 1);
}

// One page after the other, with the last page first.
HarvestPiece LastPage(int64_t /*epoch*/, const SlotBitmaps& left) {
  for (auto it = left.rbegin(); it != left.rend(); ++it) {
    if (it->second.empty()) continue;
    const GpaRange last = it->second.Ranges().back();
    return {{it->first, {{last.end_bytes() - kPageBytes, kPageBytes}}}};
  }
  return {};
}

// The page of a piece of one page.
int64_t PageOf(const std::vector<GpaRange>& ranges) {
  return (ranges.at(0).gpa_bytes - FakeGuest::kGpa) / kPageBytes;
}

TEST_F(HarvesterTest, EachPieceIsClearedJustBeforeItIsCopied) {
  Write({7, 8, 1000});
  Harvester harvester = NewHarvester();
  std::vector<int64_t> pages;
  const auto harvest =
      harvester.RunInPieces(LastPage, [&](const std::vector<GpaRange>& piece) {
        pages.push_back(PageOf(piece));
        const auto copied = static_cast<int64_t>(pages.size());
        EXPECT_EQ(guest_.in_flight_page_count(), copied);
        EXPECT_EQ(guest_.sealed_page_count(), 3 - copied);
        return absl::OkStatus();
      });
  ASSERT_TRUE(harvest.ok()) << harvest.status();
  EXPECT_EQ(pages, (std::vector<int64_t>{1000, 8, 7}));
  EXPECT_EQ(PagesOf(*harvest), (std::vector<int64_t>{7, 8, 1000}));
  EXPECT_EQ(harvest->clear_call_count, 3);
  ASSERT_TRUE(harvester.Delivered(harvest->epoch).ok());
  ASSERT_TRUE(harvester.Acknowledge().ok());
  EXPECT_EQ(guest_.in_flight_page_count(), 0);
}

TEST_F(HarvesterTest, PageWrittenBeforeItsPieceIsClearedIsNotDirtyAgain) {
  Write({7, 8});
  Harvester harvester = NewHarvester();
  int piece = 0;
  const auto harvest =
      harvester.RunInPieces(LastPage, [&](const std::vector<GpaRange>&) {
        // Page 8 is cleared by now, and page 7 is not before the second piece.
        if (++piece == 1) Write({7, 8});
        return absl::OkStatus();
      });
  ASSERT_TRUE(harvest.ok()) << harvest.status();
  const auto next = harvester.Run();
  ASSERT_TRUE(next.ok()) << next.status();
  EXPECT_EQ(PagesOf(*next), (std::vector<int64_t>{8}));
}

TEST_F(HarvesterTest, PieceThatIsNotCopiedAndThoseAfterItComeAgain) {
  Write({7, 8, 9});
  Harvester harvester = NewHarvester();
  int piece = 0;
  const absl::Status status =
      harvester
          .RunInPieces(LastPage,
                       [&](const std::vector<GpaRange>&) {
                         return ++piece == 2 ? absl::AbortedError("no copy")
                                             : absl::OkStatus();
                       })
          .status();
  EXPECT_EQ(status.message(), "no copy");
  // Page 9 was copied, page 8 was not, page 7 is still sealed.
  EXPECT_EQ(guest_.in_flight_page_count(), 2);
  EXPECT_EQ(guest_.sealed_page_count(), 1);
  EXPECT_TRUE(absl::IsFailedPrecondition(harvester.Delivered(1)));
  const auto harvest = harvester.Run();
  ASSERT_TRUE(harvest.ok()) << harvest.status();
  EXPECT_EQ(PagesOf(*harvest), (std::vector<int64_t>{7, 8}));
  EXPECT_EQ(harvest->oldest_epoch, 1);
  ASSERT_TRUE(harvester.Delivered(harvest->epoch).ok());
  ASSERT_TRUE(harvester.Acknowledge().ok());
  EXPECT_EQ(guest_.in_flight_page_count(), 0);
}

TEST_F(HarvesterTest, SlotMovedBetweenPiecesComesAgainAsAWhole) {
  Write({7, 8, 1000});
  Harvester harvester = NewHarvester();
  std::vector<int64_t> pages;
  const auto harvest =
      harvester.RunInPieces(LastPage, [&](const std::vector<GpaRange>& piece) {
        pages.push_back(PageOf(piece));
        if (pages.size() == 2) guest_.MoveSlot();
        return absl::OkStatus();
      });
  ASSERT_TRUE(harvest.ok()) << harvest.status();
  EXPECT_EQ(harvest->restart_count, 1);
  EXPECT_EQ(pages, (std::vector<int64_t>{1000, 8, 8, 7}));
  EXPECT_EQ(harvest->oldest_epoch, 1);
  ASSERT_TRUE(harvester.Delivered(harvest->epoch).ok());
  ASSERT_TRUE(harvester.Acknowledge().ok());
  EXPECT_EQ(guest_.in_flight_page_count(), 0);
}

TEST_F(HarvesterTest, PagesGivenBackAreInTheFirstPiece) {
  Write({7});
  Harvester harvester = NewHarvester();
  const auto first = harvester.Run();
  ASSERT_TRUE(first.ok());
  harvester.GiveBack(*first);
  std::vector<std::vector<GpaRange>> pieces;
  const auto copy = [&](const std::vector<GpaRange>& piece) {
    pieces.push_back(piece);
    return absl::OkStatus();
  };
  // There is a first piece even if no page is sealed.
  ASSERT_TRUE(harvester.RunInPieces(LastPage, copy).ok());
  ASSERT_EQ(pieces.size(), 1u);
  EXPECT_EQ(PageOf(pieces[0]), 7);
}

TEST_F(HarvesterTest, PagesThatNoPieceHasStaySealed) {
  Write({7, 8});
  Harvester harvester = NewHarvester();
  const auto harvest = harvester.RunInPieces(
      [](int64_t epoch, const SlotBitmaps& left) {
        // Page 8 is first.
        const HarvestPiece piece = LastPage(epoch, left);
        return PageOf(piece.begin()->second) == 8 ? piece : HarvestPiece();
      },
      [](const std::vector<GpaRange>&) { return absl::OkStatus(); });
  ASSERT_TRUE(harvest.ok()) << harvest.status();
  EXPECT_EQ(PagesOf(*harvest), (std::vector<int64_t>{8}));
  const auto next = harvester.Run();
  ASSERT_TRUE(next.ok()) << next.status();
  EXPECT_EQ(PagesOf(*next), (std::vector<int64_t>{7}));
}

TEST_F(HarvesterTest, FourEpochsCanBeInFlightAndTheFifthAsksToAcknowledge) {
  Harvester harvester = NewHarvester();
  for (int64_t epoch = 1; epoch <= 4; ++epoch) {
    guest_.Write(epoch);
    ASSERT_TRUE(harvester.Run().ok());
  }
  guest_.Write(5);
  const absl::Status status = harvester.Run().status();
  EXPECT_EQ(ReasonOf(status), v1::LIMIT_EXCEEDED);
  ASSERT_TRUE(harvester.Delivered(1).ok());
  const auto harvest = harvester.Run();
  ASSERT_TRUE(harvest.ok()) << harvest.status();
  EXPECT_EQ(PagesOf(*harvest), (std::vector<int64_t>{5}));
  EXPECT_EQ(guest_.in_flight_page_count(), 4);
}

TEST_F(HarvesterTest, WhatFailedRunsTookIsHandedOutBeforeTooMuchIsInFlight) {
  HarvesterOptions options;
  options.clear_range_bytes = 64 * kPageBytes;
  Harvester harvester = NewHarvester(options);
  std::vector<int64_t> taken;
  for (int64_t run = 0; run < 4; ++run) {
    taken.push_back(128 * run);
    taken.push_back(128 * run + 64);
    Write({taken[2 * run], taken[2 * run + 1]});
    // In each run but the first, the repeated clear of the run before succeeds.
    // One more clear succeeds, and the next one fails.
    std::vector<CallFault> faults(run == 0 ? 1 : 2);
    faults.push_back({Internal(), false});
    guest_.BreakCalls(FakeCall::kClear, faults);
    EXPECT_TRUE(absl::IsInternal(harvester.Run().status()));
  }
  Write({999});
  const auto harvest = harvester.Run();
  ASSERT_TRUE(harvest.ok()) << harvest.status();
  EXPECT_EQ(PagesOf(*harvest), taken);
  EXPECT_EQ(guest_.sealed_page_count(), 1);
  ASSERT_TRUE(harvester.Delivered(harvest->epoch).ok());
  const auto next = harvester.Run();
  ASSERT_TRUE(next.ok()) << next.status();
  EXPECT_EQ(next->acknowledged_page_count, 8);
  EXPECT_EQ(PagesOf(*next), (std::vector<int64_t>{999}));
}

// The clear of a fifth epoch gets no answer and is not carried out. The daemon
// refuses to repeat it until an epoch is acknowledged.
TEST_F(HarvesterTest, UnansweredClearOfAnEpochTooManyIsForgotten) {
  HarvesterOptions options;
  options.clear_range_bytes = 64 * kPageBytes;
  Harvester harvester = NewHarvester(options);
  std::vector<int64_t> taken;
  for (int64_t run = 0; run < 4; ++run) {
    taken.push_back(128 * run);
    taken.push_back(128 * run + 64);
    Write({taken[2 * run], taken[2 * run + 1]});
    std::vector<CallFault> faults(run == 0 ? 1 : 2);
    faults.push_back({Internal(), false});
    guest_.BreakCalls(FakeCall::kClear, faults);
    EXPECT_TRUE(absl::IsInternal(harvester.Run().status()));
  }
  Write({999});
  guest_.BreakCalls(FakeCall::kClear, {{}, {Internal(), false}});
  EXPECT_TRUE(absl::IsInternal(harvester.Run().status()));

  const auto harvest = harvester.Run();
  ASSERT_TRUE(harvest.ok()) << harvest.status();
  EXPECT_EQ(PagesOf(*harvest), taken);
  EXPECT_EQ(guest_.sealed_page_count(), 1);
  ASSERT_TRUE(harvester.Delivered(harvest->epoch).ok());
  const auto next = harvester.Run();
  ASSERT_TRUE(next.ok()) << next.status();
  EXPECT_EQ(next->acknowledged_page_count, 8);
  EXPECT_EQ(PagesOf(*next), (std::vector<int64_t>{999}));
}

TEST_F(HarvesterTest, NextOwnerGetsWhatDiedBetweenClearAndCopy) {
  Write({7, 900});
  {
    Harvester harvester = NewHarvester();
    ASSERT_TRUE(harvester.Run().ok());
  }  // dies before it copies
  Write({8});
  guest_.ExpireLease();
  const std::string token = TakeOver(/*force=*/false);
  EXPECT_EQ(guest_.owner(), "second owner");
  Harvester next(&client_->dirty_log(), FakeGuest::kVm, token, {});
  const auto harvest = next.Run();
  ASSERT_TRUE(harvest.ok()) << harvest.status();
  EXPECT_EQ(PagesOf(*harvest), (std::vector<int64_t>{7, 8, 900}));
  EXPECT_EQ(harvest->merged_page_count, 2);
  ASSERT_TRUE(Copy(*harvest).ok());
  EXPECT_TRUE(copy_ == guest_.MemoryCopy());
}

TEST_F(HarvesterTest, FormerOwnerIsFencedAtEachStep) {
  Write({7});
  int steps = 0;
  for (int at = 1; at <= 3; ++at) {
    FakeGuest guest(kPages, 128);
    const std::unique_ptr<Client> client = guest.NewClient();
    guest.Write(7);
    int calls = 0;
    guest.OnCall([&] {
      if (++calls != at) return;
      guest.OnCall(nullptr);
      v1::AcquireDirtyLogRequest request;
      request.set_vm(FakeGuest::kVm);
      request.set_owner("second owner");
      request.set_owner_token(NewOwnerToken());
      request.set_force(true);
      EXPECT_TRUE(client->dirty_log().AcquireDirtyLog(request).ok());
      ++steps;
    });
    Harvester harvester(&client->dirty_log(), FakeGuest::kVm, FakeGuest::kToken,
                        {});
    const absl::Status status = harvester.Run().status();
    EXPECT_EQ(ReasonOf(status), v1::LOG_FENCED) << at << ": " << status;
    EXPECT_EQ(ErrorInfoOf(status).metadata["owner"], "second owner");
    EXPECT_EQ(guest.open_page_count() + guest.sealed_page_count(), 1) << at;
    EXPECT_EQ(ReasonOf(harvester.Run().status()), v1::LOG_FENCED);
  }
  EXPECT_EQ(steps, 3);
}

TEST_F(HarvesterTest, StrangerIsToldTheOwnerAndTakesNothing) {
  Write({7});
  Harvester stranger(&client_->dirty_log(), FakeGuest::kVm, NewOwnerToken(),
                     {});
  const absl::Status status = stranger.Run().status();
  EXPECT_EQ(ReasonOf(status), v1::LOG_OWNED);
  EXPECT_EQ(ErrorInfoOf(status).metadata["owner"], FakeGuest::kOwner);
  EXPECT_EQ(guest_.open_page_count(), 1);
  EXPECT_EQ(guest_.sealed_epoch(), 0);
}

TEST_F(HarvesterTest, LogOfALaterVmOfTheSameNameIsLeftAlone) {
  Write({7});
  Harvester harvester = NewHarvester();
  ASSERT_TRUE(harvester.Run().ok());
  // The VM is deleted and made again, and its log has the same owner.
  guest_.StopLog();
  v1::StartDirtyLogRequest request;
  request.set_vm(FakeGuest::kVm);
  request.set_owner(FakeGuest::kOwner);
  request.set_owner_token(FakeGuest::kToken);
  ASSERT_TRUE(client_->dirty_log().StartDirtyLog(request).ok());
  Write({8});
  EXPECT_EQ(ReasonOf(harvester.Run().status()), v1::LOG_CHANGED);
  EXPECT_EQ(guest_.open_page_count(), 1);
}

// The guest writes before every call. Calls and streams fail at random,
// harvests are given back, and owners die at random points and are replaced. At
// the end the destination equals the guest's memory.
TEST_F(HarvesterTest, CopyIsEqualHoweverCallsBreakAndOwnersDie) {
  int deaths_between_clear_and_copy = 0;
  int harvests_given_back = 0;
  for (uint32_t seed = 1; seed <= 20; ++seed) {
    std::mt19937 random(seed);
    FakeGuest guest(kPages, 64, kOtherPages);
    const std::unique_ptr<Client> client = guest.NewClient();
    guest.OnCall([&] {
      for (int i = 0; i < 5; ++i)
        guest.Write(random() % (kPages + kOtherPages));
      if (random() % 32 == 0) guest.MoveSlot();
    });
    HarvesterOptions options;
    options.clear_range_bytes = 128 * kPageBytes;
    options.max_restarts = 100;
    auto harvester = std::make_unique<Harvester>(
        &client->dirty_log(), FakeGuest::kVm, FakeGuest::kToken, options);
    PageReader reader(&client->memory(), FakeGuest::kVm, {});
    std::string copy = guest.MemoryCopy();
    CopySink sink(&copy);
    int harvests = 0;
    // The last two rounds have no faults. The first of them may return only
    // pages that earlier rounds took.
    for (int round = 0; round < 41; ++round) {
      const bool last = round >= 39;
      if (last) guest.OnCall(nullptr);
      const auto faults = [&] {
        std::vector<StreamFault> some(last ? 0 : 4);
        for (StreamFault& fault : some) {
          fault = {static_cast<Kind>(random() % 6),
                   static_cast<int>(random() % 16)};
        }
        return some;
      };
      guest.BreakDirtyLog(faults());
      guest.BreakPages(faults());
      for (const FakeCall call :
           {FakeCall::kSeal, FakeCall::kClear, FakeCall::kAcknowledge}) {
        std::vector<CallFault> calls;
        if (!last && random() % 3 == 0) {
          calls = {{Unavailable(), random() % 2 == 0},
                   {Internal(), random() % 2 == 0}};
        }
        guest.BreakCalls(call, calls);
      }
      const auto harvest = harvester->Run();
      const bool dies = !last && random() % 4 == 0;
      ASSERT_TRUE(harvest.ok() || !last) << harvest.status();
      if (harvest.ok() && !dies && !last && random() % 5 == 0) {
        harvester->GiveBack(*harvest);
        ++harvests_given_back;
      } else if (harvest.ok() && !dies) {
        ASSERT_TRUE(reader.Read(harvest->Ranges(), &sink).ok());
        ASSERT_TRUE(harvester->Delivered(harvest->epoch).ok());
        ++harvests;
      }
      if (!dies) continue;
      if (harvest.ok()) ++deaths_between_clear_and_copy;
      v1::AcquireDirtyLogRequest request;
      request.set_vm(FakeGuest::kVm);
      request.set_owner("the next");
      request.set_owner_token(NewOwnerToken());
      request.set_force(true);
      ASSERT_TRUE(client->dirty_log().AcquireDirtyLog(request).ok());
      harvester = std::make_unique<Harvester>(
          &client->dirty_log(), FakeGuest::kVm, request.owner_token(), options);
    }
    EXPECT_GT(harvests, 5);
    ASSERT_TRUE(harvester->Acknowledge().ok());
    EXPECT_EQ(guest.open_page_count(), 0);
    EXPECT_EQ(guest.sealed_page_count(), 0);
    EXPECT_EQ(guest.in_flight_page_count(), 0);
    EXPECT_TRUE(copy == guest.MemoryCopy()) << "seed " << seed;
  }
  EXPECT_GT(deaths_between_clear_and_copy, 20);
  EXPECT_GT(harvests_given_back, 20);
}

}  // namespace
}  // namespace mmud::client
