#include "server/services/call.h"

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "google/protobuf/message.h"
#include "grpc/support/time.h"
#include "grpcpp/server_context.h"
#include "mmu_core/base/clock.h"
#include "server/base/errors.h"
#include "server/base/resource_names.h"

namespace mmud {

mmu::MonotonicTime DeadlineOf(const grpc::ServerContext& context) {
  // gRPC got it as a duration and keeps it by its monotonic clock, which is
  // that of the system, as ours is.
  const gpr_timespec deadline =
      gpr_convert_clock_type(context.raw_deadline(), GPR_CLOCK_MONOTONIC);
  if (gpr_time_cmp(deadline, gpr_inf_future(GPR_CLOCK_MONOTONIC)) == 0) {
    return mmu::MonotonicTime::InfiniteFuture();
  }
  return mmu::MonotonicTime() + absl::Seconds(deadline.tv_sec) +
         absl::Nanoseconds(deadline.tv_nsec);
}

absl::Status CheckCaller(const grpc::ServerContext& context) {
  if (DeadlineOf(context) < mmu::MonotonicTime::Now()) {
    return ApiError(absl::StatusCode::kDeadlineExceeded, "CALL_CANCELLED",
                    "the deadline of the call passed");
  }
  if (context.IsCancelled()) {
    return ApiError(absl::StatusCode::kCancelled, "CALL_CANCELLED",
                    "the caller left");
  }
  return absl::OkStatus();
}

absl::Status CheckStream(const grpc::ServerContext& context,
                         const DaemonState& state, const ManagedVm& vm) {
  // First, since a deletion also cancels calls.
  if (vm.deleting()) return VmDeleted(vm.name());
  if (absl::Status status = CheckCaller(context); !status.ok()) return status;
  if (state.drain.is_draining()) return DrainingError();
  return absl::OkStatus();
}

std::string FingerprintOf(absl::string_view method,
                          const google::protobuf::Message& canonical) {
  std::string bytes = absl::StrCat(method, "\n");
  google::protobuf::io::StringOutputStream stream(&bytes);
  google::protobuf::io::CodedOutputStream coded(&stream);
  coded.SetSerializationDeterministic(true);
  canonical.SerializeToCodedStream(&coded);
  coded.Trim();
  return bytes;
}

absl::StatusOr<VmUse> FindVm(DaemonState& state, absl::string_view name,
                             absl::string_view field) {
  if (absl::Status status = CheckVmName(name, field); !status.ok()) {
    return status;
  }
  return state.vms.Find(name);
}

}  // namespace mmud
