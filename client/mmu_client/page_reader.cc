#include "client/mmu_client/page_reader.h"

#include <algorithm>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/mmu_client/page_bitmap.h"
#include "client/mmu_client/page_stream.h"
#include "client/mmu_client/range_set.h"
#include "client/mmu_client/retry_policy.h"
#include "mmud/v1/guest_memory_service.pb.h"

namespace mmud::client {

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
