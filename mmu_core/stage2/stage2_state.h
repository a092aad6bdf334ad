// The tables of one VM's stage 2, and the parts of the VM that change them.

#ifndef MMU_CORE_STAGE2_STAGE2_STATE_H_
#define MMU_CORE_STAGE2_STAGE2_STATE_H_

#include <atomic>
#include <cstdint>
#include <memory>

#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/table_geometry.h"
#include "mmu_core/memory/invalidate_sequence.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/stage2/s2_page.h"
#include "mmu_core/stage2/s2_root.h"
#include "mmu_core/stage2/s2_shape.h"
#include "mmu_core/stage2/s2_update.h"
#include "mmu_core/stats/mmu_counters.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/tlb/remote_flush.h"
#include "mmu_core/tlb/tlbi.h"

namespace mmu {

// A value; constant during the life of the VM.
struct Stage2Options {
  S2Shape shape;
  BbmLevel bbm = BbmLevel::k0;
  TlbiUnit::Ranges tlbi_range = TlbiUnit::Ranges::kNo;
  // Whether the processor sets AF itself (FEAT_HAFDBS, VTCR_EL2.HA), or an
  // access without AF faults.
  enum class HardwareAccessFlag : uint8_t {
    kNo,
    kYes
  } hardware_access_flag = HardwareAccessFlag::kNo;
  // Whether the processor notes a write in the descriptor of the page
  // (FEAT_HAFDBS, VTCR_EL2.HD), where the slot logs. REQUIRES: it sets AF, too.
  enum class HardwareDirtyState : uint8_t {
    kNo,
    kYes
  } hardware_dirty_state = HardwareDirtyState::kNo;
  // The largest level of a leaf.
  Level max_leaf_level{3};

  // Whether the processor sets AF, so that no access faults for the lack of it.
  bool SetsAccessFlag() const {
    return hardware_access_flag == HardwareAccessFlag::kYes;
  }
  // Whether the processor notes the first write to a page in its descriptor.
  bool NotesWrites() const {
    return hardware_dirty_state == HardwareDirtyState::kYes;
  }
};

// The parts of the VM; all must outlive the state.
struct Stage2Parts {
  MmuLock& lock;
  MmuTlb tlb;
  MmuCounters& counters;
  const InvalidationGate& invalidations;
};

// Thread-safe under the locks that each function names. The functions on it are
// in files of their own:
//   stage2_fault.h    mapping a page on a fault
//   stage2_split.h    splitting blocks by chunk
//   stage2_log.h      write protection for dirty logging
//   stage2_dirty.h    writes that the processor has noted in descriptors
//   stage2_unmap.h    unmapping a range
//   stage2_recover.h  making way for blocks
//   stage2_age.h      Access flags
template <TableGeometry G>
struct Stage2State {
  Stage2State(const Stage2Parts& vm_parts, const Stage2Options& vm_options,
              std::unique_ptr<S2Root<G>> vm_root)
      : parts(vm_parts),
        options(vm_options),
        root(std::move(vm_root)),
        updater(vm_parts.tlb, vm_options.bbm, vm_options.shape.start_level,
                vm_parts.counters) {}
  // Unmaps everything and frees all tables. REQUIRES: no vCPU runs.
  ~Stage2State();
  Stage2State(const Stage2State&) = delete;
  Stage2State& operator=(const Stage2State&) = delete;

  // A walk of the entries that map `range`, down to `min_level`.
  S2Cursor<G> CursorOver(GfnRange range, Level min_level) const {
    return S2Cursor<G>(root->tables(), options.shape.start_level,
                       options.shape.root_tables, range, min_level);
  }

  const Stage2Parts parts;
  const Stage2Options options;
  const std::unique_ptr<S2Root<G>> root;
  const S2Updater<G> updater;
};

// The gfns of one granule.
template <TableGeometry G>
inline constexpr uint64_t kGfnsPerGranule = PagesPer<G>(Level{1});

// The smallest range of whole granules that contains `range`.
template <TableGeometry G>
constexpr GfnRange WholeGranules(GfnRange range) {
  return {RoundDown<G>(range.start, Level{1}), RoundUp<G>(range.end, Level{1})};
}

// The largest level, at most `max`, at which `gfn` of `slot` may be mapped
// (ARM-38): the block lies in the slot, guest and host addresses are congruent
// modulo its size, and the host maps the memory with pages of at least that
// size.
template <TableGeometry G>
Level MaxMappingLevelS2(const Memslot& slot, Gfn gfn, Level max);

}  // namespace mmu

#endif  // MMU_CORE_STAGE2_STAGE2_STATE_H_
