#include "client/mmu_client/page_stream.h"

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "client/mmu_client/page_bitmap.h"
#include "mmud/v1/guest_memory_service.pb.h"
#include "wire/crc32c.h"

namespace mmud::client {
namespace {

GpaRange FromProto(const v1::Extent& extent) {
  return {extent.gpa_bytes(), extent.size_bytes()};
}

}  // namespace

absl::Status PageStream::OnMessage(const v1::ReadPagesResponse& message) {
  if (message.has_trailer()) return OnTrailer(message.trailer());
  if (message.has_chunk() && !done_) return OnChunk(message.chunk());
  return absl::DataLossError("the stream of pages has an unexpected message");
}

absl::Status PageStream::OnEnd() const {
  if (done_) return absl::OkStatus();
  return absl::DataLossError("the stream of pages ended before its trailer");
}

absl::Status PageStream::OnChunk(const v1::PageChunk& chunk) {
  if (const uint32_t crc = Crc32c(chunk.data()); crc != chunk.crc32c()) {
    return absl::DataLossError(absl::StrFormat(
        "checksum of pages is %08x instead of %08x", crc, chunk.crc32c()));
  }
  absl::string_view data = chunk.data();
  for (const v1::Extent& extent : chunk.data_extents()) {
    const GpaRange range = FromProto(extent);
    if (range.size_bytes > static_cast<int64_t>(data.size())) {
      return absl::DataLossError("a chunk has fewer bytes than it says");
    }
    if (absl::Status status = Take(range); !status.ok()) return status;
    if (absl::Status status = Hand(
            sink_->OnData(range.gpa_bytes, data.substr(0, range.size_bytes)));
        !status.ok()) {
      return status;
    }
    data.remove_prefix(range.size_bytes);
  }
  if (!data.empty()) {
    return absl::DataLossError("a chunk has more bytes than it says");
  }
  for (const v1::Extent& extent : chunk.zero_extents()) {
    const GpaRange range = FromProto(extent);
    if (absl::Status status = Take(range); !status.ok()) return status;
    if (absl::Status status = Hand(sink_->OnZeros(range)); !status.ok()) {
      return status;
    }
    totals_->zero_page_count += range.size_bytes / kPageBytes;
  }
  totals_->data_size_bytes += chunk.data().size();
  crc_ = ExtendCrc32c(crc_, chunk.data());
  ++chunk_count_;
  return absl::OkStatus();
}

absl::Status PageStream::OnTrailer(const v1::ReadPagesTrailer& trailer) {
  if (trailer.chunk_count() != chunk_count_ || trailer.crc32c() != crc_ ||
      trailer.page_count() != page_count_) {
    totals_differ_ = true;
    return absl::DataLossError(absl::StrFormat(
        "%d pages in %d chunks came, but the trailer says %d in %d",
        page_count_, chunk_count_, trailer.page_count(),
        trailer.chunk_count()));
  }
  if (!missing_->empty()) {
    return absl::DataLossError(
        "the stream of pages ended before all pages had come");
  }
  done_ = true;
  return absl::OkStatus();
}

absl::Status PageStream::Take(GpaRange range) {
  if (range.size_bytes % kPageBytes != 0 || !missing_->Remove(range)) {
    return absl::DataLossError(absl::StrFormat(
        "pages at gpa %#x came that were not asked for", range.gpa_bytes));
  }
  page_count_ += range.size_bytes / kPageBytes;
  totals_->page_count += range.size_bytes / kPageBytes;
  return absl::OkStatus();
}

absl::Status PageStream::Hand(absl::Status status) {
  sink_failed_ |= !status.ok();
  return status;
}

}  // namespace mmud::client
