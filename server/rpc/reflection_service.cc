#include "server/rpc/reflection_service.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grpc/reflection/v1alpha/reflection.pb.h"
#include "grpcpp/impl/codegen/server_callback_handlers.h"
#include "grpcpp/impl/rpc_service_method.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"
#include "server/base/budget.h"
#include "server/base/errors.h"
#include "server/base/status_mapping.h"
#include "server/rpc/reflection_answers.h"
#include "server/rpc/rpc_service.h"

namespace mmud {
namespace {

constexpr char kMethod[] =
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";

// Reads a question, writes its answer, reads the next: one at a time, so that
// what is there to be sent is one answer at most. The work is a look into
// tables, done on gRPC's thread.
class ReflectionCall final
    : public grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
 public:
  explicit ReflectionCall(const std::vector<std::string>& services)
      : answers_(services) {}

  void Start(Budget& budget) {
    absl::StatusOr<Budget::Place> place = budget.Take();
    if (!place.ok()) {
      Finish(ToGrpcStatus(place.status()));
      return;
    }
    place_ = *std::move(place);
    StartRead(&question_);
  }

  void OnReadDone(bool ok) override {
    if (!ok) {
      // It asks no more, or is gone.
      Finish(grpc::Status::OK);
      return;
    }
    grpc::reflection::v1alpha::ServerReflectionRequest request;
    absl::Status status = ParseRequest(question_, &request);
    if (status.ok()) {
      answer_.Clear();
      status = SerializeResponse(answers_.Answer(request), &answer_);
    }
    if (!status.ok()) {
      Finish(ToGrpcStatus(status));
      return;
    }
    StartWrite(&answer_);
  }

  void OnWriteDone(bool ok) override {
    if (!ok) {
      Finish(ToGrpcStatus(ApiError(absl::StatusCode::kCancelled,
                                   "CALL_CANCELLED", "the caller left")));
      return;
    }
    question_.Clear();
    StartRead(&question_);
  }

  void OnDone() override { delete this; }

 private:
  Budget::Place place_;
  ReflectionAnswers answers_;
  grpc::ByteBuffer question_;  // gRPC's while reading
  grpc::ByteBuffer answer_;    // gRPC's while writing
};

}  // namespace

ReflectionService::ReflectionService(std::vector<std::string> services,
                                     CallRuntime& runtime)
    : services_(std::move(services)), runtime_(runtime) {
  AddMethod(new grpc::internal::RpcServiceMethod(
      kMethod, grpc::internal::RpcMethod::BIDI_STREAMING, nullptr));
  MarkMethodRawCallback(
      0, new grpc::internal::CallbackBidiHandler<grpc::ByteBuffer,
                                                 grpc::ByteBuffer>(
             [this](grpc::CallbackServerContext*) {
               auto* call = new ReflectionCall(services_);
               call->Start(runtime_.reflections);
               return call;
             }));
}

}  // namespace mmud
