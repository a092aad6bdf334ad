#include "mmu_core/shadow/shadow_roots.h"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/guest_paging/cpu_role.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/paging/spte.h"
#include "mmu_core/paging/spte_format.h"
#include "mmu_core/paging/spte_slot.h"
#include "mmu_core/shadow/shadow_caches.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/sync/rcu.h"

namespace mmu {
namespace {

uint64_t NextRootId() {
  static std::atomic<uint64_t> last{0};
  return last.fetch_add(1, std::memory_order_relaxed) + 1;
}

// An empty table: nothing is ever mapped in it (ROLE-24).
PageTable* DummyRoot() {
  static PageTable table;
  return &table;
}

// Without guest tables, one root serves all of the guest's CR3s.
Gfn TableOfRoot(const GuestContext& guest, const GuestRoot& where) {
  return guest.root_role.IsDirect() ? Gfn(0) : where.table;
}

// Whether a guest's table can be at `gfn`: only if the gfn has memory with
// contents.
bool HasSlot(ShadowVm& vm, int as_id, Gfn gfn) {
  RcuReadGuard rcu;
  const Memslot* const slot = vm.SlotOf(as_id, gfn);
  return slot != nullptr && !slot->invalid() &&
         (slot->backing == nullptr || slot->backing->has_contents());
}

bool MayHaveUnsync(const ShadowPageState& page) {
  return page.unsync_children.load(std::memory_order_relaxed) != 0;
}

}  // namespace

ShadowRoots::ShadowRoots(const Parts& parts)
    : parts_(parts), spare_tables_(parts.tables) {}

ShadowRoots::~ShadowRoots() {
  MMU_CHECK(table_ == nullptr);
  for (const Root& root : roots_) MMU_CHECK(root.page == nullptr);
  for (ShadowPage* const table : own_tables_) {
    if (table != nullptr) spare_tables_.Put(table);
  }
}

bool ShadowRoots::IsObsolete() const {
  bool obsolete = table_ == nullptr;
  ForEachCurrent([&](ShadowPageState& page) { obsolete |= IsObsolete(page); });
  return obsolete;
}

ShadowPageState* ShadowRoots::TopPage(uint64_t address) const {
  if (roots_[0].page != nullptr) return roots_[0].page;
  return pae_roots_[address >> 30 & (kPaeRoots - 1)];
}

template <typename Fn>
void ShadowRoots::ForEachCurrent(Fn fn) const {
  if (roots_[0].page != nullptr) fn(*roots_[0].page);
  for (ShadowPageState* const page : pae_roots_) {
    if (page != nullptr) fn(*page);
  }
}

absl::Status ShadowRoots::Load(GuestContext& guest, const GuestRoot& where,
                               MmuCost* cost) {
  if (!SwitchTo(guest, where, cost)) return LoadNew(guest, where, cost);
  Sync(guest, cost);
  return absl::OkStatus();
}

// The race with a fast zap of the whole VM (RACE-36). A kept root is checked
// without mmu_lock, so it may become obsolete right afterwards:
//
//   vCPU                                fast zap
//   V1 kept root is not obsolete        Z1 mmu_lock: next generation, all
//   V2 make it the current root            vCPUs are asked to drop obsolete
//   V3 access section: any requests?       roots
//                                       Z2 tears down the old pages, releases
//                                          mmu_lock in between
//
// If Z1 comes after V1, the request exists before Z1 ends, and V3 finds it or
// Z1 has waited for the access to end (tlb/vcpu_gate.h): the vCPU drops the
// root before it walks it. A fault that was under way meanwhile finds under
// mmu_lock that its root is obsolete. A root loaded after Z1, also while Z2
// does not hold the lock, is of the new generation: no lookup finds older
// pages.
bool ShadowRoots::SwitchTo(const GuestContext& guest, const GuestRoot& where,
                           MmuCost* cost) {
  pcid_ = where.pcid;
  Dropped dropped;
  // The PAE roots, and the dummy root, are not kept (SHD-54).
  if (roots_[0].page == nullptr) DropCurrent(dropped);

  auto place = roots_.end();
  if (!HasPaeRoots(guest.cpu_role(), guest.root_role)) {
    const Gfn table = TableOfRoot(guest, where);
    place = std::find_if(roots_.begin(), roots_.end(), [&](const Root& root) {
      return root.page != nullptr && root.table == table &&
             root.pcid == where.pcid && root.role == guest.root_role &&
             !IsObsolete(*root.page);
    });
  }
  const bool found = place != roots_.end();
  AtHook(HookPoint::kRootFoundToUse);
  if (!found) {
    // The place for the next root: an empty one, else that of the oldest root.
    place = std::find_if(roots_.begin(), roots_.end(),
                         [](const Root& root) { return root.page == nullptr; });
    if (place == roots_.end()) --place;
    Drop(*place, dropped);
  }
  std::rotate(roots_.begin(), place, place + 1);
  MakeCurrent(roots_[0]);
  Put(dropped, cost);
  return found;
}

bool ShadowRoots::MakeAvailable(const MmuWriteLocked& lock, MmuCost* cost) {
  if (parts_.pages.MakeAvailable(lock, cost)) return true;
  ZappedPages zapped;
  for (size_t i = 1; i < roots_.size(); ++i) {
    if (roots_[i].page != nullptr) {
      parts_.pages.zap().PutRoot(lock, *roots_[i].page, zapped);
    }
    roots_[i] = {};
  }
  parts_.pages.zap().Commit(lock, zapped, cost);
  return parts_.pages.MakeAvailable(lock, cost);
}

absl::Status ShadowRoots::LoadNew(GuestContext& guest, const GuestRoot& where,
                                  MmuCost* cost) {
  MMU_CHECK(table_ == nullptr);
  const CpuRole cpu_role = guest.cpu_role();
  const PageRole role = guest.root_role;
  absl::Status status = guest.caches.TopUpForFault(
      guest.has_guest_tables() ? IndirectPages::kPossible
                               : IndirectPages::kNone);
  if (status.ok() && HasPaeRoots(cpu_role, role)) {
    status = AllocateOwnTables(1 + ScratchTables(cpu_role, role));
  }
  if (!status.ok()) return status;

  bool available = false;
  {
    MmuWriteLocked lock(parts_.mmu_lock, LockOp::kFault, cost);
    available = MakeAvailable(lock, cost);
    if (available) LoadFrom(lock, guest, where, cost);
  }
  if (!available) return parts_.pages.Exhausted();
  // Pages below may be older, and unsync.
  Sync(guest, cost);
  return absl::OkStatus();
}

void ShadowRoots::LoadFrom(const MmuWriteLocked& lock, GuestContext& guest,
                           const GuestRoot& where, MmuCost* cost) {
  const CpuRole cpu_role = guest.cpu_role();
  const PageRole role = guest.root_role;
  const Gfn table = TableOfRoot(guest, where);
  const bool starts_at_table = !role.IsDirect() && cpu_role.guest_level() != 3;
  if (starts_at_table && !HasSlot(parts_.shadow.vm, role.as_id(), table)) {
    table_ = DummyRoot();
    level_ = role.level();
    id_ = NextRootId();
  } else if (HasPaeRoots(cpu_role, role)) {
    LoadPaeRoots(lock, guest, where, cost);
  } else {
    roots_[0] = {.page = &GetRoot(lock, guest, table, role, cost),
                 .table = table,
                 .pcid = where.pcid,
                 .role = role,
                 .id = NextRootId()};
    MakeCurrent(roots_[0]);
  }
}

void ShadowRoots::LoadPaeRoots(const MmuWriteLocked& lock, GuestContext& guest,
                               const GuestRoot& where, MmuCost* cost) {
  const CpuRole cpu_role = guest.cpu_role();
  const PageRole role = guest.root_role;
  const SpteFormat& format = parts_.shadow.format;
  PageTable* table = own_tables_[0]->table;
  for (int i = 0; i < kPaeRoots; ++i) {
    Spte spte = Spte::Initial();
    const std::optional<RootPage> root =
        PaeRootPage(cpu_role, role, where.table, where.pdptes, i);
    // ROLE-21. A root that does not read the guest's table needs no slot for
    // it.
    if (root.has_value() &&
        (root->role.IsDirect() ||
         HasSlot(parts_.shadow.vm, role.as_id(), root->gfn))) {
      ShadowPageState& page = GetRoot(lock, guest, root->gfn, root->role, cost);
      pae_roots_[static_cast<size_t>(i)] = &page;
      spte = format.MakeTable(reinterpret_cast<uint64_t>(page.page->table));
    }
    table->entries[static_cast<size_t>(i)].Store(spte);
  }
  // The tables above the array: one entry each (ROLE-23).
  for (int i = 1; i <= ScratchTables(cpu_role, role); ++i) {
    PageTable* const above = own_tables_[static_cast<size_t>(i)]->table;
    above->entries[0].Store(
        format.MakeTable(reinterpret_cast<uint64_t>(table)));
    table = above;
  }
  table_ = table;
  level_ = role.level();
  id_ = NextRootId();
}

ShadowPageState& ShadowRoots::GetRoot(const MmuWriteLocked& lock,
                                      GuestContext& guest, Gfn gfn,
                                      PageRole role, MmuCost* cost) {
  ShadowPageState& page =
      parts_.pages
          .GetOrCreate(
              lock, gfn, role, guest.caches,
              [&](ShadowPageState& unsync) {
                return parts_.sync.SyncPage(lock, guest, unsync, cost);
              },
              cost)
          .page;
  parts_.pages.zap().GetRoot(lock, page);
  return page;
}

absl::Status ShadowRoots::AllocateOwnTables(int count) {
  for (int i = 0; i < count; ++i) {
    ShadowPage*& own = own_tables_[static_cast<size_t>(i)];
    if (own != nullptr) continue;
    if (absl::Status status = spare_tables_.TopUp(1, count - i); !status.ok()) {
      return status;
    }
    own = spare_tables_.Take();
    // This table is not a shadow page, so it has no state.
    own->role = PageRole();
    own->state = nullptr;
    own->table->FillUnpublished(Spte::Initial());
  }
  return absl::OkStatus();
}

void ShadowRoots::MustSync(uint16_t pcid) {
  for (size_t i = 1; i < roots_.size(); ++i) {
    if (roots_[i].page != nullptr && roots_[i].pcid == pcid) {
      roots_[i].must_sync = true;
    }
  }
}

void ShadowRoots::Sync(GuestContext& guest, MmuCost* cost) {
  roots_[0].must_sync = false;
  if (guest.root_role.IsDirect()) return;
  // The thread that made a page unsync marked the page and its ancestors before
  // the guest could write the table without a fault (SHD-36), and the guest
  // wrote before it asked for this sync. So loads from here on see the marks of
  // all writes that the guest may rely on (SHD-37, RACE-33).
  std::atomic_thread_fence(std::memory_order_acquire);
  bool unsync = false;
  ForEachCurrent([&](ShadowPageState& page) { unsync |= MayHaveUnsync(page); });
  if (!unsync) return;
  MmuWriteLocked lock(parts_.mmu_lock, LockOp::kFault, cost);
  ForEachCurrent([&](ShadowPageState& page) {
    const bool done = parts_.sync.SyncChildren(
        lock, guest, page, ShadowSync::MayYield::kYes, cost);
    MMU_CHECK(done);
  });
}

void ShadowRoots::InvalidateAddressOf(GuestContext& guest,
                                      std::optional<uint16_t> pcid,
                                      uint64_t address, MmuCost* cost) {
  if (guest.root_role.IsDirect()) return;
  // The current root's top page first; a kept root's top page is its root page.
  std::array<ShadowPageState*, 1 + kPrevious> tops;
  tops[0] = TopPage(address);
  for (size_t i = 1; i < tops.size(); ++i) tops[i] = roots_[i].page;
  for (size_t i = 0; pcid.has_value() && i < tops.size(); ++i) {
    if ((i == 0 ? pcid_ : roots_[i].pcid) != *pcid) tops[i] = nullptr;
  }

  std::atomic_thread_fence(std::memory_order_acquire);  // as in Sync
  const auto unsync = [](const ShadowPageState* top) {
    return top != nullptr && MayHaveUnsync(*top);
  };
  if (std::none_of(tops.begin(), tops.end(), unsync)) return;
  MmuWriteLocked lock(parts_.mmu_lock, LockOp::kFault, cost);
  ZappedPages zapped;
  TlbFlushBatch flush(parts_.shadow.tlb, FlushScope::kRange,
                      FlushReason::kUnsync);
  for (ShadowPageState* const top : tops) {
    if (unsync(top) && !IsObsolete(*top)) {
      InvalidateIn(lock, guest, *top, address, zapped, flush, cost);
    }
  }
  parts_.pages.zap().Commit(lock, zapped, flush, cost);
}

void ShadowRoots::InvalidateIn(const MmuWriteLocked& lock, GuestContext& guest,
                               ShadowPageState& top, uint64_t address,
                               ZappedPages& zapped, TlbFlushBatch& flush,
                               MmuCost* cost) {
  const Gfn frame(address >> kPageShift);
  ShadowPageState* page = &top;
  for (;;) {
    const Level level = page->level();
    const int index = IndexOf(frame, level);
    SpteSlot& sptep = page->EntryAt(index);
    const Spte spte = sptep.Load();
    if (page->unsync.load(std::memory_order_relaxed)) {
      const GfnRange range = spte.IsPresent() ? ShadowLinks::RangeOf(sptep)
                                              : GfnRange::Of(page->gfn(), 1);
      const PageSync result =
          parts_.sync.SyncEntry(lock, guest, *page, index, cost);
      if (result == PageSync::kFailed) {
        parts_.pages.zap().ZapSpte(lock, sptep, zapped);
      }
      if (result != PageSync::kUnchanged) flush.Add(range);
      return;
    }
    if (!MayHaveUnsync(*page) || !spte.IsPresentTable(level)) return;
    page = &ChildAt(spte);
  }
}

void ShadowRoots::FreeObsolete(MmuCost* cost) {
  Dropped dropped;
  if (roots_[0].page == nullptr || IsObsolete(*roots_[0].page)) {
    DropCurrent(dropped);
  }
  for (Root& root : roots_) {
    if (root.page != nullptr && IsObsolete(*root.page)) Drop(root, dropped);
  }
  Put(dropped, cost);
}

void ShadowRoots::FreeOf(Gfn table, MmuCost* cost) {
  Dropped dropped;
  // A root without a page is not kept, so it is not worth a comparison.
  if (roots_[0].page == nullptr || roots_[0].table == table) {
    DropCurrent(dropped);
  }
  for (Root& root : roots_) {
    if (root.page != nullptr && root.table == table) Drop(root, dropped);
  }
  Put(dropped, cost);
}

std::vector<ShadowRoots::Kept> ShadowRoots::KeptRoots() const {
  std::vector<Kept> kept;
  for (size_t i = 1; i < roots_.size(); ++i) {
    const Root& root = roots_[i];
    if (root.page == nullptr || IsObsolete(*root.page)) continue;
    kept.push_back({.table = *root.page->page->table,
                    .level = root.page->level(),
                    .id = root.id,
                    .pcid = root.pcid});
  }
  return kept;
}

void ShadowRoots::FreeAll(MmuCost* cost) {
  Dropped dropped;
  DropCurrent(dropped);
  for (Root& root : roots_) Drop(root, dropped);
  Put(dropped, cost);
}

void ShadowRoots::MakeCurrent(const Root& root) {
  if (root.page == nullptr) {
    table_ = nullptr;
    return;
  }
  table_ = root.page->page->table;
  level_ = root.page->level();
  id_ = root.id;
}

void ShadowRoots::DropCurrent(Dropped& dropped) {
  Drop(roots_[0], dropped);
  for (ShadowPageState*& page : pae_roots_) {
    if (page != nullptr) dropped.push_back(page);
    page = nullptr;
  }
  table_ = nullptr;
}

void ShadowRoots::Drop(Root& root, Dropped& dropped) {
  if (root.page != nullptr) dropped.push_back(root.page);
  root = {};
}

void ShadowRoots::Put(const Dropped& dropped, MmuCost* cost) {
  if (dropped.empty()) return;
  MmuWriteLocked lock(parts_.mmu_lock, LockOp::kFault, cost);
  ZappedPages zapped;
  for (ShadowPageState* const page : dropped) {
    parts_.pages.zap().PutRoot(lock, *page, zapped);
  }
  parts_.pages.zap().Commit(lock, zapped, cost);
}

}  // namespace mmu
