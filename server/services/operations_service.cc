#include "server/services/operations_service.h"

#include <algorithm>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "google/longrunning/operations.pb.h"
#include "grpcpp/support/status.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/reason.h"
#include "server/base/errors.h"
#include "server/base/resource_names.h"
#include "server/control/operation.h"
#include "server/control/operation_store.h"
#include "server/convert/convert.h"
#include "server/convert/operation_convert.h"
#include "server/convert/operation_filter.h"
#include "server/rpc/call_context.h"
#include "server/services/call.h"

namespace mmud {
namespace {

// An answer is sent this long before the caller's deadline.
constexpr absl::Duration kMargin = absl::Milliseconds(100);

// An operation and its number in the order in which operations began.
struct ListedOperation {
  uint64_t place = 0;
  google::longrunning::Operation operation;
};

// At most `limit` matching operations with numbers above `after`, ascending.
std::vector<ListedOperation> ListMatching(const OperationStore& store,
                                          const OperationFilter& filter,
                                          uint64_t after, size_t limit) {
  std::vector<ListedOperation> matching;
  while (true) {
    const std::vector<OperationStore::Listed> some = store.List(after, limit);
    const bool is_end = some.size() < limit;
    for (const OperationStore::Listed& listed : some) {
      after = listed.place;
      google::longrunning::Operation operation = ToProto(listed.operation);
      if (filter.Matches(operation)) {
        matching.push_back({listed.place, std::move(operation)});
      }
      if (matching.size() == limit) return matching;
    }
    if (is_end) return matching;
  }
}

// Errors: INVALID_REQUEST.
absl::StatusOr<mmu::MonotonicTime> EndOfWait(
    const CallContext& context,
    const google::longrunning::WaitOperationRequest& request) {
  const mmu::MonotonicTime until = context.deadline() - kMargin;
  if (!request.has_timeout()) return until;
  absl::Duration timeout;
  if (!FromProto(request.timeout(), &timeout) ||
      timeout < absl::ZeroDuration()) {
    return WrongValue(mmu::Reason::kInvalidRequest, "timeout",
                      Show(request.timeout()), "0 or more");
  }
  return std::min(until, mmu::MonotonicTime::Now() + timeout);
}

}  // namespace

OperationsServiceImpl::OperationsServiceImpl(DaemonState& state)
    : RpcService("google.longrunning.Operations", state.calls), state_(state) {
  Short("ListOperations", this, &OperationsServiceImpl::ListOperations);
  Short("GetOperation", this, &OperationsServiceImpl::GetOperation);
  Short("DeleteOperation", this, &OperationsServiceImpl::DeleteOperation);
  Short("CancelOperation", this, &OperationsServiceImpl::CancelOperation);
  Wait("WaitOperation", this, &OperationsServiceImpl::WaitOperation);
  CheckComplete();
}

grpc::Status OperationsServiceImpl::ListOperations(
    CallContext*, const google::longrunning::ListOperationsRequest* request,
    google::longrunning::ListOperationsResponse* response) {
  if (!request->name().empty() && request->name() != "operations") {
    return ToGrpcStatus(WrongValue(mmu::Reason::kInvalidName, "name",
                                   Quote(request->name()),
                                   "\"operations\", or empty"));
  }
  const absl::StatusOr<OperationFilter> filter =
      OperationFilter::Parse(request->filter());
  if (!filter.ok()) return ToGrpcStatus(filter.status());
  const absl::StatusOr<int> page_size = CheckPageSize(request->page_size());
  if (!page_size.ok()) return ToGrpcStatus(page_size.status());
  // The numbers are valid only in this process of the daemon.
  const std::string list = absl::StrCat("operations of ", state_.boot_id);
  const absl::StatusOr<absl::optional<uint64_t>> after =
      ParseNumberToken(list, request->page_token());
  if (!after.ok()) return ToGrpcStatus(after.status());
  const auto limit = static_cast<size_t>(*page_size);
  const std::vector<ListedOperation> listed =
      ListMatching(state_.operations, *filter, after->value_or(0), limit + 1);
  for (size_t i = 0; i < std::min(listed.size(), limit); ++i) {
    *response->add_operations() = listed[i].operation;
  }
  if (listed.size() > limit) {
    response->set_next_page_token(
        MakePageToken(list, absl::StrCat(listed[limit - 1].place)));
  }
  return grpc::Status::OK;
}

grpc::Status OperationsServiceImpl::GetOperation(
    CallContext*, const google::longrunning::GetOperationRequest* request,
    google::longrunning::Operation* response) {
  const absl::StatusOr<std::string> name =
      ParseOperationName(request->name(), "name");
  if (!name.ok()) return ToGrpcStatus(name.status());
  return Answer(ToProto(state_.operations.Get(*name)), response);
}

grpc::Status OperationsServiceImpl::DeleteOperation(
    CallContext* context,
    const google::longrunning::DeleteOperationRequest* request,
    google::protobuf::Empty*) {
  state_.call_log.NoteRequest(context->id(), *request);
  const absl::StatusOr<std::string> name =
      ParseOperationName(request->name(), "name");
  if (!name.ok()) return ToGrpcStatus(name.status());
  return ToGrpcStatus(state_.operations.Delete(*name));
}

grpc::Status OperationsServiceImpl::CancelOperation(
    CallContext* context,
    const google::longrunning::CancelOperationRequest* request,
    google::protobuf::Empty*) {
  state_.call_log.NoteRequest(context->id(), *request);
  const absl::StatusOr<std::string> name =
      ParseOperationName(request->name(), "name");
  if (!name.ok()) return ToGrpcStatus(name.status());
  return ToGrpcStatus(state_.operations.Cancel(*name));
}

absl::StatusOr<Waiting<google::longrunning::Operation>>
OperationsServiceImpl::WaitOperation(
    CallContext* context,
    const google::longrunning::WaitOperationRequest* request) {
  const absl::StatusOr<std::string> name =
      ParseOperationName(request->name(), "name");
  if (!name.ok()) return name.status();
  Waiting<google::longrunning::Operation> waiting;
  const absl::StatusOr<mmu::MonotonicTime> until =
      EndOfWait(*context, *request);
  if (!until.ok()) return until.status();
  waiting.until = *until;
  if (absl::Status known = state_.operations.Get(*name).status(); !known.ok()) {
    return known;
  }
  waiting.subscribe = [this, name = *name](std::function<void()> done) {
    const uint64_t ticket =
        state_.operations.NotifyWhenDone(name, std::move(done));
    return [this, name, ticket] { state_.operations.Forget(name, ticket); };
  };
  waiting.answer = [this,
                    name = *name](google::longrunning::Operation* response) {
    const absl::StatusOr<OperationView> now = state_.operations.Get(name);
    if (!now.ok()) return now.status();
    *response = ToProto(*now);
    return absl::OkStatus();
  };
  return waiting;
}

}  // namespace mmud
