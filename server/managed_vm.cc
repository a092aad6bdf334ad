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
#include "mmu_core/stats/labels.h"
#include "mmu_core/stats/vcpu_stats.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/vm/vm_config.h"
#include "server/base/wall_time.h"
#include "server/workload_run.h"

namespace mmud {

ManagedVm::ManagedVm(std::string name, std::unique_ptr<mmu::Vm> vm,
                     WallTime created, MetricsLabel label)
    : name_(std::move(name)),
      create_time_(created),
      label_(label),
      vm_(std::move(vm)) {}

ManagedVm::~ManagedVm() = default;

absl::optional<mmu::MemslotInfo> ManagedVm::FindSlot(uint32_t slot) const {
  return vm_->FindMemslot(/*address_space=*/0, slot);
}

std::vector<mmu::MemslotInfo> ManagedVm::SortedSlots() const {
  std::vector<mmu::MemslotInfo> slots = vm_->Memslots();
  std::sort(slots.begin(), slots.end(),
            [](const mmu::MemslotInfo& a, const mmu::MemslotInfo& b) {
              return std::make_pair(a.config.address_space, a.config.gpa) <
                     std::make_pair(b.config.address_space, b.config.gpa);
            });
  return slots;
}

absl::optional<DirtyLogSettings> ManagedVm::dirty_log_settings() const {
  absl::MutexLock lock(&mu_);
  return settings_;
}

void ManagedVm::set_dirty_log_settings(
    absl::optional<DirtyLogSettings> settings) {
  absl::MutexLock lock(&mu_);
  settings_ = std::move(settings);
}

void ManagedVm::TouchDirtyLog(mmu::MonotonicTime now) {
  absl::MutexLock lock(&mu_);
  if (settings_.has_value()) {
    settings_->last_used = std::max(settings_->last_used, now);
  }
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
