#include "server/recover_job.h"

#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/memory/host_memory.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/split_job.h"
#include "mmu_core/vm/throttle.h"
#include "mmu_core/vm/vm.h"

namespace mmud {
namespace {

constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kGiBPages = 1 << 18;

TEST(RecoverJob, CutsAtMultiples) {
  const std::vector<mmu::GfnRange> pieces =
      CutAt({{mmu::Gfn(5), mmu::Gfn(7)},
             {mmu::Gfn(kGiBPages - 1), mmu::Gfn(2 * kGiBPages + 1)}},
            kGiBPages);
  EXPECT_EQ(pieces,
            (std::vector<mmu::GfnRange>{
                {mmu::Gfn(5), mmu::Gfn(7)},
                {mmu::Gfn(kGiBPages - 1), mmu::Gfn(kGiBPages)},
                {mmu::Gfn(kGiBPages), mmu::Gfn(2 * kGiBPages)},
                {mmu::Gfn(2 * kGiBPages), mmu::Gfn(2 * kGiBPages + 1)}}));
}

// Four huge pages, split.
class RecoverJobTest : public ::testing::Test {
 protected:
  RecoverJobTest()
      : vm_(mmu::testing::MakeVm(
            {mmu::testing::Slot(0, 0, 8 * kMiB, mmu::Level::k2M)})) {
    for (uint64_t i = 0; i < 4; ++i) mmu::testing::Write(*vm_, i * 2 * kMiB);
    auto split = mmu::SplitJob::Create(*vm_, {}).value();
    EXPECT_TRUE(split->Run().ok());
    EXPECT_EQ(vm_->Stats().pages_2m, 0u);
  }

  const std::unique_ptr<mmu::Vm> vm_;
  const std::vector<mmu::GfnRange> all_ = {
      mmu::GfnRange::Of(mmu::Gfn(0), 8 * kMiB / mmu::kPageSize)};
};

TEST_F(RecoverJobTest, PutsHugePagesTogether) {
  RecoverJob job(*vm_, all_);
  ASSERT_TRUE(job.Run().ok());
  const RecoverJob::Progress progress = job.progress();
  EXPECT_EQ(progress.recovered.to_2m_count, 4u);
  EXPECT_EQ(progress.done_bytes, static_cast<int64_t>(8 * kMiB));
  EXPECT_EQ(progress.total_bytes, progress.done_bytes);
  EXPECT_FALSE(progress.cancelled);
}

TEST_F(RecoverJobTest, ItsThrottlePacesItChunkByChunk) {
  mmu::Throttle throttle;
  throttle.min_pause = absl::Milliseconds(3);
  RecoverJob job(*vm_, all_, throttle);
  ASSERT_TRUE(job.Run().ok());
  EXPECT_EQ(job.progress().recovered.to_2m_count, 4u);
  const auto throttled = [&job](mmu::ThrottleLimit limit) {
    return job.progress().throttled[static_cast<size_t>(limit)];
  };
  // One pause after each of the four chunks of 2 MiB.
  EXPECT_GE(throttled(mmu::ThrottleLimit::kPause), absl::Milliseconds(12));
  EXPECT_EQ(throttled(mmu::ThrottleLimit::kRate), absl::ZeroDuration());
}

TEST_F(RecoverJobTest, CancellingEndsALongPause) {
  mmu::Throttle throttle;
  throttle.max_pages_per_second = 1;  // 512 s a chunk
  RecoverJob job(*vm_, all_, throttle);
  std::thread runner([&job] { EXPECT_TRUE(job.Run().ok()); });
  while (job.progress().done_bytes == 0) std::this_thread::yield();
  job.Cancel();
  runner.join();
  EXPECT_TRUE(job.progress().cancelled);
  EXPECT_EQ(vm_->Stats().pages_2m, 1u);
}

TEST(RecoverJob, WhatCanBecome1GIsNotCutSmaller) {
  const auto vm = mmu::testing::MakeVm(
      {mmu::testing::Slot(0, 0, 8 * kMiB, mmu::Level::k2M),
       mmu::testing::Slot(1, uint64_t{1} << 30, uint64_t{2} << 30,
                          mmu::Level::k1G, mmu::BackingKind::kMetadataOnly)});
  const uint64_t start = uint64_t{1} << 30;
  mmu::testing::Write(*vm, start);
  ASSERT_TRUE(mmu::SplitJob::Create(*vm, {}).value()->Run().ok());
  EXPECT_EQ(vm->Stats().pages_1g, 0u);
  RecoverJob job(*vm,
                 {mmu::GfnRange::Of(mmu::Gfn(0), 8 * kMiB / 4096),
                  mmu::GfnRange::Of(mmu::Gfn(start / 4096), 2 * kGiBPages)});
  ASSERT_TRUE(job.Run().ok());
  EXPECT_EQ(job.progress().recovered.to_1g_count, 1u);
  EXPECT_EQ(vm->Stats().pages_1g, 1u);
}

TEST_F(RecoverJobTest, ACancelledJobDoesNoMore) {
  RecoverJob job(*vm_, all_);
  job.Cancel();
  ASSERT_TRUE(job.Run().ok());
  EXPECT_TRUE(job.progress().cancelled);
  EXPECT_EQ(vm_->Stats().pages_2m, 0u);
}

TEST_F(RecoverJobTest, CancellingAFinishedJobChangesNothing) {
  RecoverJob job(*vm_, all_);
  ASSERT_TRUE(job.Run().ok());
  job.Cancel();
  EXPECT_FALSE(job.progress().cancelled);
}

TEST_F(RecoverJobTest, ALoggedSlotIsAnError) {
  ASSERT_TRUE(mmu::testing::StartLog(*vm_).ok());
  EXPECT_FALSE(RecoverJob(*vm_, all_).Run().ok());
}

}  // namespace
}  // namespace mmud
