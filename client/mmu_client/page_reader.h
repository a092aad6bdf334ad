// Copies guest memory through GuestMemoryService.ReadPages.

#ifndef CLIENT_MMU_CLIENT_PAGE_READER_H_
#define CLIENT_MMU_CLIENT_PAGE_READER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/mmu_client/guest_memory_client.h"
#include "client/mmu_client/page_bitmap.h"
#include "client/mmu_client/page_stream.h"
#include "client/mmu_client/retry_policy.h"

namespace mmud::client {

// A value.
struct PageReaderOptions {
  int64_t max_message_bytes = 0;  // 0: the daemon's default
  // Ranges in one request; at most 65536.
  int64_t max_ranges_per_call = 16384;
  // Maximum number of times in a row that a stream breaks without progress.
  RetryPolicy retry;
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
