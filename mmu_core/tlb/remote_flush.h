// Remote TLB flushes: making all vCPUs of a VM forget their translations.

#ifndef MMU_CORE_TLB_REMOTE_FLUSH_H_
#define MMU_CORE_TLB_REMOTE_FLUSH_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/stats/latency_histogram.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/sync/shared_mutex.h"
#include "mmu_core/tlb/flush_metrics.h"
#include "mmu_core/tlb/vcpu_gate.h"

namespace mmu {

struct FlushResult {
  int vcpus_kicked = 0;  // vCPUs that were in guest mode
};

// The vCPUs of one VM as seen by flushers. Flush and Request may be called
// under mmu_lock in any mode or without it, inside an RCU read section or not,
// by vCPU threads (outside of their access sections) or by others; they
// allocate nothing. Thread-safe.
class RemoteTlb {
 public:
  RemoteTlb() = default;
  ~RemoteTlb();
  RemoteTlb(const RemoteTlb&) = delete;
  RemoteTlb& operator=(const RemoteTlb&) = delete;

  // From now on `gate` receives requests. It must outlive its removal.
  void AddVcpu(VcpuGate* gate);
  // Afterwards nobody touches `gate`. REQUIRES: it was added.
  void RemoveVcpu(VcpuGate* gate);

  // When it returns, no access that began before is still going on, and each
  // vCPU empties its TLB before its next one (TLB-01, TLB-12). SPTE changes
  // made before the call are seen by every later walk. The vCPU model has no
  // flush of a range: each scope empties whole TLBs and counts as one flush
  // under its name (TLB-03). `cost` may be null.
  FlushResult Flush(FlushScope scope, FlushReason reason, MmuCost* cost);

  // The same handshake for other requests (bits of vcpu_gate.h); counts no
  // flush.
  FlushResult Request(uint32_t bits);

  // Has every vCPU that is in guest mode leave it: when it returns, each of
  // them has been outside since the call (DL-31). Not under a lock that a
  // vCPU's thread takes between EnterGuest and ExitGuest, which it does for
  // nothing but an access of its own source.
  FlushResult KickOut();

  // A flush that was considered and found unnecessary.
  void CountElided(FlushReason reason);
  // A vCPU emptied its own TLB without being asked by Flush.
  void CountVcpuFlush(FlushReason reason);

  FlushMetrics Snapshot() const;

 private:
  using ReasonCounters = std::array<std::atomic<uint64_t>, kFlushReasons>;

  // Guards the list, not the gates; held in shared mode during a flush. Leaf.
  mutable SharedMutex vcpus_mu_;
  std::vector<VcpuGate*> vcpus_ ABSL_GUARDED_BY(vcpus_mu_);

  // Relaxed, independent of each other.
  std::atomic<uint64_t> interrupting_flushes_{0};
  std::array<ReasonCounters, kFlushScopes> flushes_{};
  ReasonCounters requests_{};
  ReasonCounters kicked_{};
  ReasonCounters elided_{};
  std::array<LatencyHistogram, kFlushScopes> seconds_;
};

}  // namespace mmu

#endif  // MMU_CORE_TLB_REMOTE_FLUSH_H_
