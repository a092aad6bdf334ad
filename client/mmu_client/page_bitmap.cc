#include "client/mmu_client/page_bitmap.h"

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "mmu_core/base/bits.h"

namespace mmud::client {

int64_t TotalBytes(const std::vector<GpaRange>& ranges) {
  int64_t total = 0;
  for (const GpaRange& range : ranges) total += range.size_bytes;
  return total;
}

PageBitmap::PageBitmap(GpaRange range) {
  if (range.gpa_bytes < 0 || range.size_bytes < 0 ||
      range.gpa_bytes % kPageBytes != 0 || range.size_bytes % kPageBytes != 0 ||
      range.size_bytes > kMaxBitmapBytes ||
      range.gpa_bytes > INT64_MAX - range.size_bytes) {
    return;
  }
  range_ = range;
  const int64_t pages = range.size_bytes / kPageBytes;
  words_.resize((pages + kPagesPerWord - 1) / kPagesPerWord);
}

bool PageBitmap::Contains(int64_t gpa_bytes) const {
  const int64_t page = (gpa_bytes - range_.gpa_bytes) / kPageBytes;
  return (words_[page / kPagesPerWord] >> (page % kPagesPerWord) & 1) != 0;
}

absl::Status PageBitmap::CheckPart(GpaRange part) const {
  if (part.gpa_bytes % kPageBytes != 0 || part.size_bytes % kPageBytes != 0 ||
      part.size_bytes < 0 || part.gpa_bytes < range_.gpa_bytes ||
      part.size_bytes > range_.size_bytes ||
      part.gpa_bytes > range_.end_bytes() - part.size_bytes) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "pages [%#x, +%#x) are not aligned or not within [%#x, +%#x)",
        part.gpa_bytes, part.size_bytes, range_.gpa_bytes, range_.size_bytes));
  }
  return absl::OkStatus();
}

void PageBitmap::Set(int64_t page) {
  uint64_t& word = words_[page / kPagesPerWord];
  const uint64_t bit = mmu::BitOf(static_cast<uint64_t>(page));
  if ((word & bit) == 0) ++page_count_;
  word |= bit;
}

absl::Status PageBitmap::Add(GpaRange pages) {
  if (absl::Status status = CheckPart(pages); !status.ok()) return status;
  const int64_t first = (pages.gpa_bytes - range_.gpa_bytes) / kPageBytes;
  const int64_t count = pages.size_bytes / kPageBytes;
  for (int64_t i = 0; i < count; ++i) Set(first + i);
  return absl::OkStatus();
}

absl::Status PageBitmap::AddBitmap(GpaRange part, absl::string_view bitmap) {
  if (absl::Status status = CheckPart(part); !status.ok()) return status;
  const int64_t count = part.size_bytes / kPageBytes;
  if (static_cast<int64_t>(bitmap.size()) != (count + 7) / 8) {
    return absl::InvalidArgumentError(
        absl::StrFormat("a bitmap for %d pages has %d bytes", count,
                        static_cast<int64_t>(bitmap.size())));
  }
  if (count % 8 != 0 && static_cast<uint8_t>(bitmap.back()) >> (count % 8)) {
    return absl::InvalidArgumentError("padding of a bitmap is not zero");
  }
  const int64_t first = (part.gpa_bytes - range_.gpa_bytes) / kPageBytes;
  for (size_t i = 0; i < bitmap.size(); ++i) {
    for (const uint64_t bit : mmu::SetBitsOf(static_cast<uint8_t>(bitmap[i]))) {
      Set(first + static_cast<int64_t>(i * 8 + bit));
    }
  }
  return absl::OkStatus();
}

absl::Status PageBitmap::Merge(const PageBitmap& other) {
  if (other.range_ != range_) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "pages of [%#x, +%#x) cannot be merged into [%#x, +%#x)",
        other.range_.gpa_bytes, other.range_.size_bytes, range_.gpa_bytes,
        range_.size_bytes));
  }
  for (size_t i = 0; i < words_.size(); ++i) words_[i] |= other.words_[i];
  page_count_ = static_cast<int64_t>(mmu::CountBits(words_));
  return absl::OkStatus();
}

absl::Status PageBitmap::Subtract(const PageBitmap& other) {
  if (other.range_ != range_) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "pages of [%#x, +%#x) cannot be removed from [%#x, +%#x)",
        other.range_.gpa_bytes, other.range_.size_bytes, range_.gpa_bytes,
        range_.size_bytes));
  }
  for (size_t i = 0; i < words_.size(); ++i) words_[i] &= ~other.words_[i];
  page_count_ = static_cast<int64_t>(mmu::CountBits(words_));
  return absl::OkStatus();
}

void PageBitmap::RemoveAll() {
  std::fill(words_.begin(), words_.end(), 0);
  page_count_ = 0;
}

std::vector<GpaRange> PageBitmap::Ranges() const {
  std::vector<GpaRange> ranges;
  for (const mmu::BitRun run : mmu::RunsOf(words_)) {
    ranges.push_back(
        {range_.gpa_bytes + static_cast<int64_t>(run.first) * kPageBytes,
         static_cast<int64_t>(run.size()) * kPageBytes});
  }
  return ranges;
}

std::string PageBitmap::Bitmap(GpaRange part) const {
  const int64_t first_word =
      (part.gpa_bytes - range_.gpa_bytes) / (kPageBytes * kPagesPerWord);
  const int64_t count = part.size_bytes / kPageBytes;
  std::string bitmap((count + 7) / 8, '\0');
  for (size_t i = 0; i < bitmap.size(); ++i) {
    bitmap[i] =
        static_cast<char>(words_[first_word + i / 8] >> (8 * (i % 8)) & 0xff);
  }
  if (count % 8 != 0) {
    bitmap.back() = static_cast<char>(bitmap.back() & ((1 << (count % 8)) - 1));
  }
  return bitmap;
}

int64_t PageBitmap::CountIn(GpaRange part) const {
  const int64_t first_word =
      (part.gpa_bytes - range_.gpa_bytes) / (kPageBytes * kPagesPerWord);
  int64_t left = part.size_bytes / kPageBytes;
  int64_t count = 0;
  for (int64_t i = first_word; left > 0; ++i, left -= kPagesPerWord) {
    uint64_t word = words_[i];
    word &= mmu::WordMask(0, 0, static_cast<uint64_t>(left));
    count += static_cast<int64_t>(mmu::CountBits(word));
  }
  return count;
}

}  // namespace mmud::client
