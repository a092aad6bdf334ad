#include "mmu_core/tlb/remote_flush.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "mmu_core/base/check.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/sync/asymmetric_barrier.h"
#include "mmu_core/sync/spin.h"

namespace mmu {
namespace {

uint64_t Load(const std::atomic<uint64_t>& counter) {
  return counter.load(std::memory_order_relaxed);
}

void Bump(std::atomic<uint64_t>& counter, uint64_t n = 1) {
  counter.fetch_add(n, std::memory_order_relaxed);
}

// The size of an array on the stack, since nothing may be allocated under
// mmu_lock.
constexpr size_t kSectionsAtATime = 256;

}  // namespace

RemoteTlb::~RemoteTlb() {
#ifndef NDEBUG
  ReaderLock lock(vcpus_mu_);
  MMU_CHECK(vcpus_.empty());
#endif
}

void RemoteTlb::AddVcpu(VcpuGate* gate) {
  WriterLock lock(vcpus_mu_);
  MMU_DCHECK(std::find(vcpus_.begin(), vcpus_.end(), gate) == vcpus_.end());
  vcpus_.push_back(gate);
}

void RemoteTlb::RemoveVcpu(VcpuGate* gate) {
  WriterLock lock(vcpus_mu_);
  const auto it = std::find(vcpus_.begin(), vcpus_.end(), gate);
  MMU_CHECK(it != vcpus_.end());
  vcpus_.erase(it);
}

FlushResult RemoteTlb::Request(uint32_t bits) {
  const TlbFlush everything;
  return Ask(bits, (bits & kTlbFlush) != 0 ? &everything : nullptr);
}

FlushResult RemoteTlb::Ask(uint32_t bits, const TlbFlush* flush) {
  FlushResult result;
  ReaderLock lock(vcpus_mu_);
  for (VcpuGate* gate : vcpus_) {
    // In this order: a vCPU that finds the request finds the flush.
    if (flush != nullptr) gate->AddFlush(*flush);
    AtHook(HookPoint::kFlushToRequest);
    gate->AddRequests(bits);
  }
  // Also orders this thread's SPTE changes before the walks of a vCPU that is
  // found outside of an access section; see VcpuGate::BeginAccess.
  HeavyBarrier();
  for (const VcpuGate* gate : vcpus_) {
    if (gate->in_guest()) ++result.vcpus_kicked;
  }
  // With more vCPUs than processors many vCPUs may be preempted inside a
  // section. So first read all sections, then wait for the open ones: waiting
  // for each vCPU in turn would take the sum of the waits instead of the
  // longest.
  std::array<uint64_t, kSectionsAtATime> sections;
  for (size_t first = 0; first < vcpus_.size(); first += kSectionsAtATime) {
    const size_t end = std::min(vcpus_.size(), first + kSectionsAtATime);
    for (size_t i = first; i < end; ++i) {
      sections[i - first] = vcpus_[i]->Section();
    }
    for (size_t i = first; i < end; ++i) {
      vcpus_[i]->WaitForEndOf(sections[i - first]);
    }
  }
  return result;
}

FlushResult RemoteTlb::KickOut() {
  FlushResult result;
  ReaderLock lock(vcpus_mu_);
  // After the barrier, Stay() is current for each vCPU whose guest has acted
  // before this call: it tells whether that vCPU is in guest mode.
  HeavyBarrier();
  // A vCPU outside of guest mode needs no request, and this call does not wait
  // for a vCPU that enters later.
  std::array<uint64_t, kSectionsAtATime> stays;
  for (size_t first = 0; first < vcpus_.size(); first += kSectionsAtATime) {
    const size_t end = std::min(vcpus_.size(), first + kSectionsAtATime);
    for (size_t i = first; i < end; ++i) {
      const uint64_t stay = vcpus_[i]->Stay();
      stays[i - first] = stay;
      if ((stay & 1) == 0) continue;
      vcpus_[i]->AddRequests(kExitGuest);
      ++result.vcpus_kicked;
    }
    AtHook(HookPoint::kKickToWait);
    for (size_t i = first; i < end; ++i) {
      vcpus_[i]->WaitForExitFrom(stays[i - first]);
    }
  }
  return result;
}

FlushResult RemoteTlb::Flush(MmuKind mmu, FlushScope scope, FlushReason reason,
                             const TlbFlush& flush, MmuCost* cost) {
  const int m = static_cast<int>(mmu);
  const int s = static_cast<int>(scope);
  const int r = static_cast<int>(reason);
  const int64_t start = MonotonicNanos();
  const TlbFlush issued = tlbi_ == nullptr ? flush : tlbi_->Issue(flush);
  const FlushResult result = Ask(kTlbFlush, &issued);
  seconds_[s].Record(MonotonicNanos() - start);
  Bump(flushes_[m][s][r]);
  Bump(requests_[r]);
  if (result.vcpus_kicked > 0) {
    Bump(kicked_[r], result.vcpus_kicked);
    Bump(interrupting_flushes_);
  }
  if (cost != nullptr) {
    ++cost->tlb_flush_count;
    cost->vcpus_kicked_count += result.vcpus_kicked;
  }
  return result;
}

void RemoteTlb::CountElided(FlushReason reason) {
  Bump(elided_[static_cast<int>(reason)]);
}

void RemoteTlb::CountVcpuFlush(MmuKind mmu, FlushReason reason) {
  Bump(flushes_[static_cast<int>(mmu)][static_cast<int>(FlushScope::kVcpu)]
               [static_cast<int>(reason)]);
}

FlushMetrics RemoteTlb::Snapshot() const {
  FlushMetrics metrics;
  metrics.remote_tlb_flush = Load(interrupting_flushes_);
  for (int reason = 0; reason < kFlushReasons; ++reason) {
    metrics.requests[reason] = Load(requests_[reason]);
    metrics.remote_tlb_flush_requests += metrics.requests[reason];
    metrics.kicked[reason] = Load(kicked_[reason]);
    metrics.elided[reason] = Load(elided_[reason]);
  }
  for (int scope = 0; scope < kFlushScopes; ++scope) {
    for (int mmu = 0; mmu < kMmuKinds; ++mmu) {
      for (int reason = 0; reason < kFlushReasons; ++reason) {
        metrics.flushes[mmu][scope][reason] =
            Load(flushes_[mmu][scope][reason]);
      }
    }
    metrics.seconds[scope] = seconds_[scope].Snapshot();
  }
  return metrics;
}

}  // namespace mmu
