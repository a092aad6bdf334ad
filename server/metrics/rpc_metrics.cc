#include "server/metrics/rpc_metrics.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "google/protobuf/descriptor.h"
#include "grpcpp/support/interceptor.h"
#include "grpcpp/support/server_interceptor.h"
#include "mmu_core/base/clock.h"
#include "server/metrics/metric_writer.h"

namespace mmud {
namespace {

constexpr char kOther[] = "other";

// Value of the label grpc_type.
std::string TypeOf(const google::protobuf::MethodDescriptor& method) {
  if (method.client_streaming()) {
    return method.server_streaming() ? "bidi_stream" : "client_stream";
  }
  return method.server_streaming() ? "server_stream" : "unary";
}

std::unique_ptr<RpcMetrics::Method> MakeMethod(std::string type,
                                               std::string service,
                                               std::string method) {
  auto made = std::make_unique<RpcMetrics::Method>();
  made->labels = {{"grpc_type", std::move(type)},
                  {"grpc_service", std::move(service)},
                  {"grpc_method", std::move(method)}};
  return made;
}

// Values of the label grpc_code, spelt as in Go.
constexpr const char* kCodes[kStatusCodes] = {"OK",
                                              "Canceled",
                                              "Unknown",
                                              "InvalidArgument",
                                              "DeadlineExceeded",
                                              "NotFound",
                                              "AlreadyExists",
                                              "PermissionDenied",
                                              "ResourceExhausted",
                                              "FailedPrecondition",
                                              "Aborted",
                                              "OutOfRange",
                                              "Unimplemented",
                                              "Internal",
                                              "Unavailable",
                                              "DataLoss",
                                              "Unauthenticated"};

class RpcInterceptor final : public grpc::experimental::Interceptor {
 public:
  explicit RpcInterceptor(RpcMetrics::Method& method)
      : method_(method), start_(mmu::MonotonicTime::Now()) {
    method_.started.fetch_add(1, std::memory_order_relaxed);
  }

  void Intercept(grpc::experimental::InterceptorBatchMethods* call) override {
    if (call->QueryInterceptionHookPoint(
            grpc::experimental::InterceptionHookPoints::PRE_SEND_STATUS)) {
      const int code =
          std::clamp(static_cast<int>(call->GetSendStatus().error_code()), 0,
                     kStatusCodes - 1);
      method_.handled[code].fetch_add(1, std::memory_order_relaxed);
      method_.seconds.Record(
          absl::ToInt64Nanoseconds(mmu::MonotonicTime::Now() - start_));
    }
    call->Proceed();
  }

 private:
  RpcMetrics::Method& method_;
  const mmu::MonotonicTime start_;
};

class RpcInterceptorFactory final
    : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  explicit RpcInterceptorFactory(RpcMetrics& metrics) : metrics_(metrics) {}

  grpc::experimental::Interceptor* CreateServerInterceptor(
      grpc::experimental::ServerRpcInfo* info) override {
    return new RpcInterceptor(metrics_.Of(info->method()));
  }

 private:
  RpcMetrics& metrics_;
};

}  // namespace

RpcMetrics::RpcMetrics(const std::vector<std::string>& services) {
  const auto* pool = google::protobuf::DescriptorPool::generated_pool();
  for (const std::string& name : services) {
    const auto* service = pool->FindServiceByName(name);
    if (service == nullptr) continue;
    for (int i = 0; i < service->method_count(); ++i) {
      const auto* method = service->method(i);
      methods_["/" + name + "/" + method->name()] =
          MakeMethod(TypeOf(*method), name, method->name());
    }
  }
  methods_[kOther] = MakeMethod("unary", kOther, kOther);
}

RpcMetrics::Method& RpcMetrics::Of(const std::string& method) {
  const auto it = methods_.find(method);
  return it == methods_.end() ? *methods_.at(kOther) : *it->second;
}

uint64_t RpcMetrics::calls_in_hand() const {
  uint64_t calls = 0;
  for (const auto& [name, method] : methods_) {
    if (name == kOther) continue;
    // The ends are read first: a call that ends in between is then counted as
    // in hand, and the difference is never negative.
    uint64_t ended = 0;
    for (const auto& handled : method->handled) {
      ended += handled.load(std::memory_order_acquire);
    }
    calls += method->started.load(std::memory_order_acquire) - ended;
  }
  return calls;
}

void RpcMetrics::Write(MetricWriter* writer) const {
  const auto value = [](const std::atomic<uint64_t>& counter) {
    return static_cast<double>(counter.load(std::memory_order_relaxed));
  };
  writer->Counter("grpc_server_started_total", "Calls that came in.");
  for (const auto& [name, method] : methods_) {
    writer->Add(value(method->started), method->labels);
  }
  writer->Counter("grpc_server_handled_total", "Calls that ended, by code.");
  for (const auto& [name, method] : methods_) {
    for (int code = 0; code < kStatusCodes; ++code) {
      MetricLabels labels = method->labels;
      labels.emplace_back("grpc_code", kCodes[code]);
      if (code == 0) {
        writer->Add(value(method->handled[code]), std::move(labels));
      } else {
        writer->AddIfCounted(value(method->handled[code]), std::move(labels));
      }
    }
  }
  writer->Histogram("grpc_server_handling_seconds",
                    "Time from a call's arrival to its status.");
  for (const auto& [name, method] : methods_) {
    writer->Add(method->seconds.Snapshot(), method->labels, Buckets::kWork);
  }
}

std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>
MakeRpcMetricsFactory(RpcMetrics& metrics) {
  return std::make_unique<RpcInterceptorFactory>(metrics);
}

}  // namespace mmud
