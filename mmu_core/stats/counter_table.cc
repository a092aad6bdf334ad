#include "mmu_core/stats/counter_table.h"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <string_view>

#include "mmu_core/base/access.h"
#include "mmu_core/base/level.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/stats/latency_histogram.h"
#include "mmu_core/stats/mmu_counters.h"
#include "mmu_core/stats/process_stats.h"
#include "mmu_core/stats/shadow_counters.h"
#include "mmu_core/stats/vcpu_counters.h"
#include "mmu_core/stats/vm_counters.h"

namespace mmu {
namespace {

using Index = CounterIndex;
using Vm = VmStatsSnapshot;
using Vcpu = VcpuStatsSnapshot;
using Process = ProcessStatsSnapshot;

constexpr auto kCumulative = CounterKind::kCumulative;
constexpr auto kInstant = CounterKind::kInstant;
constexpr auto kPeak = CounterKind::kPeak;
constexpr auto kBytes = CounterUnit::kBytes;
constexpr auto kNanoseconds = CounterUnit::kNanoseconds;
constexpr auto kListed = InStatistics::kYes;
constexpr auto kFirstEvent = SeriesFrom::kFirstEvent;
constexpr auto kWork = HistogramReach::kWork;

// --- Labels ---

template <typename Enum>
std::string_view NameOf(int index) {
  return ToString(static_cast<Enum>(index));
}

template <Level kFirst>
std::string_view SizeName(int index) {
  return PageSizeName(static_cast<Level>(ToInt(kFirst) + index));
}

constexpr CounterLabel kMode = {"mode", kLockModes, NameOf<LockMode>};
constexpr CounterLabel kOp = {"op", kLockOps, NameOf<LockOp>};
constexpr CounterLabel kScope = {"scope", kFlushScopes, NameOf<FlushScope>};
constexpr CounterLabel kReason = {"reason", kFlushReasons, NameOf<FlushReason>};
constexpr CounterLabel kMmu = {"mmu", kMmuKinds, NameOf<MmuKind>};
constexpr CounterLabel kTlbi = {"operation", kTlbiKinds, NameOf<TlbiKind>};
constexpr CounterLabel kPageSizes = {"page_size", 3, SizeName<Level::k4K>};
constexpr CounterLabel kFrom = {"from", 2, SizeName<Level::k2M>};
constexpr CounterLabel kTo = {"to", 2, SizeName<Level::k2M>};
constexpr CounterLabel kTrigger = {"trigger", kSplitTriggers,
                                   NameOf<SplitTrigger>};
constexpr CounterLabel kFailure = {"reason", kSplitFailures,
                                   NameOf<SplitFailure>};
constexpr CounterLabel kLimit = {"limit", kThrottleLimits,
                                 NameOf<ThrottleLimit>};
constexpr CounterLabel kAge = {"result", 2, [](int i) -> std::string_view {
                                 return i == 0 ? "young" : "old";
                               }};
constexpr CounterLabel kAgingLock = {"lock", kAgingLocks, NameOf<AgingLock>};
constexpr CounterLabel kCause = {"cause", kStallCauses, NameOf<StallCause>};
constexpr CounterLabel kRingFull = {
    "cause", 1, [](int) { return ToString(StallCause::kRingFull); }};
constexpr CounterLabel kOutcome = {"result", kFaultOutcomes,
                                   NameOf<FaultOutcome>};
constexpr CounterLabel kResult = {"result", kFaultResults, NameOf<FaultResult>};
constexpr CounterLabel kAccess = {"access", kAccessKinds, NameOf<AccessKind>};
constexpr CounterLabel kPath = {"path", 2, [](int i) -> std::string_view {
                                  return i == 0 ? "fast" : "slow";
                                }};

constexpr CounterLabel kTableState = {
    "state", 2, [](int i) -> std::string_view {
      return i == 0 ? "in_use" : "grace_period";
    }};

// --- Places ---

// A member of a snapshot that is a number, or a histogram.
template <auto kMember>
const uint64_t& InVm(const Vm& vm, const Index&) {
  return vm.*kMember;
}
template <auto kMember>
const LatencySnapshot& HistogramInVm(const Vm& vm, const Index&) {
  return vm.*kMember;
}
// A member that is an array, by the first label.
template <auto kMember>
const uint64_t& ArrayInVm(const Vm& vm, const Index& i) {
  return (vm.*kMember)[i[0]];
}
template <auto kMember>
const uint64_t& InFlush(const Vm& vm, const Index&) {
  return vm.flush.*kMember;
}
template <auto kMember>
const uint64_t& ByReason(const Vm& vm, const Index& i) {
  return (vm.flush.*kMember)[i[0]];
}
template <auto kMember>
const auto& InLock(const Vm& vm, const Index& i) {
  return vm.lock.ops[i[0]][i[1]].*kMember;
}
template <auto kMember>
const uint64_t& InVcpu(const Vcpu& vcpu, const Index&) {
  return vcpu.*kMember;
}

// --- What is counted ---

uint64_t Load(const std::atomic<uint64_t>& counter) {
  return counter.load(std::memory_order_relaxed);
}

// A member of VmCounters that is a number, or a histogram.
template <auto kMember>
uint64_t OfVm(const VmCounters& vm, const Index&) {
  return Load(vm.*kMember);
}
template <auto kMember>
LatencySnapshot HistogramOfVm(const VmCounters& vm, const Index&) {
  return (vm.*kMember).Snapshot();
}
const MmuCounters& MmuOf(const VmCounters& vm, int kind) {
  return vm.of(static_cast<MmuKind>(kind));
}
// The sum of what a function returns of each MMU.
template <typename Fn>
uint64_t SumOverMmus(const VmCounters& vm, const Fn& fn) {
  uint64_t sum = 0;
  for (int kind = 0; kind < kMmuKinds; ++kind) {
    sum += fn(MmuOf(vm, kind));
  }
  return sum;
}
// A member of MmuCounters, summed over the MMUs.
template <auto kMember>
uint64_t OfMmus(const VmCounters& vm, const Index&) {
  return SumOverMmus(vm,
                     [](const MmuCounters& mmu) { return Load(mmu.*kMember); });
}
// A member of ShadowCounters, summed over the MMUs; the highest of a peak.
template <auto kMember>
uint64_t OfShadow(const VmCounters& vm, const Index&) {
  return SumOverMmus(
      vm, [](const MmuCounters& mmu) { return Load(mmu.shadow.*kMember); });
}
template <auto kMember>
uint64_t PeakOfShadow(const VmCounters& vm, const Index&) {
  uint64_t highest = 0;
  for (int kind = 0; kind < kMmuKinds; ++kind) {
    highest = std::max(highest, Load(MmuOf(vm, kind).shadow.*kMember));
  }
  return highest;
}
template <auto kMember>
uint64_t OfVcpu(const VcpuCounters& vcpu, const Index&) {
  return static_cast<uint64_t>((vcpu.*kMember).Get());
}

// The mappings of one size in a snapshot, summed over the MMUs.
template <Level kSize>
uint64_t LeafsOfMmus(const Vm& vm, const Index&) {
  uint64_t sum = 0;
  for (const MmuStatsSnapshot& mmu : vm.mmus) {
    sum += mmu.leafs[ToInt(kSize) - ToInt(Level::k4K)];
  }
  return sum;
}

// The size of index `i` of the labels `from` and `to`.
Level HugeSize(int i) { return static_cast<Level>(ToInt(Level::k2M) + i); }

// --- The rows ---

constexpr VmCounterRow kVmRows[] = {
    {.name = "guest_memory_bytes",
     .kind = kInstant,
     .unit = kBytes,
     .in_statistics = kListed,
     .metric = {"guest_memory_bytes", "Size of all memslots."},
     .value = InVm<&Vm::guest_memory_bytes>},

    // mmu_lock.
    {.name = "mmu_lock_wait",
     .unit = kNanoseconds,
     .metric = {"mmu_lock_wait_seconds",
                "Time that contended acquisitions of mmu_lock waited."},
     .labels = {&kMode, &kOp},
     .histogram = InLock<&LockOpMetrics::wait>},
    {.name = "mmu_lock_hold",
     .unit = kNanoseconds,
     .metric = {"mmu_lock_hold_seconds",
                "Time for which mmu_lock was held; op=\"fault\" is sampled."},
     .labels = {&kMode, &kOp},
     .histogram = InLock<&LockOpMetrics::hold>},
    {.name = "mmu_lock_hold_of_op",
     .unit = kNanoseconds,
     .vm_metric = {"vm_mmu_lock_hold_seconds_total",
                   "Time for which mmu_lock of a VM was held, by operation; "
                   "op=\"fault\" is estimated by sampling.",
                   kFirstEvent},
     .labels = {&kOp},
     .value = ArrayInVm<&Vm::lock_hold_nanos>},
    {.name = "mmu_lock_acquisitions",
     .metric = {"mmu_lock_acquisitions_total", "Acquisitions of mmu_lock."},
     .labels = {&kMode, &kOp},
     .value = InLock<&LockOpMetrics::acquisitions>},
    {.name = "mmu_lock_contended",
     .metric = {"mmu_lock_contended_total",
                "Acquisitions of mmu_lock that had to wait."},
     .labels = {&kMode, &kOp},
     .value = InLock<&LockOpMetrics::contended>},
    {.name = "mmu_lock_yields",
     .metric = {"mmu_lock_yields_total",
                "Times that mmu_lock was given to a waiter in the middle of "
                "work."},
     .labels = {&kMode, &kOp},
     .value = InLock<&LockOpMetrics::yields>},
    {.name = "rmap_lock_contended",
     .metric = {"rmap_lock_contended_total",
                "Acquisitions of the lock of a reverse map that had to wait."},
     .value = InVm<&Vm::rmap_lock_contended>,
     .live = OfMmus<&MmuCounters::rmap_lock_contended>},

    // TLB flushes.
    {.name = "remote_tlb_flush",
     .in_statistics = kListed,
     .value = InFlush<&FlushMetrics::remote_tlb_flush>},
    {.name = "remote_tlb_flush_requests",
     .in_statistics = kListed,
     .value = InFlush<&FlushMetrics::remote_tlb_flush_requests>},
    {.name = "tlb_flushes",
     .metric = {"tlb_flushes_total",
                "Remote TLB flushes, by the MMU that issued them. One for "
                "several MMUs at once counts for the MMU that the guest runs "
                "on.",
                kFirstEvent},
     .labels = {&kScope, &kReason, &kMmu},
     .value = [](const Vm& vm, const Index& i) -> const uint64_t& {
       return vm.flush.flushes[i[2]][i[0]][i[1]];
     }},
    {.name = "tlb_flush_requests",
     .metric = {"tlb_flush_requests_total",
                "Requested remote TLB flushes, whether or not a vCPU was "
                "running."},
     .vm_metric = {"vm_tlb_flush_requests_total",
                   "Requested remote TLB flushes of a VM.", kFirstEvent},
     .labels = {&kReason},
     .value = ByReason<&FlushMetrics::requests>},
    {.name = "tlb_flush_vcpus_kicked",
     .metric = {"tlb_flush_vcpus_kicked_total",
                "vCPUs interrupted by remote TLB flushes."},
     .labels = {&kReason},
     .value = ByReason<&FlushMetrics::kicked>},
    {.name = "tlb_flush_elided",
     .metric = {"tlb_flush_elided_total",
                "Remote TLB flushes found to be unnecessary."},
     .labels = {&kReason},
     .value = ByReason<&FlushMetrics::elided>},
    {.name = "tlb_flush_time",
     .unit = kNanoseconds,
     .metric = {"tlb_flush_seconds",
                "Time until every vCPU had acknowledged a TLB flush."},
     .labels = {&kScope},
     .histogram = [](const Vm& vm, const Index& i) -> const LatencySnapshot& {
       return vm.flush.seconds[i[0]];
     }},
    {.name = "tlbi",
     .in_statistics = kListed,
     .metric = {"tlbi_operations_total",
                "TLB invalidate instructions of arm64. All but ipas2e1 and "
                "vmalle1 are broadcast to all vCPUs of the VM."},
     .labels = {&kTlbi},
     .value = ArrayInVm<&Vm::tlbi>},

    // Mappings.
    {.name = "pages_mapped",
     .kind = kInstant,
     .metric = {"pages_mapped", "Mappings by size."},
     .labels = {&kPageSizes, &kMmu},
     .value = [](const Vm& vm, const Index& i) -> const uint64_t& {
       return vm.mmus[i[1]].leafs[i[0]];
     },
     .live =
         [](const VmCounters& vm, const Index& i) {
           return MmuOf(vm, i[1]).Leafs(
               static_cast<Level>(ToInt(Level::k4K) + i[0]));
         }},
    {.name = "pages_4k",
     .kind = kInstant,
     .in_statistics = kListed,
     .value = InVm<&Vm::pages_4k>,
     .derived = LeafsOfMmus<Level::k4K>},
    {.name = "pages_2m",
     .kind = kInstant,
     .in_statistics = kListed,
     .value = InVm<&Vm::pages_2m>,
     .derived = LeafsOfMmus<Level::k2M>},
    {.name = "pages_1g",
     .kind = kInstant,
     .in_statistics = kListed,
     .value = InVm<&Vm::pages_1g>,
     .derived = LeafsOfMmus<Level::k1G>},
    {.name = "table_pages",
     .kind = kInstant,
     .in_statistics = kListed,
     .value = InVm<&Vm::table_pages>,
     .derived =
         [](const Vm& vm, const Index&) {
           uint64_t sum = 0;
           for (const MmuStatsSnapshot& mmu : vm.mmus) sum += mmu.tables;
           return sum;
         }},
    {.name = "table_pages_of_mmu",
     .kind = kInstant,
     .metric =
         {"table_pages",
          "Page tables in use; the shadow MMU counts shadow pages instead."},
     .labels = {&kMmu},
     .value = [](const Vm& vm, const Index& i) -> const uint64_t& {
       return vm.mmus[i[0]].tables;
     },
     .live = [](const VmCounters& vm,
                const Index& i) { return MmuOf(vm, i[0]).Tables(); }},

    // Shadow pages.
    {.name = "mmu_shadow_pages",
     .kind = kInstant,
     .in_statistics = kListed,
     .of_x86 = true,
     .metric = {"shadow_pages", "Shadow pages in use."},
     .value = InVm<&Vm::mmu_shadow_pages>,
     .live = OfShadow<&ShadowCounters::mmu_shadow_pages>},
    {.name = "shadow_page_limit",
     .kind = kInstant,
     .in_statistics = kListed,
     .of_x86 = true,
     .metric = {"shadow_pages_limit",
                "Sum of the VMs' limits on shadow pages."},
     .value = InVm<&Vm::shadow_page_limit>},
    {.name = "mmu_unsync",
     .kind = kInstant,
     .in_statistics = kListed,
     .of_x86 = true,
     .metric = {"unsync_pages",
                "Shadow pages that may be out of step with the guest's "
                "tables."},
     .value = InVm<&Vm::mmu_unsync>,
     .live = OfShadow<&ShadowCounters::mmu_unsync>},
    {.name = "mmu_shadow_zapped",
     .in_statistics = kListed,
     .of_x86 = true,
     .metric = {"shadow_pages_zapped_total", "Shadow pages zapped."},
     .value = InVm<&Vm::mmu_shadow_zapped>,
     .live = OfShadow<&ShadowCounters::mmu_shadow_zapped>},
    {.name = "mmu_recycled",
     .in_statistics = kListed,
     .of_x86 = true,
     .metric = {"shadow_pages_recycled_total",
                "Shadow pages zapped to make room for others."},
     .value = InVm<&Vm::mmu_recycled>,
     .live = OfShadow<&ShadowCounters::mmu_recycled>},
    {.name = "mmu_flooded",
     .in_statistics = kListed,
     .of_x86 = true,
     .metric = {"shadow_pages_flooded_total",
                "Shadow pages zapped because the guest wrote to the shadowed "
                "table repeatedly without using it as a table, or not in whole "
                "entries."},
     .value = InVm<&Vm::mmu_flooded>,
     .live = OfShadow<&ShadowCounters::mmu_flooded>},
    {.name = "mmu_pde_zapped",
     .in_statistics = kListed,
     .of_x86 = true,
     .metric = {"shadow_pde_zapped_total",
                "Entries above level 1 zapped because the guest changed the "
                "shadowed entry."},
     .value = InVm<&Vm::mmu_pde_zapped>,
     .live = OfShadow<&ShadowCounters::mmu_pde_zapped>},
    {.name = "mmu_pte_write",
     .in_statistics = kListed,
     .of_x86 = true,
     .metric = {"guest_pte_writes_total",
                "Emulated writes of guests to their page tables."},
     .value = InVm<&Vm::mmu_pte_write>,
     .live = OfShadow<&ShadowCounters::mmu_pte_write>},
    {.name = "mmu_cache_miss",
     .in_statistics = kListed,
     .of_x86 = true,
     .metric = {"shadow_cache_misses_total",
                "Shadow pages created because a lookup found none."},
     .value = InVm<&Vm::mmu_cache_miss>,
     .live = OfShadow<&ShadowCounters::mmu_cache_miss>},
    {.name = "max_mmu_rmap_size",
     .kind = kPeak,
     .in_statistics = kListed,
     .of_x86 = true,
     .value = InVm<&Vm::max_mmu_rmap_size>,
     .live = PeakOfShadow<&ShadowCounters::max_mmu_rmap_size>},
    {.name = "max_mmu_page_hash_collisions",
     .kind = kPeak,
     .in_statistics = kListed,
     .of_x86 = true,
     .value = InVm<&Vm::max_mmu_page_hash_collisions>,
     .live = PeakOfShadow<&ShadowCounters::max_mmu_page_hash_collisions>},

    // Huge pages.
    {.name = "nx_lpage_splits",
     .kind = kInstant,
     .in_statistics = kListed,
     .of_x86 = true,
     .value = InVm<&Vm::nx_lpage_splits>},
    {.name = "huge_page_splits",
     .metric = {"huge_page_splits_total", "Huge mappings split.", kFirstEvent},
     .labels = {&kFrom, &kTrigger, &kMmu},
     .value = [](const Vm& vm, const Index& i) -> const uint64_t& {
       return vm.mmus[i[2]].splits[i[0]][i[1]];
     },
     .live =
         [](const VmCounters& vm, const Index& i) {
           return MmuOf(vm, i[2]).Splits(HugeSize(i[0]),
                                         static_cast<SplitTrigger>(i[1]));
         }},
    {.name = "huge_page_split_failures",
     .metric = {"huge_page_split_failures_total",
                "Failed or retried splits, by reason. no_memory, limit: no "
                "memory, or no page table within the limit; the mapping stays "
                "huge. raced: a vCPU changed the mapping first; the split is "
                "retried. invalid_root: always 0, because no root goes out of "
                "use while a split holds slots_lock."},
     .labels = {&kFailure},
     .value = ArrayInVm<&Vm::split_failures>,
     .live =
         [](const VmCounters& vm, const Index& i) {
           return SumOverMmus(vm, [&i](const MmuCounters& mmu) {
             return mmu.SplitFailures(static_cast<SplitFailure>(i[0]));
           });
         }},
    {.name = "huge_page_split_chunk",
     .unit = kNanoseconds,
     .metric = {"huge_page_split_chunk_seconds",
                "Time for one chunk of a split operation."},
     .histogram = HistogramInVm<&Vm::split_chunk>,
     .live_histogram = HistogramOfVm<&VmCounters::split_chunk>},
    {.name = "split_throttled",
     .unit = kNanoseconds,
     .metric = {"split_throttled_seconds_total",
                "Time that splits waited because of their throttle, by limit. "
                "lock_hold: the time to take mmu_lock again."},
     .labels = {&kLimit},
     .value = ArrayInVm<&Vm::split_throttled_nanos>,
     .live =
         [](const VmCounters& vm, const Index& i) {
           return Load(vm.split_throttled_nanos[i[0]]);
         }},
    {.name = "huge_page_recoveries",
     .metric = {"huge_page_recoveries_total",
                "Huge mappings recovered from small ones."},
     .labels = {&kTo},
     .value = ArrayInVm<&Vm::recoveries>,
     .live =
         [](const VmCounters& vm, const Index& i) {
           return SumOverMmus(vm, [&i](const MmuCounters& mmu) {
             return mmu.Recoveries(HugeSize(i[0]));
           });
         }},

    // Dirty logs.
    {.name = "undelivered_slots",
     .kind = kInstant,
     .metric = {"dirty_log_undelivered_memslots",
                "Memslots with pages that are sealed or in flight."},
     .value = InVm<&Vm::undelivered_slots>},
    {.name = "harvested_pages",
     .metric = {"dirty_log_harvested_pages_total",
                "Pages moved into an epoch by seals."},
     .vm_metric = {"vm_harvested_pages_total",
                   "Pages of a VM moved into an epoch by seals."},
     .value = InVm<&Vm::harvested_pages>,
     .live = OfVm<&VmCounters::harvested_pages>},
    {.name = "cleared_pages",
     .metric = {"dirty_log_cleared_pages_total",
                "Pages moved in flight by clears."},
     .vm_metric = {"vm_cleared_pages_total",
                   "Pages of a VM moved in flight by clears."},
     .value = InVm<&Vm::cleared_pages>,
     .live = OfVm<&VmCounters::cleared_pages>},
    {.name = "dirty_ring_entries",
     .kind = kInstant,
     .metric = {"dirty_ring_entries", "Entries of all dirty rings."},
     .value = InVm<&Vm::dirty_ring_entries>},
    {.name = "dirty_ring_used_entries",
     .kind = kInstant,
     .metric = {"dirty_ring_used_entries",
                "Entries in use of all dirty rings."},
     .value = InVm<&Vm::dirty_ring_used_entries>},
    {.name = "vcpus_waiting_for_ring",
     .kind = kInstant,
     .metric = {"vcpus_waiting", "vCPUs waiting now, by cause."},
     .labels = {&kRingFull},
     .value = InVm<&Vm::vcpus_waiting_for_ring>},
    {.name = "dirty_log_start",
     .unit = kNanoseconds,
     .metric = {.family = "dirty_log_start_seconds",
                .help = "Time to switch dirty logging on.",
                .reach = kWork},
     .histogram = HistogramInVm<&Vm::dirty_log_start>,
     .live_histogram = HistogramOfVm<&VmCounters::dirty_log_start>},
    {.name = "dirty_log_seal",
     .unit = kNanoseconds,
     .metric = {.family = "dirty_log_seal_seconds",
                .help = "Time to seal an epoch.",
                .reach = kWork},
     .histogram = HistogramInVm<&Vm::dirty_log_seal>,
     .live_histogram = HistogramOfVm<&VmCounters::dirty_log_seal>},
    {.name = "dirty_log_clear",
     .unit = kNanoseconds,
     .metric = {.family = "dirty_log_clear_seconds",
                .help = "Time to clear a part of an epoch.",
                .reach = kWork},
     .histogram = HistogramInVm<&Vm::dirty_log_clear>,
     .live_histogram = HistogramOfVm<&VmCounters::dirty_log_clear>},

    // Ageing.
    {.name = "aged_pages",
     .metric = {"aging_pages_total", "Pages that aging looked at."},
     .labels = {&kAge, &kAgingLock, &kMmu},
     .value = [](const Vm& vm, const Index& i) -> const uint64_t& {
       return vm.mmus[i[2]].aged[i[1]][i[0]];
     },
     .live =
         [](const VmCounters& vm, const Index& i) {
           return MmuOf(vm, i[2]).Aged(static_cast<AgingLock>(i[1]), i[0]);
         }},
    {.name = "aging",
     .unit = kNanoseconds,
     .metric = {.family = "aging_seconds",
                .help = "Time to age a range.",
                .reach = kWork},
     .histogram = HistogramInVm<&Vm::aging>,
     .live_histogram = HistogramOfVm<&VmCounters::aging>},
};

constexpr VcpuCounterRow kVcpuRows[] = {
    // Page faults, under KVM's names and by what became of them.
    {.name = "pf_taken",
     .in_statistics = kListed,
     .value = InVcpu<&Vcpu::pf_taken>},
    {.name = "pf_fixed",
     .in_statistics = kListed,
     .value = InVcpu<&Vcpu::pf_fixed>},
    {.name = "pf_emulate",
     .in_statistics = kListed,
     .value = InVcpu<&Vcpu::pf_emulate>},
    {.name = "pf_spurious",
     .in_statistics = kListed,
     .value = InVcpu<&Vcpu::pf_spurious>},
    {.name = "pf_fast",
     .in_statistics = kListed,
     .of_x86 = true,
     .value = InVcpu<&Vcpu::pf_fast>},
    {.name = "pf_mmio_spte_created",
     .in_statistics = kListed,
     .of_x86 = true,
     .value = InVcpu<&Vcpu::pf_mmio_spte_created>,
     .live = OfVcpu<&VcpuCounters::pf_mmio_spte_created>},
    {.name = "pf_guest",
     .in_statistics = kListed,
     .of_x86 = true,
     .value = InVcpu<&Vcpu::pf_guest>,
     .live = OfVcpu<&VcpuCounters::pf_guest>},
    {.name = "pf_retried",
     .in_statistics = kListed,
     .value = InVcpu<&Vcpu::pf_retried>},
    {.name = "page_faults",
     .metric = {"page_faults_total",
                "Page faults of vCPUs, each once, by result: \"fast\" was "
                "fixed without mmu_lock, \"fixed\" with it."},
     .labels = {&kOutcome, &kAccess, &kMmu},
     .value = [](const Vcpu& vcpu, const Index& i) -> const uint64_t& {
       return vcpu.page_faults[i[2]][i[0]][i[1]];
     }},
    {.name = "faults",
     .labels = {&kResult, &kAccess},
     .value = [](const Vcpu& vcpu, const Index& i) -> const uint64_t& {
       return vcpu.faults[i[0]][i[1]];
     }},
    {.name = "slow_faults",
     .labels = {&kResult, &kAccess},
     .value = [](const Vcpu& vcpu, const Index& i) -> const uint64_t& {
       return vcpu.slow_faults[i[0]][i[1]];
     }},
    {.name = "fault_errors", .value = InVcpu<&Vcpu::fault_errors>},
    {.name = "page_fault_time",
     .unit = kNanoseconds,
     .metric = {"page_fault_seconds", "Time to handle a page fault (sampled)."},
     .labels = {&kPath},
     .histogram = [](const Vcpu& vcpu,
                     const Index& i) -> const LatencySnapshot& {
       return i[0] == 0 ? vcpu.fault_fast : vcpu.fault_slow;
     },
     .live_histogram =
         [](const VcpuCounters& vcpu, const Index& i) {
           return (i[0] == 0 ? vcpu.fault_fast : vcpu.fault_slow).Snapshot();
         }},

    {.name = "tlb_flush",
     .in_statistics = kListed,
     .value = InVcpu<&Vcpu::tlb_flush>,
     .live = OfVcpu<&VcpuCounters::tlb_flush>},
    {.name = "invlpg",
     .in_statistics = kListed,
     .of_x86 = true,
     .value = InVcpu<&Vcpu::invlpg>,
     .live = OfVcpu<&VcpuCounters::invlpg>},
    {.name = "tlb_conflict_aborts",
     .in_statistics = kListed,
     .metric = {"tlb_conflict_aborts_total",
                "Accesses that found two translations of one address (arm64, "
                "FEAT_BBM level 2). Each drops them and is repeated."},
     .value = InVcpu<&Vcpu::tlb_conflict_aborts>,
     .live = OfVcpu<&VcpuCounters::tlb_conflict_aborts>},
    {.name = "accesses",
     .in_statistics = kListed,
     .value = InVcpu<&Vcpu::accesses>,
     .live = OfVcpu<&VcpuCounters::accesses>},
    {.name = "writes",
     .in_statistics = kListed,
     .value = InVcpu<&Vcpu::writes>,
     .live = OfVcpu<&VcpuCounters::writes>},
    {.name = "stall",
     .unit = kNanoseconds,
     .in_statistics = kListed,
     .metric = {"vcpu_stall_seconds_total",
                "Stall time of vCPUs by cause. flush, ring_full and "
                "invalidation are exact, the others sampled. invalidation: "
                "waits for the host or a memslot change. ring_full includes "
                "current waits."},
     .vm_metric = {"vm_vcpu_stall_seconds_total",
                   "Stall time of a VM's vCPUs by cause, as in "
                   "vcpu_stall_seconds_total.",
                   kFirstEvent},
     .labels = {&kCause},
     .value = [](const Vcpu& vcpu, const Index& i) -> const uint64_t& {
       return vcpu.stall_nanos[i[0]];
     }},

    // Dirty pages.
    {.name = "dirty_pages",
     .in_statistics = kListed,
     .metric = {"dirty_log_dirtied_pages_total",
                "Pages that went from clean to dirty, of all VMs, deleted ones "
                "included."},
     .vm_metric = {"dirty_pages_total",
                   "Pages of a VM that went from clean to dirty. "
                   "vm=\"_other\": the sum over the VMs without series of "
                   "their own, deleted ones included."},
     .value = InVcpu<&Vcpu::dirty_pages>,
     .live = OfVcpu<&VcpuCounters::dirty_pages>},
    {.name = "dirty_log_faults",
     .value = InVcpu<&Vcpu::dirty_log_faults>,
     .live = OfVcpu<&VcpuCounters::dirty_log_faults>},
    {.name = "ring_full_exits",
     .metric = {"dirty_ring_full_exits_total",
                "Exits of vCPUs because their dirty ring was full."},
     .value = InVcpu<&Vcpu::ring_full_exits>,
     .live = OfVcpu<&VcpuCounters::ring_full_exits>},
};

constexpr ProcessCounterRow kProcessRows[] = {
    {.name = "page_tables_by_state",
     .kind = kInstant,
     .metric = {"page_tables",
                "Page tables of all MMUs, in units of 4 KiB. in_use: linked, "
                "or in the stock of a vCPU or of a split. grace_period: "
                "unlinked, and free once no walk can use "
                "them. max_page_tables limits the sum."},
     .labels = {&kTableState},
     .value = [](const Process& process, const Index& i) -> const uint64_t& {
       return process.page_tables[i[0]];
     }},
    {.name = "page_tables_in_use",
     .kind = kInstant,
     .in_statistics = kListed,
     .value = [](const Process& process, const Index&) -> const uint64_t& {
       return process.page_tables[0];
     }},
    {.name = "page_tables_in_grace_period",
     .kind = kInstant,
     .in_statistics = kListed,
     .value = [](const Process& process, const Index&) -> const uint64_t& {
       return process.page_tables[1];
     }},
    {.name = "page_tables_limit",
     .kind = kInstant,
     .in_statistics = kListed,
     .metric = {"page_tables_limit", "Limit on the sum of page_tables.",
                kFirstEvent},  // 0: there is no limit
     .value = [](const Process& process, const Index&) -> const uint64_t& {
       return process.page_tables_limit;
     }},
    {.name = "page_table_waits",
     .in_statistics = kListed,
     .metric = {"page_table_waits_total",
                "Waits for page tables or shadow-page memory that were about "
                "to be free (in their grace period, or in a zap) because none "
                "was free."},
     .value = [](const Process& process, const Index&) -> const uint64_t& {
       return process.page_table_waits;
     }},
};

template <typename Snapshot>
void CopyRow(const CounterRow<Snapshot>& row,
             const typename Snapshot::Live& from, Snapshot* to) {
  row.ForEach([&](const Index& i) {
    if (row.live != nullptr) row.Value(*to, i) = row.live(from, i);
    if (row.live_histogram != nullptr) {
      row.Histogram(*to, i) = row.live_histogram(from, i);
    }
  });
}

template <typename Snapshot>
void DeriveRow(const CounterRow<Snapshot>& row, Snapshot* snapshot) {
  if (row.derived == nullptr) return;
  row.ForEach([&](const Index& i) {
    row.Value(*snapshot, i) = row.derived(*snapshot, i);
  });
}

template <typename Snapshot>
void AddRow(const CounterRow<Snapshot>& row, const Snapshot& from,
            Snapshot* sum) {
  row.ForEach([&](const Index& i) {
    if (row.histogram != nullptr) {
      row.Histogram(*sum, i).Add(row.histogram(from, i));
    } else if (row.kind == kPeak) {
      row.Value(*sum, i) = std::max(row.value(*sum, i), row.value(from, i));
    } else {
      row.Value(*sum, i) += row.value(from, i);
    }
  });
}

}  // namespace

absl::Span<const VmCounterRow> VmCounterRows() { return kVmRows; }
absl::Span<const VcpuCounterRow> VcpuCounterRows() { return kVcpuRows; }
absl::Span<const ProcessCounterRow> ProcessCounterRows() {
  return kProcessRows;
}

void CopyCounters(const VmCounters& from, VmStatsSnapshot* to) {
  for (const VmCounterRow& row : kVmRows) CopyRow(row, from, to);
  for (const VmCounterRow& row : kVmRows) DeriveRow(row, to);
}
void CopyCounters(const VcpuCounters& from, VcpuStatsSnapshot* to) {
  for (const VcpuCounterRow& row : kVcpuRows) CopyRow(row, from, to);
  for (const VcpuCounterRow& row : kVcpuRows) DeriveRow(row, to);
}

void AddUp(const VmStatsSnapshot& vm, VmStatsSnapshot* sum) {
  for (const VmCounterRow& row : kVmRows) AddRow(row, vm, sum);
  sum->vcpus.Add(vm.vcpus);
}

void AddWhatStays(const VmStatsSnapshot& vm, VmStatsSnapshot* sum) {
  for (const VmCounterRow& row : kVmRows) {
    if (row.kind == kCumulative) AddRow(row, vm, sum);
  }
  for (const VcpuCounterRow& row : kVcpuRows) {
    if (row.kind == kCumulative) AddRow(row, vm.vcpus, &sum->vcpus);
  }
}

void VcpuStatsSnapshot::Add(const VcpuStatsSnapshot& other) {
  for (const VcpuCounterRow& row : kVcpuRows) AddRow(row, other, this);
}

VcpuStatsSnapshot VcpuStatsSnapshot::Since(
    const VcpuStatsSnapshot& earlier) const {
  VcpuStatsSnapshot difference = *this;
  for (const VcpuCounterRow& row : kVcpuRows) {
    if (row.kind != kCumulative) continue;
    row.ForEach([&](const Index& i) {
      if (row.histogram != nullptr) {
        row.Histogram(difference, i) =
            row.histogram(*this, i).Since(row.histogram(earlier, i));
      } else {
        row.Value(difference, i) -= row.value(earlier, i);
      }
    });
  }
  return difference;
}

}  // namespace mmu
