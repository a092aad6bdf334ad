#include "server/base/budget.h"

#include <algorithm>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "server/base/errors.h"

namespace mmud {

void Budget::Place::Release() {
  if (budget_ != nullptr) std::exchange(budget_, nullptr)->GiveBack(key_);
}

absl::StatusOr<Budget::Place> Budget::Take(absl::string_view key) {
  {
    absl::MutexLock lock(&mu_);
    const auto it = used_.find(key);
    const int64_t used = it == used_.end() ? 0 : it->second;
    if (used < limit_) {
      if (it == used_.end()) {
        used_.emplace(key, 1);
      } else {
        ++it->second;
      }
      return Place(this, key);
    }
    ++refused_;
  }
  return WithRetryDelay(
      LimitExceeded(
          name_,
          absl::StrCat(limit_, " ", what_,
                       key.empty() ? "" : absl::StrCat(" of ", Quote(key)),
                       ", as many as this daemon allows (--", name_,
                       "); try again when one has ended")),
      retry_delay_);
}

BudgetUse Budget::Use() const {
  BudgetUse use;
  use.name = name_;
  use.limit = limit_;
  absl::MutexLock lock(&mu_);
  for (const auto& [key, used] : used_) use.used = std::max(use.used, used);
  use.refused = refused_;
  return use;
}

void Budget::GiveBack(const std::string& key) {
  absl::MutexLock lock(&mu_);
  const auto it = used_.find(key);
  if (--it->second == 0) used_.erase(it);
}

}  // namespace mmud
