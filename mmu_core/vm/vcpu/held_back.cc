#include "mmu_core/vm/vcpu/held_back.h"

#include <atomic>
#include <cstdint>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/memory/backing.h"
#include "mmu_core/memory/frame_lender.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/sync/spin.h"
#include "mmu_core/vm/core/vm_core.h"
#include "mmu_core/vm/vcpu/parking_place.h"
#include "mmu_core/vm/vcpu/vcpu.h"

namespace mmu {
namespace {

// Interval at which `wanted` is polled. Nothing waits for that poll, so the
// interval need not be short. The end of the hold is noticed at once, and so is
// a request to park (WorkloadRunner::CallToPark). Relaxed: it orders nothing.
constinit std::atomic<int64_t> look_nanos{5'000'000};

// Returns whether the frame of `gfn`, or the right to write to it, may have
// been requested and not have arrived yet.
bool MayAwaitFrame(const VmCore& vm, Gfn gfn) {
  RcuReadGuard rcu;
  const Memslot* const slot = vm.slots.Active(/*as_id=*/0).FindByGfn(gfn);
  return slot != nullptr && slot->backing != nullptr &&
         slot->backing->is_borrowed() &&
         slot->StateOf(gfn) != FrameState::kReadWrite;
}

bool IsHeldBack(const VmCore& vm, Gfn gfn) {
  if (vm.invalidations.MaybeInvalidating(gfn)) return true;
  RcuReadGuard rcu;
  const Memslot* const slot = vm.slots.Active(/*as_id=*/0).FindByGfn(gfn);
  return slot != nullptr && slot->invalid();  // SLOT-25
}

absl::Status Park(ParkingPlace& parking) {
  if (parking.Park()) return absl::OkStatus();
  return absl::CancelledError(
      "stopped while the page was held back by the host");
}

}  // namespace

absl::Status AwaitRelease(VmCore& vm, Vcpu& vcpu, Gfn gfn,
                          absl::FunctionRef<bool()> wanted) {
  MMU_DCHECK(!vcpu.gate().in_guest() && !InRcuReadSection());
  if (!IsHeldBack(vm, gfn)) {
    // The fault itself waits for a frame, a little at a time.
    ParkingPlace* const parking = vcpu.parking();
    const bool parks =
        parking != nullptr && parking->IsWanted() && MayAwaitFrame(vm, gfn);
    return parks ? Park(*parking) : absl::OkStatus();
  }
  if (wanted()) return absl::OkStatus();
  AtHook(HookPoint::kHeldBackToWait);
  ParkingPlace* const parking = vcpu.parking();
  const auto is_to_park = [parking] {
    return parking != nullptr && parking->IsWanted();
  };
  do {
    if (is_to_park()) {
      if (absl::Status status = Park(*parking); !status.ok()) return status;
      continue;
    }
    const int64_t begin = MonotonicNanos();
    vm.invalidations.WaitWhile(
        [&] { return IsHeldBack(vm, gfn) && !is_to_park(); },
        absl::Nanoseconds(look_nanos.load(std::memory_order_relaxed)));
    vcpu.stats().AddStall(StallCause::kInvalidation, MonotonicNanos() - begin);
  } while (IsHeldBack(vm, gfn) && !wanted());
  return absl::OkStatus();
}

void SetReleaseLook(absl::Duration every) {
  look_nanos.store(absl::ToInt64Nanoseconds(every), std::memory_order_relaxed);
}

}  // namespace mmu
