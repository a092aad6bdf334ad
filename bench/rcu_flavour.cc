// This file is compiled once for each flavour. RCU_HEADER, RCU_NAME and
// RCU_FUNCTION are defined on the compiler's command line.

#include "bench/rcu_flavour.h"

// The first macro makes read sections inline, as in mmu_core/sync/rcu.cc. The
// second gives the functions names without the flavour.
#define _LGPL_SOURCE
#define URCU_API_MAP
#include RCU_HEADER

#include <vector>

namespace mmu::bench {
namespace {

int target;
int* pointer = &target;

inline void ReadOnce() {
  rcu_read_lock();
  int* const seen = rcu_dereference(pointer);
  asm volatile("" : : "r"(seen) : "memory");
  rcu_read_unlock();
  rcu_quiescent_state();  // does nothing except with qsbr
}

void RegisterThread() { rcu_register_thread(); }
void UnregisterThread() { rcu_unregister_thread(); }

void ReadSections(uint64_t n) {
  for (uint64_t i = 0; i < n; ++i) ReadOnce();
}

void ReadUntil(const std::atomic<bool>& stop) {
  while (!stop.load(std::memory_order_relaxed)) ReadOnce();
}

void Synchronize() { synchronize_rcu(); }

void DoNothing(rcu_head*) {}

void RunCallbacks(uint64_t n, void (*queued)(void*), void* arg) {
  std::vector<rcu_head> heads(n);
  for (rcu_head& head : heads) call_rcu(&head, DoNothing);
  queued(arg);
  rcu_barrier();
}

}  // namespace

RcuFlavour RCU_FUNCTION() {
  return {.name = RCU_NAME,
          .register_thread = RegisterThread,
          .unregister_thread = UnregisterThread,
          .read_sections = ReadSections,
          .read_until = ReadUntil,
          .synchronize = Synchronize,
          .run_callbacks = RunCallbacks};
}

}  // namespace mmu::bench
