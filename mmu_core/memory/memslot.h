// A memslot: a range of guest frames and the host memory behind it.

#ifndef MMU_CORE_MEMORY_MEMSLOT_H_
#define MMU_CORE_MEMORY_MEMSLOT_H_

#include <cstdint>
#include <memory>

#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/dirty/dirty_bitmap.h"
#include "mmu_core/memory/backing.h"
#include "mmu_core/memory/frame_lender.h"
#include "mmu_core/memory/lpage_info.h"
#include "mmu_core/rmap/lazy_slot_rmaps.h"
#include "mmu_core/rmap/slot_rmaps.h"

namespace mmu {

inline constexpr uint32_t kMemslotLogDirtyPages = 1u << 0;
inline constexpr uint32_t kMemslotReadonly = 1u << 1;
// Internal: the slot is being deleted or moved; faults on it retry (SLOT-25).
inline constexpr uint32_t kMemslotInvalid = 1u << 16;

// Thread-safe once published: immutable, except the counters and bits inside
// the shared members, which are atomic. Changing a slot means publishing a
// changed copy (memory/memslot_table.h).
struct Memslot {
  uint32_t id = 0;
  int as_id = 0;
  // Tells apart slots that have the same id one after the other, within one VM.
  // A slot that is moved or gets other flags keeps it.
  uint64_t uid = 0;
  Gfn base_gfn;
  uint64_t npages = 0;
  Hva hva;  // of base_gfn
  uint32_t flags = 0;
  // Null if nothing is mapped at hva; then PfnOf must not be called.
  std::shared_ptr<Backing> backing;
  std::shared_ptr<LpageInfo> lpage_info;
  // Holder of the slot's rmaps; see shadow_rmaps().
  std::shared_ptr<LazySlotRmaps> rmaps;
  // Null unless dirty_log_enabled(); null also if the VM logs into rings only
  // (SLOT-51).
  std::shared_ptr<DirtyBitmap> dirty_bitmap;

  GfnRange range() const { return GfnRange::Of(base_gfn, npages); }
  bool Contains(Gfn gfn) const { return range().Contains(gfn); }

  // The functions below REQUIRE that the slot contains `gfn`.
  Hva HvaOf(Gfn gfn) const;  // TRM-02
  Pfn PfnOf(Gfn gfn) const;
  // The frame's state: whether it exists, and the access that the host allows
  // (PF-23).
  FrameState StateOf(Gfn gfn) const {
    return backing->all_writable() ? FrameState::kReadWrite
                                   : backing->StateOf(HvaOf(gfn));
  }
  bool IsHostWritable(Gfn gfn) const {
    return StateOf(gfn) == FrameState::kReadWrite;
  }
  // Whether the gfn is a guest's table that stays write-protected (SHD-08).
  bool IsWriteTracked(Gfn gfn) const {
    const SlotRmaps* const tracked = shadow_rmaps();
    return tracked != nullptr && tracked->IsWriteTracked(gfn);
  }
  // The page number of `gfn` within the slot: the index of its dirty bit
  // (SLOT-52).
  uint64_t PageOf(Gfn gfn) const { return gfn - base_gfn; }
  // The largest level, at most `max`, that `gfn` may be mapped with: the
  // highest that lpage_info allows, but not above the level of the host's own
  // mapping (SLOT-44), which is small where frames are missing.
  Level MaxMappingLevel(Gfn gfn, Level max) const;

  // Null until the VM has a shadow root (SHD-13, SLOT-46).
  SlotRmaps* shadow_rmaps() const {
    return rmaps != nullptr ? rmaps->get() : nullptr;
  }

  // Determined by the flag, not by the presence of a bitmap (SLOT-54).
  bool dirty_log_enabled() const {
    return (flags & kMemslotLogDirtyPages) != 0;
  }
  bool readonly() const { return (flags & kMemslotReadonly) != 0; }
  bool invalid() const { return (flags & kMemslotInvalid) != 0; }
};

}  // namespace mmu

#endif  // MMU_CORE_MEMORY_MEMSLOT_H_
