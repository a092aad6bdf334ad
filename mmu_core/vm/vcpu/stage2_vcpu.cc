#include "mmu_core/vm/vcpu/stage2_vcpu.h"

#include <cstdint>
#include <memory>
#include <utility>

#include "absl/base/optimization.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/format.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/memory/guest_memory_access.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/stage2/any_granule.h"
#include "mmu_core/stage2/s2_page.h"
#include "mmu_core/stage2/s2_tlb.h"
#include "mmu_core/stage2/s2_walk.h"
#include "mmu_core/stage2/stage2_state.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/tlb/tlb_options.h"
#include "mmu_core/vm/core/vm_core.h"
#include "mmu_core/vm/vcpu/access_loop.h"
#include "mmu_core/vm/vcpu/stage2_fault_handler.h"
#include "mmu_core/vm/vcpu/vcpu.h"

namespace mmu {
namespace {

// All vCPUs of a VM run with one VMID, and no other VM uses their TLBs.
constexpr uint16_t kVmid = 1;

template <TableGeometry G>
class Stage2VcpuOf final : public Stage2Vcpu {
 public:
  Stage2VcpuOf(VmCore& vm, Vcpu& vcpu)
      : vm_(vm),
        vcpu_(vcpu),
        stage2_(vm.stage2->template of<G>()),
        // A processor may walk whenever it likes. One whose TLB is precise does
        // so at each access, so that a missed break or TLBI has an effect.
        speculates_(vm.config.tlb.flushes == TlbOptions::Flushes::kPrecise),
        tlb_(TlbOf(vm, vcpu.index(), MmuKind::kStage2)),
        tables_(S2Pool<G>::Process()),
        memory_(vm.slots, /*as_id=*/0, vcpu.dirty_ring()) {
    tlb_.Select(kVmid);
  }

  AccessOutcome Access(Gpa gpa, AccessKind kind, uint64_t* word) override {
    return RunAccess(vm_, vcpu_, Engine(*this, gpa, kind, word));
  }

  void Flush(const PendingFlushes& pending) override {
    for (const TlbFlush& flush : pending.span()) {
      if (flush.Covers(MmuKind::kStage2)) tlb_.Flush(flush);
    }
  }
  void FlushAll() override { tlb_.FlushAll(); }
  void DropRandom(uint64_t random) override { tlb_.DropRandom(random); }
  void AuditTlb(const PendingFlushes& pending, AuditSink& sink) override;

 private:
  class Engine;

  VmCore& vm_;
  Vcpu& vcpu_;
  Stage2State<G>& stage2_;
  const bool speculates_;
  S2Tlb<G> tlb_;
  S2Cache<G> tables_;
  GuestMemoryAccess memory_;
};

// One access (AccessEngine of access_loop.h).
template <TableGeometry G>
class Stage2VcpuOf<G>::Engine {
 public:
  Engine(Stage2VcpuOf& cpu, Gpa gpa, AccessKind kind, uint64_t* word)
      : cpu_(cpu), gpa_(gpa), kind_(kind), word_(word) {}

  const TlbEntry* Lookup() {
    if (ABSL_PREDICT_FALSE(cpu_.speculates_)) Speculate();
    conflict_ = cpu_.tlb_.HasConflict(page());
    if (ABSL_PREDICT_FALSE(conflict_)) return nullptr;
    const TlbEntry* entry = cpu_.tlb_.Lookup(page());
    if (entry == nullptr) {
      entry = cpu_.tlb_.LookupStage2(page());
      if (entry != nullptr && Vcpu::CanUse(*entry, kind_)) {
        cpu_.tlb_.InsertCombined(*entry);
      }
    }
    return entry != nullptr && Vcpu::CanUse(*entry, kind_) ? entry : nullptr;
  }
  void Perform(const TlbEntry& entry) {
    Vcpu::Perform(entry, gpa_, kind_, word_);
  }
  bool HasRoot() const { return true; }
  absl::Status LoadRoot() { return absl::OkStatus(); }
  S2WalkResult Walk() {
    if (ABSL_PREDICT_FALSE(conflict_)) return {};
    if (ABSL_PREDICT_FALSE(cpu_.speculates_)) {
      // A processor may judge an access by the rights that it has cached.
      const TlbEntry* const cached = cpu_.tlb_.LookupStage2(page());
      if (cached != nullptr && Forbids(*cached)) {
        return {.kind = S2WalkResult::Kind::kPermissionFault,
                .entry = {},
                .level = cached->level};
      }
    }
    const S2WalkResult walk = WalkStage2(cpu_.stage2_, cpu_.vm_.memory, page(),
                                         kind_, cpu_.tlb_.tables());
    if (ABSL_PREDICT_FALSE(walk.noted_write)) CountNotedWrite();
    return walk;
  }
  void Insert(const TlbEntry& entry) { cpu_.tlb_.Insert(entry); }
  void AfterWalk() {}

  FaultStep Fault(const S2WalkResult& walk) {
    if (ABSL_PREDICT_FALSE(conflict_)) return ConflictAbort();
    const absl::StatusOr<FaultResult> result =
        Stage2FaultHandler<G>(cpu_.vm_, cpu_.vcpu_, cpu_.stage2_, cpu_.tables_)
            .Handle(ToGfn(gpa_), kind_, walk.kind);
    if (ABSL_PREDICT_FALSE(!result.ok())) {
      SetStatus(result.status());
      return FaultStep::kError;
    }
    if (walk.kind == S2WalkResult::Kind::kPermissionFault &&
        (*result == FaultResult::kFixed || *result == FaultResult::kSpurious)) {
      // The page has more rights now. The vCPU itself may have cached too few
      // (ARM-07).
      cpu_.tlb_.FlushPage(page());
      cpu_.vm_.tlbi->IssueLocal();
    }
    return StepAfter(*result);
  }
  Gpa gpa() const { return Gpa(gpa_.value() & ~uint64_t{7}); }
  GuestWords& memory() { return cpu_.memory_; }
  int size_bytes() const { return sizeof(uint64_t); }
  uint64_t word() const { return *word_; }
  void SetStatus(absl::Status status) { cpu_.status_ = std::move(status); }

 private:
  // The log marks the pages of the granule when it looks. They become dirty
  // now. A descriptor keeps DBM after the end of a log.
  void CountNotedWrite() {
    const Gfn first = RoundDown<G>(ToGfn(gpa_), Level{1});
    RcuReadGuard rcu;
    const Memslot* const slot = cpu_.vm_.slots.Active(0).FindByGfn(first);
    if (slot == nullptr || slot->dirty_bitmap == nullptr) return;
    for (uint64_t i = 0; i < kGfnsPerGranule<G>; ++i) {
      if (!slot->dirty_bitmap->Test(first + i - slot->base_gfn)) {
        cpu_.vcpu_.stats().dirty_pages.Add();
      }
    }
  }

  bool Forbids(const TlbEntry& entry) const {
    return (kind_ == AccessKind::kWrite && !entry.writable) ||
           (kind_ == AccessKind::kExec && !entry.executable);
  }

  PageNumber page() const { return ToPageNumber(ToGfn(gpa_)); }

  void Speculate() {
    const S2WalkResult walk =
        WalkStage2(cpu_.stage2_, cpu_.vm_.memory, page(), AccessKind::kRead,
                   cpu_.tlb_.tables(), S2WalkFor::kSpeculation);
    if (walk.kind != S2WalkResult::Kind::kTranslated) return;
    // What is cached stays: only an invalidation drops it.
    const TlbEntry* const cached = cpu_.tlb_.LookupStage2(page());
    if (cached == nullptr || cached->level != walk.entry.level) {
      cpu_.tlb_.Insert(walk.entry);
    }
  }

  // ARM-09.
  FaultStep ConflictAbort() {
    if (cpu_.stage2_.options.bbm == BbmLevel::k0) {
      SetStatus(MakeError(
          absl::StatusCode::kInternal, {Reason::kInternalError, "", 0},
          Format("TLB conflict abort at gpa 0x%x: two translations of one "
                 "address are cached, although FEAT_BBM level 0 demands break "
                 "before make; this is a bug of the MMU",
                 gpa_.value())));
      return FaultStep::kError;
    }
    cpu_.tlb_.FlushAll();
    cpu_.vcpu_.stats().tlb_conflict_aborts.Add();
    return FaultStep::kTryAgain;
  }

  Stage2VcpuOf& cpu_;
  const Gpa gpa_;
  const AccessKind kind_;
  uint64_t* const word_;
  bool conflict_ = false;  // found by the last Lookup
};

// INV-6: what the TLB translates, the tables translate alike, with the same
// rights at least.
template <TableGeometry G>
void Stage2VcpuOf<G>::AuditTlb(const PendingFlushes& pending, AuditSink& sink) {
  if (pending.all) return;
  tlb_.ForEach([&](const TlbEntry& entry) {
    const GfnRange gfns = GfnRange::Of(entry.gfn, PagesPer<G>(entry.level));
    for (const TlbFlush& flush : pending.span()) {
      if (flush.Covers(MmuKind::kStage2) && flush.gfns.Overlaps(gfns)) return;
    }
    for (Gfn gfn = gfns.start; gfn < gfns.end; gfn += kGfnsPerGranule<G>) {
      S2Cursor<G> c = stage2_.CursorOver(GfnRange::Of(gfn, 1), Level{1});
      c.DescendToFirst();
      if (!c.Valid() || !c.IsPresentLeaf()) {
        sink.Violation(6, "vCPU %d translates gfn 0x%x, which nothing maps",
                       vcpu_.index(), gfn.value());
        return;
      }
      const S2Descriptor leaf = c.old_spte();
      if (leaf.pfn() + (gfn - c.gfn()) != entry.pfn + (gfn - entry.gfn)) {
        sink.Violation(6,
                       "vCPU %d translates gfn 0x%x to another frame than the "
                       "tables",
                       vcpu_.index(), gfn.value());
        return;
      }
      const bool may_write = entry.dirty_set
                                 ? leaf.IsWritable()
                                 : leaf.IsWritable() || leaf.NotesWrites();
      if (entry.writable && !may_write) {
        sink.Violation(6, "vCPU %d may write gfn 0x%x, the tables forbid it",
                       vcpu_.index(), gfn.value());
        return;
      }
    }
  });
}

}  // namespace

std::unique_ptr<Stage2Vcpu> Stage2Vcpu::Make(VmCore& vm, Vcpu& vcpu) {
  std::unique_ptr<Stage2Vcpu> made;
  WithGranule(vm.config.stage2.granule_bytes, [&]<typename G>() {
    made = std::make_unique<Stage2VcpuOf<G>>(vm, vcpu);
  });
  return made;
}

}  // namespace mmu
