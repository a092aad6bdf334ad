// Decides which accesses of a program are worth recording.

#ifndef TRACE_TRACE_FILTER_H_
#define TRACE_TRACE_FILTER_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "trace/trace_record.h"

namespace mmud::trace {

// A program touches the same few cache lines again and again; for page tables
// all but the first of those touches say nothing. The filter leaves out an
// access if its 64-byte line, with the same operation, is among the last
// `lines` that were kept. It never leaves out the first access to a line, so
// the pages touched, read and written stay the same; and a line in constant use
// comes again after at most `lines` others. Thread-compatible.
class TraceFilter {
 public:
  static constexpr uint32_t kMaxLines = 4096;

  // 0 lines: keeps everything. Values above kMaxLines act as kMaxLines.
  explicit TraceFilter(uint32_t lines);

  bool Keep(const TraceRecord& record);

  // Records asked about so far.
  uint64_t seen() const { return seen_; }

 private:
  std::vector<uint64_t> kept_;  // a ring of lines with their operations
  size_t next_ = 0;
  uint64_t seen_ = 0;
};

}  // namespace mmud::trace

#endif  // TRACE_TRACE_FILTER_H_
