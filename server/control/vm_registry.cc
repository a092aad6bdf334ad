#include "server/control/vm_registry.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/base/thread.h"
#include "mmu_core/dirty/dirty_log_state.h"
#include "mmu_core/memory/host_memory.h"
#include "mmu_core/stats/counter_table.h"
#include "mmu_core/stats/vm_stats.h"
#include "mmu_core/sync/timed_wait.h"
#include "mmu_core/vm/core/vm_config.h"
#include "mmu_core/vm/vm.h"
#include "server/base/budget.h"
#include "server/base/errors.h"
#include "server/base/labels.h"
#include "server/base/wall_time.h"
#include "server/control/managed_vm.h"
#include "server/metrics/retained_totals.h"

namespace mmud {
namespace {

constexpr absl::Duration kPoll = absl::Milliseconds(20);
constexpr absl::Duration kEndingOperation = absl::Milliseconds(200);

// The reason why a VM cannot be deleted now: operations, a guest, or both.
absl::Status AtWork(absl::string_view name, int64_t operations,
                    bool guest_runs) {
  std::string message;
  if (guest_runs) {
    absl::StrAppend(&message, Quote(name), " runs a workload; stop it first");
  }
  if (operations > 0) {
    absl::StrAppend(&message, guest_runs ? ". " : "", operations,
                    " operations work on ", Quote(name),
                    "; cancel them or wait for their end");
  }
  return AboutVm(ApiError(absl::StatusCode::kFailedPrecondition,
                          mmu::Reason::kOperationRunning, message),
                 name);
}

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
  registry_->Unuse(std::move(vm_), kind_);
  vm_ = nullptr;
}

VmRegistry::~VmRegistry() {
  {
    mmu::MutexLock lock(mu_);
    for (const auto& [name, entry] : entries_) {
      MMU_CHECK(!entry.used());
    }
    const auto is_being_deleted = [](const auto& named) {
      return named.second.deletion != nullptr;
    };
    while (std::any_of(entries_.begin(), entries_.end(), is_being_deleted)) {
      changed_.Wait(mu_);
    }
  }
  finished_.Join();
}

absl::StatusOr<VmUse> VmRegistry::Create(const std::string& name,
                                         const mmu::VmConfig& config,
                                         Labels labels) {
  // Check this before the limits: a request that can never succeed does not
  // count as refused by a limit.
  if (absl::Status status = mmu::Vm::CheckConfig(config); !status.ok()) {
    return InField(status, "vm.");
  }
  const int64_t bytes = ContentBytes(config.memslots);
  ManagedVm::MetricsLabel label = ManagedVm::MetricsLabel::kOther;
  {
    mmu::MutexLock lock(mu_);
    if (const auto it = entries_.find(name); it != entries_.end()) {
      return AboutVm(
          ApiError(absl::StatusCode::kAlreadyExists, mmu::Reason::kVmExists,
                   absl::StrCat("there is a VM ", Quote(name),
                                it->second.deletion != nullptr
                                    ? ", which is being deleted; choose "
                                      "another vm_id or wait until it is gone"
                                    : " already; choose another vm_id or "
                                      "delete it")),
          name);
    }
    if (static_cast<int64_t>(entries_.size()) >= limits_.max_vms) {
      ++refused_vms_;
      return LimitExceeded("max_vms",
                           absl::StrCat("this daemon has its ", limits_.max_vms,
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
  entry.vm = std::make_shared<ManagedVm>(name, *std::move(vm), WallTime::Now(),
                                         label, std::move(labels));
  return UseLocked(entry, VmUse::Kind::kCall);
}

absl::StatusOr<VmRegistry::Entry*> VmRegistry::FindLocked(
    absl::string_view name) {
  const auto it = entries_.find(name);
  if (it == entries_.end()) return VmNotFound(name);
  Entry& entry = it->second;
  if (entry.deletion != nullptr) return VmDeleted(name);
  if (entry.vm == nullptr) return VmNotFound(name);
  return &entry;
}

absl::StatusOr<VmUse> VmRegistry::Find(absl::string_view name) {
  mmu::MutexLock lock(mu_);
  const absl::StatusOr<Entry*> entry = FindLocked(name);
  if (!entry.ok()) return entry.status();
  return UseLocked(**entry, VmUse::Kind::kCall);
}

absl::StatusOr<VmUse> VmRegistry::ForOperation(const VmUse& use) {
  return UseAgain(use, VmUse::Kind::kOperation);
}

absl::StatusOr<VmUse> VmRegistry::ForGuest(const VmUse& use) {
  return UseAgain(use, VmUse::Kind::kGuest);
}

absl::StatusOr<VmUse> VmRegistry::ForChange(const VmUse& use) {
  return UseAgain(use, VmUse::Kind::kChange);
}

absl::StatusOr<VmUse> VmRegistry::UseAgain(const VmUse& use, VmUse::Kind kind) {
  mmu::MutexLock lock(mu_);
  const absl::StatusOr<Entry*> entry = FindLocked(use->name());
  if (!entry.ok()) return entry.status();
  return UseLocked(**entry, kind);
}

absl::StatusOr<VmRegistry::Sight> VmRegistry::Look(absl::string_view name) {
  mmu::MutexLock lock(mu_);
  const auto it = entries_.find(name);
  if (it == entries_.end()) return VmNotFound(name);
  absl::optional<Sight> sight = LookLocked(it->first, it->second);
  if (!sight.has_value()) return VmNotFound(name);
  return *std::move(sight);
}

std::vector<VmRegistry::Sight> VmRegistry::List(absl::string_view after,
                                                size_t limit) {
  std::vector<Sight> sights;
  mmu::MutexLock lock(mu_);
  // Reserved first: if adding a use to the vector failed, the use's release
  // would take mu_, which is held here.
  sights.reserve(std::min(limit, entries_.size()));
  for (auto it = entries_.upper_bound(after);
       it != entries_.end() && sights.size() < limit; ++it) {
    if (absl::optional<Sight> sight = LookLocked(it->first, it->second)) {
      sights.push_back(*std::move(sight));
    }
  }
  return sights;
}

std::vector<VmUse> VmRegistry::All() {
  std::vector<VmUse> uses;
  for (Sight& sight : List("", SIZE_MAX)) {
    if (sight.use) uses.push_back(std::move(sight.use));
  }
  return uses;
}

absl::optional<VmRegistry::Sight> VmRegistry::LookLocked(
    const std::string& name, Entry& entry) {
  if (entry.deletion != nullptr) {
    return Sight{name, entry.deletion->uid, entry.deletion->create_time,
                 VmUse()};
  }
  if (entry.vm == nullptr) return absl::nullopt;
  return Sight{name, entry.vm->uid(), entry.vm->create_time(),
               UseLocked(entry, VmUse::Kind::kCall)};
}

absl::StatusOr<VmRegistry::Deleted> VmRegistry::Delete(
    absl::string_view name, const CheckDeletion& check,
    const std::function<absl::Status()>& keep_waiting, OnDeleted on_deleted) {
  finished_.Join();
  const absl::StatusOr<std::shared_ptr<Deletion>> deletion =
      BeginDeletion(name, check, keep_waiting, std::move(on_deleted));
  if (!deletion.ok()) return deletion.status();
  for (;;) {
    {
      mmu::MutexLock lock(mu_);
      if (!(*deletion)->done) {
        mmu::WaitUntil(changed_, mu_, mmu::MonotonicTime::Now() + kPoll);
      }
      if ((*deletion)->done) return (*deletion)->deleted;
    }
    if (absl::Status status = keep_waiting(); !status.ok()) return status;
  }
}

// A VM's dirty pages are counted while it may be used, and for some time:
//
//   1. the guest runs, and writes
//   2. here: `check` counts
//   3. the guest writes more, and its workload ends
//   4. here: no guest runs, so the deletion begins
//
// The count would lack the pages written in 3. So 2 is repeated if a guest ran
// before it, or has begun to run since: starting a guest takes mu_, as 4 does.
// The same holds for operations and changes, which may change the state that
// `check` reads.
absl::StatusOr<std::shared_ptr<VmRegistry::Deletion>> VmRegistry::BeginDeletion(
    absl::string_view name, const CheckDeletion& check,
    const std::function<absl::Status()>& keep_waiting, OnDeleted on_deleted) {
  // An operation whose work has just been stopped ends in a moment. Wait for
  // this, so that a client can stop the operation and then delete the VM.
  const mmu::MonotonicTime patience =
      mmu::MonotonicTime::Now() + kEndingOperation;
  for (;;) {
    VmUse use;  // keeps the entry that of the same VM
    bool is_idle = false;
    uint64_t work_begun = 0;
    {
      mmu::MutexLock lock(mu_);
      const auto it = entries_.find(name);
      if (it == entries_.end()) return VmNotFound(name);
      Entry& entry = it->second;
      if (entry.deletion != nullptr) {
        entry.deletion->on_deleted.push_back(std::move(on_deleted));
        return entry.deletion;
      }
      if (entry.vm == nullptr) return VmNotFound(name);
      use = UseLocked(entry, VmUse::Kind::kCall);
      is_idle = entry.idle();
      work_begun = entry.work_begun;
    }
    const absl::StatusOr<mmu::UndeliveredCounts> lost = check(*use);
    if (!lost.ok()) return lost.status();
    {
      mmu::MutexLock lock(mu_);
      const auto it = entries_.find(name);
      Entry& entry = it->second;
      if (entry.deletion == nullptr && is_idle && entry.idle() &&
          entry.work_begun == work_begun) {
        if (absl::Status status = BeginDeletionLocked(it->first, entry, *lost);
            !status.ok()) {
          return status;
        }
      } else {
        AwaitIdleLocked(entry, patience);
      }
      if (entry.deletion != nullptr) {
        entry.deletion->on_deleted.push_back(std::move(on_deleted));
        return entry.deletion;
      }
      if (entry.works()) {
        return AtWork(name, entry.operations, entry.guests > 0);
      }
    }
    // Operations and changes that come and go may repeat the loop without end.
    if (absl::Status status = keep_waiting(); !status.ok()) return status;
  }
}

void VmRegistry::AwaitIdleLocked(const Entry& entry,
                                 mmu::MonotonicTime deadline) {
  while (entry.deletion == nullptr && entry.works() &&
         mmu::WaitUntil(changed_, mu_, deadline)) {
  }
  if (entry.deletion == nullptr && entry.changes > 0 && !entry.works()) {
    mmu::WaitUntil(changed_, mu_, mmu::MonotonicTime::Now() + kPoll);
  }
}

absl::Status VmRegistry::BeginDeletionLocked(
    const std::string& name, Entry& entry,
    const mmu::UndeliveredCounts& discarded) {
  auto deletion = std::make_shared<Deletion>(*entry.vm);
  deletion->deleted.discarded = discarded;
  // Done first, because the steps below cannot be undone. The thread starts by
  // taking the lock.
  absl::StatusOr<std::thread> thread =
      mmu::MakeThread([this, name] { FinishDeletion(name); });
  if (!thread.ok()) return thread.status();
  deletion->thread = *std::move(thread);
  entry.deletion = std::move(deletion);
  entry.vm->set_deleting();
  changed_.NotifyAll();
  return absl::OkStatus();
}

void VmRegistry::FinishDeletion(const std::string& name) {
  std::shared_ptr<ManagedVm> vm;
  {
    mmu::MutexLock lock(mu_);
    vm = entries_.at(name).vm;
  }
  // No use is added any more. Streams release theirs whether their clients read
  // or not; calls that work step by step check for the deletion at each step.
  end_streams_(name);
  {
    mmu::MutexLock lock(mu_);
    const Entry& entry = entries_.at(name);
    while (entry.used()) changed_.Wait(mu_);
  }
  vm->vm().StopWorkload();
  {
    mmu::MutexLock lock(mu_);
    Entry& entry = entries_.at(name);  // only this thread erases it
    // A scrape may use the VM until it is taken away below:
    //   1. here: found unused; mu_ released for the end of the workload
    //   2. scrape: uses every VM that an entry has
    //   3. here: takes the VM away, then the entry, in which 2 still counts
    while (entry.used()) changed_.Wait(mu_);
    const mmu::VmStatsSnapshot stats = vm->vm().Stats();
    mmu::AddWhatStays(stats, &gone_.stats);
    memory_bytes_ -= entry.memory_bytes;
    if (vm->metrics_label() == ManagedVm::MetricsLabel::kOwn) {
      --labelled_;
    } else {
      gone_.unlabelled_dirty_pages =
          gone_.unlabelled_dirty_pages.value_or(0) + stats.vcpus.dirty_pages;
    }
    // Until the VM is gone, its name stays taken, and so does its place among
    // --max_vms.
    entry.vm = nullptr;
  }
  vm.reset();
  Deleted deleted;
  std::vector<OnDeleted> on_deleted;
  {
    mmu::MutexLock lock(mu_);
    const auto it = entries_.find(name);
    Deletion& deletion = *it->second.deletion;
    deletion.done = true;
    deletion.deleted.wall = mmu::MonotonicTime::Now() - deletion.begin;
    deleted = deletion.deleted;
    on_deleted = std::move(deletion.on_deleted);
    finished_.Add(std::move(deletion.thread));
    entries_.erase(it);
    changed_.NotifyAll();
  }
  for (const OnDeleted& call : on_deleted) call(deleted);
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

std::vector<BudgetUse> VmRegistry::Uses() {
  mmu::MutexLock lock(mu_);
  return {{.name = "max_vms",
           .limit = limits_.max_vms,
           .used = static_cast<int64_t>(entries_.size()),
           .refused = refused_vms_},
          {.name = "max_guest_memory_bytes",
           .limit = limits_.max_guest_memory_bytes,
           .used = memory_bytes_,
           .refused = refused_memory_}};
}

VmRegistry::Scrape VmRegistry::ForScrape() {
  Scrape scrape;
  mmu::MutexLock lock(mu_);
  scrape.gone = gone_;
  scrape.vms.reserve(entries_.size());  // as in List
  for (auto& [name, entry] : entries_) {
    if (entry.vm == nullptr) continue;
    scrape.vms.push_back(UseLocked(entry, VmUse::Kind::kCall));
  }
  return scrape;
}

VmUse VmRegistry::UseLocked(Entry& entry, VmUse::Kind kind) {
  ++entry.UsesOf(kind);
  if (kind != VmUse::Kind::kCall) ++entry.work_begun;
  return VmUse(this, entry.vm, kind);
}

void VmRegistry::Unuse(std::shared_ptr<ManagedVm> vm, VmUse::Kind kind) {
  mmu::MutexLock lock(mu_);
  Entry& entry = entries_.at(vm->name());
  // The reference is released before the use stops counting: so the VM is
  // destroyed by the thread that deletes it, before its name is free.
  vm.reset();
  --entry.UsesOf(kind);
  changed_.NotifyAll();
}

absl::Status VmRegistry::ReserveLocked(Entry& entry, int64_t bytes) {
  const int64_t limit = limits_.max_guest_memory_bytes;
  if (limit > 0 && bytes > limit - memory_bytes_) {
    ++refused_memory_;
    return LimitExceeded(
        "max_guest_memory_bytes",
        absl::StrCat("this needs ", bytes, " bytes of guest memory; ",
                     limit - memory_bytes_, " of ", limit,
                     " (--max_guest_memory_bytes) are left"));
  }
  entry.memory_bytes += bytes;
  memory_bytes_ += bytes;
  return absl::OkStatus();
}

int64_t ContentBytes(const std::vector<mmu::MemslotConfig>& slots) {
  // More than any host has, but small enough to be added up.
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
