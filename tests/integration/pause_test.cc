// Pauses of vCPUs, which end by themselves.

#include <cstdint>
#include <string>

#include "absl/strings/match.h"
#include "absl/time/time.h"
#include "google/protobuf/util/time_util.h"
#include "gtest/gtest.h"
#include "mmu_core/base/clock.h"
#include "mmud/v1/vm_service.grpc.pb.h"
#include "tests/integration/daemon.h"
#include "tests/integration/guest.h"

namespace mmud::integration {
namespace {

using google::protobuf::util::TimeUtil;

class PauseTest : public ::testing::Test {
 protected:
  v1::VcpuPause Pause(int64_t milliseconds) {
    v1::PauseVcpusRequest request;
    request.set_vm(guest_.name());
    *request.mutable_max_duration() =
        TimeUtil::MillisecondsToDuration(milliseconds);
    return daemon_.client()
        .Must(&v1::VmService::Stub::PauseVcpus, request)
        .pause();
  }
  v1::VcpuState Resume() {
    v1::ResumeVcpusRequest request;
    request.set_vm(guest_.name());
    return daemon_.client()
        .Must(&v1::VmService::Stub::ResumeVcpus, request)
        .vcpu_state();
  }
  static int64_t Milliseconds(const v1::VcpuPause& pause) {
    return TimeUtil::DurationToMilliseconds(pause.expire_time() -
                                            pause.since());
  }

  Daemon daemon_;
  Guest guest_{daemon_.client(), "alpha", {MakeSlot(kMiB)}};
};

TEST_F(PauseTest, EndsByItselfAndSaysSo) {
  guest_.StartRandomWrites(1);
  const mmu::MonotonicTime start = mmu::MonotonicTime::Now();
  Pause(200);
  EXPECT_EQ(guest_.Get().vcpu_state(), v1::VCPU_STATE_PAUSED);
  EXPECT_TRUE(Eventually(
      [&] { return guest_.Get().vcpu_state() == v1::VCPU_STATE_RUNNING; }));
  EXPECT_GE(mmu::MonotonicTime::Now() - start, absl::Milliseconds(200));
  EXPECT_FALSE(guest_.Get().has_pause());
  EXPECT_TRUE(Eventually([&] {
    return absl::StrContains(daemon_.process().Err(),
                             "pause of the vCPUs ended");
  }));
  EXPECT_TRUE(absl::StrContains(daemon_.process().Err(), "vms/alpha"));
}

TEST_F(PauseTest, LastsTenSecondsUnlessSaidOtherwise) {
  v1::PauseVcpusRequest request;
  request.set_vm(guest_.name());
  const v1::VcpuPause pause =
      daemon_.client().Must(&v1::VmService::Stub::PauseVcpus, request).pause();
  EXPECT_NEAR(static_cast<double>(Milliseconds(pause)), 10'000, 1'000);
}

TEST_F(PauseTest, PausingAgainExtendsTheSamePause) {
  const v1::VcpuPause first = Pause(3'600'000);
  EXPECT_EQ(guest_.Get().pause().since().ShortDebugString(),
            first.since().ShortDebugString());
  // A shorter pause does not end the longer one earlier.
  EXPECT_NEAR(static_cast<double>(Milliseconds(Pause(1))), 3'600'000, 60'000);
  EXPECT_EQ(Pause(1).since().ShortDebugString(),
            first.since().ShortDebugString());
  EXPECT_EQ(Resume(), v1::VCPU_STATE_IDLE);
  EXPECT_FALSE(guest_.Get().has_pause());
  EXPECT_NE(Pause(1000).since().ShortDebugString(),
            first.since().ShortDebugString());
}

TEST_F(PauseTest, APausedGuestWritesNothingUntilItGoesOn) {
  guest_.StartRandomWrites(1);
  Pause(3'600'000);
  const std::string memory = guest_.ReadAll(kMiB);
  for (int i = 0; i < 20; ++i) EXPECT_TRUE(guest_.ReadAll(kMiB) == memory);
  EXPECT_EQ(Resume(), v1::VCPU_STATE_RUNNING);
  EXPECT_TRUE(Eventually([&] { return guest_.ReadAll(kMiB) != memory; }));
}

}  // namespace
}  // namespace mmud::integration
