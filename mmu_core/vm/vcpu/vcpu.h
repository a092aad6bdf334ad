// A virtual CPU: its TLB, its root, and the loop that turns a guest's access
// into a translation, with as many faults as that takes.
//
// access_loop.h describes one access and the fault that it may cause. On the
// TDP MMU the walk is HardwareWalk, and HandleFault (fault_handler.h) finds the
// memslot, tries the fast page fault, resolves the frame, takes mmu_lock for
// read and lets the TDP MMU map the frame. shadow_vcpu.h does the same on
// shadow pages.
//
// A vCPU with page-modification logging has a buffer (dirty/pml_buffer.h) that
// its walks fill while some slot logs. The buffer belongs to the vCPU's thread,
// which drains it at every exit, before anything else is done (DL-31): the
// pages go into bitmaps or into the vCPU's ring. So a vCPU outside of guest
// mode has an empty buffer. A thread that needs all dirty pages makes the other
// vCPUs exit (RemoteTlb::KickOut). An access made outside of guest mode exits
// at its end.

#ifndef MMU_CORE_VM_VCPU_VCPU_H_
#define MMU_CORE_VM_VCPU_VCPU_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/base/optimization.h"
#include "absl/status/status.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/dirty/dirty_ring.h"
#include "mmu_core/dirty/pml_buffer.h"
#include "mmu_core/guest_paging/guest_walk.h"
#include "mmu_core/memory/memslot_hint.h"
#include "mmu_core/paging/table_cache.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/stats/vcpu_stats.h"
#include "mmu_core/tdp/tdp_root.h"
#include "mmu_core/tlb/flush_queue.h"
#include "mmu_core/tlb/tlb_options.h"
#include "mmu_core/tlb/vcpu_gate.h"
#include "mmu_core/tlb/vcpu_tlb.h"
#include "mmu_core/vm/vcpu/access_outcome.h"
#include "mmu_core/vm/vcpu/audited_tlb.h"
#include "mmu_core/vm/vcpu/mmio_cache.h"

namespace mmu {

class ParkingPlace;
class ShadowVcpu;
class Stage2Vcpu;
struct VmCore;

// The options of the TLB of one vCPU for one MMU: those of the VM, with a seed
// of its own.
TlbOptions TlbOf(const VmCore& vm, int index, MmuKind mmu);

// Access, and each function marked "vCPU thread", may be called only on the one
// thread that runs the vCPU. stats() and gate() may be called on any thread.
// Thread-compatible otherwise.
class Vcpu {
 public:
  Vcpu(VmCore& vm, int index);
  ~Vcpu();
  Vcpu(const Vcpu&) = delete;
  Vcpu& operator=(const Vcpu&) = delete;

  int index() const { return index_; }

  // vCPU thread. Enters or leaves guest mode (TLB-01); not called during an
  // access.
  void EnterGuest() { gate_.EnterGuest(); }
  void ExitGuest() {
    DrainCpuDirtyLog();
    gate_.ExitGuest();
  }

  // vCPU thread. Makes one guest access to the 8-byte word at `gpa`, rounded
  // down. A write stores `*word` there; a read or fetch loads the word into
  // `*word`. Memory without contents reads as 0.
  AccessOutcome Access(Gpa gpa, AccessKind kind, uint64_t* word) {
    stats_.accesses.Add();
    if (kind == AccessKind::kWrite) stats_.writes.Add();
    // Nearly all accesses end here: no request, and the TLB has a translation.
    if (ABSL_PREDICT_TRUE(gate_.BeginAccess() == 0)) {
      if (const TlbEntry* entry = tlb_.LookupInSlots(ToPageNumber(ToGfn(gpa)));
          entry != nullptr && CanUse(*entry, kind)) {
        Perform(*entry, gpa, kind, word);
        gate_.EndAccess();
        return AccessOutcome::kDone;
      }
      gate_.EndAccess();
    }
    return ContinueAccess(gpa, kind, word);
  }

  // vCPU thread. Continues the access that returned kDirtyRingFull, with the
  // same arguments.
  AccessOutcome ContinueAccess(Gpa gpa, AccessKind kind, uint64_t* word);

  // vCPU thread, or any thread while the vCPU is parked. Null without PML.
  const PmlBuffer* pml() const { return pml_.get(); }
  // Whether the vCPU's walks log: PML is on because some slot logs (DL-09).
  bool cpu_dirty_log_on() const { return cpu_dirty_log_on_; }

  // Null if the VM logs into bitmaps.
  DirtyRing* dirty_ring() { return dirty_ring_.get(); }
  const DirtyRing* dirty_ring() const { return dirty_ring_.get(); }

  // Why the last Access was kError.
  const absl::Status& status() const { return status_; }

  // vCPU thread. Gives access to drop translations unasked, as hardware may.
  VcpuTlb& tlb() { return tlb_; }
  // vCPU thread, or any thread while the vCPU is parked.
  const VcpuTlb& tlb() const { return tlb_; }
  const TdpRoot* root() const { return root_.get(); }

  VcpuStats& stats() { return stats_; }
  const VcpuStats& stats() const { return stats_; }
  VcpuGate& gate() { return gate_; }
  const VcpuGate& gate() const { return gate_; }
  TableCache& table_cache() { return table_cache_; }
  MemslotHint& memslot_hint() { return memslot_hint_; }
  MmioCache& mmio_cache() { return mmio_cache_; }
  // Number of faults that the vCPU has begun (FaultAccounting).
  uint32_t& fault_ticks() { return fault_ticks_; }

  // vCPU thread. Sets the place where the thread parks if an access has to
  // wait. Null: nothing asks it to park.
  void set_parking(ParkingPlace* parking) { parking_ = parking; }
  ParkingPlace* parking() const { return parking_; }

  // vCPU thread. Carries out pending requests without an access. False: the
  // vCPU may not enter the guest because its dirty ring is full.
  bool HandleRequests();
  // vCPU thread. Loads a root if needed; after OK the vCPU has a valid one.
  absl::Status EnsureRoot() {
    return root_ && !root_->IsInvalid() ? absl::OkStatus() : LoadRoot();
  }
  // vCPU thread. Drops the root and all translations.
  void ReleaseRoot();

  // vCPU thread. Null if the VM has no shadow MMU.
  ShadowVcpu* shadow() { return shadow_.get(); }
  const ShadowVcpu* shadow() const { return shadow_.get(); }

  // Leaves guest mode for the lifetime of the object, if the vCPU is in it.
  class Exit {
   public:
    explicit Exit(Vcpu& vcpu)
        : vcpu_(vcpu), was_in_guest_(vcpu.gate_.in_guest()) {
      vcpu_.DrainCpuDirtyLog();
      if (was_in_guest_) vcpu_.gate_.ExitGuest();
    }
    ~Exit() {
      if (was_in_guest_) vcpu_.EnterGuest();
    }
    Exit(const Exit&) = delete;
    Exit& operator=(const Exit&) = delete;

   private:
    Vcpu& vcpu_;
    const bool was_in_guest_;
  };
  // Called after a fault. If the dirty ring is soft-full, requests that it is
  // handled before the next access. A vCPU without a ring pays nothing.
  void NoteRingFill() {
    if (dirty_ring_ != nullptr && dirty_ring_->SoftFull()) {
      gate_.AddRequests(kDirtyRingSoftFull);
    }
  }

  // vCPU thread. Null unless the VM runs on stage-2 tables.
  Stage2Vcpu* stage2() { return stage2_.get(); }
  const Stage2Vcpu* stage2() const { return stage2_.get(); }

  // For the engines of accesses (access_loop.h), whichever tables they walk.
  static bool CanUse(const TlbEntry& entry, AccessKind kind) {
    switch (kind) {
      case AccessKind::kRead:
        return true;
      case AccessKind::kWrite:
        // D is not known to be set: the vCPU walks again, which sets it.
        return entry.writable && entry.dirty_set;
      case AccessKind::kExec:
        return entry.executable;
    }
    return false;
  }
  // Relaxed atomics, word by word: a migration copies this memory while the
  // guest writes it, and sees either the old or the new word.
  static void Perform(const TlbEntry& entry, Gpa gpa, AccessKind kind,
                      uint64_t* word) {
    if (ABSL_PREDICT_FALSE(entry.host == nullptr)) {
      if (kind != AccessKind::kWrite) *word = 0;
      return;
    }
    const uint64_t offset =
        gpa.value() - (entry.base_page.value() << kPageShift);
    std::atomic_ref<uint64_t> memory(
        *reinterpret_cast<uint64_t*>(entry.host + (offset & ~uint64_t{7})));
    if (kind == AccessKind::kWrite) {
      memory.store(*word, std::memory_order_relaxed);
    } else {
      *word = memory.load(std::memory_order_relaxed);
    }
  }

  // Whether pages can be mapped ahead of the guest (pre_fault.h).
  bool can_pre_fault() const { return runs_on_tdp_; }

  // Any thread while the vCPU is parked. The TLB contexts with entries that may
  // still be used: not those that a pending request drops before the next
  // access.
  std::vector<AuditedTlb> AuditedTlbs() const;
  // The same. What the vCPU will flush before its next access.
  PendingFlushes PendingFlushesForAudit() const;
  // The same. Whether there are flushes in the queue that no request tells the
  // vCPU to carry out.
  bool HasUnaskedFlushes() const {
    return (gate_.pending_requests() & kTlbFlush) == 0 &&
           !flushes_.Peek().empty();
  }

 private:
  class TdpAccess;  // the AccessEngine of this vCPU (access_loop.h)

  // Makes an access in a VM whose second stage is made of shadow pages.
  AccessOutcome AccessShadow(Gpa gpa, AccessKind kind, uint64_t* word);

  absl::Status LoadRoot();
  void ReleaseTdpRoot();
  void FlushTlbs();
  // Called at every exit, before anything else is done there.
  void DrainCpuDirtyLog() {
    if (ABSL_PREDICT_FALSE(pml_ != nullptr) && !pml_->empty()) DrainPml();
  }
  void DrainPml();
  VmCore& vm_;
  const int index_;
  const bool runs_on_tdp_;  // as opposed to shadow pages
  // The privilege of accesses to a second stage made of shadow pages: with NPT
  // the processor treats all of them as user accesses.
  const Privilege second_stage_privilege_;
  VcpuGate gate_;
  FlushQueue flushes_;  // used if the TLBs are precise (TlbOptions)
  VcpuTlb tlb_;
  RootRef root_;
  const std::unique_ptr<PmlBuffer> pml_;
  bool cpu_dirty_log_on_ = false;  // belongs to the vCPU's thread
  const std::unique_ptr<DirtyRing> dirty_ring_;
  TableCache table_cache_;
  MemslotHint memslot_hint_;
  MmioCache mmio_cache_;
  ParkingPlace* parking_ = nullptr;
  uint32_t fault_ticks_ = 0;
  VcpuStats stats_;
  absl::Status status_;
  std::unique_ptr<ShadowVcpu> shadow_;
  std::unique_ptr<Stage2Vcpu> stage2_;
};

}  // namespace mmu

#endif  // MMU_CORE_VM_VCPU_VCPU_H_
