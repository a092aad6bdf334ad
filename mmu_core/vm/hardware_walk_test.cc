#include "mmu_core/vm/vcpu/hardware_walk.h"

#include <cstdint>
#include <memory>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/dirty/pml_buffer.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/vcpu/fault_handler.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/vm/vm_state.h"

namespace mmu {
namespace {

using ::mmu::testing::AllMappings;
using ::mmu::testing::MakeVm;
using ::mmu::testing::Mapping;
using ::mmu::testing::Read;
using ::mmu::testing::Slot;
using ::mmu::testing::SpteOf;
using ::mmu::testing::Write;
using ::testing::ElementsAre;
using ::testing::TestWithParam;
using ::testing::Values;

constexpr uint64_t kMiB = uint64_t{1} << 20;

class HardwareWalkTest : public TestWithParam<EntryFormat> {
 protected:
  static WalkResult Walk(Vm& vm, Gfn gfn, AccessKind kind) {
    const VmState& state = vm.state();
    return HardwareWalk(state.tdp.format(), state.mmio, state.memory,
                        *state.vcpus[0]->root(), gfn, kind,
                        /*pml=*/nullptr);
  }
  // Clears A and D of everything below 1 GiB.
  static void ClearAccessedAndDirty(Vm& vm) {
    VmState& state = vm.state();
    ASSERT_TRUE(
        vm.Age(GfnRange::Of(Gfn(0), 512), AgeMode::kTestAndClear, nullptr)
            .ok());
    MmuReadLocked lock(state.mmu_lock, LockOp::kAge);
    state.tdp.ClearDirty(lock, 0, GfnRange::Of(Gfn(0), 512), nullptr);
  }
};

INSTANTIATE_TEST_SUITE_P(Formats, HardwareWalkTest,
                         Values(EntryFormat::kEpt, EntryFormat::kNpt));

TEST_P(HardwareWalkTest, AnUnmappedPageIsNotPresent) {
  auto vm = MakeVm({Slot(0, 0, 2 * kMiB)}, 1, GetParam());
  Read(*vm, 0);
  EXPECT_EQ(Walk(*vm, Gfn(9), AccessKind::kRead).kind,
            WalkResult::Kind::kNotPresent);
  EXPECT_EQ(Walk(*vm, Gfn(uint64_t{1} << 30), AccessKind::kRead).kind,
            WalkResult::Kind::kNotPresent);
}

// Covers: TLB-07
TEST_P(HardwareWalkTest, AReadSetsAccessedAndAWriteDirtyToo) {
  auto vm = MakeVm({Slot(0, 0, 2 * kMiB)}, 1, GetParam());
  Write(*vm, 0x1000);
  ClearAccessedAndDirty(*vm);
  ASSERT_THAT(AllMappings(vm->state()),
              ElementsAre(Mapping{1, Level::k4K, "rw"}));

  WalkResult walk = Walk(*vm, Gfn(1), AccessKind::kRead);
  ASSERT_EQ(walk.kind, WalkResult::Kind::kTranslated);
  EXPECT_TRUE(walk.entry.writable);
  EXPECT_FALSE(walk.entry.dirty_set);
  EXPECT_THAT(AllMappings(vm->state()),
              ElementsAre(Mapping{1, Level::k4K, "rwa"}));

  walk = Walk(*vm, Gfn(1), AccessKind::kWrite);
  ASSERT_EQ(walk.kind, WalkResult::Kind::kTranslated);
  EXPECT_TRUE(walk.entry.dirty_set);
  EXPECT_THAT(AllMappings(vm->state()),
              ElementsAre(Mapping{1, Level::k4K, "rwad"}));
  EXPECT_EQ(vm->Stats().flush.remote_tlb_flush_requests, 0u);
}

// Covers: DL-30
TEST(HardwareWalkLogTest, ThePageOfEachWriteThatSetsDIsNoted) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB, Level::k2M)});
  Write(*vm, 0x1000);
  VmState& state = vm->state();
  const auto clear_dirty = [&] {
    MmuReadLocked lock(state.mmu_lock, LockOp::kAge);
    state.tdp.ClearDirty(lock, 0, GfnRange::Of(Gfn(0), 1024), nullptr);
  };
  PmlBuffer pml;
  const auto walk = [&](uint64_t gfn, AccessKind kind) {
    return HardwareWalk(state.tdp.format(), state.mmio, state.memory,
                        *state.vcpus[0]->root(), Gfn(gfn), kind, &pml)
        .kind;
  };
  walk(9, AccessKind::kWrite);
  EXPECT_TRUE(pml.empty()) << "D was set already";
  clear_dirty();
  walk(9, AccessKind::kRead);
  EXPECT_TRUE(pml.empty());
  walk(9, AccessKind::kWrite);
  walk(10, AccessKind::kWrite);  // translated by the same leaf
  std::vector<uint64_t> noted;
  pml.ForEach([&](Gpa gpa) { noted.push_back(gpa.value()); });
  EXPECT_THAT(noted, ElementsAre(0x9000)) << "4 KiB, whatever maps it";

  while (!pml.full()) pml.Log(Gpa(0));
  EXPECT_EQ(walk(11, AccessKind::kWrite), WalkResult::Kind::kTranslated)
      << "no room is needed";
  clear_dirty();
  EXPECT_EQ(walk(11, AccessKind::kRead), WalkResult::Kind::kTranslated);
  EXPECT_EQ(walk(11, AccessKind::kWrite), WalkResult::Kind::kLogFull);
  EXPECT_THAT(AllMappings(state), ElementsAre(Mapping{0, Level::k2M, "rwa"}))
      << "the access did not happen";
}

TEST_P(HardwareWalkTest, AForbiddenWriteIsAViolationThatSetsNoBit) {
  MemslotConfig readonly = Slot(0, 0, 2 * kMiB);
  readonly.mode = MemslotConfig::Mode::kReadOnly;
  auto vm = MakeVm({readonly}, 1, GetParam());
  Read(*vm, 0x1000);
  ClearAccessedAndDirty(*vm);
  EXPECT_EQ(Walk(*vm, Gfn(1), AccessKind::kWrite).kind,
            WalkResult::Kind::kNotAllowed);
  EXPECT_THAT(AllMappings(vm->state()),
              ElementsAre(Mapping{1, Level::k4K, "r"}));
}

TEST_P(HardwareWalkTest, TheEntryHasTheSizeAndFrameOfTheMapping) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB, Level::k2M)}, 1, GetParam());
  Read(*vm, 2 * kMiB);
  const WalkResult walk = Walk(*vm, Gfn(512 + 77), AccessKind::kExec);
  ASSERT_EQ(walk.kind, WalkResult::Kind::kTranslated);
  EXPECT_EQ(walk.entry.level, Level::k2M);
  EXPECT_EQ(walk.entry.base_page, PageNumber(512));
  EXPECT_TRUE(walk.entry.executable);
  const Spte spte = SpteOf(vm->state(), Gfn(512 + 77));
  EXPECT_EQ(walk.entry.pfn, spte.pfn());
  EXPECT_EQ(walk.entry.host, vm->state().memory.PointerTo(spte.pfn()));
  EXPECT_EQ(walk.entry.root_id, vm->state().vcpus[0]->root()->id());
}

}  // namespace
}  // namespace mmu
