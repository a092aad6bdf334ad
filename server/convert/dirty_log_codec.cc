#include "server/convert/dirty_log_codec.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/optional.h"
#include "absl/types/span.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/bits.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/dirty/log_range.h"
#include "mmu_core/vm/core/vm_config.h"
#include "mmud/v1/common.pb.h"
#include "server/base/errors.h"
#include "server/convert/convert.h"
#include "wire/crc32c.h"

namespace mmud {
namespace {

constexpr size_t kBits = mmu::kWordBits;

// The memslot and the address of chunks.
struct Place {
  uint32_t slot = 0;
  mmu::Gpa start;
};

void SetRange(const Place& place, uint64_t first, uint64_t pages,
              v1::DirtyLogChunk* chunk) {
  chunk->set_slot(static_cast<int32_t>(place.slot));
  chunk->set_gpa_bytes(
      static_cast<int64_t>((place.start + (first << mmu::kPageShift)).value()));
  chunk->set_size_bytes(static_cast<int64_t>(pages << mmu::kPageShift));
}

// A chunk of the words [first, end), with their dirty pages.
v1::DirtyLogChunk ExtentChunk(const Place& place,
                              absl::Span<const uint64_t> words, size_t first,
                              size_t end, uint64_t page_count) {
  v1::DirtyLogChunk chunk;
  SetRange(place, first * kBits,
           std::min(end * kBits, page_count) - first * kBits, &chunk);
  for (const mmu::BitRun run : mmu::RunsOf(words.subspan(first, end - first))) {
    v1::Extent* extent = chunk.mutable_extents()->add_extents();
    const uint64_t page = first * kBits + run.first;
    extent->set_gpa_bytes(static_cast<int64_t>(
        (place.start + (page << mmu::kPageShift)).value()));
    extent->set_size_bytes(static_cast<int64_t>(run.size() << mmu::kPageShift));
  }
  chunk.set_crc32c(PayloadCrc(chunk, 0));
  return chunk;
}

// Number of runs of dirty pages in `word`, not counting one that continues from
// the previous word `before`.
size_t CountRuns(uint64_t word, uint64_t before) {
  return mmu::CountBits(word & ~(word << 1 | before >> 63));
}

// Whether extents are shorter than a bitmap from the first dirty page to the
// last one.
bool ExtentsAreShorter(absl::Span<const uint64_t> words) {
  size_t runs = 0;
  size_t first = words.size();
  size_t last = 0;
  for (size_t i = 0; i < words.size(); ++i) {
    if (words[i] == 0) continue;
    first = std::min(first, i);
    last = i;
    runs += CountRuns(words[i], i == 0 ? 0 : words[i - 1]);
  }
  if (runs == 0) return false;
  return runs * kExtentWireBytes < (last - first + 1) * sizeof(uint64_t);
}

absl::Status BadBitmap(const std::string& message) {
  return InvalidField(mmu::Reason::kInvalidBitmap, "pages.bitmap", message);
}

absl::StatusOr<std::vector<uint64_t>> FromBitmap(const std::string& bitmap,
                                                 uint64_t page_count) {
  if (bitmap.size() != (page_count + 7) / 8) {
    return BadBitmap(absl::StrCat("bitmap has ", bitmap.size(),
                                  " bytes; a range of ", page_count,
                                  " pages needs ", (page_count + 7) / 8));
  }
  std::vector<uint64_t> words(mmu::WordsFor(page_count), 0);
  std::copy(bitmap.begin(), bitmap.end(),
            reinterpret_cast<char*>(words.data()));
  const uint64_t used = page_count % kBits;
  if (used != 0 && (words.back() >> used) != 0) {
    return BadBitmap(absl::StrCat("bitmap has bits set beyond the ", page_count,
                                  " pages of the range"));
  }
  return words;
}

absl::StatusOr<std::vector<uint64_t>> FromExtents(const v1::SlotPages& request,
                                                  uint64_t page_count) {
  if (request.extents().extents_size() > kMaxExtents) {
    return LimitExceeded(
        "max_extents_per_call",
        absl::StrCat("extents has ", request.extents().extents_size(),
                     " entries; it may have ", kMaxExtents));
  }
  const mmu::Gfn start =
      mmu::ToGfn(mmu::Gpa(static_cast<uint64_t>(request.start_gpa_bytes())));
  const mmu::GfnRange all = mmu::GfnRange::Of(start, page_count);
  std::vector<uint64_t> words(mmu::WordsFor(page_count), 0);
  mmu::Gfn after = start;
  for (int i = 0; i < request.extents().extents_size(); ++i) {
    const std::string field = absl::StrCat("pages.extents.extents[", i, "]");
    absl::StatusOr<mmu::GfnRange> range =
        ToRange(request.extents().extents(i), field);
    if (!range.ok()) return range.status();
    if (!all.Contains(*range)) {
      return InvalidField(
          mmu::Reason::kInvalidBitmap, field,
          absl::StrCat(field, " is ", range->bytes(), " bytes from ",
                       mmu::ToGpa(range->start).value(),
                       "; it is not within the range"));
    }
    if (i > 0 && range->start <= after) {
      return InvalidField(
          mmu::Reason::kInvalidRange, field,
          absl::StrCat(field, " begins at ", mmu::ToGpa(range->start).value(),
                       " and the one before ends at ",
                       mmu::ToGpa(after).value(),
                       "; extents ascend and do not touch: make one of two "
                       "that do"));
    }
    after = range->end;
    mmu::SetRun(absl::MakeSpan(words),
                {range->start - start, range->end - start});
  }
  return words;
}

// The range in pages from the slot's start, without a mask.
absl::StatusOr<NamedPages> DecodeRange(const v1::SlotPages& pages,
                                       const mmu::MemslotConfig& slot) {
  const int64_t start = pages.start_gpa_bytes();
  const int64_t size = pages.size_bytes();
  if (start < 0) {
    return WrongValue(mmu::Reason::kInvalidRange, "pages.start_gpa_bytes",
                      start, "an address, which is not negative");
  }
  if (size < 0) {
    return WrongValue(mmu::Reason::kInvalidSize, "pages.size_bytes", size,
                      "a length, which is not negative");
  }
  const uint64_t slot_start = slot.gpa.value();
  const auto from = static_cast<uint64_t>(start);
  const auto bytes = static_cast<uint64_t>(size);
  // mmu_core counts in pages, and from the slot's start.
  if (from < slot_start) {
    return mmu::MakeError(
        absl::StatusCode::kOutOfRange,
        {mmu::Reason::kGpaOutOfRange, "pages.start_gpa_bytes", EINVAL},
        absl::StrCat("pages.start_gpa_bytes is ", from, "; slot ", slot.slot,
                     " begins at ", slot_start));
  }
  const uint64_t offset = from - slot_start;
  for (const auto& [field, value] : {std::pair("pages.start_gpa_bytes", offset),
                                     std::pair("pages.size_bytes", bytes)}) {
    if (value % mmu::kPageSize != 0) {
      return WrongValue(mmu::Reason::kUnalignedClear, field,
                        value == offset ? from : bytes,
                        "a whole number of pages of 4096 bytes");
    }
  }
  NamedPages named;
  named.slot = slot.slot;
  named.first_page = offset >> mmu::kPageShift;
  named.page_count = bytes >> mmu::kPageShift;
  if (absl::Status status =
          mmu::CheckLogRange(slot.size_bytes >> mmu::kPageShift,
                             named.first_page, named.page_count);
      !status.ok()) {
    return InFields(std::move(status), {{"first_page", "pages.start_gpa_bytes"},
                                        {"page_count", "pages.size_bytes"}});
  }
  return named;
}

}  // namespace

DirtyPageEncoder::DirtyPageEncoder(uint32_t slot, mmu::Gpa start,
                                   std::vector<uint64_t> words,
                                   uint64_t page_count,
                                   v1::DirtyLogEncoding encoding,
                                   size_t max_bytes)
    : slot_(slot),
      start_(start),
      words_(std::move(words)),
      page_count_(page_count),
      max_bytes_(max_bytes),
      as_extents_(encoding == v1::DIRTY_LOG_ENCODING_EXTENTS ||
                  (encoding == v1::DIRTY_LOG_ENCODING_AUTO &&
                   ExtentsAreShorter(words_))) {}

absl::optional<v1::DirtyLogChunk> DirtyPageEncoder::Next() {
  return as_extents_ ? NextExtents() : NextBitmap();
}

// Chunks end between words, so that each can be cleared, and a stream can
// continue after it. A run of pages that continues in the next chunk becomes
// two extents.
absl::optional<v1::DirtyLogChunk> DirtyPageEncoder::NextExtents() {
  const size_t per_chunk = max_bytes_ / kExtentWireBytes;
  size_t first = 0;
  size_t end = 0;  // after the last dirty word of the chunk
  size_t extents = 0;
  for (; at_ < words_.size(); ++at_) {
    if (words_[at_] == 0) continue;
    // This counts one run too many if a run continues from the previous word.
    const size_t more = CountRuns(words_[at_], 0);
    if (extents > 0 && extents + more > per_chunk) break;
    if (extents == 0) first = at_;
    extents += more;
    end = at_ + 1;
  }
  if (extents == 0) return absl::nullopt;
  return ExtentChunk({slot_, start_}, words_, first, end, page_count_);
}

absl::optional<v1::DirtyLogChunk> DirtyPageEncoder::NextBitmap() {
  const size_t per_chunk = std::max<size_t>(1, max_bytes_ / sizeof(uint64_t));
  while (at_ < words_.size()) {
    size_t first = at_;
    size_t end = std::min(at_ + per_chunk, words_.size());
    at_ = end;
    while (first < end && words_[first] == 0) ++first;
    while (end > first && words_[end - 1] == 0) --end;
    if (first == end) continue;
    v1::DirtyLogChunk chunk;
    // The last word may be incomplete.
    const uint64_t pages = std::min(end * kBits, page_count_) - first * kBits;
    SetRange({slot_, start_}, first * kBits, pages, &chunk);
    // On a little-endian host the words have the byte order of the message.
    static_assert(std::endian::native == std::endian::little);
    chunk.set_bitmap(reinterpret_cast<const char*>(words_.data() + first),
                     (pages + 7) / 8);
    chunk.set_crc32c(PayloadCrc(chunk, 0));
    return chunk;
  }
  return absl::nullopt;
}

int64_t CountPages(const v1::DirtyLogChunk& chunk) {
  auto count = static_cast<int64_t>(mmu::CountBits(chunk.bitmap()));
  for (const v1::Extent& extent : chunk.extents().extents()) {
    count += extent.size_bytes() >> mmu::kPageShift;
  }
  return count;
}

uint32_t PayloadCrc(const v1::DirtyLogChunk& chunk, uint32_t before) {
  if (chunk.has_bitmap()) {
    return ExtendCrc32c(before, chunk.bitmap());
  }
  uint32_t crc = before;
  for (const v1::Extent& extent : chunk.extents().extents()) {
    const int64_t numbers[2] = {extent.gpa_bytes(), extent.size_bytes()};
    crc = ExtendCrc32c(
        crc, {reinterpret_cast<const char*>(numbers), sizeof(numbers)});
  }
  return crc;
}

absl::StatusOr<NamedPages> DecodeSlotPages(const v1::SlotPages& pages,
                                           const mmu::MemslotConfig& slot) {
  absl::StatusOr<NamedPages> named = DecodeRange(pages, slot);
  if (!named.ok()) return named;
  absl::StatusOr<std::vector<uint64_t>> mask;
  switch (pages.pages_case()) {
    case v1::SlotPages::kBitmap:
      mask = FromBitmap(pages.bitmap(), named->page_count);
      break;
    case v1::SlotPages::kExtents:
      mask = FromExtents(pages, named->page_count);
      break;
    case v1::SlotPages::PAGES_NOT_SET:
      return InvalidField(
          mmu::Reason::kInvalidBitmap, "pages",
          "pages is required; set bitmap or extents to the pages "
          "that were received");
  }
  if (!mask.ok()) return mask.status();
  named->mask = *std::move(mask);
  return named;
}

v1::SlotPages PagesOf(const v1::DirtyLogChunk& chunk) {
  v1::SlotPages pages;
  pages.set_slot(chunk.slot());
  pages.set_start_gpa_bytes(chunk.gpa_bytes());
  pages.set_size_bytes(chunk.size_bytes());
  if (chunk.has_extents()) {
    *pages.mutable_extents() = chunk.extents();
  } else {
    pages.set_bitmap(chunk.bitmap());
  }
  return pages;
}

}  // namespace mmud
