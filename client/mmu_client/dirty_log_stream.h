// Checks one stream of GetDirtyLog message by message and collects its pages.

#ifndef CLIENT_MMU_CLIENT_DIRTY_LOG_STREAM_H_
#define CLIENT_MMU_CLIENT_DIRTY_LOG_STREAM_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "client/mmu_client/page_bitmap.h"
#include "mmud/v1/dirty_log_service.pb.h"

namespace mmud::client {

// Verifies order, checksums and totals. A stream that breaks one of them is
// DATA_LOSS: what came before is good, the rest must be asked for again.
// Thread-compatible.
class DirtyLogStream {
 public:
  // Adds the pages to `*pages`, which gets the range of the header if it is
  // empty as yet. `pages` outlives this object.
  explicit DirtyLogStream(std::optional<PageBitmap>* pages) : pages_(pages) {}

  absl::Status OnMessage(const v1::GetDirtyLogResponse& message);

  // To be called at the end. DATA_LOSS if the trailer did not come.
  absl::Status OnEnd() const;

  // Set once the header came.
  const std::optional<v1::DirtyLogHeader>& header() const { return header_; }
  // Set once a good trailer came.
  const std::optional<v1::DirtyLogTrailer>& trailer() const { return trailer_; }
  // Everything before this address has arrived; start of the header's coverage
  // while no chunk came. REQUIRES: header().
  int64_t next_gpa_bytes() const { return next_gpa_bytes_; }
  // Good chunks.
  int64_t chunk_count() const { return chunk_count_; }

 private:
  absl::Status OnHeader(const v1::DirtyLogHeader& header);
  absl::Status OnChunk(const v1::DirtyLogChunk& chunk);
  absl::Status OnTrailer(const v1::DirtyLogTrailer& trailer);

  std::optional<PageBitmap>* const pages_;
  std::optional<v1::DirtyLogHeader> header_;
  std::optional<v1::DirtyLogTrailer> trailer_;
  int64_t next_gpa_bytes_ = 0;
  int64_t chunk_count_ = 0;
  int64_t dirty_page_count_ = 0;
  uint32_t crc_ = 0;
};

// The bytes over which the checksum of a chunk goes.
std::string ChunkPayload(const v1::DirtyLogChunk& chunk);

}  // namespace mmud::client

#endif  // CLIENT_MMU_CLIENT_DIRTY_LOG_STREAM_H_
