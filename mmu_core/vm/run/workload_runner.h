// Runs a workload: one thread per participating vCPU. It can be paused, slowed
// down and stopped.

#ifndef MMU_CORE_VM_RUN_WORKLOAD_RUNNER_H_
#define MMU_CORE_VM_RUN_WORKLOAD_RUNNER_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/guest/gpa_space.h"
#include "mmu_core/guest/guest_access.h"
#include "mmu_core/memory/invalidate_sequence.h"
#include "mmu_core/vm/core/vcpu_runner.h"
#include "mmu_core/vm/core/vm_config.h"
#include "mmu_core/vm/run/guest_system.h"
#include "mmu_core/vm/run/workload.h"
#include "mmu_core/vm/vcpu/parking_place.h"
#include "mmu_core/vm/vcpu/vcpu.h"

namespace mmu {

// States: idle -> running -> ended (done, stopped or failed) -> running ... A
// pause is independent of them: it holds the current and any later workload.
// Thread-safe.
class WorkloadRunner final : public VcpuRunner, private ParkingPlace {
 public:
  // `config` and `invalidations` are those of the VM.
  WorkloadRunner(const VmConfig& config, InvalidationGate& invalidations,
                 std::vector<std::unique_ptr<Vcpu>>& vcpus)
      : config_(config), invalidations_(invalidations), vcpus_(vcpus) {}
  ~WorkloadRunner() override { Stop(); }
  WorkloadRunner(const WorkloadRunner&) = delete;
  WorkloadRunner& operator=(const WorkloadRunner&) = delete;

  // Vm::CheckWorkload.
  absl::Status Check(int64_t vcpu_count, int64_t accesses_per_second) const;
  // Like the Vm functions. `memory` is for guests with their own page tables.
  absl::Status Start(WorkloadOptions options, const GpaSpace& memory,
                     absl::FunctionRef<absl::Status()> confirm);
  void Stop();
  bool Wait(absl::Duration timeout);
  absl::StatusOr<WorkloadProgress> Progress() const;
  // The first guest that was lost, if any.
  absl::optional<GuestLoss> guest_loss() const;
  void Pause();
  void Resume();
  bool paused() const { return (control_.load() & kPaused) != 0; }
  // A short pause that Pause and Resume do not affect. Holds nest; one Unhold
  // ends each.
  void Hold() override;
  void Unhold() override;
  void DirtyRingsHaveRoom() override;
  void MemoryGoes(GfnRange range) override;

 private:
  // Bits of control_, which vCPU threads load between accesses.
  static constexpr uint32_t kStop = 1;
  static constexpr uint32_t kPaused = 2;
  static constexpr uint32_t kHeld = 4;
  // The number of accesses between two checks of the rate limit and the time
  // limit.
  static constexpr int kBatch = 256;

  // ParkingPlace, for vCPUs that wait in the middle of an access.
  bool IsWanted() const override {
    return control_.load(std::memory_order_acquire) != 0;
  }
  bool Park() override { return MayRun(); }

  void Run(Vcpu& vcpu, AccessSource& source);
  // Makes the accesses of `source`, until there are no more or the vCPU is
  // asked to stop.
  absl::Status MakeAccesses(Vcpu& vcpu, AccessSource& source);
  // The guest whose programs make the accesses on `vcpu`, booted if needed;
  // null if the vCPU makes them itself.
  absl::StatusOr<GuestSystem*> GuestOf(Vcpu& vcpu);
  // The cause of the failure of the guest on `vcpu`: its lost memory if it lost
  // any, else `failure`. A guest whose tables are gone may fail with any error,
  // depending on which part of them it reads first.
  absl::Status CauseOf(const Vcpu& vcpu, const absl::Status& failure) const;
  // Records that the guest on `vcpu` is lost, if it is. Called by the vCPU's
  // thread after its last access.
  void NoteLoss(const Vcpu& vcpu);
  // Waits until the vCPU's dirty ring has room. False: the guest must stop.
  bool AwaitRingRoomInGuest(Vcpu& vcpu);
  // The wait of both functions: until there is room or the vCPU should park.
  // Only this wait is a stall for lack of room; a pause is not. False:
  // `deadline` has passed.
  bool AwaitRingRoomOrPark(Vcpu& vcpu, MonotonicTime deadline);
  // Parks while paused. False: the vCPU must stop.
  bool MayRun();
  void Doze(absl::Duration duration);
  // Waits until the vCPU's dirty ring has room and continues its access.
  // kDirtyRingFull: the workload must stop, or `deadline` has passed.
  AccessOutcome AwaitRingRoom(Vcpu& vcpu, const GuestAccess& access,
                              uint64_t* word, MonotonicTime deadline);
  // Makes all threads load control_, even those that wait.
  void CallToPark() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void WaitUntilParked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Finish(const absl::Status& status);
  // Makes a thread for each source. After an error there are fewer.
  absl::Status MakeThreads() ABSL_EXCLUSIVE_LOCKS_REQUIRED(control_mu_);
  // Ends the threads made so far, none of which has made an access, and
  // restores the progress shown `before` them.
  void GiveUpStart(absl::optional<WorkloadProgress> before)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(control_mu_);
  void JoinLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(control_mu_);
  VcpuStatsSnapshot SumStats() const;

  const VmConfig& config_;
  InvalidationGate& invalidations_;
  std::vector<std::unique_ptr<Vcpu>>& vcpus_;
  // By vCPU; each belongs to its thread. Null before the first workload.
  std::vector<std::unique_ptr<GuestSystem>> guests_;
  // By vCPU; each belongs to its thread: the time at which its accesses must
  // end.
  std::vector<MonotonicTime> deadlines_;
  struct GuestMemory {
    GpaSpace space;
    bool taken = false;  // in part, since the guest was booted
  };
  std::atomic<uint32_t> control_{0};

  // Serialises Start (including `confirm`) and Stop. Outer of mu_.
  Mutex control_mu_;

  // Inner of slots_lock, too, see mmu_core/LOCKING.md.
  mutable Mutex mu_;
  CondVar changed_;
  WorkloadOptions options_;  // constant while threads run
  std::vector<std::thread> threads_ ABSL_GUARDED_BY(control_mu_);
  int running_ ABSL_GUARDED_BY(mu_) = 0;  // threads not yet ended
  int parked_ ABSL_GUARDED_BY(mu_) = 0;   // of these, parked
  int holds_ ABSL_GUARDED_BY(mu_) = 0;
  // By vCPU, as of the start of the workload that boots its guest.
  std::vector<GuestMemory> guest_memory_ ABSL_GUARDED_BY(mu_);
  // Nullopt: no workload was ever started.
  absl::optional<WorkloadProgress> progress_ ABSL_GUARDED_BY(mu_);
  absl::optional<GuestLoss> guest_loss_ ABSL_GUARDED_BY(mu_);
  VcpuStatsSnapshot at_start_ ABSL_GUARDED_BY(mu_);
  MonotonicTime started_ ABSL_GUARDED_BY(mu_);
};

}  // namespace mmu

#endif  // MMU_CORE_VM_RUN_WORKLOAD_RUNNER_H_
