// Runs a workload: one thread per vCPU that takes part, which can be paused,
// slowed down and stopped.

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

// States: idle -> running -> ended (done, stopped or failed) -> running ...
// Pausing is independent of them: it holds whatever runs or will run.
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

  // As the Vm functions. `memory` is what guests have that page by themselves.
  absl::Status Start(WorkloadOptions options, const GpaSpace& memory,
                     absl::FunctionRef<absl::Status()> confirm);
  void Stop();
  bool Wait(absl::Duration timeout);
  absl::StatusOr<WorkloadProgress> Progress() const;
  // The first guest that was lost, if one was.
  absl::optional<GuestLoss> guest_loss() const;
  void Pause();
  void Resume();
  bool paused() const { return (control_.load() & kPaused) != 0; }
  // The same for a short while, whatever Pause and Resume say meanwhile. Holds
  // nest; each is let go by one Unhold.
  void Hold() override;
  void Unhold() override;
  void DirtyRingsHaveRoom() override;
  void MemoryGoes(GfnRange range) override;

 private:
  // Bits of control_, which vCPU threads look at between accesses.
  static constexpr uint32_t kStop = 1;
  static constexpr uint32_t kPaused = 2;
  static constexpr uint32_t kHeld = 4;
  // Accesses between two looks at the rate limit and the time limit.
  static constexpr int kBatch = 256;

  // ParkingPlace, for vCPUs that wait in the middle of an access.
  bool IsWanted() const override {
    return control_.load(std::memory_order_acquire) != 0;
  }
  bool Park() override { return MayRun(); }

  void Run(Vcpu& vcpu, AccessSource& source);
  // The accesses of `source`, until there are no more or somebody wants the
  // vCPU to stop.
  absl::Status MakeAccesses(Vcpu& vcpu, AccessSource& source);
  // The guest whose programs make the accesses on `vcpu`, booted if it was not;
  // null if the vCPU makes them by itself.
  absl::StatusOr<GuestSystem*> GuestOf(Vcpu& vcpu);
  // What the guest on `vcpu` failed with; if it has lost memory, that. A guest
  // that finds its tables gone may say anything, depending on which part of
  // them it comes to first.
  absl::Status CauseOf(const Vcpu& vcpu, const absl::Status& failure) const;
  // Notes that the guest on `vcpu` is lost, if it is. Called by its thread when
  // it makes no more accesses.
  void NoteLoss(const Vcpu& vcpu);
  // Waits until the vCPU's dirty ring has room. False: it is to stop.
  bool AwaitRingRoomInGuest(Vcpu& vcpu);
  // The wait of both: until there is room or the vCPU should park. Only this is
  // a stall for want of room; a pause is none. False: `deadline` has passed.
  bool AwaitRingRoomOrPark(Vcpu& vcpu, MonotonicTime deadline);
  // Parks while paused. False: stop.
  bool MayRun();
  void Doze(absl::Duration duration);
  // Waits until the vCPU's dirty ring has room and goes on with its access.
  // kDirtyRingFull: the workload is to stop, or `deadline` has passed.
  AccessOutcome AwaitRingRoom(Vcpu& vcpu, const GuestAccess& access,
                              uint64_t* word, MonotonicTime deadline);
  // Has all threads look at control_, also those that wait.
  void CallToPark() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void WaitUntilParked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Finish(const absl::Status& status);
  // A thread for each source. An error: there are fewer.
  absl::Status MakeThreads() ABSL_EXCLUSIVE_LOCKS_REQUIRED(control_mu_);
  // Ends the threads there are, none of which has made an access, and shows
  // what was shown `before` them.
  void GiveUpStart(absl::optional<WorkloadProgress> before)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(control_mu_);
  void JoinLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(control_mu_);
  VcpuStatsSnapshot SumStats() const;

  const VmConfig& config_;
  InvalidationGate& invalidations_;
  std::vector<std::unique_ptr<Vcpu>>& vcpus_;
  // By vCPU; each is its thread's. Null before the first workload.
  std::vector<std::unique_ptr<GuestSystem>> guests_;
  // By vCPU; each is its thread's: when its accesses end at the latest.
  std::vector<MonotonicTime> deadlines_;
  struct GuestMemory {
    GpaSpace space;
    bool taken = false;  // some of it, since the guest was booted
  };
  std::atomic<uint32_t> control_{0};

  // Serialises Start, what confirms it included, and Stop. Outer of mu_.
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
  // None: no workload was ever started.
  absl::optional<WorkloadProgress> progress_ ABSL_GUARDED_BY(mu_);
  absl::optional<GuestLoss> guest_loss_ ABSL_GUARDED_BY(mu_);
  VcpuStatsSnapshot at_start_ ABSL_GUARDED_BY(mu_);
  MonotonicTime started_ ABSL_GUARDED_BY(mu_);
};

}  // namespace mmu

#endif  // MMU_CORE_VM_RUN_WORKLOAD_RUNNER_H_
