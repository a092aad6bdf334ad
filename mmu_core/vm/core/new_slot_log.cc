#include "mmu_core/vm/core/new_slot_log.h"

#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "mmu_core/base/format.h"
#include "mmu_core/base/with_memory.h"
#include "mmu_core/dirty/current_dirty_log.h"

namespace mmu {
namespace {

absl::Status NoMemoryForLog(uint32_t slot) {
  return NoMemory("slots", Format("log the dirty pages of slot %d", slot));
}

}  // namespace

absl::StatusOr<NewSlotLog> MakeSlotLog(const VmCore& vm, uint32_t slot,
                                       uint64_t npages, InitiallySet open) {
  NewSlotLog made;
  std::shared_ptr<DirtyBitmap> open_set = DirtyBitmap::TryCreate(npages, open);
  if (!vm.has_dirty_rings()) {
    made.slot_bitmap = open_set;
  } else if (vm.slots_have_bitmaps()) {
    made.slot_bitmap = DirtyBitmap::TryCreate(npages, open);
    if (made.slot_bitmap == nullptr) return NoMemoryForLog(slot);
  }
  made.log = SlotLog::TryCreate(slot, std::move(open_set));
  if (made.log == nullptr) return NoMemoryForLog(slot);
  return made;
}

absl::StatusOr<NewSlotLog> PrepareNewSlotLog(const VmCore& vm, uint32_t slot,
                                             uint64_t npages) {
  const std::shared_ptr<VmDirtyLog> log = vm.dirty_log.Get();
  if (log == nullptr ||
      log->config.new_memslots == DirtyLogConfig::NewMemslots::kLeave) {
    return NewSlotLog();
  }
  return MakeSlotLog(vm, slot, npages, InitiallySet::kYes);
}

}  // namespace mmu
