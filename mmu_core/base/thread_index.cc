#include "mmu_core/base/thread_index.h"

#include <cstdint>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "mmu_core/base/mutex.h"

namespace mmu::thread_index_internal {

constinit thread_local uint32_t index_plus_one = 0;

namespace {

// The numbers in use. Its mutex also orders successive users of a number.
class Numbers {
 public:
  // Never destroyed: any thread may end after static destruction.
  static Numbers& Get() {
    static auto* const numbers = new Numbers;
    return *numbers;
  }

  uint32_t Take() {
    MutexLock lock(mu_);
    uint32_t index = 0;
    while (index < taken_.size() && taken_[index]) ++index;
    if (index == taken_.size()) taken_.push_back(false);
    taken_[index] = true;
    return index;
  }
  void GiveBack(uint32_t index) {
    MutexLock lock(mu_);
    taken_[index] = false;
  }

 private:
  Mutex mu_;  // leaf
  std::vector<bool> taken_ ABSL_GUARDED_BY(mu_);
};

// Releases the thread's number when the thread ends. Thread-local objects that
// are destroyed later may still ask for a number.
struct Holder {
  explicit Holder(uint32_t i) : index(i) {}
  ~Holder() {
    index_plus_one = 0;
    ended = true;
    Numbers::Get().GiveBack(index);
  }
  const uint32_t index;
  static constinit thread_local bool ended;
};
constinit thread_local bool Holder::ended = false;

}  // namespace

uint32_t Assign() {
  // The caller subtracts 1: 0 - 1 is kNoThreadIndex.
  if (Holder::ended) return 0;
  static thread_local const Holder holder(Numbers::Get().Take());
  index_plus_one = holder.index + 1;
  return index_plus_one;
}

}  // namespace mmu::thread_index_internal
