#include "mmu_core/shadow/shadow_audit.h"

#include <bitset>
#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "absl/types/optional.h"
#include "mmu_core/base/format.h"
#include "mmu_core/base/level.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/mmu/leaf_count.h"
#include "mmu_core/paging/page_role.h"
#include "mmu_core/paging/shadow_page.h"
#include "mmu_core/paging/spte.h"
#include "mmu_core/paging/table_pool.h"
#include "mmu_core/rmap/rmap.h"
#include "mmu_core/rmap/slot_rmaps.h"
#include "mmu_core/shadow/shadow_page_set.h"
#include "mmu_core/shadow/shadow_page_state.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/stats/shadow_counters.h"

namespace mmu {
namespace {

class ShadowAuditor {
 public:
  ShadowAuditor(const MmuWriteLocked& lock, const ShadowPages& pages,
                const ShadowParts& parts, AuditSink& sink)
      : lock_(lock), pages_(pages), parts_(parts), sink_(sink) {}

  void Run(const NxHugePageList* listed) {
    NotePages();
    CheckHash();
    for (const ShadowPageState* page : in_order_) CheckParents(*page);
    sink_.ForEachSlot([this](const Memslot& slot) { CheckRmaps(slot); });
    for (const ShadowPageState* page : in_order_) CheckPage(*page);
    CheckCounters();
    if (listed != nullptr) CheckListed(*listed);
    leafs_.Compare(MmuKind::kShadow, parts_.counters, sink_);
    sink_.CountShadowPages(active_.size());
  }

 private:
  // The entries of a page that were found in lists.
  struct Entries {
    std::bitset<kEntriesPerTable> in_parents;  // of the page linked there
    std::bitset<kEntriesPerTable> in_rmap;
  };

  template <typename... Args>
  void Violation(int invariant, const ShadowPageState& page,
                 const absl::FormatSpec<Args...>& format, const Args&... args) {
    sink_.Report(invariant, Format("page of gfn 0x%x level %d: ",
                                   page.gfn().value(), ToInt(page.level())) +
                                Format(format, args...));
  }

  bool IsActive(const ShadowPageState& page) const {
    return active_.count(&page) != 0;
  }
  // What was found of the page that contains `slot`; null if it is no active
  // page.
  Entries* EntriesHolding(const SpteSlot& slot) {
    const auto at =
        active_.find(TablePool::DescriptorOf(TableHolding(slot))->state);
    return at == active_.end() ? nullptr : &at->second;
  }

  // --- Pages. ---

  void NotePages() {
    const ShadowPageSet& set = pages_.set();
    const ShadowPageState* older = nullptr;
    for (const ShadowPageState* page = set.active().oldest(); page != nullptr;
         page = page->newer) {
      if (!active_.try_emplace(page).second) {
        Violation(1, *page, "is on the list of active pages twice");
        return;
      }
      in_order_.push_back(page);
      if (page->older != older) {
        Violation(1, *page, "is not linked to the page before it on the list");
      }
      older = page;
      NotePage(*page);
    }
    if (set.active().newest() != older) {
      sink_.Report(1, "the list of active pages does not end at the newest");
    }
  }

  void NotePage(const ShadowPageState& page) {
    const PageRole role = page.page->role;
    if (page.page->state != &page) {
      Violation(1, page, "is not what its table's descriptor leads to");
    }
    if (page.IsInvalid()) {
      Violation(1, page, "is active, but invalid");
    } else if (pages_.set().IsObsolete(page)) {
      Violation(13, page, "is active, but of the former generation");
    }
    if (!identities_.insert({page.gfn().value(), role.word(), page.generation})
             .second) {
      Violation(1, page, "is there twice");
    }
    sink_.CheckTable(*page.page);
    CheckRoot(page);
    if (page.unsync) ++unsync_;
    if (!role.HasGuestPtes()) return;
    ++indirect_;
    sink_.CheckGuestTable({.as_id = role.as_id(),
                           .gfn = page.gfn(),
                           .level = role.level(),
                           .unsync = page.unsync});
  }

  void CheckRoot(const ShadowPageState& page) {
    const absl::optional<int> references =
        sink_.RootReferences(*page.page->table);
    if (!references.has_value() || *references == page.root_count) return;
    Violation(7, page, "counts %d references as a root, but vCPUs have %d",
              page.root_count, *references);
  }

  // The hash has the active pages, and the invalid roots that are in use.
  void CheckHash() {
    std::unordered_set<const ShadowPageState*> found;
    for (int chain = 0; chain < ShadowPageSet::kChains; ++chain) {
      for (const ShadowPageState* page = pages_.set().FirstInChain(chain);
           page != nullptr; page = page->hash_next) {
        if (!found.insert(page).second) {
          Violation(1, *page, "is in the hash 2 times");
          break;
        }
        if (ShadowPageSet::ChainOf(page->gfn()) != chain) {
          Violation(1, *page, "is in the hash of another gfn");
        }
        if (!IsActive(*page)) CheckInvalidRoot(*page);
      }
    }
    for (const ShadowPageState* page : in_order_) {
      if (found.count(page) == 0) {
        Violation(1, *page, "is in the hash 0 times");
      }
    }
  }

  void CheckInvalidRoot(const ShadowPageState& page) {
    ++invalid_roots_;
    sink_.CheckTable(*page.page);
    CheckRoot(page);
    if (!page.IsInvalid() || page.root_count == 0) {
      Violation(7, page, "is neither active nor an invalid root in use");
    }
    if (!page.parents.empty()) {
      Violation(7, page, "is an invalid root, but has parents");
    }
    for (int i = 0; i < kEntriesPerTable; ++i) {
      if (!page.EntryAt(i).Load().IsPresent()) continue;
      Violation(7, page, "is an invalid root, but still maps");
      break;
    }
  }

  // --- Lists of SPTEs. ---

  void CheckParents(const ShadowPageState& page) {
    if (const std::string why = page.parents.WhyMalformed(lock_);
        !why.empty()) {
      Violation(11, page, "its parent list is malformed: %s", why);
      return;
    }
    for (RmapIterator it = page.parents.Entries(lock_); it.Valid(); it.Next()) {
      const SpteSlot& slot = it.sptep();
      const Spte spte = slot.Load();
      Entries* const entries = EntriesHolding(slot);
      if (entries == nullptr ||
          !spte.IsPresentTable(PageHolding(slot).level()) ||
          TableOf(spte) != page.page->table) {
        Violation(1, page, "has a parent that does not point at it");
        continue;
      }
      if (entries->in_parents.test(IndexInTable(slot))) {
        Violation(1, page, "has one parent twice");
      }
      entries->in_parents.set(IndexInTable(slot));
    }
  }

  void CheckRmaps(const Memslot& slot) {
    const SlotRmaps* const rmaps = slot.shadow_rmaps();
    if (rmaps == nullptr) return;
    for (const Level level : {Level::k4K, Level::k2M, Level::k1G}) {
      rmaps->ForEachRmap(level, [&](Gfn block, const RmapHead& head) {
        CheckRmap(slot, level, block, head);
      });
    }
  }

  void CheckRmap(const Memslot& memslot, Level level, Gfn block,
                 const RmapHead& head) {
    if (const std::string why = head.WhyMalformed(lock_); !why.empty()) {
      sink_.Violation(11, "the rmap of gfn 0x%x level %d is malformed: %s",
                      block.value(), ToInt(level), why);
      return;
    }
    for (RmapIterator it = head.Entries(lock_); it.Valid(); it.Next()) {
      const SpteSlot& slot = it.sptep();
      const int index = IndexInTable(slot);
      Entries* const entries = EntriesHolding(slot);
      if (entries == nullptr || !IsLeafOf(slot, memslot.as_id, level, block)) {
        sink_.Violation(11,
                        "the rmap of gfn 0x%x level %d has something else "
                        "in it",
                        block.value(), ToInt(level));
        continue;
      }
      if (entries->in_rmap.test(index)) {
        Violation(11, PageHolding(slot), "entry %d is in an rmap twice", index);
      }
      entries->in_rmap.set(index);
    }
  }

  // Whether the SPTE, of an active page, is a leaf that maps `block`.
  static bool IsLeafOf(const SpteSlot& slot, int as_id, Level level,
                       Gfn block) {
    const ShadowPageState& page = PageHolding(slot);
    return slot.Load().IsPresentLeaf(page.level()) && page.level() == level &&
           page.page->role.as_id() == as_id &&
           RoundDown(page.TranslationOf(IndexInTable(slot)).gfn, level) ==
               block;
  }

  // --- Entries. ---

  void CheckPage(const ShadowPageState& page) {
    const Level level = page.level();
    const Entries& entries = active_.at(&page);
    for (int i = 0; i < kEntriesPerTable; ++i) {
      const Spte spte = page.EntryAt(i).Load();
      if (spte == Spte::Initial()) continue;
      if (!spte.IsPresent()) {
        CheckNonPresent(page, i, spte);
        continue;
      }
      if (level > kMaxLeafLevel && spte.IsLeaf(level)) {
        Violation(3, page, "entry %d is 0x%x: too large", i, spte.bits());
        continue;
      }
      if (const std::string_view why =
              parts_.FormatOf(page).WhyIllegal(spte, level);
          !why.empty()) {
        Violation(3, page, "entry %d is 0x%x: %s", i, spte.bits(),
                  std::string(why));
      }
      if (spte.IsLeaf(level)) {
        CheckLeaf(page, i, spte, entries.in_rmap.test(i));
      } else {
        CheckLink(page, i, spte, entries.in_parents.test(i));
      }
    }
    CheckUnsync(page);
  }

  void CheckNonPresent(const ShadowPageState& page, int index, Spte spte) {
    const PageRole role = page.page->role;
    absl::optional<Gfn> gfn;
    if (!role.HasGuestPtes() && !role.IsPassthrough()) {
      gfn = page.TranslationOf(index).gfn;
    }
    sink_.CheckNonPresent({.as_id = role.as_id(),
                           .gfn = gfn,
                           .level = page.level(),
                           .spte = spte});
  }

  void CheckLink(const ShadowPageState& page, int index, Spte spte,
                 bool is_in_parents) {
    const ShadowPage& child = *TablePool::DescriptorOf(TableOf(spte));
    if (child.state == nullptr || !IsActive(*child.state)) {
      Violation(1, page, "entry %d leads to no active page", index);
      return;
    }
    if (child.role.level() != ChildOf(page.level())) {
      Violation(1, page, "entry %d leads to a page of level %d", index,
                child.role.level_number());
    }
    if (!is_in_parents) {
      Violation(1, page,
                "entry %d leads to a page that does not have it as a "
                "parent",
                index);
    }
  }

  void CheckLeaf(const ShadowPageState& page, int index, Spte spte,
                 bool is_in_rmap) {
    const Gfn gfn = page.TranslationOf(index).gfn;
    leafs_.Add(page.level());
    if (!is_in_rmap) {
      Violation(11, page, "entry %d is in the rmap of gfn 0x%x 0 times", index,
                gfn.value());
    }
    sink_.CheckLeaf(AuditedLeaf::Of(page.page->role.as_id(), gfn, page.level(),
                                    spte, parts_.FormatOf(page)));
  }

  void CheckUnsync(const ShadowPageState& page) {
    const PageRole role = page.page->role;
    if (page.unsync && (role.level() != Level::k4K || !role.HasGuestPtes())) {
      Violation(12, page, "must not be unsync");
    }
    if (page.unsync_children != page.unsync_child_bitmap.count()) {
      Violation(12, page, "has %d bits set, but counts %d",
                page.unsync_child_bitmap.count(), page.unsync_children.load());
    }
    if (!page.unsync && page.unsync_children == 0) return;
    for (RmapIterator it = page.parents.Entries(lock_); it.Valid(); it.Next()) {
      const ShadowPageState& parent = PageHolding(it.sptep());
      if (!parent.unsync_child_bitmap.test(IndexInTable(it.sptep()))) {
        Violation(12, page,
                  "is unsync or above an unsync page, and a parent has no bit");
      }
    }
  }

  // --- The whole MMU. ---

  void CheckCounters() {
    const uint64_t unsync =
        ShadowCounters::Get(parts_.counters.shadow.mmu_unsync);
    if (unsync != unsync_) {
      sink_.Violation(12, "mmu_unsync is %d, but %d pages are unsync", unsync,
                      unsync_);
    }
    const uint64_t in_use = active_.size() + invalid_roots_;
    if (pages_.in_use() != in_use) {
      sink_.Violation(13, "mmu_shadow_pages is %d, but %d are in use",
                      pages_.in_use(), in_use);
    }
    const uint64_t indirect = pages_.tracking().indirect_pages();
    if (indirect != indirect_) {
      sink_.Violation(13,
                      "%d pages are counted as shadows of guests' tables, "
                      "but %d are",
                      indirect, indirect_);
    }
  }

  void CheckListed(const NxHugePageList& listed) {
    uint64_t found = 0;
    listed.ForEach([&](const ShadowPage& page) {
      ++found;
      if (page.state != nullptr && IsActive(*page.state) && page.nx_listed &&
          page.nx_huge_page_disallowed.load()) {
        return;
      }
      sink_.Violation(8,
                      "the shadow page of gfn 0x%x level %d is listed as "
                      "executed, but is not active or not marked",
                      page.gfn.value(), page.role.level_number());
    });
    uint64_t marked = 0;
    for (const ShadowPageState* page : in_order_) {
      marked += page->page->nx_listed;
    }
    if (found != listed.count() || found != marked) {
      sink_.Violation(8,
                      "%d shadow pages are counted as listed, %d are on the "
                      "list, %d are marked so",
                      listed.count(), found, marked);
    }
  }

  const MmuWriteLocked& lock_;
  const ShadowPages& pages_;
  const ShadowParts& parts_;
  AuditSink& sink_;
  std::unordered_map<const ShadowPageState*, Entries> active_;
  std::vector<const ShadowPageState*> in_order_;  // oldest first
  std::set<std::tuple<uint64_t, uint32_t, int>> identities_;
  LeafCount leafs_;
  uint64_t unsync_ = 0;
  uint64_t indirect_ = 0;
  uint64_t invalid_roots_ = 0;
};

}  // namespace

void AuditShadow(const MmuWriteLocked& lock, const ShadowPages& pages,
                 const ShadowParts& parts, const NxHugePageList* listed,
                 AuditSink& sink) {
  ShadowAuditor(lock, pages, parts, sink).Run(listed);
}

}  // namespace mmu
