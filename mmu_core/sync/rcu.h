// Read-copy-update: readers walk tables without a lock, and what a writer has
// unlinked is freed only after every reader that might still see it has left.
//
// This file and rcu.cc are the only ones that know liburcu (flavour memb:
// readers pay no barrier, a grace period pays a membarrier). Threads register
// themselves on first use and unregister when they end.

#ifndef MMU_CORE_SYNC_RCU_H_
#define MMU_CORE_SYNC_RCU_H_

#include <memory>

namespace mmu {

namespace rcu_internal {
// Nesting depth of this thread's read sections.
extern constinit thread_local int read_depth;
// How the calling thread stands with liburcu.
enum class Registration {
  kNone,
  kLasting,    // until the thread ends
  kWorker,     // liburcu's own worker, registered by liburcu
  kTemporary,  // the thread is ending: for one call only
  kEnding,     // the thread is ending, not registered
};
// constinit: no guard on the fast path.
extern constinit thread_local Registration registration;
void Register();
void EnterOutermost();
void LeaveOutermost();
}  // namespace rcu_internal

// Registers the calling thread, unless it was. The first time allocates, and
// the first of the process makes liburcu's worker thread, without which liburcu
// ends the process: so a program does this when it starts, and whoever takes
// mmu_lock does it before (LCK-01).
inline void RcuRegisterThread() {
  if (rcu_internal::registration == rcu_internal::Registration::kNone) {
    rcu_internal::Register();
  }
}

// True while the calling thread is inside a read section.
inline bool InRcuReadSection() { return rcu_internal::read_depth != 0; }

// A read section for a scope; sections nest. While one is open nothing retired
// after its start is freed. Must not be held over a wait for a grace period;
// may be held over anything else, but delays the reclaim of all memory.
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

// What RcuDefer needs to remember a call; embed it in the object that is
// retired, so that retiring allocates nothing (it happens under mmu_lock).
// Opaque; in use from RcuDefer until the function is called.
struct RcuHook {
  void* opaque[4];
};

// Calls fn(arg) on liburcu's worker thread after a grace period. Does not wait,
// does not allocate; may be called inside a read section. `fn` may retire more
// and open read sections, but must not wait for a grace period. Thread-safe.
void RcuDefer(RcuHook* hook, void (*fn)(void*), void* arg);

// The same for objects without a hook; allocates one.
void RcuDefer(void (*fn)(void*), void* arg);

// Deletes `object` after a grace period. Allocates, see RcuDefer.
template <typename T>
void RcuRetire(std::unique_ptr<T> object) {
  RcuDefer([](void* p) { delete static_cast<T*>(p); }, object.release());
}
template <typename T>
void RcuRetire(T* object) {
  RcuRetire(std::unique_ptr<T>(object));
}

// Waits until everything deferred before the call has been called.
// REQUIRES: the calling thread is outside of any read section (checked) and is
// not running a deferred function.
void RcuBarrier();

}  // namespace mmu

#endif  // MMU_CORE_SYNC_RCU_H_
