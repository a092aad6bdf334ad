// A virtual machine's memory: the one header that a server needs.
//
// A Vm owns its memslots and their backing memory, its TDP MMU, its vCPUs
// (threads that run a guest's accesses) and the dirty logs of its slots. It
// forwards: the rules live in memory/, tdp/, dirty/, aging/.
//
// Life of a fault: vm/vcpu/vcpu.h. Locks: mmu_core/LOCKING.md.

#ifndef MMU_CORE_VM_VM_H_
#define MMU_CORE_VM_VM_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "absl/types/span.h"
#include "mmu_core/aging/aging.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/dirty/dirty_log_calls.h"
#include "mmu_core/dirty/dirty_log_state.h"
#include "mmu_core/dirty/log_owner.h"
#include "mmu_core/guest/gpa_space.h"
#include "mmu_core/mmu/huge_page_outcomes.h"
#include "mmu_core/mmu/shadow_page_info.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/sync/hold_limit.h"
#include "mmu_core/vm/core/missing_slots.h"
#include "mmu_core/vm/core/nx_parameters.h"
#include "mmu_core/vm/core/vm_config.h"
#include "mmu_core/vm/inspect/audit.h"
#include "mmu_core/vm/inspect/shadow_page_list.h"
#include "mmu_core/vm/inspect/vm_stats.h"
#include "mmu_core/vm/jobs/age_sweep.h"
#include "mmu_core/vm/jobs/recover_job.h"
#include "mmu_core/vm/jobs/split_job.h"
#include "mmu_core/vm/jobs/throttle.h"
#include "mmu_core/vm/run/workload.h"

namespace mmu {

struct VmState;  // everything a VM is made of (vm/vm_state.h)

// Thread-safe. Errors carry an ErrorDetail (base/error.h) with the reason
// named at each function. `cost`, where taken, may be null and is added to.
class Vm {
 public:
  // Fails with INVALID_ARGUMENT (INVALID_VCPU_COUNT, INVALID_MMU_OPTION, and as
  // SetMemslot) or RESOURCE_EXHAUSTED (RESOURCE_EXHAUSTED_MEMORY). Nothing is
  // left behind. A vCPU's thread exists while a workload runs on it.
  // `nx_parameters` outlive the VM.
  static absl::StatusOr<std::unique_ptr<Vm>> Create(
      const VmConfig& config,
      NxParameters& nx_parameters = NxParameters::Process());

  // Stops the workload and frees everything. No other call may be running.
  ~Vm();
  Vm(const Vm&) = delete;
  Vm& operator=(const Vm&) = delete;

  const VmConfig& config() const;  // as created; memslots() has today's slots
  // The MMUs that the VM has, the one that its guest runs on first.
  std::vector<MmuKind> MmuKinds() const;

  // --- Memslots (section 2 of the behaviour reference) ---

  // Creates, moves, re-flags or (size 0) deletes a slot, as KVM's set-region
  // call; SLOT-01..14 name the errors, each with its errno. A created slot
  // gets fresh backing memory; a changed one keeps its own. While the VM logs,
  // a slot of address space 0 that is made and can be written joins the log,
  // if that was started so, with all of its pages dirty; one that is moved has
  // its pages in the log where they were in the slot, and what was in flight of
  // it is sealed again.
  // RESOURCE_EXHAUSTED RESOURCE_EXHAUSTED_MEMORY: nothing changed.
  absl::Status SetMemslot(const MemslotConfig& config);

  // As SetMemslot with size 0 for a slot of address space 0, which always
  // discards what the dirty log has of it. How much that was. With kRefuse
  // FAILED_PRECONDITION UNDELIVERED_PAGES (as StopDirtyLog) if there is any,
  // and vCPUs stand still from the look at the log to the slot's end.
  absl::StatusOr<UndeliveredCounts> DeleteMemslot(uint32_t slot,
                                                  Undelivered undelivered);
  // The slots by address space and id; one of them. These read and take no
  // lock: a slot that is being deleted or moved is still what it was, and one
  // whose log is being started logs as soon as pages are noted for it.
  std::vector<MemslotInfo> Memslots() const;
  absl::optional<MemslotInfo> FindMemslot(int address_space,
                                          uint32_t slot) const;
  // The gpa ranges of the slots of address space 0 that a guest can write to.
  GpaSpace GuestSpace() const;

  // --- What runs on the vCPUs ---

  // FAILED_PRECONDITION WORKLOAD_RUNNING, INVALID_ARGUMENT INVALID_VCPU_COUNT,
  // UNAVAILABLE THREADS_EXHAUSTED. When nothing but `confirm` can fail any
  // more, and before a vCPU makes an access, it is called, and its error is
  // returned. It must not start or stop a workload of this VM, nor wait for one
  // to end. After an error no vCPU has made an access, and Workload() says what
  // it said before.
  absl::Status StartWorkload(
      WorkloadOptions options, absl::FunctionRef<absl::Status()> confirm = [] {
        return absl::OkStatus();
      });
  // Asks all vCPUs to stop and waits until they did. OK if none runs. A guest
  // with page tables of its own that has to wait in the middle of what it does,
  // for room in its dirty ring or for the host, is lost by that (GUEST_LOST).
  void StopWorkload();
  // Waits until the workload ended by itself or was stopped, or the timeout
  // passed. True if it ended.
  bool WaitWorkload(absl::Duration timeout);
  // Of the running or, after its end, the last workload. FAILED_PRECONDITION
  // WORKLOAD_NOT_RUNNING if there never was one.
  absl::StatusOr<WorkloadProgress> Workload() const;
  // When PauseVcpus returns no vCPU is inside an access, and every access that
  // was begun is complete in memory and in the dirty log, or waits for a page
  // that the host invalidates and has done nothing. Idempotent.
  void PauseVcpus();
  void ResumeVcpus();
  bool vcpus_paused() const;
  // How many vCPUs stand still because their dirty ring has no room (DL-42),
  // and since when the first of them does; none if none does.
  int VcpusWaitingForRing() const;
  absl::optional<MonotonicTime> WaitingForRingSince() const;
  // The guest with page tables of its own that was lost, if one was: stopped,
  // or failed, in the middle of what it did. For good.
  absl::optional<GuestLoss> guest_loss() const;

  // --- Contents ---

  // Copies guest memory to `out` word by word; a vCPU that writes meanwhile
  // leaves each 8-byte word old or new. `gpa` and size multiples of 8. OUT_OF_
  // RANGE GPA_OUT_OF_RANGE if not wholly inside slots; FAILED_PRECONDITION
  // NO_CONTENTS for a metadata-only slot, HOST_FRAME_MISSING if whoever lends
  // the memory has no frame to give, for which this may wait.
  absl::Status ReadMemory(Gpa gpa, absl::Span<std::byte> out) const;

  // --- The dirty log (section 8; the protocol: dirty/dirty_log.h) ---
  //
  // A VM has one log or none. Every call that takes a LogCall is its owner's,
  // renews its lease, and before anything else may fail with
  //   FAILED_PRECONDITION DIRTY_LOG_OFF  the VM has no log
  //   ABORTED             LOG_CHANGED    call.log_id is another log's
  //   FAILED_PRECONDITION LOG_FENCED     by a former owner
  //   FAILED_PRECONDITION LOG_OWNED      by anybody else who is not the owner
  // The last two have the metadata "owner", "owned_for_seconds" and
  // "lease_remaining_seconds". After an error nothing has changed but the
  // lease.

  // Starts a log: of the slots that are named, or of all that can be written.
  // Its first epoch is one that no earlier log of this VM had. The owner's key
  // again with the same config and ttl is a repeated call: it is told of the
  // log that it has, whose id and lease stay what they are.
  //   ALREADY_EXISTS    DIRTY_LOG_ACTIVE  there is a log, of another owner or
  //                                       with other settings (metadata
  //                                       "owner")
  //   NOT_FOUND         MEMSLOT_NOT_FOUND also if no slot is named and none can
  //                                       be written
  //   INVALID_ARGUMENT  INVALID_SPLIT_POLICY
  //   RESOURCE_EXHAUSTED RESOURCE_EXHAUSTED_MEMORY
  absl::StatusOr<DirtyLogView> StartDirtyLog(const DirtyLogStart& start,
                                             MmuCost* cost);
  // What such a start would meet: nothing if there is no log; the log if it is
  // the caller's own, with the same settings, and then the lease is renewed.
  // Starts none. DIRTY_LOG_ACTIVE and RESOURCE_EXHAUSTED_MEMORY as above.
  absl::StatusOr<absl::optional<DirtyLogView>> CheckDirtyLogStart(
      const DirtyLogStart& start) const;

  // The log as it is; whether there is one. These wait for nobody.
  absl::optional<DirtyLogView> FindDirtyLog() const;
  bool LogsDirtyPages() const;
  // Parts of it, for those who need no more: all that is not of one slot
  // (`slots` is empty); one slot of address space 0, if it is logged; when its
  // ttl is over, InfiniteFuture if it has none.
  absl::optional<DirtyLogState> FindDirtyLogSummary() const;
  absl::optional<SlotLogView> FindSlotLog(uint32_t slot) const;
  absl::optional<MonotonicTime> FindDirtyLogEnd() const;

  // Hands the log to `claim`. A new owner finds sealed what was in flight. The
  // same key again changes nothing but the owner's name and lease. A former key
  // is never an owner's again. `now` is that of MonotonicTime.
  //   FAILED_PRECONDITION DIRTY_LOG_OFF
  //   ABORTED             LOG_CHANGED  `log_id` is given and another log's
  //   FAILED_PRECONDITION LOG_OWNED    the lease of the owner lasts, no force
  //   FAILED_PRECONDITION LOG_FENCED   the key was an owner's before
  // `acquired`, which may be null, tells whether somebody else owned it.
  absl::StatusOr<DirtyLogView> AcquireDirtyLog(
      const LogClaim& claim, absl::optional<LogId> log_id,
      LogOwner::Force force, MonotonicTime now,
      LogOwner::Acquired* acquired = nullptr);

  // Renews the lease, which every other call of the owner's does too. The log.
  absl::StatusOr<DirtyLogView> RenewDirtyLogLease(const LogCall& call);

  // Acknowledges the epochs up to `acknowledged_epoch` (0: none), then closes
  // the open epoch of all slots and opens the next. Protects and forgets
  // nothing.
  //   NOT_FOUND EPOCH_UNKNOWN  the epoch to acknowledge was never sealed; then
  //                            nothing was
  absl::StatusOr<SealOutcome> SealDirtyLog(const LogCall& call,
                                           uint64_t acknowledged_epoch,
                                           MmuCost* cost);

  // Copies one bit per page, from page `first_page` of the slot (a multiple of
  // 64) into `words`, as many words as given. `epoch` 0 peeks: every page that
  // is not delivered, open, sealed or in flight. Otherwise the pages of that
  // sealed epoch that were not cleared. Anybody may read: it changes nothing
  // that another call sees, and renews no lease. What vCPUs have noted
  // elsewhere is in a peek if TakeInNotedPages was called after they noted it.
  //   FAILED_PRECONDITION DIRTY_LOG_OFF     no log, or not of this slot
  //   NOT_FOUND           MEMSLOT_NOT_FOUND
  //   ABORTED             LOG_CHANGED       `log_id` is given and another log's
  //   NOT_FOUND           EPOCH_UNKNOWN     never sealed in this log
  //   ABORTED             EPOCH_SUPERSEDED  a later one was sealed, or the slot
  //                                         was moved or made since
  //   OUT_OF_RANGE        INVALID_RANGE     past the slot's end
  absl::Status ReadDirtyLog(absl::optional<LogId> log_id, uint32_t slot,
                            uint64_t epoch, uint64_t first_page,
                            absl::Span<uint64_t> words) const;
  // The same of the pages that are in flight in `epoch`, which may be any that
  // was sealed.
  absl::Status ReadInFlight(absl::optional<LogId> log_id, uint32_t slot,
                            uint64_t epoch, uint64_t first_page,
                            absl::Span<uint64_t> words) const;
  // What ReadDirtyLog (kSealed) and ReadInFlight say of the log and the epoch,
  // whatever the slot: also if no slot is logged any more.
  absl::Status CheckDirtyLogEpoch(absl::optional<LogId> log_id, uint64_t epoch,
                                  LogPages pages) const;
  // Takes into the open epoch what dirty rings and CPUs' logs have noted. Makes
  // vCPUs exit with PML. Nothing to do without a log.
  void TakeInNotedPages() const;

  // Of the pages of [first_page, first_page + page_count) whose bit is set in
  // `mask` (bit 0 is first_page), those that are sealed: protects them, flushes
  // TLBs and takes them into flight. When it returns, also for a repeated call,
  // none of the pages in flight can be written unseen. Idempotent.
  //   INVALID_ARGUMENT    UNALIGNED_CLEAR, INVALID_RANGE, INVALID_BITMAP
  //                                         (DL-20..23)
  //   NOT_FOUND           MEMSLOT_NOT_FOUND
  //   FAILED_PRECONDITION DIRTY_LOG_OFF     also: the slot is not in the log
  //   ABORTED             EPOCH_MISMATCH    `epoch` is not the last sealed one,
  //                                         or the slot was moved or made since
  //   RESOURCE_EXHAUSTED  LIMIT_EXCEEDED    four other epochs are in flight
  //                                         (metadata "limit"); acknowledge
  absl::StatusOr<ClearResult> ClearDirtyLog(const LogCall& call, uint32_t slot,
                                            uint64_t epoch, uint64_t first_page,
                                            uint64_t page_count,
                                            absl::Span<const uint64_t> mask,
                                            MmuCost* cost);

  // Delivered: all that is in flight of epochs up to `epoch`; or of one slot
  // the pages that `mask` names, as in ClearDirtyLog, whose rules for the range
  // hold here too. A page that was cleared again in a later epoch stays in
  // flight. Idempotent: what is not in flight counts for nothing.
  //   NOT_FOUND EPOCH_UNKNOWN  `epoch` was never sealed in this log
  // and of a slot as ClearDirtyLog: the range, MEMSLOT_NOT_FOUND,
  // DIRTY_LOG_OFF.
  absl::StatusOr<AcknowledgeResult> AcknowledgePages(const LogCall& call,
                                                     uint64_t epoch);
  absl::StatusOr<AcknowledgeResult> AcknowledgePages(
      const LogCall& call, uint64_t epoch, uint32_t slot, uint64_t first_page,
      uint64_t page_count, absl::Span<const uint64_t> mask);

  // Ends the log. With Undelivered::kRefuse vCPUs stand still from the look at
  // the log to its end. By force (stop.by is empty) it fails with none of
  // LOG_FENCED and LOG_OWNED:
  //   FAILED_PRECONDITION DIRTY_LOG_OFF
  //   LOG_CHANGED, LOG_FENCED, LOG_OWNED    as above
  //   FAILED_PRECONDITION UNDELIVERED_PAGES pages are open, sealed or in flight
  //                                         and would be lost; metadata
  //                                         "open_page_count",
  //                                         "sealed_page_count",
  //                                         "in_flight_page_count"
  absl::StatusOr<StopResult> StopDirtyLog(const DirtyLogStop& stop,
                                          MmuCost* cost);
  // Stops the log, and discards what it has, if its ttl is over at `now`.
  // Nothing (and not an error) if it is not, or there is no log. The result has
  // the log as it was.
  struct Abandoned {
    DirtyLogView log;
    StopResult stopped;
  };
  absl::optional<Abandoned> StopAbandonedDirtyLog(MonotonicTime now,
                                                  MmuCost* cost);

  // What would be lost if the log ended now; zeros without one. Takes in what
  // vCPUs have noted.
  UndeliveredCounts CountUndelivered() const;
  // The same of one slot; nothing if it is not logged.
  absl::optional<UndeliveredCounts> CountUndelivered(uint32_t slot) const;
  // The same of each slot that is logged, in the order of their ids. What vCPUs
  // have noted is taken in once for all of them. `cost` may be null.
  std::vector<SlotUndelivered> CountUndeliveredBySlot(MmuCost* cost) const;

  // --- Huge pages ---

  // A split that is paced and can be watched: INVALID_THROTTLE, INVALID_RANGE,
  // INVALID_SIZE. The same for recovery, of `ranges` inside memslots. The VM
  // outlives them.
  absl::StatusOr<std::shared_ptr<SplitJob>> MakeSplitJob(
      const SplitRequest& request);
  std::shared_ptr<RecoverJob> MakeRecoverJob(
      const std::vector<GfnRange>& ranges, const Throttle& throttle = {});
  // One huge page recovery pass over `ranges` (empty: all slots), which holds
  // mmu_lock for `max_lock_hold` at a time, plus the work on one page table:
  // FAILED_PRECONDITION DIRTY_LOG_ACTIVE if a slot in it logs (TDP-52).
  absl::StatusOr<RecoverOutcome> RecoverHugePages(
      const std::vector<GfnRange>& ranges, MmuCost* cost,
      absl::Duration max_lock_hold = kDefaultMaxLockHold);

  // --- Aging ---

  // Tests, or tests and clears, the Accessed bits of the SPTEs that map
  // `range`. To clear a part of a huge page is to clear it whole (AGE-17): for
  // several ranges see vm/jobs/age_sweep.h, which has in `young_until` what was
  // said of the first pages of this one with the range before. Takes no lock
  // (AGE-13). OUT_OF_RANGE INVALID_RANGE if `range` is empty, or not all in
  // memslots and `missing` is kRefuse.
  absl::StatusOr<AgeResult> Age(GfnRange range, AgeMode mode, MmuCost* cost,
                                Gfn young_until = Gfn(0),
                                MissingSlots missing = MissingSlots::kRefuse);

  // Ageing of many ranges as one question. The VM outlives it.
  AgeSweep MakeAgeSweep(std::vector<GfnRange> ranges, AgeMode mode,
                        MissingSlots missing = MissingSlots::kRefuse);

  // --- Shadow pages ---

  // How many there may be; 0 with MmuMode::kTdp.
  uint64_t shadow_page_limit() const;
  // Changes that, for good (SHD-29). FAILED_PRECONDITION NO_SHADOW_PAGES with
  // MmuMode::kTdp, INVALID_ARGUMENT INVALID_RANGE below 64 (EINVAL).
  absl::Status SetShadowPageLimit(uint64_t pages, MmuCost* cost);

  // --- Looking ---

  // Tables of all MMUs, from `from` on: at most `limit`, which is at most
  // kMaxListed; fewer if few of many pass the filter. Holds mmu_lock for short
  // pieces of the work (vm/inspect/shadow_page_list.h).
  static constexpr size_t kMaxListed = kMaxListedTables;
  ShadowPageListing ListShadowPages(const ShadowPageFilter& filter,
                                    const ShadowPagePosition& from,
                                    size_t limit);

  VmStatsSnapshot Stats() const;
  std::vector<VcpuStatsSnapshot> VcpuStats() const;
  MmuMetrics Metrics() const;
  // Holds the vCPUs, verifies every invariant, lets them go on.
  AuditReport Audit();

  // For tests and benchmarks.
  VmState& state() { return *state_; }
  const VmState& state() const { return *state_; }

 private:
  explicit Vm(std::unique_ptr<VmState> state);
  std::unique_ptr<VmState> state_;
};

}  // namespace mmu

#endif  // MMU_CORE_VM_VM_H_
