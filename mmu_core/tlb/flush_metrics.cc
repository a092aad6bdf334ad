#include "mmu_core/tlb/flush_metrics.h"

#include "mmu_core/stats/labels.h"

namespace mmu {

void FlushMetrics::Add(const FlushMetrics& other) {
  remote_tlb_flush_requests += other.remote_tlb_flush_requests;
  remote_tlb_flush += other.remote_tlb_flush;
  for (int reason = 0; reason < kFlushReasons; ++reason) {
    requests[reason] += other.requests[reason];
    kicked[reason] += other.kicked[reason];
    elided[reason] += other.elided[reason];
  }
  for (int scope = 0; scope < kFlushScopes; ++scope) {
    for (int mmu = 0; mmu < kMmuKinds; ++mmu) {
      for (int reason = 0; reason < kFlushReasons; ++reason) {
        flushes[mmu][scope][reason] += other.flushes[mmu][scope][reason];
      }
    }
    seconds[scope].Add(other.seconds[scope]);
  }
}

}  // namespace mmu
