// Places the pages of a traced program in guest memory.
//
// An operating system allocates a physical page when a program first touches a
// virtual page. This map does the same: it allocates guest pages one after the
// other, in the order of first touch. When the program runs again, the new
// process gets the pages after those of the previous one. Once the end of the
// memory is reached, the pages of ended processes are reused from the start. So
// repeating a small trace moves through all of the memory and keeps the
// locality of the real program.
// and keeps the locality of the real program.

#ifndef MMU_CORE_GUEST_FIRST_TOUCH_MAP_H_
#define MMU_CORE_GUEST_FIRST_TOUCH_MAP_H_

#include <cstdint>
#include <optional>
#include <unordered_map>

#include "mmu_core/base/address.h"
#include "mmu_core/guest/gpa_space.h"
#include "mmu_core/guest/page_permutation.h"

namespace mmu {

// Where pages of successive first touches are placed.
enum class PagePlacement : uint8_t {
  kContiguous,  // next to each other, as on a freshly booted machine
  kScattered,   // anywhere, as on a machine with fragmented memory
};

// Deterministic: the same touches get the same pages. Thread-compatible.
class FirstTouchMap {
 public:
  // Pages come only from `share`. `seed` determines the order of kScattered.
  // REQUIRES: share.pages() > 0.
  FirstTouchMap(GpaSpace share, PagePlacement placement, uint64_t seed);

  // The guest page of a program page. It is the same for the life of a process
  // and differs from those of the process's other pages. Nullopt on a first
  // touch if the process already has every page of the share.
  std::optional<Gfn> Map(uint64_t program_page);

  // Forgets all mappings: the pages of the current process are free again.
  void StartNewProcess();

  // The number of pages of the current process.
  uint64_t process_pages() const { return gfn_of_page_.size(); }
  // The number of first touches by all processes.
  uint64_t total_first_touches() const { return taken_; }
  const GpaSpace& share() const { return share_; }

 private:
  const GpaSpace share_;
  const PagePlacement placement_;
  const PagePermutation order_;  // used by kScattered
  std::unordered_map<uint64_t, Gfn> gfn_of_page_;
  uint64_t taken_ = 0;
};

}  // namespace mmu

#endif  // MMU_CORE_GUEST_FIRST_TOUCH_MAP_H_
