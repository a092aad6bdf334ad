// The rmaps of one memslot, and the write-tracking counts of its gfns.
//
//   rmaps of level L    one for each L-sized block that the slot touches, as in
//                       memory/lpage_info.h, for levels 1, 2 and 3
//   write-track counts  one for each gfn, 16 bits (SLOT-46)
//
// That is a little over 10 bytes per page of the slot. Only a VM with shadow
// pages needs them: rmap/lazy_slot_rmaps.h.

#ifndef MMU_CORE_RMAP_SLOT_RMAPS_H_
#define MMU_CORE_RMAP_SLOT_RMAPS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/functional/function_ref.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/base/zeroed_memory.h"
#include "mmu_core/rmap/rmap.h"
#include "mmu_core/sync/mmu_lock.h"

namespace mmu {

// Thread-safe: rmaps as rmap/rmap.h says; the counts change under mmu_lock in
// write mode and may be read without it as a hint.
class SlotRmaps {
 public:
  // For the slot at `range`, not empty. Null if the host has no memory. May
  // sleep: never call it under mmu_lock (LCK-01).
  static std::unique_ptr<SlotRmaps> TryCreate(GfnRange range);
  // REQUIRES: all rmaps are empty.
  ~SlotRmaps() = default;
  SlotRmaps(const SlotRmaps&) = delete;
  SlotRmaps& operator=(const SlotRmaps&) = delete;

  GfnRange range() const { return range_; }
  // Bytes of address space. If it is a page or more, only the pages that were
  // written to use memory.
  size_t allocated_bytes() const { return memory_.bytes(); }
  // `level` is at most k1G here and below.
  uint64_t head_count(Level level) const;
  // CHECKs that `gfn` lies in the slot. All gfns of one block of `level` have
  // the same rmap.
  RmapHead& Head(Gfn gfn, Level level) const;

  // Adds or removes one tracker of `gfn`; a page with a tracker must not be
  // mapped writable. A tracker is an upper-level shadow page at that gfn;
  // paging/page_role.h shows that there are always fewer than UINT16_MAX of
  // those (ROLE-40; checked). A removal without a tracker is an error
  // (checked).
  void AddWriteTracker(const MmuWriteLocked& lock, Gfn gfn);
  void RemoveWriteTracker(const MmuWriteLocked& lock, Gfn gfn);
  // Exact under mmu_lock in any mode.
  uint16_t WriteTrackers(Gfn gfn) const;
  bool IsWriteTracked(Gfn gfn) const { return WriteTrackers(gfn) != 0; }

  // For the auditor: call `fn` for each rmap of `level` that is not empty, with
  // the first gfn of its block (which may lie before the slot), and for each
  // gfn that has write trackers, with their number. Take time in proportion to
  // the slot's size. Exact under mmu_lock in write mode.
  void ForEachRmap(
      Level level,
      absl::FunctionRef<void(Gfn block, const RmapHead&)> fn) const;
  void ForEachWriteTracked(absl::FunctionRef<void(Gfn, uint16_t)> fn) const;

 private:
  static constexpr int kLevels = ToInt(kMaxLeafLevel);

  SlotRmaps(GfnRange range, ZeroedMemory memory);
  static uint64_t HeadCount(GfnRange range, Level level);

  // All immutable after construction.
  const GfnRange range_;
  const ZeroedMemory memory_;
  std::array<RmapHead*, kLevels> heads_;  // heads_[0] is level 1
  uint16_t* write_trackers_;              // accessed as atomics, relaxed
};

}  // namespace mmu

#endif  // MMU_CORE_RMAP_SLOT_RMAPS_H_
