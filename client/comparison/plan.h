// The plan of a comparison: which guests run, and under which policy of dirty
// logging each of them runs.

#ifndef CLIENT_COMPARISON_PLAN_H_
#define CLIENT_COMPARISON_PLAN_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/guest_mmu.h"
#include "mmud/v1/common.pb.h"

namespace mmud::client {

// When the huge mappings of a guest are split for its dirty log.
enum class LogPolicy : uint8_t {
  kLazy,       // by the guest's own writes
  kEager,      // when the log is enabled
  kThrottled,  // before the log is enabled, at a limited pace
};

// "lazy", "eager", "throttled".
const std::map<std::string, LogPolicy>& LogPolicies();
std::string PolicyWord(LogPolicy policy);

// Accesses per second of all vCPUs together while the log is enabled. They are
// few, so that hardly a page is dirty when the measured pass begins.
inline constexpr int64_t kLoadAccessesPerSecond = 20'000;

// The pace of LogPolicy::kThrottled if no limit is given.
inline constexpr int64_t kDefaultPagesPerSecond = 500'000;

// What the caller wants to compare. A value.
struct PlanOptions {
  const GuestMmu* mmu = nullptr;  // one of GuestMmus()
  std::vector<LogPolicy> policies;
  std::vector<int32_t> vcpu_counts;
  std::vector<double> write_fractions;  // shares of the accesses, 0 to 1
  int64_t memory_bytes = 0;             // of each guest
  v1::PageSize huge_page_size = v1::PAGE_SIZE_2M;
  int64_t seed = 1;
  int32_t repeat_count = 1;  // runs of each guest, 1 to 99
  // Limit on each step: populating, splitting, enabling, and the pass.
  absl::Duration time_limit = absl::Minutes(1);
  std::string name = "compare";  // beginning of the names of the VMs
  v1::Throttle throttle;         // of LogPolicy::kThrottled
};

// One guest. A value.
struct Combination {
  LogPolicy policy = LogPolicy::kLazy;
  int32_t vcpu_count = 1;
  double write_fraction = 1;
  std::string vm_id;  // "compare-tdp-lazy-1"; no two of a plan are equal
};

// A plan that was checked. A value.
struct Plan {
  PlanOptions options;
  // By vCPU count, then by share of writes, then by policy.
  std::vector<Combination> combinations;
};

// Checks the options and lists the combinations. If kThrottled is among the
// policies and no limit is set, the plan has kDefaultPagesPerSecond.
// INVALID_ARGUMENT names the option of `mmuctl compare`, its value, the rule
// and the remedy. REQUIRES: `options.mmu` is not null.
absl::StatusOr<Plan> MakePlan(PlanOptions options);

// "3 vCPUs, 10% writes": what the policies of a comparison have in common.
std::string DescribeGuest(const Combination& combination);
// "3 vCPUs, 10% writes, eager".
std::string Describe(const Combination& combination);

// "10%", "0.5%".
std::string ViewFraction(double fraction);

// Accesses of each vCPU in one pass: the pages of the largest share.
int64_t PassLength(const PlanOptions& options, int32_t vcpu_count);

}  // namespace mmud::client

#endif  // CLIENT_COMPARISON_PLAN_H_
