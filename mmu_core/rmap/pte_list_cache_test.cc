#include "mmu_core/rmap/pte_list_cache.h"

#include <cerrno>

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/rmap/pte_list_desc.h"
#include "mmu_core/rmap/pte_list_pool.h"

namespace mmu {
namespace {

TEST(PteListCacheTest, AFaultHas14AndIsFilledTo40ASplit513And553) {
  EXPECT_EQ(kFaultPteLists.min, 14);
  EXPECT_EQ(kSplitPteLists.min, 513);
  PteListPool pool;
  PteListCache fault(pool), split(pool);
  ASSERT_TRUE(fault.TopUp(kFaultPteLists).ok());
  EXPECT_EQ(fault.count(), 40);
  ASSERT_TRUE(split.TopUp(kSplitPteLists).ok());
  EXPECT_EQ(split.count(), 553);
  EXPECT_EQ(pool.Snapshot().descs_out, 593u);
  fault.Clear();
  EXPECT_EQ(fault.count(), 0);
  EXPECT_EQ(pool.Snapshot().descs_out, 553u);
}

TEST(PteListCacheTest, WithTheMinimumInItNothingIsTakenFromThePool) {
  PteListPool pool;
  PteListCache cache(pool);
  ASSERT_TRUE(cache.TopUp(kFaultPteLists).ok());
  while (cache.count() > kFaultPteLists.min) {
    PteListDesc* desc = cache.Take();
    EXPECT_EQ(desc->next, nullptr);
    PteListPool::Return(desc);
  }
  ASSERT_TRUE(cache.TopUp(kFaultPteLists).ok());
  EXPECT_EQ(cache.count(), 14);
  PteListPool::Return(cache.Take());
  ASSERT_TRUE(cache.TopUp(kFaultPteLists).ok());
  EXPECT_EQ(cache.count(), 40);
}

TEST(PteListCacheTest, ATopUpThatFailsKeepsWhatItGot) {
  PteListPool pool(500);
  PteListCache cache(pool);
  const absl::Status status = cache.TopUp(kSplitPteLists);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(DetailOf(status).reason, Reason::kMmuPagesExhausted);
  EXPECT_EQ(DetailOf(status).kvm_errno, ENOMEM);
  EXPECT_EQ(cache.count(), 500);
  pool.SetMaxDescs(513);
  EXPECT_TRUE(cache.TopUp(kSplitPteLists).ok()) << "the minimum is enough";
  EXPECT_EQ(cache.count(), 513);
}

TEST(PteListCacheTest, WhatIsLeftGoesBackWithTheCache) {
  PteListPool pool;
  {
    PteListCache cache(pool);
    ASSERT_TRUE(cache.TopUp(kFaultPteLists).ok());
  }
  EXPECT_EQ(pool.Snapshot().descs_out, 0u);
}

TEST(PteListCacheDeathTest, AnEmptyCacheDoesNotAllocateUnderTheLock) {
  PteListPool pool;
  PteListCache cache(pool);
  EXPECT_DEATH(cache.Take(), "count_ > 0");
}

}  // namespace
}  // namespace mmu
