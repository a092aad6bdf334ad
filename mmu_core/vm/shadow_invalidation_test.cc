// What each instruction of a guest, or of L1, invalidates in a vCPU's TLB, and
// what stays.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/level.h"
#include "mmu_core/guest/hypervisor/l1_cpu.h"
#include "mmu_core/shadow/shadow_page_state.h"
#include "mmu_core/testing/shadowed_guest_test_util.h"
#include "mmu_core/testing/tdp_test_util.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/tlb/tlb_tag.h"
#include "mmu_core/tlb/vcpu_tlb.h"
#include "mmu_core/vm/run/l1_processor.h"
#include "mmu_core/vm/vcpu/shadow_vcpu.h"

namespace mmu::testing {
namespace {

using ::testing::ElementsAreArray;
using ::testing::HasSubstr;

// --- A guest with PCIDs ---

// Two top tables of the same address space, with PCIDs 1 and 2, and another
// one, of which the vCPU keeps no root.
constexpr GuestRoot kRoot1 = {.table = Gfn(1), .pcid = 1};
constexpr GuestRoot kRoot2 = {.table = Gfn(8), .pcid = 2};
constexpr GuestRoot kNotKept = {.table = Gfn(9), .pcid = 1};

struct Instruction {
  const char* name;
  std::function<void(ShadowVcpu&)> run;
  // "PCID/page" of the translations that are left of 1/3, 1/4, 2/3 and 2/4.
  std::vector<std::string> left;
};
std::ostream& operator<<(std::ostream& os, const Instruction& instruction) {
  return os << instruction.name;
}

class TwoPcids : public ShadowedGuest {
 protected:
  // The vCPU has used pages 3 and 4 with both PCIDs, the second one last.
  TwoPcids() {
    Make({}, kWritable);
    Put(kRoot2.table.value(), 0, Entry(2, kTable));
    for (const GuestRoot& root : {kRoot1, kRoot2}) {
      shadow().SetRoot(root, ShadowVcpu::Flush::kNo);
      for (const uint64_t page : {3, 4}) {
        EXPECT_EQ(ReadAt(page * kPageSize), AccessOutcome::kDone);
      }
    }
  }

  std::vector<std::string> Cached() {
    std::vector<std::string> cached;
    for (const uint16_t pcid : {1, 2}) {
      for (const uint64_t page : {3, 4}) {
        shadow().tlb().ForEachIn(TlbTag::OfPcid(pcid),
                                 [&](const TlbEntry& entry) {
                                   if (entry.base_page != PageNumber(page))
                                     return;
                                   cached.push_back(std::to_string(pcid) + "/" +
                                                    std::to_string(page));
                                 });
      }
    }
    return cached;
  }
};

class PcidTest : public ::testing::TestWithParam<Instruction>,
                 protected TwoPcids {};

// Covers: TLB-04, SHD-45
TEST_P(PcidTest, WhatItDoesNotNameStays) {
  ASSERT_THAT(Cached(), ElementsAreArray({"1/3", "1/4", "2/3", "2/4"}));
  GetParam().run(shadow());
  EXPECT_THAT(Cached(), ElementsAreArray(GetParam().left));
  EXPECT_EQ(AuditFindings(*vm_), "");
}

INSTANTIATE_TEST_SUITE_P(
    Instructions, PcidTest,
    ::testing::Values(
        Instruction{
            "Invlpg",
            [](ShadowVcpu& vcpu) { vcpu.InvalidatePage(3 * kPageSize); },
            {"1/3", "1/4", "2/4"}},
        Instruction{
            "InvpcidOfAnAddress",
            [](ShadowVcpu& vcpu) { vcpu.InvalidatePageOf(1, 3 * kPageSize); },
            {"1/4", "2/3", "2/4"}},
        Instruction{"InvpcidOfAContext",
                    [](ShadowVcpu& vcpu) { vcpu.InvalidatePcid(1); },
                    {"2/3", "2/4"}},
        Instruction{"InvpcidOfTheCurrentContext",
                    [](ShadowVcpu& vcpu) { vcpu.InvalidatePcid(2); },
                    {"1/3", "1/4"}},
        Instruction{"InvpcidOfAllContexts",
                    [](ShadowVcpu& vcpu) { vcpu.InvalidateAll(); },
                    {}},
        Instruction{"LoadOfCr3",
                    [](ShadowVcpu& vcpu) {
                      vcpu.SetRoot(kRoot1, ShadowVcpu::Flush::kYes);
                    },
                    {"2/3", "2/4"}},
        Instruction{"LoadOfCr3WithoutFlush",
                    [](ShadowVcpu& vcpu) {
                      vcpu.SetRoot(kRoot1, ShadowVcpu::Flush::kNo);
                    },
                    {"1/3", "1/4", "2/3", "2/4"}},
        // The PCID is what counts, not the root that the load finds.
        Instruction{"LoadOfCr3WithARootThatIsNotKept",
                    [](ShadowVcpu& vcpu) {
                      vcpu.SetRoot(kNotKept, ShadowVcpu::Flush::kYes);
                    },
                    {"2/3", "2/4"}},
        Instruction{"InvlpgBeforeTheRootIsLoaded",
                    [](ShadowVcpu& vcpu) {
                      vcpu.SetRoot(kNotKept, ShadowVcpu::Flush::kNo);
                      vcpu.InvalidatePage(3 * kPageSize);
                    },
                    {"1/4", "2/3", "2/4"}}),
    [](const auto& p) { return std::string(p.param.name); });

class KeptRootTest : public ::testing::Test, protected TwoPcids {};

// The current root is not loaded yet. A kept root may become the current one
// without a flush, with all that was cached below it.
TEST_F(KeptRootTest, TheAuditorLooksAtKeptRootsWithoutACurrentRoot) {
  shadow().SetRoot(kNotKept, ShadowVcpu::Flush::kNo);
  ASSERT_EQ(shadow().roots().table(), nullptr);
  EXPECT_EQ(AuditFindings(*vm_), "");
  // The page that maps page 3.
  const ShadowPageState* last = nullptr;
  for (const ShadowPageState* page =
           vm_->state().shadow->pages().set().active().oldest();
       page != nullptr; page = page->newer) {
    if (page->level() == Level::k4K && page->gfn() == Gfn(4)) last = page;
  }
  ASSERT_NE(last, nullptr);
  SpteSlot& entry = last->EntryAt(3);
  const Spte before =
      entry.Exchange(shadow().format().WithoutMmuWrite(entry.Load()));
  EXPECT_THAT(AuditFindings(*vm_),
              HasSubstr("INV-6: vCPU 0 may write page 0x3"));
  entry.Store(before);
  EXPECT_EQ(AuditFindings(*vm_), "");
}

// --- L1 with two L2 guests ---

class InveptTest : public ::testing::Test {
 protected:
  // Each guest has four tables, one below the other, and one page.
  static constexpr uint64_t kTop[] = {0x20, 0x30};
  static constexpr uint64_t kEptTable = 7;
  static constexpr uint64_t kEptLeaf = 0x37;  // write-back memory

  InveptTest() {
    VmConfig config;
    config.mmu = MmuMode::kNested;
    config.memslots = {Slot(0, 0, 64 * kMiB)};
    vm_ = MakeVmFrom(config);
    l1_ = std::make_unique<L1Processor>(*vm_->state().vcpus[0], Level::k512G);
    for (const uint64_t top : kTop) {
      for (uint64_t i = 0; i < 4; ++i) {
        Write(*vm_, (top + i) * kPageSize,
              i < 3 ? (top + i + 1) << kPageShift | kEptTable
                    : (0x1000 + top) << kPageShift | kEptLeaf);
      }
    }
    for (const int guest : {0, 1}) Enter(guest);
  }
  void Enter(int guest) {
    l1_->EnterL2({.tables = GuestTables::kEpt,
                  .root = Gpa(kTop[guest] * kPageSize),
                  .ept = {},
                  .l1 = {}});
    uint64_t word = 0;
    NestedExit exit;
    EXPECT_EQ(l1_->L2Access({.nested_gpa = Gpa(0), .kind = AccessKind::kRead},
                            &word, &exit),
              L1Cpu::Outcome::kDone);
  }
  bool Translates() {
    return vm_->state().vcpus[0]->shadow()->tlb().Lookup(PageNumber(0)) !=
           nullptr;
  }

  std::unique_ptr<Vm> vm_;
  std::unique_ptr<L1Processor> l1_;
};

// Covers: SHD-61, TLB-04
TEST_F(InveptTest, OfOneContextLeavesTheOther) {
  l1_->InveptSingleContext(Gpa(kTop[0] * kPageSize));
  EXPECT_TRUE(Translates()) << "the current guest";
  const uint64_t missed = l1_->stats().missed_roots;
  const uint64_t kept = l1_->stats().kept_roots;
  Enter(0);
  EXPECT_EQ(l1_->stats().missed_roots, missed + 1);
  Enter(1);
  EXPECT_EQ(l1_->stats().kept_roots, kept + 1);
  EXPECT_EQ(AuditFindings(*vm_), "");
}

TEST_F(InveptTest, OfTheCurrentContextLeavesTheOther) {
  l1_->InveptSingleContext(Gpa(kTop[1] * kPageSize));
  EXPECT_FALSE(Translates());
  const uint64_t kept = l1_->stats().kept_roots;
  Enter(0);
  EXPECT_EQ(l1_->stats().kept_roots, kept + 1);
  EXPECT_EQ(AuditFindings(*vm_), "");
}

TEST_F(InveptTest, OfAllContextsLeavesNone) {
  l1_->InveptGlobal();
  EXPECT_FALSE(Translates());
  const uint64_t missed = l1_->stats().missed_roots;
  Enter(0);
  Enter(1);
  EXPECT_EQ(l1_->stats().missed_roots, missed + 2);
  EXPECT_EQ(AuditFindings(*vm_), "");
}

}  // namespace
}  // namespace mmu::testing
