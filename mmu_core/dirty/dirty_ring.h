// The dirty ring of one vCPU: the pages that it dirtied, in order.
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
// The memory orders (DL-44), chosen here and nowhere else:
//
//   Push        slot, offset | flags = dirty       (release)
//   Collect     flags == dirty? (acquire) | slot, offset
//               ... the page is recorded elsewhere ... | flags |= collected
//                                                  (release)
//   Take        flags has collected? (acquire) | slot, offset | flags = free,
//               reset index + 1                    (release)
//   Push again  reset index                        (acquire, in SoftFull)
//
// A thread that sees a state also sees everything that the previous side did
// before: the harvester sees a whole entry, the reset sees the record of the
// page, the vCPU sees an entry that no thread reads any more.
//
// The ring never overflows: a vCPU that reached the soft limit does not enter
// the guest until entries were taken (DL-42). The room above the limit is for
// the entries that one exit can still add, in this order:
//
//   the CPU's own log             at most its entries; drained once, first
//                                 (vm/vcpu/vcpu.cc, DrainPml)
//   words of the guest's tables   none at the limit: such a write checks the
//   that are written for it       limit first (memory/guest_memory_access.cc),
//                                 however often the walk starts over
//   the page of the fault         1, or the 4 or 16 of a granule of stage 2: a
//                                 fault is handled once in an exit, and marks
//                                 at most the one page that it maps (tdp/,
//                                 shadow/, stage2/). Other pages mapped with
//                                 it, ahead of the guest, are not mapped
//                                 writable where the slot logs
//   pages mapped ahead of the     none at the limit: each checks the limit
//   guest on request              first (vm/vcpu/pre_fault.cc)
//
// An emulated write of the guest (vm/vcpu/emulate_write.cc) counts as one of
// the words.

#ifndef MMU_CORE_DIRTY_DIRTY_RING_H_
#define MMU_CORE_DIRTY_DIRTY_RING_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/types/optional.h"

namespace mmu {

// A page, as an entry of a ring identifies it.
struct DirtyGfn {
  uint32_t slot = 0;    // base/slot_number.h
  uint64_t offset = 0;  // pages from the slot's start

  friend bool operator==(const DirtyGfn&, const DirtyGfn&) = default;
};

// vCPU side (Push, SoftFull): the vCPU's thread. Collect: one harvester at a
// time. TakeCollected: one thread at a time, under slots_lock. The three sides
// may run concurrently. Any thread may call used() at any time, and ForEach
// while no side is active.
class DirtyRing {
 public:
  // Bits of an entry's flags.
  static constexpr uint32_t kDirty = 1;
  static constexpr uint32_t kCollected = 2;

  // The layout that user space sees: 16 bytes.
  struct Entry {
    std::atomic<uint32_t> flags{0};
    uint32_t slot = 0;
    uint64_t offset = 0;
  };
  static_assert(sizeof(Entry) == 16);

  static constexpr uint32_t kMaxEntries = 65536;
  // The entries that one exit of a vCPU may add, apart from the CPU's own log.
  // A fault on stage-2 tables adds one for each 4 KiB of the granule.
  static constexpr uint32_t kReservedEntries = 64;

  // Checks a ring's size in bytes (DL-40). EINVAL unless it is a power of two,
  // at least a page, and has room for more than kReservedEntries +
  // `cpu_log_entries` entries (`cpu_log_entries`: the size of the processor's
  // own log of dirty pages, which is drained at once; 0 without one). E2BIG if
  // it has more than kMaxEntries. INVALID_ARGUMENT INVALID_MMU_OPTION.
  static absl::Status CheckBytes(uint64_t bytes, uint32_t cpu_log_entries);

  // REQUIRES: CheckBytes accepts it.
  DirtyRing(uint32_t entries, uint32_t cpu_log_entries);
  DirtyRing(const DirtyRing&) = delete;
  DirtyRing& operator=(const DirtyRing&) = delete;

  uint32_t size() const { return size_; }
  uint32_t soft_limit() const { return soft_limit_; }
  // The number of entries that are not free. Exact for a side that moves one of
  // the indices.
  uint32_t used() const {
    const uint32_t reset = reset_index_.load(std::memory_order_acquire);
    return dirty_index_.load(std::memory_order_relaxed) - reset;
  }

  // vCPU: records that it dirtied the page. REQUIRES: used() < size(), which
  // the table above guarantees (checked).
  void Push(DirtyGfn page);
  // vCPU: whether it must not enter the guest until entries were taken (DL-42).
  bool SoftFull() const { return used() >= soft_limit_; }

  // Harvester: calls `record` for each dirty entry in order, then makes the
  // entry collected. Returns the number of entries. `record` must store the
  // page durably: from then on the ring may drop it. Skips entries that user
  // space collected itself.
  uint32_t Collect(absl::FunctionRef<void(DirtyGfn)> record);

  // Frees the oldest entry if it is collected and returns its page; the caller
  // then write-protects the page again (DL-43). Nullopt if the oldest entry is
  // not collected, even if later entries are.
  absl::optional<DirtyGfn> TakeCollected();

  // All entries that are not free, in order.
  void ForEach(absl::FunctionRef<void(DirtyGfn)> fn) const;

  // For the auditor, while no side is active: whether indices and flags agree
  // (INV-15 of vm/inspect/audit.h). Calls `fault` with a text for each rule
  // that is broken.
  void Audit(absl::FunctionRef<void(const std::string&)> fault) const;
  // All entries that a Collect has passed, in order.
  void ForEachCollected(absl::FunctionRef<void(DirtyGfn)> fn) const;
  // Lets a test break the order of the indices.
  void MoveFetchIndexForTest(int32_t entries) {
    fetch_index_ += static_cast<uint32_t>(entries);
  }

  // For user space that collects entries itself, without Collect: entry `i` of
  // 0..size() - 1.
  Entry& entry(uint32_t i) { return entries_[i & (size_ - 1)]; }

 private:
  const uint32_t size_;        // a power of two
  const uint32_t soft_limit_;  // of used()
  const std::unique_ptr<Entry[]> entries_;
  // The vCPU's index and the others' are on separate cache lines.
  alignas(64) std::atomic<uint32_t> dirty_index_{0};
  alignas(64) std::atomic<uint32_t> reset_index_{0};
  uint32_t fetch_index_ = 0;
};

}  // namespace mmu

#endif  // MMU_CORE_DIRTY_DIRTY_RING_H_
