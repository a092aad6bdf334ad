#include "mmu_core/guest/hypervisor/l2_cpu.h"

#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/guest/gpa_space.h"
#include "mmu_core/guest/guest_access.h"
#include "mmu_core/guest/hypervisor/fake_l1_cpu.h"
#include "mmu_core/guest/kernel/kernel_program.h"
#include "mmu_core/guest/virtual_workload_test_util.h"

namespace mmu {
namespace {

using ::mmu::testing::FakeL1Cpu;
using ::mmu::testing::RunAccesses;
using ::mmu::testing::UniformAccesses;

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kMemory = 24 * kMiB;
// L2's tables, by level; they translate the page kLinear to the page kPage.
constexpr uint64_t kTables = 0x10'0000;
constexpr Gva kLinear(0x7654'3210'1000);
constexpr Gpa kPage(0x20'0000);

GpaSpace Space(uint64_t bytes) {
  return *GpaSpace::Create({GfnRange::Of(Gfn(0), bytes / kPageSize)});
}

struct Case {
  std::string name;
  L1HypervisorOptions options;
};

class L2CpuTest : public ::testing::TestWithParam<Case> {
 protected:
  L2CpuTest() { EXPECT_TRUE(l1_.Boot().ok()); }

  Gpa EntryAt(int level) const {
    const auto index =
        static_cast<uint64_t>(PagingGeometry::k4Level.IndexOf(kLinear, level));
    return Gpa(kTables + static_cast<uint64_t>(4 - level) * kPageSize +
               8 * index);
  }
  void SetEntry(int level, uint64_t value) {
    ASSERT_TRUE(
        l1_.AccessGranting(EntryAt(level), AccessKind::kWrite, &value).ok());
  }
  uint64_t Entry(int level) {
    uint64_t value = 0;
    EXPECT_TRUE(l1_.Access(EntryAt(level), AccessKind::kRead, &value).ok());
    return value;
  }
  // Builds L2's tables, with all rights and without Accessed and Dirty bits.
  void BuildTables() {
    constexpr uint64_t kAll = gpte::kPresent | gpte::kWrite | gpte::kUser;
    for (int level = 4; level > 1; --level) {
      SetEntry(level, (EntryAt(level - 1).value() & gpte::kAddress) | kAll);
    }
    SetEntry(1, kPage.value() | kAll);
    l2_.EnablePaging(PagingGeometry::k4Level, Gpa(kTables));
  }
  GuestCpu::Outcome Access(AccessKind kind, uint64_t* word,
                           Privilege privilege = Privilege::kSupervisor) {
    return l2_.Access(kLinear + 8, 8, kind, privilege, word, &fault_);
  }
  bool HasDirtyBits() const {
    return GetParam().options.tables == GuestTables::kNpt ||
           GetParam().options.ad_bits;
  }

  FakeL1Cpu cpu_{kMemory};
  L1Hypervisor l1_{cpu_, Space(kMemory), GetParam().options};
  L2Cpu l2_{l1_, 0};
  GuestPageFault fault_;
};

INSTANTIATE_TEST_SUITE_P(
    Tables, L2CpuTest,
    ::testing::Values(Case{"Ept", {}},
                      Case{"EptAccessedDirty", {.ad_bits = true}},
                      Case{"Npt", {.tables = GuestTables::kNpt}}),
    [](const auto& row) { return row.param.name; });

TEST_P(L2CpuTest, AnAddressIsTranslatedInTwoDimensions) {
  uint64_t word = 5;
  ASSERT_EQ(l2_.Access(Gva(kPage.value()) + 8, 8, AccessKind::kWrite,
                       Privilege::kSupervisor, &word, &fault_),
            GuestCpu::Outcome::kDone)
      << "paging is off";
  BuildTables();
  word = 0;
  ASSERT_EQ(Access(AccessKind::kRead, &word), GuestCpu::Outcome::kDone);
  EXPECT_EQ(word, 5u);
  word = 6;
  ASSERT_EQ(Access(AccessKind::kWrite, &word), GuestCpu::Outcome::kDone);
  ASSERT_TRUE(l1_.Access(kPage + 8, AccessKind::kRead, &word).ok());
  EXPECT_EQ(word, 6u);
}

TEST_P(L2CpuTest, TheWalkSetsTheBitsOfL2sEntries) {
  BuildTables();
  uint64_t word = 0;
  ASSERT_EQ(Access(AccessKind::kRead, &word), GuestCpu::Outcome::kDone);
  for (int level = 4; level >= 1; --level) {
    EXPECT_EQ(Entry(level) & (gpte::kAccessed | gpte::kDirty), gpte::kAccessed);
  }
  ASSERT_EQ(Access(AccessKind::kWrite, &word), GuestCpu::Outcome::kDone);
  EXPECT_NE(Entry(1) & gpte::kDirty, 0u);
  EXPECT_EQ(Entry(2) & gpte::kDirty, 0u);
}

TEST_P(L2CpuTest, L2sTablesDecideAboutL2sFaults) {
  BuildTables();
  uint64_t word = 0;
  SetEntry(1, kPage.value() | gpte::kPresent);
  EXPECT_EQ(Access(AccessKind::kWrite, &word), GuestCpu::Outcome::kFault);
  EXPECT_EQ(fault_.error_code, kPferrPresent | kPferrWrite);
  EXPECT_EQ(fault_.address, kLinear + 8);
  EXPECT_EQ(Access(AccessKind::kRead, &word, Privilege::kUser),
            GuestCpu::Outcome::kFault);
  EXPECT_EQ(fault_.error_code, kPferrPresent | kPferrUser);
  SetEntry(2, 0);
  EXPECT_EQ(Access(AccessKind::kRead, &word), GuestCpu::Outcome::kFault);
  EXPECT_EQ(fault_.error_code, 0u);
}

// A table that L1 has taken away comes back: the walk exits, and L1 maps it.
TEST_P(L2CpuTest, AViolationDuringTheWalkExitsToL1) {
  BuildTables();
  uint64_t word = 0;
  ASSERT_EQ(Access(AccessKind::kRead, &word), GuestCpu::Outcome::kDone);
  for (int level = 4; level >= 1; --level) {
    const Gpa table = ToGpa(ToGfn(EntryAt(level)));
    ASSERT_TRUE(l1_.Unmap(table, kPageSize).ok());
    const uint64_t exits = l1_.stats().exits;
    EXPECT_EQ(Access(AccessKind::kRead, &word), GuestCpu::Outcome::kFault)
        << "the new table is empty";
    EXPECT_EQ(l1_.stats().exits, exits + 1);
    BuildTables();
  }
}

// Counts the rights that accesses to L2's tables need.
TEST_P(L2CpuTest, AccessesToTablesAreWritesWhereTheManualsSaySo) {
  BuildTables();
  uint64_t word = 0;
  // All bits are set: the walk has nothing to write.
  ASSERT_EQ(Access(AccessKind::kWrite, &word), GuestCpu::Outcome::kDone);
  const Gpa table = ToGpa(ToGfn(EntryAt(1)));
  ASSERT_TRUE(l1_.TakeDirty().ok());
  ASSERT_TRUE(
      l1_.Protect(table, kPageSize, L1Hypervisor::Rights::kReadExec).ok());
  const uint64_t exits = l1_.stats().exits;
  ASSERT_EQ(Access(AccessKind::kRead, &word), GuestCpu::Outcome::kDone);
  EXPECT_EQ(l1_.stats().exits - exits, HasDirtyBits() ? 1u : 0u);
  std::vector<Gfn> tables;
  for (int level = 4; level >= 1; --level) {
    tables.push_back(ToGfn(EntryAt(level)));
  }
  EXPECT_EQ(l1_.TakeDirty().value(),
            HasDirtyBits() ? tables : std::vector<Gfn>());
  // A walk that sets a bit writes in any case.
  SetEntry(1, Entry(1) & ~gpte::kAccessed);
  ASSERT_TRUE(l1_.TakeDirty().ok());
  ASSERT_EQ(Access(AccessKind::kRead, &word), GuestCpu::Outcome::kDone);
  EXPECT_EQ(l1_.TakeDirty().value(),
            HasDirtyBits() ? tables : std::vector<Gfn>{ToGfn(table)});
}

TEST_P(L2CpuTest, AHostThatFailsIsNotTakenForAFault) {
  BuildTables();
  cpu_.FailAfter(2);
  uint64_t word = 0;
  EXPECT_EQ(Access(AccessKind::kRead, &word), GuestCpu::Outcome::kError);
  EXPECT_EQ(l2_.status().message(), "the host is out of memory");
}

// A whole kernel with processes, while L1 moves, protects, merges and splits
// the pages below it, its page tables among them.
TEST_P(L2CpuTest, AKernelRunsWhileL1ChangesItsMemory) {
  const auto program = KernelProgram::Start(l2_, Space(2 * kMiB),
                                            {.processes = 2,
                                             .check = ReadCheck::kYes,
                                             .accesses_per_switch = 20,
                                             .accesses_per_fork = 400,
                                             .accesses_per_unmap = 50,
                                             .accesses_per_protect = 50});
  ASSERT_TRUE(program.ok()) << program.status();
  std::mt19937_64 random(1);
  for (int i = 0; i < 400; ++i) {
    const auto source = UniformAccesses(Space(2 * kMiB), 10);
    const absl::Status status = RunAccesses(**program, *source);
    ASSERT_TRUE(status.ok()) << status;
    const Gpa page(random() % 512 * kPageSize);
    absl::Status change;
    switch (random() % 4) {
      case 0:
        change = l1_.Protect(page, kPageSize, L1Hypervisor::Rights::kRead);
        break;
      case 1:
        change = l1_.Demote(page);
        break;
      case 2:
        if (random() % 8 == 0) {
          change = l1_.Protect(Gpa(0), 2 * kMiB, L1Hypervisor::Rights::kAll);
          if (change.ok()) change = l1_.Promote(page);
        }
        break;
      default:
        change = l1_.Remap(page);
    }
    ASSERT_TRUE(change.ok() || absl::IsFailedPrecondition(change)) << change;
  }
  const absl::Status all = (*program)->Verify();
  EXPECT_TRUE(all.ok()) << all;
  EXPECT_GT(l1_.stats().merges, 0u);
}

}  // namespace
}  // namespace mmu
