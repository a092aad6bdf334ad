// vCPUs whose guests have page tables of their own: a kernel with programs, or
// a hypervisor with an L2 guest, one per vCPU, each in its share of the stable
// memory; or one kernel for all vCPUs, whose programs share their memory
// (guest/kernel/smp_guest.h). Programs check the values that they read
// (guest/virtual_workload.h). This detects a translation that outlives the
// guest's own tables, and a page that is not the one that was written.

#ifndef TESTS_STRESS_PAGED_GUEST_H_
#define TESTS_STRESS_PAGED_GUEST_H_

#include <cstdint>
#include <memory>
#include <random>

#include "absl/status/statusor.h"
#include "mmu_core/base/access.h"
#include "mmu_core/guest/gpa_space.h"
#include "mmu_core/guest/hypervisor/l1_cpu.h"
#include "mmu_core/guest/kernel/guest_cpu.h"
#include "mmu_core/guest/kernel/smp_guest.h"
#include "mmu_core/guest/virtual_workload.h"
#include "mmu_core/vm/vcpu/vcpu.h"
#include "mmu_core/vm/vm.h"
#include "tests/stress/guest_threads.h"

namespace mmu::stress {

// Programs write only at these offsets of a page, and only words that no entry
// of a page table can equal: such a word was certainly written by a program.
inline constexpr uint64_t kProgramWords = 4;
inline constexpr uint64_t kFirstProgramWord = 5;
constexpr bool IsProgramWord(uint64_t word) { return word >> 48 == 0x7a5e; }

// Thread-safe as GuestThreads.
class PagedGuest final : public GuestThreads {
 public:
  enum class Kernels : uint8_t { kOnePerVcpu, kOneForAll };

  // `memory` keeps the same pages as long as this object lives. kOneForAll: the
  // VM has at most kProgramWords vCPUs, and is not nested.
  PagedGuest(Vm& vm, const GpaSpace& memory, uint64_t seed, Kernels kernels);
  // Before they end, the vCPUs read all pages that were ever written.
  ~PagedGuest() override { Stop(); }

 private:
  // A guest on a vCPU. An access that the host could not serve is tried again.
  struct System {
    std::unique_ptr<GuestCpu> processor;
    std::unique_ptr<L1Cpu> l1_processor;
    std::unique_ptr<VirtualWorkload> program;
  };

  void Run(int index) override;
  absl::StatusOr<System> Boot(Vcpu& vcpu);

  const GpaSpace memory_;
  const uint64_t seed_;
  // The kernel for all vCPUs, if there is one. Threads use it after Start.
  absl::StatusOr<std::unique_ptr<SmpGuest>> smp_guest_ = nullptr;
};

}  // namespace mmu::stress

#endif  // TESTS_STRESS_PAGED_GUEST_H_
