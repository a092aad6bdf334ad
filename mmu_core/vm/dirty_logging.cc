#include "mmu_core/vm/dirty_logging.h"

#include <algorithm>
#include <cerrno>
#include <memory>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/types/optional.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/format.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/with_memory.h"
#include "mmu_core/dirty/dirty_bitmap.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/sync/hold_limit.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/vm/dirty_rings.h"
#include "mmu_core/vm/region_hooks.h"
#include "mmu_core/vm/reprotect.h"
#include "mmu_core/vm/vm_state.h"

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
                   {"INVALID_SPLIT_POLICY", "split", EINVAL}, problem);
}

// `wanted`, in its order without repetitions, or all slots of address space 0
// if it is empty.
absl::StatusOr<std::vector<const Memslot*>> SlotsOf(
    VmState& vm, const std::vector<uint32_t>& wanted)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(vm.slots.slots_lock) {
  const MemslotSet& set = vm.slots.Active(0);
  std::vector<const Memslot*> slots;
  if (wanted.empty()) {
    slots.assign(set.slots().begin(), set.slots().end());
    return slots;
  }
  absl::flat_hash_set<uint32_t> seen;
  for (const uint32_t id : wanted) {
    const Memslot* slot = set.FindById(id);
    if (slot == nullptr) return NoSuchSlot(id);
    if (seen.insert(id).second) slots.push_back(slot);
  }
  return slots;
}

absl::Status NoMemoryForLog(uint32_t slot) {
  return NoMemory("slots", Format("log the dirty pages of slot %d", slot));
}

absl::Status NothingToLog() {
  return MakeError(absl::StatusCode::kNotFound,
                   {"MEMSLOT_NOT_FOUND", "slots", ENOENT},
                   "slots is empty, which means all slots that can be written, "
                   "and this VM has none; name read-only ones to log those");
}

// All that the logs of some slots need.
struct PreparedLogs {
  std::vector<MemslotTable::LoggedSlot> slots;
  std::shared_ptr<VmDirtyLog> log;
  DirtyLogView view;  // what the caller is told of it
};

// The sets of a slot, and the bitmap that the slot itself shall have: the open
// set, or with rings a companion, or none.
absl::StatusOr<NewSlotLog> NewSets(const VmState& vm, uint32_t slot,
                                   uint64_t npages, InitiallySet open) {
  NewSlotLog made;
  std::shared_ptr<DirtyBitmap> open_set = DirtyBitmap::TryCreate(npages, open);
  if (!vm.has_dirty_rings()) {
    made.slot_bitmap = open_set;
  } else if (vm.slots_have_bitmaps()) {
    made.slot_bitmap = DirtyBitmap::TryCreate(npages, open);
    if (made.slot_bitmap == nullptr) return NoMemoryForLog(slot);
  }
  made.log = SlotLog::TryCreate(slot, std::move(open_set));
  if (made.log == nullptr) return NoMemoryForLog(slot);
  return made;
}

// Everything that can refuse a start is looked at here, and all memory that the
// log needs is there when this is OK. Nothing is changed.
absl::Status PrepareStart(VmState& vm, const DirtyLogStart& start,
                          PreparedLogs& prepared)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(vm.slots.slots_lock) {
  const DirtyLogConfig& config = start.config;
  absl::StatusOr<std::vector<const Memslot*>> slots = SlotsOf(vm, config.slots);
  if (!slots.ok()) return slots.status();
  if (config.slots.empty()) {
    slots->erase(std::remove_if(slots->begin(), slots->end(),
                                [](const Memslot* s) { return s->readonly(); }),
                 slots->end());
    if (slots->empty()) return NothingToLog();
  }
  DirtyLog::Slots logs;
  for (const Memslot* slot : *slots) {
    absl::StatusOr<NewSlotLog> made =
        NewSets(vm, slot->id, slot->npages, config.initially_set);
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

// A start while there is a log: repeated, or refused.
absl::StatusOr<DirtyLogView> StartAgain(VmDirtyLog& log,
                                        const DirtyLogStart& start) {
  const bool same_owner =
      log.log.Admit({.key = start.claim.key, .now = start.now}).ok();
  DirtyLogView view = log.View();
  if (same_owner && SameSettings(log, start)) return view;
  return MakeError(
      absl::StatusCode::kAlreadyExists,
      {"DIRTY_LOG_ACTIVE", "vm", EEXIST, {{"owner", view.state.owner}}},
      Format("this VM has a dirty log, %s of %s%s; stop it first, or "
             "acquire it",
             view.state.id.ToString(), view.state.owner,
             same_owner ? ", with other settings" : ""));
}

absl::StatusOr<std::shared_ptr<VmDirtyLog>> LogOf(const VmState& vm) {
  std::shared_ptr<VmDirtyLog> log = vm.dirty_log.GetOn();
  if (log == nullptr) return DirtyLogOff();
  return log;
}

// As DirtyLog::Admit, whose errors need memory.
absl::Status Admit(VmDirtyLog& log, const LogCall& call) {
  return WithMemory("vm", "look at the dirty log",
                    [&] { return log.log.Admit(call); });
}

// `status`, of a look at the log of `slot`. If that was refused and the VM has
// no such slot: NOT_FOUND MEMSLOT_NOT_FOUND. (Every slot that is logged
// exists.)
absl::Status OrNoSuchSlot(const VmState& vm, uint32_t slot,
                          absl::Status status) {
  if (status.ok()) return status;
  RcuReadGuard rcu;
  return vm.slots.Active(0).FindById(slot) != nullptr ? status
                                                      : NoSuchSlot(slot);
}

// Of CheckStop, without its care for memory.
absl::StatusOr<std::shared_ptr<VmDirtyLog>> FindLogToStop(
    VmState& vm, const DirtyLogStop& stop, MmuCost* cost)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(vm.slots.slots_lock) {
  absl::StatusOr<std::shared_ptr<VmDirtyLog>> found = LogOf(vm);
  if (!found.ok()) return found;
  DirtyLog& log = (*found)->log;
  if (absl::Status s = log.CheckId(stop.log_id); !s.ok()) return s;
  if (stop.by.has_value()) {
    if (absl::Status s = log.Admit(*stop.by); !s.ok()) return s;
  }
  if (stop.undelivered == Undelivered::kRefuse) {
    TakeInNotedPages(vm, cost);
    const UndeliveredCounts counts = log.CountUndelivered();
    if (!counts.none()) return UndeliveredPages(counts, "the VM");
  }
  return found;
}

// The log that is to be stopped. Everything that can refuse a stop is looked at
// here, and nothing is changed.
absl::StatusOr<std::shared_ptr<VmDirtyLog>> CheckStop(VmState& vm,
                                                      const DirtyLogStop& stop,
                                                      MmuCost* cost)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(vm.slots.slots_lock) {
  return WithMemory("vm", "stop the dirty log", [&] {
    vm.slots.slots_lock.AssertHeld();
    return FindLogToStop(vm, stop, cost);
  });
}

// Switches the log off; returns what is lost by that.
absl::StatusOr<UndeliveredCounts> SwitchLogOff(
    VmState& vm, DirtyLog& log,
    const std::vector<MemslotTable::LoggedSlot>& slots, MmuCost* cost)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(vm.slots.slots_lock) {
  // What the CPUs have noted until here belongs to the log.
  SyncCpuDirtyLogs(vm, cost);
  RegionHooks hooks(vm, cost);
  if (absl::Status s =
          vm.slots.SwitchLogging(0, MemslotTable::Logging::kOff, slots, hooks,
                                 [&log] { log.Close(); });
      !s.ok()) {
    return s;
  }
  // Nobody marks any more; a harvest finds the log as long as it is there.
  HarvestDirtyRings(vm);
  UndeliveredCounts lost;
  for (const MemslotTable::LoggedSlot& slot : slots) {
    lost += log.CountUndelivered(slot.id);
  }
  vm.dirty_log.End();
  return lost;
}

absl::StatusOr<StopResult> StopLocked(VmState& vm, DirtyLog& log,
                                      RecoverOnStop recover,
                                      absl::optional<HeldVcpus>& held,
                                      MmuCost* cost)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(vm.slots.slots_lock) {
  std::vector<MemslotTable::LoggedSlot> slots;
  if (!TryWithMemory([&] {
        for (const std::shared_ptr<SlotLog>& slot : log.AllSlots()) {
          slots.push_back({slot->slot()});
        }
        return true;
      })) {
    return NoMemory("vm", "stop the dirty log");
  }
  AtHook(HookPoint::kCountToSwitch);
  const absl::StatusOr<UndeliveredCounts> lost =
      SwitchLogOff(vm, log, slots, cost);
  if (!lost.ok()) return lost.status();
  StopResult result;
  result.discarded = *lost;
  if (held.has_value()) held->LetGo();
  if (recover == RecoverOnStop::kYes) {
    RegionHooks hooks(vm, cost);
    for (const MemslotTable::LoggedSlot& slot : slots) {
      hooks.RecoverHugePages(*vm.slots.Active(0).FindById(slot.id));
    }
    result.recovered_2m_count = hooks.recovered().to_2m_count;
    result.recovered_1g_count = hooks.recovered().to_1g_count;
  }
  return result;
}

bool NeverStop() { return false; }

// The slot, and that the range is one of it.
absl::StatusOr<const Memslot*> SlotForRange(VmState& vm, uint32_t slot_id,
                                            uint64_t first_page,
                                            uint64_t page_count,
                                            size_t mask_words)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(vm.slots.slots_lock) {
  // Before the slot is even looked up (DL-20).
  if (absl::Status s = CheckClearRange(0, first_page, page_count, mask_words);
      !s.ok()) {
    return s;
  }
  const Memslot* slot = vm.slots.Active(0).FindById(slot_id);
  if (slot == nullptr) return NoSuchSlot(slot_id);
  if (absl::Status s =
          CheckClearRange(slot->npages, first_page, page_count, mask_words);
      !s.ok()) {
    return s;
  }
  return slot;
}

// Takes into flight, and re-protects what no reset of a ring does.
absl::StatusOr<ClearResult> ClearLocked(VmState& vm, VmDirtyLog& log,
                                        const LogCall& call, uint32_t slot_id,
                                        uint64_t epoch, uint64_t first_page,
                                        uint64_t page_count,
                                        absl::Span<const uint64_t> mask,
                                        MmuCost* cost)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(vm.slots.slots_lock) {
  if (absl::Status s = Admit(log, call); !s.ok()) return s;
  const absl::StatusOr<const Memslot*> slot =
      WithMemory("pages", "clear dirty pages", [&] {
        vm.slots.slots_lock.AssertHeld();
        return SlotForRange(vm, slot_id, first_page, page_count, mask.size());
      });
  if (!slot.ok()) return slot.status();
  const absl::StatusOr<DirtyLog::Flight> flight =
      WithMemory("pages", "clear dirty pages", [&] {
        return log.log.TakeIntoFlight(call, slot_id, epoch, first_page, mask);
      });
  if (!flight.ok()) return flight.status();
  ClearResult result;
  // With rings, whatever is writable has an entry in one; the reset protects
  // it.
  if (!vm.has_dirty_rings() || log.config.initially_set == InitiallySet::kYes) {
    result = Reprotect(vm, **slot, log.config, flight->moved, cost);
  }
  result.cleared_page_count = flight->moved_page_count;
  result.already_in_flight_page_count = flight->already_in_flight_page_count;
  result.still_sealed_page_count = flight->still_sealed_page_count;
  result.already_clean_page_count = flight->already_clean_page_count;
  return result;
}

}  // namespace

absl::Status NoSuchSlot(uint32_t slot) {
  return MakeError(absl::StatusCode::kNotFound,
                   {"MEMSLOT_NOT_FOUND", "slot", ENOENT},
                   absl::StrCat("there is no slot ", slot,
                                "; see the VM's list of memslots"));
}

void TakeInNotedPages(VmState& vm, MmuCost* cost) {
  SyncCpuDirtyLogs(vm, cost);
  HarvestDirtyRings(vm);
}

HeldVcpus::HeldVcpus(VmState& vm) : vm_(&vm) { vm.runner.Hold(); }

void HeldVcpus::LetGo() {
  if (vm_ != nullptr) vm_->runner.Unhold();
  vm_ = nullptr;
}

void SyncCpuDirtyLogs(VmState& vm, MmuCost* cost) {
  if (vm.cpu_dirty_log_entries() == 0 || vm.logging_slots.load() == 0) return;
  const FlushResult kicked = vm.tlb.KickOut();
  if (cost != nullptr) cost->vcpus_kicked_count += kicked.vcpus_kicked;
}

absl::StatusOr<DirtyLogView> StartDirtyLog(VmState& vm,
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
  if (log != nullptr) return again;
  RegionHooks hooks(vm, cost, config, HoldLimit::For(config.max_lock_hold));
  if (absl::Status s = vm.slots.SwitchLogging(
          0, MemslotTable::Logging::kOn, prepared.slots, hooks,
          [&] {
            vm.slots.slots_lock.AssertHeld();
            vm.slots.SetDirtyLogInitiallySet(config.initially_set);
            // Before the slots: a harvest of rings drops what it finds no log
            // for.
            vm.dirty_log.Begin(prepared.log);
          });
      !s.ok()) {
    return s;
  }
  // Everything is protected, or its next write is noted otherwise. That may
  // have taken longer than the owner's lease.
  DirtyLog& started = prepared.log->log;
  started.Open(MonotonicTime::Now());
  DirtyLogView& view = prepared.view;
  view.state.last_owner_call = started.last_owner_call();
  view.state.lease_end = view.state.last_owner_call + view.state.lease;
  view.ttl_end = view.state.last_owner_call + view.ttl;
  return std::move(view);
}

absl::StatusOr<absl::optional<DirtyLogView>> CheckDirtyLogStart(
    const VmState& vm, const DirtyLogStart& start) {
  const std::shared_ptr<VmDirtyLog> log = vm.dirty_log.GetOn();
  if (log == nullptr) return absl::optional<DirtyLogView>();
  absl::StatusOr<DirtyLogView> again = WithMemory(
      "vm", "look at the dirty log", [&] { return StartAgain(*log, start); });
  if (!again.ok()) return again.status();
  return absl::optional<DirtyLogView>(*std::move(again));
}

absl::StatusOr<DirtyLogView> AcquireDirtyLog(VmState& vm, const LogClaim& claim,
                                             absl::optional<LogId> log_id,
                                             LogOwner::Force force,
                                             MonotonicTime now,
                                             LogOwner::Acquired* acquired) {
  // So that no stop that was admitted before ends the log of a new owner.
  MutexLock lock(vm.slots.slots_lock);
  const absl::StatusOr<std::shared_ptr<VmDirtyLog>> log = LogOf(vm);
  if (!log.ok()) return log.status();
  // But for the state it is the same afterwards, when nothing may fail.
  DirtyLogView view;
  const absl::StatusOr<LogOwner::Acquired> how =
      WithMemory("vm", "hand the dirty log over", [&] {
        view = (*log)->View();
        return (*log)->log.Acquire(claim, log_id, force, now, &view.state);
      });
  if (!how.ok()) return how.status();
  if (acquired != nullptr) *acquired = *how;
  view.ttl_end = view.state.last_owner_call + view.ttl;
  return view;
}

absl::StatusOr<SealOutcome> SealDirtyLog(VmState& vm, const LogCall& call,
                                         uint64_t acknowledged_epoch,
                                         MmuCost* cost) {
  const absl::StatusOr<std::shared_ptr<VmDirtyLog>> log = LogOf(vm);
  if (!log.ok()) return log.status();
  // Whoever is refused makes no vCPU exit.
  if (absl::Status s = Admit(**log, call); !s.ok()) return s;
  SyncCpuDirtyLogs(vm, cost);
  return WithMemory("vm", "seal the dirty log", [&] {
    return HarvestAndSeal(vm, (*log)->log, call, acknowledged_epoch);
  });
}

absl::Status ReadDirtyLog(VmState& vm, absl::optional<LogId> log_id,
                          uint32_t slot, uint64_t epoch, uint64_t first_page,
                          absl::Span<uint64_t> words) {
  const absl::StatusOr<std::shared_ptr<VmDirtyLog>> log = LogOf(vm);
  if (!log.ok()) return log.status();
  return OrNoSuchSlot(vm, slot,
                      (*log)->log.Read(log_id, slot, epoch, first_page, words));
}

absl::Status ReadInFlight(const VmState& vm, absl::optional<LogId> log_id,
                          uint32_t slot, uint64_t epoch, uint64_t first_page,
                          absl::Span<uint64_t> words) {
  const absl::StatusOr<std::shared_ptr<VmDirtyLog>> log = LogOf(vm);
  if (!log.ok()) return log.status();
  return OrNoSuchSlot(
      vm, slot,
      (*log)->log.ReadInFlight(log_id, slot, epoch, first_page, words));
}

absl::Status CheckDirtyLogEpoch(const VmState& vm, absl::optional<LogId> log_id,
                                uint64_t epoch, LogPages pages) {
  const absl::StatusOr<std::shared_ptr<VmDirtyLog>> log = LogOf(vm);
  if (!log.ok()) return log.status();
  return (*log)->log.CheckEpoch(log_id, epoch, pages);
}

absl::StatusOr<AcknowledgeResult> AcknowledgePages(VmState& vm,
                                                   const LogCall& call,
                                                   uint64_t epoch) {
  const absl::StatusOr<std::shared_ptr<VmDirtyLog>> log = LogOf(vm);
  if (!log.ok()) return log.status();
  return WithMemory("vm", "acknowledge pages",
                    [&] { return (*log)->log.Acknowledge(call, epoch); });
}

absl::StatusOr<AcknowledgeResult> AcknowledgePages(
    VmState& vm, const LogCall& call, uint64_t epoch, uint32_t slot,
    uint64_t first_page, uint64_t page_count, absl::Span<const uint64_t> mask) {
  // So that the slot stays as long as the range is one of it.
  MutexLock lock(vm.slots.slots_lock);
  const absl::StatusOr<std::shared_ptr<VmDirtyLog>> log = LogOf(vm);
  if (!log.ok()) return log.status();
  if (absl::Status s = Admit(**log, call); !s.ok()) return s;
  return WithMemory(
      "pages", "acknowledge pages", [&]() -> absl::StatusOr<AcknowledgeResult> {
        vm.slots.slots_lock.AssertHeld();
        const absl::StatusOr<const Memslot*> found =
            SlotForRange(vm, slot, first_page, page_count, mask.size());
        if (!found.ok()) return found.status();
        return (*log)->log.AcknowledgePages(call, epoch, slot, first_page,
                                            mask);
      });
}

absl::StatusOr<StopResult> StopDirtyLog(VmState& vm, const DirtyLogStop& stop,
                                        MmuCost* cost) {
  absl::StatusOr<StopResult> result;
  uint64_t reset = 0;
  absl::optional<HeldVcpus> held;
  if (stop.undelivered == Undelivered::kRefuse) {
    // Mostly it is here that a stop is refused, and nobody had to stand still
    // for it.
    MutexLock lock(vm.slots.slots_lock);
    const auto refused = CheckStop(vm, stop, cost);
    if (!refused.ok()) return refused.status();
  }
  // What a vCPU writes between the look and the end would be lost. Who discards
  // wants it counted: a CPU's own log tells of a page when it is taken in, and
  // after the end there is no log that would count it.
  if (stop.undelivered == Undelivered::kRefuse ||
      vm.config.pml == VmConfig::Pml::kYes) {
    held.emplace(vm);
  }
  {
    MutexLock lock(vm.slots.slots_lock);
    const absl::StatusOr<std::shared_ptr<VmDirtyLog>> log =
        CheckStop(vm, stop, cost);
    if (!log.ok()) return log.status();
    result = StopLocked(vm, (*log)->log, stop.recover, held, cost);
    if (!result.ok()) return result;
    reset = ReclaimDirtyRingsLocked(vm, cost);
  }
  FinishDirtyRingReset(vm, reset, cost);
  return result;
}

absl::optional<StopResult> StopAbandonedDirtyLog(VmState& vm, MonotonicTime now,
                                                 DirtyLogView* view,
                                                 MmuCost* cost) {
  // Mostly there is nothing to do, and nobody has to stand still for it.
  const auto is_over = [&](const VmDirtyLog* log) {
    if (log == nullptr) return false;
    *view = log->View();
    return now >= view->ttl_end;
  };
  if (!is_over(vm.dirty_log.Get().get())) return absl::nullopt;
  absl::StatusOr<StopResult> result;
  uint64_t reset = 0;
  absl::optional<HeldVcpus> held;
  // As in StopDirtyLog.
  if (vm.config.pml == VmConfig::Pml::kYes) held.emplace(vm);
  {
    MutexLock lock(vm.slots.slots_lock);
    const std::shared_ptr<VmDirtyLog> log = vm.dirty_log.Get();
    if (!is_over(log.get())) return absl::nullopt;
    result = StopLocked(vm, log->log, RecoverOnStop::kNo, held, cost);
    if (!result.ok()) return absl::nullopt;  // no memory; the next time
    reset = ReclaimDirtyRingsLocked(vm, cost);
  }
  FinishDirtyRingReset(vm, reset, cost);
  return *result;
}

absl::StatusOr<NewSlotLog> PrepareNewSlotLog(const VmState& vm, uint32_t slot,
                                             uint64_t npages) {
  const std::shared_ptr<VmDirtyLog> log = vm.dirty_log.Get();
  if (log == nullptr ||
      log->config.new_memslots == DirtyLogConfig::NewMemslots::kLeave) {
    return NewSlotLog();
  }
  return NewSets(vm, slot, npages, InitiallySet::kYes);
}

absl::Status CheckClearRange(uint64_t slot_pages, uint64_t first_page,
                             uint64_t page_count, size_t mask_words) {
  const auto unaligned = [](const char* field, uint64_t value,
                            const char* rule) {
    return MakeError(absl::StatusCode::kInvalidArgument,
                     {"UNALIGNED_CLEAR", field, EINVAL},
                     Format("%s is page %d: %s", field, value, rule));
  };
  if (first_page % 64 != 0) {
    return unaligned("start_gpa_bytes", first_page,
                     "a clear begins at a multiple of 64 pages of its slot; "
                     "round down and leave the extra bits clear");
  }
  if (slot_pages == 0) return absl::OkStatus();
  if (first_page > slot_pages || page_count > slot_pages - first_page) {
    return MakeError(
        absl::StatusCode::kInvalidArgument,
        {"INVALID_RANGE", "size_bytes", EINVAL},
        Format("pages %d to %d: the slot has %d; ask within the slot",
               first_page, first_page + page_count, slot_pages));
  }
  if (page_count % 64 != 0 && first_page + page_count != slot_pages) {
    return unaligned("size_bytes", page_count,
                     "a clear covers a multiple of 64 pages, unless it ends "
                     "where its slot ends");
  }
  if (mask_words != (page_count + 63) / 64) {
    return MakeError(
        absl::StatusCode::kInvalidArgument,
        {"INVALID_BITMAP", "bitmap", EINVAL},
        Format("the bitmap has %d words of 64 bits: %d pages need %d",
               mask_words, page_count, (page_count + 63) / 64));
  }
  return absl::OkStatus();
}

absl::StatusOr<ClearResult> ClearDirtyLog(VmState& vm, const LogCall& call,
                                          uint32_t slot_id, uint64_t epoch,
                                          uint64_t first_page,
                                          uint64_t page_count,
                                          absl::Span<const uint64_t> mask,
                                          MmuCost* cost) {
  absl::StatusOr<ClearResult> result;
  uint64_t owed = 0;
  {
    MutexLock lock(vm.slots.slots_lock);
    const absl::StatusOr<std::shared_ptr<VmDirtyLog>> log = LogOf(vm);
    if (!log.ok()) return log.status();
    result = ClearLocked(vm, **log, call, slot_id, epoch, first_page,
                         page_count, mask, cost);
    if (!result.ok()) return result;
    // Also the pages of other slots: they stay in their sets.
    if (vm.has_dirty_rings()) {
      owed = ResetDirtyRingsLocked(vm, NeverStop, cost);
      // Another clear may have reset the entries of these pages a moment ago,
      // and not flushed yet:
      //   1. A frees and protects page X of this slot, drops slots_lock
      //   2. B (this) finds no entry to free    3. B returns, X is copied
      //   4. a vCPU writes X through its TLB    5. A flushes
      // and the write of 4 would be in no log. So who clears flushes, also if
      // it finds X in flight already: B may be A's call, repeated.
      owed += result->cleared_page_count + result->already_in_flight_page_count;
    }
  }
  FinishDirtyRingReset(vm, owed, cost);
  vm.counters.cleared_pages.fetch_add(result->cleared_page_count,
                                      std::memory_order_relaxed);
  return result;
}

}  // namespace mmu
