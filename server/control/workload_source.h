// The program of a workload, and the access sources that run it on the vCPUs.

#ifndef SERVER_CONTROL_WORKLOAD_SOURCE_H_
#define SERVER_CONTROL_WORKLOAD_SOURCE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/optional.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/guest/access_source.h"
#include "mmu_core/guest/pattern_spec.h"
#include "mmu_core/guest/trace_replay.h"
#include "server/control/managed_vm.h"

namespace mmud {

struct TraceProgram {
  std::string trace_name;  // a path below the trace directory
  mmu::TraceReplayOptions options;
};

// A value.
struct WorkloadProgram {
  std::variant<mmu::PatternSpec, TraceProgram> program;
  absl::optional<mmu::GfnRange> extent;  // of its memory; unset: all memory
};

struct WorkloadSources {
  std::vector<std::unique_ptr<mmu::AccessSource>> sources;  // one per vCPU
  // Total of all vCPUs; 0 if unknown.
  int64_t total_access_count = 0;
};

// Opens the trace of a TraceProgram once for each vCPU. INVALID_PATTERN of
// "pattern", GPA_OUT_OF_RANGE of "extent", TRACE_NOT_FOUND, TRACE_CORRUPT.
absl::StatusOr<WorkloadSources> MakeSources(const WorkloadProgram& program,
                                            uint32_t vcpu_count,
                                            const ManagedVm& vm,
                                            const std::string& trace_dir);

}  // namespace mmud

#endif  // SERVER_CONTROL_WORKLOAD_SOURCE_H_
