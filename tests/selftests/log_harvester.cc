#include "tests/selftests/log_harvester.h"

#include <set>

#include "mmu_core/base/check.h"
#include "mmu_core/dirty/dirty_ring.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/logging/dirty_rings.h"
#include "mmu_core/vm/logging/kvm_dirty_log.h"
#include "mmu_core/vm/logging/log_stop.h"
#include "mmu_core/vm/vm_state.h"

namespace mmu::testing {

std::ostream& operator<<(std::ostream& os, LogMode mode) {
  switch (mode) {
    case LogMode::kGet:
      return os << "Get";
    case LogMode::kClear:
      return os << "Clear";
    case LogMode::kEpochs:
      return os << "Epochs";
    case LogMode::kRing:
      return os << "Ring";
    case LogMode::kRingEpochs:
      return os << "RingEpochs";
  }
  return os;
}

std::vector<uint64_t> Harvest(Vm& vm, uint32_t slot, LogMode mode) {
  switch (mode) {
    case LogMode::kGet: {
      const auto words = GetAndClearDirtyLog(vm.state(), slot, nullptr);
      MMU_CHECK(words.ok());
      return PagesOf(*words);
    }
    case LogMode::kClear: {
      const auto words = CopyDirtyLog(vm.state(), slot);
      MMU_CHECK(words.ok());
      const std::vector<uint64_t> pages = PagesOf(*words);
      const uint64_t npages = vm.state().dirty_log.FindSlot(slot)->npages();
      const auto cleared =
          ClearBitmap(vm.state(), slot, 0, npages, *words, nullptr);
      MMU_CHECK(cleared.ok());
      MMU_CHECK(cleared->cleared_page_count == pages.size());
      return pages;
    }
    case LogMode::kRing: {
      SyncCpuDirtyLogs(vm.state(), nullptr);
      std::set<uint64_t> pages;  // a page may be in two rings
      uint64_t collected = 0;
      for (const auto& vcpu : vm.state().vcpus) {
        collected += vcpu->dirty_ring()->Collect([&](DirtyGfn page) {
          MMU_CHECK(page.slot == slot);
          pages.insert(page.offset);
        });
      }
      const auto reset = ResetDirtyRings(
          vm.state(), [] { return false; }, nullptr);
      MMU_CHECK(reset.ok());
      MMU_CHECK(*reset == collected);
      return {pages.begin(), pages.end()};
    }
    case LogMode::kEpochs:
    case LogMode::kRingEpochs: {
      uint64_t epoch = 0;
      const std::vector<uint64_t> pages = SealAndList(vm, slot, &epoch);
      const uint64_t npages = vm.state().dirty_log.FindSlot(slot)->npages();
      const auto cleared = ClearAndDeliver(vm, slot, epoch, 0, npages,
                                           MaskOf(npages, pages), nullptr);
      MMU_CHECK(cleared.ok());
      MMU_CHECK(cleared->cleared_page_count == pages.size());
      return pages;
    }
  }
  return {};
}

}  // namespace mmu::testing
