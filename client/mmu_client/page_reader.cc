#include "client/mmu_client/page_reader.h"

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "client/mmu_client/page_bitmap.h"
#include "client/mmu_client/range_set.h"
#include "client/mmu_client/retry_policy.h"
#include "mmud/v1/guest_memory_service.pb.h"
#include "wire/crc32c.h"

namespace mmud::client {
namespace {

GpaRange FromProto(const v1::Extent& extent) {
  return {extent.gpa_bytes(), extent.size_bytes()};
}

// Verifies one stream of ReadPages and passes its pages on. Thread-compatible.
class PageStream {
 public:
  // Removes all pages that arrived from `missing`.
  PageStream(RangeSet* missing, PageSink* sink, ReadTotals* totals)
      : missing_(missing), sink_(sink), totals_(totals) {}

  absl::Status OnMessage(const v1::ReadPagesResponse& message) {
    if (message.has_trailer()) return OnTrailer(message.trailer());
    if (message.has_chunk() && !done_) return OnChunk(message.chunk());
    return absl::DataLossError("the stream of pages has an unexpected message");
  }

  absl::Status OnEnd() const {
    if (done_) return absl::OkStatus();
    return absl::DataLossError("the stream of pages ended before its trailer");
  }

  int64_t chunk_count() const { return chunk_count_; }
  // True if the trailer contradicts the received pages. Then none of them can
  // be relied on.
  bool totals_differ() const { return totals_differ_; }
  // True if the sink returned an error, so the stream is not broken.
  bool sink_failed() const { return sink_failed_; }

 private:
  absl::Status OnChunk(const v1::PageChunk& chunk) {
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

  absl::Status OnTrailer(const v1::ReadPagesTrailer& trailer) {
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

  absl::Status Take(GpaRange range) {
    if (range.size_bytes % kPageBytes != 0 || !missing_->Remove(range)) {
      return absl::DataLossError(absl::StrFormat(
          "pages at gpa %#x came that were not asked for", range.gpa_bytes));
    }
    page_count_ += range.size_bytes / kPageBytes;
    totals_->page_count += range.size_bytes / kPageBytes;
    return absl::OkStatus();
  }

  absl::Status Hand(absl::Status status) {
    sink_failed_ |= !status.ok();
    return status;
  }

  RangeSet* const missing_;
  PageSink* const sink_;
  ReadTotals* const totals_;
  int64_t page_count_ = 0;
  int64_t chunk_count_ = 0;
  uint32_t crc_ = 0;
  bool done_ = false;
  bool totals_differ_ = false;
  bool sink_failed_ = false;
};

}  // namespace

PageReader::PageReader(GuestMemoryClient* client, std::string vm,
                       PageReaderOptions options)
    : client_(client), vm_(std::move(vm)), options_(std::move(options)) {}

absl::StatusOr<ReadTotals> PageReader::Read(const std::vector<GpaRange>& ranges,
                                            PageSink* sink) {
  ReadTotals totals;
  const size_t step = std::max<int64_t>(options_.max_ranges_per_call, 1);
  for (size_t first = 0; first < ranges.size(); first += step) {
    const size_t last = std::min(first + step, ranges.size());
    if (absl::Status status = ReadSome(
            {ranges.begin() + first, ranges.begin() + last}, sink, &totals);
        !status.ok()) {
      return status;
    }
  }
  return totals;
}

absl::Status PageReader::ReadSome(const std::vector<GpaRange>& ranges,
                                  PageSink* sink, ReadTotals* totals) {
  Backoff backoff(options_.retry);
  RangeSet missing(ranges);
  while (!missing.empty()) {
    v1::ReadPagesRequest request;
    request.set_vm(vm_);
    request.set_max_message_bytes(options_.max_message_bytes);
    for (const GpaRange& range : missing.Ranges()) {
      v1::Extent* extent = request.add_extents();
      extent->set_gpa_bytes(range.gpa_bytes);
      extent->set_size_bytes(range.size_bytes);
    }
    PageStream stream(&missing, sink, totals);
    absl::Status status = client_->ReadPagesOnce(
        request, [&stream](const v1::ReadPagesResponse& message) {
          return stream.OnMessage(message);
        });
    if (status.ok()) status = stream.OnEnd();
    if (status.ok()) return status;
    if (stream.sink_failed() ||
        !(IsRetryable(status) || absl::IsDataLoss(status))) {
      return status;
    }
    if (stream.totals_differ()) {
      missing = RangeSet(ranges);
    } else if (stream.chunk_count() > 0) {
      backoff.Reset();
    }
    if (missing.empty()) break;  // only the trailer is missing
    if (!backoff.MayRetry()) return status;
    ++totals->resume_count;
    client_->Sleep(backoff.NextDelay(status));
  }
  return absl::OkStatus();
}

}  // namespace mmud::client
