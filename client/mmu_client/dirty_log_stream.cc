#include "client/mmu_client/dirty_log_stream.h"

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"
#include "client/mmu_client/page_bitmap.h"
#include "mmu_core/base/bits.h"
#include "mmud/v1/dirty_log_service.pb.h"
#include "wire/crc32c.h"

namespace mmud::client {
namespace {

void AppendLittleEndian(int64_t value, std::string* out) {
  for (int byte = 0; byte < 8; ++byte) {
    out->push_back(
        static_cast<char>(static_cast<uint64_t>(value) >> (8 * byte)));
  }
}

}  // namespace

std::string ChunkPayload(const v1::DirtyLogChunk& chunk) {
  if (chunk.has_bitmap()) return chunk.bitmap();
  std::string payload;
  for (const v1::Extent& extent : chunk.extents().extents()) {
    AppendLittleEndian(extent.gpa_bytes(), &payload);
    AppendLittleEndian(extent.size_bytes(), &payload);
  }
  return payload;
}

absl::Status DirtyLogStream::OnMessage(
    const v1::ReadDirtyPagesResponse& message) {
  if (trailer_) {
    return absl::DataLossError("a message follows the trailer");
  }
  switch (message.part_case()) {
    case v1::ReadDirtyPagesResponse::kHeader:
      return OnHeader(message.header());
    case v1::ReadDirtyPagesResponse::kChunk:
      return OnChunk(message.chunk());
    case v1::ReadDirtyPagesResponse::kTrailer:
      return OnTrailer(message.trailer());
    case v1::ReadDirtyPagesResponse::PART_NOT_SET:
      break;
  }
  return absl::DataLossError("a message of the dirty log is empty");
}

void DirtyLogStream::StartAt(const v1::SlotCoverage& coverage) {
  next_.emplace();
  next_->set_slot(coverage.slot());
  next_->set_gpa_bytes(coverage.gpa_bytes());
}

absl::Status DirtyLogStream::OnHeader(const v1::DirtyLogHeader& header) {
  if (header_) return absl::DataLossError("the dirty log has two headers");
  int64_t last_slot = -1;
  for (const v1::SlotCoverage& part : header.coverage()) {
    if (part.slot() <= last_slot) {
      return absl::DataLossError(absl::StrFormat(
          "the dirty log names slot %d after slot %d", part.slot(), last_slot));
    }
    last_slot = part.slot();
    const GpaRange range = {part.gpa_bytes(), part.size_bytes()};
    if (PageBitmap(range).range() != range) {
      return absl::DataLossError(absl::StrFormat(
          "the dirty log covers an impossible range of slot %d", part.slot()));
    }
  }
  for (const v1::SlotCoverage& part : header.coverage()) {
    pages_->try_emplace(part.slot(),
                        GpaRange{part.gpa_bytes(), part.size_bytes()});
  }
  header_ = header;
  if (header.coverage_size() > 0) StartAt(header.coverage(0));
  return absl::OkStatus();
}

absl::Status DirtyLogStream::OnChunk(const v1::DirtyLogChunk& chunk) {
  if (!header_) return absl::DataLossError("the dirty log has no header");
  const std::string payload = ChunkPayload(chunk);
  if (const uint32_t crc = Crc32c(payload); crc != chunk.crc32c()) {
    return absl::DataLossError(absl::StrFormat(
        "checksum of the dirty log of slot %d at gpa %#x is %08x instead of "
        "%08x",
        chunk.slot(), chunk.gpa_bytes(), crc, chunk.crc32c()));
  }
  const auto pages = pages_->find(chunk.slot());
  if (!next_ || pages == pages_->end()) {
    return absl::DataLossError(absl::StrFormat(
        "the dirty log has a chunk of slot %d, which it does not cover",
        chunk.slot()));
  }
  if (chunk.slot() < next_->slot() ||
      (chunk.slot() == next_->slot() &&
       chunk.gpa_bytes() < next_->gpa_bytes())) {
    return absl::DataLossError(
        absl::StrFormat("the dirty log goes back to gpa %#x of slot %d",
                        chunk.gpa_bytes(), chunk.slot()));
  }
  const GpaRange part = {chunk.gpa_bytes(), chunk.size_bytes()};
  if (absl::Status status = pages->second.CheckPart(part); !status.ok()) {
    return absl::DataLossError(status.message());
  }
  int64_t count = 0;
  if (chunk.has_bitmap()) {
    if (absl::Status status = pages->second.AddBitmap(part, chunk.bitmap());
        !status.ok()) {
      return absl::DataLossError(status.message());
    }
    count = static_cast<int64_t>(mmu::CountBits(chunk.bitmap()));
  } else {
    int64_t end = part.gpa_bytes;
    for (const v1::Extent& extent : chunk.extents().extents()) {
      const GpaRange range = {extent.gpa_bytes(), extent.size_bytes()};
      if (range.gpa_bytes < end || range.size_bytes < 0 ||
          range.size_bytes > part.end_bytes() - range.gpa_bytes) {
        return absl::DataLossError(absl::StrFormat(
            "extent at gpa %#x lies outside its chunk", range.gpa_bytes));
      }
      if (absl::Status status = pages->second.Add(range); !status.ok()) {
        return absl::DataLossError(status.message());
      }
      end = range.end_bytes();
      count += range.size_bytes / kPageBytes;
    }
  }
  crc_ = ExtendCrc32c(crc_, payload);
  dirty_page_count_ += count;
  ++chunk_count_;
  next_->set_slot(chunk.slot());
  next_->set_gpa_bytes(part.end_bytes());
  return absl::OkStatus();
}

absl::Status DirtyLogStream::OnTrailer(const v1::DirtyLogTrailer& trailer) {
  if (!header_) return absl::DataLossError("the dirty log has no header");
  if (trailer.chunk_count() != chunk_count_ ||
      trailer.dirty_page_count() != dirty_page_count_ ||
      trailer.crc32c() != crc_) {
    // Some chunk is missing, so nothing of this stream counts as arrived.
    if (next_) StartAt(header_->coverage(0));
    return absl::DataLossError(absl::StrFormat(
        "the dirty log has %d chunks with %d pages, checksum %08x, but its "
        "trailer says %d, %d, %08x",
        chunk_count_, dirty_page_count_, crc_, trailer.chunk_count(),
        trailer.dirty_page_count(), trailer.crc32c()));
  }
  trailer_ = trailer;
  return absl::OkStatus();
}

absl::Status DirtyLogStream::OnEnd() const {
  if (trailer_) return absl::OkStatus();
  return absl::DataLossError("the dirty log ended before its trailer");
}

}  // namespace mmud::client
