// From the program of a Workload to what runs on the vCPUs.

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
  // Of all vCPUs together; 0 if unknown.
  int64_t total_access_count = 0;
};

// Of a request's field `workload`. `vcpu_count` is what its 0 was resolved to.
// INVALID_PATTERN, TRACE_NOT_FOUND, TRACE_CORRUPT, UNALIGNED, INVALID_RANGE,
// GPA_OUT_OF_RANGE.
absl::StatusOr<WorkloadSources> MakeSources(const lab::v1::Workload& workload,
                                            uint32_t vcpu_count,
                                            const ManagedVm& vm,
                                            const std::string& trace_dir);

}  // namespace mmud

#endif  // SERVER_CONVERT_WORKLOAD_SOURCE_H_
