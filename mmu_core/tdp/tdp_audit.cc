#include "mmu_core/tdp/tdp_audit.h"

#include <cstdint>
#include <set>
#include <string>
#include <string_view>

#include "absl/types/optional.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/level.h"
#include "mmu_core/mmu/leaf_count.h"
#include "mmu_core/paging/shadow_page.h"
#include "mmu_core/paging/spte.h"
#include "mmu_core/paging/spte_format.h"
#include "mmu_core/paging/spte_slot.h"
#include "mmu_core/paging/table_pool.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/tdp/tdp_root.h"

namespace mmu {
namespace {

class TdpAuditor {
 public:
  TdpAuditor(const TdpMmu& tdp, AuditSink& sink)
      : tdp_(tdp), format_(tdp.format()), sink_(sink) {}

  void Run(const MmuCounters& counters, const NxHugePageList& listed) {
    NoteListed(listed);
    const RootList& roots = tdp_.roots();
    for (TdpRoot* root = roots.FirstRcu(RootFilter::kAll, RootList::kAnyAsId);
         root != nullptr;
         root = roots.NextRcu(root, RootFilter::kAll, RootList::kAnyAsId)) {
      CheckRoot(*root);
    }
    sink_.CountTables(tables_);
    if (counters.Tables() != tables_) {
      sink_.Violation(1, "%d tables are counted, a walk finds %d",
                      counters.Tables(), tables_);
    }
    leafs_by_level_.Compare(MmuKind::kTdp, counters, sink_);
    CheckListed(listed);
  }

 private:
  void NoteListed(const NxHugePageList& listed) {
    uint64_t on_list = 0;
    listed.ForEach([&](const ShadowPage& page) {
      ++on_list;
      on_nx_list_.insert(&page);
    });
    if (on_list != listed.count() || on_nx_list_.size() != on_list) {
      sink_.Violation(8, "%d tables are counted as listed, %d are on the list",
                      listed.count(), on_list);
    }
  }

  // After the walk, which has taken each listed table that it found out of
  // on_nx_list_.
  void CheckListed(const NxHugePageList& listed) {
    if (listed.count() != nx_listed_) {
      sink_.Violation(8, "%d tables are listed as executed, a walk finds %d",
                      listed.count(), nx_listed_);
    }
    if (!on_nx_list_.empty()) {
      sink_.Violation(8, "%d tables are listed as executed, but not linked",
                      on_nx_list_.size());
    }
  }

  // A root has one reference of each vCPU that runs on it and, until it is
  // taken to be zapped, one of the MMU (TDP-03, TDP-06).
  void CheckReferences(const TdpRoot& root) {
    const absl::optional<int> of_vcpus = sink_.RootReferences(*root.table());
    if (!of_vcpus.has_value()) return;
    const bool of_mmu = !root.IsInvalid() || root.IsZapScheduled();
    const int expected = *of_vcpus + (of_mmu ? 1 : 0);
    if (root.references() == expected) return;
    sink_.Violation(7, "root %d has %d references, but vCPUs and MMU have %d",
                    root.id(), root.references(), expected);
  }

  void CheckRoot(const TdpRoot& root) {
    CheckReferences(root);
    sink_.CheckTable(*TablePool::DescriptorOf(root.table()));
    if (!root.IsInvalid() && !valid_roles_.insert(root.role().word()).second) {
      sink_.Violation(7, "root %d has the role of another valid root",
                      root.id());
    }
    const uint64_t leafs_before = leafs_;
    CheckTable(root, *TablePool::DescriptorOf(root.table()));
    if (root.IsInvalid() && leafs_ != leafs_before) {
      sink_.Violation(7, "invalid root %d still maps %d leafs", root.id(),
                      leafs_ - leafs_before);
    }
  }

  void CheckTable(const TdpRoot& root, const ShadowPage& page) {
    const Level level = page.role.level();
    if (level == Level::k4K) CheckLeafCount(page);
    for (int i = 0; i < kEntriesPerTable; ++i) {
      SpteSlot& slot = page.table->entries[i];
      const Spte spte = slot.Load();
      const Gfn gfn = page.gfn + static_cast<uint64_t>(i) * PagesPer(level);
      if (spte.IsFrozen()) {
        sink_.Violation(3, "frozen entry at gfn 0x%x level %d", gfn.value(),
                        ToInt(level));
        continue;
      }
      if (!spte.IsPresent()) {
        if (spte == Spte::Initial()) continue;
        sink_.CheckNonPresent(
            {.as_id = root.as_id(), .gfn = gfn, .level = level, .spte = spte});
        continue;
      }
      if (const std::string_view why = format_.WhyIllegal(spte, level);
          !why.empty()) {
        sink_.Violation(3, "gfn 0x%x level %d spte 0x%x: %s", gfn.value(),
                        ToInt(level), spte.bits(), std::string(why));
      }
      if (spte.IsLeaf(level)) {
        ++leafs_;
        leafs_by_level_.Add(level);
        AuditedLeaf leaf =
            AuditedLeaf::Of(root.as_id(), gfn, level, spte, format_);
        // For a huge leaf the CPU would log only one page.
        leaf.cpu_logs_next_write =
            level == Level::k4K && !format_.IsDirty(spte);
        sink_.CheckLeaf(leaf);
      } else {
        CheckLink(root, slot, gfn, level, spte);
      }
    }
  }

  // An ageing may count the table meanwhile, but no leaf comes or goes.
  void CheckLeafCount(const ShadowPage& page) {
    int leafs = 0;
    for (const SpteSlot& slot : page.table->entries) {
      leafs += slot.Load().IsPresent() ? 1 : 0;
    }
    const int known = page.leaf_count.KnownOr(leafs);
    if (known == leafs) return;
    sink_.Violation(2,
                    "the table of gfn 0x%x is known to have %d leafs, not %d",
                    page.gfn.value(), known, leafs);
  }

  void CheckLink(const TdpRoot& root, SpteSlot& slot, Gfn gfn, Level level,
                 Spte spte) {
    ++tables_;
    const ShadowPage& child = *TablePool::DescriptorOf(TableOf(spte));
    if (child.table != TableOf(spte)) {
      sink_.Violation(1, "gfn 0x%x level %d points at no table", gfn.value(),
                      ToInt(level));
      return;
    }
    if (child.parent != &slot || child.gfn != gfn ||
        child.role !=
            TablePool::DescriptorOf(TableHolding(slot))->role.Child()) {
      sink_.Violation(
          1,
          "the table at gfn 0x%x below level %d is not described as "
          "hanging there",
          gfn.value(), ToInt(level));
    }
    sink_.CheckTable(child);
    CheckNxMarks(child);
    CheckTable(root, child);
  }

  void CheckNxMarks(const ShadowPage& page) {
    nx_listed_ += page.nx_listed;
    const bool on_list = on_nx_list_.erase(&page) != 0;
    if (on_list == page.nx_listed &&
        (!on_list || page.nx_huge_page_disallowed.load())) {
      return;
    }
    sink_.Violation(8,
                    "the table of gfn 0x%x level %d is listed as executed, "
                    "or marked so, but not both",
                    page.gfn.value(), page.role.level_number());
  }

  const TdpMmu& tdp_;
  const SpteFormat& format_;
  AuditSink& sink_;
  uint64_t tables_ = 0;
  uint64_t leafs_ = 0;
  LeafCount leafs_by_level_;
  uint64_t nx_listed_ = 0;  // marked as listed
  std::set<const ShadowPage*> on_nx_list_;
  std::set<uint32_t> valid_roles_;
};

}  // namespace

void AuditTdp(const MmuWriteLocked&, const TdpMmu& tdp,
              const MmuCounters& counters, const NxHugePageList& listed,
              AuditSink& sink) {
  TdpAuditor(tdp, sink).Run(counters, listed);
}

}  // namespace mmu
