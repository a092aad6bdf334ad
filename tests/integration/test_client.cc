#include "tests/integration/test_client.h"

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/time/time.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/text_format.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/support/byte_buffer.h"
#include "mmu_core/base/clock.h"
#include "mmud/lab/v1/workload_service.pb.h"
#include "mmud/v1/admin_service.pb.h"
#include "mmud/v1/aging_service.pb.h"
#include "mmud/v1/debug_service.pb.h"
#include "mmud/v1/dirty_log_service.pb.h"
#include "mmud/v1/guest_memory_service.pb.h"
#include "mmud/v1/split_service.pb.h"
#include "mmud/v1/stats_service.pb.h"
#include "server/rpc/grpc_time.h"

namespace mmud::integration {
namespace {

// One message of every file of the API, so that the file is linked and CallText
// finds its methods.
[[maybe_unused]] const google::protobuf::Descriptor* const kOneOfEachFile[] = {
    v1::GetBuildInfoRequest::descriptor(),
    v1::AgeRangeRequest::descriptor(),
    v1::RunAuditRequest::descriptor(),
    v1::GetDirtyLogRequest::descriptor(),
    v1::ReadPagesRequest::descriptor(),
    v1::UpdateSplitRequest::descriptor(),
    v1::GetMmuStatsRequest::descriptor(),
    v1::GetVmRequest::descriptor(),
    lab::v1::StopWorkloadRequest::descriptor(),
};

std::string ToString(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  std::string bytes;
  if (!buffer.Dump(&slices).ok()) return bytes;
  for (const grpc::Slice& slice : slices) {
    bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  return bytes;
}

}  // namespace

void SetTimeout(absl::Duration timeout, grpc::ClientContext* context) {
  context->set_deadline(ToGrpcTime(mmu::MonotonicTime::Now() + timeout));
}

ErrorFacts FactsOf(const google::rpc::Status& status) {
  ErrorFacts facts;
  for (const google::protobuf::Any& detail : status.details()) {
    google::rpc::ErrorInfo info;
    google::rpc::BadRequest bad;
    google::rpc::ResourceInfo resource;
    if (detail.UnpackTo(&info)) {
      ++facts.error_infos;
      facts.reason = info.reason();
      facts.domain = info.domain();
      const auto field = info.metadata().find("field");
      if (field != info.metadata().end()) facts.field = field->second;
      const auto limit = info.metadata().find("limit");
      if (limit != info.metadata().end()) facts.limit = limit->second;
    } else if (detail.UnpackTo(&bad)) {
      if (bad.field_violations_size() > 0) {
        facts.violated_field = bad.field_violations(0).field();
      }
    } else if (detail.UnpackTo(&resource)) {
      facts.resource_name = resource.resource_name();
    } else if (detail.Is<google::rpc::RetryInfo>()) {
      facts.has_retry_info = true;
    }
  }
  return facts;
}

ErrorFacts FactsOf(const grpc::Status& status) {
  google::rpc::Status rpc;
  rpc.ParseFromString(status.error_details());
  return FactsOf(rpc);
}

std::string ReasonOf(const grpc::Status& status) {
  return FactsOf(status).reason;
}

TestClient::TestClient(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 20);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 100);
  arguments.SetMaxReceiveMessageSize(64 << 20);
  channel_ = grpc::CreateCustomChannel(
      address, grpc::InsecureChannelCredentials(), arguments);
}

RawResult TestClient::CallRaw(const std::string& method,
                              const std::string& request,
                              absl::Duration timeout) const {
  return CallRawStream(method, {request}, timeout);
}

RawResult TestClient::CallRawStream(const std::string& method,
                                    const std::vector<std::string>& requests,
                                    absl::Duration timeout) const {
  grpc::ClientContext context;
  SetTimeout(timeout, &context);
  grpc::GenericStub stub(channel_);
  grpc::CompletionQueue queue;
  void* tag = nullptr;
  bool ok = false;
  const auto call =
      stub.PrepareCall(&context, absl::StrCat("/", method), &queue);
  RawResult result;
  call->StartCall(nullptr);
  queue.Next(&tag, &ok);
  for (size_t i = 0; ok && i < requests.size(); ++i) {
    const grpc::Slice slice(requests[i]);
    const grpc::ByteBuffer message(&slice, 1);
    if (i + 1 < requests.size()) {
      call->Write(message, nullptr);
    } else {
      call->WriteLast(message, grpc::WriteOptions(), nullptr);
    }
    queue.Next(&tag, &ok);
  }
  while (ok) {
    grpc::ByteBuffer message;
    call->Read(&message, nullptr);
    queue.Next(&tag, &ok);
    if (ok) result.messages.push_back(ToString(message));
  }
  call->Finish(&result.status, nullptr);
  queue.Next(&tag, &ok);
  return result;
}

RawResult TestClient::CallText(const std::string& method,
                               const std::string& request,
                               absl::Duration timeout) const {
  const auto* descriptor =
      google::protobuf::DescriptorPool::generated_pool()->FindMethodByName(
          absl::StrReplaceAll(method, {{"/", "."}}));
  if (descriptor == nullptr) {
    ADD_FAILURE() << "no method " << method;
    return {};
  }
  const std::unique_ptr<google::protobuf::Message> message(
      google::protobuf::MessageFactory::generated_factory()
          ->GetPrototype(descriptor->input_type())
          ->New());
  EXPECT_TRUE(
      google::protobuf::TextFormat::ParseFromString(request, message.get()))
      << method << " " << request;
  return CallRaw(method, message->SerializeAsString(), timeout);
}

std::string TestClient::Health(const std::string& service) const {
  grpc::health::v1::HealthCheckRequest request;
  request.set_service(service);
  const auto result =
      Call(&grpc::health::v1::Health::Stub::Check, request, absl::Seconds(5));
  return grpc::health::v1::HealthCheckResponse::ServingStatus_Name(
      result.response.status());
}

google::longrunning::Operation TestClient::WaitDone(
    const std::string& name) const {
  google::longrunning::WaitOperationRequest request;
  request.set_name(name);
  const google::longrunning::Operation operation =
      Must(&google::longrunning::Operations::Stub::WaitOperation, request);
  EXPECT_TRUE(operation.done()) << operation.ShortDebugString();
  return operation;
}

google::longrunning::Operation TestClient::GetOperation(
    const std::string& name) const {
  google::longrunning::GetOperationRequest request;
  request.set_name(name);
  return Must(&google::longrunning::Operations::Stub::GetOperation, request);
}

void TestClient::Cancel(const std::string& name) const {
  google::longrunning::CancelOperationRequest request;
  request.set_name(name);
  Must(&google::longrunning::Operations::Stub::CancelOperation, request);
}

v1::LimitUse UseOf(const TestClient& client, const std::string& name) {
  const v1::GetCapabilitiesResponse capabilities = client.Must(
      &v1::VmService::Stub::GetCapabilities, v1::GetCapabilitiesRequest());
  for (const v1::LimitUse& use : capabilities.limits()) {
    if (use.name() == name) return use;
  }
  ADD_FAILURE() << "no limit " << name;
  return {};
}

}  // namespace mmud::integration
