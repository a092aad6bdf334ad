// The interface through which a VM's MMUs report to the auditor.
//
// An MMU has only its own tables. The frame that a leaf may map, and whether
// the next write through the leaf would be logged, depend on the VM's memslots
// and logs. So each MMU checks its own invariants and passes every leaf to the
// sink, which checks the VM's invariants.

#ifndef MMU_CORE_MMU_AUDIT_SINK_H_
#define MMU_CORE_MMU_AUDIT_SINK_H_

#include <cstdint>
#include <string>
#include <utility>

#include "mmu_core/base/address.h"
#include "mmu_core/base/format.h"
#include "mmu_core/base/level.h"
#include "mmu_core/paging/spte.h"
#include "mmu_core/paging/spte_format.h"

namespace mmu {

// A leaf of any MMU. A value.
struct AuditedLeaf {
  int as_id = 0;
  Gfn gfn;  // the first gfn that it maps
  Level level = Level::k4K;
  Spte spte;
  const SpteFormat& format;
  // If the leaf lacks D, a CPU's own log would record the next write through
  // it: such a log can hold only gfns of L1 (DL-33).
  bool known_to_cpu_logs = false;
};

// Externally synchronised: belongs to the auditor's thread.
class AuditSink {
 public:
  virtual ~AuditSink() = default;

  // Invariant INV-`invariant` is broken (vm/inspect/audit.h).
  template <typename... Args>
  void Violation(int invariant, const absl::FormatSpec<Args...>& format,
                 const Args&... args) {
    Report(invariant, Format(format, args...));
  }
  virtual void Report(int invariant, std::string what) = 0;

  virtual void CheckLeaf(const AuditedLeaf& leaf) = 0;

  // Count the audited tables and pages.
  virtual void CountTables(uint64_t tables) = 0;
  virtual void CountShadowPages(uint64_t pages) = 0;
};

}  // namespace mmu

#endif  // MMU_CORE_MMU_AUDIT_SINK_H_
