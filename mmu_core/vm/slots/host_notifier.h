// What the host tells a VM's MMU about the memory behind its slots: that pages
// go away or may not be written any more, and whether they are young
// (section 10.1 of the behaviour reference).
//
// An invalidation is a pair of calls around the host's own change. Between them
// no SPTE for the pages exists or comes into being, and afterwards none that
// was resolved before the pair (memory/invalidate_sequence.h).
//
// The host has pages of its own size: where it backs guest memory with huge
// pages it splits one before it takes a part of it, which is an invalidation of
// all of it. So every range here is widened to whole host pages, by this file.

#ifndef MMU_CORE_VM_SLOTS_HOST_NOTIFIER_H_
#define MMU_CORE_VM_SLOTS_HOST_NOTIFIER_H_

#include <cstdint>

#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/memory/backing.h"
#include "mmu_core/tdp/tdp_mmu.h"

namespace mmu {

struct VmCore;

// Host addresses [start, end). A value.
struct HvaRange {
  Hva start;
  Hva end;
};

// The host is about to take the pages of `range` away, also those that it only
// touches: unmaps all of the host pages that they are of, in every
// root, also in those that are being torn down (TDP-39), and flushes before it
// returns. Memslots do not change until the matching End. Takes mmu_lock for
// write, but only if some slot has such pages (AGE-02); with MayYield::kNo does
// not let go of it in between (AGE-03). Not inside an RCU section.
void InvalidateRangeStart(VmCore& vm, HvaRange range, MayYield may_yield);
// The change is made. Same `range`.
void InvalidateRangeEnd(VmCore& vm, HvaRange range);

// The host changes what may be done with the pages of `range`, as mprotect
// does: an invalidation around the change. Read-only pages are mapped
// without host-writable, and a write to one is an error of the vCPU (EFAULT,
// PF-23). Memory of no slot is left alone. Not inside an RCU section.
// REQUIRES: page-aligned.
void SetHostAccess(VmCore& vm, HvaRange range, HostAccess access);

// Whether any page of `range` was accessed since it was last aged, which
// ClearYoung does on the way. No lock, no flush: a processor that goes on using
// a translation it has is not noticed (AGE-16). REQUIRES: as above.
bool TestYoung(VmCore& vm, HvaRange range);
bool ClearYoung(VmCore& vm, HvaRange range);

// Unmaps guest frames as an invalidation of its own, in the valid roots of
// address space `as_id` (TDP-38). While it goes on nothing is mapped in the
// host pages that they are of either.
void ZapGfnRange(VmCore& vm, int as_id, GfnRange range);

}  // namespace mmu

#endif  // MMU_CORE_VM_SLOTS_HOST_NOTIFIER_H_
