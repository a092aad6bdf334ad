// Workloads as text for people.

#ifndef CLIENT_MMUCTL_WORKLOAD_VIEWS_H_
#define CLIENT_MMUCTL_WORKLOAD_VIEWS_H_

#include <optional>
#include <string>

#include "mmud/lab/v1/workload_service.pb.h"

namespace mmud::client {

// State and progress of a workload. A value.
struct WorkloadView {
  std::string vm;               // "vms/alpha"
  std::optional<double> share;  // 1 once it is completed
  std::string words;            // for a progress bar
  std::string state;            // "running", "stopped", "failed: ..."
};
WorkloadView ViewWorkload(const lab::v1::Workload& workload);

// Everything about a workload.
std::string ViewWorkloadDetails(const lab::v1::Workload& workload);

// A table with one line per workload.
std::string ViewWorkloads(const lab::v1::ListWorkloadsResponse& list);

}  // namespace mmud::client

#endif  // CLIENT_MMUCTL_WORKLOAD_VIEWS_H_
