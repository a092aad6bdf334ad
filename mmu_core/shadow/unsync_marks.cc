#include "mmu_core/shadow/unsync_marks.h"

#include <atomic>
#include <cstddef>

#include "mmu_core/base/check.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/level.h"
#include "mmu_core/paging/spte.h"
#include "mmu_core/rmap/rmap.h"
#include "mmu_core/stats/shadow_counters.h"

namespace mmu {
namespace {

bool HasUnsyncChildren(const ShadowPageState& page) {
  return page.unsync_children.load(std::memory_order_relaxed) != 0;
}
bool IsUnsync(const ShadowPageState& page) {
  return page.unsync.load(std::memory_order_relaxed);
}

void ClearBit(ShadowPageState& page, int index) {
  page.unsync_child_bitmap.reset(index);
  page.unsync_children.fetch_sub(1, std::memory_order_relaxed);
}

}  // namespace

void UnsyncBatch::Add(ShadowPageState& page) {
  for (int i = 0; i < count; ++i) {
    if (pages[i] == &page) return;
  }
  pages[count++] = &page;
}

void UnsyncMarks::MarkUnsync(const MmuReadLocked& held, ShadowPageState& page) {
  Mark(held, page);
}

void UnsyncMarks::MarkUnsync(const MmuWriteLocked& held,
                             ShadowPageState& page) {
  Mark(held, page);
}

template <typename Lock>
void UnsyncMarks::Mark(const Lock& held, ShadowPageState& page) {
  MMU_CHECK(page.level() == Level::k4K && page.page->role.HasGuestPtes());
  if (IsUnsync(page)) return;
  ShadowCounters::Add(counters_.shadow.mmu_unsync);
  for (RmapIterator it = page.parents.Entries(held); it.Valid(); it.Next()) {
    MarkUpwards(held, it.sptep());
  }
  AtHook(HookPoint::kMarksToUnsync);
  // Stored last: a thread that finds the page unsync relies on the marks
  // (RACE-33).
  page.unsync.store(true, std::memory_order_release);
}

template <typename Lock>
void UnsyncMarks::MarkUpwards(const Lock& held, const SpteSlot& entry) {
  ShadowPageState& page = PageHolding(entry);
  const int index = IndexInTable(entry);
  if (page.unsync_child_bitmap.test(index)) return;
  page.unsync_child_bitmap.set(index);
  if (page.unsync_children.fetch_add(1, std::memory_order_relaxed) != 0) return;
  for (RmapIterator it = page.parents.Entries(held); it.Valid(); it.Next()) {
    MarkUpwards(held, it.sptep());
  }
}

void UnsyncMarks::NoteLinked(const MmuWriteLocked& held, SpteSlot& parent,
                             const ShadowPageState& page) {
  MMU_DCHECK(held.held());
  if (!IsUnsync(page) && !HasUnsyncChildren(page)) return;
  MutexLock lock(mu_);
  MarkUpwards(held, parent);
}

void UnsyncMarks::ClearUnsync(const MmuWriteLocked& held,
                              ShadowPageState& page) {
  MMU_DCHECK(held.held());
  if (!IsUnsync(page)) return;
  page.unsync.store(false, std::memory_order_relaxed);
  ShadowCounters::Subtract(counters_.shadow.mmu_unsync);
}

void UnsyncMarks::Collect(const MmuWriteLocked& held, ShadowPageState& top,
                          UnsyncBatch& batch) {
  MMU_DCHECK(held.held());
  if (!HasUnsyncChildren(top)) return;
  MutexLock lock(mu_);
  CollectBelow(top, batch);
}

void UnsyncMarks::CollectBelow(ShadowPageState& page, UnsyncBatch& batch) {
  const auto& bitmap = page.unsync_child_bitmap;
  for (size_t i = bitmap._Find_first(); i < bitmap.size();
       i = bitmap._Find_next(i)) {
    const Spte spte = page.EntryAt(static_cast<int>(i)).Load();
    if (spte.IsPresentTable(page.level())) {
      ShadowPageState& child = ChildAt(spte);
      if (HasUnsyncChildren(child)) CollectBelow(child, batch);
      if (batch.Full()) return;
      if (IsUnsync(child)) batch.Add(child);
      if (IsUnsync(child) || HasUnsyncChildren(child)) continue;
    }
    ClearBit(page, static_cast<int>(i));
  }
}

}  // namespace mmu
