// ReadPages of pages in flight: an owner copies all cleared pages without
// listing them.

#include <cstdint>
#include <string>

#include "gtest/gtest.h"
#include "mmud/v1/guest_memory_service.grpc.pb.h"
#include "tests/integration/daemon.h"
#include "tests/integration/guest.h"
#include "tests/integration/test_client.h"

namespace mmud::integration {
namespace {

constexpr int64_t kPages = 4096;

struct Copied {
  grpc::Status status;
  PageSet pages;
  int64_t page_count = -1;  // as the trailer says
};

class InFlightTest : public ::testing::Test {
 protected:
  InFlightTest() { guest_.StartDirtyLog(); }

  // Seals, and clears the dirty pages below `limit`.
  Harvest SealAndClear(int64_t limit = kPages) const {
    Harvest harvest = guest_.Seal();
    harvest.pages.erase(harvest.pages.lower_bound(limit), harvest.pages.end());
    EXPECT_TRUE(guest_.Clear(harvest.epoch, harvest.pages).status.ok());
    return harvest;
  }

  Copied Read(const v1::PagesInFlight& in_flight) const {
    v1::ReadPagesRequest request;
    request.set_vm(guest_.name());
    *request.mutable_in_flight() = in_flight;
    request.set_max_message_bytes(64 << 10);
    grpc::ClientContext context;
    SetTimeout(kCallTimeout, &context);
    const auto reader = v1::GuestMemoryService::Stub(daemon_.client().channel())
                            .ReadPages(&context, request);
    Copied copied;
    v1::ReadPagesResponse response;
    const auto add = [&copied](const auto& extents) {
      for (const v1::Extent& extent : extents) {
        for (int64_t at = 0; at < extent.size_bytes(); at += kPage) {
          copied.pages.insert((extent.gpa_bytes() + at) / kPage);
        }
      }
    };
    while (reader->Read(&response)) {
      add(response.chunk().data_extents());
      add(response.chunk().zero_extents());
      if (response.has_trailer()) {
        copied.page_count = response.trailer().page_count();
      }
    }
    copied.status = reader->Finish();
    return copied;
  }
  Copied Read(const Harvest& harvest) const {
    v1::PagesInFlight in_flight;
    in_flight.set_log_id(harvest.log_id);
    in_flight.set_epoch(harvest.epoch);
    return Read(in_flight);
  }

  Daemon daemon_;
  const Guest guest_{daemon_.client(), "alpha", {MakeSlot(kPages * kPage)}};
};

TEST_F(InFlightTest, AllThatWasClearedIsRead) {
  guest_.WritePages(kPages, 3);
  const Harvest harvest = SealAndClear();
  EXPECT_EQ(harvest.pages.size(), kPages / 3);
  const Copied copied = Read(harvest);
  EXPECT_TRUE(copied.status.ok()) << copied.status.error_message();
  EXPECT_EQ(copied.pages, harvest.pages);
  EXPECT_EQ(copied.page_count, static_cast<int64_t>(harvest.pages.size()));
}

TEST_F(InFlightTest, OnlyWhatIsInFlightOfTheEpochIsRead) {
  guest_.WritePages(kPages);
  const Harvest first = SealAndClear(kPages / 2);
  EXPECT_EQ(Read(first).pages, first.pages) << "the rest is sealed";
  guest_.WritePages(10);
  v1::SealDirtyLogRequest seal;
  seal.set_vm(guest_.name());
  seal.set_owner_token(kOwnerToken);
  Harvest second = first;
  second.epoch = daemon_.client()
                     .Must(&v1::DirtyLogService::Stub::SealDirtyLog, seal)
                     .epoch();
  second.pages.clear();
  for (int64_t page = 0; page < 10; ++page) second.pages.insert(page);
  ASSERT_TRUE(guest_.Clear(second.epoch, second.pages).status.ok());
  PageSet left = first.pages;
  for (const int64_t page : second.pages) left.erase(page);
  EXPECT_EQ(Read(first).pages, left) << "ten were cleared again";
  EXPECT_EQ(Read(second).pages, second.pages);
  ASSERT_TRUE(guest_.Acknowledge(first.epoch).status.ok());
  EXPECT_EQ(Read(first).page_count, 0);
  EXPECT_EQ(Read(second).pages, second.pages);
}

TEST_F(InFlightTest, APartOfMemoryCanBeRead) {
  guest_.WritePages(kPages);
  const Harvest harvest = SealAndClear();
  v1::PagesInFlight in_flight;
  in_flight.set_log_id(harvest.log_id);
  in_flight.set_epoch(harvest.epoch);
  // Start and end of the range are no multiples of 64 pages.
  in_flight.mutable_range()->set_gpa_bytes(100 * kPage);
  in_flight.mutable_range()->set_size_bytes(33 * kPage);
  PageSet expected;
  for (int64_t page = 100; page < 133; ++page) expected.insert(page);
  EXPECT_EQ(Read(in_flight).pages, expected);
}

TEST_F(InFlightTest, ATakeoverLeavesNothingToRead) {
  guest_.WritePages(kPages);
  const Harvest harvest = SealAndClear();
  v1::AcquireDirtyLogRequest acquire;
  acquire.set_vm(guest_.name());
  acquire.set_owner("the next");
  acquire.set_owner_token("token of the next owner");
  acquire.set_force(true);
  daemon_.client().Must(&v1::DirtyLogService::Stub::AcquireDirtyLog, acquire);
  const Copied copied = Read(harvest);
  EXPECT_TRUE(copied.status.ok());
  EXPECT_EQ(copied.page_count, 0);
}

}  // namespace
}  // namespace mmud::integration
