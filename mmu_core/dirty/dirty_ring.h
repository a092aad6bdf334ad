// The dirty ring of one vCPU: which pages it dirtied, in order.
//
//        reset index          fetch index            dirty index
//   free |  collected ...     |  dirty ...           |  free ...
//        +--------------------+----------------------+
//
//   free (00) --Push: the vCPU--> dirty (01)
//             --Collect: the harvester sets bit 1--> collected (1x)
//             --TakeCollected: the reset--> free (00)
//
// Each index is moved by one side only and never passes the next one, so no
// side ever waits for another. The indices count up for ever; an entry's place
// is the index modulo the size (DL-41).
//
// Who publishes to whom (DL-44), the only place where that is decided:
//
//   Push        slot, offset | flags = dirty       (release)
//   Collect     flags == dirty? (acquire) | slot, offset
//               ... the page is recorded elsewhere ... | flags |= collected
//                                                  (release)
//   Take        flags has collected? (acquire) | slot, offset | flags = free,
//               reset index + 1                    (release)
//   Push again  reset index                        (acquire, in SoftFull)
//
// Whoever sees a state also sees what the side before did on the way to it: the
// harvester a whole entry, the reset the record of the page, the vCPU an entry
// that nobody reads any more.
//
// The ring never overflows: a vCPU that reached the soft limit does not enter
// the guest until entries were taken (DL-42), and the room above the limit is
// for what one exit can still add. In the order in which an exit adds it:
//
//   the CPU's own log             at most its entries; drained once, first
//                                 (vm/vcpu/vcpu.cc, DrainPml)
//   words of the guest's tables   none at the limit: whoever writes such a word
//   that are written for it       looks first (memory/guest_memory_access.cc),
//                                 however often the walk starts over
//   the page of the fault         1: a fault is handled once in an exit, and
//                                 marks at most the one page that it maps
//                                 (tdp/, shadow/). What is mapped besides it,
//                                 ahead of the guest, is not mapped writable
//                                 where the slot logs
//   pages mapped ahead of the     none at the limit: each looks first
//   guest on request              (vm/vcpu/pre_fault.cc)
//
// A write of the guest that is emulated (vm/vcpu/emulate_write.cc) is one of
// the words.

#ifndef MMU_CORE_DIRTY_DIRTY_RING_H_
#define MMU_CORE_DIRTY_DIRTY_RING_H_

#include <atomic>
#include <cstdint>
#include <memory>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/types/optional.h"

namespace mmu {

// A page as a ring names it.
struct DirtyGfn {
  uint32_t slot = 0;    // base/slot_number.h
  uint64_t offset = 0;  // pages from the slot's start

  friend bool operator==(const DirtyGfn&, const DirtyGfn&) = default;
};

// Vcpu side (Push, SoftFull): the vCPU's thread. Collect: one harvester at a
// time. TakeCollected: one at a time, under slots_lock. The three may run side
// by side; used() and ForEach are for anybody, ForEach while no side moves.
class DirtyRing {
 public:
  // Bits of an entry's flags.
  static constexpr uint32_t kDirty = 1;
  static constexpr uint32_t kCollected = 2;

  // As user space sees it: 16 bytes.
  struct Entry {
    std::atomic<uint32_t> flags{0};
    uint32_t slot = 0;
    uint64_t offset = 0;
  };
  static_assert(sizeof(Entry) == 16);

  static constexpr uint32_t kMaxEntries = 65536;
  // Entries that one exit of a vCPU may add, without a CPU's own log.
  static constexpr uint32_t kReservedEntries = 64;

  // The rules of a ring's size in bytes (DL-40): a power of two, at least a
  // page, and room for more than kReservedEntries + `cpu_log_entries` (the
  // processor's own log of dirty pages, drained at once; 0 without): EINVAL;
  // more than kMaxEntries: E2BIG. INVALID_ARGUMENT INVALID_MMU_OPTION.
  static absl::Status CheckBytes(uint64_t bytes, uint32_t cpu_log_entries);

  // REQUIRES: CheckBytes accepts it.
  DirtyRing(uint32_t entries, uint32_t cpu_log_entries);
  DirtyRing(const DirtyRing&) = delete;
  DirtyRing& operator=(const DirtyRing&) = delete;

  uint32_t size() const { return size_; }
  uint32_t soft_limit() const { return soft_limit_; }
  // Entries that are not free. Exact for whoever moves one of the indices.
  uint32_t used() const {
    const uint32_t reset = reset_index_.load(std::memory_order_acquire);
    return dirty_index_.load(std::memory_order_relaxed) - reset;
  }

  // vCPU: notes that it dirtied the page. REQUIRES: used() < size(), which the
  // table above guarantees (checked).
  void Push(DirtyGfn page);
  // vCPU: it must not enter the guest until entries were taken (DL-42).
  bool SoftFull() const { return used() >= soft_limit_; }

  // Harvester: calls `record` for each dirty entry in order, then makes it
  // collected. Returns how many. `record` must leave the page where it is not
  // forgotten: from then on the ring may drop it. Passes over what a user
  // space of its own collected.
  uint32_t Collect(absl::FunctionRef<void(DirtyGfn)> record);

  // Frees the oldest entry if it is collected and returns it; the caller then
  // re-protects the page (DL-43). Nothing if the oldest is not: what was
  // collected behind it waits for it.
  absl::optional<DirtyGfn> TakeCollected();

  // All entries that are not free, in order.
  void ForEach(absl::FunctionRef<void(DirtyGfn)> fn) const;

  // For a user space of its own, which collects without Collect: entry `i` of
  // 0..size() - 1.
  Entry& entry(uint32_t i) { return entries_[i & (size_ - 1)]; }

 private:
  const uint32_t size_;        // a power of two
  const uint32_t soft_limit_;  // of used()
  const std::unique_ptr<Entry[]> entries_;
  // The vCPU's side and the others' on lines of their own.
  alignas(64) std::atomic<uint32_t> dirty_index_{0};
  alignas(64) std::atomic<uint32_t> reset_index_{0};
  uint32_t fetch_index_ = 0;
};

}  // namespace mmu

#endif  // MMU_CORE_DIRTY_DIRTY_RING_H_
