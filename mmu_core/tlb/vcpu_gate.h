// The handshake between one vCPU and the flushers that must make sure that it
// uses no stale translation (TLB-01, 02, 11, 12).
//
// A vCPU does every guest access inside an access section. That includes the
// walk of the tables on a TLB miss and the insertion of the translation. A
// flusher leaves a request and waits only for the access sections that are open
// at that moment. It does not wait for a vCPU that is between two accesses,
// handles a fault, or does not run the guest: such a vCPU meets the request
// before its next access. So a flusher never waits for a fault handler or for a
// thread that waits for mmu_lock, and a flush may be issued under any lock.
//
// Next: remote_flush.h, which is the flusher.

#ifndef MMU_CORE_TLB_VCPU_GATE_H_
#define MMU_CORE_TLB_VCPU_GATE_H_

#include <atomic>
#include <cstdint>

#include "absl/base/optimization.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/sync/asymmetric_barrier.h"
#include "mmu_core/tlb/flush_queue.h"
#include "mmu_core/tlb/tlb_flush.h"

namespace mmu {

// Bits of VcpuGate requests.
//
// Of the whole TLB, or of what the vCPU's queue of flushes says.
inline constexpr uint32_t kTlbFlush = 1;
inline constexpr uint32_t kFreeObsoleteRoots = 2;
// Only leave the guest, which empties the CPU's dirty log.
inline constexpr uint32_t kExitGuest = 4;
inline constexpr uint32_t kDirtyRingSoftFull = 8;   // set by the vCPU itself
inline constexpr uint32_t kUpdateCpuDirtyLog = 16;  // on or off (DL-09)

// States of a vCPU, changed only by the vCPU itself:
//
//   outside --EnterGuest--> in guest, between accesses --BeginAccess-->
//   in guest, access section open --EndAccess--> in guest, between accesses
//   --ExitGuest--> outside
//
// The vCPU side belongs to one thread; the flusher side is thread-safe.
class VcpuGate {
 public:
  VcpuGate() = default;
  VcpuGate(const VcpuGate&) = delete;
  VcpuGate& operator=(const VcpuGate&) = delete;

  // ---- vCPU side ----

  // Enters guest mode, in which a request counts the vCPU as interrupted
  // (STAT-01).
  void EnterGuest() {
    MMU_DCHECK(!in_access());
    stay_.store(stay_.load(std::memory_order_relaxed) | 1, kBarrierOrder);
  }
  void ExitGuest() {
    MMU_DCHECK(!in_access());
    stay_.store((stay_.load(std::memory_order_relaxed) + 1) & ~uint64_t{1},
                std::memory_order_release);
  }

  // Opens an access section and returns 0, or leaves it closed and returns the
  // pending requests: the vCPU must then handle what TakeRequests() returns and
  // begin again.
  //
  // Why no access can use a translation that a flush has dropped (TLB-11). The
  // danger is that each side misses the other's store, because both stores are
  // still in store buffers when the other side loads:
  //
  //   vCPU                                  flusher
  //   V1 sequence_ = odd                    F1 requests_ |= kTlbFlush
  //   V2 LightBarrier                       F2 HeavyBarrier
  //   V3 load requests_                     F3 load sequence_
  //   V4 use the TLB, load or store
  //   V5 sequence_ = even (release)
  //
  // F2 makes the vCPU's processor execute a full barrier at some point between
  // two of its instructions; V2 keeps the compiler from moving V1 and V3 across
  // each other:
  //   1. If that point is before V3, V3 sees F1: the access does not happen.
  //   2. Otherwise it is after V1 too, so F3 sees the odd number, and the
  //      flusher waits until it changes. V5 is a release and F3 an acquire, so
  //      the access of V4 is complete before the flusher continues.
  // EnterGuest publishes guest mode before V1, and the flusher reads it after
  // F2. So if a flusher sees the vCPU outside, V3 will see F1 by the same
  // argument.
  uint32_t BeginAccess() {
    MMU_DCHECK(!in_access());
    const uint64_t opened = sequence_.load(std::memory_order_relaxed) + 1;
    sequence_.store(opened, kBarrierOrder);
    LightBarrier();
    AtHook(HookPoint::kAnnounceToLook);
    const uint32_t requests = requests_.load(kBarrierAcquire);
    if (ABSL_PREDICT_TRUE(requests == 0)) return 0;
    sequence_.store(opened + 1, std::memory_order_release);
    return requests;
  }

  // REQUIRES: an access section is open.
  void EndAccess() {
    MMU_DCHECK(in_access());
    sequence_.store(sequence_.load(std::memory_order_relaxed) + 1,
                    std::memory_order_release);
  }

  // Fetches and clears the requests. The vCPU must carry out all of them before
  // its next access. REQUIRES: no access section is open.
  uint32_t TakeRequests() {
    MMU_DCHECK(!in_access());
    return requests_.exchange(0, std::memory_order_acq_rel);
  }

  // True if this vCPU has an access section open. For the vCPU's own checks.
  bool in_access() const {
    return (sequence_.load(std::memory_order_relaxed) & 1) != 0;
  }

  // Makes flushers say what they flush: they add it to `queue`. Null: each
  // kTlbFlush means the whole TLB. To be called before the gate is shared.
  void set_flush_queue(FlushQueue* queue) { flushes_ = queue; }

  // ---- flusher side ----

  // The flush that a later request kTlbFlush is about. Thread-safe.
  void AddFlush(const TlbFlush& flush) {
    if (flushes_ != nullptr) flushes_->Add(flush);
  }
  // F1 above. Thread-safe.
  void AddRequests(uint32_t bits) {
    requests_.fetch_or(bits, std::memory_order_seq_cst);
  }
  // To be called after HeavyBarrier. Thread-safe.
  bool in_guest() const { return (Stay() & 1) != 0; }
  // F3 above, in two steps: a flusher of many vCPUs first reads all sections,
  // so that its waits overlap. A vCPU that has met the request meanwhile may be
  // in a new section, which the flusher need not wait for. Thread-safe.
  uint64_t Section() const { return sequence_.load(kBarrierAcquire); }
  // Waits until `section` is over, if it was open when Section() returned it.
  // Returns quickly: a section is one access. Must not be called by the vCPU's
  // thread inside its own section.
  void WaitForEndOf(uint64_t section) const {
    if ((section & 1) != 0) WaitForChange(sequence_, section);
  }
  // The same for a stay in guest mode instead of a section. A stay lasts
  // longer, so the caller should have asked the vCPU to exit (kExitGuest), and
  // must hold no lock that the vCPU's thread may take between EnterGuest and
  // ExitGuest. Afterwards the caller sees everything that the vCPU's thread did
  // before ExitGuest.
  uint64_t Stay() const { return stay_.load(kBarrierAcquire); }
  void WaitForExitFrom(uint64_t stay) const {
    if ((stay & 1) != 0) WaitForChange(stay_, stay);
  }
  // For tests and diagnosis. Thread-safe.
  uint32_t pending_requests() const {
    return requests_.load(std::memory_order_acquire);
  }

 private:
  static void WaitForChange(const std::atomic<uint64_t>& counter,
                            uint64_t seen);

  // Written by the vCPU alone; odd while an access section is open.
  alignas(64) std::atomic<uint64_t> sequence_{0};
  // Written by the vCPU alone; odd while it is in guest mode.
  std::atomic<uint64_t> stay_{0};
  // Written by flushers, cleared by the vCPU. The vCPU reads it at every
  // access, so it shares the cache line of the members that the vCPU writes
  // then.
  std::atomic<uint32_t> requests_{0};
  FlushQueue* flushes_ = nullptr;
};

}  // namespace mmu

#endif  // MMU_CORE_TLB_VCPU_GATE_H_
