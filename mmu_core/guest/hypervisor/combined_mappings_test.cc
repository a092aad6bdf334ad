#include "mmu_core/guest/hypervisor/combined_mappings.h"

#include <cstdint>
#include <functional>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/level.h"
#include "mmu_core/guest/kernel/guest_cpu.h"
#include "mmu_core/paging/access_rights.h"
#include "mmu_core/tlb/tlb_options.h"

namespace mmu {
namespace {

constexpr uint32_t kVpids[] = {1, 2};
constexpr Gpa kEp4tas[] = {Gpa(0xa000), Gpa(0xb000)};
constexpr Pcid kPcids[] = {0, 7};
constexpr Gva kPages[] = {Gva(0x40'1000), Gva(0xffff'8000'0000'2000)};

constexpr CombinedMapping kMapping = {.nested = Gfn(0x321),
                                      .level = Level::k4K,
                                      .rights = kMayRead,
                                      .dirty = true};

// What an instruction drops; an unset member stands for all values.
struct Gone {
  std::optional<uint32_t> vpid = std::nullopt;
  std::optional<Gpa> ep4ta = std::nullopt;
  std::optional<Pcid> pcid = std::nullopt;
  std::optional<Gva> page = std::nullopt;
};

// Executed with the first VPID and the first EP4TA.
struct Row {
  std::string name;
  std::function<void(CombinedMappings&)> instruction;
  std::vector<Gone> gone;
};
std::ostream& operator<<(std::ostream& os, const Row& row) {
  return os << row.name;
}

class InstructionTest : public ::testing::TestWithParam<Row> {};

TEST_P(InstructionTest, DropsWhatTheManualNamesAndNothingElse) {
  CombinedMappings cache;
  const auto for_each = [&](const auto& fn) {
    for (const uint32_t vpid : kVpids) {
      for (const Gpa ep4ta : kEp4tas) {
        cache.Enter(vpid, ep4ta);
        for (const Pcid pcid : kPcids) {
          for (const Gva page : kPages) fn(vpid, ep4ta, pcid, page);
        }
      }
    }
  };
  for_each([&](uint32_t, Gpa, Pcid pcid, Gva page) {
    cache.Insert({.pcid = pcid, .gva = page}, kMapping);
  });
  cache.Enter(kVpids[0], kEp4tas[0]);
  GetParam().instruction(cache);
  for_each([&](uint32_t vpid, Gpa ep4ta, Pcid pcid, Gva page) {
    bool gone = false;
    for (const Gone& g : GetParam().gone) {
      gone |= g.vpid.value_or(vpid) == vpid &&
              g.ep4ta.value_or(ep4ta) == ep4ta &&
              g.pcid.value_or(pcid) == pcid && g.page.value_or(page) == page;
    }
    EXPECT_EQ(cache.Find({.pcid = pcid, .gva = page + 0x18}),
              gone ? std::nullopt : std::optional(kMapping))
        << "VPID " << vpid << ", EP4TA " << ep4ta << ", PCID " << pcid
        << ", page " << page;
  });
}

INSTANTIATE_TEST_SUITE_P(
    Instructions, InstructionTest,
    ::testing::Values(
        Row{"Entry", [](CombinedMappings& c) { c.Enter(2, Gpa(0xb000)); }, {}},
        Row{"Invlpg",
            [](CombinedMappings& c) {
              c.Invlpg({.pcid = 7, .gva = Gva(0x40'1fff)});
            },
            {{.vpid = 1, .pcid = 7, .page = Gva(0x40'1000)}}},
        Row{"InvpcidOfAnAddress",
            [](CombinedMappings& c) {
              c.InvalidatePcid(Invpcid::kAddress,
                               {.pcid = 0, .gva = kPages[1]});
            },
            {{.vpid = 1, .pcid = 0, .page = Gva(0xffff'8000'0000'2000)}}},
        Row{"InvpcidOfAContext",
            [](CombinedMappings& c) {
              c.InvalidatePcid(Invpcid::kSingleContext,
                               {.pcid = 7, .gva = Gva(0)});
            },
            {{.vpid = 1, .pcid = 7}}},
        Row{"InvpcidOfAllContexts",
            [](CombinedMappings& c) {
              c.InvalidatePcid(Invpcid::kAllContexts, {});
            },
            {{.vpid = 1}}},
        Row{"EptViolation",
            [](CombinedMappings& c) {
              c.Drop({.pcid = 7, .gva = Gva(0x40'1234)});
            },
            {{.vpid = 1,
              .ep4ta = Gpa(0xa000),
              .pcid = 7,
              .page = Gva(0x40'1000)}}},
        Row{"InveptOfAContext",
            [](CombinedMappings& c) { c.Invept(Gpa(0xb000)); },
            {{.ep4ta = Gpa(0xb000)}}},
        Row{"InveptOfAllContexts",
            [](CombinedMappings& c) { c.InveptGlobal(); },
            {{}}},
        Row{"InvvpidOfAnAddress",
            [](CombinedMappings& c) {
              c.InvalidateVpid(Invvpid::kAddress, 2, Gva(0x40'1008));
            },
            {{.vpid = 2, .page = Gva(0x40'1000)}}},
        Row{"InvvpidOfAContext",
            [](CombinedMappings& c) {
              c.InvalidateVpid(Invvpid::kSingleContext, 2, Gva(0));
            },
            {{.vpid = 2}}},
        Row{"InvvpidOfAllContexts",
            [](CombinedMappings& c) {
              c.InvalidateVpid(Invvpid::kAllContexts, 0, Gva(0));
            },
            {{}}}),
    [](const auto& row) { return row.param.name; });

TEST(CombinedMappingsTest, AnyAddressOfALargePageDropsIt) {
  const LinearAddress page = {.gva = Gva(0x4000'0000)};
  const LinearAddress address = {.gva = page.gva + 0x12'3456};
  const LinearAddress beyond = {.gva = page.gva + 0x20'0000};
  const CombinedMapping large = {.nested = Gfn(0x400), .level = Level::k2M};
  const std::function<void(CombinedMappings&)> instructions[] = {
      [&](CombinedMappings& c) { c.Invlpg(address); },
      [&](CombinedMappings& c) { c.Drop(address); },
      [&](CombinedMappings& c) {
        c.InvalidateVpid(Invvpid::kAddress, 1, address.gva);
      }};
  for (const auto& instruction : instructions) {
    CombinedMappings cache;
    cache.Enter(1, Gpa(0));
    cache.Insert(address, large);
    cache.Insert(beyond, large);
    EXPECT_EQ(cache.Find(page), large);
    instruction(cache);
    EXPECT_EQ(cache.Find(page), std::nullopt);
    EXPECT_EQ(cache.Find(beyond), large);
  }
}

TEST(CombinedMappingsTest, TheSmallestPageCountsAndAllSizesAreDropped) {
  CombinedMappings cache;
  const LinearAddress at = {.gva = Gva(0x4012'3000)};
  const LinearAddress beside = {.gva = Gva(0x4012'4000)};
  const CombinedMapping large = {.nested = Gfn(0x400), .level = Level::k2M};
  cache.Insert(at, large);
  cache.Insert(at, kMapping);
  EXPECT_EQ(cache.Find(at), kMapping);
  EXPECT_EQ(cache.Find(beside), large);
  cache.Invlpg(at);
  EXPECT_EQ(cache.Find(at), std::nullopt);
  EXPECT_EQ(cache.Find(beside), std::nullopt);
}

TEST(CombinedMappingsTest, ANewMappingReplacesTheOld) {
  CombinedMappings cache;
  const LinearAddress at = {.gva = Gva(0x1000)};
  cache.Insert(at, {.nested = Gfn(1)});
  cache.Insert(at, kMapping);
  EXPECT_EQ(cache.Find(at), kMapping);
}

// The pages that are still there after each was used once.
std::vector<uint64_t> Left(const TlbOptions& options) {
  CombinedMappings cache(options);
  std::vector<uint64_t> left;
  for (uint64_t page = 0; page < 4096; ++page) {
    const LinearAddress at = {.gva = Gva(page * kPageSize)};
    cache.Insert(at, kMapping);
    if (cache.Find(at).has_value()) left.push_back(page);
  }
  return left;
}

TEST(CombinedMappingsTest, OnlyChanceEvictsAndTheSeedDecides) {
  constexpr auto kRandom = TlbOptions::Evictions::kRandom;
  EXPECT_EQ(Left({}).size(), 4096u);
  const std::vector<uint64_t> left = Left({.evictions = kRandom, .seed = 1});
  EXPECT_GT(left.size(), 3500u);
  EXPECT_LT(left.size(), 4096u);
  EXPECT_EQ(left, Left({.evictions = kRandom, .seed = 1}));
  EXPECT_NE(left, Left({.evictions = kRandom, .seed = 2}));
}

}  // namespace
}  // namespace mmu
