// Gives the pages of a traced program a place in guest memory.
//
// An operating system hands out a physical page when a program first touches a
// virtual one. This map does the same: it takes guest pages one after the
// other, in the order of first touch. When the program is run again, the new
// process gets the pages behind those of the previous one, and once the end of
// the memory is reached, the pages of processes that are gone are used again
// from the start. So repeating a small trace moves through all of the memory
// and keeps the locality of the real program.

#ifndef MMU_CORE_GUEST_FIRST_TOUCH_MAP_H_
#define MMU_CORE_GUEST_FIRST_TOUCH_MAP_H_

#include <cstdint>
#include <optional>

#include "absl/container/flat_hash_map.h"
#include "mmu_core/base/address.h"
#include "mmu_core/guest/gpa_space.h"
#include "mmu_core/guest/page_permutation.h"

namespace mmu {

// Where successive first touches go.
enum class PagePlacement : uint8_t {
  kContiguous,  // next to each other, as on a freshly booted machine
  kScattered,   // anywhere, as on a machine with fragmented memory
};

// Deterministic: the same touches get the same pages. Thread-compatible.
class FirstTouchMap {
 public:
  // Pages come from `share` only. `seed` decides the order of kScattered.
  // REQUIRES: share.pages() > 0.
  FirstTouchMap(GpaSpace share, PagePlacement placement, uint64_t seed);

  // The guest page of a program page; the same one for the life of a process,
  // and never that of another page of the process. Nothing if it is a first
  // touch and the process already has every page of the share.
  std::optional<Gfn> Map(uint64_t program_page);

  // Forgets all mappings: the pages of the process so far are free again.
  void StartNewProcess();

  // Pages of the current process.
  uint64_t process_pages() const { return gfn_of_page_.size(); }
  // First touches of all processes.
  uint64_t total_first_touches() const { return taken_; }
  const GpaSpace& share() const { return share_; }

 private:
  const GpaSpace share_;
  const PagePlacement placement_;
  const PagePermutation order_;  // used by kScattered
  absl::flat_hash_map<uint64_t, Gfn> gfn_of_page_;
  uint64_t taken_ = 0;
};

}  // namespace mmu

#endif  // MMU_CORE_GUEST_FIRST_TOUCH_MAP_H_
