// A queue of pages that were read from the guest and are not yet at the
// destination.

#ifndef CLIENT_PAGE_QUEUE_H_
#define CLIENT_PAGE_QUEUE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "client/mmu_client/page_bitmap.h"
#include "client/mmu_client/page_reader.h"

namespace mmud::client {

// Pages are at the destination only after Flush, or a full queue, has written
// them. The others are lost if this process dies, so they must not be
// acknowledged. Thread-compatible.
class PageQueue final : public PageSink {
 public:
  // Holds up to `max_bytes` of contents. `destination` outlives this object.
  PageQueue(PageSink* destination, int64_t max_bytes)
      : destination_(destination), max_bytes_(max_bytes) {}

  absl::Status OnData(int64_t gpa_bytes, absl::string_view data) override;
  absl::Status OnZeros(GpaRange range) override;

  // Writes all pages to the destination, in the order of their arrival. After
  // an error of the destination the remaining pages stay in the queue.
  absl::Status Flush();

 private:
  struct Pages {
    GpaRange range;
    std::string data;  // empty: zeros
  };

  PageSink* const destination_;
  const int64_t max_bytes_;
  std::vector<Pages> pages_;
  int64_t data_bytes_ = 0;  // size of the data in pages_
};

}  // namespace mmud::client

#endif  // CLIENT_PAGE_QUEUE_H_
