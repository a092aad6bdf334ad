#include "mmu_core/shadow/guest_pte_writes.h"

#include <cstdint>
#include <optional>

#include "mmu_core/base/check.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/guest_paging/guest_pte_index.h"
#include "mmu_core/paging/page_role.h"
#include "mmu_core/paging/spte_slot.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/stats/shadow_counters.h"
#include "mmu_core/tlb/tlb_flush_batch.h"

namespace mmu {
namespace {

uint64_t EntrySize(PageRole role) { return role.has_4_byte_gpte() ? 4 : 8; }

// Whether the write is unlike a guest's write to a table entry. A 32-bit guest
// writes eight-byte entries in two halves (SHD-43); a single byte at an entry's
// start changes its lowest bits.
bool IsMisaligned(PageRole role, Gpa gpa, int bytes) {
  const uint64_t size = EntrySize(role);
  const uint64_t first = gpa.value() % size;
  if (first == 0 && bytes == 1) return false;
  return bytes < 4 || first + static_cast<uint64_t>(bytes) > size;
}

// Level 1 is left out: a page of level 1 becomes unsync, and its guest table is
// then written without emulation.
bool IsFlooded(ShadowPageState& page) {
  return page.level() > Level::k4K &&
         ++page.write_flood_count >= GuestPteWrites::kFlood;
}

}  // namespace

void GuestPteWrites::Written(int as_id, Gpa gpa, int bytes, GuestWords& memory,
                             MmuCost* cost) {
  MMU_DCHECK(bytes >= 1 && bytes <= 8);
  // W2 and W3 of RACE-32.
  if (!pages_.tracking().AnyIndirectPages()) return;
  MmuWriteLocked lock(mmu_lock_, LockOp::kFault, cost);
  ShadowCounters::Add(parts_.counters.shadow.mmu_pte_write);
  const Gfn gfn = ToGfn(gpa);
  ZappedPages zapped;
  TlbFlushBatch flush(parts_.tlb, FlushScope::kVm, FlushReason::kZap);
  pages_.set().ForEachWithGuestPtes(lock, gfn, [&](ShadowPageState& page) {
    const PageRole role = page.page->role;
    if (role.as_id() != as_id) return true;
    if (IsMisaligned(role, gpa, bytes) || IsFlooded(page)) {
      pages_.zap().Prepare(lock, page, zapped);
      ShadowCounters::Add(parts_.counters.shadow.mmu_flooded);
    } else if (DropWritten(lock, page, gpa, memory, zapped)) {
      flush.Add(GfnRange::Of(gfn, 1));
    }
    return true;
  });
  pages_.zap().Commit(lock, zapped, flush, cost);
}

bool GuestPteWrites::DropWritten(const MmuWriteLocked& lock,
                                 ShadowPageState& page, Gpa gpa,
                                 GuestWords& memory, ZappedPages& zapped) {
  const PageRole role = page.page->role;
  const std::optional<SpteIndices> written =
      SptesOfGuestPte(role, gpa.value() & kPageMask);
  if (!written.has_value()) return false;  // in another quadrant
  if (role.level() > Level::k4K) {
    // Read the whole entry, even if only a part was written.
    const uint64_t size = EntrySize(role);
    uint64_t entry = 0;
    memory.Read(Gpa(gpa.value() / size * size), static_cast<WordSize>(size),
                &entry);
    if (entry != 0) {
      ShadowCounters::Add(parts_.counters.shadow.mmu_pde_zapped,
                          static_cast<uint64_t>(written->count));
    }
  }
  bool present = false;
  for (int i = 0; i < written->count; ++i) {
    SpteSlot& sptep = page.EntryAt(written->first + i);
    present = sptep.Load().IsPresent() || present;
    pages_.zap().ZapSpte(lock, sptep, zapped);
  }
  return present;
}

}  // namespace mmu
