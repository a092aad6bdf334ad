#include "mmu_core/vm/run/guest_options.h"

#include "mmu_core/base/level.h"
#include "mmu_core/guest/kernel/paging_geometry.h"

namespace mmu {
namespace {

const PagingGeometry& GeometryOf(GuestPagingConfig::Mode mode) {
  switch (mode) {
    case GuestPagingConfig::Mode::k32Bit:
      return PagingGeometry::k32Bit;
    case GuestPagingConfig::Mode::kPae:
      return PagingGeometry::kPae;
    case GuestPagingConfig::Mode::k5Level:
      return PagingGeometry::k5Level;
    case GuestPagingConfig::Mode::k4Level:
      break;
  }
  return PagingGeometry::k4Level;
}

}  // namespace

KernelProgramOptions KernelOptions(const VmConfig& config, uint64_t seed) {
  const GuestPagingConfig& paging = config.guest_paging;
  KernelProgramOptions options;
  options.kernel.geometry = GeometryOf(paging.mode);
  options.kernel.large_pages =
      paging.large_pages == GuestPagingConfig::LargePages::kYes
          ? GuestKernelOptions::LargePages::kYes
          : GuestKernelOptions::LargePages::kNo;
  options.processes = paging.processes;
  options.seed = seed;
  return options;
}

L2ProgramOptions HypervisorOptions(const VmConfig& config, uint64_t seed) {
  const GuestPagingConfig& paging = config.guest_paging;
  L2ProgramOptions options;
  options.hypervisor = {
      .tables = config.format == EntryFormat::kEpt ? GuestTables::kEpt
                                                   : GuestTables::kNpt,
      .root_level = paging.mode == GuestPagingConfig::Mode::k5Level
                        ? Level::k256T
                        : Level::k512G,
      // The processor offers L1 only features that it has itself.
      .ad_bits = config.ad_bits == VmConfig::AdBits::kOn &&
                 paging.ad_bits == GuestPagingConfig::AdBits::kOn,
      .max_page = paging.large_pages == GuestPagingConfig::LargePages::kYes
                      ? Level::k2M
                      : Level::k4K,
  };
  options.seed = seed;
  return options;
}

}  // namespace mmu
