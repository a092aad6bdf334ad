#include "server/control/managed_vm.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/types/optional.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/stats/vcpu_stats.h"
#include "mmu_core/vm/core/vm_config.h"
#include "mmu_core/vm/vm.h"
#include "server/base/labels.h"
#include "server/base/uuid.h"
#include "server/base/wall_time.h"
#include "server/control/workload_run.h"

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
    const auto ring_full = static_cast<int64_t>(
        vcpu.stall_nanos[static_cast<int>(mmu::StallCause::kRingFull)]);
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

bool ManagedVm::TryBeginWorkload() {
  absl::MutexLock lock(&mu_);
  const bool runs = workload_ != nullptr && !workload_->finished();
  if (runs || starting_workload_) return false;
  starting_workload_ = true;
  return true;
}

void ManagedVm::SetWorkload(std::shared_ptr<WorkloadRun> run) {
  absl::MutexLock lock(&mu_);
  workload_ = std::move(run);
  starting_workload_ = false;
}

void ManagedVm::GiveUpWorkload() {
  absl::MutexLock lock(&mu_);
  starting_workload_ = false;
}

}  // namespace mmud
