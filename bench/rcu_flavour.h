// The operations of one flavour of liburcu that rcu_flavours measures.
// rcu_flavour.cc is compiled once for each flavour, so that the read sections
// are inline in its loops.

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
  // Opens and closes `n` read sections and reads a pointer in each. With qsbr,
  // a thread must report a quiescent state now and then: this function does so
  // after each section.
  void (*read_sections)(uint64_t n);
  // Opens and closes read sections until `stop` is true.
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
