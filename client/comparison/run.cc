#include "client/comparison/run.h"

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "client/comparison/daemon_check.h"
#include "client/comparison/guest_run.h"

namespace mmud::client {

absl::StatusOr<Comparison> RunComparison(Client& client, const Plan& plan,
                                         OnStep on_step) {
  if (absl::Status s = CheckDaemon(client, plan); !s.ok()) return s;
  Comparison comparison = {.plan = plan, .results = {}};
  const int32_t repeats = plan.options.repeat_count;
  const size_t count = plan.combinations.size() * static_cast<size_t>(repeats);
  size_t done = 0;
  for (const Combination& combination : plan.combinations) {
    std::vector<CombinationResult> runs;
    for (int32_t i = 0; i < repeats; ++i, ++done) {
      absl::StatusOr<CombinationResult> run = RunGuest(
          client, plan.options, combination,
          [&](double share, const std::string& words) {
            return on_step((static_cast<double>(done) + share) /
                               static_cast<double>(count),
                           absl::StrCat(done + 1, " of ", count, ": ",
                                        Describe(combination), ": ", words));
          });
      if (!run.ok()) return run.status();
      runs.push_back(*std::move(run));
    }
    comparison.results.push_back(MedianOf(std::move(runs)));
  }
  return comparison;
}

}  // namespace mmud::client
