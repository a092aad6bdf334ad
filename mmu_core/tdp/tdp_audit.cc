#include "mmu_core/tdp/tdp_audit.h"

#include <cstdint>
#include <string>
#include <string_view>

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
    if (listed.count() != nx_listed_) {
      sink_.Violation(8, "%d tables are listed as executed, a walk finds %d",
                      listed.count(), nx_listed_);
    }
  }

 private:
  void CheckRoot(const TdpRoot& root) {
    if (RootList::RefCountForTest(root) < 1) {
      sink_.Violation(7, "root %d is listed without a reference", root.id());
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
    for (int i = 0; i < kEntriesPerTable; ++i) {
      SpteSlot& slot = page.table->entries[i];
      const Spte spte = slot.Load();
      const Gfn gfn = page.gfn + static_cast<uint64_t>(i) * PagesPer(level);
      if (spte.IsFrozen()) {
        sink_.Violation(3, "frozen entry at gfn 0x%x level %d", gfn.value(),
                        ToInt(level));
        continue;
      }
      if (!spte.IsPresent()) continue;
      if (const std::string_view why = format_.WhyIllegal(spte, level);
          !why.empty()) {
        sink_.Violation(3, "gfn 0x%x level %d spte 0x%x: %s", gfn.value(),
                        ToInt(level), spte.bits(), std::string(why));
      }
      if (spte.IsLeaf(level)) {
        ++leafs_;
        leafs_by_level_.Add(level);
        sink_.CheckLeaf({.as_id = root.as_id(),
                         .gfn = gfn,
                         .level = level,
                         .spte = spte,
                         .format = format_,
                         .known_to_cpu_logs = true});
      } else {
        CheckLink(root, slot, gfn, level, spte);
      }
    }
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
    nx_listed_ += child.nx_listed;
    CheckTable(root, child);
  }

  const TdpMmu& tdp_;
  const SpteFormat& format_;
  AuditSink& sink_;
  uint64_t tables_ = 0;
  uint64_t leafs_ = 0;
  LeafCount leafs_by_level_;
  uint64_t nx_listed_ = 0;
};

}  // namespace

void AuditTdp(const MmuWriteLocked&, const TdpMmu& tdp,
              const MmuCounters& counters, const NxHugePageList& listed,
              AuditSink& sink) {
  TdpAuditor(tdp, sink).Run(counters, listed);
}

}  // namespace mmu
