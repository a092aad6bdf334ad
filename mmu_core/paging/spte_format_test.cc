#include "mmu_core/paging/spte_format.h"

#include <cstdint>
#include <ostream>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/level.h"
#include "mmu_core/paging/access_rights.h"
#include "mmu_core/paging/shadow_page.h"
#include "mmu_core/paging/spte.h"
#include "mmu_core/paging/spte_slot.h"

namespace mmu {

static void PrintTo(const WriteTriple& t, std::ostream* os) {
  *os << t.host_writable << t.mmu_writable << t.writable;
}

namespace {

constexpr uint64_t Bit(int n) { return uint64_t{1} << n; }

// The frame is aligned to every page size, and its address uses the bits 51:30.
constexpr Pfn kFrame(0xabcd'0000'00 & ~uint64_t{0x3ffff});

class SpteFormatTest : public ::testing::TestWithParam<const SpteFormat*> {
 protected:
  const SpteFormat& format() const { return *GetParam(); }
};

INSTANTIATE_TEST_SUITE_P(BothFormats, SpteFormatTest,
                         ::testing::Values(&SpteFormat::Ept(),
                                           &SpteFormat::Npt()),
                         [](const auto& tested) {
                           return std::string(tested.param->name());
                         });

// All settings that differ in more than the frame.
std::vector<LeafSettings> AllSettings() {
  std::vector<LeafSettings> all;
  for (const Level level : {Level::k4K, Level::k2M, Level::k1G}) {
    for (int bits = 0; bits < 16; ++bits) {
      all.push_back({
          .level = level,
          .pfn = kFrame,
          .write = (bits & 1) != 0,
          .executable = (bits & 2) != 0 ? Executable::kYes : Executable::kNo,
          .host_writable =
              (bits & 4) != 0 ? HostWritable::kYes : HostWritable::kNo,
          .prefetched = (bits & 8) != 0 ? Prefetched::kYes : Prefetched::kNo,
      });
    }
  }
  return all;
}

// Covers: SPTE-01
TEST(SpteTest, AFreshTableHoldsOnlyBit63AndNothingPresent) {
  PageTable table;
  for (SpteSlot& slot : table.entries) slot.StoreUnpublished(Spte(0x123));
  table.FillUnpublished(Spte::Initial());
  for (const SpteSlot& slot : table.entries) {
    ASSERT_EQ(slot.Load().bits(), Bit(63));
    ASSERT_FALSE(slot.Load().IsPresent()) << "not zero, yet not present";
  }
  EXPECT_EQ(Spte(), Spte::Initial());
  EXPECT_EQ(SpteSlot().Load(), Spte::Initial());
}

TEST(SpteTest, PresentMeansBit11WhateverTheHardwareSees) {
  EXPECT_TRUE(Spte(Bit(11)).IsPresent());
  EXPECT_FALSE(Spte(~Bit(11)).IsPresent());
  EXPECT_FALSE(SpteFormat::Ept().Allows(Spte(Bit(11)), AccessKind::kRead))
      << "in use, but the hardware sees no permission";
}

// Covers: SPTE-03
TEST_P(SpteFormatTest, Bit7MakesALeafOnlyAboveLevelOneAndIsNeverSetBelow) {
  EXPECT_TRUE(Spte(0).IsLeaf(Level::k4K));
  EXPECT_TRUE(Spte(Bit(7)).IsLeaf(Level::k4K));
  for (const Level level : {Level::k2M, Level::k1G, Level::k512G}) {
    EXPECT_TRUE(Spte(Bit(7)).IsLeaf(level));
    EXPECT_FALSE(Spte(~Bit(7)).IsLeaf(level));
  }
  for (const LeafSettings& settings : AllSettings()) {
    const Spte leaf = format().MakeLeaf(settings);
    EXPECT_EQ((leaf.bits() & Bit(7)) != 0, settings.level > Level::k4K);
    if (settings.level == Level::k2M) {
      EXPECT_EQ(format().MakeSplitChild(leaf, Level::k2M, 3).bits() & Bit(7),
                0u);
    }
  }
}

// Covers: SPTE-05
TEST(SpteFormatTest, NptEntriesNeverUseBits62To52) {
  constexpr uint64_t kReserved = 0x7ff0'0000'0000'0000;
  const SpteFormat& npt = SpteFormat::Npt();
  for (const LeafSettings& settings : AllSettings()) {
    const Spte leaf = npt.MakeLeaf(settings);
    EXPECT_EQ(leaf.bits() & kReserved, 0u) << leaf;
    EXPECT_EQ(
        npt.WithDirty(npt.WithAccessed(npt.WithWrite(leaf))).bits() & kReserved,
        0u);
  }
  EXPECT_EQ(npt.MakeTable(0x7fff'ffff'f000).bits() & kReserved, 0u);
}

TEST(SpteFormatTest, EptLeafsHaveTheBitsOfTheManual) {
  const SpteFormat& ept = SpteFormat::Ept();
  const uint64_t address = kFrame.value() << 12;
  const uint64_t common = Bit(63) | Bit(11) | Bit(8) | 0x70 | Bit(0) | address;
  EXPECT_EQ(
      ept.MakeLeaf({.level = Level::k2M, .pfn = kFrame, .write = true}).bits(),
      common | Bit(55) | Bit(53) | Bit(10) | Bit(9) | Bit(7) | Bit(2) | Bit(1));
  EXPECT_EQ(ept.MakeLeaf({.pfn = kFrame,
                          .executable = Executable::kNo,
                          .host_writable = HostWritable::kNo})
                .bits(),
            common);
}

TEST(SpteFormatTest, NptLeafsHaveTheBitsOfTheManual) {
  const SpteFormat& npt = SpteFormat::Npt();
  const uint64_t address = kFrame.value() << 12;
  const uint64_t common = Bit(11) | Bit(5) | Bit(2) | Bit(0) | address;
  EXPECT_EQ(
      npt.MakeLeaf({.level = Level::k2M, .pfn = kFrame, .write = true}).bits(),
      common | Bit(10) | Bit(9) | Bit(7) | Bit(6) | Bit(1));
  EXPECT_EQ(npt.MakeLeaf({.pfn = kFrame,
                          .executable = Executable::kNo,
                          .host_writable = HostWritable::kNo})
                .bits(),
            common | Bit(63));
}

// Covers: SPTE-10, SPTE-20
TEST_P(SpteFormatTest, EqualInputsMakeEqualLegalLeafs) {
  for (const LeafSettings& settings : AllSettings()) {
    const Spte leaf = format().MakeLeaf(settings);
    EXPECT_EQ(leaf, format().MakeLeaf(settings));
    EXPECT_EQ(format().WhyIllegal(leaf, settings.level), "") << leaf;
    EXPECT_EQ(leaf.pfn(), settings.pfn);
    EXPECT_TRUE(leaf.IsPresentLeaf(settings.level));
    EXPECT_EQ(format().IsExecutable(leaf),
              settings.executable == Executable::kYes);
    EXPECT_TRUE(format().Allows(leaf, AccessKind::kRead));
    EXPECT_EQ(format().Allows(leaf, AccessKind::kExec),
              settings.executable == Executable::kYes);
  }
  EXPECT_EQ(format().WhyIllegal(format().MakeTable(0x1000), Level::k512G), "");
}

// Covers: SPTE-20
TEST_P(SpteFormatTest, EveryReservedBitIsFound) {
  const Spte leaf = format().MakeLeaf({.pfn = kFrame, .write = true});
  // All bits that some legal entry may have.
  uint64_t known = leaf.bits() | spte_bits::kAddress | Bit(7);
  known |=
      format().MakeLeaf({.pfn = kFrame, .executable = Executable::kNo}).bits();
  known |= format()
               .MakeLeaf({.pfn = kFrame,
                          .dirty_tracking = DirtyTracking::kWriteProtect})
               .bits();
  known |= format().MakeTable(0).bits();
  if (format().name() == "ept") known |= 0x78;  // memory type
  for (int bit = 0; bit < 64; ++bit) {
    if ((known & Bit(bit)) != 0) continue;
    EXPECT_EQ(format().WhyIllegal(Spte(leaf.bits() | Bit(bit)), Level::k4K),
              "a reserved bit is set")
        << "bit " << bit;
  }
  EXPECT_NE(format().WhyIllegal(Spte(leaf.bits() & ~Bit(0)), Level::k4K), "");
  EXPECT_NE(format().WhyIllegal(Spte(leaf.bits() | Bit(7)), Level::k4K), "");
  const Spte unaligned = Spte(
      format().MakeLeaf({.level = Level::k2M, .pfn = kFrame}).bits() | 0x1000);
  EXPECT_NE(format().WhyIllegal(unaligned, Level::k2M), "");
}

// Covers: TRM-03
TEST_P(SpteFormatTest, ALeafAboveOneGibibyteIsIllegal) {
  const Spte huge = format().MakeLeaf({.level = Level::k1G, .pfn = kFrame});
  EXPECT_EQ(format().WhyIllegal(huge, Level::k1G), "");
  EXPECT_EQ(format().WhyIllegal(huge, Level::k512G), "a leaf above 1 GiB");
  EXPECT_EQ(format().WhyIllegal(huge, Level::k256T), "a leaf above 1 GiB");
}

// Covers: SPTE-11
TEST_P(SpteFormatTest, ALeafIsBornYoungUnlessPrefetched) {
  for (const LeafSettings& settings : AllSettings()) {
    EXPECT_EQ(format().IsAccessed(format().MakeLeaf(settings)),
              settings.prefetched == Prefetched::kNo);
  }
}

// Covers: SPTE-12
TEST_P(SpteFormatTest, DirtyIsSetExactlyWithWrite) {
  for (const LeafSettings& settings : AllSettings()) {
    const Spte leaf = format().MakeLeaf(settings);
    EXPECT_EQ(format().IsDirty(leaf), leaf.IsWritable());
  }
}

// Covers: SPTE-04
TEST(AdTypeTest, ALeafMayBeWriteProtectOnlyWhereTheProcessorHasADirtyBit) {
  const auto type_of = [](Spte leaf) { return leaf.bits() >> 60 & 3; };
  for (LeafSettings settings : AllSettings()) {
    const Spte plain = SpteFormat::Ept().MakeLeaf(settings);
    const Spte without_ad = SpteFormat::EptWithoutAd().MakeLeaf(settings);
    const Spte npt = SpteFormat::Npt().MakeLeaf(settings);
    EXPECT_EQ(type_of(plain), 0u);
    EXPECT_FALSE(SpteFormat::Ept().NeedsWriteProtect(plain));
    EXPECT_EQ(type_of(without_ad), 1u);
    EXPECT_TRUE(SpteFormat::EptWithoutAd().NeedsWriteProtect(without_ad));

    settings.dirty_tracking = DirtyTracking::kWriteProtect;
    const Spte protect = SpteFormat::Ept().MakeLeaf(settings);
    EXPECT_EQ(type_of(protect), 2u);
    EXPECT_TRUE(SpteFormat::Ept().NeedsWriteProtect(protect));
    EXPECT_EQ(protect.bits() & ~(uint64_t{3} << 60), plain.bits());
    EXPECT_EQ(SpteFormat::Ept().WhyIllegal(protect, settings.level), "");
    // Without A/D bits, and in NPT, dirty_tracking changes nothing.
    EXPECT_EQ(SpteFormat::EptWithoutAd().MakeLeaf(settings), without_ad);
    EXPECT_EQ(SpteFormat::Npt().MakeLeaf(settings), npt);
  }
  const Spte table = SpteFormat::Ept().MakeTable(0x1000);
  EXPECT_EQ(type_of(table), 0u);
  EXPECT_EQ(
      SpteFormat::Ept().WhyIllegal(Spte(table.bits() | Bit(61)), Level::k2M),
      "a table of A/D type 2");
  EXPECT_EQ(
      SpteFormat::EptWithoutAd().WhyIllegal(
          Spte(SpteFormat::EptWithoutAd().MakeTable(0x1000).bits() | Bit(61)),
          Level::k2M),
      "a reserved bit is set");
}

// Covers: SPTE-13
TEST_P(SpteFormatTest, WriteIsGrantedOnlyWhereAskedForAndTheHostAllows) {
  for (const LeafSettings& settings : AllSettings()) {
    const WriteTriple triple = format().TripleOf(format().MakeLeaf(settings));
    if (settings.host_writable == HostWritable::kNo) {
      EXPECT_EQ(triple, (WriteTriple{false, false, false}));
    } else if (settings.write) {
      EXPECT_EQ(triple, (WriteTriple{true, true, true}));
    } else {
      EXPECT_EQ(triple, (WriteTriple{true, false, false}));
    }
  }
}

// Covers: SPTE-15
TEST_P(SpteFormatTest, OnlyFourWriteTriplesAreLegal) {
  const Spte writable = format().MakeLeaf({.pfn = kFrame, .write = true});
  const uint64_t mmu =
      writable.bits() & ~format().WithoutMmuWrite(writable).bits() & ~Bit(1);
  const uint64_t host =
      format().MakeLeaf({.pfn = kFrame}).bits() &
      ~format()
           .MakeLeaf({.pfn = kFrame, .host_writable = HostWritable::kNo})
           .bits();
  for (int bits = 0; bits < 8; ++bits) {
    const WriteTriple triple{(bits & 4) != 0, (bits & 2) != 0, (bits & 1) != 0};
    const Spte spte((writable.bits() & ~(host | mmu | Bit(1))) |
                    (triple.host_writable ? host : 0) |
                    (triple.mmu_writable ? mmu : 0) |
                    (triple.writable ? Bit(1) : 0));
    ASSERT_EQ(format().TripleOf(spte), triple);
    const bool legal = bits == 7 || bits == 6 || bits == 4 || bits == 0;
    EXPECT_EQ(format().WhyIllegal(spte, Level::k4K).empty(), legal) << bits;
  }
}

TEST(SpteFormatTest, EptReadComesWithEveryLeafAndExecuteFollowsTheRequest) {
  for (const LeafSettings& settings : AllSettings()) {
    const uint64_t bits = SpteFormat::Ept().MakeLeaf(settings).bits();
    EXPECT_EQ(bits & Bit(0), Bit(0));
    EXPECT_EQ(bits & (Bit(2) | Bit(10)),
              settings.executable == Executable::kYes ? Bit(2) | Bit(10) : 0);
    EXPECT_EQ(SpteFormat::Npt().MakeLeaf(settings).bits() & Bit(0), Bit(0));
  }
}

// Covers: SPTE-18
TEST(SpteFormatTest, AnEptLeafMayBeExecuteOnly) {
  const SpteFormat& ept = SpteFormat::Ept();
  const auto leaf = [](const SpteFormat& format, AccessRights access,
                       Prefetched prefetched = Prefetched::kNo) {
    return format.MakeLeaf(
        {.pfn = kFrame, .access = access, .prefetched = prefetched});
  };
  constexpr uint64_t kRead = Bit(0), kExec = Bit(2), kUserExec = Bit(10);
  constexpr uint64_t kAll = kRead | Bit(1) | kExec | kUserExec;
  for (const SpteFormat* format : {&ept, &SpteFormat::EptWithoutAd()}) {
    EXPECT_EQ(leaf(*format, kMayExec).bits() & kAll, kExec);
    EXPECT_EQ(leaf(*format, kMayUser).bits() & kAll, kUserExec);
    EXPECT_EQ(leaf(*format, kMayExec | kMayUser).bits() & kAll,
              kExec | kUserExec);
    EXPECT_EQ(leaf(*format, kMayRead).bits() & kAll, kRead);
    for (const AccessRights access : {kMayExec, kMayUser}) {
      const Spte exec_only = leaf(*format, access);
      EXPECT_EQ(format->WhyIllegal(exec_only, Level::k4K), "") << access;
      EXPECT_TRUE(format->Allows(exec_only, AccessKind::kExec));
      EXPECT_FALSE(format->Allows(exec_only, AccessKind::kRead));
      EXPECT_FALSE(format->Allows(exec_only, AccessKind::kWrite));
      EXPECT_EQ(
          format->WhyIllegal(
              Spte(exec_only.bits() | Bit(1) | Bit(53) | Bit(55)), Level::k4K),
          "present bit is clear")
          << "write without read";
    }
  }
  EXPECT_EQ(ept.WhyIllegal(leaf(ept, AccessRights()), Level::k4K),
            "present bit is clear");
  // An aged leaf without A/D bits remembers that it allowed execution and no
  // reads.
  const SpteFormat& no_ad = SpteFormat::EptWithoutAd();
  const Spte tracked = leaf(no_ad, kMayExec, Prefetched::kYes);
  EXPECT_TRUE(no_ad.IsAccessTracked(tracked));
  EXPECT_EQ(no_ad.WhyIllegal(tracked, Level::k4K), "");
  EXPECT_EQ(no_ad.WithAccessRestored(tracked), leaf(no_ad, kMayExec));
}

TEST(SpteFormatTest, NptLeafsHaveTheUserAndNxBitsThatTheGuestGrants) {
  const auto bits = [](AccessRights access) {
    return SpteFormat::Npt().MakeLeaf({.pfn = kFrame, .access = access}).bits();
  };
  constexpr uint64_t kPresent = Bit(0), kUser = Bit(2), kNx = Bit(63);
  constexpr uint64_t kAll = kPresent | kUser | kNx;
  EXPECT_EQ(bits(kAllRights) & kAll, kPresent | kUser);
  EXPECT_EQ(bits(kMayRead) & kAll, kPresent | kNx);
  EXPECT_EQ(bits(kMayRead | kMayUser) & kAll, kPresent | kUser | kNx);
  EXPECT_EQ(bits(kMayRead | kMayExec) & kAll, kPresent);
  EXPECT_EQ(bits(AccessRights()) & kPresent, kPresent) << "always";
}

TEST(SpteFormatTest, RightsOfALeafAreThoseItWasMadeWith) {
  for (uint32_t rights = 0; rights < 16; ++rights) {
    const AccessRights access(rights);
    const LeafSettings settings = {
        .pfn = kFrame, .write = access.Has(kMayWrite), .access = access};
    for (const SpteFormat* format :
         {&SpteFormat::Ept(), &SpteFormat::EptWithoutAd()}) {
      const Spte leaf = format->MakeLeaf(settings);
      EXPECT_EQ(format->RightsOf(leaf), access) << format->name();
      const bool legal = access.Has(kMayRead) ||
                         (!access.Has(kMayWrite) && access != AccessRights());
      EXPECT_EQ(format->WhyIllegal(leaf, Level::k4K).empty(), legal) << access;
    }
    const Spte npt = SpteFormat::Npt().MakeLeaf(settings);
    EXPECT_EQ(SpteFormat::Npt().RightsOf(npt), access | kMayRead);
    EXPECT_EQ(SpteFormat::Npt().WhyIllegal(npt, Level::k4K), "");
  }
}

TEST_P(SpteFormatTest, ATableGrantsAllRights) {
  EXPECT_EQ(format().RightsOf(format().MakeTable(0x1000)), kAllRights);
}

// Covers: SPTE-19
TEST(SpteFormatTest, RamIsWriteBackOnEptAndLeftToTheGuestOnNpt) {
  for (const LeafSettings& settings : AllSettings()) {
    EXPECT_EQ(SpteFormat::Ept().MakeLeaf(settings).bits() >> 3 & 0xf, 0b1110u);
    EXPECT_EQ(SpteFormat::Npt().MakeLeaf(settings).bits() & 0x18, 0u);
  }
}

// Covers: SPTE-25
TEST_P(SpteFormatTest, ATableEntryAllowsEverythingAndIsNeverDirty) {
  constexpr uint64_t kTable = 0x7f12'3456'7000;
  const Spte spte = format().MakeTable(kTable);
  EXPECT_EQ(spte.address(), kTable);
  for (const Level level : {Level::k2M, Level::k1G, Level::k512G}) {
    EXPECT_TRUE(spte.IsPresentTable(level));
    EXPECT_EQ(format().WhyIllegal(spte, level), "");
  }
  for (const AccessKind kind :
       {AccessKind::kRead, AccessKind::kWrite, AccessKind::kExec}) {
    EXPECT_TRUE(format().Allows(spte, kind));
  }
  EXPECT_TRUE(format().IsAccessed(spte));
  EXPECT_FALSE(format().IsDirty(spte));
}

// Every state that a present leaf can reach.
std::vector<Spte> LeafStates(const SpteFormat& format, Level level) {
  std::vector<Spte> all;
  for (LeafSettings settings : AllSettings()) {
    if (settings.level != level) continue;
    const Spte leaf = format.MakeLeaf(settings);
    for (const Spte spte : {leaf, leaf.Without(spte_bits::kWrite),
                            format.WithoutMmuWrite(leaf)}) {
      all.push_back(spte);
      all.push_back(format.WithoutAccessed(spte));
      all.push_back(spte.Without(format.dirty_mask()));
      all.push_back(format.WithDirty(format.WithAccessed(spte)));
    }
  }
  return all;
}

// Covers: SPTE-26
TEST_P(SpteFormatTest, EachSplitChildTranslatesAsItsParentDid) {
  for (const Level level : {Level::k2M, Level::k1G}) {
    const Level small = ChildOf(level);
    for (const Spte huge : LeafStates(format(), level)) {
      std::vector<uint64_t> filled(kEntriesPerTable);
      format().FillSplitChildren(huge, level, filled.data());
      for (int i = 0; i < kEntriesPerTable; ++i) {
        const Spte child = format().MakeSplitChild(huge, level, i);
        ASSERT_EQ(child.bits(), filled[i]);
        ASSERT_TRUE(child.IsPresentLeaf(small));
        ASSERT_EQ(child.address(), huge.address() + i * BytesPer(small));
        const uint64_t others = ~(spte_bits::kAddress | Bit(7));
        ASSERT_EQ(child.bits() & others, huge.bits() & others);
        ASSERT_EQ((child.bits() & Bit(7)) != 0, small > Level::k4K);
        ASSERT_EQ(format().WhyIllegal(child, small), "");
      }
    }
  }
}

// Covers: SPTE-27
TEST_P(SpteFormatTest, ACollapsedLeafIsTheHugeOneThatCoversItsChild) {
  std::mt19937_64 random(7);
  for (const Level level : {Level::k2M, Level::k1G}) {
    for (const Spte huge : LeafStates(format(), level)) {
      for (const int i : {0, 1, 511, static_cast<int>(random() % 512)}) {
        const Spte child = format().MakeSplitChild(huge, level, i);
        EXPECT_EQ(format().MakeCollapsed(child, level), huge);
        if (level == Level::k1G) {
          const Spte grandchild = format().MakeSplitChild(
              child, Level::k2M, static_cast<int>(random() % 512));
          EXPECT_EQ(format().MakeCollapsed(grandchild, level), huge);
        }
      }
    }
  }
}

// Covers: SPTE-33
TEST_P(SpteFormatTest, ALeafIsVolatileWhileAWriteAssistOrFastFaultMayChangeIt) {
  const Spte wd = format().MakeLeaf({.pfn = kFrame, .write = true});
  const Spte w = wd.Without(format().dirty_mask());
  const Spte logged = wd.Without(spte_bits::kWrite);
  const Spte protect = format().WithoutMmuWrite(wd);
  const Spte readonly =
      format().MakeLeaf({.pfn = kFrame, .host_writable = HostWritable::kNo});
  EXPECT_FALSE(format().IsVolatile(wd));
  EXPECT_TRUE(format().IsVolatile(w)) << "the processor may set D";
  EXPECT_TRUE(format().IsVolatile(logged)) << "a fast fault may set W";
  EXPECT_TRUE(format().IsVolatile(logged.Without(format().dirty_mask())));
  EXPECT_FALSE(format().IsVolatile(protect));
  EXPECT_FALSE(format().IsVolatile(readonly));
  // A clear Accessed bit alone does not make an SPTE volatile.
  EXPECT_FALSE(format().IsVolatile(format().WithoutAccessed(wd)));
  EXPECT_FALSE(format().IsVolatile(format().WithoutAccessed(readonly)));
}

// Covers: SPTE-34, TLB-08
TEST_P(SpteFormatTest, AChangeOwesAFlushExactlyIfMmuWritableGoesAway) {
  const Spte wd = format().MakeLeaf({.pfn = kFrame, .write = true});
  const Spte logged = wd.Without(spte_bits::kWrite);
  const Spte protect = format().WithoutMmuWrite(wd);
  const Spte young = wd, old = format().WithoutAccessed(wd);
  const struct {
    Spte from, to;
    bool flush;
  } kCases[] = {
      {wd, protect, true},
      {logged, protect, true},  // a TLB may still allow writes
      {wd, logged, false},      // a user that relies on the missing W flushes
      {logged, wd, false},
      {protect, wd, false},
      {protect, protect, false},
      {young, old, false},
      {wd, wd.Without(format().dirty_mask()), false},
  };
  for (const auto& c : kCases) {
    EXPECT_EQ(format().ChangeNeedsFlush(c.from, c.to), c.flush)
        << c.from << " -> " << c.to;
  }
}

TEST_P(SpteFormatTest, LogProtectionKeepsMmuWritableAndTheOtherTakesIt) {
  const Spte wd = format().MakeLeaf({.pfn = kFrame, .write = true});
  EXPECT_EQ(format().TripleOf(wd.Without(spte_bits::kWrite)),
            (WriteTriple{true, true, false}));
  EXPECT_EQ(format().TripleOf(format().WithoutMmuWrite(wd)),
            (WriteTriple{true, false, false}));
  EXPECT_EQ(format().WithWrite(wd.Without(spte_bits::kWrite)), wd);
}

// Covers: SPTE-46
TEST_P(SpteFormatTest, AFrozenEntryLooksUsedToNobody) {
  const Spte frozen = Spte::Frozen();
  static_assert(Spte::Frozen().bits() == (Bit(63) | 0x1a0));
  static_assert(!Spte::Frozen().IsPresent());
  static_assert(Spte::Frozen().address() == 0);
  static_assert(!Spte::Frozen().IsWritable());
  EXPECT_TRUE(frozen.IsFrozen());
  EXPECT_FALSE(Spte::Initial().IsFrozen());
  for (const AccessKind kind :
       {AccessKind::kRead, AccessKind::kWrite, AccessKind::kExec}) {
    EXPECT_FALSE(format().Allows(frozen, kind));
    EXPECT_FALSE(format().Allows(Spte::Initial(), kind));
  }
  for (const Level level : {Level::k4K, Level::k2M, Level::k1G}) {
    EXPECT_FALSE(frozen.IsPresentLeaf(level));
    EXPECT_FALSE(frozen.IsPresentTable(level));
    for (const Spte leaf : level <= kMaxLeafLevel ? LeafStates(format(), level)
                                                  : std::vector<Spte>()) {
      ASSERT_FALSE(leaf.IsFrozen());
    }
  }
}

TEST(SpteSlotTest, AFailedCompareExchangeTellsWhatIsThereAndChangesNothing) {
  SpteSlot slot;
  Spte expected(5);
  EXPECT_FALSE(slot.CompareExchange(expected, Spte(7)));
  EXPECT_EQ(expected, Spte::Initial());
  EXPECT_EQ(slot.Load(), Spte::Initial());
  EXPECT_TRUE(slot.CompareExchange(expected, Spte(7)));
  EXPECT_EQ(slot.Load(), Spte(7));
  EXPECT_EQ(slot.FetchAnd(~uint64_t{2}), Spte(7));
  EXPECT_EQ(slot.Exchange(Spte(9)), Spte(5));
}

}  // namespace
}  // namespace mmu
