#include "client/top/model.h"

#include <cstdint>
#include <map>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "client/top/sample.h"
#include "gtest/gtest.h"
#include "mmu_core/base/clock.h"

namespace mmud::client {
namespace {

mmu::MonotonicTime Second(int64_t seconds) {
  return mmu::MonotonicTime() + absl::Seconds(seconds);
}

// A sample at a time with one VM of two vCPUs.
TopSample OneVm(int64_t second, std::string uid,
                std::map<std::string, int64_t> statistics) {
  TopSample sample;
  sample.time = Second(second);
  sample.daemon.boot_id = "first boot";
  VmSample vm;
  vm.id = "alpha";
  vm.uid = std::move(uid);
  vm.vcpu_count = 2;
  vm.statistics = std::move(statistics);
  sample.vms.push_back(std::move(vm));
  return sample;
}

TEST(TopModel, RatesAreTheGrowthBetweenTwoSamples) {
  TopModel model;
  model.Add(OneVm(10, "a", {{"dirty_pages", 1000}, {"pf_taken", 10}}));
  ASSERT_EQ(model.vms().size(), 1u);
  EXPECT_FALSE(model.vms()[0].rates);
  model.Add(OneVm(14, "a", {{"dirty_pages", 3000}, {"pf_taken", 12}}));
  ASSERT_TRUE(model.vms()[0].rates);
  EXPECT_EQ(model.vms()[0].rates->interval, absl::Seconds(4));
  EXPECT_EQ(model.vms()[0].rates->dirty_pages, 500);
  EXPECT_EQ(model.vms()[0].rates->faults, 0.5);
  EXPECT_EQ(model.vms()[0].dirty_pages, History({500}));
}

TEST(TopModel, StallsAreSharesOfTheTimeOfAllVcpus) {
  TopModel model;
  model.Add(OneVm(0, "a", {{"stall_lock", 0}, {"stall_write_protect", 0}}));
  model.Add(OneVm(2, "a",
                  {{"stall_lock", 1'000'000'000},
                   {"stall_write_protect", 2'000'000'000},
                   {"stall_split", 0}}));
  const VmRates& rates = *model.vms()[0].rates;
  EXPECT_EQ(rates.stalls,
            (std::map<std::string, double>{
                {"lock", 0.25}, {"split", 0}, {"write_protect", 0.5}}));
  EXPECT_EQ(rates.stall_ratio, 0.75);
  EXPECT_EQ(rates.worst_stall(), "write_protect");
}

TEST(TopModel, AVmThatDidNotStallHasNoWorstCause) {
  TopModel model;
  model.Add(OneVm(0, "a", {{"stall_lock", 5}}));
  model.Add(OneVm(1, "a", {{"stall_lock", 5}}));
  EXPECT_EQ(model.vms()[0].rates->worst_stall(), "");
}

TEST(TopModel, ALaterVmOfTheSameNameHasNoPast) {
  TopModel model;
  model.Add(OneVm(0, "a", {{"dirty_pages", 1000}}));
  model.Add(OneVm(1, "a", {{"dirty_pages", 2000}}));
  model.Add(OneVm(2, "b", {{"dirty_pages", 3000}}));
  EXPECT_FALSE(model.vms()[0].rates);
  EXPECT_EQ(model.vms()[0].dirty_pages, History());
  EXPECT_EQ(model.FindVm("a"), nullptr);
  EXPECT_EQ(model.FindVm("b"), &model.vms()[0]);
}

TEST(TopModel, TheVmsStayWhileTheDaemonDoesNotAnswer) {
  TopModel model;
  model.Add(OneVm(0, "a", {{"dirty_pages", 0}}));
  model.AddFailure(absl::UnavailableError("refused"), Second(2));
  model.AddFailure(absl::UnavailableError("refused again"), Second(5));
  EXPECT_EQ(model.failure(), absl::UnavailableError("refused again"));
  EXPECT_EQ(model.failing_for(), absl::Seconds(3));
  EXPECT_EQ(model.vms().size(), 1u);
  model.Add(OneVm(10, "a", {{"dirty_pages", 100}}));
  EXPECT_EQ(model.failure(), absl::OkStatus());
  EXPECT_EQ(model.failing_for(), absl::ZeroDuration());
  EXPECT_EQ(model.vms()[0].rates->dirty_pages, 10);
  EXPECT_EQ(model.restart_count(), 0);
}

TEST(TopModel, CountsRestartsOfTheDaemon) {
  TopModel model;
  model.Add(OneVm(0, "a", {}));
  TopSample restarted = OneVm(1, "b", {});
  restarted.daemon.boot_id = "second boot";
  model.Add(restarted);
  EXPECT_EQ(model.restart_count(), 1);
}

TEST(TopModel, TheHistoryHasALimit) {
  TopModel model;
  for (int64_t second = 0; second < 600; ++second) {
    model.Add(OneVm(second, "a", {{"dirty_pages", second * second}}));
  }
  EXPECT_EQ(model.vms()[0].dirty_pages.size(), TopModel::kHistory);
  EXPECT_EQ(model.vms()[0].dirty_pages.back(), 599 * 599 - 598 * 598);
}

}  // namespace
}  // namespace mmud::client
