#include "server/services/dirty_log_codec.h"

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmud/v1/common.pb.h"
#include "server/base/crc32c.h"
#include "server/base/errors.h"
#include "server/services/convert.h"

namespace mmud {
namespace {

constexpr size_t kBits = 64;

// [first, end) in pages.
struct Run {
  uint64_t first = 0;
  uint64_t end = 0;
};

std::vector<Run> RunsOf(absl::Span<const uint64_t> words) {
  std::vector<Run> runs;
  for (size_t i = 0; i < words.size(); ++i) {
    uint64_t word = words[i];
    while (word != 0) {
      const int first = std::countr_zero(word);
      const int length = std::countr_one(word >> first);
      const uint64_t at = i * kBits + static_cast<uint64_t>(first);
      const uint64_t end = at + static_cast<uint64_t>(length);
      if (!runs.empty() && runs.back().end == at) {
        runs.back().end = end;
      } else {
        runs.push_back({at, end});
      }
      if (first + length == kBits) break;
      word &= ~uint64_t{0} << (first + length);
    }
  }
  return runs;
}

void SetRange(mmu::Gpa start, uint64_t first, uint64_t pages,
              v1::DirtyLogChunk* chunk) {
  chunk->set_gpa_bytes(
      static_cast<int64_t>((start + (first << mmu::kPageShift)).value()));
  chunk->set_size_bytes(static_cast<int64_t>(pages << mmu::kPageShift));
}

std::vector<v1::DirtyLogChunk> AsExtents(mmu::Gpa start,
                                         const std::vector<Run>& runs,
                                         size_t max_bytes) {
  const size_t per_chunk = std::max<size_t>(1, max_bytes / kExtentWireBytes);
  std::vector<v1::DirtyLogChunk> chunks;
  for (size_t at = 0; at < runs.size(); at += per_chunk) {
    const size_t end = std::min(at + per_chunk, runs.size());
    v1::DirtyLogChunk chunk;
    SetRange(start, runs[at].first, runs[end - 1].end - runs[at].first, &chunk);
    for (size_t i = at; i < end; ++i) {
      v1::Extent* extent = chunk.mutable_extents()->add_extents();
      extent->set_gpa_bytes(static_cast<int64_t>(
          (start + (runs[i].first << mmu::kPageShift)).value()));
      extent->set_size_bytes(static_cast<int64_t>((runs[i].end - runs[i].first)
                                                  << mmu::kPageShift));
    }
    chunk.set_crc32c(PayloadCrc(chunk, 0));
    chunks.push_back(std::move(chunk));
  }
  return chunks;
}

std::vector<v1::DirtyLogChunk> AsBitmaps(mmu::Gpa start,
                                         absl::Span<const uint64_t> words,
                                         uint64_t page_count,
                                         size_t max_bytes) {
  const size_t per_chunk = std::max<size_t>(1, max_bytes / sizeof(uint64_t));
  std::vector<v1::DirtyLogChunk> chunks;
  for (size_t at = 0; at < words.size(); at += per_chunk) {
    size_t first = at;
    size_t end = std::min(at + per_chunk, words.size());
    while (first < end && words[first] == 0) ++first;
    while (end > first && words[end - 1] == 0) --end;
    if (first == end) continue;
    v1::DirtyLogChunk chunk;
    // The last word may be a part of one.
    const uint64_t pages = std::min(end * kBits, page_count) - first * kBits;
    SetRange(start, first * kBits, pages, &chunk);
    // Little-endian words are the bytes of the message.
    static_assert(std::endian::native == std::endian::little);
    chunk.set_bitmap(reinterpret_cast<const char*>(words.data() + first),
                     (pages + 7) / 8);
    chunk.set_crc32c(PayloadCrc(chunk, 0));
    chunks.push_back(std::move(chunk));
  }
  return chunks;
}

absl::Status BadBitmap(const std::string& message) {
  return InvalidField("INVALID_BITMAP", "bitmap", message);
}

absl::StatusOr<std::vector<uint64_t>> FromBitmap(const std::string& bitmap,
                                                 uint64_t page_count) {
  if (bitmap.size() != (page_count + 7) / 8) {
    return BadBitmap(absl::StrCat("bitmap has ", bitmap.size(),
                                  " bytes; a range of ", page_count,
                                  " pages needs ", (page_count + 7) / 8));
  }
  std::vector<uint64_t> words((page_count + kBits - 1) / kBits, 0);
  std::copy(bitmap.begin(), bitmap.end(),
            reinterpret_cast<char*>(words.data()));
  const uint64_t used = page_count % kBits;
  if (used != 0 && (words.back() >> used) != 0) {
    return BadBitmap(absl::StrCat("bitmap has bits set beyond the ", page_count,
                                  " pages of the range"));
  }
  return words;
}

absl::StatusOr<std::vector<uint64_t>> FromExtents(
    const v1::ClearDirtyLogRequest& request, uint64_t page_count) {
  if (request.extents().extents_size() > kMaxExtents) {
    return LimitExceeded(
        "max_extents_per_call",
        absl::StrCat("extents has ", request.extents().extents_size(),
                     " entries; it may have ", kMaxExtents));
  }
  const mmu::Gfn start =
      mmu::ToGfn(mmu::Gpa(static_cast<uint64_t>(request.start_gpa_bytes())));
  const mmu::GfnRange all = mmu::GfnRange::Of(start, page_count);
  std::vector<uint64_t> words((page_count + kBits - 1) / kBits, 0);
  mmu::Gfn after = start;
  for (int i = 0; i < request.extents().extents_size(); ++i) {
    const std::string field = absl::StrCat("extents.extents[", i, "]");
    absl::StatusOr<mmu::GfnRange> range =
        ToRange(request.extents().extents(i), field);
    if (!range.ok()) return range.status();
    if (!all.Contains(*range)) {
      return InvalidField(
          "INVALID_BITMAP", field,
          absl::StrCat(field, " is ", range->bytes(), " bytes from ",
                       mmu::ToGpa(range->start).value(),
                       "; it is not within the range"));
    }
    if (i > 0 && range->start <= after) {
      return InvalidField(
          "INVALID_RANGE", field,
          absl::StrCat(field, " begins at ", mmu::ToGpa(range->start).value(),
                       " and the one before ends at ",
                       mmu::ToGpa(after).value(),
                       "; extents ascend and do not touch: make one of two "
                       "that do"));
    }
    after = range->end;
    uint64_t page = range->start - start;
    const uint64_t end = range->end - start;
    while (page < end) {
      const uint64_t bit = page % kBits;
      const uint64_t count = std::min(kBits - bit, end - page);
      const uint64_t mask =
          count == kBits ? ~uint64_t{0} : ((uint64_t{1} << count) - 1) << bit;
      words[page / kBits] |= mask;
      page += count;
    }
  }
  return words;
}

}  // namespace

std::vector<v1::DirtyLogChunk> EncodeDirtyPages(
    mmu::Gpa start, absl::Span<const uint64_t> words, uint64_t page_count,
    v1::DirtyLogEncoding encoding, size_t max_bytes) {
  if (encoding == v1::DIRTY_LOG_ENCODING_BITMAP) {
    return AsBitmaps(start, words, page_count, max_bytes);
  }
  const std::vector<Run> runs = RunsOf(words);
  if (encoding == v1::DIRTY_LOG_ENCODING_EXTENTS) {
    return AsExtents(start, runs, max_bytes);
  }
  if (runs.empty()) return {};
  const uint64_t span_words =
      (runs.back().end - 1) / kBits - runs.front().first / kBits + 1;
  return runs.size() * kExtentWireBytes < span_words * sizeof(uint64_t)
             ? AsExtents(start, runs, max_bytes)
             : AsBitmaps(start, words, page_count, max_bytes);
}

uint32_t PayloadCrc(const v1::DirtyLogChunk& chunk, uint32_t before) {
  if (chunk.has_bitmap()) {
    return Crc32c(chunk.bitmap().data(), chunk.bitmap().size(), before);
  }
  uint32_t crc = before;
  for (const v1::Extent& extent : chunk.extents().extents()) {
    const int64_t numbers[2] = {extent.gpa_bytes(), extent.size_bytes()};
    crc = Crc32c(numbers, sizeof(numbers), crc);
  }
  return crc;
}

absl::StatusOr<std::vector<uint64_t>> DecodeClearPages(
    const v1::ClearDirtyLogRequest& request, uint64_t page_count) {
  switch (request.pages_case()) {
    case v1::ClearDirtyLogRequest::kBitmap:
      return FromBitmap(request.bitmap(), page_count);
    case v1::ClearDirtyLogRequest::kExtents:
      return FromExtents(request, page_count);
    case v1::ClearDirtyLogRequest::PAGES_NOT_SET:
      break;
  }
  return BadBitmap(
      "the request names no pages; set bitmap or extents to those that were "
      "received");
}

}  // namespace mmud
