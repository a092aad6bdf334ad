#include "mmu_core/guest/kernel/program_layout.h"

namespace mmu {
namespace {

// A region of a program is the memory that one large page maps.
uint64_t PagesPerRegion(const PagingGeometry& geometry) {
  return geometry.LargePageBytes() / kPageSize;
}
uint64_t Regions(const PagingGeometry& geometry, uint64_t pages) {
  const uint64_t region = PagesPerRegion(geometry);
  return (pages + region - 1) / region;
}

// The maximum number of frames that the kernel needs if each process has
// `pages` pages.
uint64_t FramesFor(const GuestKernelOptions& kernel, int processes,
                   const GpaSpace& memory, uint64_t pages) {
  const PagingGeometry& geometry = kernel.geometry;
  const uint64_t levels = static_cast<uint64_t>(geometry.levels);
  const uint64_t regions = Regions(geometry, pages);
  if (kernel.large_pages == GuestKernelOptions::LargePages::kYes) {
    pages = regions * PagesPerRegion(geometry);
  }
  const uint64_t per_process = pages + 1 + regions * (levels - 1);
  // The direct map, and some frames for temporary use.
  uint64_t own = 16;
  for (const GfnRange& range : memory.ranges()) {
    const uint64_t bytes = ToGpa(range.end) - ToGpa(range.start);
    own += bytes / geometry.LargePageBytes() /
               static_cast<uint64_t>(geometry.EntriesPerTable()) +
           2 * levels;
  }
  return static_cast<uint64_t>(processes) * per_process + own;
}

}  // namespace

// The first region is not at 0: programs have no memory there.
ProgramLayout::ProgramLayout(const PagingGeometry& geometry, uint64_t pages)
    : geometry_(geometry),
      pages_(pages),
      region_stride_bytes_(geometry.user_end.value() /
                               (Regions(geometry, pages) + 1) &
                           ~(geometry.LargePageBytes() - 1)) {}

uint64_t ProgramLayout::FittingPages(const GuestKernelOptions& kernel,
                                     int processes, const GpaSpace& memory) {
  uint64_t fits = 0;
  uint64_t too_many = memory.pages() + 1;
  while (too_many - fits > 1) {
    const uint64_t middle = fits + (too_many - fits) / 2;
    (FramesFor(kernel, processes, memory, middle) <= memory.pages()
         ? fits
         : too_many) = middle;
  }
  return fits;
}

uint64_t ProgramLayout::regions() const { return Regions(geometry_, pages_); }

Gva ProgramLayout::GvaOf(uint64_t page) const {
  const uint64_t region = page / pages_per_region();
  return geometry_.user_end - (regions() - region) * region_stride_bytes_ +
         page % pages_per_region() * kPageSize;
}

}  // namespace mmu
