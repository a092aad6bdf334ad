// VMs on stage-2 tables for tests of dirty logging and of translations.
#ifndef MMU_CORE_TESTING_STAGE2_VM_TEST_UTIL_H_
#define MMU_CORE_TESTING_STAGE2_VM_TEST_UTIL_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "gtest/gtest.h"
#include "mmu_core/base/arm_geometry.h"
#include "mmu_core/base/level.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/stage2/s2_page.h"
#include "mmu_core/stage2/stage2_state.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/testing/dirty_log_test_util.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/vm/vm_state.h"

namespace mmu::testing {

inline constexpr uint64_t kBlocks = 4;

// A VM with granules of 4 KiB, and four blocks of memory on host pages of
// 2 MiB. The guest has written to each block.
inline std::unique_ptr<Vm> MakeStage2Vm(uint64_t chunk_bytes,
                                        const Stage2Config& options = {}) {
  VmConfig config;
  config.mmu = MmuMode::kStage2;
  config.stage2 = options;
  config.stage2.eager_split_chunk_bytes = chunk_bytes;
  config.memslots = {Slot(0, 0, kBlocks * 2 * kMiB, Level::k2M)};
  auto vm = MakeVmFrom(config);
  for (uint64_t block = 0; block < kBlocks; ++block) {
    EXPECT_EQ(Write(*vm, block * 2 * kMiB, block), AccessOutcome::kDone);
    EXPECT_EQ(LevelOf(vm->state(), Gfn(block * kPages2M)), Level{2});
  }
  return vm;
}

// The leaf that maps page `page`; 0 if none does.
inline S2Descriptor Stage2LeafOf(Vm& vm, uint64_t page) {
  RcuReadGuard rcu;
  S2Cursor<Arm4K> c = vm.state().stage2->of<Arm4K>().CursorOver(
      GfnRange::Of(Gfn(page), 1), Level{1});
  while (c.Valid() && !c.IsPresentLeaf()) c.Next();
  return c.Valid() ? c.old_spte() : S2Descriptor();
}

inline uint64_t FlushRequests(const Vm& vm, FlushReason reason) {
  return vm.Stats().flush.requests[static_cast<size_t>(reason)];
}

}  // namespace mmu::testing

#endif  // MMU_CORE_TESTING_STAGE2_VM_TEST_UTIL_H_
