// What the instructions of L1 on a vCPU do to its combined mappings.

#include "mmu_core/vm/run/l1_processor.h"

#include <cstdint>
#include <memory>
#include <vector>

#include "gtest/gtest.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/level.h"
#include "mmu_core/guest/hypervisor/combined_mappings.h"
#include "mmu_core/guest/hypervisor/l1_cpu.h"
#include "mmu_core/guest_paging/control_registers.h"
#include "mmu_core/testing/vm_builder.h"

namespace mmu::testing {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

// Two guests. Each has one mapping, for the same linear address.
class CombinedMappingsTest : public ::testing::Test {
 protected:
  static constexpr LinearAddress kAddress = {.pcid = 3, .gva = Gva(0x5000)};

  explicit CombinedMappingsTest(GuestTables tables) : tables_(tables) {
    VmConfig config;
    config.mmu = MmuMode::kNested;
    config.format =
        tables_ == GuestTables::kEpt ? EntryFormat::kEpt : EntryFormat::kNpt;
    config.memslots = {Slot(0, 0, 64 * kMiB)};
    vm_ = MakeVmFrom(config);
    l1_ = std::make_unique<L1Processor>(*vm_->state().vcpus[0], Level::k512G);
    Fill();
  }
  void Fill() {
    for (const uint32_t guest : {1, 2}) {
      Enter(guest);
      l1_->combined().Insert(kAddress, {.nested = Gfn(guest)});
      l1_->LeaveL2();
    }
  }
  // With its number as VPID or ASID, and with a table of its own.
  void Enter(uint32_t guest) {
    NestedPaging paging = {.tables = tables_,
                           .asid = guest,
                           .root = RootOf(guest),
                           .ept = {},
                           .l1 = {}};
    paging.l1.cr0 = kCr0Pg | kCr0Wp;
    paging.l1.cr4 = kCr4Pae;
    paging.l1.efer = kEferLma | kEferNx;
    l1_->EnterL2(paging);
  }
  static Gpa RootOf(uint32_t guest) { return Gpa(0x10'0000 * guest); }
  // The guests that still have their mappings.
  std::vector<uint32_t> Left() {
    std::vector<uint32_t> left;
    for (const uint32_t guest : {1, 2}) {
      Enter(guest);
      const auto mapping = l1_->combined().Find(kAddress);
      if (mapping.has_value() && mapping->nested == Gfn(guest)) {
        left.push_back(guest);
      }
      l1_->LeaveL2();
    }
    return left;
  }

  const GuestTables tables_;
  std::unique_ptr<Vm> vm_;
  std::unique_ptr<L1Processor> l1_;
};

class EptCombinedMappingsTest : public CombinedMappingsTest {
 protected:
  EptCombinedMappingsTest() : CombinedMappingsTest(GuestTables::kEpt) {}
};

class NptCombinedMappingsTest : public CombinedMappingsTest {
 protected:
  NptCombinedMappingsTest() : CombinedMappingsTest(GuestTables::kNpt) {}
};

using Guests = std::vector<uint32_t>;

TEST_F(EptCombinedMappingsTest, EntriesAndExitsDropNone) {
  EXPECT_EQ(Left(), (Guests{1, 2}));
  EXPECT_EQ(Left(), (Guests{1, 2}));
}

TEST_F(EptCombinedMappingsTest, InveptOfOneContextDropsThoseOfItsEptp) {
  l1_->InveptSingleContext(RootOf(1));
  EXPECT_EQ(Left(), Guests{2});
}

TEST_F(EptCombinedMappingsTest, InveptOfAllContextsDropsAll) {
  l1_->InveptGlobal();
  EXPECT_EQ(Left(), Guests{});
}

TEST_F(EptCombinedMappingsTest, InvvpidDropsThoseOfItsTypeOnly) {
  l1_->InvalidateVpid(Invvpid::kAddress, 2, Gva(0x6000));
  EXPECT_EQ(Left(), (Guests{1, 2}));
  l1_->InvalidateVpid(Invvpid::kAddress, 2, Gva(0x5008));
  EXPECT_EQ(Left(), Guests{1});
  Fill();
  l1_->InvalidateVpid(Invvpid::kSingleContext, 2, Gva(0));
  EXPECT_EQ(Left(), Guests{1});
  Fill();
  l1_->InvalidateVpid(Invvpid::kAllContexts, 0, Gva(0));
  EXPECT_EQ(Left(), Guests{});
}

TEST_F(NptCombinedMappingsTest, AFlushOfAnAsidDropsThoseOfTheAsidAtItsEntry) {
  EXPECT_EQ(Left(), (Guests{1, 2}));
  l1_->FlushAsid();
  Enter(2);
  l1_->LeaveL2();
  EXPECT_EQ(Left(), Guests{1});
}

}  // namespace
}  // namespace mmu::testing
