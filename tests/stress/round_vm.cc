#include "tests/stress/round_vm.h"

#include <cstdint>

#include "mmu_core/base/address.h"
#include "mmu_core/vm/core/vm_config.h"
#include "tests/stress/round_config.h"

namespace mmu::stress {

MemslotConfig SlotOf(const RoundConfig& round, uint32_t id, Gfn start,
                     uint64_t pages) {
  MemslotConfig slot;
  slot.slot = id;
  slot.gpa = ToGpa(start);
  slot.size_bytes = pages * kPageSize;
  slot.backing = id % 2 == 0 ? BackingKind::kAnonymous : BackingKind::kMemfd;
  slot.host_page_level = round.host_page_level;
  return slot;
}

VmConfig VmOf(const RoundConfig& round) {
  VmConfig config;
  config.mmu = round.mmu;
  config.stage2 = round.stage2;
  config.guest_paging = round.guest_paging;
  config.shadow_page_limit = round.shadow_page_limit;
  config.format = round.format;
  config.ad_bits =
      round.ad_bits ? VmConfig::AdBits::kOn : VmConfig::AdBits::kOff;
  config.pml = round.pml ? VmConfig::Pml::kYes : VmConfig::Pml::kNo;
  config.root_levels = round.root_levels;
  config.vcpu_count = round.vcpus;
  config.dirty_ring_entries = round.dirty_ring_entries;
  if (round.has_device()) {
    config.companion_bitmap = VmConfig::CompanionBitmap::kYes;
  }
  config.mmio_caching = round.mmio_caching;
  config.slot_zap = round.slot_zap;
  config.tlb = round.tlb;
  config.memslots = {SlotOf(round, 0, Gfn(0), kMigratedPages),
                     SlotOf(round, 1, Gfn(kMigratedPages), kOtherPages)};
  if (round.has_huge_range()) {
    config.memslots.push_back(
        SlotOf(round, kHugeSlot, kHugeRange.start, kHugeRange.pages()));
  }
  return config;
}

}  // namespace mmu::stress
