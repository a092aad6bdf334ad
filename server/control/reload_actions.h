// What a request to reload does: each part of the daemon that keeps something
// from a file adds the function that reads the file anew.

#ifndef SERVER_CONTROL_RELOAD_ACTIONS_H_
#define SERVER_CONTROL_RELOAD_ACTIONS_H_

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "mmu_core/base/mutex.h"

namespace mmud {

enum class ReloadResult : uint8_t { kSucceeded, kFailed };
inline constexpr int kReloadResults = 2;
// "success", "failure": the label `result` of metrics.
const char* ReloadResultName(ReloadResult result);

// Thread-safe.
class ReloadActions {
 public:
  // The number of runs by result, in the order of ReloadResult.
  using Counts = std::array<uint64_t, kReloadResults>;

  // `reload` reads its file anew. If it returns an error, it has kept what it
  // had. `name` says what it reads, as "policy": log lines have it. REQUIRES:
  // `reload` may be called until this is destroyed.
  void Add(std::string name, std::function<absl::Status()> reload);

  // Runs the actions in the order in which they were added and logs the result
  // of each. One that fails does not stop the others. Runs come one after
  // another. The result is a failure if an action failed.
  ReloadResult Run();

  Counts counts() const;

 private:
  mmu::Mutex run_mu_;      // held for a run, while its actions read files
  mutable mmu::Mutex mu_;  // leaf
  std::vector<std::pair<std::string, std::function<absl::Status()>>> actions_
      ABSL_GUARDED_BY(mu_);
  Counts counts_ ABSL_GUARDED_BY(mu_) = {};
};

}  // namespace mmud

#endif  // SERVER_CONTROL_RELOAD_ACTIONS_H_
