// The metrics of operations.

#ifndef SERVER_CONTROL_OPERATION_METRICS_H_
#define SERVER_CONTROL_OPERATION_METRICS_H_

#include <array>
#include <cstdint>

#include "mmu_core/stats/latency_histogram.h"
#include "server/base/status_codes.h"

namespace mmud {

// The methods that return an operation.
enum class OperationMethod : uint8_t {
  kSplitHugePages,
  kRecoverHugePages,
  kStartDirtyLog,
  kCreateGeneration,
};
inline constexpr int kOperationMethods = 4;
const char* ToString(OperationMethod method);

// The metrics of one method. A value.
struct OperationMethodMetrics {
  std::array<uint64_t, kStatusCodes> finished{};
  int64_t running = 0;
  mmu::LatencySnapshot duration;
};

using OperationMetrics = std::array<OperationMethodMetrics, kOperationMethods>;

}  // namespace mmud

#endif  // SERVER_CONTROL_OPERATION_METRICS_H_
