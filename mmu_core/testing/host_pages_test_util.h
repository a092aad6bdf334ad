// Memory of a slot as the host sees it.
#ifndef MMU_CORE_TESTING_HOST_PAGES_TEST_UTIL_H_
#define MMU_CORE_TESTING_HOST_PAGES_TEST_UTIL_H_

#include <cstdint>

#include "mmu_core/base/address.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/mmu/yield_point.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/vm/slots/host_notifier.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/vm/vm_state.h"

namespace mmu::testing {

// The pages [first, end) of the slot `slot_id`, as host addresses.
inline HvaRange HostPagesOf(Vm& vm, uint32_t slot_id, uint64_t first,
                            uint64_t end) {
  RcuReadGuard rcu;
  const Memslot* slot = vm.state().slots.Active(0).FindById(slot_id);
  return {slot->hva + first * kPageSize, slot->hva + end * kPageSize};
}

// The host unmaps `pages`, as by munmap(2): start and end of an invalidation.
inline void HostUnmaps(Vm& vm, HvaRange pages) {
  InvalidateRangeStart(vm.state(), pages, MayYield::kYes);
  InvalidateRangeEnd(vm.state(), pages);
}

}  // namespace mmu::testing

#endif  // MMU_CORE_TESTING_HOST_PAGES_TEST_UTIL_H_
