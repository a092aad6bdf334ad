// The parts of a VM that all others use: its memslots, its MMUs, its dirty log,
// its locks. It does not know vCPUs: parts of vCPUs that lower layers need are
// registered here, as gates are in RemoteTlb.
//
// Members are in the order of construction; each uses only those above it,
// except that the shadow MMU calls `mmus` while it works.

#ifndef MMU_CORE_VM_CORE_VM_CORE_H_
#define MMU_CORE_VM_CORE_VM_CORE_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/dirty/current_dirty_log.h"
#include "mmu_core/dirty/dirty_ring.h"
#include "mmu_core/dirty/dirty_window.h"
#include "mmu_core/dirty/pml_buffer.h"
#include "mmu_core/memory/host_memory.h"
#include "mmu_core/memory/invalidate_sequence.h"
#include "mmu_core/memory/memslot_table.h"
#include "mmu_core/mmu/mmu.h"
#include "mmu_core/mmu/nx_huge_pages.h"
#include "mmu_core/paging/mmio_spte.h"
#include "mmu_core/paging/table_cache.h"
#include "mmu_core/paging/table_pool.h"
#include "mmu_core/rmap/lazy_slot_rmaps.h"
#include "mmu_core/shadow/shadow_mmu.h"
#include "mmu_core/stage2/stage2.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/stats/vcpu_stats.h"
#include "mmu_core/stats/vm_counters.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/tdp/tdp_mmu.h"
#include "mmu_core/tlb/remote_flush.h"
#include "mmu_core/tlb/tlbi.h"
#include "mmu_core/vm/core/mmu_set.h"
#include "mmu_core/vm/core/shadow_hooks.h"
#include "mmu_core/vm/core/tracked_working_set.h"
#include "mmu_core/vm/core/unflushed_resets.h"
#include "mmu_core/vm/core/vcpu_runner.h"
#include "mmu_core/vm/core/vm_config.h"

namespace mmu {

// Thread-safe like its members.
struct VmCore {
  VmCore(const VmConfig& vm_config, TablePool& table_pool);

  // Dirty pages go to the vCPUs' rings.
  bool has_dirty_rings() const { return config.dirty_ring_entries != 0; }

  // Memslots that log have a bitmap (DL-25).
  bool slots_have_bitmaps() const {
    return !has_dirty_rings() ||
           config.companion_bitmap == VmConfig::CompanionBitmap::kYes;
  }

  // The number of entries in each vCPU's own log of dirty pages. 0: there is
  // none, and logging clears W instead of D (DL-32).
  uint32_t cpu_dirty_log_entries() const {
    return config.pml == VmConfig::Pml::kYes ? PmlBuffer::kEntries : 0;
  }

  // The MMU that the guest, or L1, runs on.
  MmuKind guest_mmu() const {
    if (RunsOnStage2(config)) return MmuKind::kStage2;
    return RunsOnTdp(config) ? MmuKind::kTdp : MmuKind::kShadow;
  }
  // Without it neither L2 nor a guest's own tables can be run. Gives all slots
  // rmaps if they have none yet (SHD-13); RESOURCE_EXHAUSTED if there is no
  // memory for that. To be called before a shadow root is loaded, without
  // mmu_lock. REQUIRES: shadow != nullptr.
  absl::Status PrepareForShadowRoot();
  // The total time that vCPUs have stalled (VcpuStats::StallNanos).
  int64_t StallNanos() const;

  // How the next write to a re-protected page is detected.
  NoticeBy notice_by() const {
    return cpu_dirty_log_entries() != 0 ? NoticeBy::kCpuLog : NoticeBy::kFault;
  }

  const VmConfig config;
  TablePool& pool;
  VmCounters counters;
  MmuLock mmu_lock;
  std::optional<TlbiUnit> tlbi;  // with MmuMode::kStage2
  RemoteTlb tlb;
  InvalidationGate invalidations;
  HostMemory memory;
  ShadowRootGate shadow_roots;
  MemslotTable slots;
  const MmioFormat mmio;
  NxHugePages nx_huge_pages;
  ShadowHooks shadow_hooks;
  const std::unique_ptr<ShadowMmu> shadow;  // null with MmuMode::kTdp
  TdpMmu tdp;
  // Null unless the mode is kStage2, or if there was no memory for the root:
  // then stage2_status says so, and the VM cannot be used.
  std::unique_ptr<Stage2> stage2;
  absl::Status stage2_status;

  // The number of slots that log. Changed under slots_lock; vCPUs read it when
  // they are asked to (kUpdateCpuDirtyLog), which orders the reads.
  std::atomic<int> logging_slots{0};
  CurrentDirtyLog dirty_log;
  // Held by a thread that moves entries of the rings into the log
  // (vm/core/noted_pages.h).
  Mutex ring_harvest_mu;
  // The windows of a ring reset, with room for a whole ring from the start,
  // since a reset must not fail for lack of memory.
  std::vector<DirtyWindow> reset_windows ABSL_GUARDED_BY(slots.slots_lock);
  UnflushedResets unflushed_resets;
  // Tables for operations under slots_lock; topped up without mmu_lock.
  TableCache operation_tables ABSL_GUARDED_BY(slots.slots_lock);
  // All operations on a memslot or a range go through this set.
  MmuSet mmus;
  TrackedWorkingSet working_set;

  // Registered by each vCPU when it is made, in the order of their indices;
  // constant once the VM is made. The vCPUs outlive all other use.
  std::vector<DirtyRing*> rings;  // empty if the VM has none
  std::vector<const VcpuStats*> vcpu_stats;
  // Runs the vCPUs' threads. Set once when the VM is made.
  VcpuRunner* vcpu_runner = nullptr;
};

}  // namespace mmu

#endif  // MMU_CORE_VM_CORE_VM_CORE_H_
