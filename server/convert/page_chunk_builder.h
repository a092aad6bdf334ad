// Collects pages into PageChunk messages.

#ifndef SERVER_CONVERT_PAGE_CHUNK_BUILDER_H_
#define SERVER_CONVERT_PAGE_CHUNK_BUILDER_H_

#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "mmu_core/base/address.h"
#include "mmud/v1/guest_memory_service.pb.h"

namespace mmud {

// Pages of zeros are listed without their data. Thread-compatible.
class PageChunkBuilder {
 public:
  // `max_data_bytes` is a positive multiple of 4096.
  explicit PageChunkBuilder(size_t max_data_bytes)
      : max_data_bytes_(max_data_bytes) {}

  // REQUIRES: !full(); `page` has 4096 bytes.
  void Add(mmu::Gpa gpa, absl::Span<const std::byte> page);
  // Another page might not fit: call Take first.
  bool full() const;
  bool empty() const { return pages_ == 0; }
  // The chunk with its checksum; the builder is empty afterwards.
  v1::PageChunk Take();
  // Totals of all chunks that were taken.
  const v1::ReadPagesTrailer& totals() const { return totals_; }

 private:
  const size_t max_data_bytes_;
  v1::PageChunk chunk_;
  uint64_t pages_ = 0;       // in chunk_
  uint64_t zero_pages_ = 0;  // of these pages
  v1::ReadPagesTrailer totals_;
};

}  // namespace mmud

#endif  // SERVER_CONVERT_PAGE_CHUNK_BUILDER_H_
