// How much of one kind there may be at a time: calls, streams, waits,
// operations. Each kind has a budget of its own, so that none can use up what
// another needs.

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

// What GetCapabilities and the metrics say about a budget.
struct BudgetUse {
  std::string name;
  int64_t limit = 0;    // 0: there is none
  int64_t used = 0;     // of a budget per key: by the key that uses most
  int64_t refused = 0;  // calls, since the start
};

// Thread-safe. Outlives its places.
class Budget {
 public:
  // One taken unit; gives it back when it goes. Movable.
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

  // `name` is the limit's, as in the flag. `what` is what is counted, in the
  // plural: "streams are open". Whoever is refused is told to try again after
  // `retry_delay`.
  Budget(std::string name, int64_t limit, std::string what,
         absl::Duration retry_delay)
      : name_(std::move(name)),
        limit_(limit),
        what_(std::move(what)),
        retry_delay_(retry_delay) {}
  Budget(const Budget&) = delete;
  Budget& operator=(const Budget&) = delete;

  // RESOURCE_EXHAUSTED LIMIT_EXCEEDED with the limit's name and a delay.
  // Places of different keys, such as names of VMs, are counted apart: each
  // key has `limit` of them.
  absl::StatusOr<Place> Take(absl::string_view key = "");

  BudgetUse Use() const;

 private:
  void GiveBack(const std::string& key);

  const std::string name_;
  const int64_t limit_;
  const std::string what_;
  const absl::Duration retry_delay_;
  mutable absl::Mutex mu_;
  // Keys with at least one place.
  std::map<std::string, int64_t, std::less<>> used_ ABSL_GUARDED_BY(mu_);
  int64_t refused_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace mmud

#endif  // SERVER_BASE_BUDGET_H_
