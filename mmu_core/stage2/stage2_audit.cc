#include "mmu_core/stage2/stage2_audit.h"

#include <cstdint>
#include <set>

#include "mmu_core/base/address.h"
#include "mmu_core/base/arm_geometry.h"
#include "mmu_core/mmu/leaf_count.h"
#include "mmu_core/stage2/s2_descriptor.h"
#include "mmu_core/stage2/s2_format.h"
#include "mmu_core/stage2/s2_page.h"
#include "mmu_core/stats/labels.h"

namespace mmu {
namespace {

template <TableGeometry G>
class Stage2Auditor {
 public:
  Stage2Auditor(const Stage2State<G>& state, AuditSink& sink)
      : state_(state), sink_(sink) {}

  void Run() {
    const S2Shape& shape = state_.options.shape;
    for (int i = 0; i < shape.root_tables; ++i) {
      const Gfn first(static_cast<uint64_t>(i) * G::kEntriesPerTable *
                      PagesPer<G>(shape.start_level));
      CheckTable(state_.root->tables()[i], shape.start_level, first, nullptr);
    }
    sink_.CountTables(used_.size());
    const MmuCounters& counters = state_.parts.counters;
    if (counters.Tables() != used_.size()) {
      sink_.Violation(1, "%d tables are counted, a walk finds %d",
                      counters.Tables(), used_.size());
    }
    leafs_.Compare(MmuKind::kStage2, counters, sink_);
    if (S2Pool<G>::Process().tables_out() < used_.size()) {
      sink_.Violation(19, "%d tables of a pool are in use, but it counts %d",
                      used_.size(), S2Pool<G>::Process().tables_out());
    }
  }

 private:
  // Returns the number of entries that are not empty. `page` describes the
  // table; null: a table of the root.
  int CheckTable(S2Table<G>& table, Level level, Gfn first, S2Page<G>* page) {
    int filled = 0;
    for (int i = 0; i < G::kEntriesPerTable; ++i) {
      S2Slot& slot = table.entries[i];
      const S2Descriptor descriptor = slot.Load();
      const Gfn gfn = first + static_cast<uint64_t>(i) * PagesPer<G>(level);
      filled += descriptor != S2Descriptor();
      if (!descriptor.IsPresent()) {
        if (descriptor == S2Descriptor()) continue;
        sink_.Violation(3, "gfn 0x%x level %d is left locked: 0x%x",
                        gfn.value(), ToInt(level), descriptor.bits());
      } else if (descriptor.IsLeaf(level)) {
        CheckLeaf(descriptor, level, gfn);
      } else {
        CheckLink(slot, descriptor, level, gfn, page);
      }
    }
    return filled;
  }

  void CheckLeaf(S2Descriptor descriptor, Level level, Gfn gfn) {
    leafs_.Add(level);
    S2Descriptor made =
        MakeS2Leaf(descriptor.pfn(), level,
                   descriptor.IsWritable() ? S2Write::kYes : S2Write::kNo);
    // DBM is for pages.
    if (state_.options.NotesWrites() && ToInt(level) == 1 &&
        descriptor.NotesWrites()) {
      made = made.With(s2_bits::kDirtyBitModifier);
    }
    const bool aligned =
        (descriptor.pfn().value() & (PagesPer<G>(level) - 1)) == 0;
    // AF comes and goes.
    if (level > state_.options.max_leaf_level || !aligned ||
        descriptor.With(s2_bits::kAccessFlag) != made) {
      sink_.Violation(3,
                      "gfn 0x%x level %d has descriptor 0x%x, which is none "
                      "of stage 2",
                      gfn.value(), ToInt(level), descriptor.bits());
    }
    sink_.CheckLeaf(
        {.gfn = gfn,
         .pages = PagesPer<G>(level),
         .level = level,
         .pfn = descriptor.pfn(),
         .writable = descriptor.IsWritable(),
         .host_writable = descriptor.IsWritable() || descriptor.NotesWrites(),
         .executable = descriptor.IsExecutable(),
         .write_noted = descriptor.HasNotedWrite(),
         .max_level = &MaxMappingLevelS2<G>});
  }

  void CheckLink(S2Slot& slot, S2Descriptor descriptor, Level level, Gfn gfn,
                 S2Page<G>* parent) {
    S2Page<G>& child = *S2Updater<G>::PageBelow(descriptor);
    if (child.table != S2Paging<G>::TableOf(descriptor)) {
      sink_.Violation(1, "gfn 0x%x level %d points at no table", gfn.value(),
                      ToInt(level));
      return;
    }
    if (!used_.insert(&child).second) {
      sink_.Violation(19, "the table of gfn 0x%x level %d has two uses",
                      gfn.value(), ToInt(child.level));
      return;
    }
    if (child.parent_entry != &slot || child.parent != parent ||
        child.gfn != gfn || child.level != ChildOf(level)) {
      sink_.Violation(1,
                      "the table at gfn 0x%x below level %d is not described "
                      "as hanging there",
                      gfn.value(), ToInt(level));
    }
    const int filled = CheckTable(*child.table, ChildOf(level), gfn, &child);
    const int references = child.references.load(std::memory_order_relaxed);
    if (references != 1 + filled) {
      sink_.Violation(7,
                      "the table at gfn 0x%x below level %d has %d references, "
                      "but %d entries",
                      gfn.value(), ToInt(level), references, filled);
    }
  }

  const Stage2State<G>& state_;
  AuditSink& sink_;
  LeafCount leafs_;
  std::set<const S2Page<G>*> used_;
};

}  // namespace

template <TableGeometry G>
void AuditStage2(const MmuWriteLocked&, const Stage2State<G>& state,
                 AuditSink& sink) {
  Stage2Auditor<G>(state, sink).Run();
}

template void AuditStage2(const MmuWriteLocked&, const Stage2State<Arm4K>&,
                          AuditSink&);
template void AuditStage2(const MmuWriteLocked&, const Stage2State<Arm16K>&,
                          AuditSink&);
template void AuditStage2(const MmuWriteLocked&, const Stage2State<Arm64K>&,
                          AuditSink&);

}  // namespace mmu
