// A VM that exists only as long as an object of this program.

#ifndef CLIENT_COMPARISON_TEMPORARY_VM_H_
#define CLIENT_COMPARISON_TEMPORARY_VM_H_

#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/mmu_client/client.h"
#include "mmud/v1/vm_service.pb.h"

namespace mmud::client {

// Thread-compatible.
class TemporaryVm {
 public:
  // Creates the VM. `client` outlives this object. The errors of CreateVm; a VM
  // that an unanswered call has created is deleted again.
  static absl::StatusOr<std::unique_ptr<TemporaryVm>> Create(
      Client* client, v1::CreateVmRequest request);

  // Deletes the VM, unless Delete() has deleted it.
  ~TemporaryVm();
  TemporaryVm(const TemporaryVm&) = delete;
  TemporaryVm& operator=(const TemporaryVm&) = delete;

  const std::string& name() const { return name_; }

  // Cancels the VM's operations, stops its workload and deletes it with all
  // pages of its dirty log. OK if it is gone already.
  absl::Status Delete();

 private:
  TemporaryVm(Client* client, std::string name)
      : client_(client), name_(std::move(name)) {}

  absl::Status EndOperations();
  absl::Status StopWorkload();

  Client* const client_;
  const std::string name_;
  bool deleted_ = false;
};

}  // namespace mmud::client

#endif  // CLIENT_COMPARISON_TEMPORARY_VM_H_
