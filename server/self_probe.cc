#include "server/self_probe.h"

#include <functional>
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
#include "mmu_core/base/thread.h"
#include "mmu_core/sync/mutex.h"
#include "server/rpc/grpc_time.h"

namespace mmud {
namespace {

std::shared_ptr<grpc::Channel> NewConnection(const std::string& target) {
  grpc::ChannelArguments arguments;
  // Otherwise channels to one target share a connection that exists already.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
  return grpc::CreateCustomChannel(target, grpc::InsecureChannelCredentials(),
                                   arguments);
}

}  // namespace

SelfProbe::SelfProbe(std::vector<std::string> targets,
                     std::function<void(const std::string&)> report,
                     const Settings& settings)
    : targets_(std::move(targets)),
      report_(std::move(report)),
      settings_(settings),
      thread_(mmu::MakeThreadOrExit("the probe of the listeners",
                                    [this] { Run(); })) {}

SelfProbe::~SelfProbe() {
  stop_.Set();
  {
    mmu::MutexLock lock(mu_);
    stopping_ = true;
    if (call_ != nullptr) call_->TryCancel();
  }
  thread_.join();
}

void SelfProbe::Run() {
  mmu::MonotonicTime next = mmu::MonotonicTime::Now() + settings_.period;
  while (!stop_.WaitFor(next - mmu::MonotonicTime::Now())) {
    next = mmu::MonotonicTime::Now() + settings_.period;
    std::string wrong;
    for (const std::string& name : targets_) {
      Target& target = state_[name];
      if (target.channel == nullptr) target.channel = NewConnection(name);
      const std::string failure = Probe(name, target.channel);
      if (failure.empty()) {
        target = Target();
        continue;
      }
      ++target.failures;
      if (wrong.empty() && target.failures >= settings_.failures) {
        wrong = failure;
      }
    }
    report_(wrong);
  }
}

std::string SelfProbe::Probe(const std::string& target,
                             const std::shared_ptr<grpc::Channel>& channel) {
  grpc::health::v1::Health::Stub stub(channel);
  grpc::ClientContext context;
  context.set_deadline(
      ToGrpcTime(mmu::MonotonicTime::Now() + settings_.deadline));
  context.set_wait_for_ready(true);
  {
    mmu::MutexLock lock(mu_);
    if (stopping_) return "";
    call_ = &context;
  }
  grpc::health::v1::HealthCheckResponse response;
  // SERVING or not: it answers.
  const grpc::Status status =
      stub.Check(&context, grpc::health::v1::HealthCheckRequest(), &response);
  mmu::MutexLock lock(mu_);
  call_ = nullptr;
  if (status.ok() || stopping_) return "";
  return absl::StrCat(target, " does not answer: ", status.error_message());
}

}  // namespace mmud
