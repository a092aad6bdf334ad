// The leafs that an audit finds in the tables of one MMU.

#ifndef MMU_CORE_MMU_LEAF_COUNT_H_
#define MMU_CORE_MMU_LEAF_COUNT_H_

#include <array>
#include <cstdint>
#include <string>

#include "mmu_core/base/level.h"
#include "mmu_core/mmu/audit_sink.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/stats/mmu_counters.h"

namespace mmu {

// Externally synchronised: belongs to the auditor's thread.
class LeafCount {
 public:
  void Add(Level level) { ++leafs_[ToInt(level)]; }

  // Reports each size of which the MMU of this kind has counted another number
  // of leafs in `counters` (INV-2 of vm/inspect/audit.h).
  void Compare(MmuKind kind, const MmuCounters& counters,
               AuditSink& sink) const {
    for (const Level level : {Level::k4K, Level::k2M, Level::k1G}) {
      const uint64_t counted = counters.Leafs(level);
      const uint64_t found = leafs_[ToInt(level)];
      if (counted == found) continue;
      sink.Violation(2, "pages_%s of the %s MMU is %d, a walk finds %d",
                     std::string(PageSizeName(level)),
                     std::string(ToString(kind)), counted, found);
    }
  }

 private:
  std::array<uint64_t, ToInt(kMaxLeafLevel) + 1> leafs_{};  // by level
};

}  // namespace mmu

#endif  // MMU_CORE_MMU_LEAF_COUNT_H_
