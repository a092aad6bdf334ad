#include "mmu_core/vm/inspect/log_audit.h"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "mmu_core/base/mutex.h"
#include "mmu_core/base/slot_number.h"
#include "mmu_core/dirty/current_dirty_log.h"
#include "mmu_core/dirty/dirty_ring.h"
#include "mmu_core/dirty/slot_log.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/tlb/vcpu_gate.h"

namespace mmu {
namespace {

// A log has the slots of address space 0 that log, and each of them marks in
// the log's open set unless there are rings.
void CheckSlotsOfLog(VmCore& vm, const DirtyLog& log, AuditSink& sink)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(vm.slots.slots_lock) {
  uint64_t in_slots = 0;
  for (const Memslot* slot : vm.slots.Active(0).slots()) {
    const std::shared_ptr<SlotLog> sets = log.Find(slot->id);
    in_slots += sets != nullptr;
    if ((sets != nullptr) != slot->dirty_log_enabled()) {
      sink.Violation(
          10, "slot %d %s, but has %s", slot->id,
          std::string(slot->dirty_log_enabled() ? "logs" : "does not log"),
          std::string(sets != nullptr ? "sets" : "no sets"));
      continue;
    }
    if (sets == nullptr) continue;
    if (sets->npages() != slot->npages) {
      sink.Violation(10, "slot %d has %d pages, its sets %d", slot->id,
                     slot->npages, sets->npages());
    }
    if (!vm.has_dirty_rings() && sets->open() != slot->dirty_bitmap.get()) {
      sink.Violation(10, "slot %d does not mark in its open set", slot->id);
    }
  }
  if (log.AllSlots().size() != in_slots) {
    sink.Violation(10, "the log has %d slots, of which %d exist",
                   log.AllSlots().size(), in_slots);
  }
}

void CheckLog(VmCore& vm, AuditSink& sink)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(vm.slots.slots_lock) {
  const std::shared_ptr<VmDirtyLog> log = vm.dirty_log.Get();
  if (log == nullptr) return;
  log->log.AuditSets([&](const std::string& fault) { sink.Report(10, fault); });
  log->log.AuditEpochs(
      [&](const std::string& fault) { sink.Report(17, fault); });
  CheckSlotsOfLog(vm, log->log, sink);
}

void CheckRing(VmCore& vm, const Vcpu& vcpu, AuditSink& sink)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(vm.ring_harvest_mu) {
  const DirtyRing& ring = *vcpu.dirty_ring();
  ring.Audit([&](const std::string& fault) {
    sink.Violation(15, "the ring of vCPU %d: %s", vcpu.index(), fault);
  });
  if (ring.SoftFull() &&
      (vcpu.gate().pending_requests() & kDirtyRingSoftFull) == 0) {
    sink.Violation(15,
                   "the ring of vCPU %d has %d entries, but the vCPU would "
                   "enter the guest",
                   vcpu.index(), ring.used());
  }
  const std::shared_ptr<VmDirtyLog> log = vm.dirty_log.GetOn();
  if (log == nullptr) return;
  ring.ForEachCollected([&](DirtyGfn page) {
    if (AsIdOfSlot(page.slot) != 0) return;
    const uint32_t slot = IdOfSlot(page.slot);
    const std::shared_ptr<SlotLog> sets = log->log.Find(slot);
    if (sets == nullptr || page.offset >= sets->npages()) return;
    if (log->log.IsToBeCleared(slot, page.offset)) return;
    sink.Violation(15,
                   "the ring of vCPU %d has collected page %d of slot %d, "
                   "which is neither open nor sealed",
                   vcpu.index(), page.offset, slot);
  });
}

void CheckRings(VmCore& vm, const std::vector<std::unique_ptr<Vcpu>>& vcpus,
                AuditSink& sink) {
  if (!vm.has_dirty_rings()) return;
  MutexLock lock(vm.ring_harvest_mu);
  for (const auto& vcpu : vcpus) CheckRing(vm, *vcpu, sink);
}

void CheckCpuLog(const VmCore& vm, const Vcpu& vcpu, AuditSink& sink) {
  if (vcpu.pml() == nullptr) return;
  if (!vcpu.gate().in_guest() && !vcpu.pml()->empty()) {
    sink.Violation(16,
                   "the CPU's log of vCPU %d, which is outside of the "
                   "guest, has %d entries",
                   vcpu.index(), vcpu.pml()->count());
  }
  if (vcpu.cpu_dirty_log_on() != (vm.logging_slots.load() != 0) &&
      (vcpu.gate().pending_requests() & kUpdateCpuDirtyLog) == 0) {
    sink.Violation(16, "the CPU's log of vCPU %d is %s, but %d slots log",
                   vcpu.index(),
                   std::string(vcpu.cpu_dirty_log_on() ? "on" : "off"),
                   vm.logging_slots.load());
  }
}

}  // namespace

void AuditLogs(VmCore& vm, const std::vector<std::unique_ptr<Vcpu>>& vcpus,
               AuditSink& sink) {
  CheckLog(vm, sink);
  CheckRings(vm, vcpus, sink);
  for (const auto& vcpu : vcpus) CheckCpuLog(vm, *vcpu, sink);
}

}  // namespace mmu
