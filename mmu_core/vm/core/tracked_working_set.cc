#include "mmu_core/vm/core/tracked_working_set.h"

#include <cstdint>
#include <memory>
#include <utility>

#include "mmu_core/base/mutex.h"

namespace mmu {

TrackedWorkingSet::Turn::Turn(TrackedWorkingSet& owner,
                              std::shared_ptr<WorkingSet> working_set)
    : owner_(owner), working_set_(std::move(working_set)) {}

TrackedWorkingSet::Turn::~Turn() {
  MutexLock lock(owner_.mu_);
  owner_.has_turn_ = false;
}

uint64_t TrackedWorkingSet::Turn::BeginGeneration(int64_t now_nanos) {
  {
    MutexLock lock(owner_.mu_);
    clears_before_ =
        std::exchange(owner_.clears_at_begin_,
                      owner_.clears_.load(std::memory_order_relaxed));
  }
  return working_set_->Begin(now_nanos);
}

bool TrackedWorkingSet::Turn::OthersCleared() const {
  return owner_.clears_.load(std::memory_order_relaxed) != clears_before_;
}

bool TrackedWorkingSet::Turn::IsForgotten() const {
  MutexLock lock(owner_.mu_);
  return owner_.working_set_ != working_set_;
}

std::unique_ptr<TrackedWorkingSet::Turn> TrackedWorkingSet::TryTakeTurn() {
  MutexLock lock(mu_);
  if (has_turn_) return nullptr;
  if (working_set_ == nullptr) {
    working_set_ = std::make_shared<WorkingSet>();
    clears_at_begin_ = 0;
  }
  // Not make_unique: the constructor is private.
  std::unique_ptr<Turn> turn(new Turn(*this, working_set_));
  has_turn_ = true;
  return turn;
}

std::shared_ptr<const WorkingSet> TrackedWorkingSet::Find() const {
  MutexLock lock(mu_);
  return working_set_;
}

void TrackedWorkingSet::Forget() {
  // Destroyed after the mutex is released: the maps may be large.
  std::shared_ptr<WorkingSet> forgotten;
  MutexLock lock(mu_);
  forgotten = std::exchange(working_set_, nullptr);
}

}  // namespace mmu
