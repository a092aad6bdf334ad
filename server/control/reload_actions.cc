#include "server/control/reload_actions.h"

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "mmu_core/base/mutex.h"
#include "server/log/logging.h"

namespace mmud {

const char* ReloadResultName(ReloadResult result) {
  return result == ReloadResult::kSucceeded ? "success" : "failure";
}

void ReloadActions::Add(std::string name,
                        std::function<absl::Status()> reload) {
  mmu::MutexLock lock(mu_);
  actions_.emplace_back(std::move(name), std::move(reload));
}

ReloadResult ReloadActions::Run() {
  mmu::MutexLock run_lock(run_mu_);
  const auto actions = [this] {
    mmu::MutexLock lock(mu_);
    return actions_;
  }();
  ReloadResult result = ReloadResult::kSucceeded;
  for (const auto& [name, reload] : actions) {
    const absl::Status status = reload();
    if (status.ok()) {
      Log(LogLevel::kInfo, "reloaded", {{"what", name}});
      continue;
    }
    result = ReloadResult::kFailed;
    Log(LogLevel::kError, "not reloaded: what was read before stays in force",
        {{"what", name}, {"error", std::string(status.message())}});
  }
  mmu::MutexLock lock(mu_);
  ++counts_[static_cast<int>(result)];
  return result;
}

ReloadActions::Counts ReloadActions::counts() const {
  mmu::MutexLock lock(mu_);
  return counts_;
}

}  // namespace mmud
