#include "mmu_core/vm/dirty_logging.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <utility>

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

bool SlotsHaveBitmaps(const VmState& vm) {
  return !vm.has_dirty_rings() ||
         vm.config.companion_bitmap == VmConfig::CompanionBitmap::kYes;
}

// KVM's own calls are for bitmaps (DL-25).
absl::Status CheckHasBitmaps(const VmState& vm) {
  if (SlotsHaveBitmaps(vm)) return absl::OkStatus();
  return MakeError(absl::StatusCode::kFailedPrecondition,
                   {"INVALID_DIRTY_LOG_MODE", "slot", ENXIO},
                   "this VM logs into dirty rings only; harvest those");
}

// All that the logs of some slots need.
struct PreparedLogs {
  std::vector<MemslotTable::LoggedSlot> slots;
  EpochLogs::Map logs;
};

absl::Status PrepareLog(const VmState& vm, const Memslot& slot,
                        const DirtyLogConfig& config, PreparedLogs& prepared) {
  const auto new_bitmap = [&] {
    return DirtyBitmap::TryCreate(slot.npages, config.initially_set);
  };
  std::shared_ptr<DirtyBitmap> slot_bitmap;  // null if slots have none
  if (SlotsHaveBitmaps(vm)) {
    slot_bitmap =
        slot.dirty_bitmap != nullptr ? slot.dirty_bitmap : new_bitmap();
    if (slot_bitmap == nullptr) return NoMemoryForLog(slot.id);
  }
  std::shared_ptr<EpochLog> log = EpochLog::TryCreate(
      slot.id, vm.has_dirty_rings() ? new_bitmap() : slot_bitmap, config);
  if (log == nullptr) return NoMemoryForLog(slot.id);
  prepared.slots.push_back({slot.id, std::move(slot_bitmap)});
  prepared.logs.emplace(slot.id, std::move(log));
  return absl::OkStatus();
}

// Everything that can refuse a start is looked at here, and all memory that the
// logs need is there when this is OK. Nothing is changed.
absl::Status PrepareStart(VmState& vm, const DirtyLogConfig& config,
                          PreparedLogs& prepared)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(vm.slots.slots_lock) {
  absl::StatusOr<std::vector<const Memslot*>> slots = SlotsOf(vm, config.slots);
  if (!slots.ok()) return slots.status();
  if (config.slots.empty()) {
    slots->erase(std::remove_if(slots->begin(), slots->end(),
                                [](const Memslot* s) { return s->readonly(); }),
                 slots->end());
    if (slots->empty()) return NothingToLog();
  }
  std::vector<const Memslot*> to_start;
  for (const Memslot* slot : *slots) {
    const std::shared_ptr<EpochLog> log = vm.logs.Find(slot->id);
    if (log == nullptr) {
      to_start.push_back(slot);
    } else if (log->config() != config) {
      return MakeError(
          absl::StatusCode::kAlreadyExists,
          {"DIRTY_LOG_ACTIVE", "slots", EEXIST},
          absl::StrCat("slot ", slot->id,
                       " logs already, with other settings; stop its dirty "
                       "log first"));
    }
  }
  for (const Memslot* slot : to_start) {
    if (absl::Status s = PrepareLog(vm, *slot, config, prepared); !s.ok()) {
      return s;
    }
  }
  return absl::OkStatus();
}

// Of SlotsToStop, without its care for memory.
absl::StatusOr<std::vector<MemslotTable::LoggedSlot>> FindSlotsToStop(
    VmState& vm, const std::vector<uint32_t>& slots, DiscardUnacked discard,
    MmuCost* cost) ABSL_EXCLUSIVE_LOCKS_REQUIRED(vm.slots.slots_lock) {
  absl::StatusOr<std::vector<const Memslot*>> found = SlotsOf(vm, slots);
  if (!found.ok()) return found.status();
  if (discard == DiscardUnacked::kNo) TakeInNotedPages(vm, cost);
  std::vector<MemslotTable::LoggedSlot> to_stop;
  for (const Memslot* slot : *found) {
    const std::shared_ptr<EpochLog> log = vm.logs.Find(slot->id);
    if (log == nullptr) {
      if (slots.empty()) continue;  // "all" means those that log
      return DirtyLogOff(slot->id);
    }
    if (discard == DiscardUnacked::kNo) {
      if (absl::Status s = CheckNoUnacked(*log, "slots"); !s.ok()) return s;
    }
    to_stop.push_back({slot->id});
  }
  if (slots.empty() && to_stop.empty()) {
    return MakeError(absl::StatusCode::kFailedPrecondition,
                     {"DIRTY_LOG_OFF", "slots", ENOENT},
                     "no slot of this VM logs dirty pages");
  }
  return to_stop;
}

// The slots whose logs are to be switched off: `slots`, or all that log if it
// is empty. Everything that can refuse a stop is looked at here, and nothing is
// changed.
absl::StatusOr<std::vector<MemslotTable::LoggedSlot>> SlotsToStop(
    VmState& vm, const std::vector<uint32_t>& slots, DiscardUnacked discard,
    MmuCost* cost) ABSL_EXCLUSIVE_LOCKS_REQUIRED(vm.slots.slots_lock) {
  return WithMemory("slots", "stop dirty logs", [&] {
    vm.slots.slots_lock.AssertHeld();
    return FindSlotsToStop(vm, slots, discard, cost);
  });
}

// Switches the logs off, all or none; returns how many dirty pages are lost by
// that.
absl::StatusOr<uint64_t> SwitchLogsOff(
    VmState& vm, const std::vector<MemslotTable::LoggedSlot>& slots,
    MmuCost* cost) ABSL_EXCLUSIVE_LOCKS_REQUIRED(vm.slots.slots_lock) {
  // What the CPUs have noted until here belongs to the log.
  SyncCpuDirtyLogs(vm, cost);
  RegionHooks hooks(vm, cost);
  if (absl::Status s = vm.slots.SwitchLogging(0, MemslotTable::Logging::kOff,
                                              slots, hooks, [] {});
      !s.ok()) {
    return s;
  }
  // Nobody marks any more; a harvest finds the logs as long as they are listed.
  HarvestDirtyRings(vm);
  uint64_t lost = 0;
  for (const MemslotTable::LoggedSlot& slot : slots) {
    lost += vm.logs.Find(slot.id)->dirty_page_count();
    vm.logs.Remove(slot.id);
  }
  return lost;
}

bool NeverStop() { return false; }

// Acknowledges, and re-protects what no reset of a ring does.
absl::Status ClearLocked(VmState& vm, uint32_t slot_id, uint64_t epoch,
                         uint64_t first_page, uint64_t page_count,
                         absl::Span<const uint64_t> mask, ClearResult* result,
                         MmuCost* cost)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(vm.slots.slots_lock) {
  const Memslot* slot = vm.slots.Active(0).FindById(slot_id);
  if (slot == nullptr) return NoSuchSlot(slot_id);
  const std::shared_ptr<EpochLog> log = vm.logs.Find(slot_id);
  if (log == nullptr) return DirtyLogOff(slot_id);
  if (absl::Status s =
          CheckClearRange(slot->npages, first_page, page_count, mask.size());
      !s.ok()) {
    return s;
  }
  absl::StatusOr<std::vector<BitmapWord>> taken =
      log->Acknowledge(epoch, first_page, mask);
  if (!taken.ok()) return taken.status();
  if (vm.has_dirty_rings() &&
      log->config().initially_set == InitiallySet::kNo) {
    // Whatever is writable has an entry in a ring; the reset protects it.
    for (const BitmapWord& word : *taken) {
      result->cleared_page_count += std::popcount(word.bits);
    }
    return absl::OkStatus();
  }
  *result = Reprotect(vm, *slot, log->config(), *taken, cost);
  return absl::OkStatus();
}

}  // namespace

absl::Status NoSuchSlot(uint32_t slot) {
  return MakeError(absl::StatusCode::kNotFound,
                   {"MEMSLOT_NOT_FOUND", "slot", ENOENT},
                   absl::StrCat("there is no slot ", slot,
                                "; see the VM's list of memslots"));
}

absl::Status DirtyLogOff(uint32_t slot) {
  return MakeError(absl::StatusCode::kFailedPrecondition,
                   {"DIRTY_LOG_OFF", "slot", ENOENT},
                   absl::StrCat("slot ", slot,
                                " does not log dirty pages; start its dirty "
                                "log first"));
}

void TakeInNotedPages(VmState& vm, MmuCost* cost) {
  SyncCpuDirtyLogs(vm, cost);
  HarvestDirtyRings(vm);
}

absl::Status CheckNoUnacked(const EpochLog& log, const char* field) {
  const uint64_t dirty = log.dirty_page_count();
  if (dirty == 0) return absl::OkStatus();
  const DirtyLogInfo info = log.Info();
  return MakeError(
      absl::StatusCode::kFailedPrecondition, {"UNACKED_EPOCH", field, EBUSY},
      absl::StrCat("slot ", info.slot, " has ", dirty,
                   " dirty pages that were not cleared, ",
                   info.unacked_page_count,
                   " of them sealed: its log cannot end without losing them; "
                   "seal and clear them, or set discard_unacked"));
}

HeldVcpus::HeldVcpus(VmState& vm) : vm_(&vm) { vm.runner.Hold(); }

void HeldVcpus::LetGo() {
  if (vm_ != nullptr) vm_->runner.Unhold();
  vm_ = nullptr;
}

std::shared_ptr<EpochLog> EpochLogs::Find(uint32_t slot) const {
  MutexLock lock(mu_);
  const auto it = logs_.find(slot);
  return it == logs_.end() ? nullptr : it->second;
}

std::vector<std::shared_ptr<EpochLog>> EpochLogs::All() const {
  MutexLock lock(mu_);
  std::vector<std::shared_ptr<EpochLog>> all;
  for (const auto& [slot, log] : logs_) all.push_back(log);
  return all;
}

bool EpochLogs::empty() const {
  MutexLock lock(mu_);
  return logs_.empty();
}

void EpochLogs::Add(Map logs) {
  MutexLock lock(mu_);
  for (const auto& [slot, log] : logs) log->NumberFrom(next_epoch_);
  logs_.merge(logs);
}

void EpochLogs::Remove(uint32_t slot) {
  std::shared_ptr<EpochLog> log;
  {
    MutexLock lock(mu_);
    const auto it = logs_.find(slot);
    if (it == logs_.end()) return;
    log = std::move(it->second);
    logs_.erase(it);
  }
  // May wait for a seal, and those who only look for logs shall not.
  const uint64_t next = log->open_epoch() + 1;
  MutexLock lock(mu_);
  next_epoch_ = std::max(next_epoch_, next);
}

void SyncCpuDirtyLogs(VmState& vm, MmuCost* cost) {
  if (vm.cpu_dirty_log_entries() == 0 || vm.logging_slots.load() == 0) return;
  const FlushResult kicked = vm.tlb.KickOut();
  if (cost != nullptr) cost->vcpus_kicked_count += kicked.vcpus_kicked;
}

absl::Status StartDirtyLog(VmState& vm, const DirtyLogConfig& config,
                           MmuCost* cost) {
  MutexLock lock(vm.slots.slots_lock);
  PreparedLogs prepared;
  absl::Status status = WithMemory("slots", "start dirty logs", [&] {
    vm.slots.slots_lock.AssertHeld();
    if (absl::Status s = CheckSplitPolicy(config); !s.ok()) return s;
    return PrepareStart(vm, config, prepared);
  });
  if (!status.ok()) return status;
  RegionHooks hooks(vm, cost, config, HoldLimit::For(config.max_lock_hold));
  return vm.slots.SwitchLogging(
      0, MemslotTable::Logging::kOn, prepared.slots, hooks, [&] {
        vm.slots.slots_lock.AssertHeld();
        vm.slots.SetDirtyLogInitiallySet(config.initially_set);
        // Before the slots: a harvest of rings drops what it finds no log for.
        vm.logs.Add(std::move(prepared.logs));
      });
}

absl::StatusOr<StopResult> StopDirtyLog(VmState& vm,
                                        const std::vector<uint32_t>& slots,
                                        RecoverOnStop recover,
                                        DiscardUnacked discard, MmuCost* cost) {
  StopResult result;
  uint64_t reset = 0;
  absl::optional<HeldVcpus> held;
  if (discard == DiscardUnacked::kNo) {
    // Mostly it is here that a stop is refused, and nobody had to stand still
    // for it.
    MutexLock lock(vm.slots.slots_lock);
    const auto refused = SlotsToStop(vm, slots, discard, cost);
    if (!refused.ok()) return refused.status();
  }
  // What a vCPU writes between the look and the end would be lost. Who discards
  // wants it counted: a CPU's own log tells of a page when it is taken in, and
  // after the end there is no log that would count it.
  if (discard == DiscardUnacked::kNo || vm.config.pml == VmConfig::Pml::kYes) {
    held.emplace(vm);
  }
  {
    MutexLock lock(vm.slots.slots_lock);
    const absl::StatusOr<std::vector<MemslotTable::LoggedSlot>> to_stop =
        SlotsToStop(vm, slots, discard, cost);
    if (!to_stop.ok()) return to_stop.status();
    AtHook(HookPoint::kCountToSwitch);
    const absl::StatusOr<uint64_t> lost = SwitchLogsOff(vm, *to_stop, cost);
    if (!lost.ok()) return lost.status();
    result.discarded_page_count = *lost;
    if (held.has_value()) held->LetGo();
    if (recover == RecoverOnStop::kYes) {
      RegionHooks hooks(vm, cost);
      for (const MemslotTable::LoggedSlot& slot : *to_stop) {
        hooks.RecoverHugePages(*vm.slots.Active(0).FindById(slot.id));
      }
      result.recovered_2m_count = hooks.recovered().to_2m_count;
      result.recovered_1g_count = hooks.recovered().to_1g_count;
    }
    reset = ReclaimDirtyRingsLocked(vm, cost);
  }
  FinishDirtyRingReset(vm, reset, cost);
  return result;
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

absl::StatusOr<ClearResult> ClearDirtyLog(VmState& vm, uint32_t slot_id,
                                          uint64_t epoch, uint64_t first_page,
                                          uint64_t page_count,
                                          absl::Span<const uint64_t> mask,
                                          MmuCost* cost) {
  if (absl::Status s = CheckClearRange(0, first_page, page_count, mask.size());
      !s.ok()) {
    return s;  // before the slot is even looked up (DL-20)
  }
  ClearResult result;
  uint64_t owed = 0;
  {
    MutexLock lock(vm.slots.slots_lock);
    absl::Status status = ClearLocked(vm, slot_id, epoch, first_page,
                                      page_count, mask, &result, cost);
    if (!status.ok()) return status;
    // Also the pages of other slots: they stay in their epochs.
    if (vm.has_dirty_rings()) {
      owed = ResetDirtyRingsLocked(vm, NeverStop, cost);
      // Another clear may have reset the entries of these pages a moment ago,
      // and not flushed yet:
      //   1. A frees and protects page X of this slot, drops slots_lock
      //   2. B (this) finds no entry to free    3. B returns, X is copied
      //   4. a vCPU writes X through its TLB    5. A flushes
      // and the write of 4 would be in no log. So who acknowledges flushes.
      owed += result.cleared_page_count;
    }
  }
  FinishDirtyRingReset(vm, owed, cost);
  for (size_t i = 0; i < mask.size(); ++i) {
    // Bits past the end of the range are nobody's pages.
    const uint64_t left = page_count - 64 * i;
    const uint64_t real = left >= 64 ? ~uint64_t{0} : (uint64_t{1} << left) - 1;
    result.already_clean_page_count += std::popcount(mask[i] & real);
  }
  result.already_clean_page_count -= result.cleared_page_count;
  vm.counters.cleared_pages.fetch_add(result.cleared_page_count,
                                      std::memory_order_relaxed);
  return result;
}

absl::Status EnableManualProtect(VmState& vm, uint64_t bits, uint32_t flags) {
  constexpr uint64_t kBoth = kManualProtectEnable | kManualProtectInitiallySet;
  if (flags != 0 || (bits & ~kBoth) != 0 ||
      bits == kManualProtectInitiallySet) {
    return MakeError(absl::StatusCode::kInvalidArgument,
                     {"INVALID_DIRTY_LOG_MODE", "bits", EINVAL},
                     Format("bits 0x%x with flags 0x%x: bits are 0, 1 "
                            "or 3 and flags 0",
                            bits, flags));
  }
  MutexLock lock(vm.slots.slots_lock);
  vm.slots.SetDirtyLogInitiallySet(bits == kBoth ? InitiallySet::kYes
                                                 : InitiallySet::kNo);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<uint64_t>> GetAndClearDirtyLog(VmState& vm,
                                                          uint32_t slot_id,
                                                          MmuCost* cost) {
  if (absl::Status s = CheckHasBitmaps(vm); !s.ok()) return s;
  MutexLock lock(vm.slots.slots_lock);
  const Memslot* slot = vm.slots.Active(0).FindById(slot_id);
  if (slot == nullptr || slot->dirty_bitmap == nullptr) {
    return NoSuchSlot(slot_id);
  }
  SyncCpuDirtyLogs(vm, cost);
  DirtyBitmap& bitmap = *slot->dirty_bitmap;
  std::vector<uint64_t> words(bitmap.word_count());
  std::vector<BitmapWord> taken;
  bitmap.TakeAll(0, bitmap.word_count(), [&](uint64_t i, uint64_t bits) {
    words[i] = bits;
    taken.push_back({i, bits});
  });
  const std::shared_ptr<EpochLog> log = vm.logs.Find(slot_id);
  Reprotect(vm, *slot, log == nullptr ? SlotLogConfig() : log->config(), taken,
            cost);
  return words;
}

absl::StatusOr<std::vector<uint64_t>> CopyDirtyLog(VmState& vm,
                                                   uint32_t slot_id) {
  if (absl::Status s = CheckHasBitmaps(vm); !s.ok()) return s;
  MutexLock lock(vm.slots.slots_lock);
  const Memslot* slot = vm.slots.Active(0).FindById(slot_id);
  if (slot == nullptr || slot->dirty_bitmap == nullptr) {
    return NoSuchSlot(slot_id);
  }
  SyncCpuDirtyLogs(vm, /*cost=*/nullptr);
  std::vector<uint64_t> words(slot->dirty_bitmap->word_count());
  slot->dirty_bitmap->OrInto(0, absl::MakeSpan(words));
  return words;
}

absl::StatusOr<ClearResult> ClearBitmap(VmState& vm, uint32_t slot_id,
                                        uint64_t first_page,
                                        uint64_t page_count,
                                        absl::Span<const uint64_t> mask,
                                        MmuCost* cost) {
  if (absl::Status s = CheckHasBitmaps(vm); !s.ok()) return s;
  if (absl::Status s = CheckClearRange(0, first_page, page_count, mask.size());
      !s.ok()) {
    return s;
  }
  MutexLock lock(vm.slots.slots_lock);
  const Memslot* slot = vm.slots.Active(0).FindById(slot_id);
  if (slot == nullptr || slot->dirty_bitmap == nullptr) {
    return NoSuchSlot(slot_id);
  }
  if (absl::Status s =
          CheckClearRange(slot->npages, first_page, page_count, mask.size());
      !s.ok()) {
    return s;
  }
  SyncCpuDirtyLogs(vm, cost);
  std::vector<BitmapWord> taken;
  for (size_t i = 0; i < mask.size(); ++i) {
    if (mask[i] == 0) continue;
    const uint64_t index = first_page / 64 + i;
    const uint64_t bits = slot->dirty_bitmap->ClearBits(index, mask[i]);
    if (bits != 0) taken.push_back({index, bits});
  }
  const std::shared_ptr<EpochLog> log = vm.logs.Find(slot_id);
  return Reprotect(vm, *slot, log == nullptr ? SlotLogConfig() : log->config(),
                   taken, cost);
}

}  // namespace mmu
