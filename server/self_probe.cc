#include "server/self_probe.h"

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "grpc/grpc.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "grpcpp/grpcpp.h"
#include "mmu_core/base/clock.h"
#include "server/rpc/grpc_time.h"

namespace mmud {
namespace {

constexpr absl::Duration kPeriod = absl::Seconds(2);
constexpr absl::Duration kDeadline = absl::Seconds(2);

std::shared_ptr<grpc::Channel> NewConnection(const std::string& target) {
  grpc::ChannelArguments arguments;
  // Otherwise channels to one target share a connection that exists already.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
  return grpc::CreateCustomChannel(target, grpc::InsecureChannelCredentials(),
                                   arguments);
}

// "" if a call is answered.
std::string Probe(const std::string& target,
                  const std::shared_ptr<grpc::Channel>& channel) {
  grpc::health::v1::Health::Stub stub(channel);
  grpc::ClientContext context;
  context.set_deadline(ToGrpcTime(mmu::MonotonicTime::Now() + kDeadline));
  context.set_wait_for_ready(true);
  grpc::health::v1::HealthCheckResponse response;
  // SERVING or not: it answers.
  const grpc::Status status =
      stub.Check(&context, grpc::health::v1::HealthCheckRequest(), &response);
  if (status.ok()) return "";
  return absl::StrCat(target, " does not answer: ", status.error_message());
}

}  // namespace

SelfProbe::SelfProbe(std::vector<std::string> targets,
                     std::function<void(const std::string&)> report)
    : targets_(std::move(targets)),
      report_(std::move(report)),
      thread_([this] { Run(); }) {}

SelfProbe::~SelfProbe() {
  stop_.Set();
  thread_.join();
}

void SelfProbe::Run() {
  // A connection that was not accepted yet is tried again: new ones would wait
  // behind it and take the places that become free.
  std::map<std::string, std::shared_ptr<grpc::Channel>> channels;
  while (!stop_.WaitFor(kPeriod)) {
    std::string wrong;
    for (const std::string& target : targets_) {
      std::shared_ptr<grpc::Channel>& channel = channels[target];
      if (channel == nullptr) channel = NewConnection(target);
      const std::string failure = Probe(target, channel);
      if (failure.empty()) channel = nullptr;
      if (wrong.empty()) wrong = failure;
    }
    report_(wrong);
  }
}

}  // namespace mmud
