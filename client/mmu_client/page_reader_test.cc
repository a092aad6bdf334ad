#include "client/mmu_client/page_reader.h"

#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "client/mmu_client/client.h"
#include "client/mmu_client/fake_guest.h"
#include "client/mmu_client/page_bitmap.h"
#include "gtest/gtest.h"

namespace mmud::client {
namespace {

using Kind = StreamFault::Kind;
constexpr int64_t kPages = 100;

class CopySink : public PageSink {
 public:
  absl::Status OnData(int64_t gpa, absl::string_view data) override {
    std::memcpy(&copy[gpa - FakeGuest::kGpa], data.data(), data.size());
    return result;
  }
  absl::Status OnZeros(GpaRange range) override {
    std::memset(&copy[range.gpa_bytes - FakeGuest::kGpa], 0, range.size_bytes);
    return absl::OkStatus();
  }

  std::string copy = std::string(kPages * kPageBytes, 'x');
  absl::Status result;
};

class PageReaderTest : public testing::Test {
 protected:
  PageReaderTest() {
    for (int64_t page = 0; page < kPages; page += 3) guest_.Write(page);
  }

  absl::StatusOr<ReadTotals> ReadAll(PageReaderOptions options = {}) {
    PageReader reader(&client_->memory(), FakeGuest::kVm, options);
    return reader.Read({{FakeGuest::kGpa, kPages * kPageBytes}}, &sink_);
  }

  FakeGuest guest_{kPages, 8};
  std::unique_ptr<Client> client_ = guest_.NewClient();
  CopySink sink_;
};

TEST_F(PageReaderTest, CopiesDataAndZeros) {
  const auto totals = ReadAll();
  ASSERT_TRUE(totals.ok()) << totals.status();
  EXPECT_TRUE(sink_.copy == guest_.MemoryCopy());
  EXPECT_EQ(totals->page_count, 100);
  EXPECT_EQ(totals->zero_page_count, 66);
  EXPECT_EQ(totals->data_size_bytes, 34 * kPageBytes);
}

TEST_F(PageReaderTest, SplitsManyRangesOverSeveralCalls) {
  PageReaderOptions options;
  options.max_ranges_per_call = 2;
  PageReader reader(&client_->memory(), FakeGuest::kVm, options);
  std::vector<GpaRange> ranges;
  for (int64_t page = 0; page < 10; page += 2) {
    ranges.push_back({FakeGuest::kGpa + page * kPageBytes, kPageBytes});
  }
  const auto totals = reader.Read(ranges, &sink_);
  ASSERT_TRUE(totals.ok()) << totals.status();
  EXPECT_EQ(totals->page_count, 5);
  EXPECT_EQ(sink_.copy[kPageBytes], 'x') << "page 1 was not asked for";
}

TEST_F(PageReaderTest, EveryKindOfBrokenStreamIsGoneOnWith) {
  for (const StreamFault& fault :
       {StreamFault{Kind::kUnavailableAfter, 0},
        StreamFault{Kind::kUnavailableAfter, 5},
        StreamFault{Kind::kBeforeHeader}, StreamFault{Kind::kCorruptChunk, 3},
        StreamFault{Kind::kWrongTrailer}}) {
    guest_.BreakPages({fault});
    sink_.copy.assign(kPages * kPageBytes, 'x');
    const auto totals = ReadAll();
    ASSERT_TRUE(totals.ok()) << totals.status();
    EXPECT_EQ(totals->resume_count, 1);
    EXPECT_TRUE(sink_.copy == guest_.MemoryCopy());
  }
}

TEST_F(PageReaderTest, GivesUpWithoutProgress) {
  guest_.BreakPages(std::vector<StreamFault>(20, {Kind::kCorruptChunk, 0}));
  PageReaderOptions options;
  options.retry.max_attempts = 3;
  EXPECT_TRUE(absl::IsDataLoss(ReadAll(options).status()));
}

TEST_F(PageReaderTest, ErrorOfTheSinkEndsTheRead) {
  sink_.result = absl::ResourceExhaustedError("disk full");
  EXPECT_EQ(ReadAll().status(), sink_.result);
}

TEST_F(PageReaderTest, NothingToReadIsNoCall) {
  PageReader reader(&client_->memory(), FakeGuest::kVm, {});
  const auto totals = reader.Read({}, &sink_);
  ASSERT_TRUE(totals.ok());
  EXPECT_EQ(totals->page_count, 0);
}

}  // namespace
}  // namespace mmud::client
