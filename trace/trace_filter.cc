#include "trace/trace_filter.h"

#include <algorithm>
#include <cstdint>

namespace mmud::trace {
namespace {

constexpr uint64_t kLineBytes = 64;
constexpr uint64_t kLineMask = ~(kLineBytes - 1);
// Bit 2 marks an entry in use, so that no entry equals an empty one.
constexpr uint64_t kInUse = 4;

}  // namespace

TraceFilter::TraceFilter(uint32_t lines)
    : kept_(std::min(lines, kMaxLines), 0) {}

bool TraceFilter::Keep(const TraceRecord& record) {
  ++seen_;
  if (kept_.empty()) return true;
  const uint64_t mark = kInUse | static_cast<uint64_t>(record.op);
  const uint64_t end = (record.address + record.size_bytes - 1) & kLineMask;
  bool keep = false;
  // No `<`: if the access wraps around, `end` is below the start.
  for (uint64_t line = record.address & kLineMask;; line += kLineBytes) {
    const uint64_t entry = line | mark;
    if (std::find(kept_.begin(), kept_.end(), entry) == kept_.end()) {
      keep = true;
      kept_[next_] = entry;
      next_ = (next_ + 1) % kept_.size();
    }
    if (line == end) return keep;
  }
}

}  // namespace mmud::trace
