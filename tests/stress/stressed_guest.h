// vCPUs that access memory as fast as they can and check the values that they
// read.
//
// Every vCPU has a word of its own in every page of the stable range, into
// which it writes growing numbers. Its own word must hold the last number it
// wrote, and the number in another vCPU's word must never decrease. This
// detects at once a write to a page that is no longer the guest's, and a read
// through a translation that should be gone.
//
// In the range where slots come and go, the vCPU knows the state between two
// changes (changing_regions.h): memory, which keeps the numbers written since
// the change, or nothing, where accesses are emulated.

#ifndef TESTS_STRESS_STRESSED_GUEST_H_
#define TESTS_STRESS_STRESSED_GUEST_H_

#include <cstdint>
#include <random>
#include <vector>

#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/vm/vcpu/vcpu.h"
#include "mmu_core/vm/vm.h"
#include "tests/stress/changing_regions.h"
#include "tests/stress/guest_threads.h"

namespace mmu::stress {

// The memory that the guest accesses.
struct GuestSpaces {
  GfnRange stable;           // its contents are never taken away
  GfnRange huge;             // as stable; some of its pages are accessed, too
  uint64_t huge_every = 32;  // of so many accesses to the stable memory one
  const ChangingRegions* changing = nullptr;  // slots come and go here
};

// Thread-safe as GuestThreads.
class StressedGuest final : public GuestThreads {
 public:
  // The vCPUs begin to run at once.
  StressedGuest(Vm& vm, const GuestSpaces& spaces, uint64_t seed);
  ~StressedGuest() override { Stop(); }

 private:
  struct Expectations {
    // By page of the stable range, and then of those of the huge range that are
    // accessed: the last number in this vCPU's own word, and the highest number
    // seen in its neighbour's word.
    std::vector<uint64_t> own;
    std::vector<uint64_t> neighbour;
    // By page of the changing range: this vCPU's own word, and the state it
    // belongs to.
    struct Word {
      ChangingRegions::Stamp stamp = 0;
      uint64_t value = 0;
    };
    std::vector<Word> changing;
    uint64_t last_value = 0;
  };

  void Run(int index) override;
  bool Step(int index, std::mt19937_64& random, Expectations& expect);
  bool StepStable(int index, uint64_t dice, std::mt19937_64& random,
                  Expectations& expect);
  bool StepChanging(int index, uint64_t dice, std::mt19937_64& random,
                    Expectations& expect);
  // As Vcpu::Access, but waits while the vCPU's dirty ring is full.
  AccessOutcome Access(Vcpu& vcpu, Gpa gpa, AccessKind kind, uint64_t* word);
  // Called outside of guest mode. False: a violation was reported.
  bool PreFault(int index, std::mt19937_64& random);
  // REQUIRES: `page` is an index in Expectations::own.
  Gfn GfnOf(uint64_t page) const;
  bool CheckWord(int index, uint64_t page, uint64_t seen, uint64_t at_least,
                 uint64_t at_most, const char* whose);

  const GuestSpaces spaces_;
  const uint64_t seed_;
};

}  // namespace mmu::stress

#endif  // TESTS_STRESS_STRESSED_GUEST_H_
