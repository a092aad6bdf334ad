// vCPUs that access memory as fast as they can and know what they must find.
//
// Every vCPU has a word of its own in every page of the stable range, into
// which it writes growing numbers. What it reads back there must be the last
// number it wrote; what it reads in the words of others never goes back. So a
// write that went to a page which is no longer the guest's, and a read through
// a translation that should be gone, are both seen at once.
//
// In the range where slots come and go it knows what there is between two
// changes (changing_regions.h): memory, which then keeps what was written, or
// nothing, which is emulated.

#ifndef TESTS_STRESS_STRESSED_GUEST_H_
#define TESTS_STRESS_STRESSED_GUEST_H_

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/vm/vcpu.h"
#include "mmu_core/vm/vm.h"
#include "tests/stress/changing_regions.h"

namespace mmu::stress {

// Where the guest may go.
struct GuestSpaces {
  GfnRange stable;  // its contents are never taken away
  const ChangingRegions* changing = nullptr;  // slots come and go here
};

// Thread-safe.
class StressedGuest {
 public:
  // One thread per vCPU of `vm`, at most 64. They run at once.
  StressedGuest(Vm& vm, const GuestSpaces& spaces, uint64_t seed);
  ~StressedGuest();
  StressedGuest(const StressedGuest&) = delete;
  StressedGuest& operator=(const StressedGuest&) = delete;

  // When Pause returns every vCPU is outside of the guest. Nestable by one
  // caller at a time only.
  void Pause();
  void Resume();

  uint64_t access_count() const { return accesses_.load(); }
  uint64_t emulated_count() const { return emulated_.load(); }
  uint64_t pre_fault_count() const { return pre_faults_.load(); }
  uint64_t ring_full_count() const { return ring_full_.load(); }
  // The first thing that was not as it must be; empty if all is well.
  std::string violation() const;

 private:
  struct Expectations {
    // By page of the stable range: the last number of this vCPU's own word,
    // and the highest seen in the word of its neighbour.
    std::vector<uint64_t> own;
    std::vector<uint64_t> neighbour;
    // By page of the changing range: its own word, as of which state.
    struct Word {
      ChangingRegions::Stamp stamp = 0;
      uint64_t value = 0;
    };
    std::vector<Word> changing;
    uint64_t last_value = 0;
  };

  void Run(int index, uint64_t seed);
  bool Step(int index, std::mt19937_64& random, Expectations& expect);
  bool StepStable(int index, uint64_t dice, std::mt19937_64& random,
                  Expectations& expect);
  bool StepChanging(int index, uint64_t dice, std::mt19937_64& random,
                    Expectations& expect);
  // As Vcpu::Access, but waits while the vCPU's dirty ring is full; it comes
  // back with that only if the guest is to stop.
  AccessOutcome Access(Vcpu& vcpu, Gpa gpa, AccessKind kind, uint64_t* word);
  // Outside of guest mode. False: a violation was reported.
  bool PreFault(int index, std::mt19937_64& random);
  bool CheckWord(int index, uint64_t page, uint64_t seen, uint64_t at_least,
                 uint64_t at_most, const char* whose);
  void Report(const std::string& text);
  void WaitWhilePaused();

  Vm& vm_;
  const GuestSpaces spaces_;
  const int vcpus_;
  std::atomic<bool> stop_{false};
  std::atomic<bool> pause_{false};
  std::atomic<uint64_t> accesses_{0};
  std::atomic<uint64_t> emulated_{0};
  std::atomic<uint64_t> pre_faults_{0};
  std::atomic<uint64_t> ring_full_{0};

  mutable std::mutex mu_;
  std::condition_variable changed_;
  int parked_ = 0;         // guarded by mu_
  int ended_ = 0;          // guarded by mu_
  std::string violation_;  // guarded by mu_
  std::vector<std::thread> threads_;
};

}  // namespace mmu::stress

#endif  // TESTS_STRESS_STRESSED_GUEST_H_
