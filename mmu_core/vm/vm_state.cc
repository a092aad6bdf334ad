#include "mmu_core/vm/vm_state.h"

#include <algorithm>
#include <cstdint>
#include <memory>

namespace mmu {
namespace {

// What the host can address (TRM-06), and the root: four levels address 48
// bits.
uint64_t MaxGfn(const VmConfig& config) {
  const int address_bits =
      std::min(HostAddressBits(config), config.root_levels == 5 ? 57 : 48);
  return (uint64_t{1} << (address_bits - kPageShift)) - 1;
}

const SpteFormat& FormatOf(const VmConfig& config) {
  if (config.format == EntryFormat::kNpt) return SpteFormat::Npt();
  return config.ad_bits == VmConfig::AdBits::kOn ? SpteFormat::Ept()
                                                 : SpteFormat::EptWithoutAd();
}

}  // namespace

VmState::VmState(const VmConfig& vm_config, TablePool& table_pool,
                 NxParameters& nx_parameters)
    : config(vm_config),
      pool(table_pool),
      slots({.max_gfn = MaxGfn(vm_config),
             .address_spaces = 2,
             .invalidations = &invalidations,
             .bitmaps = vm_config.dirty_ring_entries == 0 ||
                                vm_config.companion_bitmap ==
                                    VmConfig::CompanionBitmap::kYes
                            ? MemslotTableOptions::Bitmaps::kYes
                            : MemslotTableOptions::Bitmaps::kNo}),
      mmio(vm_config.format == EntryFormat::kEpt ? MmioFormat::Kind::kEpt
                                                 : MmioFormat::Kind::kNpt,
           HostAddressBits(vm_config)),
      tdp({.format = FormatOf(vm_config),
           .lock = mmu_lock,
           .tlb = tlb,
           .pool = table_pool,
           .counters = counters,
           .invalidations = invalidations},
          {.root_level =
               vm_config.root_levels == 5 ? Level::k256T : Level::k512G,
           .max_page_level = vm_config.max_page_level}),
      operation_tables(table_pool),
      runner(vcpus),
      nx_recovery(*this, nx_parameters) {
  for (int i = 0; i < vm_config.vcpu_count; ++i) {
    vcpus.push_back(std::make_unique<Vcpu>(*this, i));
  }
}

VmState::~VmState() {
  runner.Stop();
  for (const auto& vcpu : vcpus) vcpu->ReleaseRoot();
}

}  // namespace mmu
