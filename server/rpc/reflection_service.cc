#include "server/rpc/reflection_service.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "grpc/reflection/v1alpha/reflection.pb.h"
#include "grpcpp/impl/codegen/server_callback_handlers.h"
#include "grpcpp/impl/rpc_service_method.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"
#include "mmu_core/base/reason.h"
#include "server/base/budget.h"
#include "server/base/errors.h"
#include "server/base/status_mapping.h"
#include "server/rpc/call_runtime.h"
#include "server/rpc/cut_off.h"
#include "server/rpc/reflection_answers.h"
#include "server/rpc/rpc_service.h"

namespace mmud {
namespace {

constexpr char kMethod[] =
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";

// Reads a question, writes its answer, reads the next question: one at a time,
// so that at most one answer waits to be sent. The work is a look into tables,
// done on gRPC's thread. A peer that neither asks nor takes its answer for the
// runtime's patience is cut off: OnReadDone or OnWriteDone fails.
class ReflectionCall final
    : public grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
 public:
  ReflectionCall(CallRuntime& runtime, const std::vector<std::string>& services,
                 grpc::CallbackServerContext* context)
      : runtime_(runtime),
        answers_(services),
        cut_off_(runtime.timer, *context) {}

  void Start() {
    absl::StatusOr<Budget::Place> place = runtime_.reflections.Take();
    if (!place.ok()) {
      Finish(ToGrpcStatus(place.status()));
      return;
    }
    place_ = *std::move(place);
    Postpone();
    StartRead(&question_);
  }

  void OnReadDone(bool ok) override {
    if (!ok) {
      // The peer asks no more, or is gone.
      FinishWith(grpc::Status::OK);
      return;
    }
    Postpone();
    grpc::reflection::v1alpha::ServerReflectionRequest request;
    absl::Status status = ParseRequest(question_, &request);
    if (status.ok()) {
      answer_.Clear();
      status = SerializeResponse(answers_.Answer(request), &answer_);
    }
    if (!status.ok()) {
      FinishWith(ToGrpcStatus(status));
      return;
    }
    StartWrite(&answer_);
  }

  void OnWriteDone(bool ok) override {
    if (!ok) {
      FinishWith(ToGrpcStatus(ApiError(absl::StatusCode::kCancelled,
                                       mmu::Reason::kCallCancelled,
                                       "the call was cancelled")));
      return;
    }
    Postpone();
    question_.Clear();
    StartRead(&question_);
  }

  void OnDone() override { delete this; }

 private:
  void Postpone() {
    cut_off_.Disarm();
    cut_off_.Arm(
        runtime_.patience,
        absl::DeadlineExceededError(absl::StrCat(
            "no request came and no answer was read for ",
            absl::FormatDuration(runtime_.patience), "; open another stream")));
  }

  void FinishWith(const grpc::Status& status) {
    place_.Release();
    Finish(status);  // and this may be gone
  }

  CallRuntime& runtime_;
  Budget::Place place_;
  ReflectionAnswers answers_;
  grpc::ByteBuffer question_;  // belongs to gRPC while reading
  grpc::ByteBuffer answer_;    // belongs to gRPC while writing
  CutOff cut_off_;
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
             [this](grpc::CallbackServerContext* context) {
               auto* call = new ReflectionCall(runtime_, services_, context);
               call->Start();
               return call;
             }));
}

}  // namespace mmud
