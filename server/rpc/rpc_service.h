// Turns plain functions into the methods of a gRPC service on gRPC's callback
// API.
//
// A service derives from RpcService, names its methods in its constructor and
// writes each as a function:
//
//   class VmServiceImpl final : public RpcService {
//    public:
//     explicit VmServiceImpl(DaemonState& state)
//         : RpcService("mmud.v1.VmService", state.calls), state_(state) {
//       Short("GetVm", this, &VmServiceImpl::GetVm);
//       Long("CreateVm", this, &VmServiceImpl::CreateVm);
//       CheckComplete();
//     }
//    private:
//     grpc::Status GetVm(CallContext*, const v1::GetVmRequest*,
//                        v1::GetVmResponse*);
//
// call_runtime.h defines the kinds of methods. A call that finds the budget of
// its kind used up is refused with LIMIT_EXCEEDED before its function runs.
// Bytes that do not parse as the request are refused with INVALID_REQUEST. The
// methods take and return bytes ("raw" methods), because gRPC would answer
// unparsable bytes by itself with INTERNAL and no reason.

#ifndef SERVER_RPC_RPC_SERVICE_H_
#define SERVER_RPC_RPC_SERVICE_H_

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "grpcpp/impl/service_type.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/status.h"
#include "server/base/status_mapping.h"
#include "server/rpc/bidi_call.h"
#include "server/rpc/call_context.h"
#include "server/rpc/call_runtime.h"
#include "server/rpc/stream_call.h"
#include "server/rpc/unary_call.h"
#include "server/rpc/waiting_call.h"

namespace mmud {

// INVALID_REQUEST if the bytes do not parse as this message.
absl::Status ParseRequest(const grpc::ByteBuffer& bytes,
                          google::protobuf::Message* request);
// INTERNAL_ERROR if the response is too large for gRPC.
absl::Status SerializeResponse(const google::protobuf::Message& response,
                               grpc::ByteBuffer* bytes);

// Makes the messages of a stream one after the other, as its peer takes them:
// true and a message, or false once none is left. Called by one thread at a
// time, not always by the same. It is destroyed, and so releases its VM, before
// the stream's status is sent.
template <typename Message>
using MessageSource = std::function<absl::StatusOr<bool>(Message*)>;

// ByteConversation with parsed messages.
template <typename Request, typename Response>
class Conversation {
 public:
  virtual ~Conversation() = default;
  virtual absl::Status Take(const Request& request) = 0;
  virtual absl::StatusOr<bool> Next(Response* response) = 0;
};

// Thread-safe. Outlives the server.
class RpcService : public grpc::Service {
 protected:
  // `name`: full name of the service. `runtime` outlives this.
  RpcService(absl::string_view name, CallRuntime& runtime);

  template <typename Self, typename Request, typename Response>
  using Function = grpc::Status (Self::*)(CallContext*, const Request*,
                                          Response*);

  template <typename Self, typename Request, typename Response>
  void Short(absl::string_view method, Self* self,
             Function<Self, Request, Response> function) {
    AddUnary<Request, Response>(
        method, {&runtime_.short_calls, nullptr, &runtime_.short_workers},
        Unary(self, function));
  }

  template <typename Self, typename Request, typename Response>
  void Long(absl::string_view method, Self* self,
            Function<Self, Request, Response> function) {
    AddUnary<Request, Response>(
        method,
        {&runtime_.long_calls, &runtime_.long_calls_per_vm,
         &runtime_.long_workers},
        Unary(self, function));
  }

  // Registers a stream of answers; Request has a field `vm`. The function
  // checks the request and begins the work; the source that it returns makes
  // the messages.
  template <typename Self, typename Request, typename Response>
  void Stream(absl::string_view method, Self* self,
              absl::StatusOr<MessageSource<Response>> (Self::*function)(
                  CallContext*, const Request*)) {
    AddStream(
        method, *Request::descriptor(), *Response::descriptor(),
        [self, function](
            CallContext* context, const grpc::ByteBuffer& bytes,
            const TakeStreamPlace& take) -> absl::StatusOr<ByteSource> {
          Request request;
          if (absl::Status status = ParseRequest(bytes, &request);
              !status.ok()) {
            return status;
          }
          if (absl::Status status = take(request.vm()); !status.ok()) {
            return status;
          }
          absl::StatusOr<MessageSource<Response>> source =
              (self->*function)(context, &request);
          if (!source.ok()) return source.status();
          return ByteSource([next = *std::move(source)](
                                grpc::ByteBuffer* out) -> absl::StatusOr<bool> {
            Response response;
            const absl::StatusOr<bool> made = next(&response);
            if (!made.ok() || !*made) return made;
            absl::Status status = SerializeResponse(response, out);
            if (!status.ok()) return status;
            return true;
          });
        });
  }

  // Registers a conversation, which `function` begins.
  template <typename Self, typename Request, typename Response>
  void Bidi(absl::string_view method, Self* self,
            std::unique_ptr<Conversation<Request, Response>> (Self::*function)(
                CallContext*, TakeStreamPlace)) {
    AddBidi(method, *Request::descriptor(), *Response::descriptor(),
            [self, function](CallContext* context, TakeStreamPlace take)
                -> std::unique_ptr<ByteConversation> {
              return std::make_unique<Encoded<Request, Response>>(
                  (self->*function)(context, std::move(take)));
            });
  }

  // Registers a call that is answered when an event has happened.
  template <typename Self, typename Request, typename Response>
  void Wait(absl::string_view method, Self* self,
            absl::StatusOr<Waiting<Response>> (Self::*function)(
                CallContext*, const Request*)) {
    AddWait(
        method, *Request::descriptor(), *Response::descriptor(),
        [self, function](CallContext* context, const grpc::ByteBuffer& bytes)
            -> absl::StatusOr<Waiting<grpc::ByteBuffer>> {
          Request request;
          if (absl::Status status = ParseRequest(bytes, &request);
              !status.ok()) {
            return status;
          }
          absl::StatusOr<Waiting<Response>> waiting =
              (self->*function)(context, &request);
          if (!waiting.ok()) return waiting.status();
          Waiting<grpc::ByteBuffer> raw;
          raw.until = waiting->until;
          raw.subscribe = std::move(waiting->subscribe);
          raw.answer = [answer =
                            std::move(waiting->answer)](grpc::ByteBuffer* out) {
            Response response;
            absl::Status status = answer(&response);
            return status.ok() ? SerializeResponse(response, out) : status;
          };
          return raw;
        });
  }

  // Fails the program unless every method of the service was registered.
  void CheckComplete() const;

 private:
  template <typename Request, typename Response>
  class Encoded final : public ByteConversation {
   public:
    explicit Encoded(std::unique_ptr<Conversation<Request, Response>> inner)
        : inner_(std::move(inner)) {}
    absl::Status Take(const grpc::ByteBuffer& message) override {
      Request request;
      absl::Status status = ParseRequest(message, &request);
      return status.ok() ? inner_->Take(request) : status;
    }
    absl::StatusOr<bool> Next(grpc::ByteBuffer* answer) override {
      Response response;
      const absl::StatusOr<bool> made = inner_->Next(&response);
      if (!made.ok() || !*made) return made;
      absl::Status status = SerializeResponse(response, answer);
      if (!status.ok()) return status;
      return true;
    }

   private:
    const std::unique_ptr<Conversation<Request, Response>> inner_;
  };

  template <typename Self, typename Request, typename Response>
  static UnaryFunction Unary(Self* self,
                             Function<Self, Request, Response> function) {
    return [self, function](CallContext* context, const grpc::ByteBuffer& bytes,
                            const TakeVmPlace& take,
                            grpc::ByteBuffer* out) -> grpc::Status {
      Request request;
      if (absl::Status status = ParseRequest(bytes, &request); !status.ok()) {
        return ToGrpcStatus(status);
      }
      if (absl::Status status = take(request); !status.ok()) {
        return ToGrpcStatus(status);
      }
      Response response;
      grpc::Status status = (self->*function)(context, &request, &response);
      if (!status.ok()) return status;
      return ToGrpcStatus(SerializeResponse(response, out));
    };
  }

  template <typename Request, typename Response>
  void AddUnary(absl::string_view method, UnaryKind kind,
                UnaryFunction function) {
    AddUnary(method, *Request::descriptor(), *Response::descriptor(), kind,
             std::move(function));
  }

  using Descriptor = google::protobuf::Descriptor;
  void AddUnary(absl::string_view method, const Descriptor& request,
                const Descriptor& response, UnaryKind kind,
                UnaryFunction function);
  void AddStream(absl::string_view method, const Descriptor& request,
                 const Descriptor& response, StreamFunction function);
  void AddBidi(absl::string_view method, const Descriptor& request,
               const Descriptor& response, BidiFunction function);
  void AddWait(absl::string_view method, const Descriptor& request,
               const Descriptor& response, WaitFunction function);
  // Registers the path of a method and returns its index.
  int AddPath(absl::string_view method, const Descriptor& request,
              const Descriptor& response);

  const google::protobuf::ServiceDescriptor& descriptor_;
  CallRuntime& runtime_;
  std::deque<std::string> paths_;  // gRPC keeps pointers into it
};

}  // namespace mmud

#endif  // SERVER_RPC_RPC_SERVICE_H_
