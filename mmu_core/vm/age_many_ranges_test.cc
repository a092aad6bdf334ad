// One sweep over as many ranges as a request may have: each second page of
// 512 MiB.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "mmu_core/aging/aging.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/testing/age_model.h"
#include "mmu_core/testing/aged_guest.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/core/vm_config.h"
#include "mmu_core/vm/jobs/age_sweep.h"

namespace mmu::testing {
namespace {

constexpr uint64_t kRanges = 65'536;
// A walk down to one page looks at one entry of each level of the tables, or at
// an rmap of each size. A few more may be on the way to the next page.
constexpr int64_t kEntriesPerRange = 8;

struct Memory {
  const char* name;
  MmuMode mode;
  Level host_page_level;
};

class AgeManyRangesTest : public ::testing::TestWithParam<Memory> {};

// Each third page was used. The first sweep makes the pages of the ranges old,
// and those of a huge page as a whole.
// Covers: AGE-13, AGE-14, AGE-17
TEST_P(AgeManyRangesTest, TheAnswerIsThatOfTheModelAndTheWorkIsPerRange) {
  VmConfig config;
  config.mmu = GetParam().mode;
  config.memslots = {Slot(0, 0, kRanges * 2 * kPageSize,
                          GetParam().host_page_level,
                          BackingKind::kMetadataOnly)};
  AgedGuest guest(config);
  std::vector<GfnRange> ranges;
  for (uint64_t i = kRanges; i-- > 0;) {
    ranges.push_back(GfnRange::Of(Gfn(2 * i), 1));
  }
  const uint64_t step =
      GetParam().host_page_level == Level::k4K ? 3 : PagesPer(Level::k2M) * 3;
  for (uint64_t page = 0; page < kRanges * 2; page += step) {
    guest.Use(Gfn(page), AccessKind::kRead);
  }
  ASSERT_EQ(guest.WhyNotInStep(), "");
  uint64_t young = 0;
  for (const AgeMode mode :
       {AgeMode::kTestAndClear, AgeMode::kTest, AgeMode::kTestAndClear}) {
    AgeSweep sweep = guest.vm().MakeAgeSweep(ranges, mode);
    guest.model().BeginSweep();
    MmuCost cost;
    for (const GfnRange pages : AgeModel::PiecesOf(ranges)) {
      ASSERT_FALSE(sweep.done());
      const AgeSweep::Piece piece = sweep.Next(&cost).value();
      ASSERT_EQ(piece.pages, pages);
      const AgeModel::Answer answer = {piece.result.young,
                                       piece.result.young_page_count,
                                       piece.result.old_page_count};
      ASSERT_EQ(answer,
                guest.model().Age(pages, mode, guest.Asked(FastOnly::kNo)))
          << pages;
      young += answer.young_page_count;
    }
    ASSERT_TRUE(sweep.done());
    EXPECT_LE(cost.sptes_visited_count,
              static_cast<int64_t>(kRanges) * kEntriesPerRange);
  }
  EXPECT_GT(young, 0u);
  EXPECT_EQ(AuditFindings(guest.vm()), "");
}

INSTANTIATE_TEST_SUITE_P(
    Memories, AgeManyRangesTest,
    ::testing::Values(Memory{"Tdp", MmuMode::kTdp, Level::k4K},
                      Memory{"TdpHuge", MmuMode::kTdp, Level::k2M},
                      Memory{"TdpShadow", MmuMode::kTdpShadow, Level::k4K},
                      Memory{"TdpShadowHuge", MmuMode::kTdpShadow, Level::k2M},
                      Memory{"Stage2", MmuMode::kStage2, Level::k4K},
                      Memory{"Stage2Huge", MmuMode::kStage2, Level::k2M}),
    [](const auto& p) { return std::string(p.param.name); });

}  // namespace
}  // namespace mmu::testing
