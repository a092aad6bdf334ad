// Encodes dirty pages as messages and decodes them.

#ifndef SERVER_CONVERT_DIRTY_LOG_CODEC_H_
#define SERVER_CONVERT_DIRTY_LOG_CODEC_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/optional.h"
#include "mmu_core/base/address.h"
#include "mmu_core/vm/core/vm_config.h"
#include "mmud/v1/dirty_log_service.pb.h"
#include "server/control/named_pages.h"

namespace mmud {

// The size of an extent in a message, in its longest form.
inline constexpr size_t kExtentWireBytes = 24;

// Encodes the set bits of `words` (bit 0 is the page at `start` of memslot
// `slot`) chunk by chunk, so that only one chunk exists at a time. Each chunk
// has at most `max_bytes`, at least 1024, of payload, and at least one set bit.
// Chunks begin and end on a multiple of 64 pages from `start`, or end with the
// `page_count` pages that `words` cover. `encoding` is not UNSPECIFIED.
// Thread-compatible.
class DirtyPageEncoder {
 public:
  DirtyPageEncoder(uint32_t slot, mmu::Gpa start, std::vector<uint64_t> words,
                   uint64_t page_count, v1::DirtyLogEncoding encoding,
                   size_t max_bytes);

  // The next chunk; nullopt after the last one.
  absl::optional<v1::DirtyLogChunk> Next();

 private:
  absl::optional<v1::DirtyLogChunk> NextExtents();
  absl::optional<v1::DirtyLogChunk> NextBitmap();

  const uint32_t slot_;
  const mmu::Gpa start_;
  const std::vector<uint64_t> words_;
  const uint64_t page_count_;
  const size_t max_bytes_;
  const bool as_extents_;
  size_t at_ = 0;  // first word that is not encoded yet
};

// Number of dirty pages in a chunk.
int64_t CountPages(const v1::DirtyLogChunk& chunk);

// The CRC-32C `before` of earlier payloads, extended by the chunk's payload.
uint32_t PayloadCrc(const v1::DirtyLogChunk& chunk, uint32_t before);

// The pages of `slot` that a request's field `pages` names; pages.slot is the
// id of `slot`. INVALID_BITMAP, INVALID_RANGE, INVALID_SIZE, GPA_OUT_OF_RANGE,
// UNALIGNED_CLEAR, UNALIGNED, LIMIT_EXCEEDED.
absl::StatusOr<NamedPages> DecodeSlotPages(const v1::SlotPages& pages,
                                           const mmu::MemslotConfig& slot);

// The pages of `chunk`, which the daemon sent, in the form of a request.
v1::SlotPages PagesOf(const v1::DirtyLogChunk& chunk);

}  // namespace mmud

#endif  // SERVER_CONVERT_DIRTY_LOG_CODEC_H_
