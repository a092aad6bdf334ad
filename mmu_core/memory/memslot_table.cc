#include "mmu_core/memory/memslot_table.h"

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/format.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/base/thread_index.h"
#include "mmu_core/base/with_memory.h"
#include "mmu_core/dirty/dirty_bitmap.h"
#include "mmu_core/memory/invalidate_sequence.h"
#include "mmu_core/memory/lpage_info.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/memory/region_request.h"
#include "mmu_core/sync/rcu.h"

namespace mmu {
namespace {

absl::Status OutOfMemory(const RegionRequest& request) {
  return MakeError(absl::StatusCode::kResourceExhausted,
                   {Reason::kResourceExhaustedMemory, "size_bytes", ENOMEM},
                   Format("no memory for the bookkeeping of slot %d with "
                          "size_bytes %d; free memory or use a smaller slot",
                          request.id(), request.size_bytes));
}

absl::Status Immutable(const RegionRequest& request, const char* field,
                       const char* what) {
  return MakeError(
      absl::StatusCode::kFailedPrecondition,
      {Reason::kMemslotImmutable, field, EINVAL},
      Format("slot %d exists and its %s cannot change; delete it and "
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
  if (absl::Status status = CheckRegionRequest(request, address_spaces(),
                                               options_.host_page_bytes);
      !status.ok()) {
    return status;
  }
  const Memslot* old_slot = Active(request.as_id()).FindById(request.id());
  const uint64_t total = total_pages();
  if (request.size_bytes == 0) {  // SLOT-08
    if (old_slot == nullptr) {
      return MakeError(
          absl::StatusCode::kNotFound,
          {Reason::kMemslotNotFound, "slot", EINVAL},
          Format("slot %d of address space %d does not exist, and "
                 "size_bytes 0 deletes a slot; name an existing slot "
                 "or give a size",
                 request.id(), request.as_id()));
    }
    if (total < old_slot->npages) {
      return MakeError(
          absl::StatusCode::kInternal, {Reason::kAccounting, "", EIO},
          Format("slot %d has %d pages, but the VM's page count is "
                 "only %d; create the VM again",
                 request.id(), old_slot->npages, total));
    }
    return RegionChange::kDelete;
  }

  if (old_slot == nullptr) {
    if (total + request.npages() < total) {  // SLOT-09
      return RegionError(
          Reason::kInvalidSize, "size_bytes", EINVAL,
          Format("size_bytes is %d; with the %d pages of the other "
                 "slots the VM's page count would exceed 64 bits; use "
                 "a smaller size",
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
        Reason::kRegionOverlap, "gpa", EEXIST,
        Format("gpa is 0x%x with size_bytes %d, but must not "
               "overlap slot %d at gpa 0x%x with size_bytes %d; "
               "choose a free range",
               request.gpa.value(), request.size_bytes, slot->id,
               ToGpa(slot->base_gfn).value(), slot->range().bytes()));
  }
  if (range.end.value() - 1 > options_.max_gfn) {  // SLOT-13
    return RegionError(
        Reason::kGpaOutOfRange, "gpa", options_.errno_above_max_gfn,
        Format("gpa is 0x%x with size_bytes %d, but the last "
               "page must not lie above 0x%x; use a lower address",
               request.gpa.value(), request.size_bytes,
               ToGpa(Gfn(options_.max_gfn)).value()));
  }
  return absl::OkStatus();
}

bool MemslotTable::SetBitmap(std::shared_ptr<DirtyBitmap> kept,
                             Memslot& slot) const {
  if (options_.bitmaps == MemslotTableOptions::Bitmaps::kNo) return true;
  slot.dirty_bitmap = kept != nullptr
                          ? std::move(kept)
                          : DirtyBitmap::TryCreate(slot.npages, initially_set_);
  return slot.dirty_bitmap != nullptr;
}

MemslotTable::SlotPtr MemslotTable::WithFlags(
    const Memslot& old_slot, uint32_t flags,
    std::shared_ptr<DirtyBitmap> dirty_bitmap) const {
  auto slot = std::make_shared<Memslot>(old_slot);
  slot->flags = flags;
  if (!slot->dirty_log_enabled()) {
    slot->dirty_bitmap = nullptr;
  } else if (slot->dirty_bitmap == nullptr &&
             !SetBitmap(std::move(dirty_bitmap), *slot)) {
    return nullptr;
  }
  return slot;
}

MemslotTable::SlotPtr MemslotTable::MakeSlot(const RegionRequest& request,
                                             RegionChange change,
                                             const Memslot* old_slot) {
  if (change == RegionChange::kFlagsOnly) {
    return WithFlags(*old_slot, request.flags, request.dirty_bitmap);
  }
  auto slot = std::make_shared<Memslot>();
  slot->id = request.id();
  slot->as_id = request.as_id();
  slot->uid = old_slot != nullptr ? old_slot->uid : ++last_uid_;
  slot->base_gfn = request.base_gfn();
  slot->npages = request.npages();
  slot->hva = request.userspace_addr;
  slot->flags = request.flags;
  slot->backing = old_slot != nullptr ? old_slot->backing : request.backing;
  // The blocks that may be huge depend on the base gfn, and so do the rmaps.
  slot->lpage_info =
      std::make_shared<LpageInfo>(slot->base_gfn, slot->npages, slot->hva);
  slot->rmaps = std::make_shared<LazySlotRmaps>(slot->range());
  const bool keeps_bitmap =
      old_slot != nullptr && old_slot->dirty_bitmap != nullptr;
  if (slot->dirty_log_enabled() &&
      !SetBitmap(keeps_bitmap ? old_slot->dirty_bitmap : request.dirty_bitmap,
                 *slot)) {
    return nullptr;
  }
  return slot;
}

bool MemslotTable::Prepare(const RegionRequest& request, RegionChange change,
                           const Memslot* old_slot, Change& prepared) {
  // Gives this thread its index before the hooks need it under mmu_lock.
  ThreadIndex();
  const MemslotSet& active = Active(request.as_id());
  if (change == RegionChange::kDelete || change == RegionChange::kMove) {
    // The copy shares the slot's rmaps; they exist already if an MMU needs
    // them.
    auto invalid = std::make_shared<Memslot>(*old_slot);
    invalid->flags |= kMemslotInvalid;
    prepared.invalid_set = std::make_unique<MemslotSet>(
        active, active.generation(), request.id(), std::move(invalid));
  }
  if (change != RegionChange::kDelete) {
    prepared.new_slot = MakeSlot(request, change, old_slot);
    if (prepared.new_slot == nullptr) return false;
  }
  prepared.new_set = std::make_unique<MemslotSet>(
      active, active.generation(), request.id(), prepared.new_slot);
  return true;
}

void MemslotTable::Publish(int as_id, std::unique_ptr<MemslotSet> next,
                           LazySlotRmaps* rmaps, MemslotTableHooks& hooks) {
  Space& space = spaces_[static_cast<size_t>(as_id)];
  const uint64_t generation = space.owner->generation();
  next->set_generation(generation | kGenerationInProgress);
  const auto store = [&space, &next] {
    space.active.store(next.get(), std::memory_order_release);
  };
  const auto publish = [this, &store, rmaps] {
    if (options_.shadow_roots != nullptr && rmaps != nullptr) {
      options_.shadow_roots->PublishSlot(*rmaps, store);
    } else {
      store();
    }
  };
  // An invalidation may stay open for long. A vCPU may wait for slots_arch_lock
  // in an RCU section, so that lock is taken only after the wait for the
  // invalidation.
  if (options_.invalidations != nullptr) {
    options_.invalidations->PublishWhenIdle(publish);
  } else {
    publish();
  }
  RcuSynchronize();
  next->set_generation(generation + spaces_.size());
  space.owner = std::move(next);  // frees the old set, which has no readers
  hooks.GenerationAdvanced(space.owner->generation());
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
  const absl::StatusOr<RegionChange> checked =
      WithMemory("size_bytes", "change a memslot", [&] {
        slots_lock.AssertHeld();
        return CheckRegion(request);
      });
  if (!checked.ok()) return checked.status();
  const RegionChange change = *checked;
  if (change == RegionChange::kNone) return absl::OkStatus();

  const int as_id = request.as_id();
  // Keeps the old slot alive until the hooks have seen it.
  const SlotPtr old_slot = Active(as_id).FindOwnedById(request.id());
  Change prepared;
  if (!TryWithMemory([&] {
        slots_lock.AssertHeld();
        return Prepare(request, change, old_slot.get(), prepared);
      })) {
    return OutOfMemory(request);
  }
  // Slots that keep their place keep their rmaps.
  const bool has_new_rmaps =
      change == RegionChange::kCreate || change == RegionChange::kMove;
  LazySlotRmaps* const rmaps =
      has_new_rmaps ? prepared.new_slot->rmaps.get() : nullptr;
  // The last step that can fail.
  if (options_.shadow_roots != nullptr && rmaps != nullptr) {
    if (!options_.shadow_roots->PrepareSlot(*rmaps).ok()) {
      return OutOfMemory(request);
    }
  }

  hooks.BeforeSwap(change, old_slot.get());
  if (prepared.invalid_set != nullptr) {
    Publish(as_id, std::move(prepared.invalid_set), nullptr, hooks);
    hooks.FlushShadowSlot(*old_slot);
  }
  Publish(as_id, std::move(prepared.new_set), rmaps, hooks);
  Account(old_slot.get(), prepared.new_slot.get());
  hooks.CommitRegion(change, old_slot.get(), prepared.new_slot.get());
  return absl::OkStatus();
}

absl::Status MemslotTable::SwitchLogging(
    int as_id, Logging logging, absl::Span<const LoggedSlot> slots,
    MemslotTableHooks& hooks, absl::FunctionRef<void()> when_certain) {
  // Keeps the old slots alive until the hooks have seen them.
  std::vector<SlotPtr> old_slots;
  std::vector<SlotPtr> new_slots;
  std::unique_ptr<MemslotSet> next;
  const MemslotSet& active = Active(as_id);
  const bool prepared = TryWithMemory([&] {
    slots_lock.AssertHeld();
    ThreadIndex();
    for (const LoggedSlot& wanted : slots) {
      SlotPtr old_slot = active.FindOwnedById(wanted.id);
      MMU_CHECK(old_slot != nullptr);
      const uint32_t others = old_slot->flags & ~kMemslotLogDirtyPages;
      const uint32_t flags =
          logging == Logging::kOn ? others | kMemslotLogDirtyPages : others;
      if (flags == old_slot->flags) continue;
      SlotPtr slot = WithFlags(*old_slot, flags, wanted.dirty_bitmap);
      if (slot == nullptr) return false;
      new_slots.push_back(std::move(slot));
      old_slots.push_back(std::move(old_slot));
    }
    if (new_slots.empty()) return true;
    next = std::make_unique<MemslotSet>(active, active.generation(),
                                        absl::Span<const SlotPtr>(new_slots));
    return true;
  });
  if (!prepared) {
    return NoMemory("slots",
                    Format("switch the dirty logs of %d slots", slots.size()));
  }
  if (next == nullptr) return absl::OkStatus();
  when_certain();
  Publish(as_id, std::move(next), nullptr, hooks);
  for (size_t i = 0; i < new_slots.size(); ++i) {
    Account(old_slots[i].get(), new_slots[i].get());
    hooks.CommitRegion(RegionChange::kFlagsOnly, old_slots[i].get(),
                       new_slots[i].get());
  }
  return absl::OkStatus();
}

void MemslotTable::SetGenerationForTest(int as_id, uint64_t generation) {
  spaces_[static_cast<size_t>(as_id)].owner->set_generation(generation);
}

}  // namespace mmu
