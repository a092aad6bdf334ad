#include "client/mmu_client/harvest_stream.h"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "client/mmu_client/client.h"
#include "client/mmu_client/client_options.h"
#include "client/mmu_client/error_info.h"
#include "client/mmu_client/fake_guest.h"
#include "client/mmu_client/owner_token.h"
#include "client/mmu_client/page_bitmap.h"
#include "gtest/gtest.h"
#include "mmud/v1/error_reasons.pb.h"

namespace mmud::client {
namespace {

class HarvestStreamTest : public testing::Test {
 protected:
  absl::StatusOr<std::unique_ptr<HarvestStream>> Open(
      const std::string& token = FakeGuest::kToken) {
    v1::HarvestOpen open;
    open.set_vm(FakeGuest::kVm);
    open.set_owner_token(token);
    open.set_window_chunk_count(2);
    return client_->dirty_log().OpenHarvest(open);
  }

  // Runs a round and stores the pages that it cleared in pages_.
  absl::StatusOr<v1::SealDirtyLogResponse> Run(HarvestStream& stream,
                                               int64_t acknowledged_epoch) {
    pages_.clear();
    return stream.Run(
        acknowledged_epoch, [this](const v1::DirtyLogChunk& chunk) {
          PageBitmap pages({chunk.gpa_bytes(), chunk.size_bytes()});
          EXPECT_TRUE(pages
                          .AddBitmap({chunk.gpa_bytes(), chunk.size_bytes()},
                                     chunk.bitmap())
                          .ok());
          for (const GpaRange& range : pages.Ranges()) {
            for (int64_t gpa = range.gpa_bytes; gpa < range.end_bytes();
                 gpa += kPageBytes) {
              pages_.push_back((gpa - FakeGuest::kGpa) / kPageBytes);
            }
          }
          return absl::OkStatus();
        });
  }

  FakeGuest guest_{1000, 64, 100};
  // Use a socket: on an in-process channel a write waits for its reader, and
  // both ends of this stream write.
  std::unique_ptr<Client> client_ = *Client::Connect(guest_.address());
  std::vector<int64_t> pages_;
};

TEST_F(HarvestStreamTest, LastsLongerThanAnyOtherCallMay) {
  ClientOptions options;
  options.all_deadlines = absl::Milliseconds(500);
  client_ = *Client::Connect(guest_.address(), options);
  const auto stream = Open();
  ASSERT_TRUE(stream.ok()) << stream.status();
  absl::SleepFor(absl::Milliseconds(600));
  guest_.Write(7);
  ASSERT_TRUE(Run(**stream, 0).ok());
  EXPECT_EQ(pages_, (std::vector<int64_t>{7}));
  EXPECT_TRUE((*stream)->Close().ok());
}

TEST_F(HarvestStreamTest, ManyRoundsGoOverOneStream) {
  const auto stream = Open();
  ASSERT_TRUE(stream.ok()) << stream.status();
  EXPECT_EQ((*stream)->log().owner(), FakeGuest::kOwner);
  for (const int64_t page : {0, 100, 200, 300, 400, 1099}) guest_.Write(page);
  const auto first = Run(**stream, 0);
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ(first->epoch(), 1);
  EXPECT_EQ(pages_, (std::vector<int64_t>{0, 100, 200, 300, 400, 1099}));
  EXPECT_EQ(guest_.in_flight_page_count(), 6);
  guest_.Write(7);
  const auto second = Run(**stream, 1);
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ(second->acknowledged_page_count(), 6);
  EXPECT_EQ(pages_, (std::vector<int64_t>{7}));
  const auto acknowledged = (*stream)->Acknowledge(2);
  ASSERT_TRUE(acknowledged.ok()) << acknowledged.status();
  EXPECT_EQ(acknowledged->acknowledged_page_count(), 1);
  EXPECT_TRUE((*stream)->Close().ok());
  EXPECT_EQ(guest_.in_flight_page_count(), 0);
  EXPECT_EQ(guest_.widest_window(), 2);
}

TEST_F(HarvestStreamTest, RoundWithoutDirtyPagesEnds) {
  const auto stream = Open();
  ASSERT_TRUE(stream.ok()) << stream.status();
  ASSERT_TRUE(Run(**stream, 0).ok());
  EXPECT_TRUE(pages_.empty());
}

TEST_F(HarvestStreamTest, StrangerDoesNotGetIn) {
  EXPECT_EQ(ReasonOf(Open(NewOwnerToken()).status()), v1::LOG_OWNED);
}

TEST_F(HarvestStreamTest, OneThatIsTakenOverEndsWithLogFencedForGood) {
  const auto stream = Open();
  ASSERT_TRUE(stream.ok()) << stream.status();
  guest_.Write(7);
  ASSERT_TRUE(Run(**stream, 0).ok());
  v1::AcquireDirtyLogRequest request;
  request.set_vm(FakeGuest::kVm);
  request.set_owner("the next");
  request.set_owner_token(NewOwnerToken());
  request.set_force(true);
  ASSERT_TRUE(client_->dirty_log().AcquireDirtyLog(request).ok());
  EXPECT_EQ(ReasonOf((*stream)->Acknowledge(1).status()), v1::LOG_FENCED);
  EXPECT_EQ(ReasonOf(Run(**stream, 0).status()), v1::LOG_FENCED);
  EXPECT_EQ(guest_.sealed_page_count(), 1);
}

TEST_F(HarvestStreamTest, SinkThatFailsEndsTheStreamAndNothingIsAcknowledged) {
  const auto stream = Open();
  ASSERT_TRUE(stream.ok()) << stream.status();
  for (int64_t page = 0; page < 1000; page += 64) guest_.Write(page);
  const absl::Status status =
      (*stream)
          ->Run(0, [](const auto&) { return absl::InternalError("disk full"); })
          .status();
  EXPECT_EQ(status, absl::InternalError("disk full"));
  EXPECT_EQ((*stream)->Close(), status);
  EXPECT_GE(guest_.in_flight_page_count(), 1);
  EXPECT_EQ(guest_.in_flight_page_count() + guest_.sealed_page_count(), 16);
}

}  // namespace
}  // namespace mmud::client
