// docs/examples/migrate.cc, run and killed.

#include <signal.h>

#include <cstdint>
#include <optional>
#include <random>
#include <string>

#include "absl/strings/match.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "mmud/v1/workload_service.grpc.pb.h"
#include "tests/integration/child_process.h"
#include "tests/integration/daemon.h"
#include "tests/integration/guest.h"

namespace mmud::integration {
namespace {

constexpr int64_t kMemoryBytes = 16 * kMiB;

class MigrateExampleTest : public ::testing::Test {
 protected:
  ChildProcess Start() const {
    return ChildProcess(
        {"docs/examples/migrate", daemon_.address(), guest_.name(), image_},
        daemon_.directory().File("migrate"));
  }
  // The image, as zeros behind its end.
  std::string Image() const {
    std::string image = ReadFile(image_);
    image.resize(kMemoryBytes);
    return image;
  }

  Daemon daemon_;
  const Guest guest_{daemon_.client(), "alpha", {MakeSlot(kMemoryBytes)}, 2};
  const std::string image_ = daemon_.directory().File("image");
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
  guest_.StartRandomWrites(1);
  std::mt19937 random(1);
  int killed = 0;
  for (int i = 0; i < 20; ++i) {
    ChildProcess migrate = Start();
    absl::SleepFor(absl::Milliseconds(random() % 200));
    migrate.Signal(SIGKILL);
    const std::optional<int> exit = migrate.Wait(absl::Seconds(60));
    ASSERT_TRUE(exit == -SIGKILL || exit == 0) << migrate.Err();
    if (exit == -SIGKILL) ++killed;
    v1::ResumeVcpusRequest resume;
    resume.set_vm(guest_.name());
    daemon_.client().Must(&v1::WorkloadService::Stub::ResumeVcpus, resume);
  }
  EXPECT_GT(killed, 5);
  ChildProcess last = Start();
  EXPECT_EQ(last.Wait(absl::Seconds(60)), 0) << last.Err();
  EXPECT_TRUE(Image() == guest_.ReadAll(kMemoryBytes));
}

}  // namespace
}  // namespace mmud::integration
