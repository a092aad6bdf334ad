#include "server/self_probe.h"

#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"

namespace mmud {
namespace {

using ::testing::HasSubstr;

class Healthy final : public grpc::health::v1::Health::Service {
  grpc::Status Check(grpc::ServerContext*,
                     const grpc::health::v1::HealthCheckRequest*,
                     grpc::health::v1::HealthCheckResponse*) override {
    return grpc::Status::OK;
  }
};

class SelfProbeTest : public ::testing::Test {
 protected:
  SelfProbeTest() { EXPECT_NE(mkdtemp(directory_), nullptr); }
  ~SelfProbeTest() override {
    unlink(path().c_str());
    rmdir(directory_);
  }

  std::string path() const { return std::string(directory_) + "/s"; }
  std::string target() const { return "unix:" + path(); }

  void Start(const SelfProbe::Settings& settings) {
    probe_ = std::make_unique<SelfProbe>(
        std::vector<std::string>{target()},
        [this](const std::string& wrong) {
          absl::MutexLock lock(&mu_);
          reports_.push_back(wrong);
        },
        settings);
  }
  // Waits until there are more than `index` reports.
  std::string Report(size_t index) {
    absl::MutexLock lock(&mu_);
    const auto is_there = [this, index]() ABSL_SHARED_LOCKS_REQUIRED(mu_) {
      return reports_.size() > index;
    };
    mu_.Await(absl::Condition(&is_there));
    return reports_[index];
  }

  char directory_[24] = "/tmp/mmud_probe_XXXXXX";
  absl::Mutex mu_;
  std::vector<std::string> reports_ ABSL_GUARDED_BY(mu_);
  std::unique_ptr<SelfProbe> probe_;
};

TEST_F(SelfProbeTest, OnlySoManyLateAnswersInARowAreAFailure) {
  Start({.period = absl::ZeroDuration(),
         .deadline = absl::Milliseconds(20),
         .failures = 3});
  EXPECT_EQ(Report(0), "");
  EXPECT_EQ(Report(1), "");
  EXPECT_THAT(Report(2), HasSubstr(target() + " does not answer: "));
  EXPECT_NE(Report(3), "");
  Healthy health;
  grpc::ServerBuilder builder;
  builder.RegisterService(&health);
  builder.AddListeningPort(target(), grpc::InsecureServerCredentials());
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  ASSERT_NE(server, nullptr);
  size_t round = 4;
  while (!Report(round).empty()) ++round;
  probe_.reset();
  server->Shutdown();
}

TEST_F(SelfProbeTest, ItsEndDoesNotWaitForAnAnswer) {
  // The kernel accepts connections, but no process answers them.
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path().c_str(), sizeof(address.sun_path) - 1);
  ASSERT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)),
            0);
  ASSERT_EQ(listen(fd, 16), 0);
  Start({.period = absl::ZeroDuration(), .deadline = absl::Hours(1)});
  pollfd waiting = {fd, POLLIN, 0};
  ASSERT_EQ(poll(&waiting, 1, /*timeout=*/-1), 1) << "it has connected";
  probe_.reset();
  absl::MutexLock lock(&mu_);
  for (const std::string& report : reports_) EXPECT_EQ(report, "");
  close(fd);
}

}  // namespace
}  // namespace mmud
