// A memslot table with hooks that record their calls.

#ifndef MMU_CORE_MEMORY_REGION_TEST_UTIL_H_
#define MMU_CORE_MEMORY_REGION_TEST_UTIL_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/memory/invalidate_sequence.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/memory/memslot_table.h"
#include "mmu_core/memory/region_request.h"
#include "mmu_core/sync/rcu.h"

namespace mmu {

inline const char* NameOf(RegionChange change) {
  switch (change) {
    case RegionChange::kNone:
      return "none";
    case RegionChange::kCreate:
      return "create";
    case RegionChange::kDelete:
      return "delete";
    case RegionChange::kMove:
      return "move";
    case RegionChange::kFlagsOnly:
      return "flags";
  }
  return "invalid";
}

// Externally synchronised by the table's slots_lock.
class RecordingHooks : public MemslotTableHooks {
 public:
  void FlushShadowSlot(const Memslot& old_slot) override {
    events.push_back(absl::StrCat("flush ", old_slot.id));
    if (on_flush) on_flush(old_slot);
  }
  void CommitRegion(RegionChange change, const Memslot* old_slot,
                    const Memslot* new_slot) override {
    events.push_back(absl::StrCat(
        NameOf(change), " ",
        old_slot == nullptr ? "-" : absl::StrCat(old_slot->base_gfn.value()),
        " ",
        new_slot == nullptr ? "-" : absl::StrCat(new_slot->base_gfn.value())));
    if (on_commit) on_commit(old_slot, new_slot);
  }

  std::vector<std::string> events;
  std::function<void(const Memslot&)> on_flush;
  std::function<void(const Memslot*, const Memslot*)> on_commit;
};

inline constexpr uint64_t kTestMaxGfn = (uint64_t{1} << 34) - 1;  // 46 bits

// A request for `npages` pages at `gfn`, with memory congruent to gfn modulo
// all page sizes.
inline RegionRequest Region(uint32_t slot, uint64_t gfn, uint64_t npages,
                            uint32_t flags = 0) {
  RegionRequest request;
  request.slot = slot;
  request.flags = flags;
  request.gpa = ToGpa(Gfn(gfn));
  request.size_bytes = npages << kPageShift;
  request.userspace_addr = Hva((uint64_t{1} << 45) + (gfn << kPageShift));
  return request;
}

inline RegionRequest InSpace(RegionRequest request, uint32_t as_id) {
  request.slot |= as_id << 16;
  return request;
}
inline RegionRequest WithFlags(RegionRequest request, uint32_t flags) {
  request.flags = flags;
  return request;
}
inline RegionRequest MovedTo(RegionRequest request, uint64_t gfn) {
  request.gpa = ToGpa(Gfn(gfn));
  return request;
}
inline RegionRequest Deleted(RegionRequest request) {
  request.size_bytes = 0;
  return request;
}

// Thread-compatible, except where MemslotTable itself allows more.
struct TestTable {
  explicit TestTable(InvalidationGate* invalidations = nullptr)
      : table({.max_gfn = kTestMaxGfn,
               .address_spaces = 2,
               .invalidations = invalidations}) {}

  absl::Status Set(const RegionRequest& request) {
    MutexLock lock(table.slots_lock);
    return table.SetRegion(request, hooks);
  }
  uint64_t generation(int as_id = 0) const {
    RcuReadGuard reader;
    return table.Active(as_id).generation();
  }
  // Valid until the slots are changed.
  const Memslot* Find(uint64_t gfn, int as_id = 0) const {
    RcuReadGuard reader;
    return table.Active(as_id).FindByGfn(Gfn(gfn));
  }

  RecordingHooks hooks;
  MemslotTable table;
};

}  // namespace mmu

#endif  // MMU_CORE_MEMORY_REGION_TEST_UTIL_H_
