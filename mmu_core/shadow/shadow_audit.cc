#include "mmu_core/shadow/shadow_audit.h"

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>

#include "mmu_core/base/format.h"
#include "mmu_core/base/level.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/paging/page_role.h"
#include "mmu_core/paging/spte.h"
#include "mmu_core/rmap/rmap.h"
#include "mmu_core/shadow/shadow_page_state.h"
#include "mmu_core/shadow/shadow_vm.h"
#include "mmu_core/stats/shadow_counters.h"
#include "mmu_core/sync/rcu.h"

namespace mmu {
namespace {

class Auditor {
 public:
  Auditor(const MmuWriteLocked& lock, const ShadowPageSet& pages,
          const ShadowParts& parts)
      : lock_(lock), pages_(pages), parts_(parts) {}

  ShadowAuditReport Run() {
    RcuReadGuard rcu;  // covers all uses of memslots below
    for (ShadowPageState* page = pages_.active().oldest(); page != nullptr;
         page = page->newer) {
      active_.insert(page);
    }
    for (ShadowPageState* page : active_) NotePage(*page);
    for (ShadowPageState* page : active_) CheckPage(*page);
    CheckTrackers();
    CheckCounters();
    return std::move(report_);
  }

 private:
  using Place = std::pair<int, Gfn>;  // address space, gfn

  template <typename... Args>
  void Violation(int invariant, const ShadowPageState& page,
                 const absl::FormatSpec<Args...>& format, const Args&... args) {
    report_.violations.push_back(
        Format("INV-%d: page of gfn 0x%x level %d: ", invariant,
               page.gfn().value(), ToInt(page.level())) +
        Format(format, args...));
  }

  void NotePage(const ShadowPageState& page) {
    ++report_.pages_checked;
    const PageRole role = page.page->role;
    int times = 0;
    for (const ShadowPageState* other = pages_.FirstInChain(page.gfn());
         other != nullptr; other = other->hash_next) {
      times += other == &page;
    }
    if (times != 1) Violation(1, page, "is in the hash %d times", times);
    if (page.IsInvalid()) Violation(1, page, "is active, but invalid");
    if (!identities_.insert({page.gfn().value(), role.word(), page.generation})
             .second) {
      Violation(1, page, "is there twice");
    }
    if (page.unsync) ++unsync_;
    if (!role.HasGuestPtes()) return;
    const Place place(role.as_id(), page.gfn());
    if (role.level() > Level::k4K) {
      ++trackers_[place];
    } else if (!page.unsync) {
      protected_.insert(place);
    }
  }

  void CheckPage(ShadowPageState& page) {
    const Level level = page.level();
    for (int i = 0; i < kEntriesPerTable; ++i) {
      const SpteSlot& slot = page.EntryAt(i);
      const Spte spte = slot.Load();
      if (spte.IsPresentTable(level)) CheckLink(page, slot, spte);
      if (spte.IsPresentLeaf(level)) CheckLeaf(page, slot, spte);
    }
    for (RmapIterator it = page.parents.Entries(lock_); it.Valid(); it.Next()) {
      CheckParent(page, it.sptep());
    }
    CheckUnsync(page);
  }

  // The number of times that `slot` is in the list.
  static int Times(RmapIterator it, const SpteSlot& slot) {
    int times = 0;
    for (; it.Valid(); it.Next()) times += &it.sptep() == &slot;
    return times;
  }

  void CheckLink(const ShadowPageState& page, const SpteSlot& slot, Spte spte) {
    const ShadowPageState& child = ChildAt(spte);
    if (active_.count(const_cast<ShadowPageState*>(&child)) == 0) {
      Violation(2, page, "entry %d leads to no active page",
                IndexInTable(slot));
      return;
    }
    const int times = Times(child.parents.Entries(lock_), slot);
    if (child.level() != ChildOf(page.level()) || times != 1) {
      Violation(2, page,
                "entry %d leads to a page of level %d that has it as a parent "
                "%d times",
                IndexInTable(slot), ToInt(child.level()), times);
    }
  }

  void CheckParent(const ShadowPageState& page, const SpteSlot& slot) {
    const Spte spte = slot.Load();
    if (!spte.IsPresentTable(PageHolding(slot).level()) ||
        TableOf(spte) != page.page->table) {
      Violation(2, page, "has a parent that does not point at it");
    }
  }

  void CheckLeaf(const ShadowPageState& page, const SpteSlot& slot, Spte spte) {
    const Level level = page.level();
    const int index = IndexInTable(slot);
    const std::string_view why =
        level > kMaxLeafLevel ? "too large"
                              : parts_.FormatOf(page).WhyIllegal(spte, level);
    if (!why.empty()) {
      Violation(3, page, "entry %d is 0x%x: %s", index, spte.bits(),
                std::string(why));
      return;
    }
    ++report_.leafs[ToInt(level)];
    const Gfn gfn = page.TranslationOf(index).gfn;
    const int as_id = page.page->role.as_id();
    const Memslot* const slot_of_gfn = parts_.vm.SlotOf(as_id, gfn);
    if (slot_of_gfn == nullptr) {
      Violation(3, page, "entry %d maps gfn 0x%x, which is in no slot", index,
                gfn.value());
      return;
    }
    const RmapHead& head = slot_of_gfn->shadow_rmaps()->Head(gfn, level);
    if (const int times = Times(head.Entries(lock_), slot); times != 1) {
      Violation(3, page, "entry %d is in the rmap of gfn 0x%x %d times", index,
                gfn.value(), times);
    }
    CheckRmap(page, head, gfn);
    if (parts_.FormatOf(page).IsMmuWritable(spte) || spte.IsWritable()) {
      CheckWritable(page, index, Place(as_id, gfn));
    }
  }

  // Checks the rmap of a leaf of `page` for `gfn`.
  void CheckRmap(const ShadowPageState& page, const RmapHead& head, Gfn gfn) {
    for (RmapIterator it = head.Entries(lock_); it.Valid(); it.Next()) {
      const ShadowPageState& other = PageHolding(it.sptep());
      if (it.sptep().Load().IsPresentLeaf(other.level()) &&
          other.level() == page.level()) {
        continue;
      }
      Violation(3, page, "the rmap of gfn 0x%x has something else in it",
                gfn.value());
    }
  }

  // Searches the tracked gfns for one that the leaf maps, instead of checking
  // each gfn of the leaf: few gfns are tracked, and a leaf may map many.
  void CheckWritable(const ShadowPageState& page, int index, Place first) {
    const Place end(first.first, first.second + PagesPer(page.level()));
    const auto tracked = trackers_.lower_bound(first);
    const auto guarded = protected_.lower_bound(first);
    if ((tracked != trackers_.end() && tracked->first < end) ||
        (guarded != protected_.end() && *guarded < end)) {
      Violation(4, page, "entry %d maps a guest's table writable", index);
    }
  }

  void CheckUnsync(const ShadowPageState& page) {
    const PageRole role = page.page->role;
    if (page.unsync && (role.level() != Level::k4K || !role.HasGuestPtes())) {
      Violation(5, page, "must not be unsync");
    }
    if (page.unsync_children != page.unsync_child_bitmap.count()) {
      Violation(5, page, "has %d bits set, but counts %d",
                page.unsync_child_bitmap.count(), page.unsync_children.load());
    }
    if (!page.unsync && page.unsync_children == 0) return;
    for (RmapIterator it = page.parents.Entries(lock_); it.Valid(); it.Next()) {
      const ShadowPageState& parent = PageHolding(it.sptep());
      if (!parent.unsync_child_bitmap.test(IndexInTable(it.sptep()))) {
        Violation(5, page,
                  "is unsync or above an unsync page, and a parent has no bit");
      }
    }
  }

  void CheckTrackers() {
    for (const auto& [place, count] : trackers_) {
      const auto& [as_id, gfn] = place;
      const Memslot* const slot = parts_.vm.SlotOf(as_id, gfn);
      const int counted =
          slot == nullptr ? -1 : slot->shadow_rmaps()->WriteTrackers(gfn);
      if (counted == count) continue;
      report_.violations.push_back(
          Format("INV-4: gfn 0x%x has %d write trackers, but %d pages",
                 gfn.value(), counted, count));
    }
  }

  void CheckCounters() {
    const ShadowCounters& counters = parts_.counters.shadow;
    const uint64_t unsync = ShadowCounters::Get(counters.mmu_unsync);
    if (unsync != unsync_) {
      report_.violations.push_back(Format(
          "INV-6: mmu_unsync is %d, but %d pages are unsync", unsync, unsync_));
    }
    const uint64_t in_use = ShadowCounters::Get(counters.mmu_shadow_pages);
    if (in_use < report_.pages_checked) {
      report_.violations.push_back(
          Format("INV-6: mmu_shadow_pages is %d, but %d are active", in_use,
                 report_.pages_checked));
    }
  }

  const MmuWriteLocked& lock_;
  const ShadowPageSet& pages_;
  const ShadowParts& parts_;
  ShadowAuditReport report_;
  std::set<ShadowPageState*> active_;
  std::set<std::tuple<uint64_t, uint32_t, int>> identities_;
  std::map<Place, int> trackers_;  // pages above level 1 with guest PTEs
  std::set<Place> protected_;      // pages of level 1 that are not unsync
  uint64_t unsync_ = 0;
};

}  // namespace

ShadowAuditReport AuditShadowPages(const MmuWriteLocked& lock,
                                   const ShadowPageSet& pages,
                                   const ShadowParts& parts) {
  return Auditor(lock, pages, parts).Run();
}

}  // namespace mmu
