#include "mmu_core/guest/hypervisor/l2_cpu.h"

#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/guest/flat_memory.h"
#include "mmu_core/guest/gpa_space.h"
#include "mmu_core/guest/guest_access.h"
#include "mmu_core/guest/hypervisor/fake_l1_cpu.h"
#include "mmu_core/guest/hypervisor/l1_shared.h"
#include "mmu_core/guest/kernel/kernel_program.h"
#include "mmu_core/guest/virtual_workload_test_util.h"

namespace mmu {
namespace {

using ::mmu::testing::FakeL1Cpu;
using ::mmu::testing::FlatMemory;
using ::mmu::testing::RunAccesses;
using ::mmu::testing::UniformAccesses;

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kMemory = 24 * kMiB;
// L2's tables, by level; they translate the page kLinear to the page kPage.
constexpr uint64_t kTables = 0x10'0000;
constexpr Gva kLinear(0x7654'3210'1000);
constexpr Gpa kPage(0x20'0000);
// Other pages of L2, with other contents.
constexpr Gpa kOtherPage(0x21'0000);
constexpr Gpa kThirdPage(0x22'0000);
constexpr uint64_t kAll = gpte::kPresent | gpte::kWrite | gpte::kUser;
constexpr uint64_t kNoExec = uint64_t{1} << 63;

GpaSpace Space(uint64_t bytes) {
  return *GpaSpace::Create({GfnRange::Of(Gfn(0), bytes / kPageSize)});
}

// The entry of a level that translates kLinear.
Gpa EntryAt(int level) {
  const auto index =
      static_cast<uint64_t>(PagingGeometry::k4Level.IndexOf(kLinear, level));
  return Gpa(kTables + static_cast<uint64_t>(4 - level) * kPageSize +
             8 * index);
}

struct Case {
  std::string name;
  L1HypervisorOptions options;
};

class L2CpuTest : public ::testing::TestWithParam<Case> {
 protected:
  L2CpuTest() { EXPECT_TRUE(l1_.Boot().ok()); }

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
  // The same tables, with an entry of level 1 that needs no further bits. Each
  // page contains its own address.
  void BuildPages() {
    BuildTables();
    SetEntry(1, LeafOf(kPage));
    for (const Gpa page : {kPage, kOtherPage, kThirdPage}) {
      uint64_t word = page.value();
      ASSERT_TRUE(l1_.AccessGranting(page + 8, AccessKind::kWrite, &word).ok());
    }
  }
  static uint64_t LeafOf(Gpa page) {
    return page.value() | kAll | gpte::kAccessed | gpte::kDirty;
  }
  // The page that the linear address is translated to.
  Gpa Read() {
    uint64_t word = 0;
    EXPECT_EQ(Access(AccessKind::kRead, &word), GuestCpu::Outcome::kDone);
    return Gpa(word);
  }
  uint64_t WordIn(Gpa page) {
    uint64_t word = 0;
    EXPECT_TRUE(l1_.Access(page + 8, AccessKind::kRead, &word).ok());
    return word;
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

// Entries and exits drop nothing, since the guest has a VPID or an ASID.
TEST_P(L2CpuTest, AChangedEntryIsUsedFromTheInvlpgOn) {
  BuildPages();
  EXPECT_EQ(Read(), kPage);
  SetEntry(1, LeafOf(kOtherPage));
  EXPECT_EQ(Read(), kPage);
  l1_.Rest();
  EXPECT_EQ(Read(), kPage);
  l2_.Invlpg(kLinear + kPageSize);
  EXPECT_EQ(Read(), kPage) << "INVLPG of another page";
  l2_.Invlpg(kLinear + 0x234);
  EXPECT_EQ(Read(), kOtherPage);
}

TEST_P(L2CpuTest, ATranslationOutlivesALoadOfCr3ThatDoesNotFlushItsPcid) {
  const auto load = [&](Pcid pcid, Cr3Load how) {
    l2_.LoadCr3(Gpa(kTables), pcid, how);
    return Read();
  };
  BuildPages();
  EXPECT_EQ(load(0, Cr3Load::kFlush), kPage);
  SetEntry(1, LeafOf(kOtherPage));
  EXPECT_EQ(load(5, Cr3Load::kKeep), kOtherPage) << "has cached nothing yet";
  EXPECT_EQ(load(0, Cr3Load::kKeep), kPage);
  EXPECT_EQ(load(5, Cr3Load::kFlush), kOtherPage);
  EXPECT_EQ(load(0, Cr3Load::kKeep), kPage);
  EXPECT_EQ(load(0, Cr3Load::kFlush), kOtherPage);
}

TEST_P(L2CpuTest, InvpcidReachesTheTranslationsOfAPcidThatIsNotLoaded) {
  struct Row {
    Invpcid what;
    Pcid pcid;
    bool gone;
  };
  for (const Row& row :
       {Row{Invpcid::kAddress, 0, true}, Row{Invpcid::kAddress, 5, false},
        Row{Invpcid::kSingleContext, 0, true},
        Row{Invpcid::kSingleContext, 5, false},
        Row{Invpcid::kAllContexts, 0, true}}) {
    BuildPages();
    EXPECT_EQ(Read(), kPage);
    SetEntry(1, LeafOf(kOtherPage));
    l2_.LoadCr3(Gpa(kTables), 5, Cr3Load::kKeep);
    l2_.InvalidatePcid(row.what, row.pcid, kLinear);
    l2_.LoadCr3(Gpa(kTables), 0, Cr3Load::kKeep);
    EXPECT_EQ(Read(), row.gone ? kOtherPage : kPage)
        << static_cast<int>(row.what) << " of PCID " << row.pcid;
  }
}

TEST_P(L2CpuTest, AFaultDropsTheTranslationThatItWasFoundIn) {
  BuildPages();
  SetEntry(1, LeafOf(kPage) & ~gpte::kWrite);
  EXPECT_EQ(Read(), kPage);
  SetEntry(1, LeafOf(kPage));
  uint64_t word = 0;
  EXPECT_EQ(Access(AccessKind::kWrite, &word), GuestCpu::Outcome::kFault);
  EXPECT_EQ(fault_.error_code, kPferrPresent | kPferrWrite);
  EXPECT_EQ(fault_.address, kLinear + 8);
  EXPECT_EQ(Access(AccessKind::kWrite, &word), GuestCpu::Outcome::kDone);
}

// The rights that an entry of the leaf's or of the next level lacks.
TEST_P(L2CpuTest, CachedRightsAllowAndDenyWhatTheWalkDoes) {
  BuildPages();
  int denied = 0;
  const auto try_both = [&](AccessKind kind, Privilege privilege) {
    uint64_t word = kPage.value();
    l2_.Invlpg(kLinear);
    fault_ = {};
    const GuestCpu::Outcome walked = Access(kind, &word, privilege);
    const uint64_t code = fault_.error_code;
    l2_.Invlpg(kLinear);
    EXPECT_EQ(Read(), kPage);
    const uint64_t leaf = Entry(1);
    SetEntry(1, 0);  // a walk would find no page
    fault_ = {};
    EXPECT_EQ(Access(kind, &word, privilege), walked);
    EXPECT_EQ(fault_.error_code, code);
    SetEntry(1, leaf);
    denied += walked == GuestCpu::Outcome::kFault ? 1 : 0;
  };
  for (const int level : {1, 2}) {
    const uint64_t whole = Entry(level);
    for (const uint64_t missing :
         {uint64_t{0}, gpte::kWrite, gpte::kUser, gpte::kWrite | gpte::kUser}) {
      for (const uint64_t no_exec : {uint64_t{0}, kNoExec}) {
        SetEntry(level, (whole & ~missing) | no_exec);
        for (const AccessKind kind :
             {AccessKind::kRead, AccessKind::kWrite, AccessKind::kExec}) {
          try_both(kind, Privilege::kSupervisor);
          try_both(kind, Privilege::kUser);
        }
      }
    }
    SetEntry(level, whole);
  }
  EXPECT_EQ(denied, 48);
}

TEST_P(L2CpuTest, AWriteWalksUntilDirtyIsKnownToBeSet) {
  BuildPages();
  SetEntry(1, LeafOf(kPage) & ~gpte::kDirty);
  uint64_t word = Read().value();
  EXPECT_EQ(Entry(1) & gpte::kDirty, 0u);
  ASSERT_EQ(Access(AccessKind::kWrite, &word), GuestCpu::Outcome::kDone);
  EXPECT_EQ(Entry(1), LeafOf(kPage));
  // From now on L2 must invalidate to learn of further writes.
  SetEntry(1, LeafOf(kPage) & ~gpte::kDirty);
  ASSERT_EQ(Access(AccessKind::kWrite, &word), GuestCpu::Outcome::kDone);
  EXPECT_EQ(Entry(1) & gpte::kDirty, 0u);
  l2_.Invlpg(kLinear);
  ASSERT_EQ(Access(AccessKind::kWrite, &word), GuestCpu::Outcome::kDone);
  EXPECT_EQ(Entry(1), LeafOf(kPage));
}

// L1 grants the right to write, which needs no INVEPT. After the exit the
// instruction begins anew, and finds L2's new entry.
TEST_P(L2CpuTest, AViolationDropsTheTranslationOfItsLinearAddress) {
  BuildPages();
  ASSERT_TRUE(l1_.Protect(kPage, kPageSize, L1Hypervisor::Rights::kRead).ok());
  EXPECT_EQ(Read(), kPage);
  SetEntry(1, LeafOf(kOtherPage));
  EXPECT_EQ(Read(), kPage);
  const uint64_t invalidations = l1_.stats().invalidations;
  uint64_t word = 7;
  ASSERT_EQ(Access(AccessKind::kWrite, &word), GuestCpu::Outcome::kDone);
  EXPECT_EQ(WordIn(kPage), kPage.value());
  EXPECT_EQ(WordIn(kOtherPage), 7u);
  EXPECT_EQ(l1_.stats().invalidations, invalidations);
}

// Only one address of the page is translated with its entry.
TEST_P(L2CpuTest, ALargePageIsCachedAndDroppedAsAWhole) {
  constexpr uint64_t kLarge = 2 * kMiB;
  constexpr Gpa kLargePages[] = {Gpa(0x20'0000), Gpa(0x40'0000)};
  constexpr uint64_t kOffsets[] = {0x10'1000, 0x1f'f000};
  const Gva start(kLinear.value() & ~(kLarge - 1));
  BuildTables();
  for (const Gpa page : kLargePages) {
    for (const uint64_t offset : kOffsets) {
      uint64_t word = page.value() + offset;
      ASSERT_TRUE(
          l1_.AccessGranting(page + offset, AccessKind::kWrite, &word).ok());
    }
  }
  const auto read = [&](uint64_t offset) {
    uint64_t word = 0;
    EXPECT_EQ(l2_.Access(start + offset, 8, AccessKind::kRead,
                         Privilege::kSupervisor, &word, &fault_),
              GuestCpu::Outcome::kDone);
    return Gpa(word);
  };
  SetEntry(2, LeafOf(kLargePages[0]) | gpte::kPageSize);
  EXPECT_EQ(read(kOffsets[0]), kLargePages[0] + kOffsets[0]);
  SetEntry(2, LeafOf(kLargePages[1]) | gpte::kPageSize);
  EXPECT_EQ(read(kOffsets[1]), kLargePages[0] + kOffsets[1]);
  l2_.Invlpg(start + kLarge);
  EXPECT_EQ(read(kOffsets[0]), kLargePages[0] + kOffsets[0])
      << "INVLPG of the next page";
  l2_.Invlpg(start + 0x8'0000);
  for (const uint64_t offset : kOffsets) {
    EXPECT_EQ(read(offset), kLargePages[1] + offset);
  }
}

TEST_P(L2CpuTest, AnInvalidationOfL1sTablesDropsWhatL2sTablesTranslated) {
  BuildPages();
  EXPECT_EQ(Read(), kPage);
  SetEntry(1, LeafOf(kOtherPage));
  EXPECT_EQ(Read(), kPage);
  ASSERT_TRUE(
      l1_.Protect(kThirdPage, kPageSize, L1Hypervisor::Rights::kRead).ok());
  EXPECT_EQ(Read(), kOtherPage);
}

TEST_P(L2CpuTest, AnAddressOutsideOfL2sMemoryIsAnError) {
  uint64_t word = 0;
  EXPECT_EQ(l2_.Access(Gva(uint64_t{1} << 50), 8, AccessKind::kRead,
                       Privilege::kSupervisor, &word, &fault_),
            GuestCpu::Outcome::kError)
      << "paging is off";
  EXPECT_TRUE(absl::IsInvalidArgument(l2_.status())) << l2_.status();
  l2_.Invlpg(kLinear);
  EXPECT_TRUE(absl::IsInvalidArgument(l2_.status())) << "after an INVLPG";
}

// MAXPHYADDR is 46. So a nested gpa that L1's tables cannot translate is none
// that L2's tables can name.
TEST_P(L2CpuTest, AnEntryWithAnImpossibleFrameIsAFaultOfL2) {
  BuildTables();
  for (const uint64_t frame : {uint64_t{1} << 46, uint64_t{1} << 50}) {
    SetEntry(1, LeafOf(Gpa(frame)));
    uint64_t word = 0;
    EXPECT_EQ(Access(AccessKind::kRead, &word), GuestCpu::Outcome::kFault);
    EXPECT_EQ(fault_.error_code, kPferrPresent | kPferrReserved);
    EXPECT_EQ(fault_.address, kLinear + 8);
    EXPECT_TRUE(l2_.status().ok()) << l2_.status();
  }
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

// Two virtual processors, of one guest each, on two processors of L1.
class MovingL2CpuTest : public ::testing::TestWithParam<Case> {
 protected:
  static constexpr Gpa kPages[] = {kPage, kOtherPage};

  MovingL2CpuTest() {
    EXPECT_TRUE(l1_[0].Boot().ok());
    for (const int guest : {0, 1}) {
      for (int level = 4; level > 1; --level) {
        SetEntry(guest, level, EntryAt(level - 1).value() & gpte::kAddress);
      }
      SetEntry(guest, 1, kPages[guest].value());
      l2_[guest].EnablePaging(PagingGeometry::k4Level, Gpa(kTables));
      for (const Gpa page : kPages) {
        uint64_t word = page.value() + static_cast<uint64_t>(guest);
        EXPECT_TRUE(l1_[0].Access(page, AccessKind::kWrite, &word).ok());
      }
    }
  }
  // On processor 0.
  void SetEntry(int guest, int level, uint64_t address) {
    uint64_t value =
        address | kAll | gpte::kAccessed | (level == 1 ? gpte::kDirty : 0);
    l1_[0].Select(guest);
    EXPECT_TRUE(l1_[0].Access(EntryAt(level), AccessKind::kWrite, &value).ok());
    l1_[0].Rest();
  }
  // The page that the address is translated to, plus the guest's number.
  Gpa Read(int guest) {
    uint64_t word = 0;
    GuestPageFault fault;
    EXPECT_EQ(l2_[guest].Access(kLinear, 8, AccessKind::kRead,
                                Privilege::kSupervisor, &word, &fault),
              GuestCpu::Outcome::kDone);
    return Gpa(word);
  }

  FlatMemory memory_{kMemory};
  FakeL1Cpu cpus_[2] = {{memory_, nullptr}, {memory_, nullptr}};
  L1Shared shared_{Space(kMemory), GetParam().options, /*cpus=*/2,
                   /*guests=*/2};
  L1Hypervisor l1_[2] = {{cpus_[0], shared_, 0}, {cpus_[1], shared_, 1}};
  L2Cpu l2_[2] = {{l1_[0], 0}, {l1_[0], 1}};
};

INSTANTIATE_TEST_SUITE_P(Tables, MovingL2CpuTest,
                         ::testing::Values(Case{"Ept", {}},
                                           Case{"Npt",
                                                {.tables = GuestTables::kNpt}}),
                         [](const auto& row) { return row.param.name; });

TEST_P(MovingL2CpuTest, WhatItInvalidatedElsewhereIsGoneWhenItComesBack) {
  EXPECT_EQ(Read(0), kPage);
  l2_[0].MoveTo(l1_[1]);
  EXPECT_EQ(Read(0), kPage);
  SetEntry(0, 1, kOtherPage.value());
  l2_[0].Invlpg(kLinear);
  EXPECT_EQ(Read(0), kOtherPage);
  l2_[0].MoveTo(l1_[0]);
  EXPECT_EQ(Read(0), kOtherPage);
  EXPECT_EQ(l1_[0].stats().arrivals, 3u) << "the other guest, too";
  EXPECT_EQ(l1_[1].stats().arrivals, 1u);
}

// As above. The processor where it arrives runs the guest already, for L1's own
// access.
TEST_P(MovingL2CpuTest, WhatItInvalidatedElsewhereIsGoneAlsoWhereTheGuestRuns) {
  l2_[0].MoveTo(l1_[1]);
  EXPECT_EQ(Read(0), kPage);
  l2_[0].MoveTo(l1_[0]);
  SetEntry(0, 1, kOtherPage.value());
  EXPECT_EQ(Read(0), kOtherPage);
  uint64_t word = 0;
  l1_[1].Select(0);
  ASSERT_TRUE(l1_[1].Access(kPage, AccessKind::kRead, &word).ok());
  l2_[0].MoveTo(l1_[1]);
  EXPECT_EQ(Read(0), kOtherPage);
}

// Nobody could end a wait for it: one thread drives both processors.
TEST_P(MovingL2CpuTest, TheProcessorThatItLeavesIsNotWaitedFor) {
  EXPECT_EQ(Read(0), kPage);
  l2_[0].MoveTo(l1_[1]);
  EXPECT_EQ(Read(0), kPage);
  EXPECT_TRUE(l1_[1].Unmap(kOtherPage, kPageSize).ok());
  EXPECT_EQ(l1_[0].stats().interrupts, 0u);
}

// Nothing obliges L1 to invalidate here, so it must not: then a test of INVLPG
// would see less.
TEST_P(MovingL2CpuTest, WhoStaysKeepsItsTranslationsAndOnlyThose) {
  for (const int guest : {0, 1}) {
    EXPECT_EQ(Read(guest), kPages[guest] + static_cast<uint64_t>(guest));
  }
  SetEntry(0, 1, kOtherPage.value());
  l2_[1].MoveTo(l1_[1]);
  EXPECT_EQ(Read(1), kOtherPage + 1);
  l2_[1].MoveTo(l1_[0]);
  EXPECT_EQ(Read(1), kOtherPage + 1);
  EXPECT_EQ(Read(0), kPage);
}

}  // namespace
}  // namespace mmu
