// The host's notifications to a VM's MMUs about the memory behind its slots:
// pages are removed or become read-only, and queries whether pages are young
// (section 10.1 of the behaviour reference).
//
// An invalidation is a pair of calls around the host's own change. Between them
// no SPTE for the pages exists or is made, and afterwards no SPTE is made from
// a frame that was resolved before the pair (memory/invalidate_sequence.h).
//
// The host has pages of its own size: if it backs guest memory with huge pages,
// it splits one before it removes a part of it, and that split invalidates the
// whole huge page. So this file widens every range to whole host pages. An
// arm64 host has no page below its granule.

#ifndef MMU_CORE_VM_SLOTS_HOST_NOTIFIER_H_
#define MMU_CORE_VM_SLOTS_HOST_NOTIFIER_H_

#include <cstdint>

#include "mmu_core/aging/aging.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/memory/backing.h"
#include "mmu_core/mmu/yield_point.h"

namespace mmu {

struct VmCore;

// Host addresses [start, end). A value.
struct HvaRange {
  Hva start;
  Hva end;
};

// Called before the host removes the pages of `range`, including pages of which
// it contains only a part. Unmaps the whole host pages in every root, even in
// roots that are being torn down (TDP-39), and flushes before it returns.
// Memslots do not change until the matching End. Takes mmu_lock for write, but
// only if a slot has such pages (AGE-02); with MayYield::kNo does not release
// it in between (AGE-03). Not inside an RCU section.
void InvalidateRangeStart(VmCore& vm, HvaRange range, MayYield may_yield);
// Called after the host's change, with the same `range`.
void InvalidateRangeEnd(VmCore& vm, HvaRange range);

// Changes the host's access to the pages of `range`, as mprotect does, with an
// invalidation around the change. Read-only pages are mapped without
// host-writable, and a write to one is an error of the vCPU (EFAULT, PF-23).
// Does not change memory outside of slots. Not inside an RCU section. REQUIRES:
// aligned to HostPageBytes().
void SetHostAccess(VmCore& vm, HvaRange range, HostAccess access);

// The answer to a query whether a page is young. A value.
struct HostYoung {
  bool young = false;
  // An MMU that ages fast found it young (AGE-32). So the caller may look
  // around the page by fast-only queries, as MGLRU does (AGE-33).
  bool was_fast = false;

  friend bool operator==(const HostYoung&, const HostYoung&) = default;
};

// Whether any page of `range` was accessed since it was last aged; ClearYoung
// also ages the pages. A full query asks every MMU, and an MMU that ages under
// mmu_lock takes it (LOCKING.md); a test may end at the first young page
// (AGE-12). A fast-only query leaves out the MMUs that do not age fast, so it
// may miss an access, and takes no lock (AGE-30). No flush: a processor that
// keeps using a cached translation is not noticed (AGE-16). REQUIRES:
// page-aligned.
HostYoung TestYoung(VmCore& vm, HvaRange range,
                    FastOnly fast_only = FastOnly::kNo);
HostYoung ClearYoung(VmCore& vm, HvaRange range,
                     FastOnly fast_only = FastOnly::kNo);
// As a full ClearYoung. On arm64 no vCPU keeps a cached translation of a
// memslot's part in which a page was young, so that the next access is noticed
// (AGE-19). On x86 that flush is left out, as KVM does.
HostYoung ClearFlushYoung(VmCore& vm, HvaRange range);

// Unmaps guest frames of address space `as_id` as an announced invalidation of
// its own, in every root (TDP-38). Meanwhile their host pages are not mapped
// anywhere. Not inside an RCU section, nor under slots_lock.
void ZapGfnRange(VmCore& vm, int as_id, GfnRange range);

}  // namespace mmu

#endif  // MMU_CORE_VM_SLOTS_HOST_NOTIFIER_H_
