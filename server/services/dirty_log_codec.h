// Dirty pages as messages and back.

#ifndef SERVER_SERVICES_DIRTY_LOG_CODEC_H_
#define SERVER_SERVICES_DIRTY_LOG_CODEC_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "mmu_core/base/address.h"
#include "mmud/v1/dirty_log_service.pb.h"

namespace mmud {

// How an extent counts against the size of a message: its longest form.
inline constexpr size_t kExtentWireBytes = 24;

// Encodes the set bits of `words` (bit 0 is the page at `start`) as chunks of
// at most `max_bytes` of payload each; none if no bit is set. No chunk reaches
// beyond the `page_count` pages that `words` stand for. `encoding` is not
// UNSPECIFIED.
std::vector<v1::DirtyLogChunk> EncodeDirtyPages(
    mmu::Gpa start, absl::Span<const uint64_t> words, uint64_t page_count,
    v1::DirtyLogEncoding encoding, size_t max_bytes);

// The CRC-32C of a chunk's payload that follows payloads with `before`.
uint32_t PayloadCrc(const v1::DirtyLogChunk& chunk, uint32_t before);

// The pages of a ClearDirtyLogRequest as a mask of its range, bit 0 the page
// at start_gpa_bytes. `page_count` is that of the range. INVALID_BITMAP,
// INVALID_RANGE, UNALIGNED, LIMIT_EXCEEDED.
absl::StatusOr<std::vector<uint64_t>> DecodeClearPages(
    const v1::ClearDirtyLogRequest& request, uint64_t page_count);

}  // namespace mmud

#endif  // SERVER_SERVICES_DIRTY_LOG_CODEC_H_
