// Counts calls, their outcomes and their durations.

#ifndef SERVER_METRICS_RPC_METRICS_H_
#define SERVER_METRICS_RPC_METRICS_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "grpcpp/support/server_interceptor.h"
#include "mmu_core/stats/latency_histogram.h"
#include "server/base/status_codes.h"
#include "server/metrics/metric_writer.h"

namespace mmud {

// The metrics of a fixed set of methods. Thread-safe.
class RpcMetrics {
 public:
  struct Method {
    MetricLabels labels;  // constant: type, service and method
    std::atomic<uint64_t> started{0};
    std::array<std::atomic<uint64_t>, kStatusCodes> handled{};
    mmu::LatencyHistogram seconds;
  };

  // Knows the methods of the services with these full names, as far as they are
  // linked into the program, and "other".
  explicit RpcMetrics(const std::vector<std::string>& services);

  // `method` is in gRPC's form: "/mmud.v1.VmService/GetVm".
  Method& Of(const std::string& method);

  // Number of calls of those methods, not of "other", without a status yet.
  uint64_t calls_in_hand() const;

  // Writes grpc_server_started_total and so on, with the names and labels of
  // Go's middleware, which common dashboards read.
  void Write(MetricWriter* writer) const;

 private:
  // Immutable after construction; the values are thread-safe.
  std::map<std::string, std::unique_ptr<Method>> methods_;
};

// Puts an interceptor around every call that updates `metrics`, which outlives
// the server.
std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>
MakeRpcMetricsFactory(RpcMetrics& metrics);

}  // namespace mmud

#endif  // SERVER_METRICS_RPC_METRICS_H_
