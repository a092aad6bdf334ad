// The auditor: verifies that a whole VM obeys the MMU's invariants.
//
//   INV-1  Every table reachable from a root is owned by exactly one parent
//          entry, its gfn and level follow from where it hangs, and the number
//          of reachable tables equals the table count.
//   INV-2  pages_4k/2m/1g equal the leafs found by a full walk (STAT-41), those
//          of each MMU by themselves.
//   INV-3  Each present SPTE is one that its format allows, with a legal
//          (host-writable, MMU-writable, W) triple (SPTE-15, SPTE-20); no
//          reachable entry is frozen (SPTE-47).
//   INV-4  Each leaf maps the host frame that its memslot names, at a level
//          that slot, host and hardware allow (a leaf that was huge before a
//          guest's table came to lie in it stays huge, but is not
//          MMU-writable: SHD-09); the frame is there (memory/frame_lender.h);
//          it is host-writable only if the host lets the page be written; no
//          leaf lies outside all slots.
//   INV-5  A writable 4K SPTE of a logged slot belongs to a page whose dirty
//          bit is set (open or sealed; in flight is not enough) or which a ring
//          or a CPU's log names, or a TLB flush is owed; with PML also one
//          without D, which the CPU will note, and then every CPU's log is on.
//          No huge SPTE of a slot that was write-protected is writable while it
//          logs.
//   INV-6  A TLB entry that survives the last flush agrees with the tables:
//          the current root, same frame, writable only if the SPTE is, or was
//          until it was aged without A/D bits, dirty only if the SPTE is, and
//          not of a clean page that is logged.
//   INV-7  The root is valid and referenced; invalid roots hold no mapping
//          once zapped (TDP-07).
//   INV-8  With the NX huge page mitigation no huge leaf is executable, and
//          nx_lpage_splits equals the listed tables found by a full walk
//          (SPTE-17, SPTE-54).
//   INV-9  The invariants of the shadow MMU hold (shadow/shadow_audit.h). Its
//          leafs are counted in INV-2, obey INV-4, 5 and 8, and what a vCPU has
//          cached of its shadow root INV-6.
//   INV-10 No page of the dirty log is lost (dirty/slot_log.h). To be seen at a
//          standstill: INV-5, and that the log's counts are those of its sets
//          and no page is in flight in two epochs.

#ifndef MMU_CORE_VM_INSPECT_AUDIT_H_
#define MMU_CORE_VM_INSPECT_AUDIT_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace mmu {

struct AuditReport {
  std::vector<std::string> violations;  // each names its INV-n and the place
  uint64_t tables_checked = 0;
  uint64_t shadow_pages_checked = 0;
  uint64_t leafs_checked = 0;
  uint64_t tlb_entries_checked = 0;
  // Pointers to tables in paging-structure caches.
  uint64_t cached_tables_checked = 0;

  bool ok() const { return violations.empty(); }
};

class Vcpu;
struct VmCore;

// Verifies all of the above of a VM with these vCPUs. REQUIRES: no vCPU runs
// and none will start before it returns; no other operation on the VM is under
// way except those that only read, and resets of dirty rings. Takes slots_lock,
// waits for the flushes that resets owe, and takes mmu_lock for write.
AuditReport AuditVm(VmCore& vm,
                    const std::vector<std::unique_ptr<Vcpu>>& vcpus);

}  // namespace mmu

#endif  // MMU_CORE_VM_INSPECT_AUDIT_H_
