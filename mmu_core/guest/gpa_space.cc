#include "mmu_core/guest/gpa_space.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/numeric/int128.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/format.h"

namespace mmu {
namespace {

// Guest-physical addresses have at most 52 bits.
constexpr uint64_t kMaxGfn = uint64_t{1} << (52 - kPageShift);

}  // namespace

absl::StatusOr<GpaSpace> GpaSpace::Create(std::vector<GfnRange> ranges) {
  std::vector<GfnRange> sorted = ranges;
  std::sort(
      sorted.begin(), sorted.end(),
      [](const GfnRange& a, const GfnRange& b) { return a.start < b.start; });
  for (size_t i = 0; i < sorted.size(); ++i) {
    const GfnRange range = sorted[i];
    if (range.empty() || range.end > Gfn(kMaxGfn)) {
      return absl::InvalidArgumentError(Format(
          "guest memory range [gfn %#x, %#x) must hold at least one page and "
          "end at or below gfn %#x",
          range.start.value(), range.end.value(), kMaxGfn));
    }
    if (i > 0 && sorted[i - 1].end > range.start) {
      return absl::InvalidArgumentError(Format(
          "guest memory ranges [gfn %#x, %#x) and [gfn %#x, %#x) overlap: "
          "each page may be listed once",
          sorted[i - 1].start.value(), sorted[i - 1].end.value(),
          range.start.value(), range.end.value()));
    }
  }
  GpaSpace space;
  for (const GfnRange& range : ranges) space.Append(range);
  return space;
}

void GpaSpace::Append(GfnRange range) {
  ranges_.push_back(range);
  first_page_.push_back(pages_);
  pages_ += range.pages();
}

Gfn GpaSpace::PageAt(uint64_t page) const {
  MMU_DCHECK(page < pages_);
  if (ranges_.size() == 1) return ranges_.front().start + page;
  const auto after =
      std::upper_bound(first_page_.begin(), first_page_.end(), page);
  const auto i = static_cast<size_t>(after - first_page_.begin() - 1);
  return ranges_[i].start + (page - first_page_[i]);
}

Gpa GpaSpace::At(uint64_t offset_bytes) const {
  return ToGpa(PageAt(offset_bytes >> kPageShift)) + (offset_bytes & kPageMask);
}

bool GpaSpace::Contains(Gpa gpa) const {
  return std::any_of(
      ranges_.begin(), ranges_.end(),
      [gfn = ToGfn(gpa)](const GfnRange& r) { return r.Contains(gfn); });
}

GpaSpace GpaSpace::Slice(uint64_t first_page, uint64_t pages) const {
  MMU_CHECK(first_page <= pages_ && pages <= pages_ - first_page);
  const uint64_t end_page = first_page + pages;
  GpaSpace slice;
  for (size_t i = 0; i < ranges_.size(); ++i) {
    const uint64_t from = std::max(first_page, first_page_[i]);
    const uint64_t to = std::min(end_page, first_page_[i] + ranges_[i].pages());
    if (from >= to) continue;
    slice.Append(
        GfnRange::Of(ranges_[i].start + (from - first_page_[i]), to - from));
  }
  return slice;
}

GpaSpace GpaSpace::Share(uint32_t index, uint32_t count) const {
  MMU_CHECK(index < count);
  const auto boundary = [this, count](uint32_t i) {
    return absl::Uint128Low64(absl::uint128(pages_) * i / count);
  };
  return Slice(boundary(index), boundary(index + 1) - boundary(index));
}

}  // namespace mmu
