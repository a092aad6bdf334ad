#include "bench/working_set_accuracy/experiment.h"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "bench/working_set_accuracy/accuracy.h"
#include "bench/working_set_accuracy/tracked_vm.h"
#include "bench/working_set_accuracy/workloads.h"
#include "gtest/gtest.h"
#include "mmu_core/vm/jobs/generation_scan.h"

namespace mmu::bench {
namespace {

constexpr TlbStaleness::AtGenerations kFlush =
    TlbStaleness::AtGenerations::kFlush;

Experiment Small(const AccuracyWorkload& workload) {
  return {.workload = workload,
          .pages = 4096,
          .accesses_per_generation = 2000,
          .first_access = kMaxWindow * 2000,
          .measured_accesses = 20'000};
}

TrackerAccuracy Measure(const Experiment& experiment, const Tracker& tracker) {
  return RunExperiment(experiment, {tracker}).value().trackers[0];
}

TEST(ExperimentTest, WithoutAStaleTlbEverythingIsExact) {
  for (const AccuracyWorkload& workload : AllWorkloads("traces")) {
    if (workload.name == "idle") continue;
    SCOPED_TRACE(workload.name);
    const TrackerAccuracy exact =
        Measure(Small(workload), {.staleness = {.at_generations = kFlush}});
    EXPECT_EQ(Precision(exact.hot), 1.0);
    EXPECT_EQ(Recall(exact.hot), 1.0);
    for (size_t w = 0; w < kWindows.size(); ++w) {
      EXPECT_EQ(exact.working_set[w].Get(), 0.0);
    }
    EXPECT_EQ(exact.examined.Get(), 1.0);
  }
}

// A page has its Accessed bit because it was accessed. A stale TLB only hides
// accesses.
TEST(ExperimentTest, AStaleTlbCostsRecallAndNeverPrecision) {
  const std::vector<Tracker> trackers = {
      {.staleness = {}},
      {.staleness = {.size = TlbStaleness::Size::kLimited,
                     .entries = 64,
                     .ways = 4}},
      {.staleness = {.size = TlbStaleness::Size::kDaemon}}};
  for (const AccuracyWorkload& workload : AllWorkloads("traces")) {
    if (workload.name == "idle") continue;
    const ExperimentResult result =
        RunExperiment(Small(workload), trackers).value();
    for (size_t i = 0; i < trackers.size(); ++i) {
      SCOPED_TRACE(testing::Message() << workload.name << ", tracker " << i);
      const TrackerAccuracy& accuracy = result.trackers[i];
      EXPECT_EQ(accuracy.hot.both, accuracy.hot.measured);
      EXPECT_LT(Recall(accuracy.hot), 1.0);
      EXPECT_LE(accuracy.working_set[0].Get(), 0.0);
    }
  }
}

// A flush drops the cache of tables. Accesses in tables that were left out
// until then are found in the generation after it.
TEST(ExperimentTest, ACacheOfTablesLetsAccessesBeFoundLate) {
  for (const AccuracyWorkload& workload : AllWorkloads("traces")) {
    if (workload.name == "idle") continue;
    SCOPED_TRACE(workload.name);
    const ExperimentResult result =
        RunExperiment(Small(workload),
                      {{.staleness = {.flush_accesses = 3000}}})
            .value();
    const TrackerAccuracy& accuracy = result.trackers[0];
    EXPECT_GT(accuracy.hot.both, 0u);
    EXPECT_LT(accuracy.hot.both, accuracy.hot.measured);
    EXPECT_LT(Recall(accuracy.hot), 1.0);
  }
}

TEST(ExperimentTest, AnIdleGuestIsFoundIdle) {
  const AccuracyWorkload idle = {
      .name = "idle", .pattern = std::nullopt, .trace_path = ""};
  const ExperimentResult result =
      RunExperiment(Small(idle), {Tracker{}}).value();
  EXPECT_EQ(result.accessed_pages[0].Get(), 0.0);
  EXPECT_EQ(result.trackers[0].hot, SetOverlap());
  EXPECT_EQ(result.trackers[0].working_set[0].Get(), std::nullopt);
}

TEST(ExperimentTest, AScanThatLooksAroundExaminesLessAndErrsInBothWays) {
  const TrackerAccuracy around =
      Measure(Small(Zipf()), {.staleness = {.at_generations = kFlush},
                              .scope = ScanScope::kLookAround});
  EXPECT_LT(around.examined.Get(), 0.5);
  EXPECT_LT(Precision(around.hot), 1.0);
  EXPECT_LT(Recall(around.hot), 1.0);
}

// What is hot by design has most accesses, but other pages have some, too.
TEST(ExperimentTest, WhatIsHotByDesignIsComparedIfItIsKnown) {
  Experiment experiment = Small(HotCold());
  const Tracker exact = {.staleness = {.at_generations = kFlush}};
  EXPECT_EQ(Measure(experiment, exact).by_design[0], SetOverlap());
  experiment.design = Experiment::Design::kKnown;
  const SetOverlap newest = Measure(experiment, exact).by_design[0];
  EXPECT_EQ(newest.truth, 10u * 410u);
  EXPECT_GT(Recall(newest), 0.9);
  EXPECT_LT(Precision(newest), 0.9);
}

TEST(ExperimentTest, AMissingTraceIsAnError) {
  const AccuracyWorkload none = {
      .name = "none", .pattern = std::nullopt, .trace_path = "none.trace"};
  EXPECT_EQ(RunExperiment(Small(none), {Tracker{}}).status().code(),
            absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace mmu::bench
