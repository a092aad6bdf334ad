// Counts the pages that a migration sends, and those that it sends again.

#ifndef CLIENT_SENT_PAGES_H_
#define CLIENT_SENT_PAGES_H_

#include <cstdint>
#include <vector>

#include "client/mmu_client/page_bitmap.h"

namespace mmud::client {

// Thread-compatible.
class SentPages {
 public:
  // Pages of `memory` can be sent.
  explicit SentPages(const std::vector<GpaRange>& memory);

  // Pages were sent. Those outside of the memory are ignored.
  void Add(const std::vector<GpaRange>& ranges);

  // Pages sent; a page that was sent n times counts n times.
  int64_t sent_count() const { return sent_count_; }
  // Sent pages less the different pages among them: a page that was sent n
  // times counts n - 1 times.
  int64_t resent_count() const;

 private:
  std::vector<PageBitmap> different_;  // by part of the memory
  int64_t sent_count_ = 0;
};

}  // namespace mmud::client

#endif  // CLIENT_SENT_PAGES_H_
