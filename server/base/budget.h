// Limits on the number of calls, streams, waits and operations at a time. Each
// kind has a budget of its own, so that no kind can use up the room of another.

#ifndef SERVER_BASE_BUDGET_H_
#define SERVER_BASE_BUDGET_H_

#include <cstdint>
#include <map>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace mmud {

// The use of a budget, for GetCapabilities and the metrics.
struct BudgetUse {
  std::string name;
  int64_t limit = 0;    // 0: no limit
  int64_t used = 0;     // of a budget per key: the largest use of any key
  int64_t refused = 0;  // calls refused since the start
};

// Thread-safe. Outlives its places.
class Budget {
 public:
  // One unit of the budget, given back on destruction. Movable.
  class Place {
   public:
    Place() = default;
    Place(Place&& other) noexcept { *this = std::move(other); }
    Place& operator=(Place&& other) noexcept {
      if (this == &other) return *this;
      Release();
      budget_ = std::exchange(other.budget_, nullptr);
      key_ = std::move(other.key_);
      return *this;
    }
    ~Place() { Release(); }
    void Release();

   private:
    friend class Budget;
    Place(Budget* budget, absl::string_view key) : budget_(budget), key_(key) {}

    Budget* budget_ = nullptr;
    std::string key_;
  };

  // `name` is the limit's name, as in the flag. `what` names the counted
  // things, in the plural: "streams are open". A refused caller is told to try
  // again after `retry_delay`.
  Budget(std::string name, int64_t limit, std::string what,
         absl::Duration retry_delay)
      : name_(std::move(name)),
        limit_(limit),
        what_(std::move(what)),
        retry_delay_(retry_delay) {}
  Budget(const Budget&) = delete;
  Budget& operator=(const Budget&) = delete;

  // Takes one unit. RESOURCE_EXHAUSTED LIMIT_EXCEEDED with the limit's name and
  // a delay. Places of different keys, such as names of VMs, are counted apart:
  // each key has `limit` of them.
  absl::StatusOr<Place> Take(absl::string_view key = "");

  BudgetUse Use() const;

 private:
  void GiveBack(const std::string& key);

  const std::string name_;
  const int64_t limit_;
  const std::string what_;
  const absl::Duration retry_delay_;
  mutable absl::Mutex mu_;
  // Places in use, for each key that has at least one.
  std::map<std::string, int64_t, std::less<>> used_ ABSL_GUARDED_BY(mu_);
  int64_t refused_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace mmud

#endif  // SERVER_BASE_BUDGET_H_
