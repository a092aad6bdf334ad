// The handshake between one vCPU and those who must make sure that it uses no
// stale translation (TLB-01, 02, 11, 12).
//
// A vCPU does every guest access, including the walk of the tables on a TLB
// miss and the insertion of what it found, inside an access section. A flusher
// leaves a request and waits only for the access sections that are open at that
// moment; a vCPU that is between two accesses, handles a fault, or does not run
// the guest at all is not waited for: it meets the request before its next
// access. So no flusher ever waits for a fault handler or for a thread that
// waits for mmu_lock, and a flush may be issued under any lock.
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

namespace mmu {

// Bits of VcpuGate requests.
inline constexpr uint32_t kTlbFlush = 1;
inline constexpr uint32_t kFreeObsoleteRoots = 2;
// No more than "leave the guest", which empties the CPU's dirty log.
inline constexpr uint32_t kExitGuest = 4;
inline constexpr uint32_t kDirtyRingSoftFull = 8;   // left by the vCPU itself
inline constexpr uint32_t kUpdateCpuDirtyLog = 16;  // on or off (DL-09)

// States of a vCPU, changed by itself only:
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

  // A vCPU in guest mode counts as interrupted by a request (STAT-01).
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
  // Why no access can use what a flush has dropped (TLB-11). The danger is that
  // each side misses the other's store, because both are still in their store
  // buffers when the other one loads:
  //
  //   vCPU                                  flusher
  //   V1 sequence_ = odd                    F1 requests_ |= kTlbFlush
  //   V2 LightBarrier                       F2 HeavyBarrier
  //   V3 load requests_                     F3 load sequence_
  //   V4 use the TLB, load or store
  //   V5 sequence_ = even (release)
  //
  // F2 makes the vCPU's processor pass a full barrier at some point between two
  // of its instructions, as V2 keeps the compiler from moving V1 and V3 across:
  //  1. If that point is before V3, V3 sees F1: the access does not happen.
  //  2. Otherwise it is after V1 too, so F3 sees the odd number, and the
  //     flusher waits until it changes. V5 is a release and F3 an acquire, so
  //     the access of V4 is complete before the flusher goes on.
  // In guest mode is published before V1 and read after F2, so a flusher that
  // sees the vCPU outside knows by the same argument that V3 will see F1.
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

  // ---- flusher side ----

  // F1 above. Thread-safe.
  void AddRequests(uint32_t bits) {
    requests_.fetch_or(bits, std::memory_order_seq_cst);
  }
  // To be called after HeavyBarrier. Thread-safe.
  bool in_guest() const { return (Stay() & 1) != 0; }
  // F3 above, in two steps, so that a flusher of many vCPUs looks at all of
  // them first and its waits overlap: a vCPU that has met the request meanwhile
  // may well be in a section again, which need not be waited for. Thread-safe.
  uint64_t Section() const { return sequence_.load(kBarrierAcquire); }
  // Waits until `section` is over, if it was open when Section() gave it.
  // Returns quickly: a section is one access. Must not be called by the vCPU's
  // thread inside its own section.
  void WaitForEndOf(uint64_t section) const {
    if ((section & 1) != 0) WaitForChange(sequence_, section);
  }
  // The same with a stay in guest mode in place of a section. Its end takes
  // longer, so the vCPU should have been asked for it (kExitGuest), and whoever
  // waits holds nothing that its thread may want between EnterGuest and
  // ExitGuest. What the vCPU's thread did before ExitGuest is seen then.
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
  // Written by flushers, cleared by the vCPU; read at every access, so on the
  // same line as what the vCPU writes there.
  std::atomic<uint32_t> requests_{0};
};

}  // namespace mmu

#endif  // MMU_CORE_TLB_VCPU_GATE_H_
