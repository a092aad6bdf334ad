// A small guest kernel: processes with their own page tables, demand paging,
// large pages, fork with copy-on-write, protection, context switches. It keeps
// its tables in guest memory and edits them with ordinary stores, so an MMU
// that shadows these tables sees the same as with a real guest.
//
// The kernel runs on one CPU or on several. All of them may run the same
// process. Programs access memory without any lock, while another CPU edits the
// tables that they use. Operations of the kernel, page faults included, hold
// the kernel's lock (guest/guest_lock.h).
//
// Each CPU invalidates what the architecture requires, and nothing more (SDM
// vol. 3, 4.10.4):
//   - nothing when an entry appears or gains a right, because a page fault
//     drops what the processor has cached of the address;
//   - INVLPG when a page loses something, when it becomes small pages, and when
//     a table goes, even if it has no present entry: the processor may have
//     cached the entry that points to it;
//   - a load of CR3 when many pages lose something, and when a PDPTE of PAE
//     paging appears.
//
// A change that other CPUs may have cached is followed by a TLB shootdown: the
// CPU interrupts those that run the process, and with Cached::kInterrupt those
// that have it cached under a PCID, and waits until all have invalidated.
// Interrupts are taken between two accesses of a program, and in each wait for
// another CPU. Pages and tables are freed after the shootdown only.
//
// While it waits, a CPU relaxes again and again (GuestCpu::Relax). So the host
// may let any CPU stand still at any access, and those that wait for it can
// stand still meanwhile: none of them holds a lock of the host.

#ifndef MMU_CORE_GUEST_KERNEL_GUEST_KERNEL_H_
#define MMU_CORE_GUEST_KERNEL_GUEST_KERNEL_H_

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/guest/gpa_space.h"
#include "mmu_core/guest/kernel/frame_allocator.h"
#include "mmu_core/guest/kernel/guest_cpu.h"
#include "mmu_core/guest/kernel/guest_kernel_options.h"
#include "mmu_core/guest/kernel/guest_process.h"
#include "mmu_core/guest/kernel/kernel_cpu.h"
#include "mmu_core/guest/kernel/kernel_state.h"
#include "mmu_core/guest/kernel/page_tables.h"
#include "mmu_core/guest/kernel/tlb_invalidation.h"

namespace mmu {

// What one CPU did.
struct GuestKernelStats {
  uint64_t demand_faults = 0;
  uint64_t copies = 0;  // of pages that were shared after a fork
  uint64_t large_pages = 0;
  uint64_t large_splits = 0;
  uint64_t tables_freed = 0;  // of processes that live on
  uint64_t context_switches = 0;
  uint64_t shootdowns = 0;  // that interrupted another CPU
};

// The kernel as it runs on one CPU. Thread-compatible: belongs to the CPU's
// thread. The objects of several CPUs are used by several threads. A CPU goes
// offline before its object is destroyed, unless no other uses the kernel after
// that.
//
// Functions fail with RESOURCE_EXHAUSTED if the guest's memory is used up,
// PERMISSION_DENIED if a program does something that its memory does not allow,
// INVALID_ARGUMENT for an unknown process or an address outside of programs'
// memory, FAILED_PRECONDITION for a process that runs on some CPU, and with the
// processor's own errors. If a processor fails in the middle of an operation of
// the kernel, the whole guest is lost, and each later operation fails with the
// same error.
class GuestKernel {
 public:
  enum class Writable : uint8_t { kNo, kYes };

  // The first CPU. `memory` begins at or above gpa 0 and fits into the
  // geometry's direct map. `cpu` has paging off, and outlives this object.
  GuestKernel(GuestCpu& cpu, const GpaSpace& memory,
              const GuestKernelOptions& options);
  // Another CPU of the kernel `first`, with paging off as well.
  GuestKernel(GuestCpu& cpu, const GuestKernel& first);
  GuestKernel(const GuestKernel&) = delete;
  GuestKernel& operator=(const GuestKernel&) = delete;

  // On the first CPU, makes the kernel's own mappings and the first process,
  // number 1. On every CPU, switches paging on and runs the first of the
  // processes. REQUIRES: the first CPU has booted before another one does.
  absl::Status Boot();
  // The CPU runs nothing any more and takes no interrupts, so that others need
  // not wait for it. To be called by a CPU's thread before it ends while others
  // go on. Waits for the operation of another CPU, also if the guest is lost.
  void GoOffline();

  // Makes a process without memory. Returns its number; numbers are not reused.
  absl::StatusOr<int> CreateProcess();
  // Makes a copy of the running process: both share each page until one writes
  // to it.
  absl::StatusOr<int> Fork();
  // Makes `process` the running one of this CPU. kKeep asks the processor to
  // keep the translations of `process`; the kernel drops them nevertheless
  // where keeping them would be wrong.
  absl::Status SwitchTo(int process, Cr3Load how);
  // Frees a process that runs on no CPU.
  absl::Status Exit(int process);
  int running() const { return cpu_.running(); }

  // Makes one access of the running program to the aligned 8-byte word at
  // `gva`. Takes interrupts before.
  absl::Status Access(Gva gva, AccessKind kind, uint64_t* word);
  // Unmaps the pages of [gva, gva + bytes); the next access finds zeros. Frees
  // the last tables that map nothing outside of the range. Afterwards no CPU
  // can access the pages that were there.
  absl::Status Unmap(Gva gva, uint64_t bytes);
  // Affects only pages that are mapped now; pages mapped later are writable.
  // After kNo, no CPU can write.
  absl::Status Protect(Gva gva, uint64_t bytes, Writable writable);

  // Does what other CPUs ask for. For a CPU that makes no accesses for a while.
  void TakeInterrupts() { cpu_.TakeInterrupts(); }

  const GuestKernelStats& stats() const { return stats_; }
  const KernelCpuStats& cpu_stats() const { return cpu_.stats(); }
  // REQUIRES: no CPU is in the kernel.
  const FrameAllocator& frames() const { return state_->frames; }

 private:
  class Section;

  // The limit of faults per access: more than mapping the access needs.
  static constexpr int kMaxFaults = 64;

  // Changes of a process's tables that other CPUs may not know of yet, and the
  // frames that become free when they do.
  struct Change {
    TlbInvalidation stale;
    std::vector<std::pair<Gfn, uint64_t>> freed;  // first frame, count
  };

  // All of these are called in a Section.
  absl::Status BootFirst();
  absl::StatusOr<GuestProcess*> NewProcess();
  absl::Status MapKernel(GuestPageTables& tables);
  absl::StatusOr<int> ForkRunning();
  absl::Status ExitProcess(int process);
  absl::Status HandleFault(const GuestPageFault& fault);
  absl::Status MapFresh(Gva gva);
  bool MapLarge(Gva gva);
  // Gives the page of `gva` its own frame, and write permission.
  absl::Status Copy(Gva gva);
  // The entry of the 4 KiB page; a large page is split first.
  absl::StatusOr<GuestPte> FindSmall(Gva gva);
  absl::Status UnmapPages(Gva gva, Gva end);
  void FreeTables(Gva gva, Gva end, Change* change);
  absl::Status ProtectPages(Gva gva, Gva end, Writable writable);
  // Lets all CPUs know of `change` of the running process; then frees.
  absl::Status Finish(const Change& change);
  absl::Status Shootdown(const TlbInvalidation& what);
  absl::Status Exhausted() const;

  absl::Status CheckUserRange(Gva gva, uint64_t bytes) const;
  bool RunsSomewhere(int process) const;
  uint64_t FramesOf(const GuestPte& pte) const {
    return state_->options.geometry.BytesPerEntry(pte.level) / kPageSize;
  }
  GuestProcess& Running() { return *state_->processes.at(cpu_.running()); }
  GuestPageTables& tables() { return Running().tables; }

  const std::shared_ptr<KernelState> state_;
  KernelCpu cpu_;
  GuestKernelStats stats_;
};

}  // namespace mmu

#endif  // MMU_CORE_GUEST_KERNEL_GUEST_KERNEL_H_
