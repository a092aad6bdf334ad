#include "mmu_core/memory/frame_map.h"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "mmu_core/base/address.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/level.h"
#include "mmu_core/base/mutex.h"

namespace mmu {

FrameMap::~FrameMap() {
  for (std::atomic<Chunk*>& chunk : chunks_) {
    delete chunk.load(std::memory_order_relaxed);
  }
}

std::optional<Pfn> FrameMap::Reserve(uint64_t pages) {
  MMU_CHECK(pages > 0);
  const uint64_t gibs = (pages - 1) / kPagesPerEntry + 1;
  MutexLock lock(mu_);
  if (gibs > kChunks * kEntriesPerChunk - next_gib_) return std::nullopt;
  const uint64_t first = next_gib_;
  next_gib_ += gibs;
  return Pfn(first * kPagesPerEntry);
}

void FrameMap::Publish(Pfn base, uint64_t pages, std::byte* memory) {
  const uint64_t first_gib = base.value() / kPagesPerEntry;
  const uint64_t end = base.value() + pages;
  const uint64_t end_gib = (end - 1) / kPagesPerEntry + 1;
  MutexLock lock(mu_);
  MMU_CHECK(end_gib <= next_gib_);
  // All memory is allocated before anything is published.
  for (uint64_t gib = first_gib; gib < end_gib; ++gib) {
    std::atomic<Chunk*>& chunk = chunks_[gib / kEntriesPerChunk];
    if (chunk.load(std::memory_order_relaxed) == nullptr) {
      chunk.store(new Chunk, std::memory_order_release);
    }
  }
  for (uint64_t gib = first_gib; gib < end_gib; ++gib) {
    Entry& entry = EntryOf(gib);
    const uint64_t gib_base = gib * kPagesPerEntry;
    const uint64_t from = std::max(base.value(), gib_base);
    entry.first.store(from - gib_base, std::memory_order_relaxed);
    entry.pages.store(std::min(end, gib_base + kPagesPerEntry) - from,
                      std::memory_order_relaxed);
    entry.memory.store(memory + ((from - base.value()) << kPageShift),
                       std::memory_order_release);
  }
}

void FrameMap::Retire(Pfn base, uint64_t pages) {
  const uint64_t first_gib = base.value() / kPagesPerEntry;
  const uint64_t end_gib = (base.value() + pages - 1) / kPagesPerEntry + 1;
  for (uint64_t gib = first_gib; gib < end_gib; ++gib) {
    // If there was no memory to publish the frames, there is nothing to take
    // away.
    if (chunks_[gib / kEntriesPerChunk].load(std::memory_order_acquire) ==
        nullptr) {
      continue;
    }
    EntryOf(gib).memory.store(nullptr, std::memory_order_release);
  }
}

FrameMap::Entry& FrameMap::EntryOf(uint64_t gib) const {
  Chunk* chunk =
      chunks_[gib / kEntriesPerChunk].load(std::memory_order_acquire);
  MMU_CHECK(chunk != nullptr);
  return (*chunk)[gib % kEntriesPerChunk];
}

std::byte* FrameMap::PointerTo(Pfn pfn) const {
  const uint64_t gib = pfn.value() / kPagesPerEntry;
  if (gib >= kChunks * kEntriesPerChunk) return nullptr;
  const Chunk* chunk =
      chunks_[gib / kEntriesPerChunk].load(std::memory_order_acquire);
  if (chunk == nullptr) return nullptr;
  const Entry& entry = (*chunk)[gib % kEntriesPerChunk];
  std::byte* memory = entry.memory.load(std::memory_order_acquire);
  if (memory == nullptr) return nullptr;
  // The index of a page before the first one wraps to a large number.
  const uint64_t page = pfn.value() % kPagesPerEntry -
                        entry.first.load(std::memory_order_relaxed);
  if (page >= entry.pages.load(std::memory_order_relaxed)) return nullptr;
  return memory + (page << kPageShift);
}

}  // namespace mmu
