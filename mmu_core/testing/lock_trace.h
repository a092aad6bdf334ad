// The locks that one thread held at each hook (base/hooks.h) that it passed:
// the mode of mmu_lock, and an RCU read section.

#ifndef MMU_CORE_TESTING_LOCK_TRACE_H_
#define MMU_CORE_TESTING_LOCK_TRACE_H_

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "mmu_core/base/hooks.h"

namespace mmu::testing {

// A process can have at most one, and not beside an Interleaving. It records
// the thread that made it; other threads pass all hooks.
class LockTrace {
 public:
  enum class Held : uint8_t { kNothing, kRead, kWrite };
  // "none", "read", "write".
  static std::string NameOf(Held held);
  struct Event {
    HookPoint point = HookPoint::kStart;
    Held mmu_lock = Held::kNothing;
    bool rcu = false;
  };

  // `at_hook`, if given, runs at each hook of the thread after the hook was
  // recorded; hooks that `at_hook` passes are not recorded.
  explicit LockTrace(std::function<void(const Event&)> at_hook = nullptr);
  ~LockTrace();
  LockTrace(const LockTrace&) = delete;
  LockTrace& operator=(const LockTrace&) = delete;

  const std::vector<Event>& events() const { return events_; }
  Held mmu_lock() const { return held_; }
  // How often the thread was at `point`.
  int CountOf(HookPoint point) const;
  // The modes in which mmu_lock was taken, successive equal modes once: "read",
  // "write read", "none".
  std::string Modes() const;
  // The locks held at `point` as "mmu_lock/rcu": "read/rcu", "none/-"; each
  // different value once, in order of first occurrence.
  std::string HeldAt(HookPoint point) const;

 private:
  static void OnHook(HookPoint point);
  void At(HookPoint point);

  const std::function<void(const Event&)> at_hook_;
  std::vector<Event> events_;
  Held held_ = Held::kNothing;
  bool inside_ = false;
};

}  // namespace mmu::testing

#endif  // MMU_CORE_TESTING_LOCK_TRACE_H_
