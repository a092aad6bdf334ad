// The header of a trace file: the recorded command line, the counts and the
// filter.
//
// All numbers are little-endian.
//
//   offset  bytes  field
//   0       8      "MMUDTRC1"
//   8       4      version, 1
//   12      4      length of the header, the checksum included
//   16      8      accesses (a modify counts as two)
//   24      8      records
//   32      8      distinct 4 KiB pages of the program
//   40      8      records seen before any were left out
//   48      8      loads
//   56      8      stores
//   64      8      instruction fetches
//   72      4      window of the filter in 64-byte lines; 0 = keeps all
//   76      4      flags: 1 = fetches recorded, 2 = cut at a limit
//   80      4      c, length of the command line
//   84      4      o, length of the origin
//   88      c      command line, in UTF-8 or the encoding that the shell used
//   88+c    o      origin: free text, where the trace comes from
//   88+c+o  4      CRC-32 (zlib's) of everything before
//
// Blocks follow until the end of the file: see trace_block.h.

#ifndef TRACE_TRACE_HEADER_H_
#define TRACE_TRACE_HEADER_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace mmud::trace {

inline constexpr std::string_view kTraceMagic = "MMUDTRC1";
inline constexpr uint32_t kTraceVersion = 1;
inline constexpr size_t kFixedHeaderBytes = 88;
inline constexpr size_t kMaxHeaderTextBytes = 16 * 1024;

// A value.
struct TraceInfo {
  std::string command;  // at most kMaxHeaderTextBytes
  std::string origin;   // at most kMaxHeaderTextBytes
  uint64_t access_count = 0;
  uint64_t record_count = 0;
  uint64_t page_count = 0;
  uint64_t seen_record_count = 0;
  uint64_t load_count = 0;
  uint64_t store_count = 0;
  uint64_t fetch_count = 0;
  uint32_t filter_lines = 0;
  bool has_fetches = false;
  bool cut_at_limit = false;

  friend bool operator==(const TraceInfo&, const TraceInfo&) = default;
};

// REQUIRES: both texts are at most kMaxHeaderTextBytes.
std::string EncodeHeader(const TraceInfo& info);
size_t HeaderBytes(const TraceInfo& info);

// Returns the length of the header. `start` is its first kFixedHeaderBytes, or
// fewer if the file is shorter. INVALID_ARGUMENT if this is not a trace file or
// has another version, DATA_LOSS if it is damaged. Errors name the offset of
// the wrong byte.
absl::StatusOr<size_t> HeaderBytesFrom(std::string_view start);

// `bytes` has the length that HeaderBytesFrom returned, or is shorter if the
// file is.
absl::StatusOr<TraceInfo> DecodeHeader(std::string_view bytes);

}  // namespace mmud::trace

#endif  // TRACE_TRACE_HEADER_H_
