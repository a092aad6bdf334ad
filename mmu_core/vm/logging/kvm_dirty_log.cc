#include "mmu_core/vm/logging/kvm_dirty_log.h"

#include <cerrno>

#include "absl/base/thread_annotations.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/format.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/dirty/dirty_bitmap.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/vm/core/noted_pages.h"
#include "mmu_core/vm/core/vm_core.h"
#include "mmu_core/vm/logging/clear_range.h"
#include "mmu_core/vm/logging/find_log.h"
#include "mmu_core/vm/logging/reprotect.h"

namespace mmu {
namespace {

// KVM's own calls need bitmaps (DL-25).
absl::Status CheckHasBitmaps(const VmCore& vm) {
  if (vm.slots_have_bitmaps()) return absl::OkStatus();
  return MakeError(absl::StatusCode::kFailedPrecondition,
                   {Reason::kInvalidDirtyLogMode, "slot", ENXIO},
                   "this VM logs into dirty rings only; harvest those");
}

// Null if there is none.
const Memslot* SlotWithBitmap(const VmCore& vm, uint32_t slot_id)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(vm.slots.slots_lock) {
  const Memslot* slot = vm.slots.Active(0).FindById(slot_id);
  return slot != nullptr && slot->dirty_bitmap != nullptr ? slot : nullptr;
}

}  // namespace

absl::Status EnableManualProtect(VmCore& vm, uint64_t bits, uint32_t flags) {
  constexpr uint64_t kBoth = kManualProtectEnable | kManualProtectInitiallySet;
  if (flags != 0 || (bits & ~kBoth) != 0 ||
      bits == kManualProtectInitiallySet) {
    return MakeError(
        absl::StatusCode::kInvalidArgument,
        {Reason::kInvalidDirtyLogMode, "bits", EINVAL},
        Format("bits is 0x%x and flags is 0x%x; bits must be 0, 1 or "
               "3, and flags 0",
               bits, flags));
  }
  MutexLock lock(vm.slots.slots_lock);
  vm.slots.SetDirtyLogInitiallySet(bits == kBoth ? InitiallySet::kYes
                                                 : InitiallySet::kNo);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<uint64_t>> GetAndClearDirtyLog(VmCore& vm,
                                                          uint32_t slot_id,
                                                          MmuCost* cost) {
  if (absl::Status s = CheckHasBitmaps(vm); !s.ok()) return s;
  MutexLock lock(vm.slots.slots_lock);
  const Memslot* slot = SlotWithBitmap(vm, slot_id);
  if (slot == nullptr) return NoSuchSlot(slot_id);
  SyncCpuDirtyLogs(vm, cost);
  if (absl::Status s = vm.mmus.CollectDirty(cost); !s.ok()) return s;
  DirtyBitmap& bitmap = *slot->dirty_bitmap;
  std::vector<uint64_t> words(bitmap.word_count());
  std::vector<BitmapWord> taken;
  bitmap.TakeAll(0, bitmap.word_count(), [&](uint64_t i, uint64_t bits) {
    words[i] = bits;
    taken.push_back({i, bits});
  });
  Reprotect(vm, *slot, vm.dirty_log.ConfigOfSlots(), taken, cost);
  return words;
}

absl::StatusOr<std::vector<uint64_t>> CopyDirtyLog(VmCore& vm,
                                                   uint32_t slot_id) {
  if (absl::Status s = CheckHasBitmaps(vm); !s.ok()) return s;
  MutexLock lock(vm.slots.slots_lock);
  const Memslot* slot = SlotWithBitmap(vm, slot_id);
  if (slot == nullptr) return NoSuchSlot(slot_id);
  SyncCpuDirtyLogs(vm, /*cost=*/nullptr);
  if (absl::Status s = vm.mmus.CollectDirty(/*cost=*/nullptr); !s.ok()) {
    return s;
  }
  std::vector<uint64_t> words(slot->dirty_bitmap->word_count());
  slot->dirty_bitmap->OrInto(0, absl::MakeSpan(words));
  return words;
}

absl::StatusOr<ClearResult> ClearBitmap(VmCore& vm, uint32_t slot_id,
                                        uint64_t first_page,
                                        uint64_t page_count,
                                        absl::Span<const uint64_t> mask,
                                        MmuCost* cost) {
  if (absl::Status s = CheckHasBitmaps(vm); !s.ok()) return s;
  // KVM refuses a slot without a bitmap before it compares the range with the
  // slot's end. SlotForRange compares the range first, so it is not used here.
  if (absl::Status s = CheckClearRange(0, first_page, page_count, mask.size());
      !s.ok()) {
    return s;
  }
  MutexLock lock(vm.slots.slots_lock);
  const Memslot* slot = SlotWithBitmap(vm, slot_id);
  if (slot == nullptr) return NoSuchSlot(slot_id);
  if (absl::Status s =
          CheckClearRange(slot->npages, first_page, page_count, mask.size());
      !s.ok()) {
    return s;
  }
  SyncCpuDirtyLogs(vm, cost);
  std::vector<BitmapWord> taken;
  for (size_t i = 0; i < mask.size(); ++i) {
    if (mask[i] == 0) continue;
    const uint64_t index = first_page / 64 + i;
    const uint64_t bits = slot->dirty_bitmap->ClearBits(index, mask[i]);
    if (bits != 0) taken.push_back({index, bits});
  }
  return Reprotect(vm, *slot, vm.dirty_log.ConfigOfSlots(), taken, cost);
}

}  // namespace mmu
