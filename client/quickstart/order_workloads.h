// What guests run when orders of sending are compared.

#ifndef CLIENT_QUICKSTART_ORDER_WORKLOADS_H_
#define CLIENT_QUICKSTART_ORDER_WORKLOADS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "mmud/lab/v1/workload_service.pb.h"

namespace mmud::client {

// A value.
struct OrderWorkload {
  std::string name;
  lab::v1::Workload program;
  int64_t accesses_per_second_per_vcpu = 0;
};

// A trace that is repeated by `vcpu_count` vCPUs, in memory that is just large
// enough for it, in the middle of the guest's memory: so a later run of the
// program uses the pages of an earlier one. Errors are those of reading the
// trace.
absl::StatusOr<OrderWorkload> TraceInItsPages(const std::string& trace_dir,
                                              const std::string& trace_name,
                                              int64_t memory_bytes,
                                              int32_t vcpu_count);

// The same, but each run takes pages that no earlier run had, until all of the
// memory was used.
OrderWorkload TraceInNewPages(const std::string& trace_name);

// A hot set that stays, one that moves, a few pages written most, and all pages
// written alike.
std::vector<OrderWorkload> Patterns();

}  // namespace mmud::client

#endif  // CLIENT_QUICKSTART_ORDER_WORKLOADS_H_
