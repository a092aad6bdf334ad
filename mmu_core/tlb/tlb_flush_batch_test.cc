#include "mmu_core/tlb/tlb_flush_batch.h"

#include <cstdint>
#include <utility>

#include "gtest/gtest.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/stats/flush_metrics.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/tlb/remote_flush.h"
#include "mmu_core/tlb/vcpu_gate.h"

namespace mmu {
namespace {

constexpr int kZap = static_cast<int>(FlushReason::kZap);

class TlbFlushBatchTest : public ::testing::Test {
 protected:
  TlbFlushBatchTest() { remote_.AddVcpu(&vcpu_); }
  ~TlbFlushBatchTest() override { remote_.RemoveVcpu(&vcpu_); }

  TlbFlushBatch NewBatch() {
    return TlbFlushBatch(remote_, FlushScope::kRange, FlushReason::kZap);
  }

  uint64_t Flushes() const {
    return remote_.Snapshot().Flushes(FlushScope::kRange, FlushReason::kZap);
  }

  VcpuGate vcpu_;
  RemoteTlb remote_;
};

TEST_F(TlbFlushBatchTest, ManyRangesAreOneFlush) {
  MmuCost cost;
  TlbFlushBatch batch = NewBatch();
  EXPECT_FALSE(batch.pending());
  batch.Add(GfnRange::Of(Gfn(10), 2));
  batch.Add(GfnRange::Of(Gfn(100), 1));
  batch.Add(GfnRange::Of(Gfn(5), 1));
  EXPECT_TRUE(batch.pending());
  EXPECT_EQ(batch.range(), (GfnRange{Gfn(5), Gfn(101)}));
  EXPECT_EQ(remote_.Snapshot().remote_tlb_flush_requests, 0u);
  batch.Flush(&cost);
  EXPECT_FALSE(batch.pending());
  EXPECT_EQ(cost.tlb_flush_count, 1);
  EXPECT_EQ(vcpu_.pending_requests(), kTlbFlush);
  EXPECT_EQ(Flushes(), 1u);
}

TEST_F(TlbFlushBatchTest, NothingPendingIsAnElidedFlush) {
  MmuCost cost;
  TlbFlushBatch batch = NewBatch();
  batch.Add(GfnRange());
  batch.Flush(&cost);
  EXPECT_EQ(cost.tlb_flush_count, 0);
  EXPECT_EQ(vcpu_.pending_requests(), 0u);
  const FlushMetrics metrics = remote_.Snapshot();
  EXPECT_EQ(metrics.elided[kZap], 1u);
  EXPECT_EQ(metrics.remote_tlb_flush_requests, 0u);
}

TEST_F(TlbFlushBatchTest, FlushAlwaysFlushesWithNothingPending) {
  TlbFlushBatch batch = NewBatch();
  batch.FlushAlways(GfnRange::Of(Gfn(1), 1), nullptr);
  batch.Add(GfnRange::Of(Gfn(1), 1));
  batch.FlushAlways(GfnRange::Of(Gfn(7), 1), nullptr);
  EXPECT_FALSE(batch.pending());
  const FlushMetrics metrics = remote_.Snapshot();
  EXPECT_EQ(metrics.remote_tlb_flush_requests, 2u);
  EXPECT_EQ(metrics.elided[kZap], 0u);
}

TEST_F(TlbFlushBatchTest, BatchIsUsableAgainAfterAFlush) {
  TlbFlushBatch batch = NewBatch();
  batch.Add(GfnRange::Of(Gfn(1), 1));
  batch.Flush(nullptr);
  batch.Add(GfnRange::Of(Gfn(9), 1));
  EXPECT_EQ(batch.range(), GfnRange::Of(Gfn(9), 1));
  batch.Flush(nullptr);
  EXPECT_EQ(Flushes(), 2u);
}

TEST_F(TlbFlushBatchTest, DiscardForgetsWithoutAFlush) {
  TlbFlushBatch batch = NewBatch();
  batch.Add(GfnRange::Of(Gfn(1), 1));
  batch.Discard(FlushDiscard::kRootUnreachable);
  EXPECT_FALSE(batch.pending());
  EXPECT_EQ(remote_.Snapshot().remote_tlb_flush_requests, 0u);
  EXPECT_EQ(vcpu_.pending_requests(), 0u);
}

TEST_F(TlbFlushBatchTest, MoveTakesTheDutyAlong) {
  TlbFlushBatch first = NewBatch();
  first.Add(GfnRange::Of(Gfn(1), 1));
  TlbFlushBatch second = std::move(first);
  EXPECT_FALSE(first.pending());
  EXPECT_TRUE(second.pending());
  TlbFlushBatch third = NewBatch();
  third = std::move(second);
  EXPECT_FALSE(second.pending());
  third.Flush(nullptr);
  EXPECT_EQ(Flushes(), 1u);
}

TEST_F(TlbFlushBatchTest, AFlushIsCountedForTheMmuOfItsBatch) {
  TlbFlushBatch of_guest = NewBatch();
  TlbFlushBatch of_shadow(remote_.Of(MmuKind::kShadow), FlushScope::kRange,
                          FlushReason::kZap);
  of_shadow.Add(GfnRange::Of(Gfn(1), 1));
  TlbFlushBatch moved = std::move(of_shadow);
  moved.Flush(nullptr);
  moved.FlushAlways(GfnRange::Of(Gfn(1), 1), nullptr);
  of_guest.FlushAlways(GfnRange::Of(Gfn(1), 1), nullptr);
  const FlushMetrics metrics = remote_.Snapshot();
  const auto flushes = [&metrics](MmuKind mmu) {
    return metrics.flushes[static_cast<int>(mmu)]
                          [static_cast<int>(FlushScope::kRange)][kZap];
  };
  EXPECT_EQ(flushes(MmuKind::kShadow), 2u);
  EXPECT_EQ(flushes(MmuKind::kTdp), 1u) << "of the guest's MMU";
}

#ifndef NDEBUG
TEST_F(TlbFlushBatchTest, ForgottenFlushDies) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        TlbFlushBatch batch = NewBatch();
        batch.Add(GfnRange::Of(Gfn(1), 1));
      },
      "pending");
}
#endif

}  // namespace
}  // namespace mmu
