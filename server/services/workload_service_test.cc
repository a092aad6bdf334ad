#include "server/services/workload_service.h"

#include <cstdint>

#include "gtest/gtest.h"
#include "mmu_core/base/access.h"
#include "mmu_core/stats/vcpu_stats.h"
#include "mmu_core/vm/workload.h"
#include "mmud/v1/workload_service.pb.h"

namespace mmud {
namespace {

using mmu::AccessKind;
using mmu::FaultResult;
using Path = mmu::VcpuStats::FaultPath;

TEST(WorkloadServiceTest, EachFaultIsInOneCount) {
  mmu::VcpuStats stats;
  const auto count = [&stats](FaultResult result, Path path, int times) {
    for (int i = 0; i < times; ++i) {
      stats.CountFault(
          result, i % 2 == 0 ? AccessKind::kRead : AccessKind::kWrite, path);
    }
  };
  count(FaultResult::kFixed, Path::kSlow, 3);
  count(FaultResult::kFixed, Path::kFast, 5);
  count(FaultResult::kSpurious, Path::kSlow, 7);
  count(FaultResult::kSpurious, Path::kFast, 11);
  count(FaultResult::kEmulate, Path::kSlow, 13);
  count(FaultResult::kRetry, Path::kSlow, 17);
  stats.CountFaultError(AccessKind::kWrite);
  mmu::WorkloadProgress progress;
  progress.stats = stats.Snapshot();

  const v1::FaultCounts faults = ToProto(progress).faults();
  EXPECT_EQ(faults.fixed_count(), 3);
  EXPECT_EQ(faults.fast_count(), 5 + 11);
  EXPECT_EQ(faults.spurious_count(), 7);
  EXPECT_EQ(faults.emulate_count(), 13);
  EXPECT_EQ(faults.retry_count(), 17);
  EXPECT_EQ(faults.error_count(), 1);
  EXPECT_EQ(static_cast<int64_t>(progress.stats.pf_taken),
            faults.fixed_count() + faults.fast_count() +
                faults.spurious_count() + faults.emulate_count() +
                faults.retry_count() + faults.error_count());
}

}  // namespace
}  // namespace mmud
