// Several fake processors that share a memory. Their threads run one at a time:
// before each access, and in each Pause, a random choice decides which one
// continues. So a seed gives one interleaving of the processors' accesses, and
// always the same.

#ifndef MMU_CORE_GUEST_HYPERVISOR_FAKE_L1_MACHINE_H_
#define MMU_CORE_GUEST_HYPERVISOR_FAKE_L1_MACHINE_H_

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <random>
#include <vector>

#include "mmu_core/guest/flat_memory.h"
#include "mmu_core/guest/hypervisor/fake_l1_cpu.h"

namespace mmu::testing {

class FakeL1Machine {
 public:
  // On average, every `accesses_per_turn` accesses another processor continues.
  FakeL1Machine(uint64_t memory_bytes, int cpus, uint64_t seed,
                uint64_t accesses_per_turn = 8);

  FakeL1Cpu& cpu(int index) { return *cpus_[static_cast<size_t>(index)]; }
  FlatMemory& memory() { return memory_; }

  // Runs program(i) on processor i, for all processors, to the end.
  void Run(const std::function<void(int)>& program);

 private:
  void Turn(int index, FakeL1Cpu::Turn why);
  // Another processor that runs; `index` if there is none.
  int Another(int index);

  FlatMemory memory_;
  const uint64_t accesses_per_turn_;
  std::vector<std::unique_ptr<FakeL1Cpu>> cpus_;
  std::mutex mu_;
  std::condition_variable changed_;
  std::mt19937_64 random_;  // guarded by mu_
  std::vector<bool> runs_;  // guarded by mu_
  int turn_ = 0;            // guarded by mu_: the processor that continues
  bool several_ = false;    // constant while threads run
};

}  // namespace mmu::testing

#endif  // MMU_CORE_GUEST_HYPERVISOR_FAKE_L1_MACHINE_H_
