#include "trace/lackey_parser.h"

#include <charconv>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

namespace mmud::trace {
namespace {

constexpr size_t kPrefixBytes = 3;
constexpr size_t kMaxHexDigits = 16;

std::optional<TraceOp> OpOf(std::string_view prefix) {
  if (prefix == "I  ") return TraceOp::kFetch;
  if (prefix == " L ") return TraceOp::kLoad;
  if (prefix == " S ") return TraceOp::kStore;
  if (prefix == " M ") return TraceOp::kModify;
  return std::nullopt;
}

// Returns true if all of `text` is a number in base `base`.
template <typename Number>
bool ParseAll(std::string_view text, int base, Number& number) {
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number, base);
  return error == std::errc() && stop == end;
}

}  // namespace

std::optional<TraceRecord> ParseLackeyLine(std::string_view line) {
  if (line.size() < kPrefixBytes) return std::nullopt;
  const std::optional<TraceOp> op = OpOf(line.substr(0, kPrefixBytes));
  if (!op.has_value()) return std::nullopt;
  line.remove_prefix(kPrefixBytes);
  const size_t comma = line.find(',');
  if (comma == std::string_view::npos || comma > kMaxHexDigits) {
    return std::nullopt;
  }
  TraceRecord record;
  record.op = *op;
  if (!ParseAll(line.substr(0, comma), 16, record.address) ||
      !ParseAll(line.substr(comma + 1), 10, record.size_bytes) ||
      record.size_bytes == 0 || record.size_bytes > kMaxAccessBytes) {
    return std::nullopt;
  }
  return record;
}

LackeyParser::Continue LackeyParser::Feed(std::string_view chunk,
                                          Callback on_record) {
  while (!chunk.empty()) {
    const size_t line_feed = chunk.find('\n');
    const std::string_view piece = chunk.substr(0, line_feed);
    if (partial_.empty() && !too_long_ && piece.size() <= kMaxLineBytes &&
        line_feed != std::string_view::npos) {
      if (TakeLine(piece, on_record) == Continue::kNo) return Continue::kNo;
    } else {
      too_long_ |= partial_.size() + piece.size() > kMaxLineBytes;
      if (!too_long_) partial_ += piece;
      if (line_feed != std::string_view::npos) {
        const std::string line = std::move(partial_);
        partial_.clear();
        if (too_long_) {
          too_long_ = false;
          ++other_lines_;
        } else if (TakeLine(line, on_record) == Continue::kNo) {
          return Continue::kNo;
        }
      }
    }
    if (line_feed == std::string_view::npos) break;
    chunk.remove_prefix(line_feed + 1);
  }
  return Continue::kYes;
}

void LackeyParser::Finish(Callback on_record) {
  if (too_long_) {
    ++other_lines_;
  } else if (!partial_.empty()) {
    TakeLine(partial_, on_record);
  }
  partial_.clear();
  too_long_ = false;
}

LackeyParser::Continue LackeyParser::TakeLine(std::string_view line,
                                              Callback on_record) {
  if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
  if (const std::optional<TraceRecord> record = ParseLackeyLine(line)) {
    return on_record(*record);
  }
  ++other_lines_;
  if (!line.empty()) {
    if (notes_.size() == kMaxNotes) notes_.pop_front();
    notes_.emplace_back(line);
  }
  return Continue::kYes;
}

}  // namespace mmud::trace
