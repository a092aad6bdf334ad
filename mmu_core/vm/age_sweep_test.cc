#include "mmu_core/vm/jobs/age_sweep.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/level.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/guest/hypervisor/l1_hypervisor.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/run/l1_processor.h"
#include "mmu_core/vm/vcpu/shadow_vcpu.h"

namespace mmu::testing {
namespace {

using ::testing::ElementsAre;

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kGiB = uint64_t{1} << 30;
constexpr uint64_t k2MPages = PagesPer(Level::k2M);

// The result of a sweep: the counts of all ranges, and the young pages of each.
struct Answer {
  uint64_t young = 0;
  uint64_t old = 0;
  std::vector<std::vector<bool>> pages;  // young, by range

  friend bool operator==(const Answer&, const Answer&) = default;
};

Answer Sweep(Vm& vm, const std::vector<GfnRange>& ranges, AgeMode mode) {
  Answer answer;
  for (const GfnRange range : ranges) {
    answer.pages.emplace_back(range.pages(), false);
  }
  AgeSweep sweep(vm.state(), ranges, mode, MissingSlots::kRefuse);
  Gfn last;
  while (!sweep.done()) {
    const AgeSweep::Piece piece = sweep.Next(nullptr).value();
    EXPECT_GE(piece.pages.start, last) << "no page comes twice";
    last = piece.pages.end;
    answer.young += piece.result.young_page_count;
    answer.old += piece.result.old_page_count;
    for (size_t i = 0; i < ranges.size(); ++i) {
      const GfnRange both = piece.pages.Intersect(ranges[i]);
      if (both.empty()) continue;
      for (Gfn gfn = both.start; gfn < both.end; gfn = gfn + 1) {
        const uint64_t bit = gfn - piece.pages.start;
        if ((piece.result.young[bit / 64] >> bit % 64 & 1) != 0) {
          answer.pages[i][gfn - ranges[i].start] = true;
        }
      }
    }
  }
  return answer;
}
uint64_t YoungIn(Vm& vm, const std::vector<GfnRange>& ranges, AgeMode mode) {
  return Sweep(vm, ranges, mode).young;
}

GfnRange Mib(uint64_t start, uint64_t size) {
  return GfnRange::Of(ToGfn(Gpa(start * kMiB)), size * kMiB / kPageSize);
}

std::unique_ptr<Vm> MakeVmOf(MmuMode mmu, EntryFormat format,
                             VmConfig::AdBits ad_bits) {
  VmConfig config;
  config.mmu = mmu;
  config.format = format;
  config.ad_bits = ad_bits;
  for (const Level level : {Level::k4K, Level::k2M, Level::k1G}) {
    const auto id = static_cast<uint32_t>(ToInt(level)) - 1;
    // The slots of 4K and 2M pages touch, the slot of 1G pages stands apart.
    const uint64_t gpa = level == Level::k1G ? 4 * kGiB : id * 64 * kMiB;
    config.memslots.push_back(Slot(id, gpa,
                                   level == Level::k1G ? 2 * kGiB : 64 * kMiB,
                                   level, BackingKind::kMetadataOnly));
  }
  return MakeVmFrom(config);
}

struct Mmu {
  const char* name;
  MmuMode mmu;
  EntryFormat format = EntryFormat::kEpt;
  VmConfig::AdBits ad_bits = VmConfig::AdBits::kOn;
};

class AgeSweepTest : public ::testing::TestWithParam<Mmu> {
 protected:
  std::unique_ptr<Vm> vm_ =
      MakeVmOf(GetParam().mmu, GetParam().format, GetParam().ad_bits);
};

// The range covers half of the first 1G page and all of the second.
// Covers: AGE-13, AGE-14, AGE-17
TEST_P(AgeSweepTest, AHugePageThatIsCutIsYoungInAllThatIsAskedFor) {
  const std::vector<GfnRange> range = {Mib(4096 + 512, 1536)};
  Write(*vm_, 4 * kGiB);
  Write(*vm_, 5 * kGiB);
  EXPECT_EQ(YoungIn(*vm_, range, AgeMode::kTest), 393'216u);
  EXPECT_EQ(YoungIn(*vm_, range, AgeMode::kTestAndClear), 393'216u);
  EXPECT_EQ(YoungIn(*vm_, range, AgeMode::kTest), 0u);
  // Clearing a part of a huge page clears the Accessed bit of the whole page.
  EXPECT_EQ(YoungIn(*vm_, {Mib(4096, 512)}, AgeMode::kTest), 0u);
}

// Several ranges lie in one huge page, with and without pages between them, in
// any order, and one of them occurs twice. Only the first finds the page young.
// Covers: AGE-17
TEST_P(AgeSweepTest, RangesThatShareAHugePageAgree) {
  const std::vector<GfnRange> ranges = {
      Mib(4096 + 700, 1), Mib(4096 + 3, 2),     Mib(4096 + 700, 1),
      Mib(4096 + 5, 1),   Mib(4096 + 600, 200), Mib(4096 + 900, 4)};
  Write(*vm_, 4 * kGiB);
  const Answer test = Sweep(*vm_, ranges, AgeMode::kTest);
  EXPECT_EQ(test.young, 207 * kMiB / kPageSize) << "each page counts once";
  EXPECT_EQ(test.old, 0u);
  EXPECT_EQ(Sweep(*vm_, ranges, AgeMode::kTestAndClear), test);
  EXPECT_EQ(YoungIn(*vm_, ranges, AgeMode::kTestAndClear), 0u);
}

// Pages outside of the ranges keep their Accessed bits, unless they share a
// huge page with a range.
// Covers: AGE-17
TEST_P(AgeSweepTest, WhatIsNotAskedForIsLeftAlone) {
  Touch(*vm_, GfnRange::Of(Gfn(0), 16));
  EXPECT_EQ(YoungIn(*vm_, {GfnRange::Of(Gfn(0), 4), GfnRange::Of(Gfn(8), 4)},
                    AgeMode::kTestAndClear),
            8u);
  EXPECT_EQ(YoungIn(*vm_, {GfnRange::Of(Gfn(0), 16)}, AgeMode::kTest), 8u);
  Write(*vm_, 64 * kMiB);
  Write(*vm_, 66 * kMiB);
  EXPECT_EQ(YoungIn(*vm_, {Mib(65, 1)}, AgeMode::kTestAndClear), 256u);
  EXPECT_EQ(YoungIn(*vm_, {Mib(64, 1)}, AgeMode::kTest), 0u);
  EXPECT_EQ(YoungIn(*vm_, {Mib(66, 2)}, AgeMode::kTest), 512u);
}

// Covers: AGE-13, AGE-14, AGE-17
TEST_P(AgeSweepTest, TestAndClearAnswersWhatTestDoes) {
  std::mt19937_64 random(GetParam().name[0] * 1000 + 7);
  const std::vector<GfnRange> slots = {Mib(0, 128),
                                       Mib(4096, 2048)};  // 0 and 1 touch
  const auto random_gfn = [&](GfnRange in) {
    return in.start + random() % in.pages();
  };
  for (int round = 0; round < 12; ++round) {
    for (int i = 0; i < 200; ++i) {
      const GfnRange& slot = slots[random() % 8 == 0];
      const Gpa gpa = ToGpa(random_gfn(slot));
      if (random() % 2 == 0) {
        Read(*vm_, gpa.value());
      } else {
        Write(*vm_, gpa.value());
      }
    }
    std::vector<GfnRange> ranges;
    for (uint64_t i = random() % 6 + 1; i > 0; --i) {
      const GfnRange slot = slots[random() % 2];
      const Gfn a = random_gfn(slot);
      const Gfn b = random_gfn(slot);
      // Some ranges begin or end at a huge page.
      GfnRange range = {std::min(a, b), std::max(a, b) + 1};
      if (random() % 3 == 0) {
        range.start = RoundDown(range.start, Level::k2M);
        range.end = RoundDown(range.end - 1, Level::k2M) + k2MPages;
      }
      ranges.push_back(range);
    }
    const Answer test = Sweep(*vm_, ranges, AgeMode::kTest);
    ASSERT_EQ(Sweep(*vm_, ranges, AgeMode::kTestAndClear), test)
        << "round " << round;
    ASSERT_EQ(YoungIn(*vm_, ranges, AgeMode::kTest), 0u);
  }
  EXPECT_EQ(AuditFindings(*vm_), "");
}

INSTANTIATE_TEST_SUITE_P(
    Mmus, AgeSweepTest,
    ::testing::Values(Mmu{"Tdp", MmuMode::kTdp},
                      Mmu{"Npt", MmuMode::kTdp, EntryFormat::kNpt},
                      Mmu{"TdpWithoutAd", MmuMode::kTdp, EntryFormat::kEpt,
                          VmConfig::AdBits::kOff},
                      Mmu{"Shadow", MmuMode::kTdpShadow},
                      Mmu{"ShadowWithoutAd", MmuMode::kTdpShadow,
                          EntryFormat::kEpt, VmConfig::AdBits::kOff}),
    [](const auto& p) { return std::string(p.param.name); });

// The TDP MMU maps L1's memory by 2M. The shadow MMU maps the same pages for
// L2, some of them by 4K.
// Covers: AGE-11, AGE-17
TEST(AgeSweepOfBothMmusTest, TestAndClearAnswersWhatTestDoes) {
  VmConfig config;
  config.mmu = MmuMode::kNested;
  config.memslots = {Slot(0, 0, 64 * kMiB, Level::k2M)};
  auto vm = MakeVmFrom(config);
  L1Processor cpu(*vm->state().vcpus[0], Level::k512G);
  L1Hypervisor l1(cpu, vm->GuestSpace(),
                  {.tables = GuestTables::kEpt, .max_page = Level::k2M});
  ASSERT_TRUE(l1.Boot().ok());
  std::mt19937_64 random(11);
  for (int round = 0; round < 40; ++round) {
    for (int i = 0; i < 20; ++i) {
      uint64_t word = 0;
      const Gpa nested(random() % (8 * kMiB) & ~uint64_t{7});
      ASSERT_TRUE(l1.Access(nested, AccessKind::kRead, &word).ok());
      Read(*vm, random() % (64 * kMiB));
    }
    if (round == 20) {
      ASSERT_TRUE(l1.Demote(Gpa(0)).ok());
      ASSERT_TRUE(l1.Unmap(Gpa(kPageSize), kPageSize).ok());
    }
    std::vector<GfnRange> ranges;
    for (int i = 0; i < 3; ++i) {
      const uint64_t start = random() % (64 * kMiB / kPageSize - 1000);
      ranges.push_back(GfnRange::Of(Gfn(start), random() % 999 + 1));
    }
    const Answer test = Sweep(*vm, ranges, AgeMode::kTest);
    ASSERT_EQ(Sweep(*vm, ranges, AgeMode::kTestAndClear), test);
    ASSERT_EQ(YoungIn(*vm, ranges, AgeMode::kTest), 0u);
  }
  EXPECT_EQ(AuditFindings(*vm), "");
}

// A range is aged GiB by GiB; its answer is one.
TEST(AgeRangeTest, YoungPagesOfAllGibsCount) {
  const uint64_t gib = PagesPer(Level::k1G);
  for (const MmuMode mmu :
       {MmuMode::kTdp, MmuMode::kTdpShadow, MmuMode::kStage2}) {
    SCOPED_TRACE(static_cast<int>(mmu));
    VmConfig config;
    config.mmu = mmu;
    config.memslots = {Slot(0, 0, 3 * kGiB)};
    auto vm = MakeVmFrom(config);
    for (const uint64_t page : {uint64_t{7}, gib - 1, gib, 2 * gib + 9}) {
      Read(*vm, page * kPageSize);
    }
    const AgeResult aged =
        vm->Age({Gfn(3), Gfn(3 * gib)}, AgeMode::kTest, nullptr).value();
    EXPECT_THAT(PagesOf(aged.young),
                ElementsAre(4, gib - 4, gib - 3, 2 * gib + 6));
    EXPECT_EQ(aged.young_page_count, 4u);
  }
}

// MGLRU looks around a page that it found young. It may do so only if the page
// was found young by the TDP MMU, which ages fast.
// Covers: AGE-32
TEST(AgeSweepOfBothMmusTest, WasFastIsWhatTheTdpMmuFoundYoung) {
  const GfnRange page = GfnRange::Of(Gfn(0), 1);
  for (const MmuMode mmu : {MmuMode::kTdp, MmuMode::kTdpShadow}) {
    VmConfig config;
    config.mmu = mmu;
    config.memslots = {Slot(0, 0, kMiB)};
    auto vm = MakeVmFrom(config);
    EXPECT_FALSE(vm->Age(page, AgeMode::kTest, nullptr)->reach.was_fast);
    Read(*vm, 0);
    const AgeResult result =
        vm->Age(page, AgeMode::kTestAndClear, nullptr).value();
    EXPECT_THAT(result.young, ElementsAre(1));
    EXPECT_EQ(result.reach.was_fast, mmu == MmuMode::kTdp);
    EXPECT_FALSE(vm->Age(page, AgeMode::kTest, nullptr)->reach.was_fast)
        << "old";
  }

  VmConfig config;
  config.mmu = MmuMode::kNested;
  config.memslots = {Slot(0, 0, 64 * kMiB)};
  auto vm = MakeVmFrom(config);
  L1Processor cpu(*vm->state().vcpus[0], Level::k512G);
  L1Hypervisor l1(cpu, vm->GuestSpace(), {.tables = GuestTables::kEpt});
  ASSERT_TRUE(l1.Boot().ok());
  uint64_t word = 1;
  ASSERT_TRUE(l1.Access(Gpa(0), AccessKind::kWrite, &word).ok());
  const GfnRange l2 = GfnRange::Of(l1.FrameOf(Gpa(0)).value(), 1);
  ASSERT_TRUE(vm->Age(l2, AgeMode::kTestAndClear, nullptr).ok());
  // Ageing does not flush, so a cached translation would hide the next access.
  Vcpu& vcpu = *vm->state().vcpus[0];
  vcpu.tlb().FlushAll();
  vcpu.shadow()->tlb().FlushAll();
  ASSERT_TRUE(l1.Access(Gpa(0), AccessKind::kRead, &word).ok());
  AgeResult result = vm->Age(l2, AgeMode::kTest, nullptr).value();
  EXPECT_EQ(result.young_page_count, 1u);
  EXPECT_FALSE(result.reach.was_fast) << "young in the shadow MMU only";
  Read(*vm, ToGpa(l2.start).value());
  result = vm->Age(l2, AgeMode::kTest, nullptr).value();
  EXPECT_TRUE(result.reach.was_fast) << "one fast MMU is enough";
}

// A sweep over all memslots of a VM skips slots that are deleted meanwhile:
// their pages are neither young nor old. The other slots are not affected.
TEST(AgeSweepSlotsTest, SlotsThatGoMeanwhileAreSkipped) {
  VmConfig config;
  config.slot_zap = VmConfig::SlotZap::kSlot;
  // The first two slots touch, so a sweep takes them as one range.
  config.memslots = {Slot(0, 0, kMiB), Slot(1, kMiB, kMiB), Slot(2, kGiB, kMiB),
                     Slot(3, 2 * kGiB, kMiB)};
  for (const AgeMode mode : {AgeMode::kTest, AgeMode::kTestAndClear}) {
    auto vm = MakeVmFrom(config);
    std::vector<GfnRange> all;
    for (const MemslotConfig& slot : config.memslots) {
      all.push_back(GfnRange::Of(ToGfn(slot.gpa), kMiB / kPageSize));
      Write(*vm, slot.gpa.value());
    }
    ASSERT_TRUE(vm->SetMemslot(Slot(1, 0, 0)).ok());
    AgeSweep sweep(vm->state(), all, mode, MissingSlots::kSkip);
    std::vector<uint64_t> young;
    while (!sweep.done()) {
      const absl::StatusOr<AgeSweep::Piece> piece = sweep.Next(nullptr);
      ASSERT_TRUE(piece.ok()) << piece.status();
      EXPECT_EQ(piece->result.old_page_count, 0u);
      young.push_back(piece->result.young_page_count);
      if (young.size() == 1) {
        ASSERT_TRUE(vm->SetMemslot(Slot(2, 0, 0)).ok());
      }
    }
    EXPECT_THAT(young, ElementsAre(1u, 0u, 1u));
  }
}

// The first range makes a huge page of a GiB old. The slot goes before the
// second range, which lies in the same huge page, is reached. What takes the
// slot's place was not used.
// Covers: AGE-17
TEST(AgeSweepSlotsTest, NoPageIsYoungThatWentWithItsHugePage) {
  for (const bool comes_back : {false, true}) {
    const MemslotConfig slot =
        Slot(0, 0, kGiB, Level::k1G, BackingKind::kMetadataOnly);
    auto vm = MakeVm({slot});
    Read(*vm, 0);
    AgeSweep sweep(vm->state(), {Mib(1, 1), Mib(3, 1)}, AgeMode::kTestAndClear,
                   MissingSlots::kSkip);
    EXPECT_EQ(sweep.Next(nullptr)->result.young_page_count, 256u);
    ASSERT_TRUE(vm->SetMemslot(Slot(0, 0, 0)).ok());
    if (comes_back) {
      ASSERT_TRUE(vm->SetMemslot(slot).ok());
    }
    const AgeSweep::Piece piece = sweep.Next(nullptr).value();
    EXPECT_EQ(piece.result.young_page_count, 0u);
    EXPECT_EQ(piece.result.old_page_count, 0u);
    EXPECT_THAT(PagesOf(piece.result.young), ElementsAre());
  }
}

TEST(AgeSweepSlotsTest, ARangeThatWasNamedMustBeThere) {
  auto vm = MakeVm({Slot(0, 0, kMiB), Slot(1, kGiB, kMiB)});
  AgeSweep sweep(vm->state(), {Mib(0, 1), Mib(1024, 1)}, AgeMode::kTest);
  ASSERT_TRUE(sweep.Next(nullptr).ok());
  ASSERT_TRUE(vm->SetMemslot(Slot(1, 0, 0)).ok());
  EXPECT_EQ(DetailOf(sweep.Next(nullptr).status()).reason,
            Reason::kGpaOutOfRange);
}

}  // namespace
}  // namespace mmu::testing
