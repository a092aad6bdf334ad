// Where things are in the memory of a VM of the model, in guest page numbers,
// and at which addresses its guest uses them.
//
//   0 .. kWorld             five places, at which slots 0 to 2 come and go
//   kWorld .. +kPoolPages   slot 3: pages that are tables, data, or free
//   .. +kLargeData          slot 3: not used
//   .. +kGuestPages         slot 3: data, also mapped by large pages

#ifndef TESTS_MODEL_GUEST_LAYOUT_H_
#define TESTS_MODEL_GUEST_LAYOUT_H_

#include <cstdint>

#include "mmu_core/base/address.h"
#include "tests/model/guest_format.h"

namespace mmu::testing {

inline constexpr uint64_t kPlaces = 5;
inline constexpr uint64_t kPlaceStride = 4096;  // 16 MiB
inline constexpr uint64_t kWorld = kPlaces * kPlaceStride;

inline constexpr uint32_t kGuestSlot = 3;
inline constexpr uint64_t kGuestBase = kWorld;
inline constexpr uint64_t kGuestPages = 2048;
inline constexpr uint64_t kPoolPages = 256;
inline constexpr uint64_t kLargeData = 1024;

constexpr bool IsInPool(uint64_t page) {
  return page - kGuestBase < kPoolPages;
}

// The guest has address spaces (in nested guests: sets of EPT or NPT tables).
// In each space it uses four regions, which are covered by one entry of level 2
// each, and in each region the first pages and the last ones.
inline constexpr int kSpaces = 3;
inline constexpr int kRegions = 4;
inline constexpr int kPagesPerRegion = 16;
inline constexpr int kLastPages = 4;

// A page that the guest uses. A value.
struct Place {
  int space = 0;
  int region = 0;
  int index = 0;  // of the page in its region, below kPagesPerRegion
};

// The number of the page with this index within its region.
inline uint64_t PageInRegion(const GuestFormat& format, int index) {
  const auto i = static_cast<uint64_t>(index);
  return index < kPagesPerRegion - kLastPages
             ? i
             : format.large_pages() - kPagesPerRegion + i;
}

// The first page number (linear, or of L2) of a region. The regions lie in
// different parts of the tree.
inline uint64_t FirstPageOf(const GuestFormat& format, int region) {
  switch (region) {
    case 0:
      return 0;
    case 1:
      return format.large_pages();
    case 2:
      return uint64_t{1} << (30 - kPageShift);
    default:
      return uint64_t{1} << ((format.levels() <= 3   ? 31
                              : format.levels() == 4 ? 39
                                                     : 48) -
                             kPageShift);
  }
}

// The address of the first byte of the page.
inline uint64_t AddressOf(const GuestFormat& format, const Place& place) {
  return (FirstPageOf(format, place.region) + PageInRegion(format, place.index))
         << kPageShift;
}

// A guest's kernel has all of the VM's memory at one address, mapped by large
// pages in each of its spaces.
inline uint64_t DirectMap(const GuestFormat& format) {
  switch (format.levels()) {
    case 4:
      return 0xffff'8000'0000'0000;
    case 5:
      return 0xff00'0000'0000'0000;
    default:
      return 0xc000'0000;
  }
}

}  // namespace mmu::testing

#endif  // TESTS_MODEL_GUEST_LAYOUT_H_
