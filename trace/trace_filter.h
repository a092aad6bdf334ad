// Decides which accesses of a program are worth recording.

#ifndef TRACE_TRACE_FILTER_H_
#define TRACE_TRACE_FILTER_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "trace/trace_record.h"

namespace mmud::trace {

// A program accesses the same few cache lines again and again. For page tables
// only the first of these accesses matters. The filter drops an access if its
// 64-byte line, with the same operation, is among the last `lines` lines that
// were kept. It never drops the first access to a line, so the sets of
// accessed, read and written pages stay the same. A line in constant use is
// kept again after at most `lines` other lines. Thread-compatible.
class TraceFilter {
 public:
  static constexpr uint32_t kMaxLines = 4096;

  // 0 lines: keeps everything. Values above kMaxLines act as kMaxLines.
  explicit TraceFilter(uint32_t lines);

  bool Keep(const TraceRecord& record);

  // Number of records passed to the filter so far.
  uint64_t seen() const { return seen_; }

 private:
  std::vector<uint64_t> kept_;  // a ring of lines with their operations
  size_t next_ = 0;
  uint64_t seen_ = 0;
};

}  // namespace mmud::trace

#endif  // TRACE_TRACE_FILTER_H_
