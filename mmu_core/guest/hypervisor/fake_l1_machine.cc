#include "mmu_core/guest/hypervisor/fake_l1_machine.h"

#include <thread>

#include "mmu_core/base/thread.h"

namespace mmu::testing {

FakeL1Machine::FakeL1Machine(uint64_t memory_bytes, int cpus, uint64_t seed,
                             uint64_t accesses_per_turn)
    : memory_(memory_bytes),
      accesses_per_turn_(accesses_per_turn),
      random_(seed),
      runs_(static_cast<size_t>(cpus)) {
  for (int i = 0; i < cpus; ++i) {
    cpus_.push_back(std::make_unique<FakeL1Cpu>(
        memory_, [this, i](FakeL1Cpu::Turn why) { Turn(i, why); }));
  }
}

void FakeL1Machine::Run(const std::function<void(int)>& program) {
  const int count = static_cast<int>(cpus_.size());
  runs_.assign(cpus_.size(), true);
  turn_ = 0;
  several_ = true;
  std::vector<std::thread> threads;
  for (int i = 0; i < count; ++i) {
    threads.push_back(MakeThreadOrExit("a fake processor", [this, i, &program] {
      {
        std::unique_lock<std::mutex> lock(mu_);
        changed_.wait(lock, [&] { return turn_ == i; });
      }
      program(i);
      const std::lock_guard<std::mutex> lock(mu_);
      runs_[static_cast<size_t>(i)] = false;
      turn_ = Another(i);
      changed_.notify_all();
    }));
  }
  for (std::thread& thread : threads) thread.join();
  several_ = false;
}

void FakeL1Machine::Turn(int index, FakeL1Cpu::Turn why) {
  if (!several_) return;
  std::unique_lock<std::mutex> lock(mu_);
  if (why == FakeL1Cpu::Turn::kAccess && random_() % accesses_per_turn_ != 0) {
    return;
  }
  turn_ = Another(index);
  if (turn_ == index) return;
  changed_.notify_all();
  changed_.wait(lock, [&] { return turn_ == index; });
}

int FakeL1Machine::Another(int index) {
  std::vector<int> others;
  for (size_t i = 0; i < runs_.size(); ++i) {
    if (runs_[i] && static_cast<int>(i) != index) {
      others.push_back(static_cast<int>(i));
    }
  }
  return others.empty() ? index : others[random_() % others.size()];
}

}  // namespace mmu::testing
