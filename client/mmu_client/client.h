// The client library of mmud: one connection, one typed client per service.
//
//   absl::StatusOr<std::unique_ptr<Client>> client =
//   Client::Connect("unix:/run/mmud.sock");
//   v1::GetVmRequest request;
//   request.set_name("vms/alpha");
//   absl::StatusOr<v1::GetVmResponse> vm = (*client)->vms().GetVm(request);
//
// Every call has a deadline and returns the daemon's error with all its details
// (error_info.h). A call is repeated with the same request id on the errors
// that IsRetryable (retry_policy.h) names.

#ifndef CLIENT_MMU_CLIENT_CLIENT_H_
#define CLIENT_MMU_CLIENT_CLIENT_H_

#include <memory>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "client/mmu_client/admin_client.h"
#include "client/mmu_client/aging_client.h"
#include "client/mmu_client/client_options.h"
#include "client/mmu_client/debug_client.h"
#include "client/mmu_client/dirty_log_client.h"
#include "client/mmu_client/dynamic_client.h"
#include "client/mmu_client/guest_memory_client.h"
#include "client/mmu_client/health_client.h"
#include "client/mmu_client/operations_client.h"
#include "client/mmu_client/split_client.h"
#include "client/mmu_client/stats_client.h"
#include "client/mmu_client/vm_client.h"
#include "client/mmu_client/workload_client.h"

namespace grpc {
class Channel;
}

namespace mmud::client {

// Thread-safe.
class Client {
 public:
  // `address` as in ParseAddress (channel.h): INVALID_ARGUMENT. Sends nothing
  // yet: if the daemon is not there, the first call is UNAVAILABLE.
  static absl::StatusOr<std::unique_ptr<Client>> Connect(
      absl::string_view address, ClientOptions options = {});

  // Uses a channel that the caller has made, for example an in-process one.
  Client(std::shared_ptr<grpc::Channel> channel, ClientOptions options);

  VmClient& vms() { return vms_; }
  WorkloadClient& workloads() { return workloads_; }
  GuestMemoryClient& memory() { return memory_; }
  DirtyLogClient& dirty_log() { return dirty_log_; }
  SplitClient& splits() { return splits_; }
  AgingClient& aging() { return aging_; }
  StatsClient& stats() { return stats_; }
  DebugClient& debug() { return debug_; }
  AdminClient& admin() { return admin_; }
  OperationsClient& operations() { return operations_; }
  HealthClient& health() { return health_; }
  // Methods by name, without their compiled messages.
  DynamicClient& dynamic() { return dynamic_; }

 private:
  explicit Client(std::shared_ptr<const Caller> caller);

  VmClient vms_;
  WorkloadClient workloads_;
  GuestMemoryClient memory_;
  DirtyLogClient dirty_log_;
  SplitClient splits_;
  AgingClient aging_;
  StatsClient stats_;
  DebugClient debug_;
  AdminClient admin_;
  OperationsClient operations_;
  HealthClient health_;
  DynamicClient dynamic_;
};

}  // namespace mmud::client

#endif  // CLIENT_MMU_CLIENT_CLIENT_H_
