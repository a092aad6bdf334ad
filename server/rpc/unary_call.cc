#include "server/rpc/unary_call.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/base/errors.h"
#include "server/base/status_mapping.h"

namespace mmud {
namespace {

class UnaryCall final : public grpc::ServerUnaryReactor {
 public:
  UnaryCall(const UnaryFunction& function, grpc::CallbackServerContext* context,
            const grpc::ByteBuffer* request, grpc::ByteBuffer* response)
      : function_(function),
        context_(*context),
        request_(*request),
        response_(response) {}

  void Start(UnaryKind kind) {
    absl::StatusOr<Budget::Place> place = kind.budget->Take();
    if (!place.ok()) {
      Finish(ToGrpcStatus(place.status()));
      return;
    }
    place_ = *std::move(place);
    kind.workers->Post([this] { Work(); });
  }

  void OnDone() override { delete this; }

 private:
  void Work() {
    grpc::Status status =
        context_.IsCancelled()
            ? ToGrpcStatus(ApiError(absl::StatusCode::kCancelled,
                                    "CALL_CANCELLED",
                                    "the caller left before its turn came"))
            : function_(&context_, request_, response_);
    // Before the answer: who has it may call again at once.
    place_.Release();
    Finish(std::move(status));  // and this is gone
  }

  const UnaryFunction& function_;
  CallContext context_;
  const grpc::ByteBuffer& request_;
  grpc::ByteBuffer* const response_;
  Budget::Place place_;
};

}  // namespace

grpc::ServerUnaryReactor* StartUnaryCall(UnaryKind kind,
                                         const UnaryFunction& function,
                                         grpc::CallbackServerContext* context,
                                         const grpc::ByteBuffer* request,
                                         grpc::ByteBuffer* response) {
  auto* call = new UnaryCall(function, context, request, response);
  call->Start(kind);
  return call;
}

}  // namespace mmud
