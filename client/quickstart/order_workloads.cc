#include "client/quickstart/order_workloads.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "client/mmu_client/page_bitmap.h"
#include "mmud/lab/v1/workload_service.pb.h"
#include "mmud/v1/common.pb.h"
#include "trace/trace_reader.h"

namespace mmud::client {
namespace {

constexpr int64_t kBlockBytes = 2 << 20;
// Of the recorded programs: about two runs in a second.
constexpr int64_t kTraceRate = 2'000'000;
// Of the patterns, of whose accesses half write. In the time of a baseline the
// writes reach a good part of the memory, but the link is faster than they are.
constexpr int64_t kPatternRate = 10'000;
constexpr double kWriteFraction = 0.5;

OrderWorkload Pattern(const std::string& name) {
  OrderWorkload workload;
  workload.name = name;
  workload.accesses_per_second_per_vcpu = kPatternRate;
  workload.program.mutable_pattern()->set_write_fraction(kWriteFraction);
  return workload;
}

}  // namespace

absl::StatusOr<OrderWorkload> TraceInItsPages(const std::string& trace_dir,
                                              const std::string& trace_name,
                                              int64_t memory_bytes,
                                              int32_t vcpu_count) {
  const absl::StatusOr<std::unique_ptr<trace::TraceReader>> reader =
      trace::TraceReader::Open(absl::StrCat(trace_dir, "/", trace_name));
  if (!reader.ok()) return reader.status();
  const int64_t needed_bytes =
      static_cast<int64_t>((*reader)->info().page_count) * kPageBytes *
      vcpu_count;
  const int64_t blocks = needed_bytes / kBlockBytes + 1;
  const int64_t all_blocks = memory_bytes / kBlockBytes;
  if (blocks > all_blocks) {
    return absl::OutOfRangeError(
        absl::StrCat(trace_name, " needs ", needed_bytes, " bytes"));
  }
  OrderWorkload workload = TraceInNewPages(trace_name);
  workload.name = trace_name;
  v1::Extent& extent = *workload.program.mutable_trace()->mutable_extent();
  extent.set_gpa_bytes((all_blocks - blocks) / 2 * kBlockBytes);
  extent.set_size_bytes(blocks * kBlockBytes);
  return workload;
}

OrderWorkload TraceInNewPages(const std::string& trace_name) {
  OrderWorkload workload;
  workload.name = absl::StrCat(trace_name, ", new pages");
  workload.accesses_per_second_per_vcpu = kTraceRate;
  workload.program.mutable_trace()->set_trace_name(trace_name);
  return workload;
}

std::vector<OrderWorkload> Patterns() {
  std::vector<OrderWorkload> patterns = {Pattern("hot/cold"),
                                         Pattern("hot/cold, drifting"),
                                         Pattern("zipf"), Pattern("uniform")};
  patterns[0].program.mutable_pattern()->mutable_hot_cold();
  // In the seconds of a migration the hot set moves by less than its size.
  patterns[1]
      .program.mutable_pattern()
      ->mutable_hot_cold()
      ->set_drift_pages_per_million_accesses(50'000);
  patterns[2].program.mutable_pattern()->mutable_zipf();
  patterns[3].program.mutable_pattern()->mutable_uniform();
  return patterns;
}

}  // namespace mmud::client
