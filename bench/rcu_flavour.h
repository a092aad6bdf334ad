// One flavour of liburcu, as rcu_flavours measures it. rcu_flavour.cc is
// compiled once for each, so that its read sections are inline in the loops.

#ifndef BENCH_RCU_FLAVOUR_H_
#define BENCH_RCU_FLAVOUR_H_

#include <atomic>
#include <cstdint>

namespace mmu::bench {

struct RcuFlavour {
  const char* name;
  // Registers the calling thread. Only registered threads may call the
  // functions below.
  void (*register_thread)();
  void (*unregister_thread)();
  // Opens and closes `n` read sections and reads a pointer in each. With qsbr
  // reports a quiescent state after each, as a thread has to now and then.
  void (*read_sections)(uint64_t n);
  // Read sections until `stop`.
  void (*read_until)(const std::atomic<bool>& stop);
  // Waits for a grace period.
  void (*synchronize)();
  // Queues `n` callbacks that do nothing, and waits until all were called.
  // Calls `queued` when all of them are queued.
  void (*run_callbacks)(uint64_t n, void (*queued)(void*), void* arg);
};

RcuFlavour RcuFlavour_memb();
RcuFlavour RcuFlavour_mb();
RcuFlavour RcuFlavour_signal();
RcuFlavour RcuFlavour_bp();
RcuFlavour RcuFlavour_qsbr();

}  // namespace mmu::bench

#endif  // BENCH_RCU_FLAVOUR_H_
