// vCPUs that are the processors of one L1 hypervisor. They run its L2 guests at
// the same time and switch between them, so a vCPU keeps the roots of some and
// loses those of others. The pages of these guests are 2 MiB apart: each needs
// a shadow page, and there are more than the limit allows. Besides, there are
// L2 guests with page tables of their own, which move from vCPU to vCPU
// (moving_kernels.h). The L1 of any vCPU moves and protects their memory.
//
// The programs check the values that they read
// (guest/hypervisor/smp_l2_program.h, guest/kernel/kernel_program.h).

#ifndef TESTS_STRESS_NESTED_GUEST_H_
#define TESTS_STRESS_NESTED_GUEST_H_

#include <atomic>
#include <cstdint>
#include <mutex>

#include "absl/status/status.h"
#include "mmu_core/guest/gpa_space.h"
#include "mmu_core/guest/hypervisor/smp_l2_program.h"
#include "mmu_core/vm/run/l1_processor.h"
#include "mmu_core/vm/vcpu/vcpu.h"
#include "mmu_core/vm/vm.h"
#include "tests/stress/guest_threads.h"
#include "tests/stress/moving_kernels.h"
#include "tests/stress/patient_l1_cpu.h"
#include "tests/stress/round_config.h"
#include "tests/stress/round_result.h"

namespace mmu::stress {

// Thread-safe as GuestThreads.
class NestedGuest final : public GuestThreads {
 public:
  // `memory` keeps the same pages as long as this object lives.
  NestedGuest(Vm& vm, const GpaSpace& memory, const RoundConfig& config);
  // Before they end, the vCPUs read all pages that were ever written.
  ~NestedGuest() override { Stop(); }

  // What all vCPUs did. REQUIRES: stopped.
  const NestedResult& result() const { return result_; }

 private:
  void Run(int index) override;
  // Waits until the first vCPU has booted L1. False: it could not.
  bool AwaitBoot();

  const uint64_t seed_;
  const PatientL1Cpu::Invvpids invvpids_;
  SmpL2Shared shared_;
  MovingKernels kernels_;
  enum class Boot : uint8_t { kGoesOn, kDone, kFailed };
  std::atomic<Boot> boot_{Boot::kGoesOn};
  std::mutex result_mu_;
  NestedResult result_;  // guarded by result_mu_
};

}  // namespace mmu::stress

#endif  // TESTS_STRESS_NESTED_GUEST_H_
