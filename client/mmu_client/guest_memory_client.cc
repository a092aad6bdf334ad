#include "client/mmu_client/guest_memory_client.h"

#include <memory>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "client/mmu_client/caller.h"
#include "client/mmu_client/stream_call.h"
#include "grpcpp/client_context.h"
#include "mmud/v1/guest_memory_service.grpc.pb.h"
#include "mmud/v1/guest_memory_service.pb.h"

namespace mmud::client {

struct GuestMemoryClient::Stub {
  std::unique_ptr<v1::GuestMemoryService::Stub> stub;
};

GuestMemoryClient::GuestMemoryClient(std::shared_ptr<const Caller> caller)
    : caller_(std::move(caller)),
      stub_(new Stub{v1::GuestMemoryService::NewStub(caller_->channel())}) {}

GuestMemoryClient::~GuestMemoryClient() = default;

absl::Status GuestMemoryClient::ReadPagesOnce(
    const v1::ReadPagesRequest& request,
    absl::FunctionRef<absl::Status(const v1::ReadPagesResponse&)> on_message) {
  grpc::ClientContext context;
  caller_->Prepare(caller_->DeadlineOf(CallKind::kStream), &context);
  const auto reader = stub_->stub->ReadPages(&context, request);
  return ReadStream<v1::ReadPagesResponse>(context, *reader, on_message);
}

void GuestMemoryClient::Sleep(absl::Duration duration) const {
  caller_->Sleep(duration);
}

}  // namespace mmud::client
