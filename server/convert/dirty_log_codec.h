// Dirty pages as messages and back.

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

// How an extent counts against the size of a message: its longest form.
inline constexpr size_t kExtentWireBytes = 24;

// Encodes the set bits of `words` (bit 0 is the page at `start` of memslot
// `slot`) chunk by chunk, so that there is one at a time however many they
// come to. Chunks have at most `max_bytes`, at least 1024, of payload each, and
// a set bit. They begin and end on a multiple of 64 pages from `start`, or at
// the end of the `page_count` pages that `words` stand for. `encoding` is not
// UNSPECIFIED. Thread-compatible.
class DirtyPageEncoder {
 public:
  DirtyPageEncoder(uint32_t slot, mmu::Gpa start, std::vector<uint64_t> words,
                   uint64_t page_count, v1::DirtyLogEncoding encoding,
                   size_t max_bytes);

  // The next chunk, or nothing behind the last one.
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
  size_t at_ = 0;  // the first word that is not encoded
};

// The dirty pages that a chunk names.
int64_t CountPages(const v1::DirtyLogChunk& chunk);

// The CRC-32C of a chunk's payload that follows payloads with `before`.
uint32_t PayloadCrc(const v1::DirtyLogChunk& chunk, uint32_t before);

// The pages that the field `pages` of a request names, of `slot`, which is the
// memslot with the id pages.slot. INVALID_BITMAP, INVALID_RANGE, INVALID_SIZE,
// GPA_OUT_OF_RANGE, UNALIGNED_CLEAR, UNALIGNED, LIMIT_EXCEEDED.
absl::StatusOr<NamedPages> DecodeSlotPages(const v1::SlotPages& pages,
                                           const mmu::MemslotConfig& slot);

// As a request would name the pages of `chunk`, which the daemon sent.
v1::SlotPages PagesOf(const v1::DirtyLogChunk& chunk);

}  // namespace mmud

#endif  // SERVER_CONVERT_DIRTY_LOG_CODEC_H_
