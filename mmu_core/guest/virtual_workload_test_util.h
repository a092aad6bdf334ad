// Runs a whole stream in a VirtualWorkload.

#ifndef MMU_CORE_GUEST_VIRTUAL_WORKLOAD_TEST_UTIL_H_
#define MMU_CORE_GUEST_VIRTUAL_WORKLOAD_TEST_UTIL_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "mmu_core/base/access.h"
#include "mmu_core/guest/access_source.h"
#include "mmu_core/guest/gpa_space.h"
#include "mmu_core/guest/guest_access.h"
#include "mmu_core/guest/pattern.h"
#include "mmu_core/guest/pattern_spec.h"
#include "mmu_core/guest/stamp.h"
#include "mmu_core/guest/virtual_workload.h"

namespace mmu::testing {

// `count` accesses to random words of `space`: half of them write, a tenth
// fetch.
inline std::unique_ptr<AccessSource> UniformAccesses(const GpaSpace& space,
                                                     uint64_t count) {
  PatternSpec spec;
  spec.exec_fraction = 0.1;
  spec.access_count = count;
  return MakePattern(spec, space, 0, 1);
}

// Runs all of `source`; its writes store stamps. Appends the results of reads
// and fetches to `reads`.
inline absl::Status RunAccesses(VirtualWorkload& program, AccessSource& source,
                                std::vector<uint64_t>* reads = nullptr) {
  GuestAccess access;
  for (uint64_t i = 0; source.Next(&access); ++i) {
    uint64_t word = MakeStamp(0, i);
    if (absl::Status s = program.Access(access, &word); !s.ok()) return s;
    if (reads != nullptr && access.kind != AccessKind::kWrite) {
      reads->push_back(word);
    }
  }
  return source.status();
}

}  // namespace mmu::testing

#endif  // MMU_CORE_GUEST_VIRTUAL_WORKLOAD_TEST_UTIL_H_
