// The VMs of the daemon, by name.

#ifndef SERVER_CONTROL_VM_REGISTRY_H_
#define SERVER_CONTROL_VM_REGISTRY_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/dirty/dirty_log_state.h"
#include "mmu_core/vm/core/nx_parameters.h"
#include "mmu_core/vm/core/vm_config.h"
#include "server/base/budget.h"
#include "server/base/labels.h"
#include "server/base/wall_time.h"
#include "server/control/finished_threads.h"
#include "server/control/managed_vm.h"
#include "server/metrics/retained_totals.h"

namespace mmud {

class VmRegistry;

// Keeps its VM from being destroyed. Movable, not copyable; used by one thread
// at a time.
class VmUse {
 public:
  VmUse() = default;
  VmUse(VmUse&& other) noexcept { *this = std::move(other); }
  VmUse& operator=(VmUse&& other) noexcept;
  ~VmUse() { Release(); }

  ManagedVm* operator->() const { return vm_.get(); }
  ManagedVm& operator*() const { return *vm_; }
  explicit operator bool() const { return vm_ != nullptr; }
  void Release();

 private:
  friend class VmRegistry;
  // A deletion waits for kCall uses after it has begun, and for kChange uses
  // before it begins. kOperation and kGuest uses prevent a deletion.
  enum class Kind : uint8_t { kCall, kChange, kOperation, kGuest };
  VmUse(VmRegistry* registry, std::shared_ptr<ManagedVm> vm, Kind kind)
      : registry_(registry), vm_(std::move(vm)), kind_(kind) {}

  VmRegistry* registry_ = nullptr;
  std::shared_ptr<ManagedVm> vm_;
  Kind kind_ = Kind::kCall;
};

// States of a VM: (being created) -> ready -> deleting -> gone, never back.
// While a VM is being created or deleted its name is taken, but Find does not
// find it. Thread-safe. Outlives every VmUse.
class VmRegistry {
 public:
  struct Limits {
    int64_t max_vms = 64;
    int64_t max_guest_memory_bytes = 0;  // with contents; 0: no limit
    int64_t max_labelled_vms = 32;       // with a metrics label of their own
  };

  // Ends the streams of a VM that is being deleted and makes them release it,
  // including streams whose peers do not read. Called once for each deletion,
  // by its thread and without a lock held.
  using EndStreams = std::function<void(absl::string_view vm)>;

  // The VMs use `nx_parameters`, which outlive this.
  explicit VmRegistry(
      const Limits& limits,
      mmu::NxParameters& nx_parameters = mmu::NxParameters::Process(),
      EndStreams end_streams = [](absl::string_view) {})
      : limits_(limits),
        nx_parameters_(nx_parameters),
        end_streams_(std::move(end_streams)) {}
  ~VmRegistry();

  const Limits& limits() const { return limits_; }

  // The errors of mmu::Vm::CheckConfig, which come first, ALREADY_EXISTS
  // VM_EXISTS, RESOURCE_EXHAUSTED LIMIT_EXCEEDED, and the other errors of
  // mmu::Vm::Create. `name` is a valid VM name.
  absl::StatusOr<VmUse> Create(const std::string& name,
                               const mmu::VmConfig& config, Labels labels = {});

  // Finds a VM that is ready. NOT_FOUND VM_NOT_FOUND; FAILED_PRECONDITION
  // VM_DELETED while it is being deleted.
  absl::StatusOr<VmUse> Find(absl::string_view name);
  // A further use of the same VM, for an operation, or for the time that its
  // guest runs. VM_DELETED as above.
  absl::StatusOr<VmUse> ForOperation(const VmUse& use);
  absl::StatusOr<VmUse> ForGuest(const VmUse& use);
  // A further use for a call while it changes state that the `check` of a
  // deletion reads: etags, slots and the dirty log. VM_DELETED as above.
  absl::StatusOr<VmUse> ForChange(const VmUse& use);

  // A VM for a caller that only looks at it.
  struct Sight {
    std::string name;
    std::string uid;
    WallTime create_time;
    VmUse use;  // empty once the VM is being deleted, so as not to delay that
  };
  // NOT_FOUND VM_NOT_FOUND.
  absl::StatusOr<Sight> Look(absl::string_view name);
  // At most `limit` VMs with names after `after`, in the order of names.
  std::vector<Sight> List(absl::string_view after, size_t limit);

  // All VMs that are ready.
  std::vector<VmUse> All();

  // The result of a deletion.
  struct Deleted {
    mmu::UndeliveredCounts discarded;  // the result of `check`
    absl::Duration wall;               // from its beginning to the VM's end
  };
  // Checks whether a VM may be deleted, and counts the pages of its dirty log
  // that are lost. Called without a lock held.
  using CheckDeletion =
      std::function<absl::StatusOr<mmu::UndeliveredCounts>(const ManagedVm&)>;
  using OnDeleted = std::function<void(const Deleted&)>;

  // Deletes the VM: from now on calls do not find it, its streams end, and when
  // no call uses it any more it is destroyed. Returns when the VM is gone.
  // `keep_waiting` is called now and then; its error is returned. A deletion
  // that has begun goes on even if this call returns early. At its end it calls
  // `on_deleted`, from its own thread and without a lock held. Another Delete
  // of the same VM waits for the same end and gets the same result.
  //
  // `check` is called before anything is changed. It is called again if an
  // operation or the guest ran since, or a change was made (ForChange). So
  // nothing that it reads changes between its result and the beginning of the
  // deletion, and its counts are exactly those of the lost pages.
  //
  // Errors before the beginning leave the VM unchanged, and `on_deleted` is not
  // called: VM_NOT_FOUND; FAILED_PRECONDITION OPERATION_RUNNING while an
  // operation works on the VM or its guest runs; UNAVAILABLE THREADS_EXHAUSTED
  // if there is no thread to delete it; the errors of `check` and
  // `keep_waiting`.
  absl::StatusOr<Deleted> Delete(
      absl::string_view name, const CheckDeletion& check,
      const std::function<absl::Status()>& keep_waiting,
      OnDeleted on_deleted = [](const Deleted&) {});

  // Takes a part of the budget for guest memory with contents, or gives it
  // back. LIMIT_EXCEEDED.
  absl::Status ReserveMemory(ManagedVm& vm, int64_t bytes);
  void ReleaseMemory(ManagedVm& vm, int64_t bytes);

  // The use of max_vms and of max_guest_memory_bytes.
  std::vector<BudgetUse> Uses();

  // All existing VMs, including those being deleted, and the totals of the
  // deleted ones: each VM is in exactly one of the two.
  struct Scrape {
    std::vector<VmUse> vms;
    RetainedTotals gone;
  };
  Scrape ForScrape();

 private:
  friend class VmUse;

  // A deletion runs on a thread of its own, so that it does not depend on the
  // calls that wait for it.
  struct Deletion {
    explicit Deletion(const ManagedVm& vm)
        : uid(vm.uid()), create_time(vm.create_time()) {}
    const std::string uid;
    const WallTime create_time;
    const mmu::MonotonicTime begin = mmu::MonotonicTime::Now();
    // Guarded by mu_.
    bool done = false;
    Deleted deleted;
    std::vector<OnDeleted> on_deleted;
    std::thread thread;
  };

  struct Entry {
    std::shared_ptr<ManagedVm> vm;  // null while being created or destroyed
    // Numbers of uses.
    int64_t calls = 0;
    int64_t changes = 0;
    int64_t operations = 0;
    int64_t guests = 0;       // its guest runs, or is about to
    uint64_t work_begun = 0;  // total of changes, operations, guests

    bool works() const { return operations + guests > 0; }
    bool idle() const { return changes == 0 && !works(); }
    bool used() const { return calls > 0 || !idle(); }
    int64_t& UsesOf(VmUse::Kind kind) {
      switch (kind) {
        case VmUse::Kind::kCall:
          return calls;
        case VmUse::Kind::kChange:
          return changes;
        case VmUse::Kind::kOperation:
          return operations;
        case VmUse::Kind::kGuest:
          break;
      }
      return guests;
    }

    int64_t memory_bytes = 0;
    std::shared_ptr<Deletion> deletion;  // null: the VM is not being deleted
  };

  // The VM if calls may use it, otherwise the error.
  absl::StatusOr<Entry*> FindLocked(absl::string_view name)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Nullopt while the VM is being created.
  absl::optional<Sight> LookLocked(const std::string& name, Entry& entry)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Begins the deletion of a VM, unless it has begun, and returns it.
  absl::StatusOr<std::shared_ptr<Deletion>> BeginDeletion(
      absl::string_view name, const CheckDeletion& check,
      const std::function<absl::Status()>& keep_waiting, OnDeleted on_deleted);
  // Begins the deletion of `entry`, the VM with this name. THREADS_EXHAUSTED:
  // nothing was changed.
  absl::Status BeginDeletionLocked(const std::string& name, Entry& entry,
                                   const mmu::UndeliveredCounts& discarded)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Waits until no operation works on the VM and no guest runs, the VM is being
  // deleted, or `deadline` has passed; then waits a moment for changes in
  // progress.
  void AwaitIdleLocked(const Entry& entry, mmu::MonotonicTime deadline)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Runs on the deletion's thread.
  void FinishDeletion(const std::string& name);
  // A further use of the same VM.
  absl::StatusOr<VmUse> UseAgain(const VmUse& use, VmUse::Kind kind);
  VmUse UseLocked(Entry& entry, VmUse::Kind kind)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Unuse(std::shared_ptr<ManagedVm> vm, VmUse::Kind kind);
  absl::Status ReserveLocked(Entry& entry, int64_t bytes)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const Limits limits_;
  mmu::NxParameters& nx_parameters_;
  const EndStreams end_streams_;
  mmu::Mutex mu_;
  mmu::CondVar changed_;      // a use or a deletion ended
  FinishedThreads finished_;  // of deletions
  std::map<std::string, Entry, std::less<>> entries_ ABSL_GUARDED_BY(mu_);
  int64_t memory_bytes_ ABSL_GUARDED_BY(mu_) = 0;
  int64_t refused_vms_ ABSL_GUARDED_BY(mu_) = 0;
  int64_t refused_memory_ ABSL_GUARDED_BY(mu_) = 0;
  int64_t labelled_ ABSL_GUARDED_BY(mu_) = 0;
  RetainedTotals gone_ ABSL_GUARDED_BY(mu_);
};

// The memory that the slots of a config need for contents.
int64_t ContentBytes(const std::vector<mmu::MemslotConfig>& slots);

}  // namespace mmud

#endif  // SERVER_CONTROL_VM_REGISTRY_H_
