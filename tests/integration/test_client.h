// Calls a daemon without the client library, so that a test determines every
// message.

#ifndef TESTS_INTEGRATION_TEST_CLIENT_H_
#define TESTS_INTEGRATION_TEST_CLIENT_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "google/longrunning/operations.grpc.pb.h"
#include "google/protobuf/message.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "mmud/v1/vm_service.grpc.pb.h"

namespace mmud::integration {

inline constexpr absl::Duration kCallTimeout = absl::Seconds(30);

void SetTimeout(absl::Duration timeout, grpc::ClientContext* context);

template <typename Response>
struct Result {
  grpc::Status status;
  Response response;
};

// The result of a call made by name.
struct RawResult {
  grpc::Status status;
  std::vector<std::string> messages;  // as bytes
};

// The facts of ErrorInfo and the other details in a status.
struct ErrorFacts {
  int error_infos = 0;
  std::string reason;
  std::string domain;
  std::string field;           // ErrorInfo.metadata["field"]
  std::string limit;           // ErrorInfo.metadata["limit"]
  std::string violated_field;  // BadRequest
  bool has_retry_info = false;
  std::string resource_name;
};
ErrorFacts FactsOf(const google::rpc::Status& status);
ErrorFacts FactsOf(const grpc::Status& status);
// The reason in ErrorInfo; "" for OK and for a status without ErrorInfo.
std::string ReasonOf(const grpc::Status& status);

// One connection of its own, not shared with other TestClients of the process.
// Thread-safe.
class TestClient {
 public:
  // `address`: "unix:/path" or "host:port".
  explicit TestClient(const std::string& address);

  // Calls a method of a generated stub: Call(&v1::VmService::Stub::GetVm, r).
  template <typename Stub, typename Request, typename Response>
  Result<Response> Call(grpc::Status (Stub::*method)(grpc::ClientContext*,
                                                     const Request&, Response*),
                        const Request& request,
                        absl::Duration timeout = kCallTimeout) const {
    grpc::ClientContext context;
    SetTimeout(timeout, &context);
    Stub stub(channel_);
    Result<Response> result;
    result.status = (stub.*method)(&context, request, &result.response);
    return result;
  }

  // As Call, but expects success and returns only the response.
  template <typename Stub, typename Request, typename Response>
  Response Must(grpc::Status (Stub::*method)(grpc::ClientContext*,
                                             const Request&, Response*),
                const Request& request) const {
    Result<Response> result = Call(method, request);
    EXPECT_TRUE(result.status.ok()) << ReasonOf(result.status) << ": "
                                    << result.status.error_message() << "\n"
                                    << request.ShortDebugString();
    return result.response;
  }

  // Calls "package.Service/Method" with arbitrary bytes.
  RawResult CallRaw(const std::string& method, const std::string& request,
                    absl::Duration timeout = kCallTimeout) const;
  // As CallRaw with several messages: sends all of them and closes the client's
  // end of the stream before it reads an answer.
  RawResult CallRawStream(const std::string& method,
                          const std::vector<std::string>& requests,
                          absl::Duration timeout = kCallTimeout) const;
  // As CallRaw, with a request in text form.
  RawResult CallText(const std::string& method, const std::string& request,
                     absl::Duration timeout = kCallTimeout) const;

  // The health of a service; UNKNOWN without an answer.
  std::string Health(const std::string& service = "") const;

  // Waits until the operation is done and returns it.
  google::longrunning::Operation WaitDone(const std::string& name) const;
  google::longrunning::Operation GetOperation(const std::string& name) const;
  // Asks the operation to stop.
  void Cancel(const std::string& name) const;

  const std::shared_ptr<grpc::Channel>& channel() const { return channel_; }

 private:
  std::shared_ptr<grpc::Channel> channel_;
};

// The metadata or response of an operation.
template <typename Message>
Message Unpack(const google::protobuf::Any& any) {
  Message message;
  EXPECT_TRUE(any.UnpackTo(&message)) << any.type_url();
  return message;
}

// The entry for a limit in GetCapabilities.
v1::LimitUse UseOf(const TestClient& client, const std::string& name);

}  // namespace mmud::integration

#endif  // TESTS_INTEGRATION_TEST_CLIENT_H_
