#include "server/control/shown_vm.h"

#include <cstdint>
#include <memory>
#include <utility>

#include "absl/types/optional.h"
#include "mmu_core/base/level.h"
#include "mmu_core/dirty/dirty_log_calls.h"
#include "mmu_core/vm/core/vm_config.h"
#include "mmu_core/vm/vm.h"
#include "server/control/managed_vm.h"
#include "server/control/workload_run.h"

namespace mmud {
namespace {

// Nullopt if none has run, one runs, or the last start was refused: then no
// workload has ended.
absl::optional<ShownVm::EndedWorkload> EndOf(const ManagedVm& vm) {
  const std::shared_ptr<WorkloadRun> run = vm.workload();
  if (run == nullptr || !run->finished()) return absl::nullopt;
  WorkloadRun::Progress end = run->progress();
  if (!end.end_time.has_value()) return absl::nullopt;
  return ShownVm::EndedWorkload{std::move(end.error), *end.end_time};
}

}  // namespace

VmFacts FactsOf(const ManagedVm& vm) {
  return {.name = vm.name(), .uid = vm.uid(), .config = vm.vm().config()};
}

VmSettings SettingsOf(const ManagedVm& vm) {
  return {.facts = FactsOf(vm),
          .shadow_page_limit = vm.vm().shadow_page_limit(),
          .eager_split_chunk_bytes = vm.vm().eager_split_chunk_bytes(),
          .slots = vm.SortedSlots(),
          .labels = vm.labels()};
}

ShownVcpus VcpusOf(const ManagedVm& vm) {
  ShownVcpus vcpus;
  vcpus.paused = vm.vm().vcpus_paused();
  const std::shared_ptr<WorkloadRun> run = vm.workload();
  vcpus.run_workload = run != nullptr && !run->finished();
  vcpus.wait_for_ring = vcpus.run_workload && vm.vm().VcpusWaitingForRing() > 0;
  return vcpus;
}

ShownVm ShowVm(const ManagedVm& vm, SlotLogs logs) {
  ShownVm shown(SettingsOf(vm), vm.create_time());
  if (logs == SlotLogs::kRead) {
    for (const mmu::MemslotInfo& slot : shown.settings.slots) {
      const uint32_t id = slot.config.slot;
      if (const absl::optional<mmu::SlotLogView> log = vm.vm().FindSlotLog(id);
          log.has_value()) {
        shown.slot_logs.emplace(id, *log);
      }
    }
  }
  shown.deleting = vm.deleting();
  shown.mapped_4k = vm.vm().MappedPages(mmu::Level::k4K);
  shown.mapped_2m = vm.vm().MappedPages(mmu::Level::k2M);
  shown.mapped_1g = vm.vm().MappedPages(mmu::Level::k1G);
  shown.vcpus = VcpusOf(vm);
  shown.pause = vm.pause().Get();
  shown.waiting_for_ring_since = vm.vm().WaitingForRingSince();
  shown.guest_loss = vm.vm().guest_loss();
  shown.ended_workload = EndOf(vm);
  shown.log = vm.vm().FindDirtyLogSummary();
  return shown;
}

}  // namespace mmud
