// The records of a block: an input is what a block contains before compression,
// behind the number of its records in two bytes, little-endian.

#include <zstd.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tests/fuzz/target.h"
#include "trace/bytes.h"
#include "trace/trace_block.h"
#include "trace/trace_record.h"

namespace mmud::fuzz {
namespace {

struct Block {
  std::string header;
  std::string contents;
};

// A block with right lengths and checksums, whatever it contains.
Block MakeBlock(uint32_t records, std::string_view raw) {
  Block block;
  block.contents.resize(ZSTD_compressBound(raw.size()));
  const size_t length = ZSTD_compress(
      block.contents.data(), block.contents.size(), raw.data(), raw.size(), 1);
  FUZZ_CHECK(ZSTD_isError(length) == 0, "compress");
  block.contents.resize(length);
  trace::AppendU32(block.header, 0);
  trace::AppendU32(block.header, records);
  trace::AppendU32(block.header, static_cast<uint32_t>(raw.size()));
  trace::AppendU32(block.header, static_cast<uint32_t>(length));
  trace::AppendU32(block.header,
                   trace::Crc32(block.contents, trace::Crc32(block.header)));
  return block;
}

void CheckRefusal(const absl::Status& status) {
  FUZZ_CHECK(absl::IsDataLoss(status) && !status.message().empty(), status);
}

void Run(std::string_view input) {
  if (input.size() < 2) return;
  const uint32_t records = static_cast<unsigned char>(input[0]) |
                           static_cast<unsigned char>(input[1]) << 8;
  const Block block = MakeBlock(records, input.substr(2));
  const absl::StatusOr<trace::TraceBlockHeader> header =
      trace::TraceBlockHeader::Decode(block.header, 0);
  if (!header.ok()) return CheckRefusal(header.status());
  trace::TraceBlockDecoder decoder;
  const absl::Status started =
      decoder.Start(*header, block.header, block.contents);
  if (!started.ok()) {
    FUZZ_CHECK(decoder.done(), started);
    return CheckRefusal(started);
  }
  // Records that can be read are records that can be written, with the same
  // meaning.
  trace::TraceBlockEncoder encoder;
  std::vector<trace::TraceRecord> read;
  while (!decoder.done()) {
    trace::TraceRecord record;
    const absl::Status status = decoder.Next(&record);
    if (!status.ok()) return CheckRefusal(status);
    FUZZ_CHECK(
        record.size_bytes >= 1 && record.size_bytes <= trace::kMaxAccessBytes,
        record.size_bytes);
    FUZZ_CHECK(!encoder.full(), read.size());
    encoder.Add(record);
    read.push_back(record);
  }
  FUZZ_CHECK(read.size() == records, read.size());
  const std::string again = encoder.Take();
  const std::string_view bytes(again);
  const auto again_header = trace::TraceBlockHeader::Decode(
      bytes.substr(0, trace::kBlockHeaderBytes), 0);
  FUZZ_CHECK(again_header.ok(), again_header.status());
  FUZZ_CHECK(
      decoder
          .Start(*again_header, bytes.substr(0, trace::kBlockHeaderBytes),
                 bytes.substr(trace::kBlockHeaderBytes))
          .ok(),
      "written block");
  for (const trace::TraceRecord& wanted : read) {
    trace::TraceRecord record;
    FUZZ_CHECK(decoder.Next(&record).ok(), "written record");
    FUZZ_CHECK(record.op == wanted.op && record.address == wanted.address &&
                   record.size_bytes == wanted.size_bytes,
               wanted.address);
  }
  FUZZ_CHECK(decoder.done(), read.size());
}

std::vector<Seed> Seeds() {
  // A load of 8 bytes at 2, a store of 16 behind it, and a load whose size of
  // 100 bytes follows its address.
  return {
      {"three_records",
       std::string("\3\0", 2) + "\x0d\x12\x1d" + "\x04\x20\x08\x64"},
      {"far_addresses", std::string("\2\0", 2) + "\x00\x01" +
                            "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x01"}};
}

}  // namespace

Target ThisTarget() { return {.run = Run, .seeds = Seeds}; }

}  // namespace mmud::fuzz
