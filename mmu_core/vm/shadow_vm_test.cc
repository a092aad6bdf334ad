// The shadow MMU together with the rest of a VM.

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/level.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/guest/hypervisor/l1_hypervisor.h"
#include "mmu_core/guest_paging/control_registers.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/paging/spte_format.h"
#include "mmu_core/rmap/slot_rmaps.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/interleaving.h"
#include "mmu_core/testing/tdp_test_util.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/run/guest_processor.h"
#include "mmu_core/vm/run/l1_processor.h"
#include "mmu_core/vm/vcpu/pre_fault.h"
#include "mmu_core/vm/vcpu/shadow_vcpu.h"

namespace mmu::testing {
namespace {

constexpr uint64_t kPresentWritable = 3;

SlotRmaps* RmapsOf(Vm& vm, uint32_t slot) {
  RcuReadGuard rcu;
  return vm.state().slots.Active(0).FindById(slot)->shadow_rmaps();
}

VmConfig Config(MmuMode mode, uint64_t bytes,
                EntryFormat format = EntryFormat::kEpt) {
  VmConfig config;
  config.mmu = mode;
  config.format = format;
  config.memslots = {Slot(0, 0, bytes)};
  return config;
}

// L1 with its hypervisor in the first 16 MiB, and L2.
class L2Test : public ::testing::Test {
 protected:
  explicit L2Test(const VmConfig& config = Config(MmuMode::kNested, 64 * kMiB))
      : vm_(MakeVmFrom(config)),
        cpu_(*vm_->state().vcpus[0], Level::k512G),
        l1_(cpu_, vm_->GuestSpace(), {.ad_bits = true}) {
    EXPECT_TRUE(l1_.Boot().ok());
  }

  void WriteL2(uint64_t nested, uint64_t word = 1) {
    EXPECT_TRUE(l1_.Access(Gpa(nested), AccessKind::kWrite, &word).ok());
  }
  uint64_t ReadL2(uint64_t nested) {
    uint64_t word = 0;
    EXPECT_TRUE(l1_.Access(Gpa(nested), AccessKind::kRead, &word).ok());
    return word;
  }
  uint64_t FrameOf(uint64_t nested) {
    return l1_.FrameOf(Gpa(nested)).value().value();
  }
  const VmState& state() const { return vm_->state(); }

  std::unique_ptr<Vm> vm_;
  L1Processor cpu_;
  L1Hypervisor l1_;
};

// Covers: SHD-13, SLOT-46
TEST_F(L2Test, SlotsHaveRmapsFromTheFirstShadowRootOn) {
  Write(*vm_, 0x1000);
  EXPECT_EQ(RmapsOf(*vm_, 0), nullptr) << "the TDP MMU needs none";
  WriteL2(0);
  ASSERT_NE(RmapsOf(*vm_, 0), nullptr);
  const Gfn root = ToGfn(l1_.root());
  EXPECT_EQ(RmapsOf(*vm_, 0)->WriteTrackers(root), 1);
  EXPECT_FALSE(RmapsOf(*vm_, 0)->IsWriteTracked(Gfn(FrameOf(0))));
  // A slot that is made later gets rmaps at once.
  ASSERT_TRUE(vm_->SetMemslot(Slot(1, 128 * kMiB, kMiB)).ok());
  EXPECT_NE(RmapsOf(*vm_, 1), nullptr);
  EXPECT_EQ(AuditFindings(*vm_), "");
}

// Covers: TRM-04
TEST_F(L2Test, ShadowPagesAreForL2Alone) {
  WriteL2(0);
  Write(*vm_, 0x3f00000);
  ASSERT_GT(state().shadow->pages().in_use(), 0u);
  const ShadowPageSet& pages = state().shadow->pages().set();
  for (const ShadowPageState* page = pages.active().newest(); page != nullptr;
       page = page->older) {
    EXPECT_TRUE(page->page->role.guest_mode());
  }
  EXPECT_EQ(LevelOf(state(), Gfn(0x3f00)), Level::k4K) << "of the TDP MMU";
}

// Covers: SHD-13
TEST(ShadowVmTest, AVmOfTheTdpMmuNeverHasRmaps) {
  auto vm = MakeVm({Slot(0, 0, kMiB)});
  Write(*vm, 0);
  EXPECT_EQ(vm->state().shadow, nullptr);
  EXPECT_EQ(RmapsOf(*vm, 0), nullptr);
}

// Covers: SLOT-30
TEST(ShadowVmTest, TheLimitIsOnePageInFiftyUntilSomebodyAsksForAnother) {
  VmConfig config = Config(MmuMode::kTdpShadow, kGiB);
  config.memslots = {Slot(0, 0, kGiB, Level::k4K, BackingKind::kMetadataOnly)};
  auto vm = MakeVmFrom(config);
  const ShadowPages& pages = vm->state().shadow->pages();
  EXPECT_EQ(pages.limit(), 5242u);
  MemslotConfig gone = config.memslots[0];
  gone.size_bytes = 0;
  ASSERT_TRUE(vm->SetMemslot(gone).ok());
  EXPECT_EQ(pages.limit(), 64u);
  config.shadow_page_limit = 100;
  EXPECT_EQ(MakeVmFrom(config)->state().shadow->pages().limit(), 100u);
}

// Covers: TDP-32
TEST(ShadowVmTest, TablesOfTheTdpMmuDoNotCountForTheLimit) {
  VmConfig config = Config(MmuMode::kNested, 512 * kMiB);
  config.memslots[0].backing = BackingKind::kMetadataOnly;
  config.shadow_page_limit = 64;
  auto vm = MakeVmFrom(config);
  for (uint64_t gpa = 0; gpa < 512 * kMiB; gpa += 2 * kMiB) Write(*vm, gpa);
  EXPECT_GE(vm->Stats().table_pages, 256u);
  EXPECT_EQ(vm->state().shadow->pages().in_use(), 0u);
  EXPECT_EQ(vm->Stats().pages_4k, 256u);
}

// Covers: PF-11
TEST_F(L2Test, AWriteProtectFaultOfL2IsNeverFast) {
  WriteL2(0);
  ASSERT_TRUE(StartLog(*vm_, {}, nullptr).ok());
  const auto before = vm_->VcpuStats()[0];
  WriteL2(0);
  const auto after = vm_->VcpuStats()[0];
  EXPECT_EQ(after.pf_fast, before.pf_fast);
  EXPECT_EQ(after.pf_fixed, before.pf_fixed + 1);
  EXPECT_EQ(AuditFindings(*vm_), "");
}

// Covers: PF-11
TEST(ShadowVmTest, OneOfADirectShadowMmuIs) {
  auto vm = MakeVmFrom(Config(MmuMode::kTdpShadow, kMiB));
  Write(*vm, 0);
  ASSERT_TRUE(StartLog(*vm, {}, nullptr).ok());
  const uint64_t before = vm->VcpuStats()[0].pf_fast;
  Write(*vm, 0);
  EXPECT_EQ(vm->VcpuStats()[0].pf_fast, before + 1);
  EXPECT_EQ(SealAndList(*vm, 0), (std::vector<uint64_t>{0}));
  EXPECT_EQ(AuditFindings(*vm), "");
}

// The fault has found its frame when all shadow pages become obsolete. Its page
// is not one of those that the first fault maps ahead.
// Covers: PF-05
TEST(ShadowVmTest, AFaultWhoseRootHasBecomeObsoleteRetriesUnderTheLock) {
  auto vm = MakeVmFrom(Config(MmuMode::kTdpShadow, kMiB));
  Write(*vm, 0);
  Interleaving threads;
  threads.Add("fault", [&] { Write(*vm, 64 * kPageSize, 7); });
  threads.RunTo("fault", HookPoint::kFrameToLock);
  {
    MutexLock lock(vm->state().slots.slots_lock);
    vm->state().mmus.FastZapAll(LockOp::kZap, nullptr);
  }
  const auto before = vm->VcpuStats()[0];
  threads.RunToEnd("fault");
  const auto after = vm->VcpuStats()[0];
  EXPECT_EQ(after.pf_retried, before.pf_retried + 1);
  EXPECT_EQ(after.pf_fixed, before.pf_fixed + 1);
  EXPECT_EQ(ReadValue(*vm, 64 * kPageSize), 7u);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: SHD-70
TEST(ShadowVmTest, WithoutTheTdpMmuALogSplitsNothingAhead) {
  VmConfig config = Config(MmuMode::kTdpShadow, 4 * kMiB);
  config.memslots = {Slot(0, 0, 4 * kMiB, Level::k2M)};
  auto vm = MakeVmFrom(config);
  Write(*vm, 0);
  Write(*vm, 2 * kMiB);
  ASSERT_EQ(vm->Stats().pages_2m, 2u);
  DirtyLogConfig log;
  log.split = SplitPolicy::kEager;
  ASSERT_TRUE(StartLog(*vm, log, nullptr).ok());
  EXPECT_EQ(vm->Stats().pages_2m, 2u);
  EXPECT_EQ(vm->Stats().pages_4k, 0u);
  EXPECT_EQ(vm->Stats().Splits(Level::k2M, SplitTrigger::kEager), 0u);
  // They are protected: the first write to a page is noticed.
  Write(*vm, 5 * kPageSize);
  EXPECT_EQ(SealAndList(*vm, 0), (std::vector<uint64_t>{5}));
  EXPECT_EQ(AuditFindings(*vm), "");
}

VmConfig PmlConfig() {
  VmConfig config = Config(MmuMode::kNested, 64 * kMiB);
  config.pml = VmConfig::Pml::kYes;
  return config;
}
class PmlL2Test : public L2Test {
 protected:
  PmlL2Test() : L2Test(PmlConfig()) {}
};

TEST(ShadowVmTest, TheProcessorDoesNotLogWhatShadowPagesMap) {
  VmConfig config = Config(MmuMode::kTdpShadow, kMiB);
  config.pml = VmConfig::Pml::kYes;
  const auto vm = Vm::Create(config);
  ASSERT_FALSE(vm.ok());
  EXPECT_EQ(DetailOf(vm.status()).field, "pml");
}

// Covers: DL-33, SPTE-04
TEST_F(PmlL2Test, WhatL2WritesIsLoggedByFaultsUnderL1sGfns) {
  WriteL2(0x5000);
  ASSERT_TRUE(StartLog(*vm_, {}, nullptr).ok());
  uint64_t epoch = 0;
  SealAndList(*vm_, 0, &epoch);
  const uint64_t faults = vm_->VcpuStats()[0].pf_fixed;
  WriteL2(0x5000, 7);
  EXPECT_EQ(vm_->VcpuStats()[0].pf_fixed, faults + 1)
      << "its leaf is write-protected, not clean";
  EXPECT_EQ(SealAndList(*vm_, 0), (std::vector<uint64_t>{FrameOf(0x5000)}));
  // Only L2's leafs are write-protected (type 2); the processor logs L1's.
  uint64_t of_type_2 = 0;
  const ShadowPageSet& pages = state().shadow->pages().set();
  for (const ShadowPageState* page = pages.active().newest(); page != nullptr;
       page = page->older) {
    for (int i = 0; i < kEntriesPerTable; ++i) {
      const Spte spte = page->EntryAt(i).Load();
      if (!spte.IsPresentLeaf(page->level())) continue;
      EXPECT_TRUE(state().tdp.format().NeedsWriteProtect(spte));
      ++of_type_2;
    }
  }
  EXPECT_EQ(of_type_2, 1u);
  Write(*vm_, 0x3f00000);
  EXPECT_FALSE(
      state().tdp.format().NeedsWriteProtect(SpteOf(state(), Gfn(0x3f00))));
  EXPECT_EQ(AuditFindings(*vm_), "");
}

// Covers: SHD-41
TEST_F(L2Test, APageThatWasATableOfL1BecomesWritable) {
  WriteL2(0);
  // The page directory of nested gpa 0.
  uint64_t table = l1_.root().value();
  for (int level = 4; level > 2; --level) {
    table = ReadValue(*vm_, table) & 0x000f'ffff'ffff'f000;
  }
  const Gfn gfn = ToGfn(Gpa(table));
  ASSERT_TRUE(RmapsOf(*vm_, 0)->IsWriteTracked(gfn));
  const uint64_t written = vm_->Stats().mmu_pte_write;
  for (uint64_t i = 0; i < 20; ++i) {
    ASSERT_EQ(Write(*vm_, table + 8 * (100 + i), i), AccessOutcome::kDone);
  }
  for (uint64_t i = 0; i < 20; ++i) {
    EXPECT_EQ(ReadValue(*vm_, table + 8 * (100 + i)), i);
  }
  EXPECT_FALSE(RmapsOf(*vm_, 0)->IsWriteTracked(gfn));
  EXPECT_EQ(vm_->Stats().mmu_flooded, 1u);
  EXPECT_EQ(vm_->Stats().mmu_pte_write, written + 3)
      << "the other writes need no emulation";
  WriteL2(0, 5);  // L2 goes on
  EXPECT_EQ(ReadL2(0), 5u);
  EXPECT_EQ(AuditFindings(*vm_), "");
}

// A guest with its own tables, which begins with paging off.
class PagedTest : public ::testing::Test {
 protected:
  PagedTest()
      : vm_(MakeVmFrom(Config(MmuMode::kShadow, 16 * kMiB, EntryFormat::kNpt))),
        cpu_(*vm_->state().vcpus[0]) {}

  GuestCpu::Outcome Access(uint64_t gva, AccessKind kind, uint64_t* word) {
    return cpu_.Access(Gva(gva), 8, kind, Privilege::kSupervisor, word,
                       &fault_);
  }
  void Put(uint64_t gpa, uint64_t word) {
    ASSERT_EQ(Access(gpa, AccessKind::kWrite, &word), GuestCpu::Outcome::kDone);
  }
  // Four levels at 0x1000..0x4000 that map the page `gva` to `gpa`.
  void MapAndPage(uint64_t gva, uint64_t gpa) {
    for (uint64_t level = 4; level > 1; --level) {
      Put(0x1000 * (5 - level) + 8 * (gva >> (3 + 9 * level) & 511),
          0x1000 * (6 - level) | kPresentWritable);
    }
    Put(0x4000 + 8 * (gva >> 12 & 511), gpa | kPresentWritable);
    cpu_.EnablePaging(PagingGeometry::k4Level, Gpa(0x1000));
  }

  std::unique_ptr<Vm> vm_;
  GuestProcessor cpu_;
  GuestPageFault fault_;
};

// Covers: ROLE-22
TEST_F(PagedTest, WithPagingOffMemoryIsLinear) {
  Put(0x5008, 77);
  uint64_t word = 0;
  ASSERT_TRUE(
      vm_->ReadMemory(Gpa(0x5008),
                      absl::MakeSpan(reinterpret_cast<std::byte*>(&word), 8))
          .ok());
  EXPECT_EQ(word, 77u);
  EXPECT_EQ(vm_->state().vcpus[0]->shadow()->roots().level(), Level::k1G);
  EXPECT_EQ(AuditFindings(*vm_), "");
}

// Covers: ROLE-24
TEST_F(PagedTest, ARootWhereThereIsNoMemoryFaults) {
  MapAndPage(0x400000, 0x6000);
  cpu_.LoadCr3(Gpa(kGiB), 0, Cr3Load::kFlush);
  uint64_t word = 0;
  EXPECT_EQ(Access(0x400000, AccessKind::kRead, &word),
            GuestCpu::Outcome::kFault);
  EXPECT_EQ(fault_.error_code, 0u);
  cpu_.LoadCr3(Gpa(0x1000), 0, Cr3Load::kFlush);
  EXPECT_EQ(Access(0x400000, AccessKind::kRead, &word),
            GuestCpu::Outcome::kDone);
  EXPECT_EQ(AuditFindings(*vm_), "");
}

// Covers: SLOT-22
TEST_F(PagedTest, WhileASwapGoesOnNoMmioSpteIsMade) {
  MapAndPage(0x400000, kGiB);
  auto& state = vm_->state();
  uint64_t generation = 0;
  {
    RcuReadGuard rcu;
    generation = state.slots.Active(0).generation();
  }
  const auto set_generation = [&](uint64_t value) {
    MutexLock lock(state.slots.slots_lock);
    state.slots.SetGenerationForTest(0, value);
  };
  set_generation(generation | kGenerationInProgress);
  uint64_t word = 0;
  ASSERT_EQ(Access(0x400000, AccessKind::kRead, &word),
            GuestCpu::Outcome::kDone);
  EXPECT_EQ(word, ~uint64_t{0});
  EXPECT_EQ(vm_->VcpuStats()[0].pf_mmio_spte_created, 0u);
  set_generation(generation);
}

// Covers: PF-24, PF-35
TEST_F(PagedTest, AVirtualPageWithoutMemoryIsADevice) {
  MapAndPage(0x400000, kGiB);
  uint64_t word = 0;
  ASSERT_EQ(Access(0x400000, AccessKind::kRead, &word),
            GuestCpu::Outcome::kDone);
  EXPECT_EQ(word, ~uint64_t{0});
  const auto created = [&] { return vm_->VcpuStats()[0].pf_mmio_spte_created; };
  EXPECT_EQ(created(), 1u);
  // The MMIO SPTE is of the current generation: no fault is counted (PF-02).
  const auto taken = [&] { return vm_->VcpuStats()[0].pf_taken; };
  const uint64_t before = taken();
  word = 0;
  ASSERT_EQ(Access(0x400000, AccessKind::kRead, &word),
            GuestCpu::Outcome::kDone);
  EXPECT_EQ(word, ~uint64_t{0});
  EXPECT_EQ(created(), 1u);
  EXPECT_EQ(taken(), before);
  // A slot appears elsewhere: the MMIO SPTE is out of date and made anew.
  ASSERT_TRUE(vm_->SetMemslot(Slot(1, 2 * kGiB, kMiB)).ok());
  word = 0;
  ASSERT_EQ(Access(0x400000, AccessKind::kRead, &word),
            GuestCpu::Outcome::kDone);
  EXPECT_EQ(word, ~uint64_t{0});
  EXPECT_EQ(created(), 2u);
  // A slot appears there.
  ASSERT_TRUE(vm_->SetMemslot(Slot(2, kGiB, kMiB)).ok());
  word = 9;
  ASSERT_EQ(Access(0x400000, AccessKind::kWrite, &word),
            GuestCpu::Outcome::kDone);
  word = 0;
  ASSERT_TRUE(
      vm_->ReadMemory(Gpa(kGiB),
                      absl::MakeSpan(reinterpret_cast<std::byte*>(&word), 8))
          .ok());
  EXPECT_EQ(word, 9u) << "no device any more";
  EXPECT_EQ(AuditFindings(*vm_), "");
}

// Covers: ROLE-02
TEST_F(PagedTest, OnlyWhatPagingDependsOnCostsTheRoot) {
  MapAndPage(0x400000, 0x6000);
  uint64_t word = 0;
  Access(0x400000, AccessKind::kRead, &word);
  ShadowVcpu& shadow = *vm_->state().vcpus[0]->shadow();
  const uint64_t root = shadow.roots().id();
  GuestPagingState state = cpu_.control_registers();
  constexpr uint64_t kCr0Ts = uint64_t{1} << 3;
  state.cr0 |= kCr0Ts;
  cpu_.SetControlRegisters(state);
  Access(0x400000, AccessKind::kRead, &word);
  EXPECT_EQ(shadow.roots().id(), root);
  state.cr0 &= ~kCr0Wp;
  cpu_.SetControlRegisters(state);
  Access(0x400000, AccessKind::kRead, &word);
  EXPECT_NE(shadow.roots().id(), root);
}

// Covers: STAT-26, STAT-28
TEST_F(PagedTest, FaultsOfTheGuestAndInvlpgsAreCounted) {
  MapAndPage(0x400000, 0x6000);
  uint64_t word = 0;
  EXPECT_EQ(Access(0x800000, AccessKind::kRead, &word),
            GuestCpu::Outcome::kFault);
  cpu_.Invlpg(Gva(0x400000));
  EXPECT_EQ(vm_->VcpuStats()[0].pf_guest, 1u);
  EXPECT_EQ(vm_->VcpuStats()[0].invlpg, 1u);
}

// Covers: PF-41
TEST_F(PagedTest, NoPageCanBeMappedAheadOfAGuestThatPages) {
  PreFaultRange range = {.gpa = Gpa(0), .size_bytes = kPageSize};
  const absl::Status status = PreFaultMemory(
      vm_->state(), *vm_->state().vcpus[0], range, [] { return false; });
  EXPECT_EQ(DetailOf(status).kvm_errno, EOPNOTSUPP);
}

}  // namespace
}  // namespace mmu::testing
