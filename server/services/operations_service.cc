#include "server/services/operations_service.h"

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/status.h"
#include "mmu_core/base/clock.h"
#include "server/base/errors.h"
#include "server/base/resource_names.h"
#include "server/services/call.h"
#include "server/services/convert.h"

namespace mmud {
namespace {

// An answer is sent this long before the caller's deadline.
constexpr absl::Duration kMargin = absl::Milliseconds(100);

}  // namespace

grpc::Status OperationsServiceImpl::ListOperations(
    grpc::ServerContext*,
    const google::longrunning::ListOperationsRequest* request,
    google::longrunning::ListOperationsResponse* response) {
  if (!request->name().empty() && request->name() != "operations") {
    return ToGrpcStatus(
        InvalidField("INVALID_NAME", "name",
                     absl::StrCat("name is ", Quote(request->name()),
                                  "; it must be \"operations\", or empty")));
  }
  if (!request->filter().empty()) {
    return ToGrpcStatus(InvalidField(
        "INVALID_FILTER", "filter",
        absl::StrCat("filter is ", Quote(request->filter()),
                     "; filters are not supported, leave it empty")));
  }
  const absl::StatusOr<int> page_size = CheckPageSize(request->page_size());
  if (!page_size.ok()) return ToGrpcStatus(page_size.status());
  const absl::StatusOr<std::string> token =
      ParsePageToken("operations", request->page_token());
  if (!token.ok()) return ToGrpcStatus(token.status());
  uint64_t after = 0;
  if (!token->empty() && !absl::SimpleAtoi(*token, &after)) {
    return ToGrpcStatus(
        ParsePageToken("operations", request->page_token() + "!").status());
  }
  const auto limit = static_cast<size_t>(*page_size);
  const std::vector<google::longrunning::Operation> operations =
      state_.operations.List(after, limit + 1);
  for (size_t i = 0; i < std::min(operations.size(), limit); ++i) {
    *response->add_operations() = operations[i];
  }
  if (operations.size() > limit) {
    const absl::StatusOr<uint64_t> last =
        ParseOperationName(operations[limit - 1].name(), "name");
    response->set_next_page_token(
        MakePageToken("operations", absl::StrCat(last.value_or(0))));
  }
  return grpc::Status::OK;
}

grpc::Status OperationsServiceImpl::GetOperation(
    grpc::ServerContext*,
    const google::longrunning::GetOperationRequest* request,
    google::longrunning::Operation* response) {
  const absl::StatusOr<uint64_t> id =
      ParseOperationName(request->name(), "name");
  if (!id.ok()) return ToGrpcStatus(id.status());
  return Answer(state_.operations.Get(*id), response);
}

grpc::Status OperationsServiceImpl::DeleteOperation(
    grpc::ServerContext*,
    const google::longrunning::DeleteOperationRequest* request,
    google::protobuf::Empty*) {
  const absl::StatusOr<uint64_t> id =
      ParseOperationName(request->name(), "name");
  if (!id.ok()) return ToGrpcStatus(id.status());
  return ToGrpcStatus(state_.operations.Delete(*id));
}

grpc::Status OperationsServiceImpl::CancelOperation(
    grpc::ServerContext*,
    const google::longrunning::CancelOperationRequest* request,
    google::protobuf::Empty*) {
  const absl::StatusOr<uint64_t> id =
      ParseOperationName(request->name(), "name");
  if (!id.ok()) return ToGrpcStatus(id.status());
  return ToGrpcStatus(state_.operations.Cancel(*id));
}

grpc::Status OperationsServiceImpl::WaitOperation(
    grpc::ServerContext* context,
    const google::longrunning::WaitOperationRequest* request,
    google::longrunning::Operation* response) {
  const absl::StatusOr<uint64_t> id =
      ParseOperationName(request->name(), "name");
  if (!id.ok()) return ToGrpcStatus(id.status());
  mmu::MonotonicTime until = DeadlineOf(*context) - kMargin;
  if (request->has_timeout()) {
    absl::Duration timeout;
    if (!FromProto(request->timeout(), &timeout) ||
        timeout < absl::ZeroDuration()) {
      return ToGrpcStatus(WrongValue("INVALID_REQUEST", "timeout",
                                     Show(request->timeout()), "0 or more"));
    }
    until = std::min(until, mmu::MonotonicTime::Now() + timeout);
  }
  // Without a place to wait the present state is the answer, which the API
  // allows at any time.
  const StreamLimiter::Place place = state_.streams.TryTake();
  return Answer(state_.operations.Wait(*id,
                                       [&] {
                                         return place &&
                                                mmu::MonotonicTime::Now() <
                                                    until &&
                                                !context->IsCancelled();
                                       }),
                response);
}

}  // namespace mmud
