#include "server/convert/workload_convert.h"

#include <cstdint>
#include <memory>
#include <utility>
#include <variant>

#include "absl/status/status.h"
#include "google/rpc/code.pb.h"
#include "google/rpc/error_details.pb.h"
#include "gtest/gtest.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/guest/access_source.h"
#include "mmu_core/guest/first_touch_map.h"
#include "mmu_core/guest/pattern_spec.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/stats/vcpu_stats.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/run/workload.h"
#include "mmu_core/vm/vm.h"
#include "mmud/lab/v1/workload_service.pb.h"
#include "server/control/workload_run.h"
#include "server/control/workload_source.h"

namespace mmud {
namespace {

using mmu::AccessKind;
using mmu::FaultResult;
using Path = mmu::VcpuStats::FaultPath;

// Reads two words, then ends with `status`.
class Reader : public mmu::AccessSource {
 public:
  explicit Reader(absl::Status status) : status_(std::move(status)) {}
  bool Next(mmu::GuestAccess* access) override {
    if (left_-- == 0) return false;
    *access = {0, 8, AccessKind::kRead};
    return true;
  }
  absl::Status status() const override { return status_; }

 private:
  int left_ = 2;
  const absl::Status status_;
};

// Runs a workload that ends with this status; `while_it_runs` is its state
// before.
lab::v1::Workload RunToEnd(absl::Status status,
                           lab::v1::Workload* while_it_runs) {
  const std::unique_ptr<mmu::Vm> vm =
      mmu::testing::MakeVm({mmu::testing::Slot(0, 0, 1 << 20)});
  lab::v1::Workload description;
  description.set_name("vms/a/workloads/6f9619ff");
  description.set_access_count(2);
  description.mutable_pattern()->mutable_uniform();
  WorkloadRun run(*vm, ToDescription(description));
  mmu::WorkloadOptions options;
  options.sources.push_back(std::make_unique<Reader>(std::move(status)));
  EXPECT_TRUE(run.Start(std::move(options),
                        [&] {
                          *while_it_runs = ToProto(run);
                          return absl::OkStatus();
                        })
                  .ok());
  run.RunToEnd([](const WorkloadRun::Progress&) {});
  return ToProto(run);
}

TEST(WorkloadConvertTest, OneThatRunsHasNoEnd) {
  lab::v1::Workload running;
  const lab::v1::Workload ended = RunToEnd(absl::OkStatus(), &running);
  EXPECT_EQ(running.state(), lab::v1::WORKLOAD_STATE_RUNNING);
  EXPECT_TRUE(running.has_start_time());
  EXPECT_TRUE(running.has_running_time());
  EXPECT_FALSE(running.has_end_time());
  EXPECT_FALSE(running.has_error());
  EXPECT_EQ(ended.state(), lab::v1::WORKLOAD_STATE_COMPLETED);
  EXPECT_TRUE(ended.has_end_time());
  EXPECT_FALSE(ended.has_error());
  EXPECT_EQ(ended.statistics().access_count(), 2);
  for (const lab::v1::Workload& workload : {running, ended}) {
    EXPECT_EQ(workload.name(), "vms/a/workloads/6f9619ff");
    EXPECT_EQ(workload.access_count(), 2);
    EXPECT_TRUE(workload.pattern().has_uniform());
  }
}

TEST(WorkloadConvertTest, OneThatFailedHasItsErrorWithDetails) {
  lab::v1::Workload running;
  const lab::v1::Workload failed =
      RunToEnd(absl::DataLossError("record 7 is cut off"), &running);
  EXPECT_EQ(failed.state(), lab::v1::WORKLOAD_STATE_FAILED);
  EXPECT_EQ(failed.error().code(), google::rpc::DATA_LOSS);
  EXPECT_EQ(failed.error().message(), "record 7 is cut off");
  ASSERT_GE(failed.error().details_size(), 1);
  google::rpc::ErrorInfo info;
  ASSERT_TRUE(failed.error().details(0).UnpackTo(&info));
  EXPECT_EQ(info.reason(), "TRACE_CORRUPT");
  EXPECT_TRUE(failed.has_end_time());
  EXPECT_EQ(failed.statistics().access_count(), 2);
}

TEST(WorkloadConvertTest, EachFaultIsInOneCount) {
  mmu::VcpuStats stats;
  const auto count = [&stats](FaultResult result, Path path, int times) {
    for (int i = 0; i < times; ++i) {
      stats.CountFault(
          i % 3 == 0 ? mmu::MmuKind::kTdp : mmu::MmuKind::kShadow, result,
          i % 2 == 0 ? AccessKind::kRead : AccessKind::kWrite, path);
    }
  };
  count(FaultResult::kFixed, Path::kSlow, 3);
  count(FaultResult::kFixed, Path::kFast, 5);
  count(FaultResult::kSpurious, Path::kSlow, 7);
  count(FaultResult::kSpurious, Path::kFast, 11);
  count(FaultResult::kEmulate, Path::kSlow, 13);
  count(FaultResult::kRetry, Path::kSlow, 17);
  stats.CountFaultError(mmu::MmuKind::kShadow, AccessKind::kWrite);
  const mmu::VcpuStatsSnapshot snapshot = stats.Snapshot();

  const lab::v1::FaultCounts faults = ToProto(snapshot).faults();
  EXPECT_EQ(faults.fixed_count(), 3);
  EXPECT_EQ(faults.fast_count(), 5 + 11);
  EXPECT_EQ(faults.spurious_count(), 7);
  EXPECT_EQ(faults.emulate_count(), 13);
  EXPECT_EQ(faults.retry_count(), 17);
  EXPECT_EQ(faults.error_count(), 1);
  EXPECT_EQ(static_cast<int64_t>(snapshot.pf_taken),
            faults.fixed_count() + faults.fast_count() +
                faults.spurious_count() + faults.emulate_count() +
                faults.retry_count() + faults.error_count());
}

TEST(WorkloadConvertTest, AReplayKeepsItsTraceItsPlaceAndItsLimits) {
  lab::v1::Workload workload;
  workload.set_access_count(9);
  workload.set_seed(5);
  lab::v1::TraceReplay& trace = *workload.mutable_trace();
  trace.set_trace_name("a/b.trace");
  trace.set_repeat_count(3);
  trace.set_placement(lab::v1::PAGE_PLACEMENT_SCATTERED);
  trace.mutable_extent()->set_gpa_bytes(4096);
  trace.mutable_extent()->set_size_bytes(8192);
  const WorkloadProgram program = ToProgram(workload).value();
  EXPECT_EQ(program.extent, mmu::GfnRange::Of(mmu::Gfn(1), 2));
  const auto& replay = std::get<TraceProgram>(program.program);
  EXPECT_EQ(replay.trace_name, "a/b.trace");
  EXPECT_EQ(replay.options.repeat_count, 3u);
  EXPECT_EQ(replay.options.access_count, 9u);
  EXPECT_EQ(replay.options.seed, 5u);
  EXPECT_EQ(replay.options.placement, mmu::PagePlacement::kScattered);
  trace.clear_repeat_count();
  trace.clear_extent();
  const WorkloadProgram once = ToProgram(workload).value();
  EXPECT_EQ(std::get<TraceProgram>(once.program).options.repeat_count, 1u);
  EXPECT_FALSE(once.extent.has_value());
}

TEST(WorkloadConvertTest, APatternKeepsWhatTheRequestSets) {
  lab::v1::Workload workload;
  workload.set_access_count(9);
  lab::v1::AccessPattern& pattern = *workload.mutable_pattern();
  pattern.set_write_fraction(0.5);
  pattern.mutable_sequential()->set_stride_bytes(64);
  pattern.mutable_extent()->set_size_bytes(4096);
  const WorkloadProgram program = ToProgram(workload).value();
  EXPECT_EQ(program.extent, mmu::GfnRange::Of(mmu::Gfn(0), 1));
  const auto& spec = std::get<mmu::PatternSpec>(program.program);
  EXPECT_EQ(spec.kind, mmu::PatternSpec::Kind::kSequential);
  EXPECT_EQ(spec.stride_bytes, 64u);
  EXPECT_EQ(spec.write_fraction, 0.5);
  EXPECT_EQ(spec.access_count, 9u);
}

TEST(WorkloadConvertTest, ErrorsNameTheFieldsOfTheProgramThatIsSet) {
  const auto field_of = [](const absl::Status& status) {
    return mmu::DetailOf(status).field;
  };
  lab::v1::Workload workload;
  EXPECT_EQ(field_of(ToProgram(workload).status()), "workload.pattern");
  workload.mutable_pattern()->mutable_extent()->set_size_bytes(1);
  EXPECT_EQ(field_of(ToProgram(workload).status()), "workload.pattern")
      << "it has no kind";
  workload.mutable_pattern()->mutable_uniform();
  EXPECT_EQ(field_of(ToProgram(workload).status()),
            "workload.pattern.extent.size_bytes");
  const absl::Status outside = mmu::MakeError(
      absl::StatusCode::kOutOfRange, {mmu::Reason::kGpaOutOfRange, "extent", 0},
      "extent is wrong");
  EXPECT_EQ(field_of(InProgramFields(outside, workload)),
            "workload.pattern.extent");
  workload.mutable_trace()->mutable_extent()->set_size_bytes(1);
  EXPECT_EQ(field_of(ToProgram(workload).status()),
            "workload.trace.extent.size_bytes");
  EXPECT_EQ(field_of(InProgramFields(outside, workload)),
            "workload.trace.extent");
}

}  // namespace
}  // namespace mmud
