#include "mmu_core/memory/frame_map.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <thread>
#include <vector>

#include "mmu_core/base/address.h"
#include "mmu_core/base/level.h"

namespace mmu {
namespace {

constexpr uint64_t kGib = PagesPer(Level::k1G);

// Never dereferenced.
std::byte* Fake(uint64_t address) {
  return reinterpret_cast<std::byte*>(address);
}

TEST(FrameMapTest, RangesStartAtAGibAndAreNeverZero) {
  FrameMap map;
  EXPECT_EQ(map.Reserve(1), Pfn(kGib));
  EXPECT_EQ(map.Reserve(kGib), Pfn(2 * kGib));
  EXPECT_EQ(map.Reserve(kGib + 1), Pfn(3 * kGib));
  EXPECT_EQ(map.Reserve(1), Pfn(5 * kGib));
}

TEST(FrameMapTest, FrameNumbersEndAt52Bits) {
  FrameMap map;
  EXPECT_EQ(map.Reserve(uint64_t{1} << 40), std::nullopt);
  EXPECT_NE(map.Reserve((uint64_t{1} << 40) - kGib), std::nullopt);
  EXPECT_EQ(map.Reserve(1), std::nullopt);
}

TEST(FrameMapTest, FramesAreFoundUpToTheLastOfARange) {
  FrameMap map;
  const uint64_t pages = 2 * kGib + 5;
  const Pfn base = map.Reserve(pages).value();
  EXPECT_EQ(map.PointerTo(base), nullptr);
  map.Publish(base, pages, Fake(1 << 20));
  EXPECT_EQ(map.PointerTo(base - 1), nullptr);
  EXPECT_EQ(map.PointerTo(base), Fake(1 << 20));
  EXPECT_EQ(map.PointerTo(base + kGib + 3),
            Fake((1 << 20) + ((kGib + 3) << kPageShift)));
  EXPECT_EQ(map.PointerTo(base + 2 * kGib + 4),
            Fake((1 << 20) + ((2 * kGib + 4) << kPageShift)));
  EXPECT_EQ(map.PointerTo(base + 2 * kGib + 5), nullptr);
  EXPECT_EQ(map.PointerTo(Pfn(~uint64_t{0})), nullptr);
}

TEST(FrameMapTest, ARangeMayBeginWithinItsFirstGib) {
  FrameMap map;
  const Pfn base = map.Reserve(kGib + 12).value() + 7;
  map.Publish(base, kGib + 5, Fake(1 << 20));
  EXPECT_EQ(map.PointerTo(base - 1), nullptr);
  EXPECT_EQ(map.PointerTo(base), Fake(1 << 20));
  EXPECT_EQ(map.PointerTo(base + kGib), Fake((1 << 20) + (kGib << kPageShift)));
  EXPECT_EQ(map.PointerTo(base + kGib + 4),
            Fake((1 << 20) + ((kGib + 4) << kPageShift)));
  EXPECT_EQ(map.PointerTo(base + kGib + 5), nullptr);
  map.Retire(base, kGib + 5);
  EXPECT_EQ(map.PointerTo(base), nullptr);
  EXPECT_EQ(map.PointerTo(base + kGib), nullptr);
}

TEST(FrameMapTest, RetiredFramesAreGoneAndNotGivenOutAgain) {
  FrameMap map;
  const Pfn base = map.Reserve(10).value();
  map.Publish(base, 10, Fake(4096));
  map.Retire(base, 10);
  EXPECT_EQ(map.PointerTo(base), nullptr);
  EXPECT_NE(map.Reserve(10), base);
}

TEST(FrameMapTest, ReadersFindOldRangesWhileNewOnesArePublished) {
  FrameMap map;
  const Pfn first = map.Reserve(1).value();
  map.Publish(first, 1, Fake(4096));
  std::atomic<bool> done = false;
  std::atomic<bool> started = false;
  std::thread reader([&] {
    while (!done.load()) {
      ASSERT_EQ(map.PointerTo(first), Fake(4096));
      // A new range is either absent or complete.
      for (uint64_t gib = 2; gib < 2000; gib += 100) {
        std::byte* p = map.PointerTo(Pfn(gib * kGib));
        ASSERT_TRUE(p == nullptr || p == Fake(gib << 12));
      }
      started = true;
    }
  });
  while (!started.load()) std::this_thread::yield();
  for (uint64_t gib = 2; gib < 2000; ++gib) {  // crosses a chunk
    const Pfn pfn = map.Reserve(1).value();
    ASSERT_EQ(pfn, Pfn(gib * kGib));
    map.Publish(pfn, 1, Fake(gib << 12));
  }
  done = true;
  reader.join();
}

}  // namespace
}  // namespace mmu
