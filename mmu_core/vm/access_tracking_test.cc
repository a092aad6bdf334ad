// A VM whose processor sets neither Accessed nor Dirty.

#include <cstdint>
#include <memory>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/tdp_test_util.h"
#include "mmu_core/testing/vm_builder.h"

namespace mmu::testing {
namespace {

std::unique_ptr<Vm> MakeVmWithoutAd(Level host_page_level = Level::k4K) {
  VmConfig config;
  config.ad_bits = VmConfig::AdBits::kOff;
  config.memslots = {Slot(0, 0, 2 * kMiB, host_page_level)};
  return MakeVmFrom(config);
}

uint64_t YoungPages(Vm& vm, AgeMode mode, uint64_t pages = 64) {
  const auto aged = vm.Age(GfnRange::Of(Gfn(0), pages), mode, nullptr);
  EXPECT_TRUE(aged.ok());
  return aged->young_page_count;
}

void Age(Vm& vm) { YoungPages(vm, AgeMode::kTestAndClear); }
void ForgetTlb(Vm& vm) { vm.state().vcpus[0]->tlb().FlushAll(); }
Spte SpteAt(Vm& vm, uint64_t gfn) { return SpteOf(vm.state(), Gfn(gfn)); }

// Covers: SPTE-02, SPTE-04, SPTE-30
TEST(AccessTrackingTest, AgedPageLosesItsPermissionsAndStaysCounted) {
  auto vm = MakeVmWithoutAd();
  Write(*vm, 0, 7);
  const SpteFormat& format = vm->state().tdp.format();
  const Spte before = SpteAt(*vm, 0);
  EXPECT_EQ(before.bits() >> 60 & 3, 1u) << "A/D type 1";
  EXPECT_TRUE(format.IsAccessed(before));
  EXPECT_EQ(YoungPages(*vm, AgeMode::kTestAndClear), 1u);
  const Spte aged = SpteAt(*vm, 0);
  EXPECT_TRUE(aged.IsPresent());
  EXPECT_TRUE(format.IsAccessTracked(aged));
  // R, X and XU move 52 bits up. W and Accessed go. Nothing else changes.
  constexpr uint64_t kSaved =
      uint64_t{1} << 0 | uint64_t{1} << 2 | uint64_t{1} << 10;
  EXPECT_EQ(before.bits() & kSaved, kSaved);
  EXPECT_TRUE(before.IsWritable());
  EXPECT_EQ(aged, Spte((before.bits() & ~(kSaved | spte_bits::kWrite |
                                          format.accessed_mask())) |
                       kSaved << 52));
  EXPECT_TRUE(format.IsMmuWritable(aged));
  EXPECT_EQ(vm->Stats().pages_4k, 1u);
  EXPECT_EQ(YoungPages(*vm, AgeMode::kTest), 0u);
  // Ageing does not flush (AGE-16), so the TLB entry may still be writable.
  EXPECT_TRUE(vm->state().vcpus[0]->tlb().Lookup(PageNumber(0))->writable);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// A TLB entry must not allow writes to an aged page that a log takes for clean.
TEST(AccessTrackingTest, TheAuditorFindsATlbThatWritesACleanAgedPage) {
  auto vm = MakeVmWithoutAd();
  Write(*vm, 0, 7);
  const TlbEntry stale = *vm->state().vcpus[0]->tlb().Lookup(PageNumber(0));
  ASSERT_TRUE(StartLog(*vm, {}, nullptr).ok());
  Write(*vm, kPageSize);  // after a flush the TLB has the page again
  Age(*vm);
  vm->state().vcpus[0]->tlb().Insert(stale);
  EXPECT_THAT(AuditFindings(*vm),
              ::testing::HasSubstr("INV-6: vCPU 0 may write page 0x0"));
  ForgetTlb(*vm);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: SPTE-32
TEST(AccessTrackingTest, AgeingTwiceChangesNothingMore) {
  auto vm = MakeVmWithoutAd();
  Write(*vm, 0);
  Age(*vm);
  const Spte once = SpteAt(*vm, 0);
  Age(*vm);
  EXPECT_EQ(SpteAt(*vm, 0), once);
}

// Covers: SPTE-31, AGE-15, PF-10, PF-13
TEST(AccessTrackingTest, ReadAfterAgeingIsRepairedFastAndNotWritable) {
  auto vm = MakeVmWithoutAd();
  Write(*vm, 0, 7);
  Age(*vm);
  ForgetTlb(*vm);
  const uint64_t fast = vm->VcpuStats()[0].pf_fast;
  EXPECT_EQ(ReadValue(*vm, 0), 7u);
  EXPECT_EQ(vm->VcpuStats()[0].pf_fast, fast + 1);
  EXPECT_FALSE(SpteAt(*vm, 0).IsWritable());
  EXPECT_EQ(YoungPages(*vm, AgeMode::kTest), 1u);
  // The write fault makes the entry writable again.
  Write(*vm, 0, 8);
  EXPECT_EQ(vm->VcpuStats()[0].pf_fast, fast + 2);
  EXPECT_TRUE(SpteAt(*vm, 0).IsWritable());
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: SPTE-31
TEST(AccessTrackingTest, ReadAfterAgeingIsNotDirtyAndAWriteIs) {
  auto vm = MakeVmWithoutAd();
  Write(*vm, 0);
  Write(*vm, kPageSize);
  ASSERT_TRUE(StartLog(*vm, {}, nullptr).ok());
  Age(*vm);
  ForgetTlb(*vm);
  Read(*vm, 0);
  Write(*vm, kPageSize);
  EXPECT_EQ(SealAndList(*vm, 0), std::vector<uint64_t>{1});
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: SPTE-33
TEST(AccessTrackingTest, EveryLeafIsVolatile) {
  const SpteFormat& format = SpteFormat::EptWithoutAd();
  const Spte leaf = format.MakeLeaf({.pfn = Pfn(1), .write = true});
  EXPECT_TRUE(format.IsVolatile(leaf));
  EXPECT_TRUE(format.IsVolatile(format.WithoutAccessed(leaf)));
  EXPECT_FALSE(SpteFormat::Ept().IsVolatile(
      SpteFormat::Ept().MakeLeaf({.pfn = Pfn(1), .write = true})));
}

// Covers: SPTE-25, SPTE-11, SPTE-20
TEST(AccessTrackingTest, BuildersMakeOnlyLegalEntries) {
  const SpteFormat& format = SpteFormat::EptWithoutAd();
  const Spte table = format.MakeTable(0x1000);
  EXPECT_EQ(table.bits() >> 60 & 3, 1u);
  EXPECT_FALSE(format.IsAccessed(table));
  EXPECT_EQ(format.WhyIllegal(table, Level::k2M), "");
  const Spte prefetched = format.MakeLeaf(
      {.pfn = Pfn(1), .write = true, .prefetched = Prefetched::kYes});
  EXPECT_TRUE(format.IsAccessTracked(prefetched));
  EXPECT_FALSE(prefetched.IsWritable()) << "so it is not dirty either";
  EXPECT_EQ(format.WhyIllegal(prefetched, Level::k4K), "");
  EXPECT_NE(format.WhyIllegal(Spte(prefetched.bits() | spte_bits::kWrite),
                              Level::k4K),
            "");
}

// Covers: SPTE-26
TEST(AccessTrackingTest, SplitOfAnAgedHugePageLeavesAgedSmallOnes) {
  auto vm = MakeVmWithoutAd(Level::k2M);
  Write(*vm, 0, 7);
  ASSERT_EQ(vm->Stats().pages_2m, 1u);
  YoungPages(*vm, AgeMode::kTestAndClear, k2MPages);
  Split(*vm, GfnRange::Of(Gfn(0), k2MPages));
  EXPECT_EQ(vm->Stats().pages_4k, k2MPages);
  EXPECT_TRUE(vm->state().tdp.format().IsAccessTracked(SpteAt(*vm, 5)));
  ForgetTlb(*vm);
  EXPECT_EQ(ReadValue(*vm, 0), 7u);
  EXPECT_EQ(YoungPages(*vm, AgeMode::kTest, k2MPages), 1u);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: AGE-16
TEST(AccessTrackingTest, AProcessorThatStillKnowsThePageIsNotNoticed) {
  auto vm = MakeVmWithoutAd();
  Write(*vm, 0);
  const uint64_t flushes = FlushesOf(*vm);
  Age(*vm);
  Write(*vm, 0);  // through the TLB
  EXPECT_EQ(FlushesOf(*vm), flushes);
  EXPECT_EQ(YoungPages(*vm, AgeMode::kTest), 0u);
}

TEST(AccessTrackingTest, NptAlwaysHasAdBits) {
  VmConfig config;
  config.format = EntryFormat::kNpt;
  config.ad_bits = VmConfig::AdBits::kOff;
  EXPECT_EQ(Vm::Create(config).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace mmu::testing
