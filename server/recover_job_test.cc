#include "server/recover_job.h"

#include <cstdint>
#include <memory>
#include <vector>

#include "gtest/gtest.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/dirty/dirty_log_types.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/split_job.h"
#include "mmu_core/vm/vm.h"

namespace mmud {
namespace {

constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kGiBPages = 1 << 18;

TEST(RecoverJob, CutsAtGigabytes) {
  const std::vector<mmu::GfnRange> pieces =
      CutAtGigabytes({{mmu::Gfn(5), mmu::Gfn(7)},
                      {mmu::Gfn(kGiBPages - 1), mmu::Gfn(2 * kGiBPages + 1)}});
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
  ASSERT_TRUE(vm_->StartDirtyLog(mmu::DirtyLogConfig(), nullptr).ok());
  EXPECT_FALSE(RecoverJob(*vm_, all_).Run().ok());
}

}  // namespace
}  // namespace mmud
