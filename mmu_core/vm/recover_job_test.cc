#include "mmu_core/vm/jobs/recover_job.h"

#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/memory/host_memory.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/mmu_mode_names.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/core/stage2_leaf_sizes.h"
#include "mmu_core/vm/core/vm_config.h"
#include "mmu_core/vm/jobs/split_job.h"
#include "mmu_core/vm/jobs/throttle.h"
#include "mmu_core/vm/vm.h"

namespace mmu {
namespace {

constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kGiBPages = 1 << 18;

TEST(RecoverJob, CutsAtMultiples) {
  const std::vector<GfnRange> pieces =
      CutAt({{Gfn(5), Gfn(7)}, {Gfn(kGiBPages - 1), Gfn(2 * kGiBPages + 1)}},
            kGiBPages);
  EXPECT_EQ(pieces, (std::vector<GfnRange>{
                        {Gfn(5), Gfn(7)},
                        {Gfn(kGiBPages - 1), Gfn(kGiBPages)},
                        {Gfn(kGiBPages), Gfn(2 * kGiBPages)},
                        {Gfn(2 * kGiBPages), Gfn(2 * kGiBPages + 1)}}));
}

// Four huge pages, all split.
class RecoverJobTest : public ::testing::Test {
 protected:
  RecoverJobTest()
      : vm_(testing::MakeVm({testing::Slot(0, 0, 8 * kMiB, Level::k2M)})) {
    for (uint64_t i = 0; i < 4; ++i) testing::Write(*vm_, i * 2 * kMiB);
    auto split = SplitJob::Create(vm_->state(), {}).value();
    EXPECT_TRUE(split->Run().ok());
    EXPECT_EQ(vm_->Stats().pages_2m, 0u);
  }

  const std::unique_ptr<Vm> vm_;
  const std::vector<GfnRange> all_ = {
      GfnRange::Of(Gfn(0), 8 * kMiB / kPageSize)};
};

TEST_F(RecoverJobTest, PutsHugePagesTogether) {
  RecoverJob job(vm_->state(), all_);
  ASSERT_TRUE(job.Run().ok());
  const RecoverJob::Progress progress = job.progress();
  EXPECT_EQ(progress.recovered.to_2m_count, 4u);
  EXPECT_EQ(progress.done_bytes, static_cast<int64_t>(8 * kMiB));
  EXPECT_EQ(progress.total_bytes, progress.done_bytes);
  EXPECT_FALSE(progress.cancelled);
}

TEST_F(RecoverJobTest, ItsThrottlePacesItChunkByChunk) {
  Throttle throttle;
  throttle.min_pause = absl::Milliseconds(3);
  RecoverJob job(vm_->state(), all_, throttle);
  ASSERT_TRUE(job.Run().ok());
  EXPECT_EQ(job.progress().recovered.to_2m_count, 4u);
  const auto throttled = [&job](ThrottleLimit limit) {
    return job.progress().throttled[static_cast<size_t>(limit)];
  };
  // There is one pause between each two of the four chunks of 2 MiB.
  EXPECT_GE(throttled(ThrottleLimit::kPause), absl::Milliseconds(9));
  EXPECT_EQ(throttled(ThrottleLimit::kRate), absl::ZeroDuration());
}

TEST_F(RecoverJobTest, CancellingEndsALongPause) {
  Throttle throttle;
  throttle.max_pages_per_second = 1;  // 512 s a chunk
  RecoverJob job(vm_->state(), all_, throttle);
  std::thread runner([&job] { EXPECT_TRUE(job.Run().ok()); });
  while (job.progress().done_bytes == 0) std::this_thread::yield();
  job.Cancel();
  runner.join();
  EXPECT_TRUE(job.progress().cancelled);
  EXPECT_EQ(vm_->Stats().pages_2m, 1u);
}

// A pause after the last piece would last 512 s and serve nothing.
TEST_F(RecoverJobTest, BehindTheLastPieceNothingIsWaitedFor) {
  Throttle throttle;
  throttle.max_pages_per_second = 1;
  RecoverJob job(vm_->state(), {GfnRange::Of(Gfn(0), 512)}, throttle);
  ASSERT_TRUE(job.Run().ok());
  EXPECT_EQ(job.progress().recovered.to_2m_count, 1u);
  EXPECT_FALSE(job.progress().cancelled);
  for (const absl::Duration waited : job.progress().throttled) {
    EXPECT_EQ(waited, absl::ZeroDuration());
  }
}

TEST_F(RecoverJobTest, WhereRangesOverlapMemoryCountsOnce) {
  RecoverJob job(vm_->state(), {GfnRange::Of(Gfn(1024), 1024), all_[0],
                                GfnRange::Of(Gfn(0), 512)});
  EXPECT_EQ(job.progress().total_bytes, static_cast<int64_t>(8 * kMiB));
  ASSERT_TRUE(job.Run().ok());
  EXPECT_EQ(job.progress().done_bytes, static_cast<int64_t>(8 * kMiB));
  EXPECT_EQ(job.progress().recovered.to_2m_count, 4u);
}

TEST(RecoverJob, OneRangeReachesOverSlotsAndASlotOverRanges) {
  const auto vm =
      testing::MakeVm({testing::Slot(0, 4 * kMiB, 4 * kMiB, Level::k2M),
                       testing::Slot(1, 0, 4 * kMiB, Level::k2M),
                       testing::Slot(2, 16 * kMiB, 8 * kMiB, Level::k2M)});
  for (uint64_t mib = 0; mib < 24; mib += 2) {
    if (mib < 8 || mib >= 16) testing::Write(*vm, mib * kMiB);
  }
  ASSERT_TRUE(SplitJob::Create(vm->state(), {}).value()->Run().ok());
  const auto range = [](uint64_t mib, uint64_t size_mib) {
    return GfnRange::Of(Gfn(mib * 256), size_mib * 256);
  };
  RecoverJob job(vm->state(), {range(22, 2), range(16, 2), range(2, 6)});
  EXPECT_EQ(job.progress().total_bytes, static_cast<int64_t>(10 * kMiB));
  ASSERT_TRUE(job.Run().ok());
  EXPECT_EQ(job.progress().recovered.to_2m_count, 5u);
  EXPECT_EQ(vm->Stats().pages_2m, 5u);
}

// The TDP MMU puts the pages of each part together, and then those of the GiB.
// On stage 2 the small mappings go part by part, and the next access maps the
// GiB.
class RecoverJobOfMmuTest : public ::testing::TestWithParam<MmuMode> {};

INSTANTIATE_TEST_SUITE_P(Mmus, RecoverJobOfMmuTest,
                         ::testing::Values(MmuMode::kTdp, MmuMode::kStage2),
                         [](const auto& mode) {
                           return std::string(testing::ToString(mode.param));
                         });

TEST_P(RecoverJobOfMmuTest, AlsoWhatCanBecome1GIsPacedByChunks) {
  constexpr uint64_t kGiB = uint64_t{1} << 30;
  VmConfig config;
  config.mmu = GetParam();
  config.memslots = {
      testing::Slot(0, kGiB, 2 * kGiB, Level::k1G, BackingKind::kMetadataOnly)};
  const auto vm = testing::MakeVmFrom(config);
  testing::Write(*vm, kGiB);
  ASSERT_TRUE(SplitJob::Create(vm->state(), {}).value()->Run().ok());
  EXPECT_EQ(vm->Stats().pages_1g, 0u);
  Throttle throttle;
  throttle.chunk_bytes = static_cast<int64_t>(256 * kMiB);
  throttle.min_pause = absl::Milliseconds(3);
  RecoverJob job(vm->state(), {GfnRange::Of(Gfn(kGiB / 4096), 2 * kGiBPages)},
                 throttle);
  ASSERT_TRUE(job.Run().ok());
  const RecoverJob::Progress progress = job.progress();
  EXPECT_EQ(progress.recovered.to_1g_count, 1u);
  EXPECT_EQ(progress.recovered.to_2m_count, 0u) << "they are part of it";
  testing::Write(*vm, kGiB);
  EXPECT_EQ(vm->Stats().pages_1g, 1u);
  EXPECT_EQ(progress.total_bytes, static_cast<int64_t>(2 * kGiB));
  EXPECT_EQ(progress.done_bytes, progress.total_bytes);
  // Each GiB has four chunks and one step for the whole, and no pause comes
  // after the last.
  EXPECT_GE(progress.throttled[static_cast<size_t>(ThrottleLimit::kPause)],
            absl::Milliseconds(27));
}

// The first part takes away the only table of a GiB on stage 2, so the GiB can
// be mapped as one page, although the other parts are left out.
TEST(RecoverJob, ACancelledJobCountsWhatItsPartsRecovered) {
  VmConfig config;
  config.mmu = MmuMode::kStage2;
  config.memslots = {
      testing::Slot(0, 0, 1024 * kMiB, Level::k1G, BackingKind::kMetadataOnly)};
  const auto vm = testing::MakeVmFrom(config);
  testing::Write(*vm, 0);
  ASSERT_TRUE(testing::StartLog(*vm).ok());
  testing::Write(*vm, 0);
  ASSERT_TRUE(testing::StopLog(*vm, RecoverOnStop::kNo).ok());
  EXPECT_EQ(vm->Stats().pages_4k, 1u);
  Throttle throttle;
  throttle.max_pages_per_second = 1;
  RecoverJob job(vm->state(), {GfnRange::Of(Gfn(0), kGiBPages)}, throttle);
  std::thread runner([&job] { EXPECT_TRUE(job.Run().ok()); });
  while (job.progress().done_bytes == 0) std::this_thread::yield();
  job.Cancel();
  runner.join();
  const RecoverJob::Progress progress = job.progress();
  EXPECT_TRUE(progress.cancelled);
  EXPECT_LT(progress.done_bytes, progress.total_bytes);
  EXPECT_EQ(progress.recovered.to_1g_count, 1u);
  EXPECT_EQ(progress.recovered.to_2m_count, 0u);
  testing::Write(*vm, 0);
  EXPECT_EQ(vm->Stats().pages_1g, 1u);
}

TEST(RecoverJob, WhatCanBecome1GIsNotCutSmaller) {
  const auto vm =
      testing::MakeVm({testing::Slot(0, 0, 8 * kMiB, Level::k2M),
                       testing::Slot(1, uint64_t{1} << 30, uint64_t{2} << 30,
                                     Level::k1G, BackingKind::kMetadataOnly)});
  const uint64_t start = uint64_t{1} << 30;
  testing::Write(*vm, start);
  ASSERT_TRUE(SplitJob::Create(vm->state(), {}).value()->Run().ok());
  EXPECT_EQ(vm->Stats().pages_1g, 0u);
  RecoverJob job(vm->state(), {GfnRange::Of(Gfn(0), 8 * kMiB / 4096),
                               GfnRange::Of(Gfn(start / 4096), 2 * kGiBPages)});
  ASSERT_TRUE(job.Run().ok());
  EXPECT_EQ(job.progress().recovered.to_1g_count, 1u);
  EXPECT_EQ(vm->Stats().pages_1g, 1u);
}

// The chunk of the throttle need not be a multiple of the blocks that a granule
// has. A block in two pieces would never be put together.
TEST(RecoverJob, NoBlockLiesInTwoPieces) {
  for (const uint32_t granule : {16384u, 65536u}) {
    const uint64_t block = Stage2LeafSizes(granule)[1];
    VmConfig config;
    config.mmu = MmuMode::kStage2;
    config.stage2.granule_bytes = granule;
    config.stage2.eager_split_chunk_bytes = block;
    config.memslots = {
        testing::Slot(0, 0, 4 * block, Level::k1G, BackingKind::kMetadataOnly)};
    const auto vm = testing::MakeVmFrom(config);
    for (uint64_t i = 0; i < 4; ++i) testing::Write(*vm, i * block);
    ASSERT_EQ(vm->Stats().pages_2m, 4u);
    ASSERT_TRUE(SplitJob::Create(vm->state(), {}).value()->Run().ok());
    ASSERT_EQ(vm->Stats().pages_2m, 0u);
    Throttle throttle;
    throttle.chunk_bytes = static_cast<int64_t>(block + block / 2);
    RecoverJob job(vm->state(), {GfnRange::Of(Gfn(0), 4 * block / kPageSize)},
                   throttle);
    ASSERT_TRUE(job.Run().ok());
    EXPECT_EQ(job.progress().recovered.to_2m_count, 4u) << granule;
  }
}

TEST_F(RecoverJobTest, ACancelledJobDoesNoMore) {
  RecoverJob job(vm_->state(), all_);
  job.Cancel();
  ASSERT_TRUE(job.Run().ok());
  EXPECT_TRUE(job.progress().cancelled);
  EXPECT_EQ(vm_->Stats().pages_2m, 0u);
}

TEST_F(RecoverJobTest, CancellingAFinishedJobChangesNothing) {
  RecoverJob job(vm_->state(), all_);
  ASSERT_TRUE(job.Run().ok());
  job.Cancel();
  EXPECT_FALSE(job.progress().cancelled);
}

TEST_F(RecoverJobTest, ALoggedSlotIsAnError) {
  ASSERT_TRUE(testing::StartLog(*vm_).ok());
  EXPECT_FALSE(RecoverJob(vm_->state(), all_).Run().ok());
}

// Covers: TDP-52
TEST_F(RecoverJobTest, TheCheckBeforehandSaysWhatAPassSays) {
  const auto expect_same = [this](const std::vector<GfnRange>& ranges,
                                  absl::StatusCode code) {
    const absl::Status check = vm_->CheckRecoverHugePages(ranges);
    EXPECT_EQ(check.code(), code) << check;
    EXPECT_EQ(check, vm_->RecoverHugePages(ranges, nullptr).status());
  };
  expect_same({GfnRange::Of(Gfn(1 << 20), 1)}, absl::StatusCode::kOutOfRange);
  ASSERT_TRUE(testing::StartLog(*vm_).ok());
  expect_same(all_, absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(testing::StopLog(*vm_).ok());
  EXPECT_TRUE(vm_->CheckRecoverHugePages(all_).ok());
  EXPECT_EQ(vm_->Stats().pages_2m, 0u) << "the check changes nothing";
  expect_same(all_, absl::StatusCode::kOk);
  EXPECT_EQ(vm_->Stats().pages_2m, 4u);
}

}  // namespace
}  // namespace mmu
