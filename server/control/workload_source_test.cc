#include "server/control/workload_source.h"

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/guest/pattern_spec.h"
#include "mmu_core/testing/vm_builder.h"
#include "server/base/wall_time.h"
#include "server/control/managed_vm.h"

namespace mmud {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

class WorkloadSourceTest : public ::testing::Test {
 protected:
  WorkloadSourceTest()
      : vm_("vms/a", mmu::testing::MakeVm({mmu::testing::Slot(0, 0, kMiB)}),
            WallTime::FromUnixNanos(0), ManagedVm::MetricsLabel::kOwn) {}

  // The error of a replay of the trace `name` in the directory `dir`.
  absl::Status Replay(const std::string& name, const std::string& dir) const {
    WorkloadProgram program;
    program.program = TraceProgram{.trace_name = name, .options = {}};
    return MakeSources(program, 1, vm_, dir).status();
  }

  const ManagedVm vm_;
};

mmu::PatternSpec Uniform(uint64_t access_count) {
  mmu::PatternSpec spec;
  spec.kind = mmu::PatternSpec::Kind::kUniform;
  spec.access_count = access_count;
  return spec;
}

TEST_F(WorkloadSourceTest, EachVcpuHasASourceAndTheTotalIsOfAll) {
  WorkloadProgram program;
  program.program = Uniform(7);
  const WorkloadSources made = MakeSources(program, 3, vm_, "").value();
  EXPECT_EQ(made.sources.size(), 3u);
  EXPECT_EQ(made.total_access_count, 21);
  program.program = Uniform(uint64_t{1} << 62);
  EXPECT_EQ(MakeSources(program, 3, vm_, "").value().total_access_count, 0)
      << "more than can be counted is unknown";
}

TEST_F(WorkloadSourceTest, AnExtentLiesWithinTheMemory) {
  WorkloadProgram program;
  program.program = Uniform(1);
  program.extent = mmu::GfnRange::Of(mmu::Gfn(0), kMiB / mmu::kPageSize);
  EXPECT_TRUE(MakeSources(program, 1, vm_, "").ok());
  program.extent = mmu::GfnRange::Of(mmu::Gfn(1), kMiB / mmu::kPageSize);
  const mmu::ErrorDetail detail =
      mmu::DetailOf(MakeSources(program, 1, vm_, "").status());
  EXPECT_EQ(detail.reason, mmu::Reason::kGpaOutOfRange);
  EXPECT_EQ(detail.field, "extent");
}

TEST_F(WorkloadSourceTest, ATraceIsFoundOnlyBelowItsDirectory) {
  for (const char* const name :
       {"", "/etc/passwd", "../passwd", "a/../../b", "a//b", "."}) {
    const absl::Status status = Replay(name, "/etc");
    EXPECT_EQ(mmu::DetailOf(status).reason, mmu::Reason::kTraceNotFound)
        << name;
    EXPECT_NE(status.message().find("below the trace directory"),
              std::string::npos)
        << status;
  }
  EXPECT_NE(Replay("a", "").message().find("--trace_dir"), std::string::npos);
}

}  // namespace
}  // namespace mmud
