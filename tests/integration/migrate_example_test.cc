// Runs docs/examples/migrate.cc, and kills it.

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <unistd.h>

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
#include "mmud/v1/vm_service.grpc.pb.h"
#include "tests/integration/child_process.h"
#include "tests/integration/daemon.h"
#include "tests/integration/guest.h"

namespace mmud::integration {
namespace {

constexpr int64_t kMemoryBytes = 16 * kMiB;

class MigrateExampleTest : public ::testing::Test {
 protected:
  ChildProcess Start() const { return Start(image_); }
  ChildProcess Start(const std::string& image) const {
    return ChildProcess(
        {"docs/examples/migrate", daemon_.address(), guest_.name(), image},
        daemon_.directory().File("migrate"));
  }
  // The time at which the log's owner became owner; empty without a log.
  std::string OwnedSince() const {
    v1::GetDirtyLogRequest get;
    get.set_vm(guest_.name());
    return daemon_.client()
        .Call(&v1::DirtyLogService::Stub::GetDirtyLog, get)
        .response.dirty_log()
        .owner_since_time()
        .SerializeAsString();
  }
  // Runs the program and kills it as soon as it owns the log.
  void RunUntilItOwnsTheLog() const {
    const std::string before = OwnedSince();
    ChildProcess migrate = Start();
    ASSERT_TRUE(Eventually([&] { return OwnedSince() != before; }));
    migrate.Signal(SIGKILL);
    ASSERT_EQ(migrate.Wait(absl::Seconds(60)), -SIGKILL) << migrate.Err();
  }
  void ExpectRefusal(ChildProcess migrate, const std::string& owner) const {
    EXPECT_EQ(migrate.Wait(absl::Seconds(60)), 1) << migrate.Out();
    EXPECT_TRUE(absl::StrContains(
        migrate.Err(), "has a dirty log that is not FILE's, of " + owner))
        << migrate.Err();
    EXPECT_EQ(guest_.GetDirtyLog().owner(), owner);
  }
  // The image, extended with zeros.
  std::string Image() const {
    std::string image = ReadFile(image_);
    image.resize(kMemoryBytes);
    return image;
  }

  Daemon daemon_;
  const Guest guest_{daemon_.client(), "alpha", {MakeSlot(kMemoryBytes)}, 2};
  const std::string image_ = daemon_.directory().File("image");
  const std::string tokens_ = image_ + ".token";
};

TEST_F(MigrateExampleTest, CopiesAGuestThatWrites) {
  guest_.StartRandomWrites(1);
  ChildProcess migrate = Start();
  EXPECT_EQ(migrate.Wait(absl::Seconds(60)), 0) << migrate.Err();
  EXPECT_TRUE(absl::StartsWith(migrate.Out(), "round 1: 4096 pages\n"))
      << migrate.Out();
  EXPECT_TRUE(Image() == guest_.ReadAll(kMemoryBytes));
}

TEST_F(MigrateExampleTest, NextOneGoesOnAfterOneThatWasKilled) {
  guest_.StartFewWrites(1);
  std::mt19937 random(1);
  int killed = 0;
  for (int i = 0; i < 20; ++i) {
    ChildProcess migrate = Start();
    absl::SleepFor(absl::Milliseconds(random() % 60));
    migrate.Signal(SIGKILL);
    const std::optional<int> exit = migrate.Wait(absl::Seconds(60));
    ASSERT_TRUE(exit == -SIGKILL || exit == 0) << migrate.Err();
    if (exit == -SIGKILL) ++killed;
    v1::ResumeVcpusRequest resume;
    resume.set_vm(guest_.name());
    daemon_.client().Must(&v1::VmService::Stub::ResumeVcpus, resume);
  }
  EXPECT_GT(killed, 5);
  ChildProcess last = Start();
  EXPECT_EQ(last.Wait(absl::Seconds(60)), 0) << last.Err();
  EXPECT_TRUE(Image() == guest_.ReadAll(kMemoryBytes));
}

TEST_F(MigrateExampleTest, LastLineSaysHowLongThePauseLasts) {
  ChildProcess migrate = Start();
  EXPECT_EQ(migrate.Wait(absl::Seconds(60)), 0) << migrate.Err();
  EXPECT_TRUE(absl::StrContains(
      migrate.Out(), "vms/alpha is copied, and paused for 10 minutes"))
      << migrate.Out();
  const v1::Vm vm = guest_.Get();
  ASSERT_TRUE(vm.has_pause());
  EXPECT_NEAR(vm.pause().expire_time().seconds() - vm.pause().since().seconds(),
              600, 1);
}

TEST_F(MigrateExampleTest, LogOfAnotherFileIsLeftToThatFile) {
  guest_.StartRandomWrites(1);
  RunUntilItOwnsTheLog();
  const std::string other = daemon_.directory().File("other");
  ExpectRefusal(Start(other), "migrate");
  ExpectRefusal(Start(other), "migrate");  // FILE and FILE.token exist now
  ChildProcess same = Start();
  EXPECT_EQ(same.Wait(absl::Seconds(60)), 0) << same.Err();
  EXPECT_TRUE(Image() == guest_.ReadAll(kMemoryBytes));
}

TEST_F(MigrateExampleTest, LogOfSomebodyElseIsLeftToThem) {
  v1::StartDirtyLogRequest start;
  start.mutable_lease()->set_seconds(1);
  guest_.StartDirtyLog(start);
  ExpectRefusal(Start(), kOwner);
  // The log is not taken even after its lease has ended.
  absl::SleepFor(absl::Milliseconds(1500));
  ExpectRefusal(Start(), kOwner);
}

TEST_F(MigrateExampleTest, LogThatSomebodyTookOverIsLeftToThem) {
  guest_.StartRandomWrites(1);
  RunUntilItOwnsTheLog();
  v1::AcquireDirtyLogRequest acquire;
  acquire.set_vm(guest_.name());
  acquire.set_owner("a rescuer");
  acquire.set_owner_token(kOwnerToken);
  acquire.set_force(true);
  daemon_.client().Must(&v1::DirtyLogService::Stub::AcquireDirtyLog, acquire);
  ExpectRefusal(Start(), "a rescuer");
}

TEST_F(MigrateExampleTest, LogWhoseFileIsGoneIsOfNoUse) {
  guest_.StartRandomWrites(1);
  RunUntilItOwnsTheLog();
  ASSERT_TRUE(std::filesystem::remove(image_));
  ExpectRefusal(Start(), "migrate");
  ExpectRefusal(Start(), "migrate");  // FILE exists now
}

TEST_F(MigrateExampleTest, LogWhoseFileIsEmptyIsOfNoUse) {
  guest_.StartRandomWrites(1);
  RunUntilItOwnsTheLog();
  // FILE is empty if a run died just after it had made FILE.
  std::filesystem::resize_file(image_, 0);
  ExpectRefusal(Start(), "migrate");
  ExpectRefusal(Start(), "migrate");  // FILE has its size now
}

TEST_F(MigrateExampleTest, TokensOfARunThatHasTheFileAreKept) {
  // The other run has made and locked FILE and stored its token, but done no
  // more.
  const int image = open(image_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  ASSERT_EQ(flock(image, LOCK_EX | LOCK_NB), 0);
  WriteFile(tokens_, "its tokens");
  ChildProcess second = Start();
  EXPECT_EQ(second.Wait(absl::Seconds(60)), 1) << second.Out();
  EXPECT_TRUE(
      absl::StrContains(second.Err(), "another controller writes the copy"))
      << second.Err();
  EXPECT_EQ(ReadFile(tokens_), "its tokens");
  close(image);
}

TEST_F(MigrateExampleTest, TokensAreKeptWhenTheFileCannotBeHad) {
  // FILE does not exist and cannot be made. So this run never locks FILE, as if
  // another run made FILE at the same moment.
  std::filesystem::create_symlink(
      daemon_.directory().File("no-such-folder/image"), image_);
  WriteFile(tokens_, "tokens");
  ChildProcess migrate = Start();
  EXPECT_EQ(migrate.Wait(absl::Seconds(60)), 1) << migrate.Out();
  EXPECT_TRUE(absl::StrContains(migrate.Err(), "cannot be opened"))
      << migrate.Err();
  EXPECT_EQ(ReadFile(tokens_), "tokens");
}

TEST_F(MigrateExampleTest, RefusalIsOneLineWithItsReason) {
  ChildProcess migrate(
      {"docs/examples/migrate", daemon_.address(), "vms/nobody", image_},
      daemon_.directory().File("migrate"));
  EXPECT_EQ(migrate.Wait(absl::Seconds(60)), 1) << migrate.Out();
  EXPECT_TRUE(absl::StartsWith(migrate.Err(), "migrate: NOT_FOUND: "))
      << migrate.Err();
  EXPECT_FALSE(absl::StrContains(migrate.Err(), "type.googleapis.com"))
      << migrate.Err();
}

TEST_F(MigrateExampleTest, TokenOfALogThatIsStartingIsKept) {
  const Guest guest(
      daemon_.client(), "beta",
      {MakeSlot(16 * kMiB, v1::MEMORY_BACKING_ANONYMOUS, v1::PAGE_SIZE_2M)});
  const std::string token(32, 't');
  WriteFile(image_, "what is copied");
  WriteFile(tokens_, token + token);
  v1::StartDirtyLogRequest start;
  start.set_owner("the dead one");
  start.set_owner_token(token);
  const std::string operation = guest.BeginDirtyLog(start);
  for (int i = 0; i < 2; ++i) {
    ChildProcess early(
        {"docs/examples/migrate", daemon_.address(), guest.name(), image_},
        daemon_.directory().File("migrate"));
    EXPECT_EQ(early.Wait(absl::Seconds(60)), 1) << early.Out();
    EXPECT_TRUE(absl::StartsWith(early.Err(), "migrate: ABORTED: "))
        << early.Err();
    EXPECT_EQ(ReadFile(tokens_), token + token);
  }
  daemon_.client().Cancel(operation);
  daemon_.client().WaitDone(operation);
  ChildProcess next(
      {"docs/examples/migrate", daemon_.address(), guest.name(), image_},
      daemon_.directory().File("migrate"));
  EXPECT_EQ(next.Wait(absl::Seconds(60)), 0) << next.Err();
  EXPECT_TRUE(Image() == guest.ReadAll(16 * kMiB));
}

TEST_F(MigrateExampleTest, TokensOfALogThatIsStoppedAreDropped) {
  ChildProcess migrate = Start();
  EXPECT_EQ(migrate.Wait(absl::Seconds(60)), 0) << migrate.Err();
  EXPECT_EQ(ReadFile(tokens_), "");
}

TEST_F(MigrateExampleTest, LogIsKeptFromOthersWhilePagesAreCopied) {
  guest_.StartRandomWrites(1);
  RunUntilItOwnsTheLog();
  EXPECT_EQ(guest_.GetDirtyLog().lease().seconds(), 300);
  RunUntilItOwnsTheLog();  // this run takes the log over
  EXPECT_EQ(guest_.GetDirtyLog().lease().seconds(), 300);
}

}  // namespace
}  // namespace mmud::integration
