// Counts every fault of a vCPU in its counters, for the TDP MMU and the shadow
// MMU alike.

#ifndef MMU_CORE_VM_VCPU_FAULT_ACCOUNTING_H_
#define MMU_CORE_VM_VCPU_FAULT_ACCOUNTING_H_

#include <cstdint>

#include "absl/base/optimization.h"
#include "mmu_core/base/access.h"
#include "mmu_core/mmu/page_fault.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/stats/vcpu_stats.h"
#include "mmu_core/sync/spin.h"

namespace mmu {

// Constructed when a fault begins; Finish is called when it ends. One fault in
// kSampling is timed and stands for all. Externally synchronised: belongs to
// the vCPU's thread.
class FaultAccounting {
 public:
  static constexpr int64_t kSampling = 64;
  enum class Outcome : uint8_t { kHandled, kError };

  // `mmu`: the MMU whose tables the access walked. `ticks`: number of faults
  // that the vCPU has begun before this one.
  FaultAccounting(MmuKind mmu, VcpuStats& stats, uint32_t& ticks)
      : mmu_(mmu),
        stats_(stats),
        timed_(++ticks % kSampling == 0),
        begin_(timed_ ? MonotonicNanos() : 0) {}
  FaultAccounting(const FaultAccounting&) = delete;
  FaultAccounting& operator=(const FaultAccounting&) = delete;

  // Passed to the functions that the handler calls; null if this fault is not
  // timed.
  MmuCost* cost() { return timed_ ? &cost_ : nullptr; }

  // `result` is ignored if `outcome` is kError.
  void Finish(const PageFault& fault, VcpuStats::FaultPath path,
              Outcome outcome, FaultResult result) {
    if (ABSL_PREDICT_FALSE(timed_)) CountTime(fault, path);
    if (fault.dirtied_pages != 0) {
      stats_.dirty_pages.Add(fault.dirtied_pages);
      if (fault.present && fault.kind == AccessKind::kWrite) {
        stats_.dirty_log_faults.Add();
      }
    }
    if (fault.mmio_spte_created) stats_.pf_mmio_spte_created.Add();
    if (ABSL_PREDICT_FALSE(outcome == Outcome::kError)) {
      stats_.CountFaultError(mmu_, fault.kind);
    } else {
      stats_.CountFault(mmu_, result, fault.kind, path);
    }
  }

 private:
  void CountTime(const PageFault& fault, VcpuStats::FaultPath path);

  const MmuKind mmu_;
  VcpuStats& stats_;
  const bool timed_;
  const int64_t begin_;
  MmuCost cost_;
};

}  // namespace mmu

#endif  // MMU_CORE_VM_VCPU_FAULT_ACCOUNTING_H_
