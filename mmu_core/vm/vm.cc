#include "mmu_core/vm/vm.h"

#include <atomic>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/types/optional.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/format.h"
#include "mmu_core/base/with_memory.h"
#include "mmu_core/dirty/current_dirty_log.h"
#include "mmu_core/memory/read_guest_memory.h"
#include "mmu_core/vm/core/eager_split_chunk.h"
#include "mmu_core/vm/core/noted_pages.h"
#include "mmu_core/vm/core/op_timer.h"
#include "mmu_core/vm/core/shadow_page_limit.h"
#include "mmu_core/vm/core/vm_config_check.h"
#include "mmu_core/vm/inspect/audit.h"
#include "mmu_core/vm/inspect/memslot_list.h"
#include "mmu_core/vm/inspect/shadow_page_list.h"
#include "mmu_core/vm/inspect/vm_metrics.h"
#include "mmu_core/vm/jobs/age_range.h"
#include "mmu_core/vm/jobs/recover_huge_pages.h"
#include "mmu_core/vm/logging/find_log.h"
#include "mmu_core/vm/logging/log_clear.h"
#include "mmu_core/vm/logging/log_epochs.h"
#include "mmu_core/vm/logging/log_start.h"
#include "mmu_core/vm/logging/log_stop.h"
#include "mmu_core/vm/logging/logged_memslot.h"
#include "mmu_core/vm/run/guest_system.h"
#include "mmu_core/vm/vm_state.h"

namespace mmu {
namespace {

// Takes in the pages that the MMUs have noted, for a call that only reads. If
// an MMU fails, its pages are missing in the result; a seal, a stop and a
// deletion report the error.
void LookAtNotedPages(VmCore& vm, MmuCost* cost) {
  static_cast<void>(TakeInNotedPages(vm, cost));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Vm>> Vm::Create(const VmConfig& config,
                                               NxParameters& nx_parameters) {
  const auto make = [&]() -> absl::StatusOr<std::unique_ptr<Vm>> {
    if (absl::Status s = mmu::CheckConfig(config); !s.ok()) return s;
    std::unique_ptr<Vm> vm(new Vm(std::make_unique<VmState>(
        config, TablePool::Process(), nx_parameters)));
    if (absl::Status s = vm->state_->nx_recovery.status(); !s.ok()) return s;
    if (absl::Status s = vm->state_->stage2_status; !s.ok()) return s;
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

absl::Status Vm::CheckConfig(const VmConfig& config) {
  return mmu::CheckConfig(config);
}

Vm::Vm(std::unique_ptr<VmState> state) : state_(std::move(state)) {}
Vm::~Vm() = default;

const VmConfig& Vm::config() const { return state_->config; }

std::vector<MmuKind> Vm::MmuKinds() const { return state_->mmus.Kinds(); }

absl::Status Vm::SetMemslot(const MemslotConfig& config) {
  return mmu::SetMemslot(*state_, config);
}

absl::StatusOr<UndeliveredCounts> Vm::DeleteMemslot(uint32_t slot,
                                                    Undelivered undelivered) {
  return mmu::DeleteMemslot(*state_, slot, undelivered);
}

std::vector<MemslotInfo> Vm::Memslots() const { return mmu::Memslots(*state_); }

absl::optional<MemslotInfo> Vm::FindMemslot(int address_space,
                                            uint32_t slot) const {
  return mmu::FindMemslot(*state_, address_space, slot);
}

GpaSpace Vm::GuestSpace() const { return mmu::GuestSpace(*state_); }

absl::Status Vm::StartWorkload(WorkloadOptions options,
                               absl::FunctionRef<absl::Status()> confirm) {
  if (absl::Status s = CheckGuestMemory(*state_); !s.ok()) return s;
  return state_->runner.Start(std::move(options), GuestSpace(), confirm);
}
absl::Status Vm::CheckWorkload(int64_t vcpu_count,
                               int64_t accesses_per_second) const {
  return state_->runner.Check(vcpu_count, accesses_per_second);
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
  return mmu::VcpusWaitingForRing(*state_);
}

absl::optional<MonotonicTime> Vm::WaitingForRingSince() const {
  return mmu::WaitingForRingSince(*state_);
}

absl::optional<GuestLoss> Vm::guest_loss() const {
  return state_->runner.guest_loss();
}

absl::Status Vm::ReadMemory(Gpa gpa, absl::Span<std::byte> out) const {
  return ReadGuestMemory(state_->slots, gpa, out);
}

absl::Status Vm::CheckContents(const std::vector<GfnRange>& ranges) const {
  return mmu::CheckContents(state_->slots, ranges);
}

absl::StatusOr<StartResult> Vm::StartDirtyLog(const DirtyLogStart& start,
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

absl::StatusOr<DirtyLogView> Vm::GetDirtyLog() const {
  absl::optional<DirtyLogView> log = FindDirtyLog();
  if (!log.has_value()) return DirtyLogOff();
  return *std::move(log);
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

absl::Status Vm::TakeInNotedPages() const {
  if (!LogsDirtyPages()) return absl::OkStatus();
  return mmu::TakeInNotedPages(*state_, /*cost=*/nullptr);
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
  // Checked first, since this is called often and the copy of the log with all
  // of its slots is expensive.
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

UndeliveredCounts Vm::CountUndelivered(absl::Status* taken_in) const {
  const std::shared_ptr<VmDirtyLog> log = state_->dirty_log.Get();
  absl::Status status;
  if (log != nullptr) {
    status = mmu::TakeInNotedPages(*state_, /*cost=*/nullptr);
  }
  if (taken_in != nullptr) *taken_in = std::move(status);
  return log == nullptr ? UndeliveredCounts() : log->log.CountUndelivered();
}

absl::optional<UndeliveredCounts> Vm::CountUndelivered(uint32_t slot) const {
  const std::shared_ptr<VmDirtyLog> log = state_->dirty_log.Get();
  if (log == nullptr || log->log.Find(slot) == nullptr) return absl::nullopt;
  LookAtNotedPages(*state_, /*cost=*/nullptr);
  return log->log.CountUndelivered(slot);
}

std::vector<SlotUndelivered> Vm::CountUndeliveredBySlot(MmuCost* cost) const {
  const std::shared_ptr<VmDirtyLog> log = state_->dirty_log.Get();
  if (log == nullptr) return {};
  LookAtNotedPages(*state_, cost);
  return log->log.CountUndeliveredBySlot();
}

absl::StatusOr<std::shared_ptr<SplitJob>> Vm::MakeSplitJob(
    const SplitRequest& request) {
  return SplitJob::Create(*state_, request);
}

absl::StatusOr<std::shared_ptr<RecoverJob>> Vm::MakeRecoverJob(
    const std::vector<GfnRange>& ranges, const Throttle& throttle) {
  if (absl::Status s = ValidateThrottle(throttle); !s.ok()) return s;
  return std::make_shared<RecoverJob>(*state_, ranges, throttle);
}

absl::StatusOr<RecoverOutcome> Vm::RecoverHugePages(
    const std::vector<GfnRange>& ranges, MmuCost* cost,
    absl::Duration max_lock_hold) {
  return mmu::RecoverHugePages(*state_, ranges, cost, max_lock_hold);
}

absl::Status Vm::CheckRecoverHugePages(
    const std::vector<GfnRange>& ranges) const {
  return mmu::CheckRecoverHugePages(*state_, ranges);
}

absl::StatusOr<AgeResult> Vm::Age(GfnRange range, AgeMode mode, MmuCost* cost,
                                  Gfn young_until, MissingSlots missing,
                                  const AgeOptions& options) {
  return AgeRange(*state_, range, mode, cost, young_until, missing, options);
}

bool Vm::AgesFast() const { return state_->mmus.AgesFast(); }

AgingLock Vm::aging_lock(MmuKind kind) const {
  return state_->mmus.aging_lock(kind);
}

AgeSweep Vm::MakeAgeSweep(std::vector<GfnRange> ranges, AgeMode mode,
                          MissingSlots missing, const AgeOptions& options) {
  return AgeSweep(*state_, std::move(ranges), mode, missing, options);
}

absl::StatusOr<std::unique_ptr<GenerationScan>> Vm::BeginGeneration(
    const GenerationOptions& options) {
  return GenerationScan::Begin(*state_, options);
}

std::shared_ptr<const WorkingSet> Vm::FindWorkingSet() const {
  return state_->working_set.Find();
}

void Vm::ForgetWorkingSet() { state_->working_set.Forget(); }

uint64_t Vm::shadow_page_limit() const { return ShadowPageLimit(*state_); }

absl::Status Vm::SetShadowPageLimit(uint64_t pages, MmuCost* cost) {
  return mmu::SetShadowPageLimit(*state_, pages, cost);
}

uint64_t Vm::eager_split_chunk_bytes() const {
  return EagerSplitChunk(*state_);
}

absl::Status Vm::SetEagerSplitChunk(uint64_t bytes) {
  return mmu::SetEagerSplitChunk(*state_, bytes);
}

ShadowPageListing Vm::ListShadowPages(const ShadowPageFilter& filter,
                                      const ShadowPagePosition& from,
                                      size_t limit) {
  return mmu::ListShadowPages(*state_, filter, from, limit);
}

VmStatsSnapshot Vm::Stats() const { return StatsOf(*state_); }

std::vector<VcpuStatsSnapshot> Vm::VcpuStats() const {
  return VcpuStatsOf(*state_);
}

ProcessStatsSnapshot Vm::ProcessStats() { return StatsOfProcess(); }

uint64_t Vm::MappedPages(Level level) const {
  return mmu::MappedPages(*state_, level);
}

AuditReport Vm::Audit() {
  state_->runner.Hold();
  AuditReport report = AuditVm(*state_, state_->vcpus);
  state_->runner.Unhold();
  return report;
}

}  // namespace mmu
