#include "server/operation_metrics.h"

#include <algorithm>
#include <array>
#include <cstdint>

#include "mmu_core/stats/latency_histogram.h"

namespace mmud {

const char* ToString(OperationMethod method) {
  switch (method) {
    case OperationMethod::kStartWorkload:
      return "StartWorkload";
    case OperationMethod::kSplitHugePages:
      return "SplitHugePages";
    case OperationMethod::kRecoverHugePages:
      return "RecoverHugePages";
  }
  return "invalid";
}

const char* StatusCodeName(int code) {
  static constexpr std::array<const char*, kStatusCodes> kNames = {
      "OK",
      "CANCELLED",
      "UNKNOWN",
      "INVALID_ARGUMENT",
      "DEADLINE_EXCEEDED",
      "NOT_FOUND",
      "ALREADY_EXISTS",
      "PERMISSION_DENIED",
      "RESOURCE_EXHAUSTED",
      "FAILED_PRECONDITION",
      "ABORTED",
      "OUT_OF_RANGE",
      "UNIMPLEMENTED",
      "INTERNAL",
      "UNAVAILABLE",
      "DATA_LOSS",
      "UNAUTHENTICATED"};
  return code >= 0 && code < kStatusCodes ? kNames[code] : "UNKNOWN";
}

void AddDuration(int64_t nanos, mmu::LatencySnapshot* histogram) {
  int bucket = 0;
  while (bucket < mmu::kLatencyBounds &&
         nanos > mmu::LatencyBoundNanos(bucket)) {
    ++bucket;
  }
  ++histogram->counts[bucket];
  ++histogram->count;
  histogram->sum_nanos += nanos;
  histogram->max_nanos = std::max(histogram->max_nanos, nanos);
}

}  // namespace mmud
