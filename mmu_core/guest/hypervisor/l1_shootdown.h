// Invalidation on all processors of an L1 hypervisor.
//
// INVEPT, and a flush of an ASID, act on the processor that executes them only.
// So software that takes away a translation asks every processor that may have
// cached it to invalidate, and waits before it reuses the page or table (SDM
// vol. 3, 29.4.3.4). A processor caches translations of an L2 guest only while
// it runs this guest, but it keeps them afterwards. So a processor that runs
// the guest is interrupted and waited for; any other one invalidates before it
// enters the guest again, and nobody waits for it. It may be parked, or run
// another guest for long.
//
//   initiator                          processor that enters the guest
//   I1  stores the entry               P1  Enter: publishes that it runs it
//   I2  Ask: a new generation          P2  Generation: reads the newest one
//   I3  IsDone: who runs the guest?    P3  invalidates, if it is behind
//                                      P4  Invalidated; runs the guest
//
// P1, P2, I2 and I3 are sequentially consistent: either I3 sees the processor
// run the guest, or P2 sees the new generation (RACE-49).

#ifndef MMU_CORE_GUEST_HYPERVISOR_L1_SHOOTDOWN_H_
#define MMU_CORE_GUEST_HYPERVISOR_L1_SHOOTDOWN_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace mmu {

// Processors and guests count from 0. Thread-safe; the functions of a processor
// are called by its thread.
class L1Shootdown {
 public:
  L1Shootdown(int cpus, int guests);

  int cpus() const { return static_cast<int>(running_.size()); }

  // --- On the processor that runs, or will run, a guest. ---

  // REQUIRES: it runs none.
  void Enter(int cpu, int guest) { running_[At(cpu)].store(guest); }
  void Leave(int cpu) { running_[At(cpu)].store(kNone); }
  // The newest generation of the guest's translations.
  uint64_t Generation(int guest) const { return asked_[At(guest)].load(); }
  // Whether the processor may have translations that are older.
  bool IsBehind(int cpu, int guest) const {
    return Generation(guest) != DoneAt(cpu, guest).load();
  }
  // The processor has invalidated all translations that are older than
  // `generation`.
  void Invalidated(int cpu, int guest, uint64_t generation) {
    DoneAt(cpu, guest).store(generation);
  }

  // --- On the processor that took translations away. ---

  // Asks all processors, also the caller's. REQUIRES: L1's lock held.
  uint64_t Ask(int guest) { return asked_[At(guest)].fetch_add(1) + 1; }
  // Whether no processor but `cpu` can still use translations of the guest that
  // are older than `generation`. `cpu` is in L1.
  bool IsDone(int cpu, int guest, uint64_t generation) const;

 private:
  static constexpr int kNone = -1;
  static size_t At(int index) { return static_cast<size_t>(index); }
  std::atomic<uint64_t>& DoneAt(int cpu, int guest) {
    return done_[At(cpu) * asked_.size() + At(guest)];
  }
  const std::atomic<uint64_t>& DoneAt(int cpu, int guest) const {
    return done_[At(cpu) * asked_.size() + At(guest)];
  }

  std::vector<std::atomic<int>> running_;     // by processor: the guest
  std::vector<std::atomic<uint64_t>> asked_;  // by guest: the generation
  std::vector<std::atomic<uint64_t>> done_;   // by processor, then guest
};

}  // namespace mmu

#endif  // MMU_CORE_GUEST_HYPERVISOR_L1_SHOOTDOWN_H_
