#include "server/self_probe.h"

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/blocking_counter.h"
#include "absl/time/time.h"
#include "grpc/grpc.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "grpcpp/grpcpp.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/base/thread.h"
#include "server/rpc/grpc_time.h"

namespace mmud {
namespace {

std::shared_ptr<grpc::Channel> NewConnection(const std::string& target) {
  grpc::ChannelArguments arguments;
  // Otherwise channels to one target share an existing connection.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
  return grpc::CreateCustomChannel(target, grpc::InsecureChannelCredentials(),
                                   arguments);
}

}  // namespace

struct SelfProbe::Call {
  std::shared_ptr<grpc::Channel> channel;
  grpc::ClientContext context;
  grpc::health::v1::HealthCheckRequest request;
  grpc::health::v1::HealthCheckResponse response;
  grpc::Status status;
};

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
    for (const auto& call : calls_) call->context.TryCancel();
  }
  thread_.join();
}

void SelfProbe::Run() {
  mmu::MonotonicTime next = mmu::MonotonicTime::Now() + settings_.period;
  while (!stop_.WaitFor(next - mmu::MonotonicTime::Now())) {
    next = mmu::MonotonicTime::Now() + settings_.period;
    const std::vector<std::string> failures = Probe();
    std::string wrong;
    for (size_t i = 0; i < failures.size(); ++i) {
      Target& target = state_[targets_[i]];
      if (failures[i].empty()) {
        target = Target();
        continue;
      }
      ++target.failures;
      if (wrong.empty() && target.failures >= settings_.failures) {
        wrong = failures[i];
      }
    }
    report_(wrong);
  }
}

std::vector<std::string> SelfProbe::Probe() {
  std::vector<Call*> calls;
  {
    mmu::MutexLock lock(mu_);
    if (stopping_) return {};
    for (const std::string& name : targets_) {
      Target& target = state_[name];
      if (target.channel == nullptr) target.channel = NewConnection(name);
      calls_.push_back(std::make_unique<Call>());
      calls.push_back(calls_.back().get());
      calls.back()->channel = target.channel;
    }
  }
  absl::BlockingCounter unanswered(static_cast<int>(calls.size()));
  for (Call* call : calls) {
    call->context.set_deadline(
        ToGrpcTime(mmu::MonotonicTime::Now() + settings_.deadline));
    call->context.set_wait_for_ready(true);
    grpc::health::v1::Health::Stub stub(call->channel);
    stub.async()->Check(&call->context, &call->request, &call->response,
                        [call, &unanswered](grpc::Status status) {
                          call->status = std::move(status);
                          unanswered.DecrementCount();
                        });
  }
  unanswered.Wait();
  mmu::MutexLock lock(mu_);
  std::vector<std::string> failures;
  for (size_t i = 0; i < calls.size(); ++i) {
    // SERVING or not: the listener answers.
    const grpc::Status& status = calls[i]->status;
    failures.push_back(status.ok() || stopping_
                           ? ""
                           : absl::StrCat(targets_[i], " does not answer: ",
                                          status.error_message()));
  }
  calls_.clear();
  return failures;
}

}  // namespace mmud
