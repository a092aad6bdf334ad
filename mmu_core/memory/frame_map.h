// Maps a host frame number to the memory behind it.
//
// Frame numbers are given out in units of 1 GiB and never twice. So the map is
// an array with one entry per GiB, in chunks that are allocated on demand. A
// vCPU looks up a frame on each TLB fill: some loads and comparisons, no lock.

#ifndef MMU_CORE_MEMORY_FRAME_MAP_H_
#define MMU_CORE_MEMORY_FRAME_MAP_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/level.h"
#include "mmu_core/base/mutex.h"

namespace mmu {

// Thread-safe; PointerTo is lock-free.
class FrameMap {
 public:
  FrameMap() = default;
  ~FrameMap();
  FrameMap(const FrameMap&) = delete;
  FrameMap& operator=(const FrameMap&) = delete;

  // Returns a range of frames that was never given out before; it starts at a
  // multiple of 2^18 and is not 0. nullopt if the 52 bits of physical address
  // are used up. REQUIRES: pages > 0.
  std::optional<Pfn> Reserve(uint64_t pages);

  // Puts `memory` behind the frames [base, base + pages) of one Reserve. The
  // other frames of these gigabytes never get memory.
  void Publish(Pfn base, uint64_t pages, std::byte* memory);
  // Takes the memory away again. The frames are not given out again.
  void Retire(Pfn base, uint64_t pages);

  // First byte of the frame; null if there is no memory behind it.
  std::byte* PointerTo(Pfn pfn) const;

 private:
  static constexpr uint64_t kPagesPerEntry = PagesPer(Level::k1G);
  static constexpr uint64_t kEntriesPerChunk = 1024;  // 1 TiB
  static constexpr uint64_t kChunks = 4096;           // 4 PiB: 52 bits

  struct Entry {
    // Written before `memory` is published, then constant: the first page of
    // the gigabyte with memory, and the number of pages with memory.
    std::atomic<uint64_t> first = 0;
    std::atomic<uint64_t> pages = 0;
    // Address of the first page. Release on publication, acquire by readers.
    std::atomic<std::byte*> memory = nullptr;
  };
  using Chunk = std::array<Entry, kEntriesPerChunk>;

  Entry& EntryOf(uint64_t gib) const;

  Mutex mu_;  // innermost: nothing is acquired under it
  uint64_t next_gib_ ABSL_GUARDED_BY(mu_) = 1;
  // Set once, with release; readers acquire.
  std::array<std::atomic<Chunk*>, kChunks> chunks_ = {};
};

}  // namespace mmu

#endif  // MMU_CORE_MEMORY_FRAME_MAP_H_
