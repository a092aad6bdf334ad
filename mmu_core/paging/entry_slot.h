// The slot of one entry in a page table: the only atomic of the tables.
//
// Memory orders, chosen here and nowhere else:
//   Load               acquire: a thread that sees a pointer to a table also
//                      sees the entries written before the table was linked.
//   Store, CompareExchange (success), Exchange
//                      release, for the same guarantee; acquire as well where
//                      the old value may be a table that is then torn down.
//   FetchAnd, FetchOr  acq_rel. They only clear or set bits. The TLB flush that
//                      follows (tlb/vcpu_gate.h), not the memory order, orders
//                      them against a vCPU's cached translation.

#ifndef MMU_CORE_PAGING_ENTRY_SLOT_H_
#define MMU_CORE_PAGING_ENTRY_SLOT_H_

#include <atomic>
#include <cstdint>

#include "mmu_core/paging/paging_traits.h"

namespace mmu {

// Thread-safe.
template <PageTableEntry Entry>
class EntrySlot {
 public:
  EntrySlot() = default;
  EntrySlot(const EntrySlot&) = delete;
  EntrySlot& operator=(const EntrySlot&) = delete;

  Entry Load() const { return Entry(bits_.load(std::memory_order_acquire)); }

  void Store(Entry entry) {
    bits_.store(entry.bits(), std::memory_order_release);
  }

  // Fills a table that no other thread can see yet.
  void StoreUnpublished(Entry entry) {
    bits_.store(entry.bits(), std::memory_order_relaxed);
  }

  // Stores `desired` and returns true if the slot held `expected`. Otherwise
  // changes nothing, sets `expected` to the slot's value and returns false.
  bool CompareExchange(Entry& expected, Entry desired) {
    uint64_t bits = expected.bits();
    if (bits_.compare_exchange_strong(bits, desired.bits(),
                                      std::memory_order_acq_rel,
                                      std::memory_order_acquire)) {
      return true;
    }
    expected = Entry(bits);
    return false;
  }

  Entry Exchange(Entry desired) {
    return Entry(bits_.exchange(desired.bits(), std::memory_order_acq_rel));
  }

  // Clears the bits that are not in `mask`; returns the previous value.
  Entry FetchAnd(uint64_t mask) {
    return Entry(bits_.fetch_and(mask, std::memory_order_acq_rel));
  }
  // Sets the bits of `mask`; returns the previous value.
  Entry FetchOr(uint64_t mask) {
    return Entry(bits_.fetch_or(mask, std::memory_order_acq_rel));
  }

 private:
  std::atomic<uint64_t> bits_{Entry().bits()};

  static_assert(std::atomic<uint64_t>::is_always_lock_free);
};

}  // namespace mmu

#endif  // MMU_CORE_PAGING_ENTRY_SLOT_H_
