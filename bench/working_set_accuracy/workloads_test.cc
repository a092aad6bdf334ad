#include "bench/working_set_accuracy/workloads.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/guest/access_source.h"
#include "mmu_core/guest/gpa_space.h"
#include "mmu_core/guest/guest_access.h"

namespace mmu::bench {
namespace {

constexpr uint64_t kPages = 10'000;

GpaSpace Space() {
  return GpaSpace::Create({GfnRange::Of(Gfn(0), kPages)}).value();
}

// The part of the accesses [first, first + count) that go to pages that are hot
// by design after `first` accesses.
double PartOfAccesses(const AccuracyWorkload& workload, uint64_t first,
                      uint64_t count) {
  const auto source = OpenWorkload(workload, Space()).value();
  const std::vector<bool> hot = HotByDesign(workload, kPages, first);
  EXPECT_EQ(std::count(hot.begin(), hot.end(), true), 1000);
  uint64_t hits = 0;
  GuestAccess access;
  for (uint64_t i = 0; i < first + count; ++i) {
    EXPECT_TRUE(source->Next(&access));
    if (i >= first) hits += hot[access.address_bytes >> kPageShift];
  }
  return static_cast<double>(hits) / static_cast<double>(count);
}

TEST(WorkloadsTest, MostAccessesGoToThePagesThatAreHotByDesign) {
  EXPECT_NEAR(PartOfAccesses(HotCold(), 500'000, 100'000), 0.9, 0.01);
  EXPECT_NEAR(PartOfAccesses(DriftingHotCold(), 500'000, 1000), 0.9, 0.03);
  EXPECT_NEAR(PartOfAccesses(DriftingHotCold(), 480'000, 1000), 0.9, 0.03)
      << "the window goes around the end of memory";
  EXPECT_NEAR(PartOfAccesses(Zipf(), 0, 100'000), 0.77, 0.03);
}

TEST(WorkloadsTest, EachWorkloadButTheIdleOneGoesOn) {
  for (const AccuracyWorkload& workload : AllWorkloads("traces")) {
    SCOPED_TRACE(workload.name);
    const auto source = OpenWorkload(workload, Space());
    ASSERT_TRUE(source.ok()) << source.status();
    GuestAccess access;
    EXPECT_EQ((*source)->Next(&access), workload.name != "idle");
  }
}

TEST(WorkloadsTest, AMissingTraceIsAnError) {
  const AccuracyWorkload workload = {
      .name = "none", .pattern = std::nullopt, .trace_path = "none.trace"};
  EXPECT_EQ(OpenWorkload(workload, Space()).status().code(),
            absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace mmu::bench
