// One load, store or instruction fetch.

#ifndef MMU_CORE_GUEST_GUEST_ACCESS_H_
#define MMU_CORE_GUEST_GUEST_ACCESS_H_

#include <cstdint>

#include "mmu_core/base/access.h"

namespace mmu {

// A value. The meaning of the address depends on the source: an AccessSource
// gives a guest-physical address, a TraceStream an address of the traced
// program.
struct GuestAccess {
  uint64_t address_bytes = 0;
  uint32_t size_bytes = 0;
  AccessKind kind = AccessKind::kRead;

  friend bool operator==(const GuestAccess&, const GuestAccess&) = default;
};

}  // namespace mmu

#endif  // MMU_CORE_GUEST_GUEST_ACCESS_H_
