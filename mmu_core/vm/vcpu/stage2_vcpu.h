// The part of a vCPU that runs on arm64 stage-2 tables: its TLB, its stock of
// tables, and the loop that turns an access into a translation.
//
// access_loop.h describes an access. The walk is WalkStage2 (stage2/s2_walk.h);
// a fault finds the memslot and the frame as on the TDP MMU, and MapStage2
// (stage2/stage2_fault.h) maps it. If the TLB has two translations of an
// address, the access ends in a TLB conflict abort: with FEAT_BBM level 2 the
// vCPU drops its translations and tries again, at level 0 it is an error of the
// MMU.
//
// Like the vCPU, it belongs to the vCPU's thread.

#ifndef MMU_CORE_VM_VCPU_STAGE2_VCPU_H_
#define MMU_CORE_VM_VCPU_STAGE2_VCPU_H_

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/mmu/audit_sink.h"
#include "mmu_core/tlb/flush_queue.h"
#include "mmu_core/vm/vcpu/access_outcome.h"

namespace mmu {

class Vcpu;
struct VmCore;

// Of any granule. Externally synchronised: belongs to the vCPU's thread.
class Stage2Vcpu {
 public:
  // REQUIRES: vm.stage2 is set.
  static std::unique_ptr<Stage2Vcpu> Make(VmCore& vm, Vcpu& vcpu);
  virtual ~Stage2Vcpu() = default;
  Stage2Vcpu(const Stage2Vcpu&) = delete;
  Stage2Vcpu& operator=(const Stage2Vcpu&) = delete;

  // As Vcpu::Access.
  virtual AccessOutcome Access(Gpa gpa, AccessKind kind, uint64_t* word) = 0;
  const absl::Status& status() const { return status_; }

  // What the TLBI instructions for these flushes drop.
  virtual void Flush(const PendingFlushes& pending) = 0;
  virtual void FlushAll() = 0;
  // Drops translations unasked, as hardware may.
  virtual void DropRandom(uint64_t random) = 0;

  // Reports translations that the tables do not give (INV-6), other than those
  // that `pending` drops before the next access.
  virtual void AuditTlb(const PendingFlushes& pending, AuditSink& sink) = 0;

 protected:
  Stage2Vcpu() = default;

  absl::Status status_;
};

}  // namespace mmu

#endif  // MMU_CORE_VM_VCPU_STAGE2_VCPU_H_
