// Read-copy-update: readers walk tables without a lock. Memory that a writer
// has unlinked is freed only after every reader that might still see it has
// left its read section.
//
// Only this file and rcu.cc use liburcu (flavour memb: readers pay no barrier,
// a grace period pays a membarrier). Threads register themselves at first use
// and unregister when they end.

#ifndef MMU_CORE_SYNC_RCU_H_
#define MMU_CORE_SYNC_RCU_H_

#include <memory>

namespace mmu {

namespace rcu_internal {
// Nesting depth of the calling thread's read sections.
extern constinit thread_local int read_depth;
// The calling thread's registration with liburcu.
enum class Registration {
  kNone,
  kLasting,    // registered until the thread ends
  kWorker,     // liburcu's own worker, registered by liburcu
  kTemporary,  // the thread is ending: registered for one call
  kEnding,     // the thread is ending, not registered
};
// constinit: no guard on the fast path.
extern constinit thread_local Registration registration;
void Register();
void EnterOutermost();
void LeaveOutermost();
}  // namespace rcu_internal

// Registers the calling thread if it is not registered yet. A thread's first
// call allocates. The first call of the process also makes liburcu's worker
// thread, and liburcu ends the process if that fails. So a program calls this
// when it starts, and every thread calls it before it takes mmu_lock (LCK-01).
inline void RcuRegisterThread() {
  if (rcu_internal::registration == rcu_internal::Registration::kNone) {
    rcu_internal::Register();
  }
}

// True while the calling thread is inside a read section.
inline bool InRcuReadSection() { return rcu_internal::read_depth != 0; }

// A read section for a scope; sections nest. While a section is open, no object
// retired after the section's start is freed. Must not be held over a wait for
// a grace period. May be held over anything else, but delays all reclaim of
// memory.
// Externally synchronised: belongs to the thread that made it.
class RcuReadGuard {
 public:
  RcuReadGuard() {
    if (rcu_internal::read_depth++ == 0) rcu_internal::EnterOutermost();
  }
  ~RcuReadGuard() {
    if (--rcu_internal::read_depth == 0) rcu_internal::LeaveOutermost();
  }
  RcuReadGuard(const RcuReadGuard&) = delete;
  RcuReadGuard& operator=(const RcuReadGuard&) = delete;
};

// Waits until every read section that was open at the call has ended.
// REQUIRES: the calling thread is outside of any read section (checked).
void RcuSynchronize();

// The storage that RcuDefer needs for a call. Embed it in the object that is
// retired, so that retiring allocates nothing (it happens under mmu_lock).
// Opaque; in use from RcuDefer until the function is called.
struct RcuHook {
  void* opaque[4];
};

// Calls fn(arg) on liburcu's worker thread after a grace period. Does not wait
// and does not allocate; may be called inside a read section. `fn` may retire
// further objects and open read sections, but must not wait for a grace period.
// Thread-safe.
void RcuDefer(RcuHook* hook, void (*fn)(void*), void* arg);

// The same for objects without a hook; allocates a hook.
void RcuDefer(void (*fn)(void*), void* arg);

// Deletes `object` after a grace period. Allocates; see RcuDefer.
template <typename T>
void RcuRetire(std::unique_ptr<T> object) {
  RcuDefer([](void* p) { delete static_cast<T*>(p); }, object.release());
}
template <typename T>
void RcuRetire(T* object) {
  RcuRetire(std::unique_ptr<T>(object));
}

// Waits until every call deferred before this one has run. REQUIRES: the
// calling thread is outside of any read section (checked) and is not running a
// deferred function.
void RcuBarrier();

}  // namespace mmu

#endif  // MMU_CORE_SYNC_RCU_H_
