// Converts the program of a Workload to the access sources of the vCPUs.

#ifndef SERVER_CONVERT_WORKLOAD_SOURCE_H_
#define SERVER_CONVERT_WORKLOAD_SOURCE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "mmu_core/guest/access_source.h"
#include "mmud/lab/v1/workload_service.pb.h"
#include "server/control/managed_vm.h"

namespace mmud {

struct WorkloadSources {
  std::vector<std::unique_ptr<mmu::AccessSource>> sources;  // one per vCPU
  // Total of all vCPUs; 0 if unknown.
  int64_t total_access_count = 0;
};

// Converts a request's field `workload`. `vcpu_count` is the resolved count,
// also if the request has 0. INVALID_PATTERN, TRACE_NOT_FOUND, TRACE_CORRUPT,
// UNALIGNED, INVALID_RANGE, GPA_OUT_OF_RANGE.
absl::StatusOr<WorkloadSources> MakeSources(const lab::v1::Workload& workload,
                                            uint32_t vcpu_count,
                                            const ManagedVm& vm,
                                            const std::string& trace_dir);

}  // namespace mmud

#endif  // SERVER_CONVERT_WORKLOAD_SOURCE_H_
