// A set of guest pages of 4 KiB within one stretch of guest memory.

#ifndef CLIENT_MMU_CLIENT_PAGE_BITMAP_H_
#define CLIENT_MMU_CLIENT_PAGE_BITMAP_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace mmud::client {

inline constexpr int64_t kPageBytes = 4096;

// The dirty log is cleared in units of this many pages.
inline constexpr int64_t kPagesPerWord = 64;
// The largest memory of a bitmap: the daemon has no memslot of more pages. The
// bits then take 256 MiB.
inline constexpr int64_t kMaxBitmapBytes = kPageBytes << 31;

// Guest-physical memory [gpa_bytes, gpa_bytes + size_bytes). A value.
struct GpaRange {
  int64_t gpa_bytes = 0;
  int64_t size_bytes = 0;

  int64_t end_bytes() const { return gpa_bytes + size_bytes; }
  friend bool operator==(const GpaRange&, const GpaRange&) = default;
};

// Total size of `ranges`.
int64_t TotalBytes(const std::vector<GpaRange>& ranges);

// Thread-compatible.
class PageBitmap {
 public:
  PageBitmap() = default;
  // An empty set. INVALID: `range` has negative or unaligned numbers, more than
  // kMaxBitmapBytes, or an end above 2^63; the set then covers nothing.
  explicit PageBitmap(GpaRange range);

  const GpaRange& range() const { return range_; }
  int64_t page_count() const { return page_count_; }
  int64_t size_bytes() const { return page_count_ * kPageBytes; }
  bool empty() const { return page_count_ == 0; }

  // INVALID_ARGUMENT unless `part` is aligned and within range().
  absl::Status CheckPart(GpaRange part) const;

  // REQUIRES (Contains): `gpa_bytes` lies in range().
  bool Contains(int64_t gpa_bytes) const;

  // Adds pages. INVALID_ARGUMENT, and nothing added, unless they are aligned
  // and within range().
  absl::Status Add(GpaRange pages);

  // Adds the pages of `part` whose bit in `bitmap` is set; bit i of byte j is
  // page 8 * j + i. INVALID_ARGUMENT, and nothing added, for a part that is
  // not aligned or not within range(), for a bitmap of another length, and for
  // padding bits that are set.
  absl::Status AddBitmap(GpaRange part, absl::string_view bitmap);

  // Adds every page of `other`. INVALID_ARGUMENT if it covers another range.
  absl::Status Merge(const PageBitmap& other);

  // Removes every page of `other`. INVALID_ARGUMENT if it covers another range.
  absl::Status Subtract(const PageBitmap& other);

  void RemoveAll();

  // The pages as ranges, ascending, not touching.
  std::vector<GpaRange> Ranges() const;

  // The pages of `part` as a bitmap in the form of AddBitmap. REQUIRES: `part`
  // is within range() and begins a multiple of 64 pages from its start.
  std::string Bitmap(GpaRange part) const;

  // Pages of `part` that are in the set. REQUIRES: as Bitmap.
  int64_t CountIn(GpaRange part) const;

 private:
  void Set(int64_t page);

  GpaRange range_;
  std::vector<uint64_t> words_;
  int64_t page_count_ = 0;
};

}  // namespace mmud::client

#endif  // CLIENT_MMU_CLIENT_PAGE_BITMAP_H_
