// A request to the memslot table, and the checks that need nothing but the
// request.

#ifndef MMU_CORE_MEMORY_REGION_REQUEST_H_
#define MMU_CORE_MEMORY_REGION_REQUEST_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/base/slot_number.h"
#include "mmu_core/memory/backing.h"

namespace mmu {

class DirtyBitmap;

// Ids that callers may use: 0..32763 (SLOT-01).
inline constexpr uint32_t kUserMemslots = 32764;
// Maximum number of pages of one slot (SLOT-07).
inline constexpr uint64_t kMaxMemslotPages = (uint64_t{1} << 31) - 1;

// A value.
struct RegionRequest {
  uint32_t slot = 0;   // low 16 bits the id, high 16 bits the address space
  uint32_t flags = 0;  // kMemslotLogDirtyPages, kMemslotReadonly
  Gpa gpa;
  uint64_t size_bytes = 0;  // 0 deletes the slot
  Hva userspace_addr;       // of the first page
  // The memory mapped at userspace_addr; may be null if none is mapped yet
  // (SLOT-04). Set only for a slot that does not exist: a changed slot keeps
  // its backing.
  std::shared_ptr<Backing> backing;
  // The bitmap to mark in, for a request that switches logging on. Null: a
  // bitmap is allocated, which may fail.
  std::shared_ptr<DirtyBitmap> dirty_bitmap;

  uint32_t id() const { return IdOfSlot(slot); }
  int as_id() const { return AsIdOfSlot(slot); }
  Gfn base_gfn() const { return ToGfn(gpa); }
  uint64_t npages() const { return size_bytes >> kPageShift; }
};

enum class RegionChange : uint8_t {
  kNone,
  kCreate,
  kDelete,
  kMove,
  kFlagsOnly,
};

// Checks SLOT-01..07, in that order, and returns the first failure. Errors as
// MemslotTable::SetRegion. `host_page_bytes`: the smallest page of the host.
absl::Status CheckRegionRequest(const RegionRequest& request,
                                int address_spaces, uint64_t host_page_bytes);
// SLOT-07 alone, for callers that get memory for a slot before they ask for it.
absl::Status CheckSlotSize(uint64_t size_bytes);

// An INVALID_ARGUMENT error of a region request.
absl::Status RegionError(Reason reason, const char* field, int kvm_errno,
                         const std::string& message);

}  // namespace mmu

#endif  // MMU_CORE_MEMORY_REGION_REQUEST_H_
