#include "mmu_core/rmap/lazy_slot_rmaps.h"

#include <atomic>
#include <cerrno>
#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/format.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/rmap/slot_rmaps.h"

namespace mmu {

absl::Status ShadowRootGate::BeforeShadowRoot(
    absl::FunctionRef<std::vector<LazySlotRmaps*>()> slots) {
  if (SlotsHaveRmaps()) return absl::OkStatus();
  MutexLock lock(slots_arch_lock_);
  if (SlotsHaveRmaps()) return absl::OkStatus();
  for (LazySlotRmaps* slot : slots()) {
    const absl::Status status = Allocate(*slot);
    if (!status.ok()) return status;
  }
  if (prepared_ != nullptr) {
    const absl::Status status = Allocate(*prepared_);
    if (!status.ok()) return status;
  }
  AtHook(HookPoint::kRmapsToPublish);
  slots_have_rmaps_.store(true, std::memory_order_release);
  return absl::OkStatus();
}

absl::Status ShadowRootGate::PrepareSlot(LazySlotRmaps& slot) {
  MutexLock lock(slots_arch_lock_);
  MMU_CHECK(prepared_ == nullptr);
  if (SlotsHaveRmaps()) {
    if (absl::Status status = Allocate(slot); !status.ok()) return status;
  }
  prepared_ = &slot;
  return absl::OkStatus();
}

void ShadowRootGate::PublishSlot(LazySlotRmaps& slot,
                                 absl::FunctionRef<void()> publish) {
  MutexLock lock(slots_arch_lock_);
  MMU_CHECK(prepared_ == &slot);
  publish();
  prepared_ = nullptr;
}

absl::Status ShadowRootGate::Allocate(LazySlotRmaps& slot) {
  if (slot.get() != nullptr) return absl::OkStatus();
  std::unique_ptr<SlotRmaps> rmaps = SlotRmaps::TryCreate(slot.range_);
  if (rmaps == nullptr) {
    return MakeError(absl::StatusCode::kResourceExhausted,
                     {Reason::kResourceExhaustedMemory, "size_bytes", ENOMEM},
                     Format("no memory for the reverse maps of a slot with "
                            "size_bytes %d; free memory or use a smaller slot",
                            slot.range_.bytes()));
  }
  slot.rmaps_.store(rmaps.release(), std::memory_order_release);
  return absl::OkStatus();
}

}  // namespace mmu
