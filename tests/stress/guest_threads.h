// The vCPU threads of a guest under stress: they run until they are stopped,
// stand still on request, and report the first violation.

#ifndef TESTS_STRESS_GUEST_THREADS_H_
#define TESTS_STRESS_GUEST_THREADS_H_

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"
#include "mmu_core/vm/vcpu/vcpu.h"
#include "mmu_core/vm/vm.h"

namespace mmu::stress {

// Thread-safe, except for Stop.
class GuestThreads {
 public:
  virtual ~GuestThreads() = default;
  GuestThreads(const GuestThreads&) = delete;
  GuestThreads& operator=(const GuestThreads&) = delete;

  // When Pause returns, every vCPU is outside of the guest. One caller at a
  // time may nest calls.
  void Pause();
  void Resume();
  // Ends the threads. Idempotent; called by the destructor of each subclass.
  void Stop();

  uint64_t access_count() const { return accesses_.load(); }
  uint64_t emulated_count() const { return emulated_.load(); }
  uint64_t pre_fault_count() const { return pre_faults_.load(); }
  uint64_t ring_full_count() const { return ring_full_.load(); }
  // The first violation; empty if there was none.
  std::string violation() const;

 protected:
  // One thread per vCPU of `vm`, at most 64; they run once Start is called.
  explicit GuestThreads(Vm& vm);
  void Start();

  // The function of a vCPU's thread; returns once stopping().
  virtual void Run(int index) = 0;

  Vm& vm() { return vm_; }
  int vcpus() const { return vcpus_; }
  Vcpu& VcpuAt(int index);
  bool stopping() const { return stop_.load(std::memory_order_relaxed); }
  bool pausing() const { return pause_.load(std::memory_order_relaxed); }
  // Called on the vCPU thread outside of the guest: waits while the vCPU is to
  // stand still.
  void WaitWhilePaused();
  // As WaitWhilePaused, but waits a moment if the vCPU need not stand still.
  void WaitALittle();
  // Calls `wait` outside of the guest, on the vCPU thread, and returns to where
  // the vCPU was.
  static void Outside(Vcpu& vcpu, absl::FunctionRef<void()> wait);
  // These three wait outside of the guest, on the vCPU thread: while the vCPU
  // is to stand still, for a moment, until its dirty ring has room (true).
  void StandStillOutside(Vcpu& vcpu);
  void WaitOutside(Vcpu& vcpu);
  bool AwaitRingRoom(Vcpu& vcpu);
  void Report(const std::string& text);
  // Called on the vCPU thread outside of the guest, where hardware and a
  // hypervisor drop translations now and then: empties the vCPU's TLBs, or
  // releases its root, which does that too. Neither does anything if these TLBs
  // forget only what they are told to.
  void FlushUnasked(Vcpu& vcpu) const;
  void ReleaseRootUnasked(Vcpu& vcpu) const;

  void CountAccesses(uint64_t n) { Add(accesses_, n); }
  void CountEmulated() { Add(emulated_, 1); }
  void CountPreFault() { Add(pre_faults_, 1); }
  void CountRingFull() { Add(ring_full_, 1); }

 private:
  bool ForgetsUnasked() const;
  static void Add(std::atomic<uint64_t>& counter, uint64_t n) {
    counter.fetch_add(n, std::memory_order_relaxed);
  }

  Vm& vm_;
  const int vcpus_;
  std::atomic<bool> stop_{false};
  std::atomic<bool> pause_{false};
  std::atomic<uint64_t> accesses_{0};
  std::atomic<uint64_t> emulated_{0};
  std::atomic<uint64_t> pre_faults_{0};
  std::atomic<uint64_t> ring_full_{0};

  mutable std::mutex mu_;
  std::condition_variable changed_;
  int parked_ = 0;         // guarded by mu_
  int ended_ = 0;          // guarded by mu_
  std::string violation_;  // guarded by mu_
  std::vector<std::thread> threads_;
};

}  // namespace mmu::stress

#endif  // TESTS_STRESS_GUEST_THREADS_H_
