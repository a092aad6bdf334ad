// L2 guests that have a kernel with page tables of its own
// (guest/hypervisor/l2_kernel.h). The one virtual processor of each runs on
// some vCPU for a while, and then on another one.

#ifndef TESTS_STRESS_MOVING_KERNELS_H_
#define TESTS_STRESS_MOVING_KERNELS_H_

#include <cstdint>
#include <memory>
#include <mutex>
#include <random>
#include <vector>

#include "absl/status/status.h"
#include "mmu_core/guest/hypervisor/l1_hypervisor.h"
#include "mmu_core/guest/hypervisor/l2_kernel.h"

namespace mmu::stress {

// Thread-safe; the functions of a vCPU are called by its thread.
class MovingKernels {
 public:
  // One kernel for each of the `vcpus`; they are the guests from `first_guest`
  // on. Every second one has large pages, the seed decides which.
  MovingKernels(int vcpus, int first_guest, uint64_t seed);

  // Boots the kernel of `vcpu` there. Others may come from now on. `l1`, the
  // hypervisor on the vCPU, lives until Stay.
  absl::Status Start(int vcpu, L1Hypervisor& l1);
  // Makes one access of a kernel that is on the vCPU, if there is one.
  absl::Status Step(int vcpu);
  // Lets some of the kernels that are on the vCPU move to others. Afterwards
  // the vCPU may be in L2 only if it has kept one: see L1Hypervisor::Rest.
  void Send(int vcpu);
  // No kernel comes to the vCPU or leaves it from now on.
  void Stay(int vcpu);
  // Reads all that the kernels on the vCPU have written. REQUIRES: Stay has
  // been called.
  absl::Status Verify(int vcpu);

 private:
  // What is on a vCPU.
  struct Place {
    L1Hypervisor* l1 = nullptr;  // null: kernels cannot come. Guarded by mu_
    // Guarded by mu_. Others than the vCPU's thread only add to them, and only
    // before Stay.
    std::vector<std::unique_ptr<L2Kernel>> kernels;
    std::mt19937_64 random;  // of the vCPU's thread
  };

  Place& At(int vcpu) { return places_[static_cast<size_t>(vcpu)]; }
  uint64_t SeedOf(int vcpu) const {
    return seed_ * 64 + seed_ % 2 + static_cast<uint64_t>(vcpu);
  }

  const int first_guest_;
  const uint64_t seed_;
  std::mutex mu_;
  std::vector<Place> places_;  // by vCPU
};

}  // namespace mmu::stress

#endif  // TESTS_STRESS_MOVING_KERNELS_H_
