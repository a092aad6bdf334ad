#include "mmu_core/vm/logging/log_start.h"

#include <cerrno>
#include <memory>
#include <unordered_set>
#include <utility>
#include <vector>

#include "mmu_core/base/clock.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/format.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/base/with_memory.h"
#include "mmu_core/dirty/current_dirty_log.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/sync/hold_limit.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/vm/core/new_slot_log.h"
#include "mmu_core/vm/logging/find_log.h"
#include "mmu_core/vm/slots/region_hooks.h"

namespace mmu {
namespace {

absl::Status CheckSplitPolicy(const DirtyLogConfig& config) {
  const bool initially_set = config.initially_set == InitiallySet::kYes;
  const char* problem = nullptr;
  if (initially_set && config.split == SplitPolicy::kEager) {
    problem =
        "split is eager and initially_set is true: with initially_set nothing "
        "is touched at the start; use on_clear";
  } else if (!initially_set && config.split == SplitPolicy::kOnClear) {
    problem =
        "split is on_clear and initially_set is false: a clear finds no "
        "writable huge page then; use eager or none";
  }
  if (problem == nullptr) return absl::OkStatus();
  return MakeError(absl::StatusCode::kInvalidArgument,
                   {Reason::kInvalidSplitPolicy, "split", 0}, problem);
}

absl::Status NothingToLog() {
  return MakeError(absl::StatusCode::kNotFound,
                   {Reason::kMemslotNotFound, "slots", ENOENT},
                   "slots is empty, which means all slots that can be written, "
                   "and this VM has none; name read-only ones to log those");
}

// The slots `wanted`, in that order without repetitions; all slots that can be
// written if `wanted` is empty.
absl::StatusOr<std::vector<const Memslot*>> SlotsToLog(
    const MemslotSet& set, const std::vector<uint32_t>& wanted) {
  std::vector<const Memslot*> slots;
  if (wanted.empty()) {
    for (const Memslot* slot : set.slots()) {
      if (!slot->readonly()) slots.push_back(slot);
    }
    if (slots.empty()) return NothingToLog();
    return slots;
  }
  std::unordered_set<uint32_t> seen;
  for (const uint32_t id : wanted) {
    const Memslot* slot = set.FindById(id);
    if (slot == nullptr) return NoSuchSlot(id);
    if (seen.insert(id).second) slots.push_back(slot);
  }
  return slots;
}

// Everything that the logs of some slots need.
struct PreparedLogs {
  std::vector<MemslotTable::LoggedSlot> slots;
  std::shared_ptr<VmDirtyLog> log;
  DirtyLogView view;  // returned to the caller
};

// Checks everything that can refuse a start, and allocates all memory that the
// log needs. Changes nothing.
absl::Status PrepareStart(VmCore& vm, const DirtyLogStart& start,
                          PreparedLogs& prepared)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(vm.slots.slots_lock) {
  const DirtyLogConfig& config = start.config;
  const absl::StatusOr<std::vector<const Memslot*>> slots =
      SlotsToLog(vm.slots.Active(0), config.slots);
  if (!slots.ok()) return slots.status();
  DirtyLog::Slots logs;
  for (const Memslot* slot : *slots) {
    absl::StatusOr<NewSlotLog> made =
        MakeSlotLog(vm, slot->id, slot->npages, config.initially_set);
    if (!made.ok()) return made.status();
    prepared.slots.push_back({slot->id, std::move(made->slot_bitmap)});
    logs.emplace(slot->id, std::move(made->log));
  }
  prepared.log = std::make_shared<VmDirtyLog>(start, vm.dirty_log.next_epoch(),
                                              std::move(logs));
  prepared.view = prepared.log->View();
  return absl::OkStatus();
}

bool SameSettings(const VmDirtyLog& log, const DirtyLogStart& start) {
  const DirtyLogConfig& a = log.config;
  const DirtyLogConfig& b = start.config;
  return a.slots == b.slots && a.initially_set == b.initially_set &&
         a.split == b.split && a.new_memslots == b.new_memslots &&
         log.ttl == start.ttl;
}

// A start while the VM has a log: returns the log if the call is repeated, or
// else an error.
absl::StatusOr<DirtyLogView> StartAgain(VmDirtyLog& log,
                                        const DirtyLogStart& start) {
  const bool same_owner =
      log.log.Admit({.key = start.claim.key, .now = start.now}).ok();
  DirtyLogView view = log.View();
  if (same_owner && SameSettings(log, start)) return view;
  return MakeError(
      absl::StatusCode::kAlreadyExists,
      {Reason::kDirtyLogActive, "vm", EEXIST, {{"owner", view.state.owner}}},
      Format("this VM has a dirty log, %s of %s%s; stop it first, or "
             "acquire it",
             view.state.id.ToString(), view.state.owner,
             same_owner ? ", with other settings" : ""));
}

}  // namespace

absl::StatusOr<StartResult> StartDirtyLog(VmCore& vm,
                                          const DirtyLogStart& start,
                                          MmuCost* cost) {
  const DirtyLogConfig& config = start.config;
  MutexLock lock(vm.slots.slots_lock);
  const std::shared_ptr<VmDirtyLog> log = vm.dirty_log.Get();
  absl::StatusOr<DirtyLogView> again;
  PreparedLogs prepared;
  absl::Status status = WithMemory("slots", "start the dirty log", [&] {
    vm.slots.slots_lock.AssertHeld();
    if (absl::Status s = CheckSplitPolicy(config); !s.ok()) return s;
    if (log == nullptr) return PrepareStart(vm, start, prepared);
    again = StartAgain(*log, start);
    return absl::OkStatus();
  });
  if (!status.ok()) return status;
  if (log != nullptr) {
    if (!again.ok()) return again.status();
    return StartResult{.log = *std::move(again)};
  }
  RegionHooks hooks(vm, cost, config, HoldLimit::For(config.max_lock_hold));
  if (absl::Status s = vm.slots.SwitchLogging(
          0, MemslotTable::Logging::kOn, prepared.slots, hooks,
          [&] {
            vm.slots.slots_lock.AssertHeld();
            vm.slots.SetDirtyLogInitiallySet(config.initially_set);
            // The log begins before the slots are published, because a harvest
            // of rings drops entries that belong to no log.
            vm.dirty_log.Begin(prepared.log);
          });
      !s.ok()) {
    return s;
  }
  // Every page is now write-protected, or its next write is logged in another
  // way. This may have taken longer than the owner's lease.
  DirtyLog& started = prepared.log->log;
  started.Open(MonotonicTime::Now());
  DirtyLogView& view = prepared.view;
  view.state.last_owner_call = started.last_owner_call();
  view.state.lease_end = view.state.last_owner_call + view.state.lease;
  view.ttl_end = view.state.last_owner_call + view.ttl;
  return StartResult{
      .log = std::move(view),
      .split_2m_count = static_cast<uint64_t>(hooks.split().split_2m_count),
      .split_1g_count = static_cast<uint64_t>(hooks.split().split_1g_count)};
}

absl::StatusOr<absl::optional<DirtyLogView>> CheckDirtyLogStart(
    const VmCore& vm, const DirtyLogStart& start) {
  const std::shared_ptr<VmDirtyLog> log = vm.dirty_log.GetOn();
  absl::StatusOr<DirtyLogView> again;
  const absl::Status status = WithMemory("vm", "look at the dirty log", [&] {
    if (absl::Status s = CheckSplitPolicy(start.config); !s.ok()) return s;
    if (log == nullptr) {
      RcuReadGuard rcu;
      return SlotsToLog(vm.slots.Active(0), start.config.slots).status();
    }
    again = StartAgain(*log, start);
    return again.status();
  });
  if (!status.ok()) return status;
  if (log == nullptr) return absl::optional<DirtyLogView>();
  return absl::optional<DirtyLogView>(*std::move(again));
}

}  // namespace mmu
