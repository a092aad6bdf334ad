// Remote TLB flushes: making all vCPUs of a VM forget their translations.

#ifndef MMU_CORE_TLB_REMOTE_FLUSH_H_
#define MMU_CORE_TLB_REMOTE_FLUSH_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "mmu_core/stats/flush_metrics.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/stats/latency_histogram.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/sync/shared_mutex.h"
#include "mmu_core/tlb/tlb_flush.h"
#include "mmu_core/tlb/tlbi.h"
#include "mmu_core/tlb/vcpu_gate.h"

namespace mmu {

struct FlushResult {
  int vcpus_kicked = 0;  // vCPUs that were in guest mode
};

class RemoteTlb;

// The vCPUs of a VM as one of its MMUs flushes them: its flushes are counted as
// this MMU's. They cover the translations of this MMU, or those of all MMUs. A
// value that refers to a RemoteTlb, which outlives it.
class MmuTlb {
 public:
  MmuTlb(RemoteTlb& remote, MmuKind mmu)
      : remote_(&remote), mmu_(mmu), covers_(mmu) {}

  RemoteTlb& remote() const { return *remote_; }
  MmuKind mmu() const { return mmu_; }
  // nullopt: all MMUs.
  std::optional<MmuKind> covers() const { return covers_; }
  // For changes that this MMU has made in the tables of several MMUs.
  MmuTlb OnAllMmus() const {
    MmuTlb all = *this;
    all.covers_.reset();
    return all;
  }

 private:
  RemoteTlb* remote_;
  MmuKind mmu_;
  std::optional<MmuKind> covers_;
};

// The vCPUs of one VM as seen by flushers. Flush and Request may be called
// under mmu_lock in any mode or without it, inside an RCU read section or not,
// and by any thread (by a vCPU's thread only outside of its access sections).
// They allocate nothing. Thread-safe.
class RemoteTlb {
 public:
  // `guest_mmu`: the MMU that the VM's guest runs on; with nested paging that
  // of L1. A flush that is issued for several MMUs at once is counted once, as
  // a flush of this one. `tlbi`, which outlives this object, turns flushes into
  // TLBI instructions; null: the processors have none.
  explicit RemoteTlb(MmuKind guest_mmu = MmuKind::kTdp,
                     TlbiUnit* tlbi = nullptr)
      : guest_mmu_(guest_mmu), tlbi_(tlbi) {}
  ~RemoteTlb();
  RemoteTlb(const RemoteTlb&) = delete;
  RemoteTlb& operator=(const RemoteTlb&) = delete;

  // For flushes that the MMU of this kind issues.
  MmuTlb Of(MmuKind mmu) { return {*this, mmu}; }
  // For flushes of several MMUs at once, or of no particular MMU.
  MmuTlb OfGuest() { return Of(guest_mmu_).OnAllMmus(); }

  // From now on `gate` receives requests. It must outlive its removal.
  void AddVcpu(VcpuGate* gate);
  // Afterwards no flusher uses `gate`. REQUIRES: `gate` was added.
  void RemoveVcpu(VcpuGate* gate);

  // On return, every access that began before the call has ended, and each vCPU
  // drops at least what `flush` covers before its next access (TLB-01, TLB-12).
  // Every later walk sees the SPTE changes made before the call. A vCPU without
  // a queue of flushes has no flush of a range: it empties its TLBs, whatever
  // `flush` covers (TLB-03). Counts one flush of `mmu` under the name of
  // `scope`. `cost` may be null.
  FlushResult Flush(MmuKind mmu, FlushScope scope, FlushReason reason,
                    const TlbFlush& flush, MmuCost* cost);
  // A flush of everything.
  FlushResult Flush(FlushScope scope, FlushReason reason, MmuCost* cost) {
    return Flush(guest_mmu_, scope, reason, TlbFlush(), cost);
  }

  // The same handshake for requests in general (bits of vcpu_gate.h); counts no
  // flush. kTlbFlush is a flush of everything.
  FlushResult Request(uint32_t bits);

  // Makes every vCPU that is in guest mode leave it: on return, each of them
  // has been outside since the call (DL-31). Must not be called under a lock
  // that a vCPU's thread takes between EnterGuest and ExitGuest; the thread
  // takes one there only for an access of its own source.
  FlushResult KickOut();

  // Counts a flush that was considered and found unnecessary.
  void CountElided(FlushReason reason);
  // Counts a vCPU that dropped the translations of `mmu` from its own TLB,
  // without a request from Flush.
  void CountVcpuFlush(MmuKind mmu, FlushReason reason);

  FlushMetrics Snapshot() const;

 private:
  FlushResult Ask(uint32_t bits, const TlbFlush* flush);

  using ReasonCounters = std::array<std::atomic<uint64_t>, kFlushReasons>;

  const MmuKind guest_mmu_;
  TlbiUnit* const tlbi_;
  // Guards the list, not the gates; held in shared mode during a flush. Leaf.
  mutable SharedMutex vcpus_mu_;
  std::vector<VcpuGate*> vcpus_ ABSL_GUARDED_BY(vcpus_mu_);

  // Relaxed; the counters are independent of each other.
  std::atomic<uint64_t> interrupting_flushes_{0};
  std::array<std::array<ReasonCounters, kFlushScopes>, kMmuKinds> flushes_{};
  ReasonCounters requests_{};
  ReasonCounters kicked_{};
  ReasonCounters elided_{};
  std::array<LatencyHistogram, kFlushScopes> seconds_;
};

}  // namespace mmu

#endif  // MMU_CORE_TLB_REMOTE_FLUSH_H_
