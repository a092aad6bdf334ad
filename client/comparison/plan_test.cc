#include "client/comparison/plan.h"

#include <cmath>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/guest_mmu.h"
#include "gtest/gtest.h"
#include "mmud/v1/common.pb.h"
#include "mmud/v1/vm_service.pb.h"

namespace mmud::client {
namespace {

PlanOptions Options() {
  PlanOptions options;
  options.mmu = &GuestMmus().front();
  options.policies = {LogPolicy::kLazy, LogPolicy::kEager};
  options.vcpu_counts = {1, 8};
  options.write_fractions = {1.0, 0.1};
  options.memory_bytes = 64 << 20;
  return options;
}

// The error of options that `change` made wrong.
std::string ErrorOf(const std::function<void(PlanOptions&)>& change) {
  PlanOptions options = Options();
  change(options);
  const absl::StatusOr<Plan> plan = MakePlan(std::move(options));
  if (plan.ok()) return "";
  EXPECT_EQ(plan.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(plan.status().message());
}

TEST(PlanTest, CombinationsGoByVcpusThenWritesThenPolicy) {
  const absl::StatusOr<Plan> plan = MakePlan(Options());
  ASSERT_TRUE(plan.ok()) << plan.status();
  std::vector<std::string> lines;
  for (const Combination& combination : plan->combinations) {
    lines.push_back(combination.vm_id + ": " + Describe(combination));
  }
  EXPECT_EQ(lines, (std::vector<std::string>{
                       "compare-tdp-lazy-1: 1 vCPU, 100% writes, lazy",
                       "compare-tdp-eager-2: 1 vCPU, 100% writes, eager",
                       "compare-tdp-lazy-3: 1 vCPU, 10% writes, lazy",
                       "compare-tdp-eager-4: 1 vCPU, 10% writes, eager",
                       "compare-tdp-lazy-5: 8 vCPUs, 100% writes, lazy",
                       "compare-tdp-eager-6: 8 vCPUs, 100% writes, eager",
                       "compare-tdp-lazy-7: 8 vCPUs, 10% writes, lazy",
                       "compare-tdp-eager-8: 8 vCPUs, 10% writes, eager"}));
}

TEST(PlanTest, ThrottledHasAPaceUnlessALimitIsGiven) {
  PlanOptions options = Options();
  options.policies = {LogPolicy::kThrottled};
  absl::StatusOr<Plan> plan = MakePlan(options);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->options.throttle.max_pages_per_second(),
            kDefaultPagesPerSecond);

  options.throttle.set_max_vcpu_stall_ratio(0.01);
  plan = MakePlan(options);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_FALSE(plan->options.throttle.has_max_pages_per_second());
  EXPECT_EQ(plan->options.throttle.max_vcpu_stall_ratio(), 0.01);

  options = Options();
  plan = MakePlan(options);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_FALSE(plan->options.throttle.has_max_pages_per_second());
}

TEST(PlanTest, ErrorsNameTheOptionTheValueTheRuleAndTheFix) {
  EXPECT_EQ(ErrorOf([](PlanOptions& o) {
              o.vcpu_counts = {1, 0};
            }),
            "--vcpus is 0: a guest has at least 1 vCPU; give 1 or more");
  EXPECT_EQ(ErrorOf([](PlanOptions& o) {
              o.vcpu_counts = {2, 2};
            }),
            "--vcpus is 2: the value is given twice; give each value once");
  EXPECT_EQ(ErrorOf([](PlanOptions& o) { o.policies.clear(); }),
            "--policy is empty: there is nothing to compare; give at least one "
            "value");
  EXPECT_EQ(ErrorOf([](PlanOptions& o) {
              o.policies = {LogPolicy::kLazy, LogPolicy::kLazy};
            }),
            "--policy is lazy: the value is given twice; give each value once");
  for (const double fraction : {0.0, -1.0, 1.5, std::nan("")}) {
    EXPECT_NE(ErrorOf([&](PlanOptions& o) {
                o.write_fractions = {fraction};
              }).find("the share of writes is more than 0 and at most 1"),
              std::string::npos)
        << fraction;
  }
  EXPECT_EQ(
      ErrorOf([](PlanOptions& o) { o.huge_page_size = v1::PAGE_SIZE_4K; }),
      "--huge-page-size is 4k: only mappings larger than 4 KiB can be "
      "split; give 2m or 1g");
  EXPECT_EQ(ErrorOf([](PlanOptions& o) { o.memory_bytes = 5 << 20; }),
            "--memory is 5 MiB: the memory is a multiple of the huge page "
            "size, 2 MiB; give for example 4 MiB");
  EXPECT_EQ(ErrorOf([](PlanOptions& o) { o.memory_bytes = 0; }),
            "--memory is 0 B: the memory is a multiple of the huge page size, "
            "2 MiB; give for example 2 MiB");
  EXPECT_EQ(ErrorOf([](PlanOptions& o) { o.memory_bytes = 8 << 20; }),
            "--memory is 8 MiB: each of 8 vCPUs needs a huge page of 2 MiB of "
            "its own; give at least 16 MiB, or fewer --vcpus");
  EXPECT_EQ(
      ErrorOf([](PlanOptions& o) { o.time_limit = absl::ZeroDuration(); }),
      "--time-limit is 0: a step may take more than 0 and at most 1h; give for "
      "example 1m");
  EXPECT_EQ(ErrorOf([](PlanOptions& o) { o.repeat_count = 0; }),
            "--repeat is 0: each guest runs 1 to 99 times; give for example 5");
  EXPECT_EQ(ErrorOf([](PlanOptions& o) { o.name = "A"; }),
            "--name is 'A': the names of the VMs begin with 1 to 32 characters "
            "of a-z, 0-9 and '-', the first of them no '-'; give for example "
            "compare");
  EXPECT_EQ(
      ErrorOf([](PlanOptions& o) { o.throttle.set_max_pages_per_second(0); }),
      "--policy is lazy,eager: limits on the pace of the split apply to the "
      "policy throttled only; add throttled, or leave the limits out");
}

TEST(PlanTest, NamesOfVmsFitIntoTheApi) {
  PlanOptions options = Options();
  options.name = std::string(32, 'a');
  options.policies = {LogPolicy::kThrottled};
  options.vcpu_counts.clear();
  for (int32_t i = 1; i <= 32; ++i) options.vcpu_counts.push_back(i);
  for (const GuestMmu& mmu : GuestMmus()) {
    options.mmu = &mmu;
    const absl::StatusOr<Plan> plan = MakePlan(options);
    ASSERT_TRUE(plan.ok()) << plan.status();
    EXPECT_LE(plan->combinations.back().vm_id.size(), 63u);
  }
}

TEST(PlanTest, APassVisitsEachPageOfTheLargestShareOnce) {
  PlanOptions options = Options();
  options.memory_bytes = 6 << 20;  // 1536 pages
  EXPECT_EQ(PassLength(options, 1), 1536);
  EXPECT_EQ(PassLength(options, 5), 308);
}

TEST(GuestMmuTest, EachKindChoosesItsFieldOfTheVm) {
  std::vector<std::string> kinds;
  for (const GuestMmu& mmu : GuestMmus()) {
    v1::Vm vm;
    mmu.select(&vm);
    const bool tables = vm.guest_paging().large_pages() == v1::FEATURE_ON;
    EXPECT_EQ(tables, mmu.guest_tables == GuestTables::kYes) << mmu.word;
    kinds.push_back(mmu.word + " " + std::to_string(vm.mmu_case()));
  }
  EXPECT_EQ(kinds, (std::vector<std::string>{
                       "tdp " + std::to_string(v1::Vm::kTdp),
                       "tdp-shadow " + std::to_string(v1::Vm::kTdpShadow),
                       "shadow " + std::to_string(v1::Vm::kShadow),
                       "nested " + std::to_string(v1::Vm::kNested),
                       "stage2 " + std::to_string(v1::Vm::kStage2)}));
}

}  // namespace
}  // namespace mmud::client
