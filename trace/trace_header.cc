#include "trace/trace_header.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_format.h"
#include "trace/bytes.h"

namespace mmud::trace {
namespace {

constexpr uint32_t kHasFetches = 1;
constexpr uint32_t kCutAtLimit = 2;
constexpr size_t kChecksumBytes = 4;

absl::Status Truncated(size_t have, size_t want) {
  return absl::DataLossError(absl::StrFormat(
      "byte %d: the file ends inside its header of %d bytes: it was not "
      "copied completely",
      have, want));
}

}  // namespace

size_t HeaderBytes(const TraceInfo& info) {
  return kFixedHeaderBytes + info.command.size() + info.origin.size() +
         kChecksumBytes;
}

std::string EncodeHeader(const TraceInfo& info) {
  std::string out(kTraceMagic);
  AppendU32(out, kTraceVersion);
  AppendU32(out, static_cast<uint32_t>(HeaderBytes(info)));
  AppendU64(out, info.access_count);
  AppendU64(out, info.record_count);
  AppendU64(out, info.page_count);
  AppendU64(out, info.seen_record_count);
  AppendU64(out, info.load_count);
  AppendU64(out, info.store_count);
  AppendU64(out, info.fetch_count);
  AppendU32(out, info.filter_lines);
  AppendU32(out, (info.has_fetches ? kHasFetches : 0) |
                     (info.cut_at_limit ? kCutAtLimit : 0));
  AppendU32(out, static_cast<uint32_t>(info.command.size()));
  AppendU32(out, static_cast<uint32_t>(info.origin.size()));
  out += info.command;
  out += info.origin;
  AppendU32(out, Crc32(out));
  return out;
}

absl::StatusOr<size_t> HeaderBytesFrom(std::string_view start) {
  const size_t common = std::min(start.size(), kTraceMagic.size());
  if (start.empty() ||
      start.substr(0, common) != kTraceMagic.substr(0, common)) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "byte 0: not a trace file: must begin with \"%s\"; record one with "
        "'mmuctl trace record'",
        kTraceMagic));
  }
  if (start.size() < kFixedHeaderBytes) {
    return Truncated(start.size(), kFixedHeaderBytes);
  }
  if (const uint32_t version = ReadU32(start, 8); version != kTraceVersion) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "byte 8: version %d: must be %d; record the trace again", version,
        kTraceVersion));
  }
  const uint32_t command_bytes = ReadU32(start, 80);
  const uint32_t origin_bytes = ReadU32(start, 84);
  if (command_bytes > kMaxHeaderTextBytes ||
      origin_bytes > kMaxHeaderTextBytes) {
    return absl::DataLossError(absl::StrFormat(
        "byte 80: texts of %d and %d bytes: each must be at most %d; the "
        "header is damaged",
        command_bytes, origin_bytes, kMaxHeaderTextBytes));
  }
  const size_t total =
      kFixedHeaderBytes + command_bytes + origin_bytes + kChecksumBytes;
  if (const uint32_t stated = ReadU32(start, 12); stated != total) {
    return absl::DataLossError(absl::StrFormat(
        "byte 12: header length %d: must be %d by the lengths of its texts; "
        "the header is damaged",
        stated, total));
  }
  return total;
}

absl::StatusOr<TraceInfo> DecodeHeader(std::string_view bytes) {
  const absl::StatusOr<size_t> total = HeaderBytesFrom(bytes);
  if (!total.ok()) return total.status();
  if (bytes.size() < *total) return Truncated(bytes.size(), *total);
  const size_t checksum_at = *total - kChecksumBytes;
  const uint32_t stated = ReadU32(bytes, checksum_at);
  const uint32_t computed = Crc32(bytes.substr(0, checksum_at));
  if (stated != computed) {
    return absl::DataLossError(absl::StrFormat(
        "byte %d: header checksum %08x: must be %08x; the header is damaged",
        checksum_at, stated, computed));
  }
  const uint32_t flags = ReadU32(bytes, 76);
  const uint32_t command_bytes = ReadU32(bytes, 80);
  TraceInfo info;
  info.access_count = ReadU64(bytes, 16);
  info.record_count = ReadU64(bytes, 24);
  info.page_count = ReadU64(bytes, 32);
  info.seen_record_count = ReadU64(bytes, 40);
  info.load_count = ReadU64(bytes, 48);
  info.store_count = ReadU64(bytes, 56);
  info.fetch_count = ReadU64(bytes, 64);
  info.filter_lines = ReadU32(bytes, 72);
  info.has_fetches = (flags & kHasFetches) != 0;
  info.cut_at_limit = (flags & kCutAtLimit) != 0;
  info.command = bytes.substr(kFixedHeaderBytes, command_bytes);
  info.origin =
      bytes.substr(kFixedHeaderBytes + command_bytes, ReadU32(bytes, 84));
  return info;
}

}  // namespace mmud::trace
