#include "mmu_core/vm/inspect/memslot_list.h"

#include <utility>

#include "absl/status/statusor.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/memory/backing.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/sync/rcu.h"

namespace mmu {
namespace {

MemslotInfo InfoOf(const MemslotSet& set, const Memslot& slot) {
  MemslotInfo info;
  info.config.slot = slot.id;
  info.config.address_space = slot.as_id;
  info.config.gpa = ToGpa(slot.base_gfn);
  info.config.size_bytes = slot.npages << kPageShift;
  info.config.backing = BackingKind::kMetadataOnly;  // if there is none at all
  if (slot.backing != nullptr) {
    info.config.backing = slot.backing->kind();
    info.config.host_page_level = slot.backing->host_page_level();
  }
  info.config.mode = slot.readonly() ? MemslotConfig::Mode::kReadOnly
                                     : MemslotConfig::Mode::kReadWrite;
  // During a swap the number is not that of a set yet (SLOT-21).
  info.generation = set.generation() & ~kGenerationInProgress;
  info.dirty_log_enabled = slot.dirty_log_enabled();
  info.has_contents = info.config.backing != BackingKind::kMetadataOnly;
  return info;
}

}  // namespace

std::vector<MemslotInfo> Memslots(const VmCore& vm) {
  std::vector<MemslotInfo> infos;
  RcuReadGuard rcu;
  for (int as_id = 0; as_id < vm.slots.address_spaces(); ++as_id) {
    const MemslotSet& set = vm.slots.Active(as_id);
    for (const Memslot* slot : set.slots_by_id()) {
      infos.push_back(InfoOf(set, *slot));
    }
  }
  return infos;
}

absl::optional<MemslotInfo> FindMemslot(const VmCore& vm, int address_space,
                                        uint32_t slot) {
  RcuReadGuard rcu;
  const MemslotSet& set = vm.slots.Active(address_space);
  const Memslot* const found = set.FindById(slot);
  if (found == nullptr) return absl::nullopt;
  return InfoOf(set, *found);
}

GpaSpace GuestSpace(const VmCore& vm) {
  RcuReadGuard rcu;
  std::vector<GfnRange> ranges;
  for (const Memslot* slot : vm.slots.Active(0).slots()) {
    if (!slot->readonly() && !slot->invalid()) ranges.push_back(slot->range());
  }
  absl::StatusOr<GpaSpace> space = GpaSpace::Create(std::move(ranges));
  MMU_CHECK(space.ok());  // slots never overlap
  return *space;
}

}  // namespace mmu
