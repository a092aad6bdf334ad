// Shadow pages of nested guests under the limit: which go, and which stay.

#include <cstdint>
#include <memory>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/level.h"
#include "mmu_core/guest/hypervisor/l1_hypervisor.h"
#include "mmu_core/guest/hypervisor/l1_shared.h"
#include "mmu_core/shadow/shadow_page_set.h"
#include "mmu_core/testing/tdp_test_util.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/run/l1_processor.h"
#include "mmu_core/vm/vcpu/shadow_vcpu.h"

namespace mmu::testing {
namespace {

using ::testing::ElementsAre;

constexpr uint64_t kAddress = 0x000f'ffff'ffff'f000;

// L1 with several L2 guests. The pages of a guest are 2 MiB apart, so the first
// one needs four shadow pages, and each further one needs one.
class NestedRecyclingTest : public ::testing::Test {
 protected:
  NestedRecyclingTest() {
    VmConfig config;
    config.mmu = MmuMode::kNested;
    config.shadow_page_limit = 64;
    config.memslots = {Slot(0, 0, 64 * kMiB)};
    vm_ = MakeVmFrom(config);
    shared_ = std::make_unique<L1Shared>(
        vm_->GuestSpace(), L1HypervisorOptions{.ad_bits = true}, /*cpus=*/1,
        /*guests=*/5);
    cpu_ = std::make_unique<L1Processor>(*vm_->state().vcpus[0], Level::k512G);
    l1_ = std::make_unique<L1Hypervisor>(*cpu_, *shared_, 0);
    EXPECT_TRUE(l1_->Boot().ok());
  }
  ~NestedRecyclingTest() override { EXPECT_EQ(AuditFindings(*vm_), ""); }

  void Touch(int guest, uint64_t page) {
    l1_->Select(guest);
    uint64_t word = page + 1;
    EXPECT_TRUE(
        l1_->Access(Gpa(page * 2 * kMiB), AccessKind::kWrite, &word).ok());
  }
  uint64_t Read(int guest, uint64_t page) {
    l1_->Select(guest);
    uint64_t word = 0;
    EXPECT_TRUE(
        l1_->Access(Gpa(page * 2 * kMiB), AccessKind::kRead, &word).ok());
    return word;
  }
  // The shadow pages of nested guests, by level - 1.
  std::vector<int> Pages() {
    std::vector<int> pages(4);
    const ShadowPageSet& set = vm_->state().shadow->pages().set();
    for (const ShadowPageState* page = set.active().newest(); page != nullptr;
         page = page->older) {
      EXPECT_TRUE(page->page->role.guest_mode());
      ++pages[static_cast<size_t>(page->level()) - 1];
    }
    return pages;
  }
  uint64_t in_use() const { return vm_->state().shadow->pages().in_use(); }
  uint64_t recycled() { return vm_->Stats().mmu_recycled; }
  uint64_t zapped() { return vm_->Stats().mmu_shadow_zapped; }
  uint64_t faults() { return vm_->VcpuStats()[0].pf_fixed; }
  // L1's entry of `level` for nested gpa 0 of the selected guest.
  uint64_t EntryOf0(int level) {
    uint64_t table = l1_->root().value();
    for (int at = 4; at > level; --at) {
      table = ReadValue(*vm_, table) & kAddress;
    }
    return table;
  }

  std::unique_ptr<Vm> vm_;
  std::unique_ptr<L1Shared> shared_;
  std::unique_ptr<L1Processor> cpu_;
  std::unique_ptr<L1Hypervisor> l1_;
};

// Covers: SHD-26, SHD-27, SHD-21
TEST_F(NestedRecyclingTest, TheOldestGuestsPagesGoAndTheRunningOnesStay) {
  for (uint64_t page = 0; page < 30; ++page) Touch(0, page);
  for (uint64_t page = 0; page < 24; ++page) Touch(1, page);
  EXPECT_THAT(Pages(), ElementsAre(54, 2, 2, 2)) << "4 of 64 are available";
  EXPECT_EQ(recycled(), 0u);

  // 21 pages have to go. The oldest page is the root of guest 0, which the vCPU
  // has kept, so it is in use. The next one is its page of level 3: with it go
  // the page of level 2 below, and all pages of level 1 below that.
  Touch(1, 24);
  EXPECT_EQ(recycled(), 32u);
  EXPECT_THAT(Pages(), ElementsAre(25, 1, 1, 2));

  // Guest 1 lost nothing.
  const uint64_t before = faults();
  for (uint64_t page = 0; page < 25; ++page) {
    EXPECT_EQ(Read(1, page), page + 1);
  }
  EXPECT_EQ(faults(), before);
  // Guest 0 finds its root, and builds the rest again.
  for (uint64_t page = 0; page < 30; ++page) {
    EXPECT_EQ(Read(0, page), page + 1);
  }
  EXPECT_EQ(cpu_->stats().kept_roots, 1u);
  EXPECT_EQ(faults(), before + 30);
}

// Covers: SHD-26
TEST_F(NestedRecyclingTest, TheLimitHoldsHoweverManyTablesL1Has) {
  for (uint64_t round = 0; round < 3; ++round) {
    for (int guest = 0; guest < 4; ++guest) {
      for (uint64_t page = 0; page < 100; ++page) {
        Touch(guest, page);
        ASSERT_LE(in_use(), 64u);
      }
    }
  }
  EXPECT_GT(recycled(), 1000u);
  for (int guest = 0; guest < 4; ++guest) {
    for (uint64_t page = 0; page < 100; ++page) {
      ASSERT_EQ(Read(guest, page), page + 1);
    }
  }
}

// Covers: SHD-27, SHD-54
TEST_F(NestedRecyclingTest, TheRootsThatAVcpuKeepsAreInUse) {
  for (int guest = 0; guest < 4; ++guest) Touch(guest, 0);
  std::vector<const ShadowPageState*> roots;
  const ShadowPageSet& set = vm_->state().shadow->pages().set();
  for (const ShadowPageState* page = set.active().newest(); page != nullptr;
       page = page->older) {
    if (page->level() == Level::k512G) roots.push_back(page);
  }
  ASSERT_EQ(roots.size(), 4u);
  for (uint64_t page = 0; page < 500; ++page) Touch(3, page % 200);
  EXPECT_GT(recycled(), 100u);
  for (const ShadowPageState* root : roots) {
    EXPECT_FALSE(root->IsInvalid());
    EXPECT_EQ(root->root_count, 1);
  }
  EXPECT_EQ(Pages()[3], 4);
}

// Covers: SHD-54
TEST_F(NestedRecyclingTest, FourGuestsKeepTheirRootsAndFiveDoNot) {
  for (int round = 0; round < 3; ++round) {
    for (int guest = 0; guest < 4; ++guest) Touch(guest, 0);
  }
  EXPECT_EQ(cpu_->stats().missed_roots, 4u);
  EXPECT_EQ(cpu_->stats().kept_roots, 8u);
  const ShadowVcpu& shadow = *vm_->state().vcpus[0]->shadow();
  const uint64_t id = shadow.roots().id();
  Touch(2, 0);
  EXPECT_NE(shadow.roots().id(), id);
  Touch(3, 0);
  EXPECT_EQ(shadow.roots().id(), id) << "the same root again";

  // Each of five guests in turn finds that its root was dropped last.
  const L1ProcessorStats before = cpu_->stats();
  for (int round = 0; round < 3; ++round) {
    for (int guest = 0; guest < 5; ++guest) Touch(guest, 0);
  }
  // The first round still finds some of the four roots.
  EXPECT_GE(cpu_->stats().missed_roots - before.missed_roots, 11u);
  EXPECT_LE(cpu_->stats().kept_roots - before.kept_roots, 4u);
}

// Covers: SHD-21
TEST_F(NestedRecyclingTest, ATableThatL1FreesTakesItsShadowPageWithIt) {
  Touch(0, 0);
  Touch(0, 1);
  EXPECT_THAT(Pages(), ElementsAre(2, 1, 1, 1));
  ASSERT_TRUE(l1_->Unmap(Gpa(2 * kMiB), kPageSize).ok());
  EXPECT_THAT(Pages(), ElementsAre(2, 1, 1, 1));
  const uint64_t before = zapped();
  ASSERT_TRUE(l1_->FreeTable(Gpa(2 * kMiB)).ok());
  EXPECT_THAT(Pages(), ElementsAre(1, 1, 1, 1)) << "at once";
  EXPECT_EQ(zapped(), before + 1);
  EXPECT_EQ(recycled(), 0u);
  EXPECT_EQ(Read(0, 0), 1u);
}

// Covers: SHD-21
TEST_F(NestedRecyclingTest, AWholeSubtreeGoesWithItsLastParent) {
  for (uint64_t page = 0; page < 10; ++page) Touch(0, page);
  Touch(1, 0);
  l1_->Select(0);
  l1_->Rest();
  const uint64_t entry = EntryOf0(3);
  EXPECT_THAT(Pages(), ElementsAre(11, 2, 2, 2));
  const uint64_t before = zapped();
  uint64_t word = 0;
  ASSERT_TRUE(cpu_->Access(Gpa(entry), 8, AccessKind::kWrite, &word));
  EXPECT_THAT(Pages(), ElementsAre(1, 1, 2, 2));
  EXPECT_EQ(zapped(), before + 11);
  EXPECT_EQ(recycled(), 0u);
  EXPECT_EQ(Read(1, 0), 1u);
}

}  // namespace
}  // namespace mmu::testing
