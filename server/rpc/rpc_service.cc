#include "server/rpc/rpc_service.h"

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "grpcpp/impl/codegen/proto_utils.h"
#include "grpcpp/impl/codegen/server_callback_handlers.h"
#include "grpcpp/impl/rpc_service_method.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/proto_buffer_reader.h"
#include "grpcpp/support/server_callback.h"
#include "grpcpp/support/status.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/reason.h"
#include "server/base/errors.h"

namespace mmud {
namespace {

const google::protobuf::ServiceDescriptor& FindService(absl::string_view name) {
  const auto* service =
      google::protobuf::DescriptorPool::generated_pool()->FindServiceByName(
          std::string(name));
  MMU_CHECK(service != nullptr);
  return *service;
}

grpc::internal::RpcMethod::RpcType TypeOf(
    const google::protobuf::MethodDescriptor& method) {
  if (method.client_streaming()) {
    return grpc::internal::RpcMethod::BIDI_STREAMING;
  }
  return method.server_streaming() ? grpc::internal::RpcMethod::SERVER_STREAMING
                                   : grpc::internal::RpcMethod::NORMAL_RPC;
}

}  // namespace

absl::Status ParseRequest(const grpc::ByteBuffer& bytes,
                          google::protobuf::Message* request) {
  if (bytes.Valid()) {
    grpc::ByteBuffer copy(bytes);  // copies pointers; reading consumes it
    grpc::ProtoBufferReader reader(&copy);
    if (reader.status().ok() && request->ParseFromZeroCopyStream(&reader)) {
      return absl::OkStatus();
    }
  }
  return ApiError(absl::StatusCode::kInvalidArgument,
                  mmu::Reason::kInvalidRequest,
                  absl::StrCat("the ", bytes.Valid() ? bytes.Length() : 0,
                               " bytes of the request are no ",
                               request->GetDescriptor()->full_name(),
                               "; encode one of this API's version"));
}

absl::Status SerializeResponse(const google::protobuf::Message& response,
                               grpc::ByteBuffer* bytes) {
  bool own = false;
  const grpc::Status status =
      grpc::SerializationTraits<google::protobuf::Message>::Serialize(
          response, bytes, &own);
  if (status.ok()) return absl::OkStatus();
  return ApiError(
      absl::StatusCode::kInternal, mmu::Reason::kInternalError,
      absl::StrCat("the answer, a ", response.GetDescriptor()->full_name(),
                   ", cannot be encoded"));
}

RpcService::RpcService(absl::string_view name, CallRuntime& runtime)
    : descriptor_(FindService(name)), runtime_(runtime) {}

int RpcService::AddPath(absl::string_view method, const Descriptor& request,
                        const Descriptor& response) {
  const auto* descriptor = descriptor_.FindMethodByName(std::string(method));
  MMU_CHECK(descriptor != nullptr);
  MMU_CHECK(descriptor->input_type() == &request);
  MMU_CHECK(descriptor->output_type() == &response);
  MMU_CHECK(!descriptor->client_streaming() || descriptor->server_streaming());
  paths_.push_back(absl::StrCat("/", descriptor_.full_name(), "/", method));
  AddMethod(new grpc::internal::RpcServiceMethod(paths_.back().c_str(),
                                                 TypeOf(*descriptor), nullptr));
  return static_cast<int>(paths_.size()) - 1;
}

void RpcService::AddUnary(absl::string_view method, const Descriptor& request,
                          const Descriptor& response, UnaryKind kind,
                          UnaryFunction function) {
  MarkMethodRawCallback(
      AddPath(method, request, response),
      new grpc::internal::CallbackUnaryHandler<grpc::ByteBuffer,
                                               grpc::ByteBuffer>(
          [this, kind, function = std::move(function)](
              grpc::CallbackServerContext* context, const grpc::ByteBuffer* in,
              grpc::ByteBuffer* out) {
            return StartUnaryCall(runtime_, kind, function, context, in, out);
          }));
}

void RpcService::AddStream(absl::string_view method, const Descriptor& request,
                           const Descriptor& response,
                           StreamFunction function) {
  MarkMethodRawCallback(
      AddPath(method, request, response),
      new grpc::internal::CallbackServerStreamingHandler<grpc::ByteBuffer,
                                                         grpc::ByteBuffer>(
          [this, function = std::move(function)](
              grpc::CallbackServerContext* context,
              const grpc::ByteBuffer* in) {
            return StartStreamCall(runtime_, function, context, in);
          }));
}

void RpcService::AddBidi(absl::string_view method, const Descriptor& request,
                         const Descriptor& response, BidiFunction function) {
  MarkMethodRawCallback(
      AddPath(method, request, response),
      new grpc::internal::CallbackBidiHandler<grpc::ByteBuffer,
                                              grpc::ByteBuffer>(
          [this, function = std::move(function)](
              grpc::CallbackServerContext* context) {
            return StartBidiCall(runtime_, function, context);
          }));
}

void RpcService::AddWait(absl::string_view method, const Descriptor& request,
                         const Descriptor& response, WaitFunction function) {
  MarkMethodRawCallback(
      AddPath(method, request, response),
      new grpc::internal::CallbackUnaryHandler<grpc::ByteBuffer,
                                               grpc::ByteBuffer>(
          [this, function = std::move(function)](
              grpc::CallbackServerContext* context, const grpc::ByteBuffer* in,
              grpc::ByteBuffer* out) {
            return StartWaitingCall(runtime_, function, context, in, out);
          }));
}

void RpcService::CheckComplete() const {
  MMU_CHECK(static_cast<int>(paths_.size()) == descriptor_.method_count());
}

}  // namespace mmud
