// Programs under a guest's kernel, as a workload. The stream's addresses are
// addresses of processes; the kernel schedules and forks the processes and
// changes their memory.
//
//   an access's address   selects the place in a program
//   the schedule          selects the process, from the seed

#ifndef MMU_CORE_GUEST_KERNEL_KERNEL_PROGRAM_H_
#define MMU_CORE_GUEST_KERNEL_KERNEL_PROGRAM_H_

#include <cstdint>
#include <map>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "mmu_core/base/address.h"
#include "mmu_core/guest/gpa_space.h"
#include "mmu_core/guest/guest_access.h"
#include "mmu_core/guest/kernel/guest_cpu.h"
#include "mmu_core/guest/kernel/guest_kernel.h"
#include "mmu_core/guest/kernel/program_layout.h"
#include "mmu_core/guest/random.h"
#include "mmu_core/guest/reference_memory.h"
#include "mmu_core/guest/virtual_workload.h"

namespace mmu {

struct KernelProgramOptions {
  GuestKernelOptions kernel = {};
  int processes = 3;  // processes alive at a time
  // Pages of one process; 0: as many as fit.
  uint64_t pages = 0;
  uint64_t seed = 1;
  ReadCheck check = ReadCheck::kNo;

  // Average number of accesses between two such operations; 0: never.
  uint64_t accesses_per_switch = 256;  // every second one without a flush
  // Copies the running process; another process ends if there would be too
  // many.
  uint64_t accesses_per_fork = 16384;
  uint64_t accesses_per_unmap = 1024;    // of one page
  uint64_t accesses_per_protect = 1024;  // of one page; a write undoes it
};

// Deterministic: the same accesses with the same options have the same effects
// on any processor. Thread-compatible.
class KernelProgram final : public VirtualWorkload {
 public:
  // Boots a kernel in `memory` and starts the processes. Each process may use
  // `pages`, all with different contents; the page tables and the kernel's own
  // memory come on top. INVALID_ARGUMENT if `memory` is too small for that, or
  // for 16 pages each; otherwise the errors of GuestKernel. `cpu` has paging
  // off, and outlives the program.
  static absl::StatusOr<std::unique_ptr<KernelProgram>> Start(
      GuestCpu& cpu, const GpaSpace& memory,
      const KernelProgramOptions& options);

  absl::Status Access(const GuestAccess& access, uint64_t* word) override;
  uint64_t program_pages() const override { return layout_.pages(); }
  absl::Status Verify() override;

  // The address of page `page` of a program. REQUIRES: page < program_pages().
  Gva GvaOf(uint64_t page) const { return layout_.GvaOf(page); }

  // With ReadCheck::kYes: the contents of each process's memory by gva.
  const std::map<int, ReferenceMemory>& contents() const { return contents_; }
  uint64_t ExpectedWord(int process, Gva gva) const {
    return contents_.at(process).Expected(gva.value());
  }
  GuestKernel& kernel() { return kernel_; }

 private:
  KernelProgram(GuestCpu& cpu, const GpaSpace& memory,
                const KernelProgramOptions& options, uint64_t pages);

  absl::Status CreateProcesses();
  // The operations that are due between two accesses.
  absl::Status Housekeeping();
  absl::Status SwitchToAny();
  absl::Status Fork();
  bool Due(uint64_t accesses) {
    return accesses != 0 && UniformBelow(random_, accesses) == 0;
  }
  int AnyProcess();
  Gva AnyPage() { return GvaOf(UniformBelow(random_, program_pages())); }

  const KernelProgramOptions options_;
  const ProgramLayout layout_;
  GuestKernel kernel_;
  Rng random_;
  // One per process; empty without a check.
  std::map<int, ReferenceMemory> contents_;
};

}  // namespace mmu

#endif  // MMU_CORE_GUEST_KERNEL_KERNEL_PROGRAM_H_
