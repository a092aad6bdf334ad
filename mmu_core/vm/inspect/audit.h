// The auditor: verifies that a whole VM obeys the MMU's invariants.
//
//   INV-1  Every table reachable from a root of the TDP MMU is owned by exactly
//          one parent entry, its gfn and level follow from where it hangs, and
//          the number of reachable tables equals the table count. Every active
//          shadow page is once in the hash and once on the list, and none other
//          has its gfn, role and generation; each link leads to an active page
//          one level below and is in that page's parent list once; parent lists
//          have nothing but links.
//   INV-2  pages_4k/2m/1g equal the leafs found by a full walk (STAT-41), those
//          of each MMU by themselves. The number of leafs that an ageing has
//          left with a table of the TDP MMU is that of its leafs, or unknown
//          (RACE-55).
//   INV-3  Each present SPTE is one that its format allows, with a legal
//          (host-writable, MMU-writable, W) triple (SPTE-15, SPTE-20). Any
//          other entry is empty or an MMIO SPTE of the gfn that belongs there;
//          none is frozen (SPTE-47).
//   INV-4  Each leaf maps the host frame that its memslot names, at a level
//          that slot, host and hardware allow (a leaf that was huge before a
//          guest's table came to lie in it stays huge, but is not
//          MMU-writable: SHD-09); the frame is there (memory/frame_lender.h);
//          it is host-writable only if the host lets the page be written; no
//          leaf lies outside all slots.
//   INV-5  A writable 4K SPTE of a logged slot belongs to a page whose dirty
//          bit is set (open or sealed; in flight is not enough) or which a ring
//          or a CPU's log names, or a TLB flush is owed; with PML also one
//          without D, which the CPU will note. No huge SPTE of a slot that was
//          write-protected is writable while it logs. This holds for every SPTE
//          that maps the page.
//   INV-6  A TLB entry that survives the last flush agrees with the tables:
//          the current root, same frame, writable only if the SPTE is, or was
//          until it was aged without A/D bits, executable only if the SPTE of
//          a second stage is, dirty only if the SPTE is, and not writable if
//          its page is clean and logged. A cached table is where a walk from
//          the root arrives. A flush in a vCPU's queue has its request.
//   INV-7  A root has as many references as vCPUs have to it, and in the TDP
//          MMU one more until it is taken to be zapped (TDP-03, TDP-06); every
//          root that a vCPU has is one of an MMU; no two valid roots of the TDP
//          MMU have one role. Invalid roots
//          hold no mapping once zapped (TDP-07), and an invalid root of the
//          shadow MMU is in use.
//   INV-8  With the NX huge page mitigation no huge leaf is executable, and
//          each listed table is in use, on the list of its MMU once, and marked
//          as disallowed and listed; nx_lpage_splits is their number (SPTE-17,
//          SPTE-54). Without the mitigation none is listed.
//   INV-9  A gfn has as many write trackers as there are shadow pages above
//          level 1 of a guest's table there. While it has any, no leaf of any
//          MMU maps it writable; nor while a page of level 1 shadows it, unless
//          that page is unsync.
//   INV-10 No page of the dirty log is lost (dirty/slot_log.h). To be seen at a
//          standstill: INV-5; the log's counts are those of its sets; no page
//          is in flight in two epochs; and the log has exactly the memslots
//          that log, each of which marks in its open set.
//   INV-11 Each leaf of the shadow MMU is once in the rmap of the gfn that it
//          maps. All rmaps of all memslots have nothing but such leafs. Their
//          descriptors, and those of parent lists, are well formed (SHD-12).
//   INV-12 If a shadow page is unsync, or has unsync children, each of its
//          parents has a bit for it; a page's number of unsync children is that
//          of its bits; only a page of level 1 with guest PTEs is unsync;
//          mmu_unsync is their number (shadow/unsync_marks.h).
//   INV-13 mmu_shadow_pages is the number of active shadow pages and of invalid
//          roots in use; the number of pages with guest PTEs is right; no
//          active page is of the former generation (SHD-24).
//   INV-14 The counter of a memslot's huge page is the number of its reasons:
//          that the slot's ends or its host address do not fit, and each shadow
//          page of a guest's table in it (SLOT-41..43).
//   INV-15 In a dirty ring, reset index <= fetch index <= dirty index <= reset
//          index + size, unless user space collects, which leaves the fetch
//          index behind; an entry's flags say what its place says. The page of
//          a collected entry is open or sealed in the log. A vCPU whose ring
//          reached the soft limit does not enter the guest (DL-42).
//   INV-16 The CPU's log of a vCPU outside of guest mode is empty; it is on
//          exactly if a memslot logs, or a request to switch it is pending.
//   INV-17 Pages are in flight only in epochs that the log has sealed, each
//          with one set, and not in an epoch before the one from which their
//          slot can be cleared; no slot's first epoch is after the open one.
//          The owner's key is not a former one. What the log tells about itself
//          is true.
//   INV-18 A generation of memslots is not in progress, and its low bits name
//          the address space. No MMIO SPTE is of a later generation; one of the
//          current generation has a gfn without memslot. The counts of pages
//          and of logging slots are right.
//   INV-19 A table has one use: linked, a root, or in one stock. A stock has
//   what
//          it counts, and a pool counts at least the tables in use.

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
