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

// The vCPUs of one VM, as flushers see them. Flush and Request may be called
// under mmu_lock in any mode or without it, inside an RCU read section or not,
// and by any thread (by a vCPU's thread only outside of its access sections).
// They allocate nothing. Thread-safe.
class RemoteTlb {
 public:
  RemoteTlb() = default;
  ~RemoteTlb();
  RemoteTlb(const RemoteTlb&) = delete;
  RemoteTlb& operator=(const RemoteTlb&) = delete;

  // Makes `gate` receive requests from now on. It must outlive its removal.
  void AddVcpu(VcpuGate* gate);
  // Afterwards no flusher uses `gate`. REQUIRES: `gate` was added.
  void RemoveVcpu(VcpuGate* gate);

  // On return every access that began before the call has ended, and each vCPU
  // empties its TLB before its next access (TLB-01, TLB-12). Every later walk
  // sees the SPTE changes made before the call. The vCPU model cannot flush a
  // range: each scope empties whole TLBs and counts as one flush of that scope
  // (TLB-03). `cost` may be null.
  FlushResult Flush(FlushScope scope, FlushReason reason, MmuCost* cost);

  // The same handshake for other requests (bits of vcpu_gate.h); counts no
  // flush.
  FlushResult Request(uint32_t bits);

  // Makes every vCPU that is in guest mode leave it: on return, each of them
  // has been outside since the call (DL-31). Must not be called under a lock
  // that a vCPU's thread takes between EnterGuest and ExitGuest; the thread
  // takes one there only for an access of its own source.
  FlushResult KickOut();

  // Counts a flush that was considered and found unnecessary.
  void CountElided(FlushReason reason);
  // Counts a vCPU's flush of its own TLB that no Flush requested.
  void CountVcpuFlush(FlushReason reason);

  FlushMetrics Snapshot() const;

 private:
  using ReasonCounters = std::array<std::atomic<uint64_t>, kFlushReasons>;

  // Guards the list, not the gates; held in shared mode during a flush. Leaf.
  mutable SharedMutex vcpus_mu_;
  std::vector<VcpuGate*> vcpus_ ABSL_GUARDED_BY(vcpus_mu_);

  // Relaxed; the counters are independent of each other.
  std::atomic<uint64_t> interrupting_flushes_{0};
  std::array<ReasonCounters, kFlushScopes> flushes_{};
  ReasonCounters requests_{};
  ReasonCounters kicked_{};
  ReasonCounters elided_{};
  std::array<LatencyHistogram, kFlushScopes> seconds_;
};

}  // namespace mmu

#endif  // MMU_CORE_TLB_REMOTE_FLUSH_H_
