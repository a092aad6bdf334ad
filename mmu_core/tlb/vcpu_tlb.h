// The TLB of one model vCPU: translations that the vCPU uses without walking
// the tables again. It deliberately keeps stale translations until a flush is
// requested: if an MMU forgets a flush, a later access uses a stale translation
// and a test fails (TLB-12).

#ifndef MMU_CORE_TLB_VCPU_TLB_H_
#define MMU_CORE_TLB_VCPU_TLB_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/base/optimization.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/level.h"
#include "mmu_core/paging/access_rights.h"

namespace mmu {

// One cached translation, at the mapping's own size. A value.
struct TlbEntry {
  PageNumber base_page;  // the first that it translates; aligned to `level`
  Pfn pfn;               // of the page's first frame
  // First byte of the mapped page in this process; null if the backing keeps
  // no contents.
  std::byte* host = nullptr;
  uint64_t root_id = 0;  // of the root that the walk started from; for audits
  Level level = Level::k4K;
  bool writable = false;
  bool executable = false;
  bool dirty_set = false;  // the SPTE's D bit is known to be set
  // The rights that all entries on the path grant. For shadow pages, whose
  // rights distinguish user and supervisor accesses; a second stage's do not.
  AccessRights rights = {};
};

// Three direct-mapped arrays, one per page size, so an insertion may evict any
// other entry of its size.
// Externally synchronised by the vCPU: only its thread may call.
class VcpuTlb {
 public:
  static constexpr int kEntries4K = 1024;
  static constexpr int kEntries2M = 256;
  static constexpr int kEntries1G = 16;
  // Page numbers must be below 2^45 (57 bits of virtual address).
  static constexpr int kPageNumberBits = 57 - kPageShift;

  VcpuTlb();
  VcpuTlb(const VcpuTlb&) = delete;
  VcpuTlb& operator=(const VcpuTlb&) = delete;

  // The entry that translates `page`, the smallest page first, or null. Valid
  // until the next non-const call.
  const TlbEntry* Lookup(PageNumber page) const {
    if (const Slot& s = SlotOf(page, Level::k4K);
        ABSL_PREDICT_TRUE(s.tag == TagOf(page, Level::k4K))) {
      return &s.entry;
    }
    if (const Slot& s = SlotOf(page, Level::k2M);
        s.tag == TagOf(page, Level::k2M)) {
      return &s.entry;
    }
    if (const Slot& s = SlotOf(page, Level::k1G);
        s.tag == TagOf(page, Level::k1G)) {
      return &s.entry;
    }
    return nullptr;
  }

  // REQUIRES: entry.level <= k1G and entry.base_page is aligned to it.
  void Insert(const TlbEntry& entry);

  // Drops all entries in constant time.
  void FlushAll();
  // Drops the entries that translate `page`, of any size. A vCPU flushes its
  // own translation this way after a fault (PF-18).
  void FlushPage(PageNumber page);
  // Drops at most one entry, chosen by `random`: a TLB may evict at any time.
  void DropRandom(uint64_t random);

  // Calls fn(const TlbEntry&) for each entry.
  template <typename Fn>
  void ForEach(Fn fn) const {
    for (int i = 0; i < kSlots; ++i) {
      if (IsLive(slots_[i])) fn(slots_[i].entry);
    }
  }

 private:
  static constexpr int kSlots = kEntries4K + kEntries2M + kEntries1G;
  static constexpr int kEpochBits = 64 - kPageNumberBits;

  // One cache line. The tag combines the page number at the entry's size with
  // the epoch of the insertion, so one comparison tests both the page and
  // whether a flush happened since. Epoch 0 is never current: a zero tag is an
  // empty slot.
  struct alignas(64) Slot {
    uint64_t tag = 0;
    TlbEntry entry;
  };

  static constexpr int FirstSlot(Level level) {
    return level == Level::k4K   ? 0
           : level == Level::k2M ? kEntries4K
                                 : kEntries4K + kEntries2M;
  }
  static constexpr int EntriesOf(Level level) {
    return level == Level::k4K   ? kEntries4K
           : level == Level::k2M ? kEntries2M
                                 : kEntries1G;
  }
  static int IndexOfSlot(PageNumber page, Level level) {
    return FirstSlot(level) +
           static_cast<int>((page.value() >> PagesShift(level)) &
                            (EntriesOf(level) - 1));
  }
  const Slot& SlotOf(PageNumber page, Level level) const {
    return slots_[IndexOfSlot(page, level)];
  }
  uint64_t TagOf(PageNumber page, Level level) const {
    return (page.value() >> PagesShift(level)) << kEpochBits | epoch_;
  }
  bool IsLive(const Slot& slot) const {
    return (slot.tag & ((uint64_t{1} << kEpochBits) - 1)) == epoch_;
  }

  const std::unique_ptr<Slot[]> slots_;  // 4K, then 2M, then 1G
  uint64_t epoch_ = 1;                   // 1 .. 2^kEpochBits - 1
};

}  // namespace mmu

#endif  // MMU_CORE_TLB_VCPU_TLB_H_
