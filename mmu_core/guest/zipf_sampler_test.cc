#include "mmu_core/guest/zipf_sampler.h"

#include <cmath>
#include <cstdint>
#include <vector>

#include "gtest/gtest.h"
#include "mmu_core/guest/random.h"

namespace mmu {
namespace {

TEST(ZipfSamplerTest, FollowsTheLawRankByRank) {
  constexpr uint64_t kCount = 50;
  constexpr int kDraws = 400'000;
  for (const double exponent : {0.2, 0.99, 1.0, 1.5, 4.0}) {
    const ZipfSampler sampler(kCount, exponent);
    Rng rng(11);
    std::vector<int> hits(kCount, 0);
    for (int i = 0; i < kDraws; ++i) {
      const uint64_t rank = sampler.Sample(rng);
      ASSERT_LT(rank, kCount);
      ++hits[rank];
    }
    double total = 0;
    for (uint64_t r = 0; r < kCount; ++r) total += std::pow(r + 1, -exponent);
    for (uint64_t r = 0; r < kCount; ++r) {
      const double p = std::pow(r + 1, -exponent) / total;
      const double sigma = std::sqrt(p * (1 - p) * kDraws);
      EXPECT_NEAR(hits[r], p * kDraws, 5 * sigma + 1)
          << "rank " << r << ", exponent " << exponent;
    }
  }
}

TEST(ZipfSamplerTest, StaysInRangeForMillionsOfRanksAndOne) {
  Rng rng(5);
  for (const uint64_t count : {uint64_t{1}, uint64_t{2}, uint64_t{1} << 28}) {
    for (const double exponent : {0.01, 0.99, 1.0, 10.0}) {
      const ZipfSampler sampler(count, exponent);
      for (int i = 0; i < 5000; ++i) ASSERT_LT(sampler.Sample(rng), count);
    }
  }
}

TEST(ZipfSamplerTest, ReachesTheTailOfALargeSpace) {
  const uint64_t count = uint64_t{1} << 22;
  const ZipfSampler sampler(count, 0.99);
  Rng rng(5);
  int upper_half = 0;
  constexpr int kDraws = 100'000;
  for (int i = 0; i < kDraws; ++i) {
    if (sampler.Sample(rng) >= count / 2) ++upper_half;
  }
  // The upper half has about 0.69 of the 16.4 of the harmonic sum.
  EXPECT_NEAR(upper_half / static_cast<double>(kDraws), 0.045, 0.006);
}

}  // namespace
}  // namespace mmu
