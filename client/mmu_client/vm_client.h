// Typed client of VmService. proto/mmud/v1/vm_service.proto describes the calls
// and their errors.

#ifndef CLIENT_MMU_CLIENT_VM_CLIENT_H_
#define CLIENT_MMU_CLIENT_VM_CLIENT_H_

#include <memory>

#include "absl/status/statusor.h"
#include "mmud/v1/vm_service.pb.h"

namespace mmud::client {

class Caller;

// Creates, returns, pauses and deletes VMs and their memslots. Thread-safe.
class VmClient {
 public:
  explicit VmClient(std::shared_ptr<const Caller> caller);
  ~VmClient();
  VmClient(const VmClient&) = delete;
  VmClient& operator=(const VmClient&) = delete;

  absl::StatusOr<v1::CreateVmResponse> CreateVm(v1::CreateVmRequest request);
  absl::StatusOr<v1::GetVmResponse> GetVm(v1::GetVmRequest request);
  absl::StatusOr<v1::ListVmsResponse> ListVms(v1::ListVmsRequest request);
  // The VMs of all pages from that of `request` on, in one answer.
  absl::StatusOr<v1::ListVmsResponse> ListAllVms(v1::ListVmsRequest request);
  absl::StatusOr<v1::UpdateVmResponse> UpdateVm(v1::UpdateVmRequest request);
  absl::StatusOr<v1::DeleteVmResponse> DeleteVm(v1::DeleteVmRequest request);
  absl::StatusOr<v1::PauseVcpusResponse> PauseVcpus(
      v1::PauseVcpusRequest request);
  absl::StatusOr<v1::ResumeVcpusResponse> ResumeVcpus(
      v1::ResumeVcpusRequest request);
  absl::StatusOr<v1::GetCapabilitiesResponse> GetCapabilities(
      v1::GetCapabilitiesRequest request);
  absl::StatusOr<v1::SetMemslotResponse> SetMemslot(
      v1::SetMemslotRequest request);
  absl::StatusOr<v1::GetMemslotResponse> GetMemslot(
      v1::GetMemslotRequest request);
  absl::StatusOr<v1::ListMemslotsResponse> ListMemslots(
      v1::ListMemslotsRequest request);
  absl::StatusOr<v1::DeleteMemslotResponse> DeleteMemslot(
      v1::DeleteMemslotRequest request);

 private:
  struct Stub;  // of gRPC

  const std::shared_ptr<const Caller> caller_;
  const std::unique_ptr<Stub> stub_;
};

}  // namespace mmud::client

#endif  // CLIENT_MMU_CLIENT_VM_CLIENT_H_
