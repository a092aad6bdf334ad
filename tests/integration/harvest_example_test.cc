// Runs docs/examples/harvest.py as a reader would.

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <random>
#include <string>

#include "absl/strings/match.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "mmud/v1/dirty_log_service.grpc.pb.h"
#include "tests/integration/child_process.h"
#include "tests/integration/daemon.h"
#include "tests/integration/guest.h"

namespace mmud::integration {
namespace {

class HarvestExampleTest : public ::testing::Test {
 protected:
  ProgramResult Run(const Guest& guest) const { return Run(guest, image_); }
  ProgramResult Run(const Guest& guest, const std::string& image) const {
    return RunProgram({"/usr/bin/python3", "docs/examples/harvest.py",
                       daemon_.address(), guest.name(), image},
                      daemon_.directory().File("harvest"));
  }
  // Starts a run that the test kills. Its temporary files are in the daemon's
  // directory and are removed with it.
  ChildProcess Start(const Guest& guest) const {
    return ChildProcess({"/usr/bin/env", "TMPDIR=" + daemon_.directory().path(),
                         "/usr/bin/python3", "docs/examples/harvest.py",
                         daemon_.address(), guest.name(), image_},
                        daemon_.directory().File("harvest"));
  }
  void ExpectRefusal(const ProgramResult& result, const Guest& guest,
                     const std::string& owner) const {
    EXPECT_EQ(result.exit_code, 1) << result.out;
    EXPECT_TRUE(absl::StartsWith(
        result.err,
        "harvest.py: vms/alpha has a dirty log that is not FILE's, "
        "of " +
            owner))
        << result.err;
    EXPECT_EQ(guest.GetDirtyLog().owner(), owner);
  }
  // The first size_bytes of the image, extended with zeros.
  std::string Image(int64_t size_bytes) const {
    std::string image = ReadFile(image_);
    image.resize(static_cast<size_t>(size_bytes));
    return image;
  }

  Daemon daemon_;
  const std::string image_ = daemon_.directory().File("image");
  const std::string tokens_ = image_ + ".token";
};

// Size of one token.
constexpr size_t kTokenBytes = 32;

TEST_F(HarvestExampleTest, FirstRunCopiesAllOfMemory) {
  const Guest guest(daemon_.client(), "alpha", {MakeSlot(4 * kMiB)});
  guest.WritePages(500);
  const ProgramResult result = Run(guest);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.out, "slot 0: epoch 1, 1024 pages copied\n");
  EXPECT_TRUE(Image(4 * kMiB) == guest.ReadAll(4 * kMiB));
}

TEST_F(HarvestExampleTest, MoreDirtyPagesThanOneReadTakesAreAllCopied) {
  // Every second page is dirty, so each page is an extent of its own.
  constexpr int64_t kPages = 140'000;
  const Guest guest(daemon_.client(), "alpha", {MakeSlot(kPages * kPage)});
  EXPECT_EQ(Run(guest).out, "slot 0: epoch 1, 140000 pages copied\n");
  guest.WritePages(kPages, 2);
  const ProgramResult result = Run(guest);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.out, "slot 0: epoch 3, 70000 pages copied\n");
  EXPECT_TRUE(Image(kPages * kPage) == guest.ReadAll(kPages * kPage));
}

TEST_F(HarvestExampleTest, WhatIsWrittenLaterIsInTheNextRun) {
  const Guest guest(daemon_.client(), "alpha", {MakeSlot(4 * kMiB)});
  ASSERT_EQ(Run(guest).exit_code, 0);
  guest.WritePages(1024, 4);
  EXPECT_EQ(Run(guest).out, "slot 0: epoch 3, 256 pages copied\n");
  EXPECT_EQ(Run(guest).out, "slot 0: epoch 5, 0 pages copied\n");
  EXPECT_TRUE(Image(4 * kMiB) == guest.ReadAll(4 * kMiB));
}

TEST_F(HarvestExampleTest, PagesThatADeadRunClearedAreCopiedByTheNext) {
  const Guest guest(daemon_.client(), "alpha", {MakeSlot(4 * kMiB)});
  ASSERT_EQ(Run(guest).exit_code, 0);
  guest.WritePages(100);
  // Do the same as a run that dies after a clear and before the copy.
  const std::string token = ReadFile(tokens_).substr(0, kTokenBytes);
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
  EXPECT_EQ(Run(guest).out, "slot 0: epoch 4, 100 pages copied\n");
  EXPECT_TRUE(Image(4 * kMiB) == guest.ReadAll(4 * kMiB));
}

TEST_F(HarvestExampleTest, RunsThatAreKilledLoseNothing) {
  constexpr int64_t kMemoryBytes = 64 * kMiB;
  const Guest guest(daemon_.client(), "alpha", {MakeSlot(kMemoryBytes)}, 2);
  guest.StartFewWrites(1);
  std::mt19937 random(1);
  int killed = 0;
  for (int i = 0; i < 8; ++i) {
    const std::string tokens = ReadFile(tokens_);
    ChildProcess harvest = Start(guest);
    // Until it writes the new token, the program only loads protos.
    ASSERT_TRUE(Eventually(
        [&] { return ReadFile(tokens_) != tokens || !harvest.running(); }));
    absl::SleepFor(absl::Milliseconds(random() % 300));
    harvest.Signal(SIGKILL);
    const std::optional<int> exit = harvest.Wait(absl::Seconds(60));
    ASSERT_TRUE(exit == -SIGKILL || exit == 0) << harvest.Err();
    if (exit == -SIGKILL) ++killed;
  }
  EXPECT_GT(killed, 2);
  guest.PauseVcpus();
  const ProgramResult last = Run(guest);
  EXPECT_EQ(last.exit_code, 0) << last.err;
  EXPECT_TRUE(Image(kMemoryBytes) == guest.ReadAll(kMemoryBytes));
}

TEST_F(HarvestExampleTest, RunThatDiedBeforeItAcquiredIsFollowedByAnother) {
  const Guest guest(daemon_.client(), "alpha", {MakeSlot(4 * kMiB)});
  ASSERT_EQ(Run(guest).exit_code, 0);
  guest.WritePages(100);
  // The new token is stored, but the owner of the log still has the former
  // token.
  WriteFile(tokens_, std::string(kTokenBytes, 'n') +
                         ReadFile(tokens_).substr(0, kTokenBytes));
  EXPECT_EQ(Run(guest).out, "slot 0: epoch 3, 100 pages copied\n");
  EXPECT_TRUE(Image(4 * kMiB) == guest.ReadAll(4 * kMiB));
}

TEST_F(HarvestExampleTest, OneRunAtATimeHasTheImage) {
  const Guest guest(daemon_.client(), "alpha", {MakeSlot(4 * kMiB)});
  ASSERT_EQ(Run(guest).exit_code, 0);
  const std::string tokens = ReadFile(tokens_);
  const int image = open(image_.c_str(), O_RDWR | O_CLOEXEC);
  ASSERT_EQ(flock(image, LOCK_EX | LOCK_NB), 0);
  const ProgramResult second = Run(guest);
  EXPECT_EQ(second.exit_code, 1) << second.out;
  EXPECT_TRUE(absl::StartsWith(second.err, "harvest.py: another run writes "))
      << second.err;
  EXPECT_TRUE(ReadFile(tokens_) == tokens);
  close(image);
  EXPECT_EQ(Run(guest).out, "slot 0: epoch 3, 0 pages copied\n");
}

TEST_F(HarvestExampleTest, LogOfSomebodyElseIsLeftToThem) {
  const Guest guest(daemon_.client(), "alpha", {MakeSlot(4 * kMiB)});
  v1::StartDirtyLogRequest start;
  start.mutable_lease()->set_seconds(1);
  guest.StartDirtyLog(start);
  ExpectRefusal(Run(guest), guest, kOwner);
  // The log is not taken even after its lease has ended.
  absl::SleepFor(absl::Milliseconds(1500));
  ExpectRefusal(Run(guest), guest, kOwner);
}

TEST_F(HarvestExampleTest, LogThatSomebodyTookOverIsLeftToThem) {
  const Guest guest(daemon_.client(), "alpha", {MakeSlot(4 * kMiB)});
  ASSERT_EQ(Run(guest).exit_code, 0);
  v1::AcquireDirtyLogRequest acquire;
  acquire.set_vm(guest.name());
  acquire.set_owner("a rescuer");
  acquire.set_owner_token(kOwnerToken);
  acquire.set_force(true);
  daemon_.client().Must(&v1::DirtyLogService::Stub::AcquireDirtyLog, acquire);
  ExpectRefusal(Run(guest), guest, "a rescuer");
}

TEST_F(HarvestExampleTest, LogOfAnotherFileIsLeftToThatFile) {
  const Guest guest(daemon_.client(), "alpha", {MakeSlot(4 * kMiB)});
  ASSERT_EQ(Run(guest).exit_code, 0);
  ExpectRefusal(Run(guest, image_ + "2"), guest, "harvest.py");
  EXPECT_EQ(Run(guest).out, "slot 0: epoch 3, 0 pages copied\n");
}

TEST_F(HarvestExampleTest, LogWhoseFileIsGoneIsOfNoUse) {
  const Guest guest(daemon_.client(), "alpha", {MakeSlot(4 * kMiB)});
  ASSERT_EQ(Run(guest).exit_code, 0);
  ASSERT_TRUE(std::filesystem::remove(image_));
  ExpectRefusal(Run(guest), guest, "harvest.py");
  ExpectRefusal(Run(guest), guest, "harvest.py");  // FILE exists now
}

TEST_F(HarvestExampleTest, LogWhoseFileIsEmptyIsOfNoUse) {
  const Guest guest(daemon_.client(), "alpha", {MakeSlot(4 * kMiB)});
  ASSERT_EQ(Run(guest).exit_code, 0);
  // FILE is empty if a run died just after it had made FILE.
  std::filesystem::resize_file(image_, 0);
  ExpectRefusal(Run(guest), guest, "harvest.py");
  ExpectRefusal(Run(guest), guest, "harvest.py");  // FILE has its size now
}

TEST_F(HarvestExampleTest, TokensOfARunThatHasTheFileAreKept) {
  const Guest guest(daemon_.client(), "alpha", {MakeSlot(4 * kMiB)});
  // The other run has made and locked FILE and stored its token, but done no
  // more.
  const int image = open(image_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  ASSERT_EQ(flock(image, LOCK_EX | LOCK_NB), 0);
  WriteFile(tokens_, "its tokens");
  const ProgramResult second = Run(guest);
  EXPECT_EQ(second.exit_code, 1) << second.out;
  EXPECT_TRUE(absl::StartsWith(second.err, "harvest.py: another run writes "))
      << second.err;
  EXPECT_EQ(ReadFile(tokens_), "its tokens");
  close(image);
}

TEST_F(HarvestExampleTest, TokensAreKeptWhenTheFileCannotBeHad) {
  const Guest guest(daemon_.client(), "alpha", {MakeSlot(4 * kMiB)});
  // FILE does not exist and cannot be made. So this run never locks FILE, as if
  // another run made FILE at the same moment.
  std::filesystem::create_symlink(
      daemon_.directory().File("no-such-folder/image"), image_);
  WriteFile(tokens_, "tokens");
  const ProgramResult result = Run(guest);
  EXPECT_EQ(result.exit_code, 1) << result.out;
  EXPECT_TRUE(absl::StrContains(result.err, "No such file or directory"))
      << result.err;
  EXPECT_EQ(ReadFile(tokens_), "tokens");
}

TEST_F(HarvestExampleTest, LogWhoseTokensAreGoneIsOfNoUse) {
  const Guest guest(daemon_.client(), "alpha", {MakeSlot(4 * kMiB)});
  ASSERT_EQ(Run(guest).exit_code, 0);
  ASSERT_TRUE(std::filesystem::remove(tokens_));
  ExpectRefusal(Run(guest), guest, "harvest.py");
}

// The distance between the slots, and the size of each.
constexpr int64_t kSlotStride = 4 * kMiB;
constexpr int64_t kSlotPages = kMiB / kPage;

v1::Memslot SlotAt(int id, bool readonly) {
  v1::Memslot slot = MakeSlot(kMiB);
  slot.set_slot(id);
  slot.set_gpa_bytes(id * kSlotStride);
  slot.set_readonly(readonly);
  return slot;
}

// Writes to the first pages of a slot and waits until this is done.
void WriteTo(const Guest& guest, int slot, int64_t page_count) {
  lab::v1::Workload workload;
  workload.set_access_count(page_count);
  lab::v1::AccessPattern& pattern = *workload.mutable_pattern();
  pattern.set_write_fraction(1);
  pattern.mutable_sequential()->set_stride_bytes(kPage);
  pattern.mutable_extent()->set_gpa_bytes(slot * kSlotStride);
  pattern.mutable_extent()->set_size_bytes(page_count * kPage);
  guest.RunToEnd(workload);
}

TEST_F(HarvestExampleTest, ReadOnlySlotsAreCopiedAndHideNoOther) {
  const Guest guest(
      daemon_.client(), "alpha",
      {SlotAt(0, true), SlotAt(1, false), SlotAt(2, true), SlotAt(3, false)});
  ASSERT_EQ(Run(guest).exit_code, 0);
  WriteTo(guest, 1, 101);
  WriteTo(guest, 3, 103);
  const ProgramResult result = Run(guest);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.out,
            "slot 0: read-only, 256 pages copied\n"
            "slot 1: epoch 3, 101 pages copied\n"
            "slot 2: read-only, 256 pages copied\n"
            "slot 3: epoch 3, 103 pages copied\n");
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

TEST_F(HarvestExampleTest, TokenOfALogThatIsStartingIsKept) {
  const Guest guest(
      daemon_.client(), "beta",
      {MakeSlot(64 * kMiB, v1::MEMORY_BACKING_ANONYMOUS, v1::PAGE_SIZE_2M)});
  const std::string token(32, 't');
  WriteFile(image_, "what is copied");
  WriteFile(tokens_, token + token);
  v1::StartDirtyLogRequest start;
  start.set_owner("the dead one");
  start.set_owner_token(token);
  const std::string operation = guest.BeginDirtyLog(start);
  for (int i = 0; i < 2; ++i) {
    const ProgramResult early = Run(guest);
    EXPECT_EQ(early.exit_code, 1) << early.out;
    EXPECT_TRUE(absl::StartsWith(early.err, "harvest.py: ABORTED: "))
        << early.err;
    EXPECT_EQ(ReadFile(tokens_), token + token);
  }
  daemon_.client().Cancel(operation);
  daemon_.client().WaitDone(operation);
  const ProgramResult next = Run(guest);
  EXPECT_EQ(next.exit_code, 0) << next.err;
  EXPECT_TRUE(Image(64 * kMiB) == guest.ReadAll(64 * kMiB));
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
