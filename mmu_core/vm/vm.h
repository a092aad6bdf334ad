// A virtual machine's memory: the one header that a server needs.
//
// A Vm owns its memslots and their backing memory, its TDP MMU, its vCPUs
// (threads that run a guest's accesses) and the dirty logs of its slots. It
// forwards: the rules live in memory/, tdp/, dirty/, aging/.
//
// Life of a fault: vm/vcpu.h. Locks: mmu_core/LOCKING.md.

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
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/dirty/dirty_log_types.h"
#include "mmu_core/guest/gpa_space.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/vm/audit.h"
#include "mmu_core/vm/missing_slots.h"
#include "mmu_core/vm/nx_parameters.h"
#include "mmu_core/vm/shadow_page_info.h"
#include "mmu_core/vm/split_job.h"
#include "mmu_core/vm/throttle.h"
#include "mmu_core/vm/vm_config.h"
#include "mmu_core/vm/vm_stats.h"
#include "mmu_core/vm/workload.h"

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

  // --- Memslots (section 2 of the behaviour reference) ---

  // Creates, moves, re-flags or (size 0) deletes a slot, as KVM's set-region
  // call; SLOT-01..14 name the errors, each with its errno. A created slot
  // gets fresh backing memory; a changed one keeps its own.
  // RESOURCE_EXHAUSTED RESOURCE_EXHAUSTED_MEMORY: nothing changed.
  absl::Status SetMemslot(const MemslotConfig& config);

  // What is to become of dirty pages that nobody has cleared, open or sealed,
  // when the log that has them ends.
  enum class Unacked : uint8_t { kRefuse, kDiscard };
  // As SetMemslot with size 0 for a slot of address space 0, which always
  // discards them. How many there were; FAILED_PRECONDITION UNACKED_EPOCH if
  // there are any and `unacked` is kRefuse. Then vCPUs stand still from the
  // look at the log to its end.
  absl::StatusOr<uint64_t> DeleteMemslot(uint32_t slot, Unacked unacked);
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
  // How many vCPUs stand still because their dirty ring has no room (DL-42).
  int VcpusWaitingForRing() const;

  // --- Contents ---

  // Copies guest memory to `out` word by word; a vCPU that writes meanwhile
  // leaves each 8-byte word old or new. `gpa` and size multiples of 8. OUT_OF_
  // RANGE GPA_OUT_OF_RANGE if not wholly inside slots; FAILED_PRECONDITION
  // NO_CONTENTS for a metadata-only slot.
  absl::Status ReadMemory(Gpa gpa, absl::Span<std::byte> out) const;

  // --- Dirty logging: the epoch protocol over KVM's rules (section 8) ---

  // Switches logging on for slots that have it off; the same settings again
  // are OK and change nothing. Each slot has settings of its own.
  // ALREADY_EXISTS DIRTY_LOG_ACTIVE for other settings of a slot that logs,
  // NOT_FOUND MEMSLOT_NOT_FOUND (also if no slot is named and none can be
  // written), INVALID_ARGUMENT INVALID_SPLIT_POLICY, RESOURCE_EXHAUSTED
  // RESOURCE_EXHAUSTED_MEMORY: then no slot was switched.
  absl::Status StartDirtyLog(const DirtyLogConfig& config, MmuCost* cost);

  enum class Recover : uint8_t { kNo, kYes };
  // Switches logging off. FAILED_PRECONDITION DIRTY_LOG_OFF, UNACKED_EPOCH
  // (dirty pages, open or sealed, were not cleared and `unacked` is kRefuse).
  // With kRefuse vCPUs stand still from the look at the logs to their end.
  absl::StatusOr<StopResult> StopDirtyLog(const std::vector<uint32_t>& slots,
                                          Recover recover, Unacked unacked,
                                          MmuCost* cost);
  // The logs in the order of their slots; one of them; whether there are any.
  std::vector<DirtyLogInfo> DirtyLogs() const;
  absl::optional<DirtyLogInfo> FindDirtyLog(uint32_t slot) const;
  bool LogsDirtyPages() const;
  // Dirty pages of all slots, open and sealed, that nobody has cleared.
  uint64_t CountUnackedPages() const;

  // Closes the open epoch of a slot and opens the next. Clears nothing,
  // protects nothing, forgets nothing. FAILED_PRECONDITION DIRTY_LOG_OFF.
  absl::StatusOr<SealResult> SealDirtyLog(uint32_t slot, MmuCost* cost);

  // Copies one bit per page, from page `first_page` of the slot (a multiple of
  // 64) into `words`, as many words as given. `epoch` 0 peeks: open and sealed
  // pages. Otherwise the un-acked pages of that sealed epoch: ABORTED
  // EPOCH_SUPERSEDED once a later one was sealed, NOT_FOUND EPOCH_UNKNOWN if
  // it was never sealed. OUT_OF_RANGE INVALID_RANGE past the slot's end.
  absl::Status ReadDirtyLog(uint32_t slot, uint64_t epoch, uint64_t first_page,
                            absl::Span<uint64_t> words) const;

  // Acknowledges and re-protects the pages of [first_page, first_page +
  // page_count) whose bit is set in `mask` (bit 0 is first_page) and in the
  // sealed epoch; flushes TLBs before it returns. ABORTED EPOCH_MISMATCH
  // unless `epoch` is the last sealed one; INVALID_ARGUMENT UNALIGNED_CLEAR,
  // INVALID_RANGE, INVALID_BITMAP (DL-20..23).
  absl::StatusOr<ClearResult> ClearDirtyLog(uint32_t slot, uint64_t epoch,
                                            uint64_t first_page,
                                            uint64_t page_count,
                                            absl::Span<const uint64_t> mask,
                                            MmuCost* cost);

  // --- Huge pages ---

  // See SplitJob for a paced split. One huge page recovery pass over `ranges`
  // (empty: all slots): FAILED_PRECONDITION DIRTY_LOG_ACTIVE if a slot in it
  // logs (TDP-52).
  struct Recovered {
    uint64_t to_2m_count = 0;
    uint64_t to_1g_count = 0;
  };
  absl::StatusOr<Recovered> RecoverHugePages(
      const std::vector<GfnRange>& ranges, MmuCost* cost);

  // --- Aging ---

  // Tests, or tests and clears, the Accessed bits of the SPTEs that map
  // `range`. To clear a part of a huge page is to clear it whole (AGE-17): for
  // several ranges see vm/age_sweep.h, which has in `young_until` what was said
  // of the first pages of this one with the range before. Takes no lock
  // (AGE-13). OUT_OF_RANGE INVALID_RANGE if `range` is empty, or not all in
  // memslots and `missing` is kRefuse.
  absl::StatusOr<AgeResult> Age(GfnRange range, AgeMode mode, MmuCost* cost,
                                Gfn young_until = Gfn(0),
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
  // pieces of the work (vm/shadow_page_list.h).
  static constexpr size_t kMaxListed = 1000;
  ShadowPageListing ListShadowPages(const ShadowPageFilter& filter,
                                    const ShadowPagePosition& from,
                                    size_t limit);

  VmStatsSnapshot Stats() const;
  std::vector<VcpuStatsSnapshot> VcpuStats() const;
  MmuMetrics Metrics() const;
  // Holds the vCPUs, verifies every invariant, lets them go on.
  AuditReport Audit();

  // For the parts of mmu_core that work on a VM: SplitJob, tests, benchmarks.
  VmState& state() { return *state_; }
  const VmState& state() const { return *state_; }

 private:
  explicit Vm(std::unique_ptr<VmState> state);
  std::unique_ptr<VmState> state_;
};

}  // namespace mmu

#endif  // MMU_CORE_VM_VM_H_
