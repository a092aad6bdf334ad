#include "mmu_core/vm/inspect/audit.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/types/optional.h"
#include "absl/types/span.h"
#include "mmu_core/base/format.h"
#include "mmu_core/base/slot_number.h"
#include "mmu_core/memory/frame_lender.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/mmu/audit_sink.h"
#include "mmu_core/mmu/guest_table_audit.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/tlb/paging_structure_cache.h"
#include "mmu_core/tlb/tlb_flush.h"
#include "mmu_core/tlb/vcpu_tlb.h"
#include "mmu_core/vm/core/vm_core.h"
#include "mmu_core/vm/inspect/log_audit.h"
#include "mmu_core/vm/inspect/slot_audit.h"
#include "mmu_core/vm/inspect/table_audit.h"
#include "mmu_core/vm/vcpu/audited_tlb.h"
#include "mmu_core/vm/vcpu/stage2_vcpu.h"
#include "mmu_core/vm/vcpu/vcpu.h"

namespace mmu {
namespace {

// Limits the report: a list of thousands of places is of no use.
constexpr size_t kMaxViolations = 64;

class Auditor final : public AuditSink {
 public:
  Auditor(VmCore& vm, const std::vector<std::unique_ptr<Vcpu>>& vcpus)
      : vm_(vm), vcpus_(vcpus), tables_(vcpus, *this) {}

  AuditReport Run() {
    MutexLock slots(vm_.slots.slots_lock);
    // The TLBs are compared as of the flush.
    vm_.unflushed_resets.WaitForNone();
    for (const auto& vcpu : vcpus_) {
      if (vcpu->dirty_ring() == nullptr) continue;
      vcpu->dirty_ring()->ForEach([this](DirtyGfn page) {
        in_rings_.insert({page.slot, page.offset});
      });
    }
    for (const auto& vcpu : vcpus_) {
      if (vcpu->pml() == nullptr) continue;
      vcpu->pml()->ForEach(
          [this](Gpa gpa) { in_cpu_logs_.insert(ToGfn(gpa)); });
    }
    AuditLogs(vm_, vcpus_, *this);
    AuditMemslots(vm_, *this);
    MmuWriteLocked lock(vm_.mmu_lock, LockOp::kAge);
    RcuReadGuard rcu;
    vm_.mmus.Audit(lock, *this);
    guest_tables_.Check(*this);
    tables_.Check(vm_);
    if (!vm_.nx_huge_pages.mitigated() && vm_.nx_huge_pages.count() != 0) {
      Violation(8, "%d tables are listed as executed without the mitigation",
                vm_.nx_huge_pages.count());
    }
    for (const auto& vcpu : vcpus_) {
      if (vcpu->HasUnaskedFlushes()) {
        Violation(6, "vCPU %d has flushes in its queue and no request for them",
                  vcpu->index());
      }
      for (const AuditedTlb& tlb : vcpu->AuditedTlbs()) CheckTlb(*vcpu, tlb);
      if (vcpu->stage2() != nullptr) {
        vcpu->stage2()->AuditTlb(vcpu->PendingFlushesForAudit(), *this);
      }
    }
    return report_;
  }

 private:
  // The checks of a leaf that apply to every MMU.
  void CheckLeaf(const AuditedLeaf& leaf) override {
    ++report_.leafs_checked;
    const GfnRange pages = GfnRange::Of(leaf.gfn, leaf.pages);
    const Memslot* slot = vm_.slots.Active(leaf.as_id).FindByGfn(leaf.gfn);
    if (slot == nullptr || !slot->range().Contains(pages)) {
      Violation(4, "the leaf at gfn 0x%x level %d is not inside a memslot",
                leaf.gfn.value(), ToInt(leaf.level));
      return;
    }
    guest_tables_.AddLeaf(leaf);
    CheckMapping(leaf, *slot);
    if (slot->dirty_log_enabled() && leaf.writable && !CpuLogsNextWrite(leaf) &&
        !leaf.write_noted) {
      if (const auto clean = FirstUnlogged(*slot, pages); clean.has_value()) {
        Violation(5, "gfn 0x%x of slot %d is writable (level %d) and clean",
                  clean->value(), slot->id, ToInt(leaf.level));
      }
    }
  }

  // INV-4 and INV-8.
  void CheckMapping(const AuditedLeaf& leaf, const Memslot& slot) {
    const Gfn gfn = leaf.gfn;
    if (leaf.pfn != slot.PfnOf(gfn)) {
      Violation(4, "gfn 0x%x level %d maps frame 0x%x, its memslot has 0x%x",
                gfn.value(), ToInt(leaf.level), leaf.pfn.value(),
                slot.PfnOf(gfn).value());
    }
    if (!slot.backing->all_writable()) CheckFrames(leaf, slot);
    if (leaf.level > leaf.max_level(slot, gfn, vm_.config.max_page_level) &&
        !MayStayHuge(leaf, slot)) {
      Violation(4, "gfn 0x%x is mapped at level %d, which its slot forbids",
                gfn.value(), ToInt(leaf.level));
    }
    if (leaf.level > Level::k4K && vm_.nx_huge_pages.mitigated() &&
        leaf.executable) {
      Violation(8, "gfn 0x%x is executable at level %d", gfn.value(),
                ToInt(leaf.level));
    }
    if (slot.readonly() && leaf.writable) {
      Violation(4, "gfn 0x%x of a read-only slot is writable", gfn.value());
    }
    if (leaf.host_writable && !slot.IsHostWritable(gfn)) {
      Violation(4, "gfn 0x%x is host-writable, the host lets it be read only",
                gfn.value());
    }
  }

  // If a guest's table comes to lie in a page that any MMU maps huge, the page
  // stays huge, but loses W for good (SHD-09). The table must be the only
  // reason against a huge page.
  bool MayStayHuge(const AuditedLeaf& leaf, const Memslot& slot) const {
    const Level max_level =
        std::min(slot.backing->host_page_level(), vm_.config.max_page_level);
    if (leaf.level > max_level) return false;
    const uint32_t tables = slot.lpage_info->Disallows(leaf.gfn, leaf.level);
    return tables != 0 && !leaf.mmu_writable &&
           slot.lpage_info->Count(leaf.gfn, leaf.level) == tables;
  }

  // What is mapped has a frame (memory/frame_lender.h).
  void CheckFrames(const AuditedLeaf& leaf, const Memslot& slot) {
    const Gfn end = leaf.gfn + leaf.pages;
    for (Gfn gfn = leaf.gfn; gfn < end; gfn += 1) {
      if (slot.StateOf(gfn) != FrameState::kMissing) continue;
      Violation(4, "gfn 0x%x is mapped, but the host has no page there",
                gfn.value());
      return;
    }
  }

  // slots_lock is held from the beginning to the end of the audit, in Run.
  void CheckNonPresent(const AuditedNonPresent& entry) override
      ABSL_NO_THREAD_SAFETY_ANALYSIS {
    AuditMmioSpte(vm_, entry, *this);
  }
  void CheckGuestTable(const AuditedGuestTable& table) override {
    guest_tables_.AddTable(table);
  }
  void CheckTable(const ShadowPage& page) override { tables_.Add(page); }
  absl::optional<int> RootReferences(const PageTable& table) override {
    return tables_.TakeRootReferences(table);
  }
  void ForEachSlot(absl::FunctionRef<void(const Memslot&)> fn) override {
    for (int as_id = 0; as_id < vm_.slots.address_spaces(); ++as_id) {
      for (const Memslot* slot : vm_.slots.Active(as_id).slots()) fn(*slot);
    }
  }

  void CountTables(uint64_t tables) override {
    report_.tables_checked += tables;
  }
  void CountShadowPages(uint64_t pages) override {
    report_.shadow_pages_checked += pages;
  }

  void Report(int invariant, std::string what) override {
    if (report_.violations.size() >= kMaxViolations) return;
    report_.violations.push_back(Format("INV-%d: %s", invariant, what));
  }

  bool CpuLogsNextWrite(const AuditedLeaf& leaf) const {
    return vm_.cpu_dirty_log_entries() != 0 && leaf.cpu_logs_next_write;
  }

  // A writable page of a logged slot must be in the log already: its next write
  // will not be noticed. In flight is not enough: such a page is being copied,
  // and a write since its clear made it open (INV-10). With initially_set a
  // huge page may be writable as long as none of its pages was cleared.
  std::optional<Gfn> FirstUnlogged(const Memslot& slot, GfnRange pages) {
    const std::shared_ptr<VmDirtyLog> log =
        slot.as_id == 0 ? vm_.dirty_log.Get() : nullptr;
    const bool in_log = log != nullptr && log->log.Find(slot.id) != nullptr;
    for (Gfn gfn = pages.start; gfn < pages.end; gfn += 1) {
      const uint64_t page = slot.PageOf(gfn);
      if (in_rings_.contains({PackSlot(slot.as_id, slot.id), page})) {
        continue;
      }
      if (slot.as_id == 0 && in_cpu_logs_.contains(gfn)) continue;
      const bool dirty = in_log ? log->log.IsToBeCleared(slot.id, page)
                         : slot.dirty_bitmap != nullptr
                             ? slot.dirty_bitmap->Test(page)
                             : false;
      if (!dirty) return gfn;
    }
    return std::nullopt;
  }

  void CheckTlb(const Vcpu& vcpu, const AuditedTlb& audited) {
    audited.tlb.ForEachIn(audited.tag, [&](const TlbEntry& entry) {
      const GfnRange gfns = GfnRange::Of(entry.gfn, PagesPer(entry.level));
      if (AnyPending(audited, [&](const TlbFlush& flush) {
            return flush.gfns.Overlaps(gfns);
          })) {
        return;
      }
      ++report_.tlb_entries_checked;
      if (entry.root_id != audited.root_id) {
        // A guest may load another CR3 with the same PCID and keep the PCID's
        // translations.
        if (audited.tag.IsLinear()) {
          CheckKept(vcpu, audited, entry);
          return;
        }
        Violation(6, "vCPU %d translates page 0x%x as a former root did",
                  vcpu.index(), entry.base_page.value());
        return;
      }
      const PageNumber end = entry.base_page + PagesPer(entry.level);
      // The tables may map smaller pages than the entry; then all of them
      // together must agree with the entry.
      for (PageNumber page = entry.base_page; page < end;
           page = RoundDown(page, leaf_level_) + PagesPer(leaf_level_)) {
        if (!AgreesAt(vcpu, audited, entry, page)) return;
      }
    });
    audited.tlb.ForEachTableIn(audited.tag, [&](const CachedTable& cached) {
      CheckCachedTable(vcpu, audited, cached);
    });
  }

  // The tables that gave this translation may be gone. The memslot and its log
  // must agree with it all the same.
  void CheckKept(const Vcpu& vcpu, const AuditedTlb& audited,
                 const TlbEntry& entry) {
    for (uint64_t i = 0; i < PagesPer(entry.level); ++i) {
      const PageNumber page = entry.base_page + i;
      const Gfn gfn = entry.gfn + i;
      const Memslot* slot = vm_.slots.Active(0).FindByGfn(gfn);
      if (slot == nullptr || slot->PfnOf(gfn) != entry.pfn + i) {
        Violation(6,
                  "vCPU %d translates page 0x%x to frame 0x%x, which gfn 0x%x "
                  "does not have",
                  vcpu.index(), page.value(), (entry.pfn + i).value(),
                  gfn.value());
        return;
      }
      if (!NoticesWrite(vcpu, audited, entry, page, slot)) return;
    }
  }

  // Whether a flush of this MMU that the vCPU has not carried out yet is one
  // that `drops` says.
  template <typename Fn>
  static bool AnyPending(const AuditedTlb& audited, Fn drops) {
    const absl::Span<const TlbFlush> flushes = audited.pending.span();
    return std::any_of(flushes.begin(), flushes.end(),
                       [&](const TlbFlush& flush) {
                         return flush.Covers(audited.mmu) && drops(flush);
                       });
  }

  // A walk that begins at a cached table must begin where a walk from the root
  // would arrive. Entries that lead to a table grant all rights, so those that
  // were cached with it need no comparison.
  void CheckCachedTable(const Vcpu& vcpu, const AuditedTlb& audited,
                        const CachedTable& cached) {
    const GfnRange gfns = GfnRange::Of(Gfn(cached.first.value()),
                                       PagesPer(ParentOf(cached.level)));
    if (AnyPending(audited, [&](const TlbFlush& flush) {
          return flush.CoversTables() && (audited.pages == TlbPages::kOther ||
                                          flush.gfns.Overlaps(gfns));
        })) {
      return;
    }
    ++report_.cached_tables_checked;
    // As for translations.
    if (cached.root_id != audited.root_id && audited.tag.IsLinear()) return;
    const PageTable* table = &audited.table;
    for (Level level = audited.level; level > cached.level;
         level = ChildOf(level)) {
      const Spte spte = table->entries[IndexOf(cached.first, level)].Load();
      if (!spte.IsPresentTable(level)) {
        Violation(6,
                  "vCPU %d walks from a table of level %d for page 0x%x, "
                  "which is not linked there",
                  vcpu.index(), ToInt(cached.level), cached.first.value());
        return;
      }
      table = TableOf(spte);
    }
    if (table != cached.table) {
      Violation(6,
                "vCPU %d walks from another table of level %d for page 0x%x "
                "than the root does",
                vcpu.index(), ToInt(cached.level), cached.first.value());
    }
  }

  bool AgreesAt(const Vcpu& vcpu, const AuditedTlb& audited,
                const TlbEntry& entry, PageNumber page) {
    const SpteFormat& format = audited.format;
    const Spte spte = LeafFor(audited, page);
    if (!spte.IsPresent()) {
      Violation(6, "vCPU %d translates page 0x%x, which nothing maps",
                vcpu.index(), page.value());
      return false;
    }
    const Pfn in_tables = spte.pfn() + (page - RoundDown(page, leaf_level_));
    const Pfn in_tlb = entry.pfn + (page - entry.base_page);
    if (in_tables != in_tlb) {
      Violation(6,
                "vCPU %d translates page 0x%x to frame 0x%x, the tables to "
                "0x%x",
                vcpu.index(), page.value(), in_tlb.value(), in_tables.value());
      return false;
    }
    // Without A/D bits ageing clears W, which only a write restores, without a
    // flush (AGE-16); the MMU still allows writes.
    const bool aged_writable = !format.has_ad() && format.IsMmuWritable(spte);
    if (entry.writable && !spte.IsWritable() && !aged_writable) {
      Violation(6, "vCPU %d may write page 0x%x, the tables forbid it",
                vcpu.index(), page.value());
      return false;
    }
    // The next write would go unnoticed.
    if (entry.writable && entry.dirty_set && format.has_ad() &&
        !format.IsDirty(spte)) {
      Violation(6, "vCPU %d takes page 0x%x for dirty, the tables do not",
                vcpu.index(), page.value());
      return false;
    }
    // On a second stage only the MMU takes X away. Ageing without A/D bits
    // saves it.
    if (audited.pages == TlbPages::kGuestPhysical && entry.executable &&
        !format.IsExecutable(format.IsAccessTracked(spte)
                                 ? format.WithAccessRestored(spte)
                                 : spte)) {
      Violation(6, "vCPU %d may execute page 0x%x, the tables forbid it",
                vcpu.index(), page.value());
      return false;
    }
    const Gfn gfn = entry.gfn + (page - entry.base_page);
    return NoticesWrite(vcpu, audited, entry, page,
                        vm_.slots.Active(0).FindByGfn(gfn));
  }

  // If the entry still allows writes, the log of `slot`, which may be null,
  // must not depend on the contrary. The processor notes writes only where it
  // sets D.
  bool NoticesWrite(const Vcpu& vcpu, const AuditedTlb& audited,
                    const TlbEntry& entry, PageNumber page,
                    const Memslot* slot) {
    const Gfn gfn = entry.gfn + (page - entry.base_page);
    const bool cpu_logs = audited.cpu_logs && !entry.dirty_set;
    if (entry.writable && !cpu_logs && slot != nullptr &&
        slot->dirty_log_enabled() &&
        FirstUnlogged(*slot, GfnRange::Of(gfn, 1)).has_value()) {
      Violation(6, "vCPU %d may write page 0x%x, and gfn 0x%x is clean",
                vcpu.index(), page.value(), gfn.value());
      return false;
    }
    return true;
  }

  Spte LeafFor(const AuditedTlb& audited, PageNumber page) {
    const PageTable* table = &audited.table;
    leaf_level_ = audited.level;
    for (;;) {
      const Spte spte = table->entries[IndexOf(page, leaf_level_)].Load();
      if (!spte.IsPresent()) return Spte();
      if (spte.IsLeaf(leaf_level_)) return spte;
      table = TableOf(spte);
      leaf_level_ = ChildOf(leaf_level_);
    }
  }

  VmCore& vm_;
  const std::vector<std::unique_ptr<Vcpu>>& vcpus_;
  AuditReport report_;
  TableAudit tables_;
  GuestTableAudit guest_tables_;
  std::set<std::pair<uint32_t, uint64_t>> in_rings_;  // slot, offset
  std::set<Gfn> in_cpu_logs_;
  Level leaf_level_ = Level::k4K;
};

}  // namespace

AuditReport AuditVm(VmCore& vm,
                    const std::vector<std::unique_ptr<Vcpu>>& vcpus) {
  return Auditor(vm, vcpus).Run();
}

}  // namespace mmu
