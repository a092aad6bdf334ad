// Where the MMUs of a VM report to while the VM is audited.
//
// An MMU knows its tables; what a leaf may map and whether its next write would
// be noticed is known by the VM. So each MMU checks its own invariants, and
// hands every leaf to the sink, which checks those of the VM.

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

// A leaf of either MMU. A value.
struct AuditedLeaf {
  int as_id = 0;
  Gfn gfn;  // the first that it maps
  Level level = Level::k4K;
  Spte spte;
  const SpteFormat& format;
  // A CPU's own log would note the next write through it, if it lacks D: the
  // log knows gfns of L1 only (DL-33).
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

  // How much was looked at.
  virtual void CountTables(uint64_t tables) = 0;
  virtual void CountShadowPages(uint64_t pages) = 0;
};

}  // namespace mmu

#endif  // MMU_CORE_MMU_AUDIT_SINK_H_
