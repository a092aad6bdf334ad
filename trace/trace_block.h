// Blocks of a trace file: some records, delta-coded and compressed.
//
// All numbers are little-endian. A block in the file:
//
//   offset  bytes  field
//   0       4      index of the block, from 0
//   4       4      n, records in it: 1..kMaxRawBytes
//   8       4      length uncompressed, at most kMaxRawBytes
//   12      4      z, length compressed, at most kMaxCompressedBytes
//   16      4      CRC-32 of the 16 bytes before and the z bytes behind
//   20      z      one zstd frame
//
// Uncompressed, a block is n tags of one byte and then the varints of all
// records. Tag: bits 0-1 the TraceOp, bits 2-4 the size class (0..6 means 2^c
// bytes, 7 means a varint follows the address), bits 5-7 zero. The address is
// the zigzag-coded distance to the previous address of the same TraceOp in
// this block, the first one to 0; so every block can be decoded alone.

#ifndef TRACE_TRACE_BLOCK_H_
#define TRACE_TRACE_BLOCK_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "trace/trace_record.h"

namespace mmud::trace {

inline constexpr size_t kBlockHeaderBytes = 20;
inline constexpr size_t kMaxRawBytes = 1 << 20;
// Upper bound of the size of kMaxRawBytes after compression by zstd.
inline constexpr size_t kMaxCompressedBytes = kMaxRawBytes + (1 << 14);

// Collects records and turns them into blocks. Thread-compatible.
class TraceBlockEncoder {
 public:
  // REQUIRES: !full(), 1 <= record.size_bytes <= kMaxAccessBytes.
  void Add(const TraceRecord& record);

  bool empty() const { return tags_.empty(); }
  // True if the next record might not fit: take the block first.
  bool full() const;

  // Returns the block with its header. Afterwards the encoder is empty, and the
  // next block has the next index. REQUIRES: !empty().
  std::string Take();

 private:
  std::string tags_;
  std::string varints_;
  std::array<uint64_t, kTraceOps> last_address_ = {};
  uint32_t index_ = 0;
};

// The fields of a block's header.
struct TraceBlockHeader {
  uint32_t index = 0;
  uint32_t records = 0;
  uint32_t raw_bytes = 0;
  uint32_t compressed_bytes = 0;
  uint32_t checksum = 0;

  // DATA_LOSS if a length is impossible or the index is not `expected_index`.
  // REQUIRES: bytes.size() == kBlockHeaderBytes.
  static absl::StatusOr<TraceBlockHeader> Decode(std::string_view bytes,
                                                 uint32_t expected_index);
};

// Decodes one block after the other. Thread-compatible.
class TraceBlockDecoder {
 public:
  TraceBlockDecoder();
  ~TraceBlockDecoder();
  TraceBlockDecoder(const TraceBlockDecoder&) = delete;
  TraceBlockDecoder& operator=(const TraceBlockDecoder&) = delete;

  // Checks and decompresses a block. DATA_LOSS if the block is damaged; the
  // decoder is then done(). `header` was decoded from `header_bytes`.
  absl::Status Start(const TraceBlockHeader& header,
                     std::string_view header_bytes,
                     std::string_view compressed);

  bool done() const { return tags_.empty(); }

  // The next record. DATA_LOSS if the contents break the rules above.
  // REQUIRES: !done().
  absl::Status Next(TraceRecord* record);

  // Drops the remaining records.
  void Clear();

 private:
  void* const context_;  // ZSTD_DCtx
  std::string raw_;
  std::string_view tags_;     // part of raw_ not yet decoded
  std::string_view varints_;  // likewise
  std::array<uint64_t, kTraceOps> last_address_ = {};
};

}  // namespace mmud::trace

#endif  // TRACE_TRACE_BLOCK_H_
