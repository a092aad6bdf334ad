// One record of a trace: one access as reported by valgrind's lackey tool.

#ifndef TRACE_TRACE_RECORD_H_
#define TRACE_TRACE_RECORD_H_

#include <cstdint>

namespace mmud::trace {

// The values are the ones stored in files; see trace_block.h.
enum class TraceOp : uint8_t {
  kLoad = 0,
  kStore = 1,
  kModify = 2,  // a load and a store of the same bytes by one instruction
  kFetch = 3,   // the fetch of an instruction
};
inline constexpr int kTraceOps = 4;

// No access of a processor is larger: a trace with a larger one is damaged.
inline constexpr uint32_t kMaxAccessBytes = 4096;

// A value.
struct TraceRecord {
  TraceOp op = TraceOp::kLoad;
  uint64_t address = 0;     // of the traced program
  uint32_t size_bytes = 0;  // 1..kMaxAccessBytes

  friend bool operator==(const TraceRecord&, const TraceRecord&) = default;
};

// Number of accesses that a record stands for.
constexpr uint64_t AccessesOf(TraceOp op) {
  return op == TraceOp::kModify ? 2 : 1;
}

}  // namespace mmud::trace

#endif  // TRACE_TRACE_RECORD_H_
