#include "mmu_core/rmap/slot_rmaps.h"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <utility>

#include "absl/functional/function_ref.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/base/zeroed_memory.h"

namespace mmu {

uint64_t SlotRmaps::HeadCount(GfnRange range, Level level) {
  const int shift = PagesShift(level);
  return ((range.end.value() - 1) >> shift) - (range.start.value() >> shift) +
         1;
}

std::unique_ptr<SlotRmaps> SlotRmaps::TryCreate(GfnRange range) {
  MMU_CHECK(!range.empty());
  size_t bytes = range.pages() * sizeof(uint16_t);
  for (int level = 1; level <= kLevels; ++level) {
    bytes += HeadCount(range, static_cast<Level>(level)) * sizeof(RmapHead);
  }
  // Zeroed memory means empty rmaps and no trackers.
  ZeroedMemory memory = ZeroedMemory::TryAllocate(bytes);
  if (!memory) return nullptr;
  return std::unique_ptr<SlotRmaps>(new (std::nothrow)
                                        SlotRmaps(range, std::move(memory)));
}

SlotRmaps::SlotRmaps(GfnRange range, ZeroedMemory memory)
    : range_(range), memory_(std::move(memory)) {
  auto* next = static_cast<RmapHead*>(memory_.get());
  for (int level = 1; level <= kLevels; ++level) {
    heads_[level - 1] = next;
    next += HeadCount(range, static_cast<Level>(level));
  }
  write_trackers_ = reinterpret_cast<uint16_t*>(next);
}

uint64_t SlotRmaps::head_count(Level level) const {
  return HeadCount(range_, level);
}

RmapHead& SlotRmaps::Head(Gfn gfn, Level level) const {
  MMU_CHECK(range_.Contains(gfn) && level <= kMaxLeafLevel);
  const int shift = PagesShift(level);
  return heads_[ToInt(level) - 1]
               [(gfn.value() >> shift) - (range_.start.value() >> shift)];
}

void SlotRmaps::AddWriteTracker(const MmuWriteLocked& lock, Gfn gfn) {
  MMU_DCHECK(lock.held());
  const uint16_t before = WriteTrackers(gfn);
  MMU_CHECK(before < UINT16_MAX);
  std::atomic_ref<uint16_t>(write_trackers_[gfn - range_.start])
      .store(before + 1, std::memory_order_relaxed);
}

void SlotRmaps::RemoveWriteTracker(const MmuWriteLocked& lock, Gfn gfn) {
  MMU_DCHECK(lock.held());
  const uint16_t before = WriteTrackers(gfn);
  MMU_CHECK(before > 0);
  std::atomic_ref<uint16_t>(write_trackers_[gfn - range_.start])
      .store(before - 1, std::memory_order_relaxed);
}

uint16_t SlotRmaps::WriteTrackers(Gfn gfn) const {
  MMU_CHECK(range_.Contains(gfn));
  return std::atomic_ref<uint16_t>(write_trackers_[gfn - range_.start])
      .load(std::memory_order_relaxed);
}

void SlotRmaps::ForEachRmap(
    Level level, absl::FunctionRef<void(Gfn block, const RmapHead&)> fn) const {
  const RmapHead* const heads = heads_[ToInt(level) - 1];
  const uint64_t count = head_count(level);
  for (uint64_t i = 0; i < count; ++i) {
    if (heads[i].empty()) continue;
    fn(RoundDown(range_.start, level) + i * PagesPer(level), heads[i]);
  }
}

void SlotRmaps::ForEachWriteTracked(
    absl::FunctionRef<void(Gfn, uint16_t)> fn) const {
  const uint64_t pages = range_.pages();
  for (uint64_t i = 0; i < pages; ++i) {
    const uint16_t count = std::atomic_ref<uint16_t>(write_trackers_[i])
                               .load(std::memory_order_relaxed);
    if (count != 0) fn(range_.start + i, count);
  }
}

}  // namespace mmu
