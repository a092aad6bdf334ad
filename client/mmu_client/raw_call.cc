#include "client/mmu_client/raw_call.h"

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "client/mmu_client/error_info.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/support/slice.h"
#include "grpcpp/support/stub_options.h"

namespace mmud::client {
namespace {

std::string BytesOf(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  std::string bytes;
  if (!buffer.Dump(&slices).ok()) return bytes;
  for (const grpc::Slice& slice : slices) {
    bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  return bytes;
}

}  // namespace

RawCall::RawCall(const std::shared_ptr<grpc::Channel>& channel,
                 const std::string& path, grpc::ClientContext* context,
                 std::function<absl::Status(const std::string&)> on_message)
    : context_(context), on_message_(std::move(on_message)) {
  grpc::GenericStub(channel).PrepareBidiStreamingCall(
      context, path, grpc::StubOptions(), this);
  // Writes start outside of this object's own callbacks. The hold keeps gRPC
  // from ending the call until WritesDone.
  AddHold();
  StartRead(&incoming_);
  StartCall();
}

bool RawCall::Write(const std::string& message) {
  {
    const absl::MutexLock lock(&mu_);
    if (!writable_) return false;
    writing_ = true;
  }
  const grpc::Slice slice(message);
  outgoing_ = grpc::ByteBuffer(&slice, 1);
  StartWrite(&outgoing_);
  const absl::MutexLock lock(&mu_);
  mu_.Await(absl::Condition(
      +[](bool* writing) { return !*writing; }, &writing_));
  return writable_;
}

absl::Status RawCall::Finish() {
  StartWritesDone();
  RemoveHold();
  const absl::MutexLock lock(&mu_);
  mu_.Await(absl::Condition(&done_));
  if (!message_status_.ok()) return message_status_;
  return FromGrpcStatus(status_);
}

void RawCall::OnReadDone(bool ok) {
  if (!ok) return;
  absl::Status status = on_message_(BytesOf(incoming_));
  if (!status.ok()) {
    context_->TryCancel();
    const absl::MutexLock lock(&mu_);
    message_status_.Update(status);
  }
  StartRead(&incoming_);
}

void RawCall::OnWriteDone(bool ok) {
  const absl::MutexLock lock(&mu_);
  writing_ = false;
  writable_ = ok;
}

void RawCall::OnDone(const grpc::Status& status) {
  const absl::MutexLock lock(&mu_);
  status_ = status;
  done_ = true;
}

}  // namespace mmud::client
