#include "client/mmu_client/harvest_stream.h"

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_format.h"
#include "client/mmu_client/dirty_log_stream.h"
#include "mmud/v1/dirty_log_service.pb.h"
#include "wire/crc32c.h"

namespace mmud::client {
namespace {

absl::Status Unexpected() {
  return absl::DataLossError(
      "the stream of the harvest has an unexpected message");
}

}  // namespace

HarvestStream::HarvestStream(std::unique_ptr<Pipe> pipe)
    : pipe_(std::move(pipe)) {}

HarvestStream::~HarvestStream() {
  if (ended_.ok()) Close().IgnoreError();
}

absl::Status HarvestStream::End(const absl::Status& status) {
  const absl::Status end = pipe_->Finish();
  ended_ = end.ok() ? status : end;
  return ended_;
}

absl::Status HarvestStream::Send(const v1::HarvestDirtyLogRequest& message) {
  if (!ended_.ok()) return ended_;
  if (pipe_->Write(message)) return absl::OkStatus();
  return End(absl::DataLossError("the harvest ended too early"));
}

absl::Status HarvestStream::Receive(v1::HarvestDirtyLogResponse* message) {
  if (pipe_->Read(message)) return absl::OkStatus();
  return End(absl::DataLossError("the harvest ended too early"));
}

absl::Status HarvestStream::Open(const v1::HarvestOpen& open) {
  v1::HarvestDirtyLogRequest request;
  *request.mutable_open() = open;
  v1::HarvestDirtyLogResponse response;
  absl::Status status = Send(request);
  if (status.ok()) status = Receive(&response);
  if (!status.ok()) return status;
  if (!response.has_opened()) return End(Unexpected());
  log_ = response.opened();
  return absl::OkStatus();
}

absl::Status HarvestStream::OnChunk(const v1::HarvestChunk& chunk) {
  const std::string payload = ChunkPayload(chunk.pages());
  if (const uint32_t crc = Crc32c(payload); crc != chunk.pages().crc32c()) {
    return absl::DataLossError(absl::StrFormat(
        "checksum of chunk %d of the harvest is %08x instead of %08x",
        chunk.number(), crc, chunk.pages().crc32c()));
  }
  crc_ = ExtendCrc32c(crc_, payload);
  ++chunk_count_;
  chunks_[chunk.number()] = chunk.pages();
  v1::HarvestDirtyLogRequest clear;
  clear.mutable_clear()->set_number(chunk.number());
  return Send(clear);
}

absl::StatusOr<v1::SealDirtyLogResponse> HarvestStream::Run(
    int64_t acknowledged_epoch,
    absl::FunctionRef<absl::Status(const v1::DirtyLogChunk&)> on_cleared) {
  v1::HarvestDirtyLogRequest seal;
  seal.mutable_seal()->set_acknowledged_epoch(acknowledged_epoch);
  v1::HarvestDirtyLogResponse response;
  absl::Status status = Send(seal);
  if (status.ok()) status = Receive(&response);
  if (!status.ok()) return status;
  if (!response.has_sealed()) return End(Unexpected());
  v1::SealDirtyLogResponse sealed = response.sealed();
  chunk_count_ = 0;
  crc_ = 0;
  bool has_trailer = false;
  while (!has_trailer || !chunks_.empty()) {
    if (status = Receive(&response); !status.ok()) return status;
    if (response.has_chunk() && !has_trailer) {
      status = OnChunk(response.chunk());
    } else if (response.has_cleared() &&
               chunks_.count(response.cleared().number()) > 0) {
      const auto chunk = chunks_.extract(response.cleared().number());
      status = on_cleared(chunk.mapped());
    } else if (response.has_trailer() && !has_trailer) {
      has_trailer = true;
      if (response.trailer().chunk_count() != chunk_count_ ||
          response.trailer().crc32c() != crc_) {
        status = absl::DataLossError(absl::StrFormat(
            "the harvest has %d chunks, checksum %08x, but its trailer says "
            "%d, %08x",
            chunk_count_, crc_, response.trailer().chunk_count(),
            response.trailer().crc32c()));
      }
    } else {
      status = Unexpected();
    }
    if (!status.ok()) return ended_.ok() ? End(status) : ended_;
  }
  return sealed;
}

absl::StatusOr<v1::AcknowledgePagesResponse> HarvestStream::Acknowledge(
    int64_t epoch) {
  v1::HarvestDirtyLogRequest request;
  request.mutable_acknowledge()->set_epoch(epoch);
  v1::HarvestDirtyLogResponse response;
  absl::Status status = Send(request);
  if (status.ok()) status = Receive(&response);
  if (!status.ok()) return status;
  if (!response.has_acknowledged()) return End(Unexpected());
  return response.acknowledged();
}

absl::Status HarvestStream::Close() {
  if (!ended_.ok()) return ended_;
  const absl::Status end = pipe_->Finish();
  ended_ =
      end.ok() ? absl::FailedPreconditionError("the harvest was closed") : end;
  return end;
}

}  // namespace mmud::client
