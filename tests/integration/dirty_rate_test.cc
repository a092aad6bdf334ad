// GetDirtyRate counts only the faults that dirty logging causes.

#include <string>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "mmud/v1/dirty_log_service.grpc.pb.h"
#include "mmud/v1/vm_service.grpc.pb.h"
#include "tests/integration/daemon.h"
#include "tests/integration/guest.h"

namespace mmud::integration {
namespace {

// The rate of the last 100 ms or a little more. Waits until the history is that
// long.
v1::DirtyRate RateOf(const Daemon& daemon, const Guest& guest) {
  v1::GetDirtyRateRequest request;
  request.set_vm(guest.name());
  request.add_windows()->set_nanos(100'000'000);
  request.set_per_vcpu(true);
  v1::DirtyRate rate;
  EXPECT_TRUE(Eventually([&] {
    const auto result =
        daemon.client().Call(&v1::DirtyLogService::Stub::GetDirtyRate, request);
    if (result.status.ok()) rate = result.response.rates(0);
    return result.status.ok();
  }));
  return rate;
}

TEST(DirtyRateTest, OnlyFaultsOfProtectedPagesAreTheLogsAndOnlyOfTheirVcpu) {
  Daemon daemon;
  v1::DirtyRate rate;
  int tries = 0;
  // The daemon takes a sample each second. If it takes one in the middle of
  // these steps, the rate covers only the time after the sample, so try again.
  EXPECT_TRUE(Eventually([&] {
    const Guest guest(daemon.client(), absl::StrCat("try-", ++tries),
                      {MakeSlot(4 * kMiB)}, 2);
    guest.WritePages(512);
    guest.StartDirtyLog();
    guest.WritePages(1024);  // the first half was mapped, and is protected
    rate = RateOf(daemon, guest);
    const double seconds = static_cast<double>(rate.observed().seconds()) +
                           static_cast<double>(rate.observed().nanos()) * 1e-9;
    return rate.unique_pages_per_second() * seconds > 1023;
  }));
  EXPECT_DOUBLE_EQ(rate.unique_pages_per_second(),
                   2 * rate.write_faults_per_second());
  ASSERT_EQ(rate.vcpus_size(), 2);
  EXPECT_EQ(rate.vcpus(0).vcpu(), 0);
  EXPECT_EQ(rate.vcpus(0).unique_pages_per_second(),
            rate.unique_pages_per_second());
  EXPECT_EQ(rate.vcpus(0).write_faults_per_second(),
            rate.write_faults_per_second());
  EXPECT_EQ(rate.vcpus(1).vcpu(), 1);
  EXPECT_EQ(rate.vcpus(1).unique_pages_per_second(), 0);
}

TEST(DirtyRateTest, ThereIsNoneOnceTheLogIsStopped) {
  Daemon daemon;
  const Guest guest(daemon.client(), "alpha", {MakeSlot(kMiB)});
  v1::StartDirtyLogRequest start;
  start.mutable_ttl()->set_seconds(600);
  const std::string first = guest.StartDirtyLog(start).dirty_log().log_id();
  v1::StopDirtyLogRequest stop;
  stop.set_vm(guest.name());
  stop.set_owner_token(kOwnerToken);
  daemon.client().Must(&v1::DirtyLogService::Stub::StopDirtyLog, stop);
  v1::GetDirtyRateRequest request;
  request.set_vm(guest.name());
  EXPECT_EQ(
      ReasonOf(daemon.client()
                   .Call(&v1::DirtyLogService::Stub::GetDirtyRate, request)
                   .status),
      "DIRTY_LOG_OFF");
  // The next log has its own id and its own settings.
  const v1::DirtyLog next = guest.StartDirtyLog().dirty_log();
  EXPECT_FALSE(next.has_ttl());
  EXPECT_NE(next.log_id(), first);
}

}  // namespace
}  // namespace mmud::integration
