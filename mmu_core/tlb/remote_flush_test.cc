#include "mmu_core/tlb/remote_flush.h"

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/level.h"
#include "mmu_core/stats/flush_metrics.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/sync/asymmetric_barrier.h"
#include "mmu_core/testing/litmus.h"
#include "mmu_core/testing/lock_trace.h"
#include "mmu_core/testing/rounds.h"
#include "mmu_core/tlb/flush_queue.h"
#include "mmu_core/tlb/tlb_flush.h"
#include "mmu_core/tlb/tlb_tag.h"
#include "mmu_core/tlb/vcpu_gate.h"
#include "mmu_core/tlb/vcpu_tlb.h"

namespace mmu {
namespace {

using ::mmu::testing::AwaitChange;
using ::mmu::testing::DelayInRound;
using ::mmu::testing::LockTrace;
using ::mmu::testing::Rounds;

constexpr int kZap = static_cast<int>(FlushReason::kZap);

// Covers: TLB-01, TLB-02, STAT-01, STAT-02
TEST(RemoteTlbTest, IdleVcpusAreNotInterruptedButFlushBeforeTheirNextAccess) {
  VcpuGate gates[2];
  RemoteTlb remote;
  for (VcpuGate& gate : gates) remote.AddVcpu(&gate);
  MmuCost cost;
  const FlushResult result =
      remote.Flush(FlushScope::kVm, FlushReason::kZap, &cost);
  EXPECT_EQ(result.vcpus_kicked, 0);
  EXPECT_EQ(cost.tlb_flush_count, 1);
  EXPECT_EQ(cost.vcpus_kicked_count, 0);
  const FlushMetrics metrics = remote.Snapshot();
  EXPECT_EQ(metrics.remote_tlb_flush_requests, 1u);
  EXPECT_EQ(metrics.remote_tlb_flush, 0u);
  for (VcpuGate& gate : gates) {
    gate.EnterGuest();
    EXPECT_EQ(gate.BeginAccess(), kTlbFlush);
    EXPECT_FALSE(gate.in_access());
    EXPECT_EQ(gate.TakeRequests(), kTlbFlush);
    EXPECT_EQ(gate.BeginAccess(), 0u);
    EXPECT_TRUE(gate.in_access());
    gate.EndAccess();
    gate.ExitGuest();
    remote.RemoveVcpu(&gate);
  }
}

// Covers: TLB-01, STAT-01, STAT-02
TEST(RemoteTlbTest, OnlyVcpusInGuestModeCountAsInterrupted) {
  VcpuGate idle;
  VcpuGate running;
  RemoteTlb remote;
  remote.AddVcpu(&idle);
  remote.AddVcpu(&running);
  running.EnterGuest();
  MmuCost cost;
  EXPECT_EQ(
      remote.Flush(FlushScope::kVm, FlushReason::kZap, &cost).vcpus_kicked, 1);
  running.ExitGuest();
  EXPECT_EQ(
      remote.Flush(FlushScope::kVm, FlushReason::kZap, &cost).vcpus_kicked, 0);
  EXPECT_EQ(cost.tlb_flush_count, 2);
  EXPECT_EQ(cost.vcpus_kicked_count, 1);
  const FlushMetrics metrics = remote.Snapshot();
  EXPECT_EQ(metrics.remote_tlb_flush_requests, 2u);
  EXPECT_EQ(metrics.remote_tlb_flush, 1u);
  EXPECT_EQ(metrics.requests[kZap], 2u);
  EXPECT_EQ(metrics.kicked[kZap], 1u);
  EXPECT_EQ(metrics.seconds[static_cast<int>(FlushScope::kVm)].count, 2u);
  remote.RemoveVcpu(&idle);
  remote.RemoveVcpu(&running);
}

// Covers: TLB-03
TEST(RemoteTlbTest, EachScopeAsksForOneFullFlushAndCountsUnderItsName) {
  for (const FlushScope scope : {FlushScope::kRange, FlushScope::kVm}) {
    VcpuGate running;
    VcpuGate idle;
    RemoteTlb remote;
    remote.AddVcpu(&running);
    remote.AddVcpu(&idle);
    running.EnterGuest();
    MmuCost cost;
    remote.Flush(scope, FlushReason::kZap, &cost);
    running.ExitGuest();
    EXPECT_EQ(running.TakeRequests(), kTlbFlush);
    EXPECT_EQ(idle.TakeRequests(), kTlbFlush);
    EXPECT_EQ(cost.tlb_flush_count, 1);
    const FlushMetrics metrics = remote.Snapshot();
    EXPECT_EQ(metrics.remote_tlb_flush_requests, 1u);
    EXPECT_EQ(metrics.remote_tlb_flush, 1u);
    for (const FlushScope other : {FlushScope::kRange, FlushScope::kVm}) {
      const uint64_t expected = other == scope ? 1 : 0;
      EXPECT_EQ(metrics.Flushes(other, FlushReason::kZap), expected);
      EXPECT_EQ(metrics.seconds[static_cast<int>(other)].count, expected);
    }
    remote.RemoveVcpu(&running);
    remote.RemoveVcpu(&idle);
  }
}

TEST(RemoteTlbTest, OtherRequestsAccumulateAndAreNoFlush) {
  VcpuGate gate;
  RemoteTlb remote;
  remote.AddVcpu(&gate);
  remote.Request(kFreeObsoleteRoots);
  remote.Request(kExitGuest);
  EXPECT_EQ(remote.Snapshot().remote_tlb_flush_requests, 0u);
  EXPECT_EQ(gate.BeginAccess(), kFreeObsoleteRoots | kExitGuest);
  EXPECT_EQ(gate.TakeRequests(), kFreeObsoleteRoots | kExitGuest);
  EXPECT_EQ(gate.TakeRequests(), 0u);
  remote.RemoveVcpu(&gate);
}

TEST(RemoteTlbTest, RemovedVcpuGetsNoMoreRequests) {
  VcpuGate gate;
  RemoteTlb remote;
  remote.AddVcpu(&gate);
  remote.RemoveVcpu(&gate);
  remote.Flush(FlushScope::kVm, FlushReason::kZap, nullptr);
  EXPECT_EQ(gate.pending_requests(), 0u);
}

TEST(RemoteTlbTest, ElidedAndLocalFlushesAreNoRequests) {
  RemoteTlb remote;
  remote.CountElided(FlushReason::kZap);
  remote.CountVcpuFlush(MmuKind::kShadow, FlushReason::kRoot);
  const FlushMetrics metrics = remote.Snapshot();
  EXPECT_EQ(metrics.elided[kZap], 1u);
  EXPECT_EQ(metrics.Flushes(FlushScope::kVcpu, FlushReason::kRoot), 1u);
  EXPECT_EQ(metrics.remote_tlb_flush_requests, 0u);
}

TEST(RemoteTlbTest, AFlushIsCountedForTheMmuThatIssuesIt) {
  for (const MmuKind guest : {MmuKind::kTdp, MmuKind::kShadow}) {
    RemoteTlb remote(guest);
    remote.Flush(MmuKind::kTdp, FlushScope::kVm, FlushReason::kZap, TlbFlush(),
                 nullptr);
    remote.Flush(MmuKind::kShadow, FlushScope::kVm, FlushReason::kZap,
                 TlbFlush(), nullptr);
    remote.CountVcpuFlush(MmuKind::kShadow, FlushReason::kRoot);
    // This flush is for several MMUs at once.
    remote.Flush(FlushScope::kRange, FlushReason::kWriteProtect, nullptr);
    const FlushMetrics metrics = remote.Snapshot();
    const auto flushes = [&metrics](MmuKind mmu, FlushScope scope,
                                    FlushReason reason) {
      return metrics.flushes[static_cast<int>(mmu)][static_cast<int>(scope)]
                            [static_cast<int>(reason)];
    };
    for (const MmuKind mmu : {MmuKind::kTdp, MmuKind::kShadow}) {
      EXPECT_EQ(flushes(mmu, FlushScope::kVm, FlushReason::kZap), 1u);
      EXPECT_EQ(flushes(mmu, FlushScope::kVcpu, FlushReason::kRoot),
                mmu == MmuKind::kShadow ? 1u : 0u);
      EXPECT_EQ(flushes(mmu, FlushScope::kRange, FlushReason::kWriteProtect),
                mmu == guest ? 1u : 0u);
    }
    EXPECT_EQ(metrics.Flushes(FlushScope::kVm, FlushReason::kZap), 2u);
    EXPECT_EQ(metrics.remote_tlb_flush_requests, 3u);
  }
}

// Covers: TLB-02
TEST(RemoteTlbTest, FlushWaitsForTheAccessThatIsGoingOn) {
  VcpuGate gate;
  RemoteTlb remote;
  remote.AddVcpu(&gate);
  std::atomic<bool> open{false};
  int result_of_access = 0;  // not atomic: the flush must order it
  std::thread vcpu([&] {
    gate.EnterGuest();
    ASSERT_EQ(gate.BeginAccess(), 0u);
    open = true;
    while (gate.pending_requests() == 0) std::this_thread::yield();
    for (int i = 0; i < 1'000; ++i) std::this_thread::yield();
    result_of_access = 1;
    gate.EndAccess();
    gate.ExitGuest();
  });
  while (!open) std::this_thread::yield();
  remote.Flush(FlushScope::kVm, FlushReason::kZap, nullptr);
  EXPECT_EQ(result_of_access, 1);
  vcpu.join();
  remote.RemoveVcpu(&gate);
}

// A vCPU with a TLB in front of one mapping, which leads to one of two pages.
// A page holds the generation of the mapping that leads to it.
class Guest {
 public:
  // Does one access through the TLB. The pages are plain memory:
  // ThreadSanitizer reports an access that overlaps the reuse of a page as a
  // race, and a later access reads the wrong generation.
  void Access(VcpuGate& gate, VcpuTlb& tlb) {
    while (gate.BeginAccess() != 0) {
      if ((gate.TakeRequests() & kTlbFlush) != 0) tlb.FlushAll();
    }
    // The floor is read first: a thread that sees a floor began its access
    // after the flush returned.
    const uint64_t floor = floor_.load(std::memory_order_acquire);
    const TlbEntry* entry = tlb.Lookup(PageNumber(0));
    if (entry == nullptr) {
      const uint64_t generation = mapping_.load(std::memory_order_acquire);
      tlb.Insert(TlbEntry{.base_page = PageNumber(0), .pfn = Pfn(generation)});
      entry = tlb.Lookup(PageNumber(0));
    } else {
      hits_.fetch_add(1, std::memory_order_relaxed);
    }
    const uint64_t cached = entry->pfn.value();
    if (cached < floor) stale_.fetch_add(1, std::memory_order_relaxed);
    if (pages_[cached % 2] != cached) {
      overwritten_.fetch_add(1, std::memory_order_relaxed);
    }
    gate.EndAccess();
  }

  // Moves the mapping to the other page. Only one thread may call it.
  void Remap(RemoteTlb& remote) {
    const uint64_t next = mapping_.load(std::memory_order_relaxed) + 1;
    pages_[next % 2] = next;
    mapping_.store(next, std::memory_order_release);
    remote.Flush(FlushScope::kVm, FlushReason::kZap, nullptr);
    floor_.store(next, std::memory_order_release);
  }

  uint64_t hits() const { return hits_; }
  int stale() const { return stale_; }
  int overwritten() const { return overwritten_; }

 private:
  std::array<uint64_t, 2> pages_{};
  std::atomic<uint64_t> mapping_{0};
  std::atomic<uint64_t> floor_{0};
  std::atomic<uint64_t> hits_{0};
  std::atomic<int> stale_{0};
  std::atomic<int> overwritten_{0};
};

// Covers: TLB-01, TLB-11, TLB-12
TEST(RemoteTlbTest, AfterAFlushNoAccessUsesWhatWasCachedBefore) {
  constexpr int kVcpus = 3;
  Rounds remaps(5'000);
  Guest guest;
  RemoteTlb remote;
  std::atomic<bool> stop{false};
  std::array<VcpuGate, kVcpus> gates;
  for (VcpuGate& gate : gates) remote.AddVcpu(&gate);
  std::vector<std::thread> vcpus;
  for (VcpuGate& gate : gates) {
    vcpus.emplace_back([&guest, &stop, &gate] {
      VcpuTlb tlb;
      tlb.Select(TlbTag::OfPcid(0));
      while (!stop) {
        gate.EnterGuest();
        for (int i = 0; i < 500; ++i) guest.Access(gate, tlb);
        gate.ExitGuest();
      }
    });
  }
  while (guest.hits() == 0) std::this_thread::yield();
  while (remaps.Next()) guest.Remap(remote);
  stop = true;
  for (std::thread& vcpu : vcpus) vcpu.join();
  for (VcpuGate& gate : gates) remote.RemoveVcpu(&gate);
  EXPECT_EQ(guest.stale(), 0);
  EXPECT_EQ(guest.overwritten(), 0);
  const FlushMetrics metrics = remote.Snapshot();
  EXPECT_EQ(metrics.remote_tlb_flush_requests,
            static_cast<uint64_t>(remaps.done()));
  EXPECT_LE(metrics.remote_tlb_flush, metrics.remote_tlb_flush_requests);
}

// The store-buffer litmus of vcpu_gate.h: the vCPU enters the guest and begins
// an access while a flusher changes an SPTE and flushes. Either the access
// meets the request and sees the new SPTE, or the flusher sees the vCPU in
// guest mode and waits for the access. A delay that changes from round to round
// makes the two meet at every possible distance.
// Covers: TLB-11
TEST(RemoteTlbTest, AnAccessMeetsTheRequestOrTheFlusherSeesTheVcpu) {
  constexpr int kNoMore = -1;
  alignas(64) std::atomic<int> started{0};
  alignas(64) std::atomic<int> finished{0};
  std::atomic<int> spte{0};
  VcpuGate gate;
  RemoteTlb remote;
  remote.AddVcpu(&gate);
  uint32_t met = 0;   // by the access; ordered by `finished`
  int read_spte = 0;  // likewise
  int used = 0;       // written by an access alone; the flush must order it

  std::thread vcpu([&] {
    for (int round = 0; (round = AwaitChange(started, round)) != kNoMore;) {
      gate.EnterGuest();
      met = gate.BeginAccess();
      if (met != 0) {
        while (gate.BeginAccess() != 0) gate.TakeRequests();
        read_spte = spte.load(std::memory_order_relaxed);
      } else {
        used = round;
      }
      gate.EndAccess();
      finished.store(round, std::memory_order_release);
    }
  });
  int both_missed = 0;
  int not_waited_for = 0;
  int read_old_spte = 0;
  Rounds rounds(10'000);
  while (rounds.Next()) {
    const int round = rounds.done();
    started.store(round, std::memory_order_seq_cst);
    DelayInRound(round);
    spte.store(round, std::memory_order_relaxed);
    const FlushResult result =
        remote.Flush(FlushScope::kVm, FlushReason::kZap, nullptr);
    const int used_before_the_return = used;
    AwaitChange(finished, round - 1);
    if (met == 0 && result.vcpus_kicked == 0) ++both_missed;
    if (used != used_before_the_return) ++not_waited_for;
    if (met != 0 && read_spte != round) ++read_old_spte;
    // The vCPU stands still until the next round.
    gate.ExitGuest();
    gate.TakeRequests();
  }
  started.store(kNoMore, std::memory_order_release);
  vcpu.join();
  remote.RemoveVcpu(&gate);
  EXPECT_EQ(both_missed, 0);
  EXPECT_EQ(not_waited_for, 0);
  EXPECT_EQ(read_old_spte, 0);
}

// V1 and V3 of vcpu_gate.h. Before the vCPU looks at the requests, a flusher
// can see its mode and its access; a request left at that moment is met.
// Covers: TLB-11
TEST(RemoteTlbTest, AVcpuPublishesItsModeAndItsAccessBeforeItLooks) {
  VcpuGate gate;
  EXPECT_EQ(gate.Section() % 2, 0u);
  int looks = 0;
  LockTrace trace([&](const LockTrace::Event& event) {
    if (event.point != HookPoint::kAnnounceToLook) return;
    ++looks;
    EXPECT_TRUE(gate.in_guest());
    EXPECT_EQ(gate.Section() % 2, 1u);
    gate.AddRequests(kTlbFlush);
  });
  gate.EnterGuest();
  EXPECT_EQ(gate.BeginAccess(), kTlbFlush);
  EXPECT_EQ(gate.Section() % 2, 0u) << "nobody waits for it";
  gate.ExitGuest();
  EXPECT_EQ(looks, 1);
}

// A vCPU that took the request without the flush would find an empty queue, and
// nothing would ask it to look again.
// Covers: TLB-11, TLB-12
TEST(RemoteTlbTest, Race5WhoFindsTheRequestFindsTheFlush) {
  VcpuGate gate;
  FlushQueue queue;
  gate.set_flush_queue(&queue);
  RemoteTlb remote;
  remote.AddVcpu(&gate);
  size_t found = 0;
  const auto meet_requests = [&] {
    if ((gate.TakeRequests() & kTlbFlush) != 0) found += queue.Take().count;
  };
  {
    LockTrace trace([&](const LockTrace::Event& event) {
      if (event.point == HookPoint::kFlushToRequest) meet_requests();
    });
    remote.Flush(MmuKind::kTdp, FlushScope::kRange, FlushReason::kZap,
                 {.mmu = MmuKind::kTdp, .gfns = GfnRange::Of(Gfn(7), 1)},
                 nullptr);
  }
  meet_requests();
  EXPECT_EQ(found, 1u);
  remote.RemoveVcpu(&gate);
}

// Who waits for a vCPU's exit, or finds it outside, sees what its thread has
// done inside: the pages in its log are marked (RACE-31). For TSan.
// Covers: DL-31
TEST(RemoteTlbTest, Race31WhoFindsAVcpuOutsideSeesWhatItDidInside) {
  for (int round = 0; round < 200; ++round) {
    const bool waits = round % 2 == 0;
    VcpuGate gate;
    RemoteTlb remote;
    remote.AddVcpu(&gate);
    alignas(64) int marked = 0;  // not atomic: the exit orders it
    alignas(64) std::atomic<bool> inside{false};
    std::thread vcpu([&] {
      gate.EnterGuest();
      inside.store(true, std::memory_order_relaxed);
      while (waits && (gate.pending_requests() & kExitGuest) == 0) {
        std::this_thread::yield();
      }
      marked = 1;
      gate.ExitGuest();
    });
    while (!inside.load(std::memory_order_relaxed)) std::this_thread::yield();
    while (!waits && gate.in_guest()) std::this_thread::yield();
    EXPECT_EQ(remote.KickOut().vcpus_kicked, waits ? 1 : 0);
    EXPECT_EQ(marked, 1);
    vcpu.join();
    remote.RemoveVcpu(&gate);
  }
}

#ifndef MMU_TSAN  // TSan knows no such barrier

// F1 to F3 of vcpu_gate.h. A vCPU that enters the guest at the moment of the
// barrier finds the request, and the flusher finds the vCPU.
// Covers: TLB-11
TEST(RemoteTlbTest, AFlusherAsksThenIssuesTheBarrierThenLooks) {
  VcpuGate gate;
  RemoteTlb remote;
  remote.AddVcpu(&gate);
  int barriers = 0;
  FlushResult result;
  {
    LockTrace trace([&](const LockTrace::Event& event) {
      if (event.point != HookPoint::kHeavyBarrier) return;
      ++barriers;
      gate.EnterGuest();
      EXPECT_EQ(gate.BeginAccess(), kTlbFlush);
      if (gate.in_access()) gate.EndAccess();
    });
    result = remote.Flush(FlushScope::kVm, FlushReason::kZap, nullptr);
  }
  EXPECT_EQ(barriers, 1);
  EXPECT_EQ(result.vcpus_kicked, 1);
  gate.ExitGuest();
  remote.RemoveVcpu(&gate);
}

// A vCPU that enters the guest at the moment of the barrier is made to exit.
// Covers: DL-31
TEST(RemoteTlbTest, AKickIssuesTheBarrierThenLooks) {
  VcpuGate gate;
  RemoteTlb remote;
  remote.AddVcpu(&gate);
  FlushResult result;
  {
    LockTrace trace([&](const LockTrace::Event& event) {
      if (event.point == HookPoint::kHeavyBarrier) gate.EnterGuest();
      if (event.point == HookPoint::kKickToWait && gate.in_guest()) {
        EXPECT_EQ(gate.TakeRequests(), kExitGuest);
        gate.ExitGuest();
      }
    });
    result = remote.KickOut();
  }
  EXPECT_EQ(result.vcpus_kicked, 1);
  remote.RemoveVcpu(&gate);
}

#endif

// Covers: TLB-02
TEST(RemoteTlbTest, VcpusThatFlushEachOtherDoNotWaitForEachOther) {
  std::atomic<int> flushes{0};
  RemoteTlb remote;
  std::array<VcpuGate, 2> gates;
  for (VcpuGate& gate : gates) remote.AddVcpu(&gate);
  std::vector<std::thread> vcpus;
  for (VcpuGate& gate : gates) {
    vcpus.emplace_back([&remote, &flushes, &gate] {
      gate.EnterGuest();
      Rounds rounds(1'000);
      while (rounds.Next()) {
        while (gate.BeginAccess() != 0) gate.TakeRequests();
        gate.EndAccess();
        remote.Flush(FlushScope::kVm, FlushReason::kUnsync, nullptr);
      }
      gate.ExitGuest();
      flushes += rounds.done();
    });
  }
  for (std::thread& vcpu : vcpus) vcpu.join();
  for (VcpuGate& gate : gates) remote.RemoveVcpu(&gate);
  EXPECT_EQ(remote.Snapshot().remote_tlb_flush_requests,
            static_cast<uint64_t>(flushes));
}

}  // namespace
}  // namespace mmu
