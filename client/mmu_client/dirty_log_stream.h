// Checks one stream of ReadDirtyPages message by message and collects its
// pages.

#ifndef CLIENT_MMU_CLIENT_DIRTY_LOG_STREAM_H_
#define CLIENT_MMU_CLIENT_DIRTY_LOG_STREAM_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "client/mmu_client/page_bitmap.h"
#include "mmud/v1/dirty_log_service.pb.h"

namespace mmud::client {

// Dirty pages by the id of their memslot.
using SlotBitmaps = std::map<int32_t, PageBitmap>;

// Verifies order, checksums and totals. DATA_LOSS if one of them is wrong:
// earlier chunks are good, and the rest must be requested again.
// Thread-compatible.
class DirtyLogStream {
 public:
  // Adds the pages to `*pages`. A slot without an entry gets one with the range
  // in the header. `pages` must outlive this object.
  explicit DirtyLogStream(SlotBitmaps* pages) : pages_(pages) {}

  absl::Status OnMessage(const v1::ReadDirtyPagesResponse& message);

  // To be called at the end. DATA_LOSS if the trailer did not come.
  absl::Status OnEnd() const;

  // Set once the header came.
  const std::optional<v1::DirtyLogHeader>& header() const { return header_; }
  // Set once a good trailer came.
  const std::optional<v1::DirtyLogTrailer>& trailer() const { return trailer_; }
  // Position of the stream: earlier slots, and the part of its slot before it,
  // have arrived. Unset before the header, and if the stream covers no slot.
  const std::optional<v1::DirtyLogPosition>& next() const { return next_; }
  // Number of good chunks.
  int64_t chunk_count() const { return chunk_count_; }

 private:
  absl::Status OnHeader(const v1::DirtyLogHeader& header);
  absl::Status OnChunk(const v1::DirtyLogChunk& chunk);
  absl::Status OnTrailer(const v1::DirtyLogTrailer& trailer);
  void StartAt(const v1::SlotCoverage& coverage);

  SlotBitmaps* const pages_;
  std::optional<v1::DirtyLogHeader> header_;
  std::optional<v1::DirtyLogTrailer> trailer_;
  std::optional<v1::DirtyLogPosition> next_;
  int64_t chunk_count_ = 0;
  int64_t dirty_page_count_ = 0;
  uint32_t crc_ = 0;
};

// The bytes that a chunk's checksum covers.
std::string ChunkPayload(const v1::DirtyLogChunk& chunk);

}  // namespace mmud::client

#endif  // CLIENT_MMU_CLIENT_DIRTY_LOG_STREAM_H_
