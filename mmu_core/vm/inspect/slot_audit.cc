#include "mmu_core/vm/inspect/slot_audit.h"

#include <cstdint>

#include "mmu_core/memory/memslot.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/paging/mmio_spte.h"

namespace mmu {

void AuditMemslots(const VmCore& vm, AuditSink& sink) {
  const auto spaces = static_cast<uint64_t>(vm.slots.address_spaces());
  uint64_t pages = 0;
  int logging = 0;
  for (int as_id = 0; as_id < vm.slots.address_spaces(); ++as_id) {
    const MemslotSet& set = vm.slots.Active(as_id);
    const uint64_t generation = set.generation();
    if ((generation & kGenerationInProgress) != 0 ||
        generation % spaces != static_cast<uint64_t>(as_id)) {
      sink.Violation(18,
                     "address space %d cannot have generation 0x%x while "
                     "no change is under way",
                     as_id, generation);
    }
    for (const Memslot* slot : set.slots()) {
      pages += slot->npages;
      logging += slot->dirty_log_enabled();
      if (slot->as_id == as_id && !slot->invalid() &&
          set.FindById(slot->id) == slot) {
        continue;
      }
      sink.Violation(18,
                     "slot %d of address space %d is invalid, or cannot be "
                     "found",
                     slot->id, as_id);
    }
  }
  if (vm.slots.total_pages() != pages) {
    sink.Violation(18, "%d pages of memslots are counted, but there are %d",
                   vm.slots.total_pages(), pages);
  }
  if (vm.slots.logging_slots() != logging ||
      vm.logging_slots.load() != logging) {
    sink.Violation(18, "%d slots log, but %d and %d are counted", logging,
                   vm.slots.logging_slots(), vm.logging_slots.load());
  }
}

void AuditMmioSpte(const VmCore& vm, const AuditedNonPresent& entry,
                   AuditSink& sink) {
  const Spte spte = entry.spte;
  if (!vm.mmio.IsMmio(spte) || entry.level != Level::k4K) {
    sink.Violation(3,
                   "spte 0x%x at level %d is neither present nor an MMIO "
                   "SPTE",
                   spte.bits(), ToInt(entry.level));
    return;
  }
  const Gfn gfn = vm.mmio.GfnOf(spte);
  if (entry.gfn.has_value() && *entry.gfn != gfn) {
    sink.Violation(3, "the MMIO SPTE of gfn 0x%x is where gfn 0x%x belongs",
                   gfn.value(), entry.gfn->value());
  }
  const MemslotSet& set = vm.slots.Active(entry.as_id);
  const uint64_t now = set.generation() & kMmioGenerationMask;
  const uint64_t made = vm.mmio.GenerationOf(spte);
  if (made > now) {
    sink.Violation(18,
                   "the MMIO SPTE of gfn 0x%x is of generation 0x%x, but "
                   "0x%x is the current one",
                   gfn.value(), made, now);
  }
  if (made == now && set.FindByGfn(gfn) != nullptr) {
    sink.Violation(18,
                   "the MMIO SPTE of gfn 0x%x is valid, but a memslot has "
                   "the gfn",
                   gfn.value());
  }
}

}  // namespace mmu
