#include "bench/working_set_accuracy/tracked_vm.h"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/guest/random.h"
#include "mmu_core/vm/jobs/generation_scan.h"
#include "mmu_core/working_set/generation_age.h"

namespace mmu::bench {
namespace {

using ::testing::ElementsAre;

constexpr uint64_t kPages = 4096;

GuestAccess At(uint64_t page, AccessKind kind = AccessKind::kRead) {
  return {.address_bytes = page << kPageShift, .size_bytes = 8, .kind = kind};
}

uint64_t YoungPages(TrackedVm& vm) {
  vm.MakeGeneration(ScanScope::kEveryPage);
  const std::vector<GenerationAge> ages = vm.Ages();
  const uint64_t young = std::count(ages.begin(), ages.end(), 0);
  EXPECT_EQ(vm.WorkingSetPages({1}), std::vector<uint64_t>{young});
  return young;
}

TEST(TrackedVmTest, APageIsYoungAgainWhenTheTlbForgetsIt) {
  TrackedVm vm({.size = TlbStaleness::Size::kLimited, .entries = 4, .ways = 4},
               kPages);
  EXPECT_EQ(YoungPages(vm), 0u);
  for (const uint64_t page : {1, 2, 3}) vm.Access(At(page));
  EXPECT_EQ(YoungPages(vm), 3u);
  vm.Access(At(1));
  EXPECT_EQ(YoungPages(vm), 0u) << "the TLB still translates the page";
  for (const uint64_t page : {4, 5, 6, 7}) vm.Access(At(page));
  vm.Access(At(1));
  EXPECT_EQ(YoungPages(vm), 5u);
  EXPECT_THAT(vm.WorkingSetPages({1, 2, 3, 4, 1000}),
              ElementsAre(5, 5, 7, 7, kPages));
}

TEST(TrackedVmTest, WithoutALimitOnlyFlushesMakeItForget) {
  TrackedVm never({}, kPages);
  TrackedVm each_2000({.flush_accesses = 2000}, kPages);
  TrackedVm at_generations(
      {.at_generations = TlbStaleness::AtGenerations::kFlush}, kPages);
  const auto access_all = [&](TrackedVm& vm) {
    for (uint64_t page = 0; page < 1500; ++page) vm.Access(At(page));
    return YoungPages(vm);
  };
  EXPECT_EQ(access_all(never), 1500u);
  EXPECT_EQ(access_all(never), 0u);
  EXPECT_EQ(access_all(each_2000), 1500u);
  EXPECT_EQ(access_all(each_2000), 1000u) << "it was flushed after 500 of them";
  EXPECT_EQ(access_all(at_generations), 1500u);
  EXPECT_EQ(access_all(at_generations), 1500u);
}

// The daemon's TLB has 1,024 entries for small pages, each for certain pages.
TEST(TrackedVmTest, ALimitIsLikeATlbOfThatSize) {
  TrackedVm daemon({.size = TlbStaleness::Size::kDaemon}, kPages);
  TrackedVm limited(
      {.size = TlbStaleness::Size::kLimited, .entries = 1024, .ways = 1},
      kPages);
  Rng rng(1);
  for (int generation = 0; generation < 10; ++generation) {
    for (int i = 0; i < 1000; ++i) {
      const GuestAccess access =
          At(UniformBelow(rng, kPages),
             i % 2 == 0 ? AccessKind::kRead : AccessKind::kWrite);
      daemon.Access(access);
      limited.Access(access);
    }
    EXPECT_EQ(YoungPages(daemon), YoungPages(limited));
    EXPECT_EQ(daemon.Ages(), limited.Ages());
  }
}

}  // namespace
}  // namespace mmu::bench
