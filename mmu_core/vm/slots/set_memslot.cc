#include "mmu_core/vm/slots/set_memslot.h"

#include <cerrno>
#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/format.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/base/slot_number.h"
#include "mmu_core/base/with_memory.h"
#include "mmu_core/dirty/current_dirty_log.h"
#include "mmu_core/dirty/dirty_log.h"
#include "mmu_core/memory/backing.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/memory/region_request.h"
#include "mmu_core/vm/core/new_slot_log.h"
#include "mmu_core/vm/core/noted_pages.h"
#include "mmu_core/vm/slots/region_hooks.h"

namespace mmu {
namespace {

RegionRequest RequestFor(const MemslotConfig& config) {
  RegionRequest request;
  request.slot = PackSlot(config.address_space, config.slot);
  request.flags =
      config.mode == MemslotConfig::Mode::kReadOnly ? kMemslotReadonly : 0;
  request.gpa = config.gpa;
  request.size_bytes = config.size_bytes;
  return request;
}

// Removes the log of a deleted slot and returns the counts of its pages. No
// mark can follow: the slot's mappings are zapped, and the CPUs' logs are
// drained.
UndeliveredCounts EndLogOfDeletedSlot(VmCore& vm, uint32_t slot)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(vm.slots.slots_lock) {
  const std::shared_ptr<VmDirtyLog> log = vm.dirty_log.Get();
  if (log == nullptr) return {};
  HarvestDirtyRings(vm);
  return log->log.Leave(slot);
}

// Returns the change that `config` requests. Allocates the memory of a new
// slot. Checks all rules and changes nothing in the VM.
absl::StatusOr<RegionRequest> PrepareMemslot(VmCore& vm,
                                             const MemslotConfig& config,
                                             RegionHooks& hooks)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(vm.slots.slots_lock) {
  if (config.slot > 0xffff || config.address_space < 0 ||
      config.address_space >= vm.slots.address_spaces()) {
    return MakeError(
        absl::StatusCode::kInvalidArgument,
        {Reason::kInvalidSlot, "slot", EINVAL},
        Format("slot %d of address space %d is out of range; slots are "
               "0 to %d, address spaces 0 to %d",
               config.slot, config.address_space, kUserMemslots - 1,
               vm.slots.address_spaces() - 1));
  }
  RegionRequest request = RequestFor(config);
  const Memslot* old_slot =
      vm.slots.Active(config.address_space).FindById(config.slot);
  if (old_slot != nullptr) {
    request.userspace_addr = old_slot->hva;
    // Only StartDirtyLog and StopDirtyLog switch logging.
    if (config.size_bytes != 0) {
      request.flags |= old_slot->flags & kMemslotLogDirtyPages;
    }
  }
  // All rules are checked before memory is allocated.
  const absl::StatusOr<RegionChange> change = vm.slots.CheckRegion(request);
  if (!change.ok()) return change.status();
  if (*change == RegionChange::kCreate) {
    absl::StatusOr<std::shared_ptr<Backing>> backing =
        vm.memory.Allocate({.kind = config.backing,
                            .size_bytes = config.size_bytes,
                            .host_page_level = config.host_page_level,
                            .granule_bytes = HostPageBytes(vm.config),
                            .gpa = config.gpa});
    if (!backing.ok()) return backing.status();
    request.userspace_addr = (*backing)->hva();
    request.backing = std::move(*backing);
    if (config.address_space == 0 &&
        config.mode == MemslotConfig::Mode::kReadWrite) {
      absl::StatusOr<NewSlotLog> made =
          PrepareNewSlotLog(vm, config.slot, request.npages());
      if (!made.ok()) return made.status();
      if (made->log != nullptr) {
        request.flags |= kMemslotLogDirtyPages;
        request.dirty_bitmap = std::move(made->slot_bitmap);
        hooks.JoinLog(DirtyLog::JoiningSlot(std::move(made->log)));
      }
    }
  }
  return request;
}

}  // namespace

absl::Status SetMemslotLocked(VmCore& vm, const MemslotConfig& config,
                              UndeliveredCounts* lost) {
  RegionHooks hooks(vm, /*cost=*/nullptr);
  const absl::StatusOr<RegionRequest> request =
      WithMemory("size_bytes", "change a memslot", [&] {
        vm.slots.slots_lock.AssertHeld();
        return PrepareMemslot(vm, config, hooks);
      });
  if (!request.ok()) return request.status();
  if (absl::Status s = vm.slots.SetRegion(*request, hooks); !s.ok()) return s;

  if (config.size_bytes == 0 && config.address_space == 0) {
    *lost = EndLogOfDeletedSlot(vm, config.slot);
  }
  return absl::OkStatus();
}

}  // namespace mmu
