// docs/examples/harvest.py, run as its readers would.

#include <cstdint>
#include <string>

#include "absl/strings/match.h"
#include "gtest/gtest.h"
#include "mmud/v1/dirty_log_service.grpc.pb.h"
#include "tests/integration/daemon.h"
#include "tests/integration/guest.h"

namespace mmud::integration {
namespace {

class HarvestExampleTest : public ::testing::Test {
 protected:
  ProgramResult Run(const Guest& guest) {
    return RunProgram({"/usr/bin/python3", "docs/examples/harvest.py",
                       daemon_.address(), guest.name(), image_},
                      daemon_.directory().File("harvest"));
  }
  // The image at [0, size_bytes), as zeros behind its end.
  std::string Image(int64_t size_bytes) const {
    std::string image = ReadFile(image_);
    image.resize(static_cast<size_t>(size_bytes));
    return image;
  }

  Daemon daemon_;
  const std::string image_ = daemon_.directory().File("image");
};

TEST_F(HarvestExampleTest, FirstRunCopiesAllOfMemory) {
  const Guest guest(daemon_.client(), "alpha", {MakeSlot(4 * kMiB)});
  guest.WritePages(500);
  const ProgramResult result = Run(guest);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.out, "slot 0: epoch 1, 1024 pages copied\n");
  EXPECT_TRUE(Image(4 * kMiB) == guest.ReadAll(4 * kMiB));
}

TEST_F(HarvestExampleTest, MoreDirtyPagesThanOneReadTakesAreAllCopied) {
  // Every second page is dirty: no two of them make one extent.
  constexpr int64_t kPages = 140'000;
  const Guest guest(daemon_.client(), "alpha", {MakeSlot(kPages * kPage)});
  EXPECT_EQ(Run(guest).out, "slot 0: epoch 1, 140000 pages copied\n");
  guest.WritePages(kPages, 2);
  const ProgramResult result = Run(guest);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.out, "slot 0: epoch 2, 70000 pages copied\n");
  EXPECT_TRUE(Image(kPages * kPage) == guest.ReadAll(kPages * kPage));
}

TEST_F(HarvestExampleTest, WhatIsWrittenLaterIsInTheNextRun) {
  const Guest guest(daemon_.client(), "alpha", {MakeSlot(4 * kMiB)});
  ASSERT_EQ(Run(guest).exit_code, 0);
  guest.WritePages(1024, 4);
  EXPECT_EQ(Run(guest).out, "slot 0: epoch 2, 256 pages copied\n");
  EXPECT_EQ(Run(guest).out, "slot 0: epoch 3, 0 pages copied\n");
  EXPECT_TRUE(Image(4 * kMiB) == guest.ReadAll(4 * kMiB));
}

TEST_F(HarvestExampleTest, PagesThatADeadRunClearedAreCopiedByTheNext) {
  const Guest guest(daemon_.client(), "alpha", {MakeSlot(4 * kMiB)});
  ASSERT_EQ(Run(guest).exit_code, 0);
  guest.WritePages(100);
  // As a run does that dies after a clear and before the copy.
  const std::string token = ReadFile(image_ + ".token");
  v1::SealDirtyLogRequest seal;
  seal.set_vm(guest.name());
  seal.set_owner_token(token);
  const v1::SealDirtyLogResponse sealed =
      daemon_.client().Must(&v1::DirtyLogService::Stub::SealDirtyLog, seal);
  v1::ClearDirtyLogRequest clear;
  clear.set_vm(guest.name());
  clear.set_owner_token(token);
  clear.set_epoch(sealed.epoch());
  clear.mutable_pages()->set_size_bytes(128 * kPage);
  v1::Extent& extent = *clear.mutable_pages()->mutable_extents()->add_extents();
  extent.set_size_bytes(100 * kPage);
  EXPECT_EQ(daemon_.client()
                .Must(&v1::DirtyLogService::Stub::ClearDirtyLog, clear)
                .cleared_page_count(),
            100);
  EXPECT_EQ(Run(guest).out, "slot 0: epoch 3, 100 pages copied\n");
  EXPECT_TRUE(Image(4 * kMiB) == guest.ReadAll(4 * kMiB));
}

TEST_F(HarvestExampleTest, LogOfSomebodyElseIsLeftToThem) {
  const Guest guest(daemon_.client(), "alpha", {MakeSlot(4 * kMiB)});
  v1::StartDirtyLogRequest request;
  request.set_vm(guest.name());
  request.set_owner("a migration");
  request.set_owner_token("sixteen bytes or more");
  daemon_.client().WaitDone(
      daemon_.client()
          .Must(&v1::DirtyLogService::Stub::StartDirtyLog, request)
          .name());
  const ProgramResult result = Run(guest);
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_TRUE(absl::StartsWith(result.err, "harvest.py: FAILED_PRECONDITION: "))
      << result.err;
  EXPECT_TRUE(absl::StrContains(result.err, "a migration")) << result.err;
}

// Where slot `id` begins, and its size.
constexpr int64_t kSlotStride = 4 * kMiB;
constexpr int64_t kSlotPages = kMiB / kPage;

v1::Memslot SlotAt(int id, bool readonly) {
  v1::Memslot slot = MakeSlot(kMiB);
  slot.set_slot(id);
  slot.set_gpa_bytes(id * kSlotStride);
  slot.set_readonly(readonly);
  return slot;
}

// Writes to the first pages of a slot and waits until that is done.
void WriteTo(const TestClient& client, const Guest& guest, int slot,
             int64_t page_count) {
  v1::StartWorkloadRequest request;
  request.set_access_count(page_count);
  v1::AccessPattern& pattern = *request.mutable_pattern();
  pattern.set_write_fraction(1);
  pattern.mutable_sequential()->set_stride_bytes(kPage);
  pattern.mutable_extent()->set_gpa_bytes(slot * kSlotStride);
  pattern.mutable_extent()->set_size_bytes(page_count * kPage);
  client.WaitDone(guest.Start(request));
}

TEST_F(HarvestExampleTest, ReadOnlySlotsAreCopiedAndHideNoOther) {
  const Guest guest(
      daemon_.client(), "alpha",
      {SlotAt(0, true), SlotAt(1, false), SlotAt(2, true), SlotAt(3, false)});
  ASSERT_EQ(Run(guest).exit_code, 0);
  WriteTo(daemon_.client(), guest, 1, 101);
  WriteTo(daemon_.client(), guest, 3, 103);
  const ProgramResult result = Run(guest);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.out,
            "slot 0: read-only, 256 pages copied\n"
            "slot 1: epoch 2, 101 pages copied\n"
            "slot 2: read-only, 256 pages copied\n"
            "slot 3: epoch 2, 103 pages copied\n");
  std::string memory(4 * kSlotStride, '\0');
  PageSet pages;
  for (int64_t slot = 0; slot < 4; ++slot) {
    for (int64_t i = 0; i < kSlotPages; ++i) {
      pages.insert(slot * kSlotStride / kPage + i);
    }
  }
  guest.Copy(pages, &memory);
  EXPECT_TRUE(Image(4 * kSlotStride) == memory);
}

TEST_F(HarvestExampleTest, RefusalIsOneLineWithItsReason) {
  const ProgramResult result =
      RunProgram({"/usr/bin/python3", "docs/examples/harvest.py",
                  daemon_.address(), "nobody", image_},
                 daemon_.directory().File("harvest"));
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_TRUE(absl::StartsWith(result.err, "harvest.py: NOT_FOUND: "))
      << result.err;
}

}  // namespace
}  // namespace mmud::integration
