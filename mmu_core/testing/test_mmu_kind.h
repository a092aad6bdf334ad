// The kind of an MMU that only tests have.

#ifndef MMU_CORE_TESTING_TEST_MMU_KIND_H_
#define MMU_CORE_TESTING_TEST_MMU_KIND_H_

#include "mmu_core/stats/labels.h"

namespace mmu::testing {

// One past the kinds that the VM's code knows: so an MMU of this kind can join
// every set of known MMUs, and code that names all kinds shows itself. The enum
// has a fixed underlying type, so the value is valid. Arrays by kind have no
// element for it (VmCounters::of); ToString returns "invalid".
inline constexpr MmuKind kTestMmu = static_cast<MmuKind>(kMmuKinds);

}  // namespace mmu::testing

#endif  // MMU_CORE_TESTING_TEST_MMU_KIND_H_
