// mmud.v1.AgingService over mmu::Vm's ageing and its working set.

#ifndef SERVER_SERVICES_AGING_SERVICE_H_
#define SERVER_SERVICES_AGING_SERVICE_H_

#include "absl/status/statusor.h"
#include "google/longrunning/operations.pb.h"
#include "grpcpp/support/status.h"
#include "mmud/v1/aging_service.pb.h"
#include "server/rpc/call_context.h"
#include "server/rpc/rpc_service.h"
#include "server/services/daemon_state.h"

namespace mmud {

// Thread-safe.
class AgingServiceImpl final : public RpcService {
 public:
  explicit AgingServiceImpl(DaemonState& state);

  grpc::Status AgeRange(CallContext* context,
                        const v1::AgeRangeRequest* request,
                        v1::AgeRangeResponse* response);
  grpc::Status CreateGeneration(CallContext* context,
                                const v1::CreateGenerationRequest* request,
                                google::longrunning::Operation* response);
  grpc::Status GetWorkingSet(CallContext* context,
                             const v1::GetWorkingSetRequest* request,
                             v1::GetWorkingSetResponse* response);
  grpc::Status ListHotRanges(CallContext* context,
                             const v1::ListHotRangesRequest* request,
                             v1::ListHotRangesResponse* response);
  grpc::Status ForgetWorkingSet(CallContext* context,
                                const v1::ForgetWorkingSetRequest* request,
                                v1::ForgetWorkingSetResponse* response);
  grpc::Status GetAger(CallContext* context, const v1::GetAgerRequest* request,
                       v1::GetAgerResponse* response);
  grpc::Status UpdateAger(CallContext* context,
                          const v1::UpdateAgerRequest* request,
                          v1::UpdateAgerResponse* response);

 private:
  absl::StatusOr<v1::AgeRangeResponse> Age(const CallContext& context,
                                           const v1::AgeRangeRequest& request);
  absl::StatusOr<google::longrunning::Operation> Create(
      const v1::CreateGenerationRequest& request);
  absl::StatusOr<v1::GetWorkingSetResponse> Get(
      const v1::GetWorkingSetRequest& request);
  absl::StatusOr<v1::ListHotRangesResponse> List(
      const v1::ListHotRangesRequest& request);
  absl::StatusOr<v1::ForgetWorkingSetResponse> Forget(
      const v1::ForgetWorkingSetRequest& request);
  absl::StatusOr<v1::UpdateAgerResponse> Update(
      const v1::UpdateAgerRequest& request);

  DaemonState& state_;
};

}  // namespace mmud

#endif  // SERVER_SERVICES_AGING_SERVICE_H_
