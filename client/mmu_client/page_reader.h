// Copies guest memory through GuestMemoryService.ReadPages.

#ifndef CLIENT_MMU_CLIENT_PAGE_READER_H_
#define CLIENT_MMU_CLIENT_PAGE_READER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "client/mmu_client/guest_memory_client.h"
#include "client/mmu_client/page_bitmap.h"
#include "client/mmu_client/retry_policy.h"

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

// A value.
struct PageReaderOptions {
  int64_t max_message_bytes = 0;  // 0: the daemon's default
  // Ranges in one request; at most 65536.
  int64_t max_ranges_per_call = 16384;
  // Maximum number of times in a row that a stream breaks without progress.
  RetryPolicy retry;
};

// Totals of a read. A value.
struct ReadTotals {
  int64_t page_count = 0;
  int64_t zero_page_count = 0;  // of these, pages of zeros
  int64_t data_size_bytes = 0;
  int64_t resume_count = 0;  // times that a broken stream was resumed
};

// Thread-compatible.
class PageReader {
 public:
  // `client` outlives this object.
  PageReader(GuestMemoryClient* client, std::string vm,
             PageReaderOptions options);

  // Reads `ranges`, ascending and not overlapping, into `sink`. Verifies every
  // checksum, and that exactly the requested pages came. Missing pages are
  // requested again; DATA_LOSS if that fails again and again. Errors of `sink`
  // end the read and are returned.
  absl::StatusOr<ReadTotals> Read(const std::vector<GpaRange>& ranges,
                                  PageSink* sink);

 private:
  absl::Status ReadSome(const std::vector<GpaRange>& ranges, PageSink* sink,
                        ReadTotals* totals);

  GuestMemoryClient* const client_;
  const std::string vm_;
  const PageReaderOptions options_;
};

}  // namespace mmud::client

#endif  // CLIENT_MMU_CLIENT_PAGE_READER_H_
