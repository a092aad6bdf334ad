#include "mmu_core/vm/run/workload_runner.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/types/optional.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/format.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/base/thread.h"
#include "mmu_core/guest/rate_limiter.h"
#include "mmu_core/guest/stamp.h"
#include "mmu_core/stats/vcpu_stats.h"
#include "mmu_core/sync/timed_wait.h"
#include "mmu_core/vm/run/missing_memory.h"

namespace mmu {
namespace {

// The error of an access or of a guest's boot. CANCELLED counts as OK: the
// guest waited for room in its dirty ring or for the host, and must stop.
absl::Status FailureOf(const absl::Status& status) {
  return absl::IsCancelled(status) ? absl::OkStatus() : status;
}

}  // namespace

absl::Status WorkloadRunner::Check(int64_t vcpu_count,
                                   int64_t accesses_per_second) const {
  const auto vcpus = static_cast<int64_t>(vcpus_.size());
  if (vcpu_count < 1 || vcpu_count > vcpus) {
    return MakeError(
        absl::StatusCode::kInvalidArgument,
        {Reason::kInvalidVcpuCount, "vcpu_count", 0},
        Format("vcpu_count is %d; it must be 1 to %d, the number of "
               "the VM's vCPUs",
               vcpu_count, vcpus));
  }
  if (accesses_per_second < 0) {
    return MakeError(absl::StatusCode::kInvalidArgument,
                     {Reason::kInvalidPattern, "accesses_per_second", 0},
                     Format("accesses_per_second is %d; it must be 0 (no "
                            "limit) or positive",
                            accesses_per_second));
  }
  return absl::OkStatus();
}

absl::Status WorkloadRunner::Start(WorkloadOptions options,
                                   const GpaSpace& memory,
                                   absl::FunctionRef<absl::Status()> confirm) {
  MutexLock control(control_mu_);
  if (absl::Status s = Check(static_cast<int64_t>(options.sources.size()),
                             options.accesses_per_second);
      !s.ok()) {
    return s;
  }
  {
    MutexLock lock(mu_);
    if (running_ != 0) {
      return MakeError(absl::StatusCode::kFailedPrecondition,
                       {Reason::kWorkloadRunning, "", 0},
                       "a workload is running on this VM already; stop it "
                       "first");
    }
  }
  JoinLocked();
  options_ = std::move(options);
  guests_.resize(vcpus_.size());
  deadlines_.resize(vcpus_.size());
  absl::optional<WorkloadProgress> before;
  {
    MutexLock lock(mu_);
    guest_memory_.resize(vcpus_.size());
    for (size_t i = 0; i < guests_.size(); ++i) {
      if (guests_[i] != nullptr) continue;
      guest_memory_[i] = {
          .space = memory.Share(static_cast<uint32_t>(i),
                                static_cast<uint32_t>(guests_.size()))};
    }
    running_ = static_cast<int>(options_.sources.size());
    parked_ = 0;
    before = std::exchange(progress_, WorkloadProgress());
    at_start_ = SumStats();
    started_ = MonotonicTime::Now();
    // No thread makes an access, or boots a guest, before all threads exist and
    // the start is confirmed: until then the guest is unchanged.
    ++holds_;
    control_.fetch_or(kHeld);
  }
  control_.fetch_and(~kStop);
  absl::Status status = MakeThreads();
  if (status.ok()) status = confirm();
  if (!status.ok()) GiveUpStart(std::move(before));
  Unhold();
  return status;
}

absl::Status WorkloadRunner::MakeThreads() {
  const size_t count = options_.sources.size();
  threads_.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    absl::StatusOr<std::thread> thread =
        MakeThread([this, i] { Run(*vcpus_[i], *options_.sources[i]); });
    if (!thread.ok()) return thread.status();
    threads_.push_back(*std::move(thread));
  }
  return absl::OkStatus();
}

void WorkloadRunner::GiveUpStart(absl::optional<WorkloadProgress> before) {
  {
    // A caller that waits until all vCPUs are parked also waits for vCPUs that
    // have no thread yet.
    MutexLock lock(mu_);
    control_.fetch_or(kStop);
    running_ -= static_cast<int>(options_.sources.size() - threads_.size());
    changed_.NotifyAll();
  }
  JoinLocked();
  control_.fetch_and(~kStop);
  MutexLock lock(mu_);
  progress_ = std::move(before);
}

void WorkloadRunner::Run(Vcpu& vcpu, AccessSource& source) {
  vcpu.set_parking(this);
  const absl::Status status = MakeAccesses(vcpu, source);
  vcpu.set_parking(nullptr);
  NoteLoss(vcpu);
  Finish(CauseOf(vcpu, status));
}

void WorkloadRunner::NoteLoss(const Vcpu& vcpu) {
  const auto& guest = guests_[static_cast<size_t>(vcpu.index())];
  if (guest == nullptr || guest->lost().ok()) return;
  MutexLock lock(mu_);
  if (guest_loss_.has_value()) return;
  guest_loss_ = GuestLoss{.vcpu = vcpu.index(),
                          .since = MonotonicTime::Now(),
                          .message = std::string(guest->lost().message())};
}

absl::optional<GuestLoss> WorkloadRunner::guest_loss() const {
  MutexLock lock(mu_);
  return guest_loss_;
}

absl::Status WorkloadRunner::MakeAccesses(Vcpu& vcpu, AccessSource& source) {
  RateLimiter limiter(Clock::Real(),
                      static_cast<double>(options_.accesses_per_second));
  // The guest boots only when the vCPU may run. A booting guest writes to its
  // memory, and a caller that holds the vCPUs relies on the absence of writes.
  if (!MayRun()) return absl::OkStatus();
  const MonotonicTime deadline = MonotonicTime::Now() + options_.max_duration;
  deadlines_[static_cast<size_t>(vcpu.index())] = deadline;
  const absl::StatusOr<GuestSystem*> guest = GuestOf(vcpu);
  if (!guest.ok()) return FailureOf(guest.status());
  absl::Status status;
  bool more = true;
  while (more && MayRun()) {
    if (options_.max_duration != absl::InfiniteDuration() &&
        MonotonicTime::Now() >= deadline) {
      break;
    }
    // A guest limited to a few accesses per second takes them one by one.
    const int64_t rate = options_.accesses_per_second;
    const int batch =
        rate == 0
            ? kBatch
            : static_cast<int>(std::clamp<int64_t>(rate / 100, 1, kBatch));
    if (const int64_t nanos = limiter.Reserve(batch); nanos > 0) {
      // At most the remaining time; then the loop ends above.
      Doze(std::min(absl::Nanoseconds(nanos), deadline - MonotonicTime::Now()));
      if (MonotonicTime::Now() >= deadline) continue;
      if ((control_.load(std::memory_order_relaxed) & kStop) != 0) break;
    }
    vcpu.EnterGuest();
    for (int i = 0; i < batch; ++i) {
      if (control_.load(std::memory_order_relaxed) != 0) break;
      GuestAccess access;
      if (!source.Next(&access)) {
        status = source.status();
        more = false;
        break;
      }
      uint64_t word = MakeStamp(static_cast<uint32_t>(vcpu.index()),
                                vcpu.stats().writes.Get() + 1);
      if (*guest != nullptr) {
        status = (*guest)->Access(access, &word);
        if (status.ok()) continue;
        status = FailureOf(status);
        more = false;
        break;
      }
      AccessOutcome outcome =
          vcpu.Access(Gpa(access.address_bytes), access.kind, &word);
      if (outcome == AccessOutcome::kDirtyRingFull) {
        outcome = AwaitRingRoom(vcpu, access, &word, deadline);
        if (outcome == AccessOutcome::kDirtyRingFull) break;
      }
      if (outcome == AccessOutcome::kError) {
        status = FailureOf(vcpu.status());
        more = false;
        break;
      }
    }
    vcpu.ExitGuest();
  }
  return status;
}

absl::Status WorkloadRunner::CauseOf(const Vcpu& vcpu,
                                     const absl::Status& failure) const {
  // An error with a reason comes from the host, or is GUEST_LOST already.
  if (failure.ok() || DetailOf(failure).reason != Reason::kNone) return failure;
  MutexLock lock(mu_);
  const bool taken = guest_memory_[static_cast<size_t>(vcpu.index())].taken;
  return taken ? GuestMemoryWasTaken(failure) : failure;
}

void WorkloadRunner::MemoryGoes(GfnRange range) {
  MutexLock lock(mu_);
  for (GuestMemory& memory : guest_memory_) {
    for (const GfnRange& part : memory.space.ranges()) {
      memory.taken |= part.Overlaps(range);
    }
  }
}

absl::StatusOr<GuestSystem*> WorkloadRunner::GuestOf(Vcpu& vcpu) {
  if (!GuestHasTables(config_)) {
    return nullptr;
  }
  const auto index = static_cast<size_t>(vcpu.index());
  if (guests_[index] == nullptr) {
    GpaSpace share;
    {
      MutexLock lock(mu_);
      share = guest_memory_[index].space;
    }
    absl::StatusOr<std::unique_ptr<GuestSystem>> guest =
        GuestSystem::Boot(config_, vcpu, share,
                          [this, &vcpu] { return AwaitRingRoomInGuest(vcpu); });
    if (!guest.ok()) return guest.status();
    guests_[index] = std::move(*guest);
  }
  return guests_[index].get();
}

bool WorkloadRunner::AwaitRingRoomInGuest(Vcpu& vcpu) {
  const bool was_in_guest = vcpu.gate().in_guest();
  if (was_in_guest) vcpu.ExitGuest();
  const MonotonicTime deadline = deadlines_[static_cast<size_t>(vcpu.index())];
  bool has_room = false;
  while (!has_room && MayRun() && AwaitRingRoomOrPark(vcpu, deadline)) {
    has_room = !vcpu.dirty_ring()->SoftFull();
  }
  if (was_in_guest) vcpu.EnterGuest();
  return has_room;
}

bool WorkloadRunner::AwaitRingRoomOrPark(Vcpu& vcpu, MonotonicTime deadline) {
  MutexLock lock(mu_);
  const WaitTime::Scope waits(vcpu.stats().ring_full_wait);
  while (control_.load() == 0 && vcpu.dirty_ring()->SoftFull()) {
    if (!WaitUntil(changed_, mu_, deadline)) return false;
  }
  return true;
}

bool WorkloadRunner::MayRun() {
  if (control_.load(std::memory_order_acquire) == 0) return true;
  MutexLock lock(mu_);
  ++parked_;
  changed_.NotifyAll();
  for (;;) {
    const uint32_t control = control_.load();
    if ((control & kStop) != 0 || control == 0) break;
    changed_.Wait(mu_);
  }
  --parked_;
  return (control_.load() & kStop) == 0;
}

void WorkloadRunner::Doze(absl::Duration duration) {
  const MonotonicTime until = MonotonicTime::Now() + duration;
  MutexLock lock(mu_);
  while (control_.load() == 0 && WaitUntil(changed_, mu_, until)) {
  }
}

AccessOutcome WorkloadRunner::AwaitRingRoom(Vcpu& vcpu,
                                            const GuestAccess& access,
                                            uint64_t* word,
                                            MonotonicTime deadline) {
  vcpu.ExitGuest();
  AccessOutcome outcome = AccessOutcome::kDirtyRingFull;
  while (outcome == AccessOutcome::kDirtyRingFull && MayRun()) {
    if (!AwaitRingRoomOrPark(vcpu, deadline)) break;
    if (control_.load() != 0) continue;  // parks, or ends
    vcpu.EnterGuest();
    outcome = vcpu.ContinueAccess(Gpa(access.address_bytes), access.kind, word);
    vcpu.ExitGuest();
  }
  vcpu.EnterGuest();  // as the caller left it
  return outcome;
}

void WorkloadRunner::DirtyRingsHaveRoom() {
  // Under the lock, so that a vCPU that found no room is waiting by now.
  MutexLock lock(mu_);
  changed_.NotifyAll();
}

void WorkloadRunner::Finish(const absl::Status& status) {
  MutexLock lock(mu_);
  WorkloadProgress& progress = *progress_;
  if (!status.ok() && progress.error.ok()) progress.error = status;
  // One vCPU that cannot continue ends the workload: the guest as a whole has
  // failed.
  if (!status.ok()) {
    control_.fetch_or(kStop);
    CallToPark();
  }
  if (--running_ == 0) {
    progress.running = MonotonicTime::Now() - started_;
    progress.stats = SumStats().Since(at_start_);
    progress.state = !progress.error.ok() ? WorkloadProgress::State::kFailed
                     : (control_.load() & kStop) != 0
                         ? WorkloadProgress::State::kStopped
                         : WorkloadProgress::State::kDone;
  }
  changed_.NotifyAll();
}

void WorkloadRunner::Stop() {
  MutexLock control(control_mu_);
  {
    MutexLock lock(mu_);
    control_.fetch_or(kStop);
    CallToPark();
  }
  JoinLocked();
  control_.fetch_and(~kStop);
}

void WorkloadRunner::JoinLocked() {
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

bool WorkloadRunner::Wait(absl::Duration timeout) {
  const MonotonicTime until = MonotonicTime::Now() + timeout;
  MutexLock lock(mu_);
  while (running_ != 0) {
    if (!WaitUntil(changed_, mu_, until)) return false;
  }
  return true;
}

absl::StatusOr<WorkloadProgress> WorkloadRunner::Progress() const {
  MutexLock lock(mu_);
  if (!progress_.has_value()) {
    return MakeError(absl::StatusCode::kFailedPrecondition,
                     {Reason::kWorkloadNotRunning, "", 0},
                     "no workload was ever started on this VM; start one");
  }
  WorkloadProgress progress = *progress_;
  if (running_ != 0) {
    progress.stats = SumStats().Since(at_start_);
    progress.running = MonotonicTime::Now() - started_;
  }
  progress.paused = paused();
  return progress;
}

void WorkloadRunner::Pause() {
  MutexLock lock(mu_);
  control_.fetch_or(kPaused);
  WaitUntilParked();
}

void WorkloadRunner::Resume() {
  MutexLock lock(mu_);
  control_.fetch_and(~kPaused);
  changed_.NotifyAll();
}

void WorkloadRunner::Hold() {
  MutexLock lock(mu_);
  ++holds_;
  control_.fetch_or(kHeld);
  WaitUntilParked();
}

void WorkloadRunner::Unhold() {
  MutexLock lock(mu_);
  if (--holds_ == 0) control_.fetch_and(~kHeld);
  changed_.NotifyAll();
}

void WorkloadRunner::CallToPark() {
  changed_.NotifyAll();
  invalidations_.WakeWaiters();
}

// A thread that is not parked is between two loads of control_, or has ended.
// It parks (or ends) after at most one access, because it loads control_ before
// each access, and again before it waits for the host. mu_ then orders
// everything that the thread did before the caller's next steps. A caller that
// lets the threads continue meanwhile ends the wait as well.
void WorkloadRunner::WaitUntilParked() {
  CallToPark();
  while (parked_ != running_ && (control_.load() & (kPaused | kHeld)) != 0) {
    changed_.Wait(mu_);
  }
}

VcpuStatsSnapshot WorkloadRunner::SumStats() const {
  VcpuStatsSnapshot sum;
  for (const auto& vcpu : vcpus_) sum.Add(vcpu->stats().Snapshot());
  return sum;
}

}  // namespace mmu
