// The TDP MMU's part of an audit (vm/inspect/audit.h): INV-1, INV-3 and INV-7
// of its tables, INV-2 of its leafs, INV-8 of its list of executed tables. It
// passes leafs and MMIO SPTEs on.

#ifndef MMU_CORE_TDP_TDP_AUDIT_H_
#define MMU_CORE_TDP_TDP_AUDIT_H_

#include "mmu_core/mmu/audit_sink.h"
#include "mmu_core/mmu/nx_huge_pages.h"
#include "mmu_core/stats/mmu_counters.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/tdp/tdp_mmu.h"

namespace mmu {

// Walks every root and passes each leaf to `sink`. `counters` and `listed`, the
// tables that hold executed pages, are those of `tdp`. REQUIRES: an RCU read
// section; no vCPU runs.
void AuditTdp(const MmuWriteLocked& lock, const TdpMmu& tdp,
              const MmuCounters& counters, const NxHugePageList& listed,
              AuditSink& sink);

}  // namespace mmu

#endif  // MMU_CORE_TDP_TDP_AUDIT_H_
