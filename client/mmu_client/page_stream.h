// One stream of ReadPages, message by message.

#ifndef CLIENT_MMU_CLIENT_PAGE_STREAM_H_
#define CLIENT_MMU_CLIENT_PAGE_STREAM_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "client/mmu_client/page_bitmap.h"
#include "client/mmu_client/range_set.h"
#include "mmud/v1/guest_memory_service.pb.h"

namespace mmud::client {

// Receives the pages that PageReader reads. Each requested page arrives at
// least once. After a broken stream a page may arrive again.
class PageSink {
 public:
  virtual ~PageSink() = default;
  // Whole pages with their bytes, already verified.
  virtual absl::Status OnData(int64_t gpa_bytes, absl::string_view data) = 0;
  // Whole pages that are all zeros.
  virtual absl::Status OnZeros(GpaRange range) = 0;
};

// Totals of a read. A value.
struct ReadTotals {
  int64_t page_count = 0;
  int64_t zero_page_count = 0;  // of these, pages of zeros
  int64_t data_size_bytes = 0;
  int64_t resume_count = 0;  // times that a broken stream was resumed
};

// Verifies one stream of ReadPages and passes its pages on. Reads nothing from
// the network itself. After an error the stream must not be continued.
// Thread-compatible.
class PageStream {
 public:
  // Removes all pages that arrived from `missing`. The arguments outlive this
  // object.
  PageStream(RangeSet* missing, PageSink* sink, ReadTotals* totals)
      : missing_(missing), sink_(sink), totals_(totals) {}

  // DATA_LOSS for a wrong checksum or total, for pages that are not missing,
  // and for messages in a wrong order; or the error of `sink`.
  absl::Status OnMessage(const v1::ReadPagesResponse& message);

  // To be called at the end. DATA_LOSS if the trailer did not come.
  absl::Status OnEnd() const;

  // Number of good chunks.
  int64_t chunk_count() const { return chunk_count_; }
  // True if the trailer contradicts the received pages. Then none of them can
  // be relied on.
  bool totals_differ() const { return totals_differ_; }
  // True if the sink returned an error, so the stream is not broken.
  bool sink_failed() const { return sink_failed_; }

 private:
  absl::Status OnChunk(const v1::PageChunk& chunk);
  absl::Status OnTrailer(const v1::ReadPagesTrailer& trailer);
  absl::Status Take(GpaRange range);
  absl::Status Hand(absl::Status status);

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

}  // namespace mmud::client

#endif  // CLIENT_MMU_CLIENT_PAGE_STREAM_H_
