// A virtual machine's memory: the one header that a server needs.
//
// A Vm owns its memslots and their backing memory, its MMUs, its vCPUs (threads
// that run a guest's accesses) and its dirty log. It only forwards: the rules
// are in memory/, tdp/, shadow/, dirty/, aging/.
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
#include "mmu_core/stats/process_stats.h"
#include "mmu_core/stats/vcpu_stats_snapshot.h"
#include "mmu_core/stats/vm_stats.h"
#include "mmu_core/sync/hold_limit.h"
#include "mmu_core/vm/core/missing_slots.h"
#include "mmu_core/vm/core/nx_parameters.h"
#include "mmu_core/vm/core/vm_config.h"
#include "mmu_core/vm/inspect/audit.h"
#include "mmu_core/vm/inspect/shadow_page_list.h"
#include "mmu_core/vm/jobs/age_sweep.h"
#include "mmu_core/vm/jobs/generation_scan.h"
#include "mmu_core/vm/jobs/recover_job.h"
#include "mmu_core/vm/jobs/split_job.h"
#include "mmu_core/vm/jobs/throttle.h"
#include "mmu_core/vm/run/workload.h"
#include "mmu_core/working_set/working_set.h"

namespace mmu {

struct VmState;  // all parts of a VM (vm/vm_state.h)

// Thread-safe. Errors carry an ErrorDetail (base/error.h) with the reason
// named at each function. `cost`, where taken, may be null and is added to.
class Vm {
 public:
  // Fails with INVALID_ARGUMENT (INVALID_VCPU_COUNT, INVALID_MMU_OPTION, and
  // the errors of SetMemslot) or RESOURCE_EXHAUSTED
  // (RESOURCE_EXHAUSTED_MEMORY). After an error nothing remains. A vCPU's
  // thread exists while a workload runs on it. `nx_parameters` outlive the VM.
  static absl::StatusOr<std::unique_ptr<Vm>> Create(
      const VmConfig& config,
      NxParameters& nx_parameters = NxParameters::Process());

  // Whether Create would accept `config`, its memslots aside, with its errors.
  // Reads nothing else, so that a caller can refuse a wrong configuration
  // before it looks for a place for the VM.
  static absl::Status CheckConfig(const VmConfig& config);

  // Stops the workload and frees everything. No other call may be running.
  ~Vm();
  Vm(const Vm&) = delete;
  Vm& operator=(const Vm&) = delete;

  const VmConfig& config() const;  // as created; memslots() has today's slots
  // The MMUs that the VM has, the one that its guest runs on first.
  std::vector<MmuKind> MmuKinds() const;

  // --- Memslots (section 2 of the behaviour reference) ---

  // Creates, moves, re-flags or (size 0) deletes a slot, like KVM's set-region
  // call; SLOT-01..14 name the errors, each with its errno. A created slot gets
  // fresh backing memory; a changed one keeps its own. A writable slot of
  // address space 0 that is made while the VM logs joins the log, if the log
  // was started so, with all of its pages dirty. In a moved slot, pages stay in
  // the log at the same offsets, and its in-flight pages are sealed again.
  // RESOURCE_EXHAUSTED RESOURCE_EXHAUSTED_MEMORY: nothing changed.
  absl::Status SetMemslot(const MemslotConfig& config);

  // Like SetMemslot with size 0 for a slot of address space 0, which always
  // discards the slot's pages in the dirty log. Returns their counts. With
  // kRefuse, FAILED_PRECONDITION UNDELIVERED_PAGES (as in StopDirtyLog) if
  // there are any, and the vCPUs are held from the check of the log to the
  // slot's end.
  absl::StatusOr<UndeliveredCounts> DeleteMemslot(uint32_t slot,
                                                  Undelivered undelivered);
  // The slots by address space and id; one of them. These functions read and
  // take no lock: a slot that is being deleted or moved still has its old
  // properties, and a slot whose log is being started logs as soon as its pages
  // are marked.
  std::vector<MemslotInfo> Memslots() const;
  absl::optional<MemslotInfo> FindMemslot(int address_space,
                                          uint32_t slot) const;
  // The gpa ranges of the slots of address space 0 that a guest can write to.
  GpaSpace GuestSpace() const;

  // --- Workloads on the vCPUs ---

  // FAILED_PRECONDITION WORKLOAD_RUNNING, NO_CONTENTS, INVALID_ARGUMENT like
  // CheckWorkload, UNAVAILABLE THREADS_EXHAUSTED. `confirm` is called when
  // nothing else can fail any more, before a vCPU makes an access, and its
  // error is returned. It must not start or stop a workload of this VM, nor
  // wait for one to end. After an error no vCPU has made an access, and
  // Workload() returns the same as before.
  absl::Status StartWorkload(
      WorkloadOptions options, absl::FunctionRef<absl::Status()> confirm = [] {
        return absl::OkStatus();
      });
  // Checks the number of vCPUs and the pace of a workload without starting it:
  // INVALID_ARGUMENT INVALID_VCPU_COUNT, INVALID_PATTERN.
  absl::Status CheckWorkload(int64_t vcpu_count,
                             int64_t accesses_per_second) const;
  // Asks all vCPUs to stop and waits until they have. OK if none runs. A guest
  // with its own page tables that is waiting in the middle of an operation, for
  // room in its dirty ring or for the host, is lost by that (GUEST_LOST).
  void StopWorkload();
  // Waits until the workload ended by itself or was stopped, or the timeout
  // passed. True if it ended.
  bool WaitWorkload(absl::Duration timeout);
  // The progress of the running workload or, after its end, of the last one.
  // FAILED_PRECONDITION WORKLOAD_NOT_RUNNING if there never was one.
  absl::StatusOr<WorkloadProgress> Workload() const;
  // When PauseVcpus returns, no vCPU is inside an access. Every access that was
  // begun is complete in memory and in the dirty log, or waits for a page that
  // the host invalidates and has had no effect. Idempotent.
  void PauseVcpus();
  void ResumeVcpus();
  bool vcpus_paused() const;
  // The number of vCPUs that wait because their dirty ring has no room (DL-42),
  // and the time since which the first of them waits; nullopt if none waits.
  int VcpusWaitingForRing() const;
  absl::optional<MonotonicTime> WaitingForRingSince() const;
  // The guest with its own page tables that was lost, if any: it was stopped,
  // or failed, in the middle of an operation. Permanent.
  absl::optional<GuestLoss> guest_loss() const;

  // --- Contents ---

  // Copies guest memory to `out` word by word; a vCPU that writes meanwhile
  // leaves each 8-byte word old or new. `gpa` and size multiples of 8. OUT_OF_
  // RANGE GPA_OUT_OF_RANGE if not wholly inside slots; FAILED_PRECONDITION
  // NO_CONTENTS for a metadata-only slot, HOST_FRAME_MISSING if the lender of
  // the memory cannot provide a frame. May wait for about a second for each
  // missing frame.
  absl::Status ReadMemory(Gpa gpa, absl::Span<std::byte> out) const;
  // NO_CONTENTS if there is such a slot in `ranges`; reads nothing.
  absl::Status CheckContents(const std::vector<GfnRange>& ranges) const;

  // --- The dirty log (section 8; the protocol: dirty/dirty_log.h) ---
  //
  // A VM has one log or none. Every call that takes a LogCall is a call of the
  // log's owner, renews the owner's lease, and may first fail with
  //   FAILED_PRECONDITION DIRTY_LOG_OFF  the VM has no log
  //   ABORTED             LOG_CHANGED    call.log_id is not this log's
  //   FAILED_PRECONDITION LOG_FENCED     the caller is a former owner
  //   FAILED_PRECONDITION LOG_OWNED      any other caller but the owner
  // The last two have the metadata "owner", "owned_for_seconds" and
  // "lease_remaining_seconds". After an error only the lease has changed.

  // Starts a log of the named slots, or of all writable slots. Its first epoch
  // is one that no earlier log of this VM had. A call with the owner's key and
  // the same config and ttl is a repeated call: it returns the existing log,
  // whose id and lease stay the same.
  //   ALREADY_EXISTS    DIRTY_LOG_ACTIVE  there is a log, of another owner or
  //                                       with other settings (metadata
  //                                       "owner")
  //   NOT_FOUND         MEMSLOT_NOT_FOUND also if no slot is named and none is
  //                                       writable
  //   INVALID_ARGUMENT  INVALID_SPLIT_POLICY
  //   RESOURCE_EXHAUSTED RESOURCE_EXHAUSTED_MEMORY
  absl::StatusOr<StartResult> StartDirtyLog(const DirtyLogStart& start,
                                            MmuCost* cost);
  // Checks such a start without starting a log. Nullopt if there is no log. The
  // log if it is the caller's own, with the same settings; then the lease is
  // renewed. The errors above, except for lack of the memory that a log takes.
  absl::StatusOr<absl::optional<DirtyLogView>> CheckDirtyLogStart(
      const DirtyLogStart& start) const;

  // The current state of the log; whether there is a log. Neither waits.
  absl::optional<DirtyLogView> FindDirtyLog() const;
  // The same; FAILED_PRECONDITION DIRTY_LOG_OFF if there is none.
  absl::StatusOr<DirtyLogView> GetDirtyLog() const;
  bool LogsDirtyPages() const;
  // Parts of that state: everything but the slots (`slots` is empty); one slot
  // of address space 0, if it is logged; the time at which the log's ttl
  // expires, InfiniteFuture if it has none.
  absl::optional<DirtyLogState> FindDirtyLogSummary() const;
  absl::optional<SlotLogView> FindSlotLog(uint32_t slot) const;
  absl::optional<MonotonicTime> FindDirtyLogEnd() const;

  // Hands the log to `claim`. For a new owner, the in-flight pages are sealed
  // again. With the owner's own key only the owner's name and lease change. A
  // former key can never own the log again. `now` is a MonotonicTime.
  //   FAILED_PRECONDITION DIRTY_LOG_OFF
  //   ABORTED             LOG_CHANGED  `log_id` is given and is not this log's
  //   FAILED_PRECONDITION LOG_OWNED    the owner's lease lasts, no force
  //   FAILED_PRECONDITION LOG_FENCED   the key was an owner's before
  // `acquired`, which may be null, tells whether another owner had the log.
  absl::StatusOr<DirtyLogView> AcquireDirtyLog(
      const LogClaim& claim, absl::optional<LogId> log_id,
      LogOwner::Force force, MonotonicTime now,
      LogOwner::Acquired* acquired = nullptr);

  // Renews the lease, as every other call of the owner does. Returns the log.
  absl::StatusOr<DirtyLogView> RenewDirtyLogLease(const LogCall& call);

  // Acknowledges the epochs up to `acknowledged_epoch` (0: none), then closes
  // the open epoch of all slots and opens the next. Write-protects and discards
  // no page.
  //   NOT_FOUND EPOCH_UNKNOWN  the epoch to acknowledge was never sealed; then
  //                            no epoch was sealed by this call
  absl::StatusOr<SealOutcome> SealDirtyLog(const LogCall& call,
                                           uint64_t acknowledged_epoch,
                                           MmuCost* cost);

  // Copies one bit per page, from page `first_page` of the slot (a multiple of
  // 64) on, to fill `words`. `epoch` 0 peeks: every page that is not delivered,
  // so open, sealed or in flight. Otherwise the pages of that sealed epoch that
  // were not cleared. Any caller may read: it changes nothing that another call
  // sees, and renews no lease. Pages that vCPUs recorded elsewhere are in a
  // peek if TakeInNotedPages was called after they were recorded.
  //   FAILED_PRECONDITION DIRTY_LOG_OFF     no log, or not of this slot
  //   NOT_FOUND           MEMSLOT_NOT_FOUND
  //   ABORTED             LOG_CHANGED       `log_id` is given, not this log's
  //   NOT_FOUND           EPOCH_UNKNOWN     never sealed in this log
  //   ABORTED             EPOCH_SUPERSEDED  a later one was sealed, or the slot
  //                                         was moved or made since
  //   OUT_OF_RANGE        INVALID_RANGE     past the slot's end
  absl::Status ReadDirtyLog(absl::optional<LogId> log_id, uint32_t slot,
                            uint64_t epoch, uint64_t first_page,
                            absl::Span<uint64_t> words) const;
  // The same for the pages that are in flight in `epoch`, which may be any
  // epoch that was sealed.
  absl::Status ReadInFlight(absl::optional<LogId> log_id, uint32_t slot,
                            uint64_t epoch, uint64_t first_page,
                            absl::Span<uint64_t> words) const;
  // The checks of log and epoch in ReadDirtyLog (kSealed) and ReadInFlight,
  // without a slot: also if no slot is logged any more.
  absl::Status CheckDirtyLogEpoch(absl::optional<LogId> log_id, uint64_t epoch,
                                  LogPages pages) const;
  // Moves pages recorded in dirty rings and CPUs' logs into the open epoch.
  // Makes vCPUs exit with PML. No effect without a log. The error of an MMU
  // that cannot tell which pages are dirty (Mmu::CollectDirty).
  absl::Status TakeInNotedPages() const;

  // Clears the sealed pages among those of [first_page, first_page +
  // page_count) whose bit is set in `mask` (bit 0 is first_page):
  // write-protects them, flushes TLBs and puts them in flight. On return, even
  // of a repeated call, no page in flight can be written unnoticed. Idempotent.
  //   INVALID_ARGUMENT    UNALIGNED_CLEAR, INVALID_BITMAP (DL-20..23)
  //   OUT_OF_RANGE        GPA_OUT_OF_RANGE  past the slot's end
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

  // Makes pages delivered: all in-flight pages of epochs up to `epoch`; or, of
  // one slot, the pages of `mask`, with the same rules for the range as in
  // ClearDirtyLog. A page that was cleared again in a later epoch stays in
  // flight. Idempotent: pages that are not in flight do not count.
  //   NOT_FOUND EPOCH_UNKNOWN  `epoch` was never sealed in this log
  // and for a slot the errors of ClearDirtyLog: the range, MEMSLOT_NOT_FOUND,
  // DIRTY_LOG_OFF.
  absl::StatusOr<AcknowledgeResult> AcknowledgePages(const LogCall& call,
                                                     uint64_t epoch);
  absl::StatusOr<AcknowledgeResult> AcknowledgePages(
      const LogCall& call, uint64_t epoch, uint32_t slot, uint64_t first_page,
      uint64_t page_count, absl::Span<const uint64_t> mask);

  // Ends the log. With Undelivered::kRefuse the vCPUs are held from the check
  // of the log to its end. A stop by force (stop.by is empty) never fails with
  // LOG_FENCED or LOG_OWNED:
  //   FAILED_PRECONDITION DIRTY_LOG_OFF
  //   LOG_CHANGED, LOG_FENCED, LOG_OWNED    as above
  //   FAILED_PRECONDITION UNDELIVERED_PAGES pages are open, sealed or in flight
  //                                         and would be lost; metadata
  //                                         "open_page_count",
  //                                         "sealed_page_count",
  //                                         "in_flight_page_count"
  absl::StatusOr<StopResult> StopDirtyLog(const DirtyLogStop& stop,
                                          MmuCost* cost);
  // Stops the log, and discards its pages, if its ttl has expired at `now`.
  // Nullopt (not an error) if it has not, or there is no log. The result has
  // the state of the log before the stop.
  struct Abandoned {
    DirtyLogView log;
    StopResult stopped;
  };
  absl::optional<Abandoned> StopAbandonedDirtyLog(MonotonicTime now,
                                                  MmuCost* cost);

  // The counts of pages that would be lost if the log ended now; zeros without
  // a log. First moves pages recorded by vCPUs into the log, as
  // TakeInNotedPages: `taken_in`, if given, becomes its result. After an error
  // the counts lack pages.
  UndeliveredCounts CountUndelivered(absl::Status* taken_in = nullptr) const;
  // The same for one slot; nullopt if it is not logged.
  absl::optional<UndeliveredCounts> CountUndelivered(uint32_t slot) const;
  // The same for each logged slot, in the order of their ids. Pages recorded by
  // vCPUs are moved once for all of them. `cost` may be null.
  std::vector<SlotUndelivered> CountUndeliveredBySlot(MmuCost* cost) const;

  // --- Huge pages ---

  // A split job that is paced and can be watched: INVALID_THROTTLE,
  // INVALID_RANGE, INVALID_PAGE_SIZE. The same for recovery, of `ranges` inside
  // memslots: INVALID_THROTTLE. The VM outlives the jobs.
  absl::StatusOr<std::shared_ptr<SplitJob>> MakeSplitJob(
      const SplitRequest& request);
  absl::StatusOr<std::shared_ptr<RecoverJob>> MakeRecoverJob(
      const std::vector<GfnRange>& ranges, const Throttle& throttle = {});
  // Makes one huge page recovery pass over `ranges` (empty: all slots). Each
  // hold of mmu_lock lasts at most `max_lock_hold`, plus the work on one page
  // table. FAILED_PRECONDITION DIRTY_LOG_ACTIVE if a slot in `ranges` logs
  // (TDP-52; metadata "slot").
  absl::StatusOr<RecoverOutcome> RecoverHugePages(
      const std::vector<GfnRange>& ranges, MmuCost* cost,
      absl::Duration max_lock_hold = kDefaultMaxLockHold);
  // Whether a pass or a job over `ranges` would be refused, as they say it.
  absl::Status CheckRecoverHugePages(const std::vector<GfnRange>& ranges) const;

  // --- Aging ---

  // Tests, or tests and clears, the Accessed bits of the SPTEs that map
  // `range`. Clearing a part of a huge page clears all of it (AGE-17); for
  // several ranges see vm/jobs/age_sweep.h, which passes in `young_until` the
  // result of the previous range for the first pages of this one.
  // OUT_OF_RANGE INVALID_RANGE if `range` is empty, GPA_OUT_OF_RANGE if it is
  // not all in memslots and `missing` is kRefuse. FAILED_PRECONDITION
  // FAST_AGING_UNAVAILABLE, with nothing aged, if options.slow is kRefuse and
  // an MMU in use does not age fast.
  absl::StatusOr<AgeResult> Age(GfnRange range, AgeMode mode, MmuCost* cost,
                                Gfn young_until = Gfn(0),
                                MissingSlots missing = MissingSlots::kRefuse,
                                const AgeOptions& options = {});

  // Whether an MMU of the VM ages fast. If not, fast-only requests find nothing
  // (AGE-34).
  bool AgesFast() const;
  // The lock that the VM's MMU of this kind takes to age pages.
  AgingLock aging_lock(MmuKind kind) const;

  // Ageing of many ranges as one operation. The VM outlives the sweep.
  AgeSweep MakeAgeSweep(std::vector<GfnRange> ranges, AgeMode mode,
                        MissingSlots missing = MissingSlots::kRefuse,
                        const AgeOptions& options = {});

  // Begins a generation of the working set: see vm/jobs/generation_scan.h,
  // which names the errors. The VM outlives the scan.
  absl::StatusOr<std::unique_ptr<GenerationScan>> BeginGeneration(
      const GenerationOptions& options);
  // The working set, to be read only; null before the first generation and
  // after ForgetWorkingSet, which frees its memory.
  std::shared_ptr<const WorkingSet> FindWorkingSet() const;
  void ForgetWorkingSet();

  // --- Shadow pages ---

  // The limit on shadow pages; 0 with MmuMode::kTdp.
  uint64_t shadow_page_limit() const;
  // Sets that limit permanently (SHD-29). FAILED_PRECONDITION NO_SHADOW_PAGES
  // with MmuMode::kTdp, INVALID_ARGUMENT INVALID_RANGE below 64 (EINVAL).
  absl::Status SetShadowPageLimit(uint64_t pages, MmuCost* cost);

  // --- Stage-2 tables ---

  // The size of the pieces in which blocks are split ahead of the guest's
  // writes (ARM-20); 0: they are not, or the VM has no stage-2 tables.
  uint64_t eager_split_chunk_bytes() const;
  // Sets it. A running split takes it over when it next acquires mmu_lock. KVM
  // allows that only while the VM has no memslot, since its stock of tables has
  // a fixed size; the stock of this MMU has none. INVALID_ARGUMENT
  // INVALID_MMU_OPTION (EINVAL) if `bytes` is neither 0 nor the size of a page
  // or block of the granule (ARM-21), or the VM has no stage-2 tables.
  absl::Status SetEagerSplitChunk(uint64_t bytes);

  // --- Inspection ---

  // Lists tables of all MMUs, from `from` on: at most `limit`, which is at most
  // kMaxListed; fewer if few of many pass the filter. Holds mmu_lock for short
  // pieces of the work (vm/inspect/shadow_page_list.h).
  static constexpr size_t kMaxListed = kMaxListedTables;
  ShadowPageListing ListShadowPages(const ShadowPageFilter& filter,
                                    const ShadowPagePosition& from,
                                    size_t limit);

  // All counters of the VM, and those of each vCPU (stats/counter_table.h).
  VmStatsSnapshot Stats() const;
  std::vector<VcpuStatsSnapshot> VcpuStats() const;
  // The counters that belong to no VM.
  static ProcessStatsSnapshot ProcessStats();
  // Mappings of this size, k4K to k1G, in all MMUs: pages_4k, 2m and 1g alone.
  uint64_t MappedPages(Level level) const;
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
