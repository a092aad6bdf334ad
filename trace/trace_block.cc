#include "trace/trace_block.h"

#include <zstd.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/numeric/bits.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_format.h"
#include "mmu_core/base/check.h"
#include "trace/bytes.h"

namespace mmud::trace {
namespace {

// A high level: a file is written once and kept, so its size matters more than
// the time to compress it.
constexpr int kCompressionLevel = 19;
constexpr size_t kChecksumAt = 16;
constexpr uint32_t kOtherSize = 7;
// The most bytes of one record: a tag, an address and a size.
constexpr size_t kMaxRecordBytes = 1 + 10 + 2;

uint8_t TagOf(const TraceRecord& record) {
  const bool is_class = absl::has_single_bit(record.size_bytes) &&
                        record.size_bytes < (1u << kOtherSize);
  const auto size_class =
      is_class ? static_cast<uint32_t>(absl::countr_zero(record.size_bytes))
               : kOtherSize;
  return static_cast<uint8_t>(static_cast<uint32_t>(record.op) | size_class
                                                                     << 2);
}

uint32_t SizeClassOf(uint8_t tag) { return (tag >> 2) & 7; }

absl::Status Broken(absl::string_view what) {
  return absl::DataLossError(
      absl::StrFormat("contents: %s; the block is damaged", what));
}

}  // namespace

void TraceBlockEncoder::Add(const TraceRecord& record) {
  MMU_DCHECK(!full());
  MMU_DCHECK(record.size_bytes >= 1 && record.size_bytes <= kMaxAccessBytes);
  const uint8_t tag = TagOf(record);
  uint64_t& last = last_address_[static_cast<size_t>(record.op)];
  tags_.push_back(static_cast<char>(tag));
  AppendVarint(varints_, ZigZag(record.address - last));
  if (SizeClassOf(tag) == kOtherSize) {
    AppendVarint(varints_, record.size_bytes);
  }
  last = record.address;
}

bool TraceBlockEncoder::full() const {
  return tags_.size() + varints_.size() + kMaxRecordBytes > kMaxRawBytes;
}

std::string TraceBlockEncoder::Take() {
  MMU_CHECK(!empty());
  const auto records = static_cast<uint32_t>(tags_.size());
  const std::string raw = tags_ + varints_;
  std::string compressed(ZSTD_compressBound(raw.size()), '\0');
  const size_t size = ZSTD_compress(compressed.data(), compressed.size(),
                                    raw.data(), raw.size(), kCompressionLevel);
  MMU_CHECK(!ZSTD_isError(size) && size <= kMaxCompressedBytes);
  compressed.resize(size);

  std::string block;
  AppendU32(block, index_++);
  AppendU32(block, records);
  AppendU32(block, static_cast<uint32_t>(raw.size()));
  AppendU32(block, static_cast<uint32_t>(size));
  AppendU32(block, Crc32(compressed, Crc32(block)));
  block += compressed;

  tags_.clear();
  varints_.clear();
  last_address_.fill(0);
  return block;
}

absl::StatusOr<TraceBlockHeader> TraceBlockHeader::Decode(
    std::string_view bytes, uint32_t expected_index) {
  MMU_CHECK(bytes.size() == kBlockHeaderBytes);
  TraceBlockHeader header;
  header.index = ReadU32(bytes, 0);
  header.records = ReadU32(bytes, 4);
  header.raw_bytes = ReadU32(bytes, 8);
  header.compressed_bytes = ReadU32(bytes, 12);
  header.checksum = ReadU32(bytes, kChecksumAt);
  if (header.index != expected_index) {
    return absl::DataLossError(
        absl::StrFormat("block index %d: must be %d; a block is damaged, "
                        "missing or out of order",
                        header.index, expected_index));
  }
  if (header.raw_bytes > kMaxRawBytes || header.records == 0 ||
      header.records > header.raw_bytes) {
    return absl::DataLossError(absl::StrFormat(
        "block of %d records in %d bytes: must be at least one record, one "
        "byte for each and at most %d bytes",
        header.records, header.raw_bytes, kMaxRawBytes));
  }
  if (header.compressed_bytes == 0 ||
      header.compressed_bytes > kMaxCompressedBytes) {
    return absl::DataLossError(
        absl::StrFormat("block of %d compressed bytes: must be 1 to %d",
                        header.compressed_bytes, kMaxCompressedBytes));
  }
  return header;
}

TraceBlockDecoder::TraceBlockDecoder() : context_(ZSTD_createDCtx()) {
  MMU_CHECK(context_ != nullptr);
}

TraceBlockDecoder::~TraceBlockDecoder() {
  ZSTD_freeDCtx(static_cast<ZSTD_DCtx*>(context_));
}

void TraceBlockDecoder::Clear() {
  tags_ = {};
  varints_ = {};
}

absl::Status TraceBlockDecoder::Start(const TraceBlockHeader& header,
                                      std::string_view header_bytes,
                                      std::string_view compressed) {
  Clear();
  const uint32_t computed =
      Crc32(compressed, Crc32(header_bytes.substr(0, kChecksumAt)));
  if (computed != header.checksum) {
    return absl::DataLossError(
        absl::StrFormat("block checksum %08x: must be %08x; the block is "
                        "damaged",
                        header.checksum, computed));
  }
  raw_.resize(header.raw_bytes);
  const size_t size =
      ZSTD_decompressDCtx(static_cast<ZSTD_DCtx*>(context_), raw_.data(),
                          raw_.size(), compressed.data(), compressed.size());
  if (ZSTD_isError(size)) {
    return absl::DataLossError(absl::StrFormat(
        "block cannot be decompressed: %s", ZSTD_getErrorName(size)));
  }
  if (size != raw_.size()) {
    return absl::DataLossError(absl::StrFormat(
        "block of %d bytes uncompressed: must be %d by its header", size,
        raw_.size()));
  }
  tags_ = std::string_view(raw_).substr(0, header.records);
  varints_ = std::string_view(raw_).substr(header.records);
  last_address_.fill(0);
  return absl::OkStatus();
}

absl::Status TraceBlockDecoder::Next(TraceRecord* record) {
  MMU_DCHECK(!done());
  const auto tag = static_cast<uint8_t>(tags_.front());
  tags_.remove_prefix(1);
  if ((tag >> 5) != 0) return Broken("a tag has unknown bits");
  uint64_t distance = 0;
  if (!ConsumeVarint(varints_, distance)) return Broken("an address is cut");
  uint64_t size = uint64_t{1} << SizeClassOf(tag);
  if (SizeClassOf(tag) == kOtherSize) {
    if (!ConsumeVarint(varints_, size)) return Broken("a size is cut");
    if (size == 0 || size > kMaxAccessBytes) {
      return Broken(absl::StrFormat("an access of %d bytes: must be 1 to %d",
                                    size, kMaxAccessBytes));
    }
  }
  if (tags_.empty() && !varints_.empty()) {
    return Broken("bytes are left behind the last record");
  }
  record->op = static_cast<TraceOp>(tag & 3);
  uint64_t& last = last_address_[tag & 3];
  last += UnZigZag(distance);
  record->address = last;
  record->size_bytes = static_cast<uint32_t>(size);
  return absl::OkStatus();
}

}  // namespace mmud::trace
