#include "client/mmu_client/harvester.h"

#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "client/mmu_client/client.h"
#include "client/mmu_client/fake_guest.h"
#include "client/mmu_client/page_bitmap.h"
#include "client/mmu_client/page_reader.h"
#include "gtest/gtest.h"

namespace mmud::client {
namespace {

using Kind = StreamFault::Kind;
constexpr int64_t kPages = 1000;  // not a multiple of 64 on purpose

grpc::Status Unavailable() {
  return grpc::Status(grpc::StatusCode::UNAVAILABLE, "gone");
}

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

class HarvesterTest : public testing::Test {
 protected:
  Harvester NewHarvester(HarvesterOptions options = {}) {
    return Harvester(&client_->dirty_log(), FakeGuest::kVm, options);
  }

  void Write(const std::vector<int64_t>& pages) {
    for (const int64_t page : pages) guest_.Write(page);
  }

  static std::vector<int64_t> PagesOf(const Harvest& harvest) {
    std::vector<int64_t> pages;
    for (const GpaRange& range : harvest.pages.Ranges()) {
      for (int64_t gpa = range.gpa_bytes; gpa < range.end_bytes();
           gpa += kPageBytes) {
        pages.push_back((gpa - FakeGuest::kGpa) / kPageBytes);
      }
    }
    return pages;
  }

  FakeGuest guest_{kPages, 128};
  std::unique_ptr<Client> client_ = guest_.NewClient();
};

TEST_F(HarvesterTest, YieldsExactlyTheDirtyPagesAndClearsThem) {
  Write({0, 1, 64, 500, 999});
  Harvester harvester = NewHarvester();
  const auto harvest = harvester.Run(FakeGuest::kSlot);
  ASSERT_TRUE(harvest.ok()) << harvest.status();
  EXPECT_EQ(PagesOf(*harvest), (std::vector<int64_t>{0, 1, 64, 500, 999}));
  EXPECT_EQ(harvest->epoch, 1);
  EXPECT_EQ(harvest->sealed_page_count, 5);
  EXPECT_EQ(harvest->cleared_page_count, 5);
  EXPECT_EQ(harvest->resume_count, 0);
  EXPECT_EQ(guest_.unacked_page_count(), 0);
}

TEST_F(HarvesterTest, CountingDirtyPagesChangesNothing) {
  Write({0, 999});
  guest_.SealByOther();
  Write({999, 500});
  guest_.BreakDirtyLog({{Kind::kUnavailableAfter, 2}});
  Harvester harvester = NewHarvester();
  EXPECT_EQ(*harvester.CountDirtyPages(FakeGuest::kSlot), 3);
  EXPECT_EQ(guest_.sealed_epoch(), 1);
  EXPECT_EQ(guest_.dirty_page_count(), 2);
  EXPECT_EQ(guest_.unacked_page_count(), 2);
}

TEST_F(HarvesterTest, ClearsInBoundedRangesAndSkipsCleanOnes) {
  Write({0, 130, 999});
  HarvesterOptions options;
  options.clear_range_bytes = 64 * kPageBytes;
  Harvester harvester = NewHarvester(options);
  ASSERT_TRUE(harvester.Run(FakeGuest::kSlot).ok());
  std::vector<GpaRange> ranges;
  for (const auto& clear : guest_.clears()) {
    ranges.push_back(
        {clear.start_gpa_bytes() - FakeGuest::kGpa, clear.size_bytes()});
  }
  EXPECT_EQ(ranges,
            (std::vector<GpaRange>{{0, 64 * kPageBytes},
                                   {128 * kPageBytes, 64 * kPageBytes},
                                   {960 * kPageBytes, 40 * kPageBytes}}));
}

TEST_F(HarvesterTest, CleanSlotNeedsNoClear) {
  Harvester harvester = NewHarvester();
  const auto harvest = harvester.Run(FakeGuest::kSlot);
  ASSERT_TRUE(harvest.ok());
  EXPECT_TRUE(harvest->pages.empty());
  EXPECT_TRUE(guest_.clears().empty());
}

TEST_F(HarvesterTest, BrokenStreamGoesOnWhereItBroke) {
  Write({0, 200, 300, 999});
  guest_.BreakDirtyLog({{Kind::kUnavailableAfter, 2}});
  Harvester harvester = NewHarvester();
  const auto harvest = harvester.Run(FakeGuest::kSlot);
  ASSERT_TRUE(harvest.ok()) << harvest.status();
  EXPECT_EQ(PagesOf(*harvest), (std::vector<int64_t>{0, 200, 300, 999}));
  EXPECT_EQ(harvest->resume_count, 1);
  ASSERT_EQ(guest_.gets().size(), 2u);
  EXPECT_EQ(guest_.gets()[1].epoch(), 1);
  EXPECT_EQ(guest_.gets()[1].start_gpa_bytes(),
            FakeGuest::kGpa + 2 * 128 * kPageBytes);
  EXPECT_EQ(guest_.sealed_epoch(), 1) << "resuming must not seal";
}

TEST_F(HarvesterTest, StreamThatLosesOnlyItsTrailerAsksForTheLastPagesAgain) {
  Write({0, 999});
  guest_.BreakDirtyLog({{Kind::kNoTrailer}});
  Harvester harvester = NewHarvester();
  const auto harvest = harvester.Run(FakeGuest::kSlot);
  ASSERT_TRUE(harvest.ok()) << harvest.status();
  EXPECT_EQ(PagesOf(*harvest), (std::vector<int64_t>{0, 999}));
  EXPECT_EQ(guest_.gets()[1].start_gpa_bytes(),
            FakeGuest::kGpa + 960 * kPageBytes);
}

TEST_F(HarvesterTest, CorruptChunkIsAskedForAgain) {
  Write({0, 200, 999});
  guest_.BreakDirtyLog({{Kind::kCorruptChunk, 1}});
  Harvester harvester = NewHarvester();
  const auto harvest = harvester.Run(FakeGuest::kSlot);
  ASSERT_TRUE(harvest.ok()) << harvest.status();
  EXPECT_EQ(PagesOf(*harvest), (std::vector<int64_t>{0, 200, 999}));
  EXPECT_EQ(guest_.gets()[1].start_gpa_bytes(),
            FakeGuest::kGpa + 128 * kPageBytes);
}

TEST_F(HarvesterTest, WrongTotalsMakeTheWholeStreamComeAgain) {
  Write({0, 999});
  guest_.BreakDirtyLog({{Kind::kWrongTrailer}});
  Harvester harvester = NewHarvester();
  const auto harvest = harvester.Run(FakeGuest::kSlot);
  ASSERT_TRUE(harvest.ok()) << harvest.status();
  EXPECT_EQ(PagesOf(*harvest), (std::vector<int64_t>{0, 999}));
  EXPECT_EQ(guest_.gets()[1].start_gpa_bytes(), FakeGuest::kGpa);
}

TEST_F(HarvesterTest, LostAnswerToTheSealDoesNotSealTwice) {
  Write({7});
  guest_.BreakDirtyLog({{Kind::kBeforeHeader}, {Kind::kBeforeHeader}});
  Harvester harvester = NewHarvester();
  const auto harvest = harvester.Run(FakeGuest::kSlot);
  ASSERT_TRUE(harvest.ok()) << harvest.status();
  EXPECT_EQ(harvest->epoch, 1);
  EXPECT_EQ(PagesOf(*harvest), (std::vector<int64_t>{7}));
}

TEST_F(HarvesterTest, StreamThatKeepsBreakingEndsWithItsErrorAndLosesNothing) {
  Write({7, 8});
  guest_.BreakDirtyLog(
      std::vector<StreamFault>(50, {Kind::kUnavailableAfter, 0}));
  HarvesterOptions options;
  options.retry.max_attempts = 3;
  Harvester harvester = NewHarvester(options);
  EXPECT_TRUE(absl::IsUnavailable(harvester.Run(FakeGuest::kSlot).status()));
  EXPECT_EQ(guest_.gets().size(), 3u);
  EXPECT_EQ(guest_.unacked_page_count(), 2);

  guest_.BreakDirtyLog({});
  Harvester next = NewHarvester();  // as after a crash of the first one
  const auto harvest = next.Run(FakeGuest::kSlot);
  ASSERT_TRUE(harvest.ok()) << harvest.status();
  EXPECT_EQ(PagesOf(*harvest), (std::vector<int64_t>{7, 8}));
}

TEST_F(HarvesterTest, SealBySomeoneElseDuringTheStreamStartsOver) {
  Write({7, 900});
  guest_.BreakDirtyLog({{Kind::kUnavailableAfter, 1}});
  int calls = 0;
  guest_.OnCall([&] {
    if (++calls == 2) {  // before the resumed stream
      guest_.Write(8);
      guest_.SealByOther();
    }
  });
  Harvester harvester = NewHarvester();
  const auto harvest = harvester.Run(FakeGuest::kSlot);
  ASSERT_TRUE(harvest.ok()) << harvest.status();
  EXPECT_EQ(PagesOf(*harvest), (std::vector<int64_t>{7, 8, 900}));
  EXPECT_EQ(harvest->restart_count, 1);
  EXPECT_EQ(guest_.unacked_page_count(), 0);
}

TEST_F(HarvesterTest, SealBySomeoneElseBetweenClearsKeepsWhatWasCleared) {
  Write({7, 900});
  int calls = 0;
  guest_.OnCall([&] {
    if (++calls == 3) guest_.SealByOther();  // before the second clear
  });
  HarvesterOptions options;
  options.clear_range_bytes = 64 * kPageBytes;
  Harvester harvester = NewHarvester(options);
  const auto harvest = harvester.Run(FakeGuest::kSlot);
  ASSERT_TRUE(harvest.ok()) << harvest.status();
  EXPECT_EQ(PagesOf(*harvest), (std::vector<int64_t>{7, 900}));
  EXPECT_EQ(guest_.unacked_page_count(), 0);
}

TEST_F(HarvesterTest, ClearWhoseAnswerIsLostIsRepeatedUnderTheSameId) {
  Write({7});
  guest_.BreakClears({{Unavailable(), true}, {Unavailable(), false}});
  Harvester harvester = NewHarvester();
  const auto harvest = harvester.Run(FakeGuest::kSlot);
  ASSERT_TRUE(harvest.ok()) << harvest.status();
  EXPECT_EQ(PagesOf(*harvest), (std::vector<int64_t>{7}));
  ASSERT_EQ(guest_.clears().size(), 3u);
  EXPECT_EQ(guest_.clears()[0].request_id().size(), 36u);
  EXPECT_EQ(guest_.clears()[0].request_id(), guest_.clears()[2].request_id());
}

TEST_F(HarvesterTest, PagesOfAClearThatFailedComeWithTheNextHarvest) {
  Write({7, 900});
  // The first range is cleared, the second one is refused for good.
  guest_.BreakClears(
      {{grpc::Status::OK},
       {grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "no")}});
  HarvesterOptions options;
  options.clear_range_bytes = 64 * kPageBytes;
  Harvester harvester = NewHarvester(options);
  EXPECT_TRUE(
      absl::IsResourceExhausted(harvester.Run(FakeGuest::kSlot).status()));
  EXPECT_EQ(guest_.unacked_page_count(), 1);

  Write({8});
  const auto harvest = harvester.Run(FakeGuest::kSlot);
  ASSERT_TRUE(harvest.ok()) << harvest.status();
  EXPECT_EQ(PagesOf(*harvest), (std::vector<int64_t>{7, 8, 900}));
  EXPECT_EQ(harvest->sealed_page_count, 2);
}

TEST_F(HarvesterTest, PagesGivenBackComeAgain) {
  Write({7});
  Harvester harvester = NewHarvester();
  const auto first = harvester.Run(FakeGuest::kSlot);
  ASSERT_TRUE(first.ok());
  ASSERT_TRUE(harvester.GiveBack(FakeGuest::kSlot, first->pages).ok());
  const auto second = harvester.Run(FakeGuest::kSlot);
  ASSERT_TRUE(second.ok());
  EXPECT_EQ(PagesOf(*second), (std::vector<int64_t>{7}));
  const auto third = harvester.Run(FakeGuest::kSlot);
  ASSERT_TRUE(third.ok());
  EXPECT_TRUE(third->pages.empty());
}

// The guest writes before every single call while streams and clears fail at
// random; the copy made in the order seal, clear, copy ends up equal.
TEST_F(HarvesterTest, CopyIsEqualHoweverStreamsAndClearsBreak) {
  for (uint32_t seed = 1; seed <= 20; ++seed) {
    std::mt19937 random(seed);
    FakeGuest guest(kPages, 64);
    const std::unique_ptr<Client> client = guest.NewClient();
    guest.OnCall([&] {
      for (int i = 0; i < 5; ++i) guest.Write(random() % kPages);
      if (random() % 16 == 0) guest.SealByOther();
    });
    HarvesterOptions options;
    options.clear_range_bytes = 128 * kPageBytes;
    options.max_restarts = 100;
    auto harvester = std::make_unique<Harvester>(&client->dirty_log(),
                                                 FakeGuest::kVm, options);
    PageReader reader(&client->memory(), FakeGuest::kVm, {});
    std::string copy = guest.MemoryCopy();
    CopySink sink(&copy);
    int harvests = 0;
    for (int round = 0; round < 30; ++round) {
      std::vector<StreamFault> faults(4);
      for (StreamFault& fault : faults) {
        fault = {static_cast<Kind>(random() % 6),
                 static_cast<int>(random() % 16)};
      }
      const bool last = round == 29;
      if (last) guest.OnCall(nullptr);
      guest.BreakDirtyLog(last ? std::vector<StreamFault>() : faults);
      guest.BreakPages(last ? std::vector<StreamFault>() : faults);
      if (!last && random() % 3 == 0) {
        guest.BreakClears({{Unavailable(), random() % 2 == 0},
                           {grpc::Status(grpc::StatusCode::INTERNAL, "bad"),
                            random() % 2 == 0}});
      } else {
        guest.BreakClears({});
      }
      const auto harvest = harvester->Run(FakeGuest::kSlot);
      if (!harvest.ok()) continue;
      ++harvests;
      const auto read = reader.Read(harvest->pages.Ranges(), &sink);
      ASSERT_TRUE(read.ok()) << read.status();
    }
    EXPECT_GT(harvests, 5);
    EXPECT_EQ(guest.dirty_page_count(), 0);
    EXPECT_EQ(guest.unacked_page_count(), 0);
    EXPECT_TRUE(copy == guest.MemoryCopy()) << "seed " << seed;
  }
}

}  // namespace
}  // namespace mmud::client
