// The auditor finds nothing in a sound VM with everything in use, in each kind
// of MMU.

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "mmu_core/base/level.h"
#include "mmu_core/dirty/dirty_log_state.h"
#include "mmu_core/mmu/nx_huge_pages.h"
#include "mmu_core/rmap/slot_rmaps.h"
#include "mmu_core/stats/shadow_counters.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/testing/audited_guest.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/tdp_test_util.h"
#include "mmu_core/testing/vm_builder.h"

namespace mmu::testing {
namespace {

class AuditSoundTest : public ::testing::TestWithParam<AuditedMmu> {};

// Pages 100 to 102 of the guest become open, sealed and in flight.
void UseLog(AuditedGuest& guest) {
  Vm& vm = guest.vm();
  for (uint64_t page = 100; page < 103; ++page) guest.Write(page);
  const uint64_t gfn = guest.GfnOf(100).value();
  ASSERT_TRUE(StartLog(vm).ok());
  guest.Write(100);
  uint64_t epoch = 0;
  SealAndList(vm, 0, &epoch);
  const uint64_t npages = AuditedGuest::kBytes >> kPageShift;
  ASSERT_TRUE(ClearLog(vm, 0, epoch, 0, npages, MaskOf(npages, {gfn})).ok());
  guest.Write(101);
  SealAndList(vm, 0);
  guest.Write(102);
  const UndeliveredCounts counts = vm.CountUndelivered();
  EXPECT_GT(counts.open, 0u);
  EXPECT_GT(counts.sealed, 0u);
  EXPECT_GT(counts.in_flight, 0u);
}

void UseAliases(AuditedGuest& guest) {
  if (guest.kernel() != nullptr) {
    // The parent's pages 0 to 7 are shared with a child, and mapped by both.
    const auto child = guest.kernel()->Fork();
    ASSERT_TRUE(child.ok());
    ASSERT_TRUE(guest.kernel()->SwitchTo(*child, Cr3Load::kFlush).ok());
    for (uint64_t page = 0; page < 8; ++page) guest.Read(page);
    ASSERT_TRUE(guest.kernel()->SwitchTo(1, Cr3Load::kKeep).ok());
    for (uint64_t page = 0; page < 8; ++page) guest.Read(page);
  }
  if (guest.l1() != nullptr) {
    uint64_t word = 0;
    for (uint64_t i = 0; i < 8; ++i) {
      const Gpa alias((200 + i) << kPageShift);
      ASSERT_TRUE(guest.l1()
                      ->Access(Gpa(i << kPageShift), AccessKind::kWrite, &word)
                      .ok());
      ASSERT_TRUE(guest.l1()->Alias(Gpa(i << kPageShift), alias).ok());
      ASSERT_TRUE(guest.l1()->Access(alias, AccessKind::kWrite, &word).ok());
      ASSERT_TRUE(guest.l1()
                      ->Access(Gpa(i << kPageShift), AccessKind::kRead, &word)
                      .ok());
    }
  }
}

// The most SPTEs of the shadow MMU that map one gfn.
uint64_t LongestRmap(AuditedGuest& guest) {
  uint64_t longest = 0;
  MmuWriteLocked lock(guest.state().mmu_lock, LockOp::kAge);
  const SlotRmaps* const rmaps = SlotOf(guest.vm(), Gfn(0)).shadow_rmaps();
  if (rmaps == nullptr) return 0;
  rmaps->ForEachRmap(Level::k4K, [&](Gfn, const RmapHead& head) {
    longest = std::max(longest, head.Count(lock));
  });
  return longest;
}

bool HasMmioSpte(AuditedGuest& guest) {
  return guest.mmu() != AuditedMmu::kShadow && !IsL2(guest.mmu());
}

void UseEverything(AuditedGuest& guest) {
  if (HasMmioSpte(guest)) {
    Read(guest.vm(), uint64_t{1} << 30);
    Read(guest.vm(), (uint64_t{1} << 30) + kPageSize);
  }
  UseAliases(guest);
  EXPECT_EQ(AuditFindings(guest.vm()), "");
  UseLog(guest);
  EXPECT_EQ(AuditFindings(guest.vm()), "");
}

TEST_P(AuditSoundTest, AVmWithABitmapLogInUseHasNoFindings) {
  AuditedGuest guest(GetParam());
  UseEverything(guest);
  if (GetParam() == AuditedMmu::kShadow || IsL2(GetParam())) {
    EXPECT_GE(LongestRmap(guest), 2u);
  }
}

TEST_P(AuditSoundTest, AVmWithRingsInUseHasNoFindings) {
  VmConfig config = AuditedGuest::ConfigFor(GetParam());
  config.dirty_ring_entries = 1024;
  AuditedGuest guest(GetParam(), config);
  UseEverything(guest);
  // Counting has collected all entries; one more is dirty only.
  guest.Write(103);
  EXPECT_EQ(AuditFindings(guest.vm()), "");
  uint64_t collected = 0;
  guest.state().rings[0]->ForEachCollected([&](DirtyGfn) { ++collected; });
  EXPECT_GT(collected, 0u);
  EXPECT_GT(guest.state().rings[0]->used(), collected);
}

TEST_P(AuditSoundTest, AVmWithCpuLogsInUseHasNoFindings) {
  VmConfig config = AuditedGuest::ConfigFor(GetParam());
  if (!RunsOnTdp(config)) GTEST_SKIP() << "it has no PML";
  config.pml = VmConfig::Pml::kYes;
  AuditedGuest guest(GetParam(), config);
  UseEverything(guest);
}

TEST_P(AuditSoundTest, AVmWithTablesThatAreExecutedFromHasNoFindings) {
  NxParameters parameters(ItlbMultihit::kNo);
  ASSERT_TRUE(parameters.SetNxHugePages("force").ok());
  VmConfig config = AuditedGuest::ConfigFor(GetParam());
  config.memslots[0].host_page_level = Level::k2M;
  AuditedGuest guest(GetParam(), config, parameters);
  for (uint64_t page = 0; page < 4 * 512; page += 512) {
    guest.Access(page, AccessKind::kExec);
  }
  EXPECT_GT(guest.state().nx_huge_pages.of(guest.kind()).count(), 0u);
  EXPECT_EQ(AuditFindings(guest.vm()), "");
}

// The guest edits its tables, so that shadow pages go out of sync.
TEST_P(AuditSoundTest, AVmWithUnsyncPagesHasNoFindings) {
  if (GetParam() != AuditedMmu::kShadow && !IsL2(GetParam())) {
    GTEST_SKIP() << "no table of the guest has a shadow page of this MMU";
  }
  AuditedGuest guest(GetParam());
  uint64_t most = 0;
  for (uint64_t page = 0; page < 64; ++page) {
    guest.Write(page);
    most =
        std::max(most, ShadowCounters::Get(guest.counters().shadow.mmu_unsync));
    ASSERT_EQ(AuditFindings(guest.vm()), "");
  }
  EXPECT_GT(most, 0u);
}

INSTANTIATE_TEST_SUITE_P(All, AuditSoundTest, ::testing::ValuesIn(kAuditedMmus),
                         [](const auto& p) {
                           return std::string(NameOf(p.param));
                         });

}  // namespace
}  // namespace mmu::testing
