#include "client/comparison/result.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "client/comparison/plan.h"
#include "client/guest_mmu.h"
#include "client/mmu_client/page_bitmap.h"

namespace mmud::client {
namespace {

// Mappings of 2 MiB that one of 1 GiB is split into.
constexpr int64_t kPiecesOf1G = 512;

}  // namespace

CombinationResult MedianOf(std::vector<CombinationResult> runs) {
  std::sort(runs.begin(), runs.end(),
            [](const CombinationResult& a, const CombinationResult& b) {
              return a.pass.time < b.pass.time;
            });
  std::vector<absl::Duration> times;
  for (const CombinationResult& run : runs) times.push_back(run.pass.time);
  const auto lost = std::find_if(runs.begin(), runs.end(), LacksPages);
  CombinationResult median =
      lost != runs.end() ? *lost : runs[(runs.size() - 1) / 2];
  median.pass_times = std::move(times);
  return median;
}

std::optional<int64_t> PagesPerSecond(const SplitAhead& split) {
  const double seconds = absl::ToDoubleSeconds(split.time);
  if (seconds <= 0) return std::nullopt;
  return std::llround(static_cast<double>(split.page_count) / seconds);
}

int64_t FaultCount(const CombinationResult& result) {
  const lab::v1::FaultCounts& faults = result.faults;
  return faults.fixed_count() + faults.fast_count() + faults.spurious_count() +
         faults.emulate_count() + faults.retry_count() + faults.error_count();
}

std::optional<v1::SplitCounts> SplitsByFaults(const GuestMmu& mmu,
                                              const CombinationResult& result) {
  if (mmu.guest_tables == GuestTables::kYes) return std::nullopt;
  v1::SplitCounts counted = result.enabling.splits;
  if (result.split_ahead.has_value()) {
    const v1::SplitCounts& ahead = result.split_ahead->splits;
    counted.set_split_1g_count(counted.split_1g_count() +
                               ahead.split_1g_count());
    counted.set_split_2m_count(counted.split_2m_count() +
                               ahead.split_2m_count());
  }
  const v1::PageCounts& before = result.mapped_before;
  const v1::PageCounts& after = result.mapped_after;
  const int64_t gone_1g = before.pages_1g_count() - after.pages_1g_count();
  int64_t gone_2m = before.pages_2m_count() - after.pages_2m_count();
  // Each split of 1 GiB has made 2 MiB mappings, of which the ones that are not
  // there any more were split as well.
  gone_2m += kPiecesOf1G * (mmu.huge_page_fault == HugePageFault::kSplits
                                ? gone_1g
                                : counted.split_1g_count());
  v1::SplitCounts splits;
  splits.set_split_1g_count(gone_1g - counted.split_1g_count());
  splits.set_split_2m_count(gone_2m - counted.split_2m_count());
  if (splits.split_1g_count() < 0 || splits.split_2m_count() < 0) {
    return std::nullopt;
  }
  return splits;
}

std::optional<bool> AllWrittenAreDirty(const PlanOptions& options,
                                       const Combination& combination,
                                       const DirtyPass& pass) {
  if (options.mmu->guest_tables == GuestTables::kYes) return std::nullopt;
  const int64_t pages = options.memory_bytes / kPageBytes;
  if (combination.write_fraction == 1 && !pass.limit_reached) {
    return pass.page_count == pages;
  }
  const int64_t accesses =
      PassLength(options, combination.vcpu_count) * combination.vcpu_count;
  if (pass.access_count != accesses) return std::nullopt;
  // Shares that are a page smaller than the largest are accessed once more at
  // their beginning.
  const int64_t fewest = pass.write_count - (accesses - pages);
  return fewest <= pass.page_count &&
         pass.page_count <= pass.earlier_page_count + pass.write_count;
}

}  // namespace mmud::client
