// The known facts about the part of the guest's address space in which slots
// come and go.
//
// The thread that changes slots announces it before and after each change. An
// access that lies wholly between two changes must therefore find the state
// that the last change left: memory, or nothing. This detects a translation or
// an MMIO SPTE that outlives its set of slots.

#ifndef TESTS_STRESS_CHANGING_REGIONS_H_
#define TESTS_STRESS_CHANGING_REGIONS_H_

#include <array>
#include <atomic>
#include <cstdint>

#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"

namespace mmu::stress {

// Thread-safe; one region is changed by one thread at a time.
class ChangingRegions {
 public:
  static constexpr int kRegions = 4;
  static constexpr uint64_t kPages = 1024;  // of each region

  enum class State : uint64_t { kChanging, kMemory, kNothing };
  // A region's state and the number of its changes so far. Stamps of different
  // times are equal only if the region did not change between them.
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

  // Called before a change of `region`, and after it.
  void Begin(int region) {
    const Stamp now = stamps_[region].load();
    stamps_[region].store((now / kStates + 1) * kStates);
  }
  void End(int region, State state) {
    stamps_[region].store(stamps_[region].load() + static_cast<Stamp>(state));
  }

  // Called before and after an access: if both stamps are equal, the state was
  // the same in between.
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
