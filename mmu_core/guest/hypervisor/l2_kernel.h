// The kernel of an L2 guest that has page tables of its own, with two programs,
// for tests of what may outlive its changes.
//
// It has few pages, and changes them often, so that a translation that outlives
// its entry is used before anything else drops it. It checks the values that
// the programs read (guest/kernel/kernel_program.h).

#ifndef MMU_CORE_GUEST_HYPERVISOR_L2_KERNEL_H_
#define MMU_CORE_GUEST_HYPERVISOR_L2_KERNEL_H_

#include <cstdint>
#include <memory>
#include <random>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "mmu_core/base/level.h"
#include "mmu_core/guest/hypervisor/l1_hypervisor.h"
#include "mmu_core/guest/hypervisor/l2_cpu.h"
#include "mmu_core/guest/kernel/guest_kernel_options.h"
#include "mmu_core/guest/kernel/kernel_program.h"

namespace mmu {

// Thread-compatible: belongs to the thread of the processor that it is on.
class L2Kernel {
 public:
  static constexpr int kPrograms = 2;
  // The pages of the guest's memory. Programs with large pages need one each,
  // beside the tables.
  static constexpr uint64_t kPages =
      (1 + uint64_t{kPrograms}) * PagesPer(Level::k2M);

  struct Options {
    int guest = 0;  // of the hypervisor, which it has for itself
    uint64_t seed = 1;
    GuestKernelOptions::LargePages large_pages =
        GuestKernelOptions::LargePages::kNo;
    uint64_t word = 0;   // the only one of each page that it accesses
    uint64_t value = 0;  // all that it writes are above it, and different
  };

  // Boots it on the processor of `l1`, which may be in L2 afterwards. The
  // errors of KernelProgram::Start.
  static absl::StatusOr<std::unique_ptr<L2Kernel>> Start(
      L1Hypervisor& l1, const Options& options);

  // Makes one access of a program. A value is written once, so a page in the
  // place of another is noticed.
  absl::Status Step();
  // L2Cpu::MoveTo.
  void MoveTo(L1Hypervisor& l1) { cpu_.MoveTo(l1); }
  // Reads all that it has written.
  absl::Status Verify() { return program_->Verify(); }

  GuestKernel& kernel() { return program_->kernel(); }

 private:
  L2Kernel(L1Hypervisor& l1, const Options& options)
      : word_(options.word),
        cpu_(l1, options.guest),
        random_(options.seed),
        last_value_(options.value) {}

  const uint64_t word_;
  L2Cpu cpu_;
  std::unique_ptr<KernelProgram> program_;
  std::mt19937_64 random_;
  uint64_t last_value_;
};

}  // namespace mmu

#endif  // MMU_CORE_GUEST_HYPERVISOR_L2_KERNEL_H_
