#include "mmu_core/sync/rcu.h"

#if defined(__SANITIZE_THREAD__)
#define MMU_RCU_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define MMU_RCU_TSAN 1
#endif
#endif

// Makes liburcu's header define read lock and unlock inline, which halves their
// cost. Both are short functions, which liburcu's licence (LGPL 2.1) lets any
// program inline, as its header says. No other part of liburcu is inlined.
#ifndef MMU_RCU_TSAN
#define _LGPL_SOURCE
#endif
#include <urcu/urcu-memb.h>

#include <memory>

#include "mmu_core/base/check.h"
#include "mmu_core/base/hooks.h"

// liburcu is not built with ThreadSanitizer, so TSan would report a race
// between a reader and the function that frees the object that was read. These
// annotations declare the two orders that RCU gives: the end of each read
// section comes before the end of the grace period; RcuDefer comes before its
// function, which comes before the end of RcuBarrier. Nothing more is declared,
// so that real races are reported.
#ifdef MMU_RCU_TSAN
extern "C" {
void __tsan_acquire(void* address);
void __tsan_release(void* address);

// liburcu orders its own allocations and frees by atomics that ThreadSanitizer
// does not see.
const char* __tsan_default_suppressions();
const char* __tsan_default_suppressions() {
  return "called_from_lib:liburcu-memb.so\n";
}
}
#endif

namespace mmu {
namespace {

#ifdef MMU_RCU_TSAN
char tsan_order;  // one address stands for all grace periods
void TsanRelease() { __tsan_release(&tsan_order); }
void TsanAcquire() { __tsan_acquire(&tsan_order); }
#else
void TsanRelease() {}
void TsanAcquire() {}
#endif

using rcu_internal::registration;
using rcu_internal::Registration;

// Unregisters the thread at its end.
struct Unregisterer {
  ~Unregisterer() {
    if (registration == Registration::kLasting) urcu_memb_unregister_thread();
    registration = Registration::kEnding;
  }
};

void EnsureRegistered() {
  if (registration == Registration::kNone ||
      registration == Registration::kEnding) {
    rcu_internal::Register();
  }
}

// Destructors of other thread-local objects may still use RCU after
// Unregisterer has run.
void UnregisterIfTemporary() {
  if (registration == Registration::kTemporary) {
    urcu_memb_unregister_thread();
    registration = Registration::kEnding;
  }
}

// The layout of RcuHook's contents.
struct Deferred {
  rcu_head head;
  void (*fn)(void*);
  void* arg;
};
static_assert(sizeof(Deferred) == sizeof(RcuHook));
static_assert(alignof(Deferred) == alignof(RcuHook));

void RunDeferred(rcu_head* head) {
  // Marks the worker as registered, so that a read section of `fn` does not
  // register it again.
  registration = Registration::kWorker;
  TsanAcquire();
  // Copied first: `fn` may free the hook.
  const Deferred deferred = *reinterpret_cast<Deferred*>(head);
  deferred.fn(deferred.arg);
  TsanRelease();
}

// A deferred call that owns its hook, for objects without one.
struct OwnedCall {
  RcuHook hook;
  void (*fn)(void*);
  void* arg;
};

void RunOwnedCall(void* arg) {
  const std::unique_ptr<OwnedCall> call(static_cast<OwnedCall*>(arg));
  call->fn(call->arg);
}

}  // namespace

namespace rcu_internal {

constinit thread_local int read_depth = 0;
constinit thread_local Registration registration = Registration::kNone;

void Register() {
  urcu_memb_register_thread();
  if (registration == Registration::kEnding) {
    registration = Registration::kTemporary;
    return;
  }
  // Makes liburcu's default worker, which all threads share, if there is none
  // yet.
  urcu_memb_get_default_call_rcu_data();
  static thread_local Unregisterer unregisterer;
  static_cast<void>(&unregisterer);
  registration = Registration::kLasting;
}

void EnterOutermost() {
  EnsureRegistered();
  urcu_memb_read_lock();
}

void LeaveOutermost() {
  TsanRelease();
  urcu_memb_read_unlock();
  UnregisterIfTemporary();
}

}  // namespace rcu_internal

void RcuSynchronize() {
  MMU_CHECK(!InRcuReadSection());
  AtHook(HookPoint::kGracePeriod);
  urcu_memb_synchronize_rcu();
  TsanAcquire();
}

void RcuDefer(RcuHook* hook, void (*fn)(void*), void* arg) {
  EnsureRegistered();  // call_rcu opens a read section of its own
  auto* deferred = reinterpret_cast<Deferred*>(hook);
  deferred->fn = fn;
  deferred->arg = arg;
  TsanRelease();
  urcu_memb_call_rcu(&deferred->head, RunDeferred);
  if (!InRcuReadSection()) UnregisterIfTemporary();
}

void RcuDefer(void (*fn)(void*), void* arg) {
  auto* call = new OwnedCall{.hook = {}, .fn = fn, .arg = arg};
  RcuDefer(&call->hook, RunOwnedCall, call);
}

void RcuBarrier() {
  MMU_CHECK(!InRcuReadSection());
  MMU_CHECK(registration != Registration::kWorker);
  AtHook(HookPoint::kGracePeriod);
  urcu_memb_barrier();
  TsanAcquire();
}

}  // namespace mmu
