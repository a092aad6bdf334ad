#include "mmu_core/dirty/dirty_ring.h"

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include "absl/types/optional.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/error.h"

namespace mmu {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr uint32_t kCpuLog = 512;

std::vector<uint64_t> CollectOffsets(DirtyRing& ring) {
  std::vector<uint64_t> offsets;
  ring.Collect([&](DirtyGfn page) { offsets.push_back(page.offset); });
  return offsets;
}

// Covers: DL-40
TEST(DirtyRingTest, SizesThatBreakARuleAreRefusedWithKvmsErrno) {
  const auto error = [](uint64_t bytes, uint32_t cpu_log) {
    const absl::Status status = DirtyRing::CheckBytes(bytes, cpu_log);
    return status.ok() ? 0 : DetailOf(status).kvm_errno;
  };
  EXPECT_EQ(error(0, 0), EINVAL);
  EXPECT_EQ(error(2048, 0), EINVAL) << "less than a page";
  EXPECT_EQ(error(4096, 0), 0);
  EXPECT_EQ(error(4096 + 16, 0), EINVAL) << "no power of two";
  EXPECT_EQ(error(65536 * 16, 0), 0);
  EXPECT_EQ(error(2 * 65536 * 16, 0), E2BIG);
  // With a processor log of 512 entries, one exit needs room for 576 entries.
  EXPECT_EQ(error(4096, kCpuLog), EINVAL);
  EXPECT_EQ(error(8192, kCpuLog), EINVAL);
  EXPECT_EQ(error(16384, kCpuLog), 0);
}

// Covers: DL-41
TEST(DirtyRingTest, AnEntryGoesFromFreeToDirtyToCollectedToFree) {
  DirtyRing ring(256, 0);
  EXPECT_EQ(ring.entry(0).flags.load(), 0u);
  ring.Push({.slot = 1u << 16 | 7, .offset = 99});
  EXPECT_EQ(ring.entry(0).flags.load(), 1u);
  EXPECT_EQ(ring.entry(0).slot, 1u << 16 | 7);
  EXPECT_EQ(ring.entry(0).offset, 99u);
  EXPECT_EQ(ring.TakeCollected(), absl::nullopt) << "only dirty";
  EXPECT_THAT(CollectOffsets(ring), ElementsAre(99));
  EXPECT_NE(ring.entry(0).flags.load() & 2, 0u);
  EXPECT_THAT(CollectOffsets(ring), ElementsAre()) << "collected once";
  EXPECT_EQ(ring.used(), 1u);
  EXPECT_EQ(ring.TakeCollected(), (DirtyGfn{1u << 16 | 7, 99}));
  EXPECT_EQ(ring.entry(0).flags.load(), 0u);
  EXPECT_EQ(ring.used(), 0u);
}

// Covers: DL-42
TEST(DirtyRingTest, TheSoftLimitLeavesRoomForOneExit) {
  EXPECT_EQ(DirtyRing(256, 0).soft_limit(), 256u - 64);
  EXPECT_EQ(DirtyRing(1024, kCpuLog).soft_limit(), 1024u - 64 - 512);
  DirtyRing ring(256, 0);
  for (uint64_t i = 0; i < 191; ++i) ring.Push({0, i});
  EXPECT_FALSE(ring.SoftFull());
  ring.Push({0, 191});
  EXPECT_TRUE(ring.SoftFull());
  for (uint64_t i = 0; i < 64; ++i) ring.Push({0, i});
  CollectOffsets(ring);
  EXPECT_TRUE(ring.SoftFull()) << "collected entries are not free yet";
  for (int i = 0; i < 64; ++i) ring.TakeCollected();
  EXPECT_TRUE(ring.SoftFull());
  ring.TakeCollected();
  EXPECT_FALSE(ring.SoftFull());
}

TEST(DirtyRingDeathTest, AFullRingLosesNothingSilently) {
  DirtyRing ring(256, 0);
  for (uint64_t i = 0; i < 256; ++i) ring.Push({0, i});
  EXPECT_DEATH(ring.Push({0, 256}), "used");
}

// Covers: DL-43
TEST(DirtyRingTest, TakingStopsAtTheFirstEntryThatIsNotCollected) {
  DirtyRing ring(256, 0);
  for (uint64_t i = 0; i < 4; ++i) ring.Push({0, i});
  // User space collects the entries 0, 1 and 3 and skips entry 2.
  for (const uint32_t i : {0, 1, 3}) ring.entry(i).flags.fetch_or(2);
  EXPECT_EQ(ring.TakeCollected()->offset, 0u);
  EXPECT_EQ(ring.TakeCollected()->offset, 1u);
  EXPECT_EQ(ring.TakeCollected(), absl::nullopt);
  ring.entry(2).flags.fetch_or(2);
  EXPECT_EQ(ring.TakeCollected()->offset, 2u);
  EXPECT_EQ(ring.TakeCollected()->offset, 3u);
}

TEST(DirtyRingTest, AHarvestLeavesOutWhatUserSpaceHasCollected) {
  DirtyRing ring(256, 0);
  for (uint64_t i = 0; i < 3; ++i) ring.Push({0, i});
  ring.entry(1).flags.fetch_or(2);
  EXPECT_THAT(CollectOffsets(ring), ElementsAre(0, 2));
}

TEST(DirtyRingTest, AHarvestGoesOnBehindWhatUserSpaceCollectedAndWasReset) {
  DirtyRing ring(256, 0);
  for (uint64_t i = 0; i < 3; ++i) {
    ring.Push({0, i});
    ring.entry(static_cast<uint32_t>(i)).flags.fetch_or(2);
    EXPECT_EQ(ring.TakeCollected()->offset, i);
  }
  ring.Push({0, 3});
  EXPECT_THAT(CollectOffsets(ring), ElementsAre(3));
}

// Covers: DL-44
TEST(DirtyRingTest, AThreadThatSeesADirtyEntrySeesAllOfIt) {
  constexpr uint64_t kPushes = 100000;
  DirtyRing ring(256, 0);
  std::atomic<bool> done{false};
  uint64_t recorded = 0;  // by the harvester, read by the reset
  std::thread vcpu([&] {
    for (uint64_t i = 0; i < kPushes; ++i) {
      while (ring.SoftFull()) std::this_thread::yield();
      ring.Push({.slot = static_cast<uint32_t>(i), .offset = i * i});
    }
    done.store(true);
  });
  std::thread harvester([&] {
    uint64_t next = 0;
    while (next < kPushes) {
      ring.Collect([&](DirtyGfn page) {
        ASSERT_EQ(page.slot, static_cast<uint32_t>(next));
        ASSERT_EQ(page.offset, next * next);
        recorded = ++next;
      });
      std::this_thread::yield();
    }
  });
  for (uint64_t next = 0; next < kPushes;) {
    const absl::optional<DirtyGfn> page = ring.TakeCollected();
    if (!page.has_value()) {
      std::this_thread::yield();
      continue;
    }
    ASSERT_EQ(page->offset, next * next);
    ++next;
  }
  vcpu.join();
  harvester.join();
  EXPECT_TRUE(done.load());
  EXPECT_EQ(recorded, kPushes);
  EXPECT_EQ(ring.used(), 0u);
}

std::vector<std::string> FaultsOf(const DirtyRing& ring) {
  std::vector<std::string> faults;
  ring.Audit([&](const std::string& fault) { faults.push_back(fault); });
  return faults;
}

TEST(DirtyRingTest, AnAuditFindsFlagsThatDoNotFitTheirPlace) {
  DirtyRing ring(256, 0);
  for (uint64_t i = 0; i < 4; ++i) ring.Push({0, i});
  EXPECT_THAT(CollectOffsets(ring), ElementsAre(0, 1, 2, 3));
  ring.TakeCollected();
  ring.Push({0, 4});
  // One free entry, three collected, one dirty.
  EXPECT_THAT(FaultsOf(ring), IsEmpty());
  std::vector<uint64_t> collected;
  ring.ForEachCollected(
      [&](DirtyGfn page) { collected.push_back(page.offset); });
  EXPECT_THAT(collected, ElementsAre(1, 2, 3));

  const auto with_flags = [&](uint32_t i, uint32_t flags) {
    const uint32_t before = ring.entry(i).flags.exchange(flags);
    const std::vector<std::string> faults = FaultsOf(ring);
    ring.entry(i).flags.store(before);
    return faults;
  };
  EXPECT_THAT(with_flags(2, DirtyRing::kDirty),
              ElementsAre("entry 2 is collected by the indices, but its flags "
                          "are 1"));
  EXPECT_THAT(with_flags(4, 0), ElementsAre("entry 4 is dirty or collected by "
                                            "the indices, but its flags are "
                                            "0"));
  EXPECT_THAT(with_flags(5, DirtyRing::kDirty),
              ElementsAre("entry 5 is free by the indices, but its flags are "
                          "1"));
  // User space may collect by itself.
  EXPECT_THAT(with_flags(4, DirtyRing::kDirty | DirtyRing::kCollected),
              IsEmpty());
}

TEST(DirtyRingTest, AnAuditFindsAFetchIndexBeyondTheDirtyOne) {
  DirtyRing ring(256, 0);
  ring.Push({0, 0});
  ring.MoveFetchIndexForTest(2);
  EXPECT_THAT(FaultsOf(ring), ElementsAre("the fetch index 2 is beyond the "
                                          "dirty index 1"));
}

}  // namespace
}  // namespace mmu
