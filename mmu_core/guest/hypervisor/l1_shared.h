// What the processors of one L1 hypervisor share: its memory, its L2 guests,
// its lock, the invalidations that they owe each other, and the virtual
// processors that move between them.

#ifndef MMU_CORE_GUEST_HYPERVISOR_L1_SHARED_H_
#define MMU_CORE_GUEST_HYPERVISOR_L1_SHARED_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "mmu_core/base/address.h"
#include "mmu_core/base/level.h"
#include "mmu_core/guest/gpa_space.h"
#include "mmu_core/guest/guest_lock.h"
#include "mmu_core/guest/hypervisor/l1_shootdown.h"
#include "mmu_core/guest/kernel/frame_allocator.h"
#include "mmu_core/guest_paging/guest_walker.h"

namespace mmu {

// Of all guests of a hypervisor. A value.
struct L1HypervisorOptions {
  GuestTables tables = GuestTables::kEpt;  // or kNpt
  Level root_level = Level::k512G;         // or k256T
  bool ad_bits = false;                    // kEpt; NPT always has them
  bool exec_only = false;                  // kEpt: kExec alone is allowed
  // kEpt: the scope of INVEPT.
  enum class Invept : uint8_t { kSingleContext, kGlobal };
  Invept invept = Invept::kSingleContext;
  // L2's memory is mapped in pages up to this size where possible.
  Level max_page = Level::k4K;  // up to k1G

  // The processor sets Dirty in the tables, and counts each of its accesses to
  // entries of L2's own tables as a write.
  bool HasDirtyBits() const { return tables == GuestTables::kNpt || ad_bits; }
};

// A virtual processor of a guest: what L1 keeps of it between two entries.
// The guest has no other one. Externally synchronised: it belongs to the thread
// of the processor that runs it, and goes to another thread as any object does.
// So `last_cpu` needs no order of its own.
//
// INVLPG in L2 drops translations of the processor that executes it. A
// processor where the virtual processor ran before may keep them, with the
// guest's VPID or ASID. So L1 invalidates that VPID or ASID when the virtual
// processor comes from elsewhere.
struct L2Vcpu {
  static constexpr int kNowhere = -1;

  const int guest = 0;
  int last_cpu = kNowhere;  // the processor that ran it last
};

// Thread-safe, except for `frames`. Outlives the L1Hypervisor of each
// processor.
struct L1Shared {
  // `memory` is the part of L1's memory that the hypervisor may use.
  L1Shared(const GpaSpace& memory, const L1HypervisorOptions& hypervisor,
           int cpus, int guests)
      : options(hypervisor),
        frames(memory),
        shootdown(cpus, guests),
        roots(static_cast<size_t>(guests)) {}

  const L1HypervisorOptions options;
  GuestLock lock;
  FrameAllocator frames;  // under `lock`
  L1Shootdown shootdown;
  // The top table of each guest. Written at boot, before the other processors
  // start.
  std::vector<Gpa> roots;
  // A processor failed in the middle of a change: no processor can continue.
  std::atomic<bool> lost{false};
};

}  // namespace mmu

#endif  // MMU_CORE_GUEST_HYPERVISOR_L1_SHARED_H_
