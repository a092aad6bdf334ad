// The stage-2 MMU's own invariants.

#ifndef MMU_CORE_STAGE2_STAGE2_AUDIT_H_
#define MMU_CORE_STAGE2_STAGE2_AUDIT_H_

#include "mmu_core/base/table_geometry.h"
#include "mmu_core/mmu/audit_sink.h"
#include "mmu_core/stage2/stage2_state.h"
#include "mmu_core/sync/mmu_lock.h"

namespace mmu {

// Walks all tables and reports what is wrong to `sink`: links and descriptions
// of tables (INV-1), counts of leafs (INV-2), descriptors that the MMU does not
// make and entries that are still locked (INV-3), references (INV-7), tables
// with two uses (INV-19). Reports each leaf for the VM's invariants. REQUIRES:
// no vCPU runs; an RCU read section.
template <TableGeometry G>
void AuditStage2(const MmuWriteLocked& lock, const Stage2State<G>& state,
                 AuditSink& sink);

}  // namespace mmu

#endif  // MMU_CORE_STAGE2_STAGE2_AUDIT_H_
