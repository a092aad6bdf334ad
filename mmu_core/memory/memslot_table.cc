#include "mmu_core/memory/memslot_table.h"

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_format.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/dirty/dirty_bitmap.h"
#include "mmu_core/memory/lpage_info.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/memory/region_request.h"
#include "mmu_core/sync/rcu.h"

namespace mmu {
namespace {

absl::Status OutOfMemory(const RegionRequest& request) {
  return MakeError(
      absl::StatusCode::kResourceExhausted,
      {"RESOURCE_EXHAUSTED_MEMORY", "size_bytes", ENOMEM},
      absl::StrFormat("no memory for the bookkeeping of slot %d with "
                      "size_bytes %d; free memory or use a smaller slot",
                      request.id(), request.size_bytes));
}

absl::Status Immutable(const RegionRequest& request, const char* field,
                       const char* what) {
  return MakeError(
      absl::StatusCode::kFailedPrecondition,
      {"MEMSLOT_IMMUTABLE", field, EINVAL},
      absl::StrFormat("slot %d exists and its %s cannot change; delete it and "
                      "create it again",
                      request.id(), what));
}

// SLOT-10.
absl::Status CheckSameSlot(const RegionRequest& request,
                           const Memslot& old_slot) {
  if (request.userspace_addr != old_slot.hva) {
    return Immutable(request, "userspace_addr", "userspace_addr");
  }
  if (request.npages() != old_slot.npages) {
    return Immutable(request, "size_bytes", "size_bytes");
  }
  if (((request.flags ^ old_slot.flags) & kMemslotReadonly) != 0) {
    return Immutable(request, "flags", "read-only flag");
  }
  return absl::OkStatus();
}

}  // namespace

MemslotTable::MemslotTable(const MemslotTableOptions& options)
    : options_(options), spaces_(static_cast<size_t>(options.address_spaces)) {
  for (size_t i = 0; i < spaces_.size(); ++i) {
    spaces_[i].owner = std::make_unique<MemslotSet>(i, std::vector<SlotPtr>());
    spaces_[i].active.store(spaces_[i].owner.get(), std::memory_order_release);
  }
}

absl::StatusOr<RegionChange> MemslotTable::CheckRegion(
    const RegionRequest& request) const {
  if (absl::Status status = CheckRegionRequest(request, address_spaces());
      !status.ok()) {
    return status;
  }
  const Memslot* old_slot = Active(request.as_id()).FindById(request.id());
  const uint64_t total = total_pages();
  if (request.size_bytes == 0) {  // SLOT-08
    if (old_slot == nullptr) {
      return MakeError(
          absl::StatusCode::kNotFound, {"MEMSLOT_NOT_FOUND", "slot", EINVAL},
          absl::StrFormat("slot %d of address space %d does not exist, and "
                          "size_bytes 0 deletes a slot; name an existing slot "
                          "or give a size",
                          request.id(), request.as_id()));
    }
    if (total < old_slot->npages) {
      return MakeError(
          absl::StatusCode::kInternal, {"ACCOUNTING", "", EIO},
          absl::StrFormat("slot %d has %d pages, but the VM counts only %d in "
                          "all; recreate the VM",
                          request.id(), old_slot->npages, total));
    }
    return RegionChange::kDelete;
  }

  if (old_slot == nullptr) {
    if (total + request.npages() < total) {  // SLOT-09
      return RegionError(
          "INVALID_SIZE", "size_bytes", EINVAL,
          absl::StrFormat("size_bytes is %d, but with the %d pages of the "
                          "other slots the VM's total must not exceed 64 bits; "
                          "use a smaller size",
                          request.size_bytes, total));
    }
    absl::Status place = CheckPlace(request, old_slot);
    if (!place.ok()) return place;
    return RegionChange::kCreate;
  }

  absl::Status same = CheckSameSlot(request, *old_slot);
  if (!same.ok()) return same;
  if (request.base_gfn() != old_slot->base_gfn) {  // SLOT-11
    absl::Status place = CheckPlace(request, old_slot);
    if (!place.ok()) return place;
    return RegionChange::kMove;
  }
  return request.flags != old_slot->flags ? RegionChange::kFlagsOnly
                                          : RegionChange::kNone;
}

absl::Status MemslotTable::CheckPlace(const RegionRequest& request,
                                      const Memslot* old_slot) const {
  const GfnRange range = GfnRange::Of(request.base_gfn(), request.npages());
  for (const Memslot* slot : Active(request.as_id()).SlotsIn(range)) {
    if (slot == old_slot) continue;  // SLOT-12
    return RegionError(
        "REGION_OVERLAP", "gpa_bytes", EEXIST,
        absl::StrFormat("gpa_bytes is 0x%x with size_bytes %d, but must not "
                        "overlap slot %d at gpa_bytes 0x%x with size_bytes %d; "
                        "choose a free range",
                        request.gpa.value(), request.size_bytes, slot->id,
                        ToGpa(slot->base_gfn).value(), slot->range().bytes()));
  }
  if (range.end.value() - 1 > options_.max_gfn) {  // SLOT-13
    return RegionError(
        "GPA_OUT_OF_RANGE", "gpa_bytes", EINVAL,
        absl::StrFormat("gpa_bytes is 0x%x with size_bytes %d, but the last "
                        "page must not lie above 0x%x; use a lower address",
                        request.gpa.value(), request.size_bytes,
                        ToGpa(Gfn(options_.max_gfn)).value()));
  }
  return absl::OkStatus();
}

MemslotTable::SlotPtr MemslotTable::Prepare(const RegionRequest& request,
                                            RegionChange change,
                                            const Memslot* old_slot,
                                            MemslotTableHooks& hooks) const {
  if (hooks.AllocationFails()) return nullptr;
  auto slot = std::make_shared<Memslot>();
  slot->id = request.id();
  slot->as_id = request.as_id();
  slot->base_gfn = request.base_gfn();
  slot->npages = request.npages();
  slot->hva = request.userspace_addr;
  slot->flags = request.flags;
  slot->backing = old_slot != nullptr ? old_slot->backing : request.backing;
  // Which blocks may be huge depends on the base gfn.
  slot->lpage_info = change == RegionChange::kFlagsOnly
                         ? old_slot->lpage_info
                         : std::make_shared<LpageInfo>(slot->base_gfn,
                                                       slot->npages, slot->hva);
  slot->rmaps = change == RegionChange::kFlagsOnly
                    ? old_slot->rmaps
                    : std::make_shared<LazySlotRmaps>(slot->range());
  if (slot->dirty_log_enabled() &&
      options_.bitmaps == MemslotTableOptions::Bitmaps::kYes) {
    if (old_slot != nullptr && old_slot->dirty_bitmap != nullptr) {
      slot->dirty_bitmap = old_slot->dirty_bitmap;
    } else if (request.dirty_bitmap != nullptr) {
      slot->dirty_bitmap = request.dirty_bitmap;
    } else {
      slot->dirty_bitmap = DirtyBitmap::TryCreate(slot->npages, initially_set_);
      if (slot->dirty_bitmap == nullptr) return nullptr;
    }
  }
  return slot;
}

absl::Status MemslotTable::Replace(int as_id, uint32_t id, SlotPtr slot,
                                   MemslotTableHooks& hooks) {
  Space& space = spaces_[static_cast<size_t>(as_id)];
  const uint64_t generation = space.owner->generation();
  LazySlotRmaps* const rmaps = slot != nullptr ? slot->rmaps.get() : nullptr;
  auto next = std::make_unique<MemslotSet>(
      *space.owner, generation | kGenerationInProgress, id, std::move(slot));
  const auto store = [&space, &next] {
    space.active.store(next.get(), std::memory_order_release);
  };
  const auto publish = [this, &store] {
    if (options_.invalidations != nullptr) {
      options_.invalidations->PublishWhenIdle(store);
    } else {
      store();
    }
  };
  if (options_.shadow_roots != nullptr && rmaps != nullptr) {
    const absl::Status status =
        options_.shadow_roots->PublishSlot(*rmaps, publish);
    if (!status.ok()) return status;
  } else {
    publish();
  }
  RcuSynchronize();
  next->set_generation(generation + spaces_.size());
  space.owner = std::move(next);  // frees the set that nobody reads any more
  space.owner->ForgetReplaced();
  hooks.GenerationAdvanced(space.owner->generation());
  return absl::OkStatus();
}

void MemslotTable::Account(const Memslot* old_slot, const Memslot* new_slot) {
  const auto pages = [](const Memslot* slot) {
    return slot == nullptr ? 0 : slot->npages;
  };
  const auto logging = [](const Memslot* slot) {
    return slot != nullptr && slot->dirty_log_enabled() ? 1 : 0;
  };
  total_pages_.fetch_add(pages(new_slot) - pages(old_slot),
                         std::memory_order_relaxed);
  logging_slots_.fetch_add(logging(new_slot) - logging(old_slot),
                           std::memory_order_relaxed);
}

absl::Status MemslotTable::SetRegion(const RegionRequest& request,
                                     MemslotTableHooks& hooks) {
  const absl::StatusOr<RegionChange> checked = CheckRegion(request);
  if (!checked.ok()) return checked.status();
  const RegionChange change = *checked;
  if (change == RegionChange::kNone) return absl::OkStatus();

  const int as_id = request.as_id();
  // Keeps the old slot alive until the hooks have seen it.
  SlotPtr old_slot;
  if (change != RegionChange::kCreate) {
    for (const SlotPtr& slot : Active(as_id).owned_slots()) {
      if (slot->id == request.id()) old_slot = slot;
    }
  }

  const bool invalidate =
      change == RegionChange::kDelete || change == RegionChange::kMove;
  if (invalidate) {
    if (hooks.AllocationFails()) return OutOfMemory(request);
    auto invalid = std::make_shared<Memslot>(*old_slot);
    invalid->flags |= kMemslotInvalid;
    // It shares the rmaps of the slot, which are there if they must be.
    MMU_CHECK(Replace(as_id, request.id(), std::move(invalid), hooks).ok());
    hooks.FlushShadowSlot(*old_slot);
  }
  SlotPtr new_slot;
  if (change != RegionChange::kDelete) {
    new_slot = Prepare(request, change, old_slot.get(), hooks);
  }
  if ((change != RegionChange::kDelete && new_slot == nullptr) ||
      !Replace(as_id, request.id(), new_slot, hooks).ok()) {
    // SLOT-14: the slot works again, though its mappings are gone.
    if (invalidate) {
      MMU_CHECK(Replace(as_id, request.id(), old_slot, hooks).ok());
    }
    return OutOfMemory(request);
  }
  Account(old_slot.get(), new_slot.get());
  hooks.CommitRegion(change, old_slot.get(), new_slot.get());
  return absl::OkStatus();
}

void MemslotTable::SetGenerationForTest(int as_id, uint64_t generation) {
  spaces_[static_cast<size_t>(as_id)].owner->set_generation(generation);
}

}  // namespace mmu
