#include "server/managed_vm.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/types/optional.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/dirty/dirty_log_state.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/stats/vcpu_stats.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/vm/vm_config.h"
#include "server/base/labels.h"
#include "server/base/uuid.h"
#include "server/base/wall_time.h"
#include "server/workload_run.h"

namespace mmud {

ManagedVm::ManagedVm(std::string name, std::unique_ptr<mmu::Vm> vm,
                     WallTime created, MetricsLabel label, Labels labels)
    : name_(std::move(name)),
      uid_(NewUuid()),
      create_time_(created),
      label_(label),
      vm_(std::move(vm)),
      labels_(std::move(labels)) {}

ManagedVm::~ManagedVm() = default;

absl::optional<mmu::MemslotInfo> ManagedVm::FindSlot(uint32_t slot) const {
  return vm_->FindMemslot(/*address_space=*/0, slot);
}

std::vector<mmu::MemslotInfo> ManagedVm::SortedSlots() const {
  std::vector<mmu::MemslotInfo> slots = vm_->Memslots();
  std::sort(slots.begin(), slots.end(),
            [](const mmu::MemslotInfo& a, const mmu::MemslotInfo& b) {
              return a.config.gpa < b.config.gpa;
            });
  return slots;
}

absl::optional<DirtyLogBeginning> ManagedVm::dirty_log_beginning(
    const mmu::LogId& id) const {
  absl::MutexLock lock(&mu_);
  if (!log_beginning_.has_value() || !(log_beginning_->id == id)) {
    return absl::nullopt;
  }
  return log_beginning_;
}

void ManagedVm::set_dirty_log_beginning(DirtyLogBeginning beginning) {
  absl::MutexLock lock(&mu_);
  log_beginning_ = std::move(beginning);
}

Labels ManagedVm::labels() const {
  absl::MutexLock lock(&mu_);
  return labels_;
}

void ManagedVm::set_labels(Labels labels) {
  absl::MutexLock lock(&mu_);
  labels_ = std::move(labels);
}

DirtySample ManagedVm::SampleDirty(mmu::MonotonicTime now) const {
  DirtySample sample;
  sample.time = now;
  for (const mmu::VcpuStatsSnapshot& vcpu : vm_->VcpuStats()) {
    const int64_t ring_full =
        vcpu.stall_nanos[static_cast<int>(mmu::StallCause::kRingFull)];
    sample.vcpus.push_back({.dirty_pages = vcpu.dirty_pages,
                            .write_faults = vcpu.dirty_log_faults,
                            .ring_full_nanos = ring_full});
    sample.vm.dirty_pages += vcpu.dirty_pages;
    sample.vm.write_faults += vcpu.dirty_log_faults;
    sample.vm.ring_full_nanos += ring_full;
  }
  return sample;
}

std::shared_ptr<WorkloadRun> ManagedVm::workload() const {
  absl::MutexLock lock(&mu_);
  return workload_;
}

bool ManagedVm::TrySetWorkload(std::shared_ptr<WorkloadRun> run) {
  absl::MutexLock lock(&mu_);
  if (workload_ != nullptr && !workload_->finished()) return false;
  workload_ = std::move(run);
  return true;
}

}  // namespace mmud
