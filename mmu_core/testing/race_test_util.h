// Helpers shared by the tests of races.

#ifndef MMU_CORE_TESTING_RACE_TEST_UTIL_H_
#define MMU_CORE_TESTING_RACE_TEST_UTIL_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/check.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/vm.h"

namespace mmu::testing {

// A sender's steps before it copies: seals `slot`, a slot of `npages`, and
// clears all sealed pages.
inline std::vector<uint64_t> Harvest(Vm& vm, uint32_t slot, uint64_t npages) {
  uint64_t epoch = 0;
  const std::vector<uint64_t> pages = SealAndList(vm, slot, &epoch);
  MMU_CHECK(ClearAndDeliver(vm, slot, epoch, 0, npages, MaskOf(npages, pages),
                            nullptr)
                .ok());
  return pages;
}

inline bool Contains(const std::vector<uint64_t>& pages, uint64_t page) {
  return std::find(pages.begin(), pages.end(), page) != pages.end();
}

// The word of guest memory at `gpa`, as a sender copies it.
inline uint64_t Memory(Vm& vm, uint64_t gpa) {
  uint64_t word = 0;
  MMU_CHECK(vm.ReadMemory(Gpa(gpa), absl::Span<std::byte>(
                                        reinterpret_cast<std::byte*>(&word), 8))
                .ok());
  return word;
}

// The number of faults of `vcpu` that ended with kRetry.
inline uint64_t RetriesOf(const Vm& vm, int vcpu) {
  const auto retries =
      vm.VcpuStats()[vcpu].faults[static_cast<int>(FaultResult::kRetry)];
  return retries[0] + retries[1] + retries[2];
}

}  // namespace mmu::testing

#endif  // MMU_CORE_TESTING_RACE_TEST_UTIL_H_
