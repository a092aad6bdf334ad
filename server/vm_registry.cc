#include "server/vm_registry.h"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/memory/host_memory.h"
#include "mmu_core/sync/mutex.h"
#include "mmu_core/sync/timed_wait.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/vm/vm_config.h"
#include "mmu_core/vm/vm_stats.h"
#include "server/base/errors.h"
#include "server/base/wall_time.h"
#include "server/managed_vm.h"
#include "server/retained_totals.h"

namespace mmud {
namespace {

constexpr absl::Duration kPoll = absl::Milliseconds(20);
constexpr absl::Duration kEndingOperation = absl::Milliseconds(200);

}  // namespace

VmUse& VmUse::operator=(VmUse&& other) noexcept {
  if (this == &other) return *this;
  Release();
  registry_ = std::exchange(other.registry_, nullptr);
  vm_ = std::move(other.vm_);
  other.vm_ = nullptr;
  kind_ = other.kind_;
  return *this;
}

void VmUse::Release() {
  if (vm_ == nullptr) return;
  const std::shared_ptr<ManagedVm> vm = std::move(vm_);
  vm_ = nullptr;
  registry_->Unuse(*vm, kind_);
}

VmRegistry::~VmRegistry() {
  mmu::MutexLock lock(mu_);
  for (const auto& [name, entry] : entries_) {
    MMU_CHECK(entry.calls == 0 && entry.operations == 0);
  }
}

absl::StatusOr<VmUse> VmRegistry::Create(const std::string& name,
                                         const mmu::VmConfig& config) {
  const int64_t bytes = ContentBytes(config.memslots);
  ManagedVm::MetricsLabel label = ManagedVm::MetricsLabel::kOther;
  {
    mmu::MutexLock lock(mu_);
    if (entries_.find(name) != entries_.end()) {
      return WithResource(
          ApiError(absl::StatusCode::kAlreadyExists, "VM_EXISTS",
                   absl::StrCat("there is a VM ", Quote(name),
                                " already; choose another vm_id or delete it")),
          "mmud.v1.Vm", name);
    }
    if (static_cast<int64_t>(entries_.size()) >= limits_.max_vms) {
      return LimitExceeded(absl::StrCat("this daemon has its ", limits_.max_vms,
                                        " VMs (--max_vms); delete one first"));
    }
    Entry entry;
    if (absl::Status status = ReserveLocked(entry, bytes); !status.ok()) {
      return status;
    }
    entries_[name] = std::move(entry);
    if (labelled_ < limits_.max_labelled_vms) {
      ++labelled_;
      label = ManagedVm::MetricsLabel::kOwn;
    }
  }
  absl::StatusOr<std::unique_ptr<mmu::Vm>> vm =
      mmu::Vm::Create(config, nx_parameters_);
  mmu::MutexLock lock(mu_);
  if (!vm.ok()) {
    memory_bytes_ -= bytes;
    if (label == ManagedVm::MetricsLabel::kOwn) --labelled_;
    entries_.erase(name);
    return InField(vm.status(), "vm.");
  }
  Entry& entry = entries_[name];
  entry.vm =
      std::make_shared<ManagedVm>(name, *std::move(vm), WallTime::Now(), label);
  return UseLocked(entry, VmUse::Kind::kCall);
}

absl::StatusOr<VmUse> VmRegistry::Find(absl::string_view name) {
  mmu::MutexLock lock(mu_);
  const auto it = entries_.find(std::string(name));
  if (it == entries_.end() || it->second.vm == nullptr || it->second.deleting) {
    return VmNotFound(name);
  }
  return UseLocked(it->second, VmUse::Kind::kCall);
}

VmUse VmRegistry::ForOperation(const VmUse& use) {
  mmu::MutexLock lock(mu_);
  return UseLocked(entries_.at(use->name()), VmUse::Kind::kOperation);
}

std::vector<VmUse> VmRegistry::List(absl::string_view after, size_t limit) {
  std::vector<VmUse> uses;
  mmu::MutexLock lock(mu_);
  for (auto it = entries_.upper_bound(std::string(after));
       it != entries_.end() && uses.size() < limit; ++it) {
    if (it->second.vm == nullptr || it->second.deleting) continue;
    uses.push_back(UseLocked(it->second, VmUse::Kind::kCall));
  }
  return uses;
}

absl::Status VmRegistry::Delete(
    absl::string_view name,
    const std::function<absl::Status(const ManagedVm&)>& check,
    const std::function<absl::Status()>& keep_waiting) {
  std::shared_ptr<ManagedVm> vm;
  {
    mmu::MutexLock lock(mu_);
    // An operation whose work was stopped just now ends in a moment: whoever
    // stops it and deletes the VM next shall not have to know.
    const mmu::MonotonicTime patience =
        mmu::MonotonicTime::Now() + kEndingOperation;
    auto it = entries_.find(std::string(name));
    while (it != entries_.end() && it->second.operations > 0 &&
           mmu::MonotonicTime::Now() < patience) {
      mmu::WaitUntil(unused_, mu_, mmu::MonotonicTime::Now() + kPoll);
      it = entries_.find(std::string(name));
    }
    if (it == entries_.end() || it->second.vm == nullptr ||
        it->second.deleting) {
      return VmNotFound(name);
    }
    Entry& entry = it->second;
    if (absl::Status status = check(*entry.vm); !status.ok()) return status;
    if (entry.operations > 0) {
      return WithResource(
          ApiError(
              absl::StatusCode::kFailedPrecondition, "OPERATION_RUNNING",
              absl::StrCat(entry.operations, " operations work on ",
                           Quote(name), "; cancel them or wait for their end")),
          "mmud.v1.Vm", name);
    }
    entry.deleting = true;
    entry.vm->set_deleting(true);
    // A call in hand may have become an operation in the meantime; then it
    // is waited for like a call. `entry` stays valid: only this thread erases.
    while (entry.calls > 0 || entry.operations > 0) {
      mmu::WaitUntil(unused_, mu_, mmu::MonotonicTime::Now() + kPoll);
      if (absl::Status status = keep_waiting(); !status.ok()) {
        entry.deleting = false;
        entry.vm->set_deleting(false);
        return status;
      }
    }
    vm = std::move(entry.vm);
    vm->vm().StopWorkload();
    const mmu::MmuMetrics metrics = vm->vm().Metrics();
    AddCounters(metrics, &gone_.metrics);
    AddCounters(metrics,
                &gone_.by_mmu[static_cast<size_t>(LabelOf(vm->vm().config()))]);
    AddCounters(vm->vm().Stats(), &gone_.vm_stats);
    memory_bytes_ -= entry.memory_bytes;
    if (vm->metrics_label() == ManagedVm::MetricsLabel::kOwn) --labelled_;
    // Its name stays taken until it is gone.
  }
  vm.reset();
  mmu::MutexLock lock(mu_);
  entries_.erase(entries_.find(std::string(name)));
  return absl::OkStatus();
}

absl::Status VmRegistry::ReserveMemory(ManagedVm& vm, int64_t bytes) {
  mmu::MutexLock lock(mu_);
  return ReserveLocked(entries_.at(vm.name()), bytes);
}

void VmRegistry::ReleaseMemory(ManagedVm& vm, int64_t bytes) {
  mmu::MutexLock lock(mu_);
  entries_.at(vm.name()).memory_bytes -= bytes;
  memory_bytes_ -= bytes;
}

VmRegistry::Scrape VmRegistry::ForScrape() {
  Scrape scrape;
  mmu::MutexLock lock(mu_);
  scrape.gone = gone_;
  for (auto& [name, entry] : entries_) {
    if (entry.vm == nullptr) continue;
    scrape.vms.push_back(UseLocked(entry, VmUse::Kind::kCall));
  }
  return scrape;
}

VmUse VmRegistry::UseLocked(Entry& entry, VmUse::Kind kind) {
  ++(kind == VmUse::Kind::kCall ? entry.calls : entry.operations);
  return VmUse(this, entry.vm, kind);
}

void VmRegistry::Unuse(const ManagedVm& vm, VmUse::Kind kind) {
  mmu::MutexLock lock(mu_);
  Entry& entry = entries_.at(vm.name());
  --(kind == VmUse::Kind::kCall ? entry.calls : entry.operations);
  unused_.NotifyAll();
}

absl::Status VmRegistry::ReserveLocked(Entry& entry, int64_t bytes) {
  const int64_t limit = limits_.max_guest_memory_bytes;
  if (limit > 0 && bytes > limit - memory_bytes_) {
    return LimitExceeded(absl::StrCat(
        "this needs ", bytes, " bytes of guest memory; ", limit - memory_bytes_,
        " of ", limit, " (--max_guest_memory_bytes) are left"));
  }
  entry.memory_bytes += bytes;
  memory_bytes_ += bytes;
  return absl::OkStatus();
}

int64_t ContentBytes(const std::vector<mmu::MemslotConfig>& slots) {
  // More than any host has, and small enough to be added up.
  constexpr uint64_t kMax = uint64_t{1} << 55;
  uint64_t sum = 0;
  for (const mmu::MemslotConfig& slot : slots) {
    if (slot.backing == mmu::BackingKind::kMetadataOnly) continue;
    if (slot.size_bytes > kMax - sum) return static_cast<int64_t>(kMax);
    sum += slot.size_bytes;
  }
  return static_cast<int64_t>(sum);
}

}  // namespace mmud
