// What is known for sure about the part of the guest's address space in which
// slots come and go.
//
// Whoever changes slots says so before and after each change. An access that
// lies wholly between two changes must therefore find what the last one left:
// memory, or nothing. A translation or an MMIO SPTE that outlives its slot set
// is seen by that.

#ifndef TESTS_STRESS_CHANGING_REGIONS_H_
#define TESTS_STRESS_CHANGING_REGIONS_H_

#include <array>
#include <atomic>
#include <cstdint>

#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"

namespace mmu::stress {

// Thread-safe; changes of one region by one thread at a time.
class ChangingRegions {
 public:
  static constexpr int kRegions = 4;
  static constexpr uint64_t kPages = 1024;  // of each

  enum class State : uint64_t { kChanging, kMemory, kNothing };
  // A state and how many changes there were before: no two stamps that mean
  // different things are equal.
  using Stamp = uint64_t;

  explicit ChangingRegions(Gfn start) : start_(start) {
    for (auto& stamp : stamps_) stamp = static_cast<Stamp>(State::kNothing);
  }

  GfnRange all() const { return GfnRange::Of(start_, kRegions * kPages); }
  GfnRange range(int region) const {
    return GfnRange::Of(start_ + static_cast<uint64_t>(region) * kPages,
                        kPages);
  }
  // REQUIRES: all() contains it.
  int RegionOf(Gfn gfn) const {
    return static_cast<int>((gfn - start_) / kPages);
  }

  // Before a change that concerns `region`, and after it.
  void Begin(int region) {
    const Stamp now = stamps_[region].load();
    stamps_[region].store((now / kStates + 1) * kStates);
  }
  void End(int region, State state) {
    stamps_[region].store(stamps_[region].load() + static_cast<Stamp>(state));
  }

  // To be asked before and after an access: only what is the same both times
  // was so all the while.
  Stamp Look(int region) const { return stamps_[region].load(); }
  static State StateOf(Stamp stamp) {
    return static_cast<State>(stamp % kStates);
  }

 private:
  static constexpr Stamp kStates = 4;

  const Gfn start_;
  std::array<std::atomic<Stamp>, kRegions> stamps_;
};

}  // namespace mmu::stress

#endif  // TESTS_STRESS_CHANGING_REGIONS_H_
