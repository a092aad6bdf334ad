// Walks of a guest's own tables. access_matrix_test.cc tests every combination
// of rights and accesses, nested_walk_test.cc tests L1's tables.

#include "mmu_core/guest_paging/guest_walker.h"

#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/level.h"
#include "mmu_core/dirty/dirty_ring.h"
#include "mmu_core/guest_paging/control_registers.h"
#include "mmu_core/guest_paging/cpu_role.h"
#include "mmu_core/guest_paging/guest_entry.h"
#include "mmu_core/guest_paging/guest_walk.h"
#include "mmu_core/memory/guest_memory_access.h"
#include "mmu_core/memory/guest_words.h"
#include "mmu_core/paging/access_rights.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/guest_memory_test_util.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/vm.h"

namespace mmu::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr uint64_t kP = guest_entry::kPresent;
constexpr uint64_t kW = guest_entry::kWritable;
constexpr uint64_t kU = guest_entry::kUser;
constexpr uint64_t kA = guest_entry::kAccessed;
constexpr uint64_t kD = guest_entry::kDirty;
constexpr uint64_t kPs = guest_entry::kPageSize;
constexpr uint64_t kNx = guest_entry::kNx;
constexpr uint64_t kPwu = kP | kW | kU;

constexpr uint64_t kPfNotPresent = 0;
constexpr uint64_t kPfReserved = kPferrPresent | kPferrReserved;

constexpr GuestPagingState kTwoLevel = {.cr0 = kCr0Pg | kCr0Wp};
constexpr GuestPagingState kPse = {.cr0 = kCr0Pg | kCr0Wp, .cr4 = kCr4Pse};
constexpr GuestPagingState kPae = {
    .cr0 = kCr0Pg | kCr0Wp, .cr4 = kCr4Pae, .efer = kEferNx};
constexpr GuestPagingState kFourLevel = {
    .cr0 = kCr0Pg | kCr0Wp, .cr4 = kCr4Pae, .efer = kEferLma | kEferNx};
constexpr GuestPagingState kFiveLevel = {.cr0 = kCr0Pg | kCr0Wp,
                                         .cr4 = kCr4Pae | kCr4La57,
                                         .efer = kEferLma | kEferNx};

constexpr GuestPageAccess kReadAccess = {.kind = AccessKind::kRead};
constexpr GuestPageAccess kWriteAccess = {.kind = AccessKind::kWrite};
constexpr GuestPageAccess kFetchAccess = {.kind = AccessKind::kExec};
constexpr GuestPageAccess kUserWrite = {.kind = AccessKind::kWrite,
                                        .privilege = Privilege::kUser};

GuestWalker Walker(const GuestPagingState& state, const GuestCpuid& cpu = {}) {
  return GuestWalker(GuestTables::kLegacy, LegacyCpuRole(state), cpu);
}

class GuestWalkerTest : public ::testing::Test {
 protected:
  explicit GuestWalkerTest(
      MemslotConfig::Mode mode = MemslotConfig::Mode::kReadWrite)
      : memory_({[mode] {
          MemslotConfig slot = Slot(0, 0, 4 << 20);
          slot.mode = mode;
          return slot;
        }()}) {}

  // Makes tables for `address` at 0x1000, 0x2000 and so on, the top table
  // first. The last entry is `leaf`; the others grant all rights. Returns the
  // address of the last entry.
  uint64_t Map(const GuestPagingState& state, uint64_t address, int leaf_level,
               uint64_t leaf) {
    const CpuRole role = LegacyCpuRole(state);
    const bool four_byte = role.base().has_4_byte_gpte();
    const WordSize size = four_byte ? WordSize::k4 : WordSize::k8;
    const int bits = four_byte ? 10 : 9;
    int level = role.guest_level();
    uint64_t table = 0x1000;
    root_.table = Gfn(1);
    if (level == 3) {
      root_.pdptes[address >> 30 & 3] = table | kP;
      level = 2;
    }
    for (;; --level, table += 0x1000) {
      const uint64_t index =
          address >> (12 + bits * (level - 1)) & ((1 << bits) - 1);
      const uint64_t entry = table + index * static_cast<uint64_t>(size);
      if (level == leaf_level) {
        memory_.Put(entry, leaf, size);
        return entry;
      }
      memory_.Put(entry, (table + 0x1000) | kPwu, size);
    }
  }

  GuestWalkResult Walk(const GuestPagingState& state, uint64_t address,
                       const GuestPageAccess& access = kReadAccess) {
    return Walker(state).Walk(memory_.words(), root_, address, access);
  }

  GuestMemory memory_;
  GuestRoot root_;
};

class ReadOnlyGuestWalkerTest : public GuestWalkerTest {
 protected:
  ReadOnlyGuestWalkerTest() : GuestWalkerTest(MemslotConfig::Mode::kReadOnly) {}
};

uint64_t CodeOf(const GuestWalkResult& result) {
  EXPECT_FALSE(result.translated());
  EXPECT_EQ(result.fault.kind, GuestFault::Kind::kPageFault);
  return result.fault.code;
}

TEST_F(GuestWalkerTest, WithoutPagingAnAddressIsItsOwnTranslation) {
  const GuestWalkResult result = Walk({}, 0x12345678, kWriteAccess);
  ASSERT_TRUE(result.translated());
  EXPECT_EQ(result.gfn, Gfn(0x12345));
  EXPECT_EQ(result.access, kAllRights);
  EXPECT_EQ(result.top_level, 0);
}

// Covers: SHD-46
TEST_F(GuestWalkerTest, EachModeFindsThePageThroughAllItsLevels) {
  struct Row {
    GuestPagingState state;
    uint64_t address;
    int top_level;
  };
  for (const Row& row :
       {Row{kTwoLevel, 0xdeadb123, 2}, Row{kPae, 0xdeadb123, 2},
        Row{kFourLevel, 0x7f12deadb123, 4},
        Row{kFiveLevel, 0x7f1234567deadb, 5}}) {
    memory_.Clear();
    const uint64_t leaf = Map(row.state, row.address, 1, 0x345000 | kPwu);
    const GuestWalkResult result = Walk(row.state, row.address);
    ASSERT_TRUE(result.translated()) << row.top_level;
    EXPECT_EQ(result.gfn, Gfn(0x345));
    EXPECT_EQ(result.top_level, row.top_level);
    EXPECT_EQ(result.leaf_level(), Level::k4K);
    for (int level = row.top_level; level >= 1; --level) {
      const uint64_t gfn = static_cast<uint64_t>(row.top_level - level) + 1;
      EXPECT_EQ(result.step(level).table, Gfn(gfn));
      EXPECT_EQ(ToGfn(result.step(level).entry_gpa), Gfn(gfn));
      EXPECT_EQ(result.step(level).entry,
                (level == 1 ? 0x345000 : (gfn + 1) << 12) | kPwu | kA);
      EXPECT_EQ(result.step(level).access, kAllRights);
    }
    EXPECT_EQ(result.step(1).entry_gpa, Gpa(leaf));
    EXPECT_EQ(CodeOf(Walk(row.state, row.address ^ 0x1000)), kPfNotPresent);
  }
}

// Covers: SHD-46
TEST_F(GuestWalkerTest, ALargePageYieldsTheFrameOfTheVeryAddress) {
  struct Row {
    GuestPagingState state;
    uint64_t address;
    int level;
    uint64_t leaf;
    uint64_t gfn;
  };
  for (const Row& row :
       {// Bits 20:13 of a 4 MiB page's entry are address bits 39:32.
        Row{kPse, 0x123fe123, 2, 0x40800000, 0x40bfe},
        Row{kPse, 0x123fe123, 2, 0x40800000 | 5 << 13, 0x540bfe},
        Row{kPae, 0x123fe123, 2, 0x40a00000, 0x40bfe},
        Row{kFourLevel, 0x7f12123fe123, 2, 0x40a00000, 0x40bfe},
        Row{kFourLevel, 0x7f12123fe123, 3, 0x40000000, 0x523fe},
        Row{kFiveLevel, 0x7f1212123fe123, 3, 0x40000000, 0x523fe}}) {
    memory_.Clear();
    Map(row.state, row.address, row.level, row.leaf | kPs | kPwu);
    const GuestWalkResult result = Walk(row.state, row.address);
    ASSERT_TRUE(result.translated()) << row.level;
    EXPECT_EQ(result.gfn, Gfn(row.gfn));
    EXPECT_EQ(result.level, row.level);
  }
}

// Covers: SHD-46
TEST_F(GuestWalkerTest, WithoutPseTheBitForLargePagesMeansNothing) {
  Map(kTwoLevel, 0x123fe123, 1, 0x345000 | kPwu);
  memory_.Put(0x1000 + 4 * (0x123fe123 >> 22), 0x2000 | kPs | kPwu,
              WordSize::k4);
  EXPECT_EQ(Walk(kTwoLevel, 0x123fe123).gfn, Gfn(0x345));
}

// Covers: SHD-46
TEST_F(GuestWalkerTest, RightsAreWhatEveryEntryGrants) {
  constexpr uint64_t kAddress = 0x7f12123fe123;
  const auto entry_at = [&](int level, uint64_t bits) {
    const uint64_t table = static_cast<uint64_t>(5 - level) << 12;
    memory_.PutEntry(table, IndexOf(Gfn(kAddress >> 12), Level(level)),
                     (table + 0x1000) | bits);
  };
  Map(kFourLevel, kAddress, 1, 0x345000 | kPwu | kD);
  EXPECT_EQ(Walk(kFourLevel, kAddress).access, kAllRights);
  for (int level = 1; level <= 4; ++level) {
    Map(kFourLevel, kAddress, 1, 0x345000 | kPwu | kD);
    entry_at(level, kP | kU | kD);
    EXPECT_EQ(Walk(kFourLevel, kAddress).access,
              kMayRead | kMayUser | kMayExec);
    entry_at(level, kP | kW | kD);
    EXPECT_EQ(Walk(kFourLevel, kAddress).access,
              kMayRead | kMayWrite | kMayExec);
    entry_at(level, kPwu | kNx | kD);
    const GuestWalkResult result = Walk(kFourLevel, kAddress);
    EXPECT_EQ(result.access, kMayRead | kMayWrite | kMayUser);
    for (int at = 4; at >= 1; --at) {
      EXPECT_EQ(result.step(at).access,
                at >= level ? kAllRights : kMayRead | kMayWrite | kMayUser);
    }
  }
}

// Covers: SHD-46
TEST_F(GuestWalkerTest, ReservedBitsOfEachLevelAreAFault) {
  struct Row {
    GuestPagingState state;
    int level;
    uint64_t bits;      // set besides the address
    uint64_t reserved;  // of the bits that are tried
    uint64_t ignored;
  };
  const auto bits = guest_entry::Bits;
  for (const Row& row :
       {Row{kTwoLevel, 1, 0, 0, bits(3, 11)},
        Row{kTwoLevel, 2, 0, 0, bits(3, 11)},
        // With 46 physical bits the guest can use all of the address bits
        // 39:32.
        Row{kPse, 2, kPs, bits(21, 21), bits(8, 20)},
        Row{kPae, 1, 0, bits(46, 62), bits(3, 11)},
        Row{kPae, 2, 0, bits(46, 62), bits(3, 6) | bits(8, 11)},
        Row{kPae, 2, kPs, bits(46, 62) | bits(13, 20), bits(8, 12)},
        Row{kFourLevel, 1, 0, bits(46, 51), bits(3, 11) | bits(52, 62)},
        Row{kFourLevel, 2, kPs, bits(46, 51) | bits(13, 20), bits(52, 62)},
        Row{kFourLevel, 3, kPs, bits(46, 51) | bits(13, 29), bits(52, 62)},
        Row{kFourLevel, 3, 0, bits(46, 51), bits(8, 11) | bits(52, 62)},
        Row{kFourLevel, 4, 0, bits(46, 51) | kPs, bits(8, 11)},
        Row{kFiveLevel, 5, 0, bits(46, 51) | kPs, bits(8, 11)}}) {
    constexpr uint64_t kAddress = 0x12345678;
    for (int bit = 3; bit < 64; ++bit) {
      const uint64_t tried = uint64_t{1} << bit;
      if (((row.reserved | row.ignored) & tried) == 0) continue;
      memory_.Clear();
      Map(row.state, kAddress, 1, 0x345000 | kPwu);
      const uint64_t address = row.bits != 0 ? 0 : 0x5000;
      Map(row.state, kAddress, row.level, address | row.bits | kPwu | tried);
      const GuestWalkResult result = Walk(row.state, kAddress);
      if ((row.reserved & tried) != 0) {
        ASSERT_EQ(CodeOf(result), kPfReserved)
            << "level " << row.level << " bit " << bit;
        EXPECT_EQ(result.level, row.level);
      } else {
        ASSERT_NE(result.fault.code, kPfReserved)
            << "level " << row.level << " bit " << bit;
      }
    }
  }
}

// Covers: SHD-46
TEST_F(GuestWalkerTest, WhatTheProcessorLacksIsReserved) {
  Map(kFourLevel, 0, 3, 0x40000000 | kPs | kPwu);
  EXPECT_TRUE(Walk(kFourLevel, 0).translated());
  EXPECT_EQ(CodeOf(Walker(kFourLevel, {.has_1g_pages = false})
                       .Walk(memory_.words(), root_, 0, kReadAccess)),
            kPfReserved);

  GuestPagingState no_nx = kFourLevel;
  no_nx.efer &= ~kEferNx;
  Map(kFourLevel, 0, 1, 0x345000 | kPwu | kNx);
  EXPECT_TRUE(Walk(kFourLevel, 0).translated());
  EXPECT_EQ(CodeOf(Walk(no_nx, 0)), kPfReserved);

  Map(kPse, 0, 2, 0x40800000 | 1 << 17 | kPs | kPwu);
  EXPECT_EQ(CodeOf(Walker(kPse, {.max_phys_bits = 36})
                       .Walk(memory_.words(), root_, 0, kReadAccess)),
            kPfReserved);
  EXPECT_EQ(Walker(kPse, {.max_phys_bits = 37})
                .Walk(memory_.words(), root_, 0, kReadAccess)
                .gfn,
            Gfn(uint64_t{0x1040800000} >> 12));
}

// Covers: SHD-46
TEST_F(GuestWalkerTest, TheErrorCodeSaysWhatWasTried) {
  Map(kFourLevel, 0, 1, 0x345000 | kP);
  EXPECT_EQ(CodeOf(Walk(kFourLevel, 0x1000)), kPfNotPresent);
  EXPECT_EQ(CodeOf(Walk(kFourLevel, 0x1000, kWriteAccess)), kPferrWrite);
  EXPECT_EQ(CodeOf(Walk(kFourLevel, 0x1000, kUserWrite)),
            kPferrWrite | kPferrUser);
  EXPECT_EQ(CodeOf(Walk(kFourLevel, 0x1000, kFetchAccess)), kPferrFetch);
  EXPECT_EQ(CodeOf(Walk(kFourLevel, 0, kWriteAccess)),
            kPferrPresent | kPferrWrite);
  // The error code marks a fetch only if fetches can be forbidden.
  EXPECT_EQ(CodeOf(Walk(kTwoLevel, 0x80000000, kFetchAccess)), 0u);
  GuestPagingState smep = kTwoLevel;
  smep.cr4 |= kCr4Smep;
  EXPECT_EQ(CodeOf(Walk(smep, 0x80000000, kFetchAccess)), kPferrFetch);
}

// Covers: SHD-46
TEST_F(GuestWalkerTest, AProtectionKeyForbidsDataAndSaysSo) {
  GuestPagingState state = kFourLevel;
  state.cr4 |= kCr4Pke;
  const uint64_t key = uint64_t{5} << guest_entry::kProtectionKeyShift;
  GuestPageAccess read = kReadAccess;
  read.privilege = Privilege::kUser;
  read.pkru = 1u << 10;
  Map(kFourLevel, 0, 1, 0x345000 | kPwu | key);
  EXPECT_EQ(CodeOf(Walk(state, 0, read)),
            kPferrPresent | kPferrUser | kPferrKey);
  EXPECT_TRUE(Walk(kFourLevel, 0, read).translated()) << "without CR4.PKE";
  read.pkru = ~(3u << 10);
  EXPECT_TRUE(Walk(state, 0, read).translated()) << "other keys";
}

// Covers: SHD-47
TEST_F(GuestWalkerTest, OnlyAnAllowedAccessSetsAccessedAndOnlyAWriteDirty) {
  constexpr uint64_t kAddress = 0x12345678;
  const uint64_t leaf = Map(kFourLevel, kAddress, 1, 0x345000 | kP | kU);
  const auto upper = [&](int level) {
    return memory_.Get(static_cast<uint64_t>(5 - level) * 0x1000 +
                       8 * static_cast<uint64_t>(
                               IndexOf(Gfn(kAddress >> 12), Level(level)))) &
           (kA | kD);
  };
  EXPECT_FALSE(Walk(kFourLevel, kAddress, kWriteAccess).translated());
  EXPECT_EQ(memory_.Get(leaf) & (kA | kD), 0u);
  EXPECT_EQ(upper(4) | upper(3) | upper(2), 0u);

  EXPECT_TRUE(Walk(kFourLevel, kAddress, kReadAccess).translated());
  EXPECT_EQ(memory_.Get(leaf), 0x345000 | kP | kU | kA);
  EXPECT_EQ(upper(4) & upper(3) & upper(2), kA);

  memory_.Put(leaf, 0x345000 | kPwu);
  EXPECT_TRUE(Walk(kFourLevel, kAddress, kWriteAccess).translated());
  EXPECT_EQ(memory_.Get(leaf), 0x345000 | kPwu | kA | kD);
  EXPECT_EQ(upper(4) | upper(3) | upper(2), kA) << "D is for leafs";
}

// Covers: SHD-47
TEST_F(GuestWalkerTest, TablesThatAWalkChangedAreInTheDirtyLog) {
  Map(kFourLevel, 0x12345678, 1, 0x345000 | kPwu);
  ASSERT_TRUE(StartLog(memory_.vm(), {}, nullptr).ok());
  Walk(kFourLevel, 0x12345678);
  EXPECT_THAT(SealAndList(memory_.vm(), 0), ElementsAre(1, 2, 3, 4));
  Walk(kFourLevel, 0x12345678);
  uint64_t epoch = 0;
  SealAndList(memory_.vm(), 0, &epoch);
  ASSERT_TRUE(ClearAndDeliver(memory_.vm(), 0, epoch, 0, 1024,
                              MaskOf(1024, {1, 2, 3, 4}), nullptr)
                  .ok());
  Walk(kFourLevel, 0x12345678);
  EXPECT_THAT(SealAndList(memory_.vm(), 0), IsEmpty()) << "nothing to set";
  Walk(kFourLevel, 0x12345678, kWriteAccess);
  EXPECT_THAT(SealAndList(memory_.vm(), 0), ElementsAre(4)) << "D in the leaf";
}

// Covers: SHD-47
TEST_F(ReadOnlyGuestWalkerTest, TablesInAReadOnlySlotAreUsedAsTheyAre) {
  const uint64_t leaf = Map(kFourLevel, 0, 1, 0x345000 | kPwu);
  const GuestWalkResult result = Walk(kFourLevel, 0, kWriteAccess);
  EXPECT_TRUE(result.translated());
  EXPECT_TRUE(result.ad_update_skipped);
  EXPECT_EQ(result.access, kAllRights);
  EXPECT_EQ(memory_.Get(leaf), 0x345000 | kPwu);
}

// Guest memory whose words change just before each CompareExchange.
class ChangingWords final : public GuestWords {
 public:
  ChangingWords(GuestWords& words, std::function<void(Gpa)> before_exchange)
      : words_(words), before_exchange_(std::move(before_exchange)) {}
  GuestWordResult Read(Gpa gpa, WordSize size, uint64_t* value) override {
    ++reads;
    return words_.Read(gpa, size, value);
  }
  GuestWordResult CompareExchange(Gpa gpa, WordSize size, uint64_t expected,
                                  uint64_t desired) override {
    before_exchange_(gpa);
    return words_.CompareExchange(gpa, size, expected, desired);
  }

  int reads = 0;

 private:
  GuestWords& words_;
  const std::function<void(Gpa)> before_exchange_;
};

// Covers: SHD-47
TEST_F(GuestWalkerTest, AnEntryThatTheGuestChangesMeanwhileIsWalkedAgain) {
  const uint64_t leaf = Map(kFourLevel, 0, 1, 0x345000 | kPwu);
  bool changed = false;
  ChangingWords words(memory_.words(), [&](Gpa gpa) {
    if (gpa == Gpa(leaf) && !std::exchange(changed, true)) {
      memory_.Put(leaf, 0x346000 | kP);
    }
  });
  GuestWalkResult result =
      Walker(kFourLevel).Walk(words, root_, 0, kReadAccess);
  ASSERT_TRUE(result.translated());
  EXPECT_EQ(result.gfn, Gfn(0x346));
  EXPECT_EQ(result.access, kMayRead | kMayExec);
  EXPECT_EQ(result.step(1).entry, 0x346000 | kP | kA);
  EXPECT_EQ(memory_.Get(leaf), 0x346000 | kP | kA);
  EXPECT_EQ(words.reads, 8);

  // The guest unmaps the page during the walk. The walk faults, and the entry
  // stays as the guest wrote it.
  memory_.Put(leaf, 0x345000 | kPwu);
  ChangingWords unmapping(memory_.words(), [&](Gpa) { memory_.Put(leaf, 0); });
  EXPECT_EQ(CodeOf(Walker(kFourLevel).Walk(unmapping, root_, 0, kWriteAccess)),
            kPferrWrite);
  EXPECT_EQ(memory_.Get(leaf), 0u);
}

// Covers: SHD-47, DL-42
TEST_F(GuestWalkerTest, AWalkEndsWhereItsNoteHasNoRoomInTheDirtyRing) {
  Map(kFourLevel, 0x12345678, 1, 0x345000 | kPwu);
  DirtyRing ring(256, /*cpu_log_entries=*/0);
  ASSERT_TRUE(StartLog(memory_.vm(), {}, nullptr).ok());
  GuestMemoryAccess words(memory_.vm().state().slots, 0, &ring);
  while (ring.used() < ring.soft_limit() - 2) ring.Push({.slot = 0});
  const GuestWalkResult full =
      Walker(kFourLevel).Walk(words, root_, 0x12345678, kReadAccess);
  EXPECT_EQ(full.kind, GuestWalkResult::Kind::kRingFull);
  EXPECT_FALSE(full.translated());
  EXPECT_EQ(ring.used(), ring.soft_limit());
  // The first walk has set the Accessed bits in two tables and noted them, so
  // the second walk notes only the other two.
  ring.Collect([](DirtyGfn) {});
  while (ring.TakeCollected().has_value()) {
  }
  EXPECT_TRUE(Walker(kFourLevel)
                  .Walk(words, root_, 0x12345678, kReadAccess)
                  .translated());
  std::vector<uint64_t> pages;
  ring.ForEach([&](DirtyGfn page) { pages.push_back(page.offset); });
  EXPECT_THAT(pages, ElementsAre(3, 4));
}

// Covers: SHD-48
TEST_F(GuestWalkerTest, AWriteAfterAReadComesBackToSetDirty) {
  const uint64_t leaf = Map(kFourLevel, 0, 1, 0x345000 | kPwu);
  EXPECT_EQ(Walk(kFourLevel, 0).access, kAllRights.Without(kMayWrite));
  EXPECT_EQ(Walk(kFourLevel, 0).access, kAllRights.Without(kMayWrite));
  EXPECT_EQ(memory_.Get(leaf) & kD, 0u);
  EXPECT_EQ(Walk(kFourLevel, 0, kWriteAccess).access, kAllRights);
  EXPECT_EQ(memory_.Get(leaf) & kD, kD);
  EXPECT_EQ(Walk(kFourLevel, 0).access, kAllRights);
}

TEST_F(GuestWalkerTest, ATableThatIsNowhereIsAFaultAndNoTrouble) {
  GuestRoot nowhere = {.table = Gfn(0x80000)};
  GuestWalkResult result =
      Walker(kFourLevel).Walk(memory_.words(), nowhere, 0, kUserWrite);
  EXPECT_EQ(CodeOf(result), kPferrWrite | kPferrUser);
  EXPECT_EQ(result.level, 4);

  Map(kFourLevel, 0, 2, 0x80000000 | kPwu);
  result = Walk(kFourLevel, 0, kWriteAccess);
  EXPECT_EQ(CodeOf(result), kPferrWrite);
  EXPECT_EQ(result.level, 1);
  EXPECT_EQ(memory_.Get(0x1000) & kA, 0u);
}

TEST_F(GuestWalkerTest, ADecodedEntrySaysWhatTheWalkMadeOfIt) {
  const GuestWalker walker = Walker(kFourLevel);
  GuestWalker::EntryInfo info =
      walker.Decode(0x40a00000 | kPs | kP | kU | kA | kNx, 2);
  EXPECT_TRUE(info.present);
  EXPECT_FALSE(info.reserved);
  EXPECT_TRUE(info.leaf);
  EXPECT_TRUE(info.accessed);
  EXPECT_FALSE(info.dirty);
  EXPECT_EQ(info.rights, kMayRead | kMayUser);
  EXPECT_EQ(info.gfn, Gfn(0x40a00));
  EXPECT_FALSE(walker.Decode(0x40a00000, 2).present);
  EXPECT_TRUE(walker.Decode(0x40a02000 | kPs | kP, 2).reserved);
  EXPECT_FALSE(walker.Decode(0x40a02000 | kP, 2).leaf);
  EXPECT_EQ(walker.entry_size(), WordSize::k8);
  EXPECT_EQ(Walker(kPse).entry_size(), WordSize::k4);
  EXPECT_EQ(Walker(kPse).Decode(0x40800000 | 5 << 13 | kPs | kP, 2).gfn,
            Gfn(0x540800));
}

}  // namespace
}  // namespace mmu::testing
