// Programs under one guest kernel on several CPUs, as a workload per CPU. The
// CPUs run the same processes at the same time, and all of them fork, unmap and
// protect the memory that the others use.
//
// Each CPU writes to a word of its own in each page, and reads the words of all
// (shared_words.h). A read of a wrong value is DATA_LOSS, and so is a write
// that succeeds although a CPU has made the page read-only.

#ifndef MMU_CORE_GUEST_KERNEL_SMP_GUEST_H_
#define MMU_CORE_GUEST_KERNEL_SMP_GUEST_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/guest/gpa_space.h"
#include "mmu_core/guest/kernel/guest_cpu.h"
#include "mmu_core/guest/kernel/guest_kernel.h"
#include "mmu_core/guest/kernel/program_layout.h"
#include "mmu_core/guest/kernel/shared_words.h"
#include "mmu_core/guest/virtual_workload.h"

namespace mmu {

struct SmpGuestOptions {
  GuestKernelOptions kernel = {};
  int cpus = 2;
  // Alive at a time. A fork lets one end that no CPU runs, and does nothing if
  // each is run by a CPU.
  int processes = 4;
  // Pages of one process; 0: as many as fit.
  uint64_t pages = 0;
  // CPU i writes to word first_word + i of a page.
  uint64_t first_word = 0;
  uint64_t seed = 1;

  // Average number of accesses of a CPU between two such operations; 0: never.
  uint64_t accesses_per_switch = 64;  // every second one without a flush
  uint64_t accesses_per_fork = 2048;
  uint64_t accesses_per_unmap = 128;    // of one page
  uint64_t accesses_per_clear = 2048;   // unmaps the pages of one large page
  uint64_t accesses_per_protect = 128;  // of one page; a write undoes it
};

// Thread-safe.
class SmpGuest {
 public:
  // INVALID_ARGUMENT if `memory` is too small for the programs.
  static absl::StatusOr<std::unique_ptr<SmpGuest>> Create(
      const GpaSpace& memory, const SmpGuestOptions& options);
  SmpGuest(const SmpGuest&) = delete;
  SmpGuest& operator=(const SmpGuest&) = delete;

  // Starts CPU `index`, each once, on the CPU's thread. CPU 0 boots the kernel;
  // the others wait for it, and fail with CANCELLED if it cannot. `cpu` has
  // paging off. It and this object outlive the workload, which belongs to the
  // CPU's thread, and whose end takes the CPU offline.
  //
  // An access of the workload selects a page. A write stores `*word`, which
  // must be greater than all that this CPU wrote before, at the CPU's own word
  // of the page; it is left out if another CPU keeps the page read-only. A read
  // or fetch loads a CPU's word, which the address selects as well. Verify
  // reads what this CPU wrote.
  absl::StatusOr<std::unique_ptr<VirtualWorkload>> StartCpu(int index,
                                                            GuestCpu& cpu);

  // Belongs to the CPU's thread. REQUIRES: StartCpu(index) has returned OK.
  GuestKernel& kernel(int index) {
    return *kernels_[static_cast<size_t>(index)];
  }

 private:
  class Program;
  using Words = std::shared_ptr<SharedWords>;
  enum class Booted : uint8_t { kNotYet, kYes, kFailed };

  SmpGuest(const GpaSpace& memory, const SmpGuestOptions& options,
           uint64_t pages)
      : options_(options),
        memory_(memory),
        layout_(options.kernel.geometry, pages),
        kernels_(static_cast<size_t>(options.cpus)) {}

  absl::Status BootCpu(int index, GuestCpu& cpu);
  // The contents of a process; null if it has ended.
  Words Find(int process);
  void Add(int process, Words words);
  void Remove(int process);
  std::map<int, Words> All();

  const SmpGuestOptions options_;
  const GpaSpace memory_;
  const ProgramLayout layout_;
  std::atomic<Booted> booted_{Booted::kNotYet};
  // By CPU; each is made by its CPU's thread.
  std::vector<std::unique_ptr<GuestKernel>> kernels_;
  std::atomic<bool> forking_{false};  // by one CPU at a time
  Mutex mu_;                          // held for a look only
  std::map<int, Words> processes_ ABSL_GUARDED_BY(mu_);
};

}  // namespace mmu

#endif  // MMU_CORE_GUEST_KERNEL_SMP_GUEST_H_
