// The output of valgrind's lackey, from which traces are recorded.

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "tests/fuzz/target.h"
#include "trace/lackey_parser.h"
#include "trace/trace_record.h"

namespace mmud::fuzz {
namespace {

struct Parsed {
  std::vector<trace::TraceRecord> records;
  uint64_t other_lines = 0;
  std::vector<std::string> notes;
};

// Feeds the text in pieces of `step` bytes.
Parsed Parse(std::string_view text, size_t step) {
  Parsed parsed;
  const auto take = [&](const trace::TraceRecord& record) {
    parsed.records.push_back(record);
    return trace::LackeyParser::Continue::kYes;
  };
  trace::LackeyParser parser;
  for (size_t at = 0; at < text.size(); at += step) {
    parser.Feed(text.substr(at, step), take);
  }
  parser.Finish(take);
  parsed.other_lines = parser.other_lines();
  parsed.notes.assign(parser.notes().begin(), parser.notes().end());
  return parsed;
}

void Run(std::string_view input) {
  const Parsed whole = Parse(input, input.size() + 1);
  // It does not matter where a pipe cuts the text.
  for (const size_t step : {size_t{1}, size_t{7}}) {
    const Parsed pieces = Parse(input, step);
    FUZZ_CHECK(pieces.records.size() == whole.records.size(), step);
    for (size_t i = 0; i < whole.records.size(); ++i) {
      FUZZ_CHECK(
          pieces.records[i].op == whole.records[i].op &&
              pieces.records[i].address == whole.records[i].address &&
              pieces.records[i].size_bytes == whole.records[i].size_bytes,
          i);
    }
    FUZZ_CHECK(pieces.other_lines == whole.other_lines, step);
    FUZZ_CHECK(pieces.notes == whole.notes, step);
  }
  FUZZ_CHECK(whole.notes.size() <= trace::LackeyParser::kMaxNotes,
             whole.notes.size());
  for (const trace::TraceRecord& record : whole.records) {
    FUZZ_CHECK(
        record.size_bytes >= 1 && record.size_bytes <= trace::kMaxAccessBytes,
        record.size_bytes);
  }
}

std::vector<Seed> Seeds() {
  return {{"accesses",
           "I  04001090,3\n L 1ffeffe7e8,8\n S 1ffeffe7e0,8\n M 04033e06,1\n"},
          {"other_lines",
           "==7== Lackey, an example Valgrind tool\nhello\n\nI  0,1"},
          {"long_line", std::string(4100, 'x') + "\n S 10,4\n"}};
}

}  // namespace

Target ThisTarget() { return {.run = Run, .seeds = Seeds}; }

}  // namespace mmud::fuzz
