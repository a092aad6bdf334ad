#include "client/mmu_client/dirty_log_client.h"

#include <memory>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/mmu_client/caller.h"
#include "client/mmu_client/error_info.h"
#include "client/mmu_client/harvest_stream.h"
#include "client/mmu_client/stream_call.h"
#include "google/longrunning/operations.pb.h"
#include "grpcpp/client_context.h"
#include "grpcpp/support/sync_stream.h"
#include "mmud/v1/dirty_log_service.grpc.pb.h"
#include "mmud/v1/dirty_log_service.pb.h"

namespace mmud::client {
namespace {

class GrpcPipe final : public HarvestStream::Pipe {
 public:
  using Stream = grpc::ClientReaderWriter<v1::HarvestDirtyLogRequest,
                                          v1::HarvestDirtyLogResponse>;

  GrpcPipe(std::unique_ptr<grpc::ClientContext> context,
           std::unique_ptr<Stream> stream)
      : context_(std::move(context)), stream_(std::move(stream)) {}

  bool Write(const v1::HarvestDirtyLogRequest& message) override {
    return stream_->Write(message);
  }
  bool Read(v1::HarvestDirtyLogResponse* message) override {
    return stream_->Read(message);
  }
  absl::Status Finish() override {
    stream_->WritesDone();
    v1::HarvestDirtyLogResponse rest;
    while (stream_->Read(&rest)) {
    }
    return FromGrpcStatus(stream_->Finish());
  }

 private:
  const std::unique_ptr<grpc::ClientContext> context_;  // outlives stream_
  const std::unique_ptr<Stream> stream_;
};

}  // namespace

struct DirtyLogClient::Stub {
  std::unique_ptr<v1::DirtyLogService::Stub> stub;
};

DirtyLogClient::DirtyLogClient(std::shared_ptr<const Caller> caller)
    : caller_(std::move(caller)),
      stub_(new Stub{v1::DirtyLogService::NewStub(caller_->channel())}) {}

DirtyLogClient::~DirtyLogClient() = default;

absl::StatusOr<google::longrunning::Operation> DirtyLogClient::StartDirtyLog(
    v1::StartDirtyLogRequest request) {
  return caller_->Unary<google::longrunning::Operation>(
      CallKind::kMutation, std::move(request),
      [this](auto* context, const auto& sent, auto* response) {
        return stub_->stub->StartDirtyLog(context, sent, response);
      });
}

absl::StatusOr<v1::GetDirtyLogResponse> DirtyLogClient::GetDirtyLog(
    v1::GetDirtyLogRequest request) {
  return caller_->Unary<v1::GetDirtyLogResponse>(
      CallKind::kRead, std::move(request),
      [this](auto* context, const auto& sent, auto* response) {
        return stub_->stub->GetDirtyLog(context, sent, response);
      });
}

absl::StatusOr<v1::AcquireDirtyLogResponse> DirtyLogClient::AcquireDirtyLog(
    v1::AcquireDirtyLogRequest request) {
  return caller_->Unary<v1::AcquireDirtyLogResponse>(
      CallKind::kMutation, std::move(request),
      [this](auto* context, const auto& sent, auto* response) {
        return stub_->stub->AcquireDirtyLog(context, sent, response);
      });
}

absl::StatusOr<v1::SealDirtyLogResponse> DirtyLogClient::SealDirtyLog(
    v1::SealDirtyLogRequest request) {
  return caller_->Unary<v1::SealDirtyLogResponse>(
      CallKind::kHeavy, std::move(request),
      [this](auto* context, const auto& sent, auto* response) {
        return stub_->stub->SealDirtyLog(context, sent, response);
      });
}

absl::StatusOr<v1::ClearDirtyLogResponse> DirtyLogClient::ClearDirtyLog(
    v1::ClearDirtyLogRequest request) {
  return caller_->Unary<v1::ClearDirtyLogResponse>(
      CallKind::kHeavy, std::move(request),
      [this](auto* context, const auto& sent, auto* response) {
        return stub_->stub->ClearDirtyLog(context, sent, response);
      });
}

absl::StatusOr<v1::AcknowledgePagesResponse> DirtyLogClient::AcknowledgePages(
    v1::AcknowledgePagesRequest request) {
  return caller_->Unary<v1::AcknowledgePagesResponse>(
      CallKind::kHeavy, std::move(request),
      [this](auto* context, const auto& sent, auto* response) {
        return stub_->stub->AcknowledgePages(context, sent, response);
      });
}

absl::StatusOr<v1::StopDirtyLogResponse> DirtyLogClient::StopDirtyLog(
    v1::StopDirtyLogRequest request) {
  return caller_->Unary<v1::StopDirtyLogResponse>(
      CallKind::kHeavy, std::move(request),
      [this](auto* context, const auto& sent, auto* response) {
        return stub_->stub->StopDirtyLog(context, sent, response);
      });
}

absl::StatusOr<v1::GetDirtyRateResponse> DirtyLogClient::GetDirtyRate(
    v1::GetDirtyRateRequest request) {
  return caller_->Unary<v1::GetDirtyRateResponse>(
      CallKind::kRead, std::move(request),
      [this](auto* context, const auto& sent, auto* response) {
        return stub_->stub->GetDirtyRate(context, sent, response);
      });
}

absl::Status DirtyLogClient::ReadDirtyPagesOnce(
    const v1::ReadDirtyPagesRequest& request,
    absl::FunctionRef<absl::Status(const v1::ReadDirtyPagesResponse&)>
        on_message) {
  grpc::ClientContext context;
  caller_->Prepare(caller_->DeadlineOf(CallKind::kStream), &context);
  const auto reader = stub_->stub->ReadDirtyPages(&context, request);
  return ReadStream<v1::ReadDirtyPagesResponse>(context, *reader, on_message);
}

absl::StatusOr<std::unique_ptr<HarvestStream>> DirtyLogClient::OpenHarvest(
    const v1::HarvestOpen& open) {
  // Without a deadline: it lasts as many rounds as its caller likes.
  auto context = std::make_unique<grpc::ClientContext>();
  auto stream = stub_->stub->HarvestDirtyLog(context.get());
  auto harvest = std::make_unique<HarvestStream>(
      std::make_unique<GrpcPipe>(std::move(context), std::move(stream)));
  if (absl::Status status = harvest->Open(open); !status.ok()) return status;
  return harvest;
}

void DirtyLogClient::Sleep(absl::Duration duration) const {
  caller_->Sleep(duration);
}

}  // namespace mmud::client
