// docs/examples/harvest.py, run as its readers would.

#include <cstdint>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
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

TEST_F(HarvestExampleTest, MoreDirtyPagesThanOneReadTakesAreAllCopied) {
  // Every second page is dirty: no two of them make one extent.
  constexpr int64_t kPages = 140'000;
  const Guest guest(daemon_.client(), "alpha", {MakeSlot(kPages * kPage)});
  guest.StartDirtyLog();
  guest.WritePages(kPages, 2);
  const ProgramResult result = Run(guest);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.out, "slot 0: epoch 1, 70000 pages copied\n");
  EXPECT_TRUE(Image(kPages * kPage) == guest.ReadAll(kPages * kPage));
  EXPECT_TRUE(guest.Seal().pages.empty());
}

TEST_F(HarvestExampleTest, WhatIsWrittenLaterIsInTheNextRun) {
  const Guest guest(daemon_.client(), "alpha", {MakeSlot(4 * kMiB)});
  guest.StartDirtyLog();
  guest.WritePages(1000);
  EXPECT_EQ(Run(guest).out, "slot 0: epoch 1, 1000 pages copied\n");
  guest.WritePages(1024, 4);
  EXPECT_EQ(Run(guest).out, "slot 0: epoch 2, 256 pages copied\n");
  EXPECT_TRUE(Image(4 * kMiB) == guest.ReadAll(4 * kMiB));
}

TEST_F(HarvestExampleTest, PagesThatADeadRunClearedAreCopiedByTheNext) {
  const Guest guest(daemon_.client(), "alpha", {MakeSlot(4 * kMiB)});
  guest.StartDirtyLog();
  guest.WritePages(100);
  // As a run does that dies after a clear and before the copy.
  const Harvest harvest = guest.Seal();
  ASSERT_EQ(harvest.pages.size(), 100u);
  WriteFile(image_ + ".batch", absl::StrCat("[[0, ", 100 * kPage, "]]"));
  ASSERT_TRUE(guest.Clear(harvest.epoch, harvest.pages).status.ok());
  const ProgramResult result = Run(guest);
  EXPECT_EQ(result.out,
            "of a run before: 100 pages copied\n"
            "slot 0: epoch 2, 0 pages copied\n")
      << result.err;
  EXPECT_TRUE(Image(4 * kMiB) == guest.ReadAll(4 * kMiB));
  EXPECT_EQ(Run(guest).out, "slot 0: epoch 3, 0 pages copied\n");
}

TEST_F(HarvestExampleTest, RefusalIsOneLineWithItsReason) {
  const Guest guest(daemon_.client(), "alpha", {MakeSlot(4 * kMiB)});
  const ProgramResult result = Run(guest);
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_TRUE(absl::StartsWith(result.err, "harvest.py: FAILED_PRECONDITION: "))
      << result.err;
}

}  // namespace
}  // namespace mmud::integration
