// Parses the output of `valgrind --tool=lackey --trace-mem=yes`.
//
//   I  04001090,3      an instruction fetch: address in hex, size in decimal
//    L 1ffeffe7e8,8    a load
//    S 1ffeffe7e0,8    a store
//    M 04033e06,1      a modify
//
// Any other line (valgrind's own "==123==" lines, output of the program) is not
// an access. The parser counts these lines and keeps the last ones, since they
// say why valgrind could not run a program.

#ifndef TRACE_LACKEY_PARSER_H_
#define TRACE_LACKEY_PARSER_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>

#include "absl/functional/function_ref.h"
#include "trace/trace_record.h"

namespace mmud::trace {

// Returns the access that `line` describes, or nothing if it describes none.
// `line` has no line feed.
std::optional<TraceRecord> ParseLackeyLine(std::string_view line);

// Cuts a stream into lines and parses them. Thread-compatible.
class LackeyParser {
 public:
  enum class Continue { kYes, kNo };
  using Callback = absl::FunctionRef<Continue(const TraceRecord&)>;

  // Longer lines are not accesses; their rest is dropped.
  static constexpr size_t kMaxLineBytes = 4096;
  static constexpr size_t kMaxNotes = 8;

  // Parses the lines that `chunk` completes. Returns kNo at once if the
  // callback returns it; the rest of the chunk is then lost.
  Continue Feed(std::string_view chunk, Callback on_record);
  // Parses the text after the last line feed.
  void Finish(Callback on_record);

  uint64_t other_lines() const { return other_lines_; }
  // The last lines that were neither accesses nor empty, oldest first.
  const std::deque<std::string>& notes() const { return notes_; }

 private:
  Continue TakeLine(std::string_view line, Callback on_record);

  std::string partial_;  // the start of a line
  bool too_long_ = false;
  uint64_t other_lines_ = 0;
  std::deque<std::string> notes_;
};

}  // namespace mmud::trace

#endif  // TRACE_LACKEY_PARSER_H_
