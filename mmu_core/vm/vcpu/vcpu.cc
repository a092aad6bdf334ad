#include "mmu_core/vm/vcpu/vcpu.h"

#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include "mmu_core/base/check.h"
#include "mmu_core/memory/mark_dirty.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/sync/spin.h"
#include "mmu_core/vm/core/vm_core.h"
#include "mmu_core/vm/vcpu/shadow_vcpu.h"
#include "mmu_core/vm/vcpu/stage2_vcpu.h"

namespace mmu {

TlbOptions TlbOf(const VmCore& vm, int index, MmuKind mmu) {
  TlbOptions options = vm.config.tlb;
  options.seed +=
      static_cast<uint64_t>(index * kMmuKinds) + static_cast<uint64_t>(mmu);
  return options;
}

Vcpu::Vcpu(VmCore& vm, int index)
    : vm_(vm),
      index_(index),
      runs_on_tdp_(RunsOnTdp(vm.config)),
      second_stage_privilege_(vm.config.format == EntryFormat::kNpt &&
                                      vm.config.mmu == MmuMode::kTdpShadow
                                  ? Privilege::kUser
                                  : Privilege::kSupervisor),
      tlb_(TlbOf(vm, index, MmuKind::kTdp)),
      pml_(vm.cpu_dirty_log_entries() != 0 ? std::make_unique<PmlBuffer>()
                                           : nullptr),
      dirty_ring_(vm.has_dirty_rings() ? std::make_unique<DirtyRing>(
                                             vm.config.dirty_ring_entries,
                                             vm.cpu_dirty_log_entries())
                                       : nullptr),
      table_cache_(vm.pool) {
  if (vm.config.tlb.flushes == TlbOptions::Flushes::kPrecise) {
    gate_.set_flush_queue(&flushes_);
  }
  if (vm.shadow != nullptr) shadow_ = std::make_unique<ShadowVcpu>(vm, *this);
  if (vm.stage2 != nullptr) stage2_ = Stage2Vcpu::Make(vm, *this);
  if (dirty_ring_ != nullptr) vm_.rings.push_back(dirty_ring_.get());
  vm_.vcpu_stats.push_back(&stats_);
  // Comes last: if memory for the rest runs out, no vCPU was added that
  // requests could be sent to.
  vm_.tlb.AddVcpu(&gate_);
}

Vcpu::~Vcpu() { vm_.tlb.RemoveVcpu(&gate_); }

bool Vcpu::HandleRequests() {
  const uint32_t requests = gate_.TakeRequests();
  if ((requests & kTlbFlush) != 0) {
    const int64_t begin = MonotonicNanos();
    FlushTlbs();
    stats_.tlb_flush.Add();
    stats_.AddStall(StallCause::kFlush, MonotonicNanos() - begin);
  }
  if ((requests & kFreeObsoleteRoots) != 0) {
    if (root_ && root_->IsInvalid()) ReleaseTdpRoot();
    if (shadow_ != nullptr) shadow_->FreeObsoleteRoots();
  }
  if ((requests & kUpdateCpuDirtyLog) != 0) {
    cpu_dirty_log_on_ = pml_ != nullptr &&
                        vm_.logging_slots.load(std::memory_order_relaxed) != 0;
  }
  if ((requests & kDirtyRingSoftFull) != 0 && dirty_ring_->SoftFull()) {
    gate_.AddRequests(kDirtyRingSoftFull);  // again, until there is room
    stats_.ring_full_exits.Add();
    return false;
  }
  return true;
}

void Vcpu::FlushTlbs() {
  const auto flush_all = [this] {
    tlb_.FlushAll();
    if (shadow_ != nullptr) shadow_->tlb().FlushAll();
    if (stage2_ != nullptr) stage2_->FlushAll();
  };
  // Flushers do not say what they flush: nobody uses the queue.
  if (vm_.config.tlb.flushes == TlbOptions::Flushes::kWhole) {
    return flush_all();
  }
  const PendingFlushes pending = flushes_.Take();
  if (pending.all) return flush_all();
  if (stage2_ != nullptr) stage2_->Flush(pending);
  for (const TlbFlush& flush : pending.span()) {
    if (flush.Covers(MmuKind::kTdp)) {
      tlb_.Flush(flush, TlbPages::kGuestPhysical);
    }
    if (flush.Covers(MmuKind::kShadow) && shadow_ != nullptr) {
      shadow_->tlb().Flush(flush, shadow_->pages());
    }
  }
}

PendingFlushes Vcpu::PendingFlushesForAudit() const {
  PendingFlushes pending;
  // The queue is looked at only on request.
  if ((gate_.pending_requests() & kTlbFlush) != 0) {
    pending = flushes_.Peek();
    pending.all |= vm_.config.tlb.flushes == TlbOptions::Flushes::kWhole;
  }
  return pending;
}

std::vector<AuditedTlb> Vcpu::AuditedTlbs() const {
  std::vector<AuditedTlb> tlbs;
  const PendingFlushes pending = PendingFlushesForAudit();
  if (pending.all) return tlbs;
  const uint32_t requests = gate_.pending_requests();
  const bool frees_obsolete = (requests & kFreeObsoleteRoots) != 0;
  if (root_ && !(frees_obsolete && root_->IsInvalid())) {
    tlbs.push_back({.tlb = tlb_,
                    .mmu = MmuKind::kTdp,
                    .pending = pending,
                    .tag = TlbTag::OfRoot(*root_->table()),
                    .root_id = root_->id(),
                    .table = *root_->table(),
                    .level = root_->level(),
                    .format = vm_.tdp.format(),
                    .pages = TlbPages::kGuestPhysical,
                    .cpu_logs = vm_.cpu_dirty_log_entries() != 0});
  }
  if (shadow_ != nullptr) {
    shadow_->AddAuditedTlbs(pending, frees_obsolete, tlbs);
  }
  return tlbs;
}

void Vcpu::DrainPml() {
  RcuReadGuard rcu;
  const MemslotSet& slots = vm_.slots.Active(/*as_id=*/0);
  pml_->ForEach([&](Gpa gpa) {
    const Gfn gfn = ToGfn(gpa);
    // A page whose slot is gone, or does not log, is in no dirty log.
    const Memslot* slot = memslot_hint_.Find(slots, gfn);
    if (slot == nullptr) return;
    if (MarkPageDirty(*slot, gfn, dirty_ring())) stats_.dirty_pages.Add();
  });
  pml_->Reset();
  if (dirty_ring_ != nullptr && dirty_ring_->SoftFull()) {
    gate_.AddRequests(kDirtyRingSoftFull);
  }
}

void Vcpu::ReleaseRoot() {
  ReleaseTdpRoot();
  if (shadow_ != nullptr) shadow_->ReleaseRoots();
}

void Vcpu::ReleaseTdpRoot() {
  root_.reset();
  mmio_cache_.Forget();
  tlb_.SelectNone();
}

absl::Status Vcpu::LoadRoot() {
  ReleaseTdpRoot();
  absl::StatusOr<RootRef> root = vm_.tdp.LoadRoot(/*as_id=*/0, table_cache_);
  if (!root.ok()) return root.status();
  root_ = std::move(*root);
  // The table may have been a root before, of which translations are left
  // (TLB-04).
  const TlbTag tag = TlbTag::OfRoot(*root_->table());
  tlb_.Select(tag);
  tlb_.FlushContext(tag);
  vm_.tlb.CountVcpuFlush(MmuKind::kTdp, FlushReason::kRoot);
  return absl::OkStatus();
}

}  // namespace mmu
