#include "server/rpc/unary_call.h"

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "google/protobuf/message.h"
#include "mmu_core/base/reason.h"
#include "server/base/errors.h"
#include "server/base/status_mapping.h"
#include "server/rpc/cut_off.h"
#include "server/rpc/worked_on_vm.h"

namespace mmud {
namespace {

class UnaryCall final : public grpc::ServerUnaryReactor {
 public:
  UnaryCall(CallRuntime& runtime, UnaryKind kind, const UnaryFunction& function,
            grpc::CallbackServerContext* context,
            const grpc::ByteBuffer* request, grpc::ByteBuffer* response)
      : runtime_(runtime),
        kind_(kind),
        function_(function),
        context_(*context),
        request_(*request),
        response_(response),
        cut_off_(runtime.timer, *context) {}

  void Start() {
    absl::StatusOr<Budget::Place> place = kind_.budget->Take();
    if (!place.ok()) {
      Finish(ToGrpcStatus(place.status()));
      return;
    }
    place_ = *std::move(place);
    const absl::Status posted = kind_.workers->Post([this] { Work(); });
    if (!posted.ok()) FinishWith(ToGrpcStatus(posted));
  }

  // The answer is sent, or the caller is gone.
  void OnDone() override { delete this; }

 private:
  void Work() {
    grpc::Status status =
        context_.IsCancelled()
            ? ToGrpcStatus(ApiError(absl::StatusCode::kCancelled,
                                    mmu::Reason::kCallCancelled,
                                    "the call was cancelled before it began"))
            : function_(
                  &context_, request_,
                  [this](const google::protobuf::Message& request) {
                    return TakePlaceOfVm(request);
                  },
                  response_);
    FinishWith(std::move(status));
  }

  void FinishWith(grpc::Status status) {
    if (status.ok()) {
      cut_off_.Arm(runtime_.patience, runtime_.answer_not_taken);
    } else {
      place_of_vm_.Release();
      place_.Release();
    }
    Finish(std::move(status));  // and this may be gone
  }

  absl::Status TakePlaceOfVm(const google::protobuf::Message& request) {
    if (kind_.budget_of_vm == nullptr) return absl::OkStatus();
    const std::string vm = WorkedOnVm(request);
    if (vm.empty()) return absl::OkStatus();
    absl::StatusOr<Budget::Place> place = kind_.budget_of_vm->Take(vm);
    if (place.ok()) place_of_vm_ = *std::move(place);
    return place.status();
  }

  CallRuntime& runtime_;
  const UnaryKind kind_;
  const UnaryFunction& function_;
  CallContext context_;
  const grpc::ByteBuffer& request_;
  grpc::ByteBuffer* const response_;
  Budget::Place place_;
  Budget::Place place_of_vm_;
  CutOff cut_off_;
};

}  // namespace

grpc::ServerUnaryReactor* StartUnaryCall(CallRuntime& runtime, UnaryKind kind,
                                         const UnaryFunction& function,
                                         grpc::CallbackServerContext* context,
                                         const grpc::ByteBuffer* request,
                                         grpc::ByteBuffer* response) {
  auto* call =
      new UnaryCall(runtime, kind, function, context, request, response);
  call->Start();
  return call;
}

}  // namespace mmud
