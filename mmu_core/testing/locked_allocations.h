// Detects allocations that one thread makes while it holds an mmu_lock
// (LCK-01): all that testing/failing_allocations.h counts, anywhere in a hold.
// Also detects waits under the lock that may last long: those that begin at one
// of the hooks of MaySleepAt.

#ifndef MMU_CORE_TESTING_LOCKED_ALLOCATIONS_H_
#define MMU_CORE_TESTING_LOCKED_ALLOCATIONS_H_

#include <array>
#include <cstdint>
#include <string>

#include "mmu_core/base/hooks.h"

namespace mmu::testing {

// Whether a thread that passes `point` is about to wait for an RCU grace
// period, for tables, for the end of an invalidation, for a lender of memory,
// or for vCPUs to exit.
bool MaySleepAt(HookPoint point);

// Like a LockTrace: at most one in a process, for the thread that made it, and
// not beside a LockTrace or an Interleaving. It allocates nothing itself while
// the lock is held.
class LockedAllocations {
 public:
  LockedAllocations();
  ~LockedAllocations();
  LockedAllocations(const LockedAllocations&) = delete;
  LockedAllocations& operator=(const LockedAllocations&) = delete;

  // "" if nothing was allocated under a lock, and the thread never waited under
  // it. Otherwise the hooks around the allocations ("3 allocations in write
  // mode between kWriteLocked and kUnlock"), one line per pair, and then the
  // hooks of the waits ("2 waits in read mode at kGracePeriod").
  std::string Findings() const;
  // How often the lock was taken in each mode, so that a test can check that it
  // observed something.
  uint64_t reads() const { return reads_; }
  uint64_t writes() const { return writes_; }
  // How often the thread was at a hook of MaySleepAt without the lock.
  uint64_t free_waits() const { return free_waits_; }

 private:
  enum class Held : uint8_t { kNothing, kRead, kWrite };
  struct Finding {
    Held held = Held::kNothing;
    HookPoint from = HookPoint::kStart;
    HookPoint to = HookPoint::kStart;
    uint64_t count = 0;
  };

  static void OnHook(HookPoint point);
  void At(HookPoint point);
  void Note(HookPoint to, uint64_t count);
  static const char* NameOf(Held held);

  Held held_ = Held::kNothing;
  HookPoint last_ = HookPoint::kStart;
  uint64_t allocations_ = 0;  // of the thread, until `last_`
  uint64_t reads_ = 0;
  uint64_t writes_ = 0;
  uint64_t free_waits_ = 0;
  std::array<Finding, 16> findings_;  // used ones have a count
  // The waits under the lock, by mode and hook.
  std::array<std::array<uint64_t, kHookPoints>, 3> waits_ = {};
};

}  // namespace mmu::testing

#endif  // MMU_CORE_TESTING_LOCKED_ALLOCATIONS_H_
