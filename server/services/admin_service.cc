#include "server/services/admin_service.h"

#include "grpcpp/support/status.h"
#include "server/base/build_info.h"
#include "server/convert/convert.h"

namespace mmud {

AdminServiceImpl::AdminServiceImpl(DaemonState& state)
    : RpcService("mmud.v1.AdminService", state.calls), state_(state) {
  Short("GetBuildInfo", this, &AdminServiceImpl::GetBuildInfo);
  CheckComplete();
}

grpc::Status AdminServiceImpl::GetBuildInfo(
    CallContext*, const v1::GetBuildInfoRequest*,
    v1::GetBuildInfoResponse* response) {
  response->set_version(kVersion);
  response->set_compiler(CompilerName());
  response->set_build_mode(BuildMode());
  response->set_fault_injection(state_.variant ==
                                BuildVariant::kFaultInjection);
  *response->mutable_start_time() = ToProto(state_.start_time);
  *response->mutable_uptime() =
      ToProto(mmu::MonotonicTime::Now() - state_.begin);
  response->set_boot_id(state_.boot_id);
  return grpc::Status::OK;
}

}  // namespace mmud
