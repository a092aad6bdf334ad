#include "trace/trace_block.h"

#include <zstd.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/guest/random.h"
#include "trace/bytes.h"

namespace mmud::trace {
namespace {

using Records = std::vector<TraceRecord>;
using ::testing::HasSubstr;

absl::StatusOr<Records> Decode(std::string_view block, uint32_t index) {
  const std::string_view header_bytes = block.substr(0, kBlockHeaderBytes);
  const auto header = TraceBlockHeader::Decode(header_bytes, index);
  if (!header.ok()) return header.status();
  TraceBlockDecoder decoder;
  absl::Status status =
      decoder.Start(*header, header_bytes, block.substr(kBlockHeaderBytes));
  if (!status.ok()) return status;
  Records records;
  while (!decoder.done()) {
    records.emplace_back();
    status = decoder.Next(&records.back());
    if (!status.ok()) return status;
  }
  return records;
}

// A block with any contents, but correct lengths and a correct checksum.
std::string BlockOf(const std::string& tags, const std::string& varints) {
  const std::string raw = tags + varints;
  std::string compressed(ZSTD_compressBound(raw.size()), '\0');
  compressed.resize(ZSTD_compress(compressed.data(), compressed.size(),
                                  raw.data(), raw.size(), 1));
  std::string block;
  AppendU32(block, 0);
  AppendU32(block, static_cast<uint32_t>(tags.size()));
  AppendU32(block, static_cast<uint32_t>(raw.size()));
  AppendU32(block, static_cast<uint32_t>(compressed.size()));
  AppendU32(block, Crc32(compressed, Crc32(block)));
  return block + compressed;
}

Records RandomRecords(int count, uint64_t seed) {
  mmu::Rng rng(seed);
  Records records;
  for (int i = 0; i < count; ++i) {
    TraceRecord record;
    record.op = static_cast<TraceOp>(mmu::UniformBelow(rng, kTraceOps));
    record.address = rng() >> mmu::UniformBelow(rng, 64);
    record.size_bytes =
        1 + static_cast<uint32_t>(mmu::UniformBelow(
                rng, mmu::UniformBelow(rng, 2) == 0 ? 64 : kMaxAccessBytes));
    records.push_back(record);
  }
  return records;
}

TEST(TraceBlockTest, RecordsComeBackWhateverTheyAre) {
  TraceBlockEncoder encoder;
  for (uint32_t index = 0; index < 20; ++index) {
    const Records records = RandomRecords(500, index);
    for (const TraceRecord& record : records) encoder.Add(record);
    EXPECT_EQ(Decode(encoder.Take(), index).value(), records);
    EXPECT_TRUE(encoder.empty());
  }
}

TEST(TraceBlockTest, FullBlockStaysWithinTheLimits) {
  TraceBlockEncoder encoder;
  const Records records = RandomRecords(1 << 20, 3);
  size_t taken = 0;
  while (!encoder.full()) encoder.Add(records[taken++]);
  const absl::StatusOr<Records> decoded = Decode(encoder.Take(), 0);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(*decoded, Records(records.begin(), records.begin() + taken));
}

TEST(TraceBlockTest, WalkThroughMemoryCostsAlmostNothing) {
  TraceBlockEncoder encoder;
  for (uint64_t i = 0; i < 100'000; ++i) {
    encoder.Add({TraceOp::kStore, 0x100000 + i * 64, 8});
  }
  EXPECT_LT(encoder.Take().size(), 200u);
}

TEST(TraceBlockTest, BlockOutOfOrderIsDataLoss) {
  TraceBlockEncoder encoder;
  encoder.Add({TraceOp::kLoad, 1, 1});
  const absl::Status status = Decode(encoder.Take(), 1).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("block index 0: must be 1"));
}

TEST(TraceBlockTest, AbsurdLengthsAreRefused) {
  struct Case {
    uint32_t records, raw, compressed;
  };
  for (const Case& c :
       {Case{1, kMaxRawBytes + 1, 10}, Case{1, ~0u, 10}, Case{0, 10, 10},
        Case{11, 10, 10}, Case{1, 10, 0}, Case{1, 10, ~0u}}) {
    std::string bytes;
    AppendU32(bytes, 0);
    AppendU32(bytes, c.records);
    AppendU32(bytes, c.raw);
    AppendU32(bytes, c.compressed);
    AppendU32(bytes, 0);
    EXPECT_EQ(TraceBlockHeader::Decode(bytes, 0).status().code(),
              absl::StatusCode::kDataLoss);
  }
}

TEST(TraceBlockTest, ContentsThatBreakTheRulesAreDataLoss) {
  const std::string byte_load(1, '\0');
  const std::string other_size(1, 7 << 2);
  struct Case {
    std::string tags, varints, rule;
  };
  std::string two_pages;
  AppendVarint(two_pages, 0);
  AppendVarint(two_pages, kMaxAccessBytes + 1);
  for (const Case& c : std::vector<Case>{
           {std::string(1, '\x20'), std::string(1, '\0'), "unknown bits"},
           {byte_load, "", "address is cut"},
           {byte_load, std::string(11, '\xff'), "address is cut"},
           {byte_load, "ab", "bytes are left"},
           {other_size, "a", "size is cut"},
           {other_size, two_pages, "4097 bytes: must be 1 to 4096"},
           {other_size, std::string(2, '\0'), "0 bytes: must be 1"}}) {
    const absl::Status status = Decode(BlockOf(c.tags, c.varints), 0).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << c.rule;
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.rule));
  }
}

TEST(TraceBlockTest, FrameOfAnotherLengthThanStatedIsDataLoss) {
  std::string block = BlockOf(std::string(1, '\0'), "a");
  for (const uint32_t raw_bytes : {1u, 3u}) {
    std::string fields;
    AppendU32(fields, 0);
    AppendU32(fields, 1);
    AppendU32(fields, raw_bytes);
    fields += block.substr(12, 4);
    const std::string compressed = block.substr(kBlockHeaderBytes);
    AppendU32(fields, Crc32(compressed, Crc32(fields)));
    EXPECT_EQ(Decode(fields + compressed, 0).status().code(),
              absl::StatusCode::kDataLoss);
  }
}

}  // namespace
}  // namespace mmud::trace
