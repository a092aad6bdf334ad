#include "mmu_core/vm/vm.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cerrno>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "absl/types/optional.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/format.h"
#include "mmu_core/base/with_memory.h"
#include "mmu_core/dirty/dirty_ring.h"
#include "mmu_core/dirty/pml_buffer.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/memory/region_request.h"
#include "mmu_core/shadow/shadow_mmu.h"
#include "mmu_core/shadow/shadow_pages.h"
#include "mmu_core/stats/shadow_counters.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/vm/age_pages.h"
#include "mmu_core/vm/audit.h"
#include "mmu_core/vm/dirty_logging.h"
#include "mmu_core/vm/dirty_rings.h"
#include "mmu_core/vm/mmu_mode_check.h"
#include "mmu_core/vm/op_timer.h"
#include "mmu_core/vm/region_hooks.h"
#include "mmu_core/vm/shadow_page_list.h"
#include "mmu_core/vm/vm_state.h"

namespace mmu {
namespace {

absl::Status Invalid(const char* reason, const char* field,
                     const std::string& message) {
  return MakeError(absl::StatusCode::kInvalidArgument, {reason, field, EINVAL},
                   message);
}

absl::Status CheckConfig(const VmConfig& config) {
  if (config.ad_bits == VmConfig::AdBits::kOff &&
      config.format == EntryFormat::kNpt) {
    return Invalid("INVALID_MMU_OPTION", "ad_bits",
                   "NPT always has Accessed and Dirty bits; switch them off "
                   "with EPT only");
  }
  if (config.pml == VmConfig::Pml::kYes &&
      (config.format == EntryFormat::kNpt ||
       config.ad_bits == VmConfig::AdBits::kOff)) {
    return Invalid("INVALID_MMU_OPTION", "pml",
                   "page-modification logging is a part of EPT with Accessed "
                   "and Dirty bits; leave it out, and dirty logging takes "
                   "write permission instead");
  }
  if (config.pml == VmConfig::Pml::kYes && config.mmu == MmuMode::kTdpShadow) {
    return Invalid("INVALID_MMU_OPTION", "pml",
                   "page-modification logging works with the TDP MMU; leave it "
                   "out, or choose tdp or nested");
  }
  if (const int bits = HostAddressBits(config); bits < 36 || bits > 52) {
    return Invalid("INVALID_MMU_OPTION", "host_address_bits",
                   Format("%d physical address bits of the host: "
                          "there are 36 to 52",
                          config.host_address_bits));
  }
  if (config.vcpu_count < 1 || config.vcpu_count > kMaxVcpus) {
    return Invalid("INVALID_VCPU_COUNT", "vcpu_count",
                   Format("vcpu_count is %d; it is 1 to %d", config.vcpu_count,
                          kMaxVcpus));
  }
  if (config.root_levels != 4 && config.root_levels != 5) {
    return Invalid(
        "INVALID_MMU_OPTION", "root_levels",
        Format("root_levels is %d; it is 4 or 5", config.root_levels));
  }
  if (config.max_page_level > kMaxLeafLevel) {
    return Invalid("INVALID_MMU_OPTION", "max_page_size",
                   "max_page_size is above 1 GiB; leafs are 4 KiB, 2 MiB or "
                   "1 GiB");
  }
  if (absl::Status s = CheckMmuMode(config); !s.ok()) return s;
  if (config.dirty_ring_entries != 0) {
    return DirtyRing::CheckBytes(
        config.dirty_ring_entries * sizeof(DirtyRing::Entry),
        config.pml == VmConfig::Pml::kYes ? PmlBuffer::kEntries : 0);
  }
  if (config.companion_bitmap == VmConfig::CompanionBitmap::kYes) {
    return Invalid("INVALID_MMU_OPTION", "companion_bitmap",
                   "a companion bitmap without dirty rings: set "
                   "dirty_ring_entries, or leave it out");
  }
  return absl::OkStatus();
}

RegionRequest RequestFor(const MemslotConfig& config) {
  RegionRequest request;
  request.slot = static_cast<uint32_t>(config.address_space) << 16 |
                 (config.slot & 0xffff);
  request.flags =
      config.mode == MemslotConfig::Mode::kReadOnly ? kMemslotReadonly : 0;
  request.gpa = config.gpa;
  request.size_bytes = config.size_bytes;
  return request;
}

absl::Status RangeError(GfnRange range) {
  return MakeError(
      absl::StatusCode::kOutOfRange, {"INVALID_RANGE", "range", EINVAL},
      absl::StrCat("gfns 0x", absl::Hex(range.start.value()), " to 0x",
                   absl::Hex(range.end.value()),
                   " are not all inside memslots; see the VM's list of "
                   "memslots"));
}

// Whether each gfn of `range` lies in a slot of `set`.
bool Covered(const MemslotSet& set, GfnRange range) {
  Gfn next = range.start;
  for (const Memslot* slot : set.SlotsIn(range)) {
    if (slot->base_gfn > next) return false;
    next = std::max(next, slot->range().end);
  }
  return next >= range.end;
}

// Takes the log of a slot that was deleted away; what it had. The marks are all
// made: the slot's mappings are gone, and CPUs' logs were drained.
UndeliveredCounts EndLogOfDeletedSlot(VmState& vm, uint32_t slot)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(vm.slots.slots_lock) {
  const std::shared_ptr<VmDirtyLog> log = vm.dirty_log.Get();
  if (log == nullptr) return {};
  HarvestDirtyRings(vm);
  return log->log.Leave(slot);
}

// The change that `config` asks for, with the memory of a slot that is to be
// made. All rules are looked at here, and nothing is changed.
absl::StatusOr<RegionRequest> PrepareMemslot(VmState& vm,
                                             const MemslotConfig& config,
                                             RegionHooks& hooks)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(vm.slots.slots_lock) {
  if (config.slot > 0xffff || config.address_space < 0 ||
      config.address_space >= vm.slots.address_spaces()) {
    return Invalid("INVALID_SLOT", "slot",
                   Format("slot %d of address space %d: slots are 0 "
                          "to %d, address spaces 0 to %d",
                          config.slot, config.address_space, kUserMemslots - 1,
                          vm.slots.address_spaces() - 1));
  }
  RegionRequest request = RequestFor(config);
  const Memslot* old_slot =
      vm.slots.Active(config.address_space).FindById(config.slot);
  if (old_slot != nullptr) {
    request.userspace_addr = old_slot->hva;
    // Logging is switched by StartDirtyLog and StopDirtyLog only.
    if (config.size_bytes != 0) {
      request.flags |= old_slot->flags & kMemslotLogDirtyPages;
    }
  }
  // Every rule comes before any memory is asked for.
  const absl::StatusOr<RegionChange> change = vm.slots.CheckRegion(request);
  if (!change.ok()) return change.status();
  if (*change == RegionChange::kCreate) {
    absl::StatusOr<std::shared_ptr<Backing>> backing =
        vm.memory.Allocate({.kind = config.backing,
                            .size_bytes = config.size_bytes,
                            .host_page_level = config.host_page_level,
                            .gpa = config.gpa});
    if (!backing.ok()) return backing.status();
    request.userspace_addr = (*backing)->hva();
    request.backing = std::move(*backing);
    if (config.address_space == 0 &&
        config.mode == MemslotConfig::Mode::kReadWrite) {
      absl::StatusOr<NewSlotLog> made =
          PrepareNewSlotLog(vm, config.slot, request.npages());
      if (!made.ok()) return made.status();
      if (made->log != nullptr) {
        request.flags |= kMemslotLogDirtyPages;
        request.dirty_bitmap = std::move(made->slot_bitmap);
        hooks.JoinLog(DirtyLog::JoiningSlot(std::move(made->log)));
      }
    }
  }
  return request;
}

// Changes the slot, or nothing. `lost`: what the log had of one that is
// deleted.
absl::Status SetMemslotLocked(VmState& vm, const MemslotConfig& config,
                              UndeliveredCounts* lost)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(vm.slots.slots_lock) {
  RegionHooks hooks(vm, /*cost=*/nullptr);
  const absl::StatusOr<RegionRequest> request =
      WithMemory("size_bytes", "change a memslot", [&] {
        vm.slots.slots_lock.AssertHeld();
        return PrepareMemslot(vm, config, hooks);
      });
  if (!request.ok()) return request.status();
  if (absl::Status s = vm.slots.SetRegion(*request, hooks); !s.ok()) return s;

  if (config.size_bytes == 0 && config.address_space == 0) {
    *lost = EndLogOfDeletedSlot(vm, config.slot);
  }
  return absl::OkStatus();
}

MemslotInfo InfoOf(const MemslotSet& set, const Memslot& slot) {
  MemslotInfo info;
  info.config.slot = slot.id;
  info.config.address_space = slot.as_id;
  info.config.gpa = ToGpa(slot.base_gfn);
  info.config.size_bytes = slot.npages << kPageShift;
  info.config.backing = BackingKind::kMetadataOnly;  // if there is none at all
  if (slot.backing != nullptr) {
    info.config.backing = slot.backing->kind();
    info.config.host_page_level = slot.backing->host_page_level();
  }
  info.config.mode = slot.readonly() ? MemslotConfig::Mode::kReadOnly
                                     : MemslotConfig::Mode::kReadWrite;
  // While a swap is in progress it is not the number of a set yet (SLOT-21).
  info.generation = set.generation() & ~kGenerationInProgress;
  info.dirty_log_enabled = slot.dirty_log_enabled();
  info.has_contents = info.config.backing != BackingKind::kMetadataOnly;
  return info;
}

using SlotRanges = std::vector<std::pair<const Memslot*, GfnRange>>;

// What to recover for `ranges`, all slots if it is empty; or why not.
absl::StatusOr<SlotRanges> RangesToRecover(
    const MemslotSet& set, const std::vector<GfnRange>& ranges) {
  SlotRanges work;
  if (ranges.empty()) {
    for (const Memslot* slot : set.slots())
      work.push_back({slot, slot->range()});
  }
  for (const GfnRange range : ranges) {
    if (range.empty() || !Covered(set, range)) return RangeError(range);
    for (const Memslot* slot : set.SlotsIn(range))
      work.push_back({slot, range});
  }
  for (const auto& [slot, range] : work) {
    if (slot->dirty_log_enabled()) {
      return MakeError(absl::StatusCode::kFailedPrecondition,
                       {"DIRTY_LOG_ACTIVE", "ranges", EBUSY},
                       absl::StrCat("slot ", slot->id,
                                    " logs dirty pages, which needs small "
                                    "pages; stop its dirty log first"));
    }
  }
  return work;
}

// Whether the slot logs, which it may end to do: all of it is delivered.
// FAILED_PRECONDITION UNDELIVERED_PAGES if not. Changes nothing.
absl::StatusOr<bool> CheckDelivered(VmState& vm, uint32_t slot)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(vm.slots.slots_lock) {
  const std::shared_ptr<VmDirtyLog> log = vm.dirty_log.Get();
  if (log == nullptr || log->log.Find(slot) == nullptr) return false;
  const absl::Status status =
      WithMemory("name", "look at the log of a memslot", [&] {
        vm.slots.slots_lock.AssertHeld();
        TakeInNotedPages(vm, /*cost=*/nullptr);
        const UndeliveredCounts counts = log->log.CountUndelivered(slot);
        if (counts.none()) return absl::OkStatus();
        return UndeliveredPages(counts, absl::StrCat("slot ", slot));
      });
  if (!status.ok()) return status;
  return true;
}

// What became of a deletion that was not refused.
enum class Deleted : uint8_t {
  kYes,
  kOnlyIfHeld,  // not yet: the vCPUs are to stand still meanwhile
};

}  // namespace

absl::StatusOr<std::unique_ptr<Vm>> Vm::Create(const VmConfig& config,
                                               NxParameters& nx_parameters) {
  const auto make = [&]() -> absl::StatusOr<std::unique_ptr<Vm>> {
    if (absl::Status s = CheckConfig(config); !s.ok()) return s;
    std::unique_ptr<Vm> vm(new Vm(std::make_unique<VmState>(
        config, TablePool::Process(), nx_parameters)));
    if (absl::Status s = vm->state_->nx_recovery.status(); !s.ok()) return s;
    for (size_t i = 0; i < config.memslots.size(); ++i) {
      if (absl::Status s = vm->SetMemslot(config.memslots[i]); !s.ok()) {
        ErrorDetail detail = DetailOf(s);
        detail.field = Format("memslots[%d].%s", i, detail.field);
        return MakeError(s.code(), detail, std::string(s.message()));
      }
    }
    return vm;
  };
  return WithMemory("vcpu_count", "make a VM", make);
}

Vm::Vm(std::unique_ptr<VmState> state) : state_(std::move(state)) {}
Vm::~Vm() = default;

const VmConfig& Vm::config() const { return state_->config; }

absl::Status Vm::SetMemslot(const MemslotConfig& config) {
  VmState& vm = *state_;
  uint64_t reset = 0;
  UndeliveredCounts lost;
  {
    MutexLock lock(vm.slots.slots_lock);
    if (absl::Status s = SetMemslotLocked(vm, config, &lost); !s.ok()) return s;
    // Stale entries, and nobody who could harvest them.
    if (config.size_bytes == 0) reset = ReclaimDirtyRingsLocked(vm, nullptr);
  }
  FinishDirtyRingReset(vm, reset, nullptr);
  return absl::OkStatus();
}

absl::StatusOr<UndeliveredCounts> Vm::DeleteMemslot(uint32_t slot,
                                                    Undelivered undelivered) {
  VmState& vm = *state_;
  uint64_t reset = 0;
  UndeliveredCounts lost;
  absl::optional<HeldVcpus> held;
  const auto try_to_delete = [&]() -> absl::StatusOr<Deleted> {
    MutexLock lock(vm.slots.slots_lock);
    if (undelivered == Undelivered::kRefuse) {
      const absl::StatusOr<bool> logs = CheckDelivered(vm, slot);
      if (!logs.ok()) return logs.status();
      // What a vCPU writes between the look and the end would be lost.
      if (*logs && !held.has_value()) return Deleted::kOnlyIfHeld;
      if (!*logs) held.reset();
    }
    MemslotConfig nothing;
    nothing.slot = slot;
    nothing.size_bytes = 0;
    if (absl::Status s = SetMemslotLocked(vm, nothing, &lost); !s.ok()) {
      return s;
    }
    // Stale entries, and nobody who could harvest them.
    reset = ReclaimDirtyRingsLocked(vm, nullptr);
    return Deleted::kYes;
  };
  // Mostly a deletion is refused here, or the slot does not log, and nobody has
  // to stand still for it.
  absl::StatusOr<Deleted> deleted = try_to_delete();
  if (deleted.ok() && *deleted == Deleted::kOnlyIfHeld) {
    held.emplace(vm);
    deleted = try_to_delete();
  }
  if (!deleted.ok()) return deleted.status();
  FinishDirtyRingReset(vm, reset, nullptr);
  return lost;
}

std::vector<MemslotInfo> Vm::Memslots() const {
  std::vector<MemslotInfo> infos;
  RcuReadGuard rcu;
  for (int as_id = 0; as_id < state_->slots.address_spaces(); ++as_id) {
    const MemslotSet& set = state_->slots.Active(as_id);
    for (const Memslot* slot : set.slots_by_id()) {
      infos.push_back(InfoOf(set, *slot));
    }
  }
  return infos;
}

absl::optional<MemslotInfo> Vm::FindMemslot(int address_space,
                                            uint32_t slot) const {
  RcuReadGuard rcu;
  const MemslotSet& set = state_->slots.Active(address_space);
  const Memslot* const found = set.FindById(slot);
  if (found == nullptr) return absl::nullopt;
  return InfoOf(set, *found);
}

GpaSpace Vm::GuestSpace() const {
  RcuReadGuard rcu;
  std::vector<GfnRange> ranges;
  for (const Memslot* slot : state_->slots.Active(0).slots()) {
    if (!slot->readonly() && !slot->invalid()) ranges.push_back(slot->range());
  }
  absl::StatusOr<GpaSpace> space = GpaSpace::Create(std::move(ranges));
  MMU_CHECK(space.ok());  // slots never overlap
  return *space;
}

absl::Status Vm::StartWorkload(WorkloadOptions options,
                               absl::FunctionRef<absl::Status()> confirm) {
  const MmuMode mmu = state_->config.mmu;
  if (mmu == MmuMode::kShadow || mmu == MmuMode::kNested) {
    RcuReadGuard rcu;
    for (const Memslot* slot : state_->slots.Active(0).slots()) {
      if (slot->readonly() || slot->backing->has_contents()) continue;
      return MakeError(
          absl::StatusCode::kFailedPrecondition, {"NO_CONTENTS", "vm", 0},
          Format("slot %d has a metadata-only backing, and the guest "
                 "keeps page tables of its own in its memory; give "
                 "the slot memory, or the VM mmu tdp or tdp_shadow",
                 slot->id));
    }
  }
  return state_->runner.Start(std::move(options), GuestSpace(), confirm);
}
void Vm::StopWorkload() { state_->runner.Stop(); }
bool Vm::WaitWorkload(absl::Duration timeout) {
  return state_->runner.Wait(timeout);
}
absl::StatusOr<WorkloadProgress> Vm::Workload() const {
  return state_->runner.Progress();
}
void Vm::PauseVcpus() { state_->runner.Pause(); }
void Vm::ResumeVcpus() { state_->runner.Resume(); }
bool Vm::vcpus_paused() const { return state_->runner.paused(); }

int Vm::VcpusWaitingForRing() const {
  int waiting = 0;
  for (const auto& vcpu : state_->vcpus) {
    waiting += vcpu->stats().ring_full_wait.waiting() ? 1 : 0;
  }
  return waiting;
}

absl::optional<MonotonicTime> Vm::WaitingForRingSince() const {
  absl::optional<MonotonicTime> first;
  for (const auto& vcpu : state_->vcpus) {
    const absl::optional<MonotonicTime> since =
        vcpu->stats().ring_full_wait.since();
    if (since.has_value()) first = std::min(*since, first.value_or(*since));
  }
  return first;
}

absl::optional<GuestLoss> Vm::guest_loss() const {
  return state_->runner.guest_loss();
}

absl::Status Vm::ReadMemory(Gpa gpa, absl::Span<std::byte> out) const {
  if (gpa.value() % 8 != 0 || out.size() % 8 != 0) {
    return Invalid("UNALIGNED", "gpa_bytes",
                   Format("gpa 0x%x, %d bytes: both are multiples of "
                          "8",
                          gpa.value(), out.size()));
  }
  // The section keeps the slots and so their memory (SLOT-24).
  RcuReadGuard rcu;
  const MemslotSet& set = state_->slots.Active(0);
  size_t done = 0;
  while (done < out.size()) {
    const Gpa at = gpa + done;
    const Memslot* slot = set.FindByGfn(ToGfn(at));
    if (slot == nullptr) {
      return MakeError(
          absl::StatusCode::kOutOfRange, {"GPA_OUT_OF_RANGE", "extents", 0},
          Format("gpa 0x%x is in no memslot; read only what the VM's "
                 "memslots cover",
                 at.value()));
    }
    if (!slot->backing->has_contents()) {
      return MakeError(absl::StatusCode::kFailedPrecondition,
                       {"NO_CONTENTS", "extents", 0},
                       Format("slot %d has a metadata-only backing: "
                              "its pages have no contents",
                              slot->id));
    }
    const uint64_t in_slot = at - ToGpa(slot->base_gfn);
    const size_t bytes = std::min<uint64_t>(
        out.size() - done, (slot->npages << kPageShift) - in_slot);
    auto* from = reinterpret_cast<uint64_t*>(
        slot->backing->PointerTo(slot->hva) + in_slot);
    auto* to = reinterpret_cast<uint64_t*>(out.data() + done);
    for (size_t i = 0; i < bytes / 8; ++i) {
      to[i] =
          std::atomic_ref<uint64_t>(from[i]).load(std::memory_order_relaxed);
    }
    done += bytes;
  }
  return absl::OkStatus();
}

absl::StatusOr<DirtyLogView> Vm::StartDirtyLog(const DirtyLogStart& start,
                                               MmuCost* cost) {
  OpTimer timer(cost, &state_->counters.dirty_log_start);
  return mmu::StartDirtyLog(*state_, start, timer.cost());
}

absl::StatusOr<absl::optional<DirtyLogView>> Vm::CheckDirtyLogStart(
    const DirtyLogStart& start) const {
  return mmu::CheckDirtyLogStart(*state_, start);
}

absl::optional<DirtyLogView> Vm::FindDirtyLog() const {
  const std::shared_ptr<VmDirtyLog> log = state_->dirty_log.GetOn();
  if (log == nullptr) return absl::nullopt;
  return log->View();
}

bool Vm::LogsDirtyPages() const { return state_->dirty_log.GetOn() != nullptr; }

absl::optional<DirtyLogState> Vm::FindDirtyLogSummary() const {
  const std::shared_ptr<VmDirtyLog> log = state_->dirty_log.GetOn();
  if (log == nullptr) return absl::nullopt;
  return log->log.Summary();
}

absl::optional<SlotLogView> Vm::FindSlotLog(uint32_t slot) const {
  const std::shared_ptr<VmDirtyLog> log = state_->dirty_log.GetOn();
  if (log == nullptr) return absl::nullopt;
  const absl::optional<SlotLogState> state = log->log.FindSlotState(slot);
  if (!state.has_value()) return absl::nullopt;
  return SlotLogView{*state, log->config};
}

absl::optional<MonotonicTime> Vm::FindDirtyLogEnd() const {
  const std::shared_ptr<VmDirtyLog> log = state_->dirty_log.GetOn();
  if (log == nullptr) return absl::nullopt;
  return log->ttl_end();
}

absl::StatusOr<DirtyLogView> Vm::AcquireDirtyLog(const LogClaim& claim,
                                                 absl::optional<LogId> log_id,
                                                 LogOwner::Force force,
                                                 MonotonicTime now,
                                                 LogOwner::Acquired* acquired) {
  return mmu::AcquireDirtyLog(*state_, claim, log_id, force, now, acquired);
}

absl::StatusOr<DirtyLogView> Vm::RenewDirtyLogLease(const LogCall& call) {
  const std::shared_ptr<VmDirtyLog> log = state_->dirty_log.GetOn();
  if (log == nullptr) return DirtyLogOff();
  if (absl::Status s = log->log.Admit(call); !s.ok()) return s;
  return log->View();
}

absl::StatusOr<SealOutcome> Vm::SealDirtyLog(const LogCall& call,
                                             uint64_t acknowledged_epoch,
                                             MmuCost* cost) {
  OpTimer timer(cost, &state_->counters.dirty_log_seal);
  absl::StatusOr<SealOutcome> outcome =
      mmu::SealDirtyLog(*state_, call, acknowledged_epoch, timer.cost());
  if (!outcome.ok()) return outcome;
  uint64_t fresh = 0;
  for (const SlotSeal& slot : outcome->slots) fresh += slot.fresh_page_count;
  state_->counters.harvested_pages.fetch_add(fresh, std::memory_order_relaxed);
  return outcome;
}

absl::Status Vm::ReadDirtyLog(absl::optional<LogId> log_id, uint32_t slot,
                              uint64_t epoch, uint64_t first_page,
                              absl::Span<uint64_t> words) const {
  return mmu::ReadDirtyLog(*state_, log_id, slot, epoch, first_page, words);
}

void Vm::TakeInNotedPages() const {
  if (!LogsDirtyPages()) return;
  mmu::TakeInNotedPages(*state_, /*cost=*/nullptr);
}

absl::Status Vm::ReadInFlight(absl::optional<LogId> log_id, uint32_t slot,
                              uint64_t epoch, uint64_t first_page,
                              absl::Span<uint64_t> words) const {
  return mmu::ReadInFlight(*state_, log_id, slot, epoch, first_page, words);
}

absl::Status Vm::CheckDirtyLogEpoch(absl::optional<LogId> log_id,
                                    uint64_t epoch, LogPages pages) const {
  return mmu::CheckDirtyLogEpoch(*state_, log_id, epoch, pages);
}

absl::StatusOr<ClearResult> Vm::ClearDirtyLog(
    const LogCall& call, uint32_t slot, uint64_t epoch, uint64_t first_page,
    uint64_t page_count, absl::Span<const uint64_t> mask, MmuCost* cost) {
  OpTimer timer(cost, &state_->counters.dirty_log_clear);
  return mmu::ClearDirtyLog(*state_, call, slot, epoch, first_page, page_count,
                            mask, timer.cost());
}

absl::StatusOr<AcknowledgeResult> Vm::AcknowledgePages(const LogCall& call,
                                                       uint64_t epoch) {
  return mmu::AcknowledgePages(*state_, call, epoch);
}

absl::StatusOr<AcknowledgeResult> Vm::AcknowledgePages(
    const LogCall& call, uint64_t epoch, uint32_t slot, uint64_t first_page,
    uint64_t page_count, absl::Span<const uint64_t> mask) {
  return mmu::AcknowledgePages(*state_, call, epoch, slot, first_page,
                               page_count, mask);
}

absl::StatusOr<StopResult> Vm::StopDirtyLog(const DirtyLogStop& stop,
                                            MmuCost* cost) {
  OpTimer timer(cost, nullptr);
  return mmu::StopDirtyLog(*state_, stop, timer.cost());
}

absl::optional<Vm::Abandoned> Vm::StopAbandonedDirtyLog(MonotonicTime now,
                                                        MmuCost* cost) {
  // Before the log is copied with all of its slots: this is asked often.
  const absl::optional<MonotonicTime> end = FindDirtyLogEnd();
  if (!end.has_value() || now < *end) return absl::nullopt;
  OpTimer timer(cost, nullptr);
  Abandoned abandoned;
  const absl::optional<StopResult> stopped =
      mmu::StopAbandonedDirtyLog(*state_, now, &abandoned.log, timer.cost());
  if (!stopped.has_value()) return absl::nullopt;
  abandoned.stopped = *stopped;
  return abandoned;
}

UndeliveredCounts Vm::CountUndelivered() const {
  const std::shared_ptr<VmDirtyLog> log = state_->dirty_log.Get();
  if (log == nullptr) return {};
  mmu::TakeInNotedPages(*state_, /*cost=*/nullptr);
  return log->log.CountUndelivered();
}

absl::optional<UndeliveredCounts> Vm::CountUndelivered(uint32_t slot) const {
  const std::shared_ptr<VmDirtyLog> log = state_->dirty_log.Get();
  if (log == nullptr || log->log.Find(slot) == nullptr) return absl::nullopt;
  mmu::TakeInNotedPages(*state_, /*cost=*/nullptr);
  return log->log.CountUndelivered(slot);
}

std::vector<SlotUndelivered> Vm::CountUndeliveredBySlot(MmuCost* cost) const {
  const std::shared_ptr<VmDirtyLog> log = state_->dirty_log.Get();
  if (log == nullptr) return {};
  mmu::TakeInNotedPages(*state_, cost);
  return log->log.CountUndeliveredBySlot();
}

absl::StatusOr<Vm::Recovered> Vm::RecoverHugePages(
    const std::vector<GfnRange>& ranges, MmuCost* cost,
    absl::Duration max_lock_hold) {
  OpTimer timer(cost, nullptr);
  const HoldLimit limit = HoldLimit::For(max_lock_hold);
  VmState& vm = *state_;
  MutexLock lock(vm.slots.slots_lock);
  const absl::StatusOr<SlotRanges> work =
      WithMemory("ranges", "recover huge pages",
                 [&] { return RangesToRecover(vm.slots.Active(0), ranges); });
  if (!work.ok()) return work.status();
  RecoverOutcome recovered;
  for (const auto& [slot, range] : *work) {
    if (vm.shadow != nullptr) {
      MmuWriteLocked mmu(vm.mmu_lock, LockOp::kRecover, timer.cost());
      recovered += vm.shadow->recover().Recover(
          mmu, *slot, range.Intersect(slot->range()), timer.cost(), limit);
    }
    MmuReadLocked mmu(vm.mmu_lock, LockOp::kRecover, timer.cost());
    recovered += vm.tdp.Recover(mmu, *slot, range, timer.cost(), limit);
  }
  return Recovered{.to_2m_count = recovered.to_2m_count,
                   .to_1g_count = recovered.to_1g_count};
}

absl::StatusOr<AgeResult> Vm::Age(GfnRange range, AgeMode mode, MmuCost* cost,
                                  Gfn young_until, MissingSlots missing) {
  OpTimer timer(cost, &state_->counters.aging);
  VmState& vm = *state_;
  {
    RcuReadGuard rcu;
    if (range.empty() || (missing == MissingSlots::kRefuse &&
                          !Covered(vm.slots.Active(0), range))) {
      return RangeError(range);
    }
  }
  AgeResult result =
      AgePages(vm, /*as_id=*/0, range, mode, timer.cost(), young_until);
  vm.counters.aged_young.fetch_add(result.young_page_count,
                                   std::memory_order_relaxed);
  vm.counters.aged_old.fetch_add(result.old_page_count,
                                 std::memory_order_relaxed);
  return result;
}

uint64_t Vm::shadow_page_limit() const {
  return state_->shadow == nullptr ? 0 : state_->shadow->pages().limit();
}

absl::Status Vm::SetShadowPageLimit(uint64_t pages, MmuCost* cost) {
  VmState& vm = *state_;
  if (vm.shadow == nullptr) {
    return MakeError(absl::StatusCode::kFailedPrecondition,
                     {"NO_SHADOW_PAGES", "", 0},
                     "this VM runs on the TDP MMU alone and has no shadow "
                     "pages to limit; make one with tdp_shadow, shadow or "
                     "nested");
  }
  if (absl::Status s = ShadowPages::CheckLimit(pages); !s.ok()) return s;
  MutexLock slots(vm.slots.slots_lock);
  MmuWriteLocked lock(vm.mmu_lock, LockOp::kZap, cost);
  vm.shadow->pages().SetLimit(lock, pages, cost);
  return absl::OkStatus();
}

ShadowPageListing Vm::ListShadowPages(const ShadowPageFilter& filter,
                                      const ShadowPagePosition& from,
                                      size_t limit) {
  MMU_CHECK(limit <= kMaxListed);
  constexpr int64_t kBudget = int64_t{1} << 22;
  VmState& vm = *state_;
  ShadowPageListing listing;
  listing.pages.reserve(limit);
  ShadowPagePosition position = from;
  int64_t budget = kBudget;
  if (position.owner == PageOwner::kTdp) {
    if (filter.owner != PageOwner::kShadow &&
        !ListTdpPages(vm.tdp.roots(), filter, limit, budget, position,
                      listing.pages)) {
      listing.next = position;
      return listing;
    }
    position = {.owner = PageOwner::kShadow};
  }
  if (vm.shadow != nullptr && filter.owner != PageOwner::kTdp &&
      !ListShadowMmuPages(vm.mmu_lock, vm.shadow->pages().set(), filter, limit,
                          budget, position, listing.pages)) {
    listing.next = position;
  }
  return listing;
}

VmStatsSnapshot Vm::Stats() const {
  const VmState& vm = *state_;
  const FlushMetrics flush = vm.tlb.Snapshot();
  VmStatsSnapshot stats;
  stats.remote_tlb_flush = flush.remote_tlb_flush;
  stats.remote_tlb_flush_requests = flush.remote_tlb_flush_requests;
  stats.pages_4k = vm.counters.Leafs(Level::k4K);
  stats.pages_2m = vm.counters.Leafs(Level::k2M);
  stats.pages_1g = vm.counters.Leafs(Level::k1G);
  stats.table_pages = vm.counters.Tables();
  stats.nx_lpage_splits = vm.tdp.nx_huge_pages().count();
  const ShadowCounters& shadow = vm.counters.shadow;
  stats.mmu_shadow_zapped = ShadowCounters::Get(shadow.mmu_shadow_zapped);
  stats.mmu_pte_write = ShadowCounters::Get(shadow.mmu_pte_write);
  stats.mmu_pde_zapped = ShadowCounters::Get(shadow.mmu_pde_zapped);
  stats.mmu_flooded = ShadowCounters::Get(shadow.mmu_flooded);
  stats.mmu_recycled = ShadowCounters::Get(shadow.mmu_recycled);
  stats.mmu_cache_miss = ShadowCounters::Get(shadow.mmu_cache_miss);
  stats.mmu_unsync = ShadowCounters::Get(shadow.mmu_unsync);
  stats.mmu_shadow_pages = ShadowCounters::Get(shadow.mmu_shadow_pages);
  stats.max_mmu_rmap_size = ShadowCounters::Get(shadow.max_mmu_rmap_size);
  stats.max_mmu_page_hash_collisions =
      ShadowCounters::Get(shadow.max_mmu_page_hash_collisions);
  stats.shadow_page_limit = shadow_page_limit();
  stats.guest_memory_bytes =
      static_cast<int64_t>(vm.slots.total_pages() << kPageShift);
  return stats;
}

std::vector<VcpuStatsSnapshot> Vm::VcpuStats() const {
  std::vector<VcpuStatsSnapshot> all;
  for (const auto& vcpu : state_->vcpus)
    all.push_back(vcpu->stats().Snapshot());
  return all;
}

MmuMetrics Vm::Metrics() const {
  const VmState& vm = *state_;
  const MmuCounters& counters = vm.counters;
  MmuMetrics m;
  m.lock = vm.mmu_lock.Snapshot();
  m.flush = vm.tlb.Snapshot();
  for (const Level from : {Level::k2M, Level::k1G}) {
    for (int t = 0; t < kSplitTriggers; ++t) {
      m.splits[ToInt(from) - 2][t] =
          counters.Splits(from, static_cast<SplitTrigger>(t));
    }
    m.recoveries[ToInt(from) - 2] = counters.Recoveries(from);
  }
  for (int r = 0; r < kSplitFailures; ++r) {
    m.split_failures[r] = counters.SplitFailures(static_cast<SplitFailure>(r));
  }
  for (const auto& vcpu : vm.vcpus) m.vcpus.Add(vcpu->stats().Snapshot());
  m.dirty_pages = m.vcpus.dirty_pages;
  m.harvested_pages = counters.harvested_pages.load(std::memory_order_relaxed);
  m.cleared_pages = counters.cleared_pages.load(std::memory_order_relaxed);
  for (const auto& vcpu : vm.vcpus) {
    if (vcpu->dirty_ring() == nullptr) continue;
    m.dirty_ring_entries += vcpu->dirty_ring()->size();
    m.dirty_ring_used_entries += vcpu->dirty_ring()->used();
  }
  m.vcpus_waiting_for_ring = static_cast<uint64_t>(VcpusWaitingForRing());
  if (const auto log = vm.dirty_log.Get()) {
    for (const SlotLogState& slot : log->log.State().slots) {
      m.undelivered_slots +=
          slot.sealed_page_count != 0 || slot.in_flight_page_count != 0;
    }
  }
  m.rmap_lock_contended =
      counters.rmap_lock_contended.load(std::memory_order_relaxed);
  m.aged_young = counters.aged_young.load(std::memory_order_relaxed);
  m.aged_old = counters.aged_old.load(std::memory_order_relaxed);
  m.split_chunk = counters.split_chunk.Snapshot();
  m.dirty_log_start = counters.dirty_log_start.Snapshot();
  m.dirty_log_seal = counters.dirty_log_seal.Snapshot();
  m.dirty_log_clear = counters.dirty_log_clear.Snapshot();
  m.aging = counters.aging.Snapshot();
  for (size_t i = 0; i < m.split_throttled.size(); ++i) {
    m.split_throttled[i] = absl::Nanoseconds(
        counters.split_throttled_nanos[i].load(std::memory_order_relaxed));
  }
  return m;
}

AuditReport Vm::Audit() {
  state_->runner.Hold();
  AuditReport report = AuditVm(*state_);
  state_->runner.Unhold();
  return report;
}

}  // namespace mmu
