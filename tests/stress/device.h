// A device that writes to guest memory without a vCPU (DL-46): its marks go
// into companion bitmaps, and not into a ring.

#ifndef TESTS_STRESS_DEVICE_H_
#define TESTS_STRESS_DEVICE_H_

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <random>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/memory/guest_memory_access.h"
#include "mmu_core/memory/memslot_table.h"

namespace mmu::stress {

// The device has one word in each of its pages, the last one. It writes growing
// numbers into it, and nobody else writes there. Thread-safe.
class Device {
 public:
  // `slots` outlives this, and contains `pages` as long as this lives.
  Device(const MemslotTable& slots, GfnRange pages);

  // Writes to some pages. Pages that the host has made read-only are left out.
  // Returns what is wrong: a word that another has changed, or a page that
  // cannot be written.
  std::string Write(std::mt19937_64& random);

  // From Hold to Release, Write waits.
  void Hold() { mu_.lock(); }
  void Release() { mu_.unlock(); }
  // Returns what is wrong with a copy of all memory from gfn 0: a word in it
  // that is not the last one written. REQUIRES: held.
  std::string CheckCopy(absl::Span<const std::byte> copy) const;

 private:
  Gpa WordOf(uint64_t page) const;

  const GfnRange pages_;
  std::mutex mu_;
  GuestMemoryAccess memory_;     // guarded by mu_
  std::vector<uint64_t> words_;  // by page; guarded by mu_
};

}  // namespace mmu::stress

#endif  // TESTS_STRESS_DEVICE_H_
