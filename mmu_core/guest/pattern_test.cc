#include "mmu_core/guest/pattern.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <vector>

#include "gtest/gtest.h"

namespace mmu {
namespace {

using Kind = PatternSpec::Kind;

constexpr std::array<Kind, 4> kAllKinds = {Kind::kSequential, Kind::kUniform,
                                           Kind::kZipf, Kind::kHotCold};

// 1000 pages with a hole in the middle.
GpaSpace TestSpace() {
  return GpaSpace::Create(
             {GfnRange::Of(Gfn(16), 300), GfnRange::Of(Gfn(1 << 20), 700)})
      .value();
}

std::vector<GuestAccess> Take(AccessSource& source, int count) {
  std::vector<GuestAccess> accesses;
  GuestAccess access;
  while (count-- > 0 && source.Next(&access)) accesses.push_back(access);
  return accesses;
}

std::vector<GuestAccess> AccessesOf(const PatternSpec& spec, int count,
                                    uint32_t vcpu = 0, uint32_t vcpus = 1) {
  return Take(*MakePattern(spec, TestSpace(), vcpu, vcpus), count);
}

PatternSpec SpecOf(Kind kind) {
  PatternSpec spec;
  spec.kind = kind;
  return spec;
}

Gfn PageOf(const GuestAccess& access) {
  return ToGfn(Gpa(access.address_bytes));
}

std::map<Gfn, int> HitsByPage(const std::vector<GuestAccess>& accesses) {
  std::map<Gfn, int> hits;
  for (const GuestAccess& access : accesses) ++hits[PageOf(access)];
  return hits;
}

TEST(PatternTest, EveryAccessIsAnAlignedWordInsideTheRegion) {
  const GpaSpace space = TestSpace();
  for (const Kind kind : kAllKinds) {
    PatternSpec spec = SpecOf(kind);
    spec.offset_bytes = 250 * 4096;
    spec.size_bytes = 100 * 4096;
    spec.drift_pages_per_million_accesses = 5'000'000;
    const GpaSpace region = space.Slice(250, 100);
    for (uint32_t vcpu = 0; vcpu < 3; ++vcpu) {
      for (const GuestAccess& access : AccessesOf(spec, 5000, vcpu, 3)) {
        ASSERT_TRUE(region.Contains(Gpa(access.address_bytes)));
        ASSERT_EQ(access.address_bytes % 8, 0u);
        ASSERT_EQ(access.size_bytes, 8u);
      }
    }
  }
}

TEST(PatternTest, SameSeedGivesTheSameAccesses) {
  for (const Kind kind : kAllKinds) {
    EXPECT_EQ(AccessesOf(SpecOf(kind), 2000), AccessesOf(SpecOf(kind), 2000));
  }
}

TEST(PatternTest, OtherSeedOrVcpuGivesOtherAccesses) {
  for (const Kind kind : kAllKinds) {
    PatternSpec spec = SpecOf(kind);
    const std::vector<GuestAccess> base = AccessesOf(spec, 200, 0, 2);
    EXPECT_NE(base, AccessesOf(spec, 200, 1, 2)) << ToString(kind);
    spec.seed = 2;
    EXPECT_NE(base, AccessesOf(spec, 200, 0, 2)) << ToString(kind);
  }
}

TEST(PatternTest, KindsComeInTheFractionsAskedFor) {
  for (const Kind kind : kAllKinds) {
    PatternSpec spec = SpecOf(kind);
    spec.write_fraction = 0.3;
    spec.exec_fraction = 0.2;
    std::map<AccessKind, int> count;
    for (const GuestAccess& a : AccessesOf(spec, 100'000)) ++count[a.kind];
    EXPECT_NEAR(count[AccessKind::kWrite], 30'000, 800);
    EXPECT_NEAR(count[AccessKind::kExec], 20'000, 700);
  }
}

TEST(PatternTest, FractionsZeroAndOneAreExact) {
  for (const double fraction : {0.0, 1.0}) {
    PatternSpec spec;
    spec.write_fraction = fraction;
    for (const GuestAccess& access : AccessesOf(spec, 10'000)) {
      ASSERT_EQ(access.kind,
                fraction == 0 ? AccessKind::kRead : AccessKind::kWrite);
    }
  }
}

TEST(PatternTest, EndsAfterTheAccessCountAndStaysEnded) {
  for (const Kind kind : kAllKinds) {
    PatternSpec spec = SpecOf(kind);
    spec.access_count = 123;
    const auto source = MakePattern(spec, TestSpace(), 0, 1);
    EXPECT_EQ(Take(*source, 1000).size(), 123u);
    EXPECT_EQ(Take(*source, 1000).size(), 0u);
    EXPECT_TRUE(source->status().ok());
  }
}

TEST(PatternTest, SequentialVcpusCoverDisjointSharesOfEverything) {
  const PatternSpec spec = SpecOf(Kind::kSequential);
  std::set<Gfn> seen;
  uint64_t pages = 0;
  for (uint32_t vcpu = 0; vcpu < 3; ++vcpu) {
    // Each vCPU goes around twice, so that the test covers the wrap.
    const std::map<Gfn, int> hits = HitsByPage(AccessesOf(spec, 700, vcpu, 3));
    pages += hits.size();
    for (const auto& [gfn, count] : hits) seen.insert(gfn);
  }
  EXPECT_EQ(pages, 1000u);
  EXPECT_EQ(seen.size(), 1000u);
}

TEST(PatternTest, SequentialStepsByTheStrideAndWraps) {
  PatternSpec spec = SpecOf(Kind::kSequential);
  spec.stride_bytes = 2048;
  spec.size_bytes = 2 * 4096;
  std::vector<uint64_t> addresses;
  for (const GuestAccess& a : AccessesOf(spec, 6))
    addresses.push_back(a.address_bytes);
  const uint64_t base = 16 * 4096;
  EXPECT_EQ(addresses, (std::vector<uint64_t>{base, base + 2048, base + 4096,
                                              base + 6144, base, base + 2048}));
}

TEST(PatternTest, UniformReachesEveryPageAboutEquallyOften) {
  const std::map<Gfn, int> hits =
      HitsByPage(AccessesOf(SpecOf(Kind::kUniform), 200'000));
  EXPECT_EQ(hits.size(), 1000u);
  for (const auto& [gfn, count] : hits) {
    EXPECT_NEAR(count, 200, 6 * 14.2) << gfn;
  }
}

TEST(PatternTest, ZipfGivesFewScatteredPagesMostAccesses) {
  const std::map<Gfn, int> hits =
      HitsByPage(AccessesOf(SpecOf(Kind::kZipf), 200'000));
  std::vector<std::pair<int, Gfn>> by_count;
  for (const auto& [gfn, count] : hits) by_count.emplace_back(count, gfn);
  std::sort(by_count.rbegin(), by_count.rend());
  int top_tenth = 0;
  for (int i = 0; i < 100; ++i) top_tenth += by_count[i].first;
  // The 100 hottest of 1000 pages at exponent 0.99 get 5.28 / 7.73 of the
  // accesses.
  EXPECT_NEAR(top_tenth / 200'000.0, 0.68, 0.02);
  // The page after a random page is in the top ten with a probability of 1 %.
  int neighbours = 0;
  for (int i = 0; i < 10; ++i) {
    for (int j = 0; j < 10; ++j) {
      if (by_count[i].second + 1 == by_count[j].second) ++neighbours;
    }
  }
  EXPECT_LE(neighbours, 2);
}

TEST(PatternTest, ZipfHasTheSameHotPageOnEveryVcpu) {
  const auto hottest = [](uint32_t vcpu) {
    const auto hits =
        HitsByPage(AccessesOf(SpecOf(Kind::kZipf), 20'000, vcpu, 4));
    return std::max_element(
               hits.begin(), hits.end(),
               [](const auto& a, const auto& b) { return a.second < b.second; })
        ->first;
  };
  EXPECT_EQ(hottest(0), hottest(3));
}

TEST(PatternTest, HotWindowGetsItsPartOfTheAccesses) {
  const GpaSpace space = TestSpace();
  const std::vector<GuestAccess> accesses =
      AccessesOf(SpecOf(Kind::kHotCold), 100'000);
  const GpaSpace window = space.Slice(0, 100);
  const auto hot = std::count_if(accesses.begin(), accesses.end(),
                                 [&](const GuestAccess& a) {
                                   return window.Contains(Gpa(a.address_bytes));
                                 });
  EXPECT_NEAR(static_cast<double>(hot), 90'000, 600);
}

TEST(PatternTest, HotWindowDriftsUpAndAroundTheEnd) {
  PatternSpec spec = SpecOf(Kind::kHotCold);
  spec.hot_fraction = 0.01;
  spec.hot_access_fraction = 1;
  spec.drift_pages_per_million_accesses = 10'000;  // 1 page per 100 accesses
  const GpaSpace space = TestSpace();
  const std::vector<GuestAccess> accesses = AccessesOf(spec, 200'000);
  for (uint64_t i = 0; i < accesses.size(); ++i) {
    const uint64_t start = i / 100 % 1000;
    bool inside = false;
    for (uint64_t page = start; page < start + 10; ++page) {
      inside |= space.PageAt(page % 1000) == PageOf(accesses[i]);
    }
    ASSERT_TRUE(inside) << "access " << i;
  }
}

TEST(PatternTest, WithoutDriftAllHotAccessesStayInTheWindow) {
  PatternSpec spec = SpecOf(Kind::kHotCold);
  spec.hot_access_fraction = 1;
  EXPECT_EQ(HitsByPage(AccessesOf(spec, 50'000)).size(), 100u);
  spec.hot_access_fraction = 0;
  EXPECT_EQ(HitsByPage(AccessesOf(spec, 50'000)).size(), 900u);
}

}  // namespace
}  // namespace mmu
