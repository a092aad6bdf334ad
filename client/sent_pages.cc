#include "client/sent_pages.h"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "client/mmu_client/page_bitmap.h"

namespace mmud::client {

SentPages::SentPages(const std::vector<GpaRange>& memory) {
  for (const GpaRange& range : memory) different_.emplace_back(range);
}

void SentPages::Add(const std::vector<GpaRange>& ranges) {
  for (const GpaRange& range : ranges) {
    for (PageBitmap& part : different_) {
      const int64_t begin = std::max(range.gpa_bytes, part.range().gpa_bytes);
      const int64_t end = std::min(range.end_bytes(), part.range().end_bytes());
      if (begin >= end) continue;
      const GpaRange pages = {begin, end - begin};
      if (part.Add(pages).ok()) sent_count_ += pages.size_bytes / kPageBytes;
    }
  }
}

int64_t SentPages::resent_count() const {
  int64_t different = 0;
  for (const PageBitmap& part : different_) different += part.page_count();
  return sent_count_ - different;
}

}  // namespace mmud::client
