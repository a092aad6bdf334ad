// A small guest kernel: processes with page tables of their own, demand paging,
// large pages, fork with copy-on-write, protection, context switches. It keeps
// its tables in guest memory and edits them with ordinary stores, so an MMU
// that shadows them sees what it sees of a real guest.
//
// What the kernel does for the TLB is the least that the architecture asks for
// (SDM vol. 3, 4.10.4): nothing when an entry appears, INVLPG when one page
// loses something, a load of CR3 when many do.

#ifndef MMU_CORE_GUEST_KERNEL_GUEST_KERNEL_H_
#define MMU_CORE_GUEST_KERNEL_GUEST_KERNEL_H_

#include <cstdint>
#include <map>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/guest/gpa_space.h"
#include "mmu_core/guest/kernel/direct_map_memory.h"
#include "mmu_core/guest/kernel/frame_allocator.h"
#include "mmu_core/guest/kernel/guest_cpu.h"
#include "mmu_core/guest/kernel/page_tables.h"
#include "mmu_core/guest/kernel/paging_geometry.h"

namespace mmu {

struct GuestKernelOptions {
  PagingGeometry geometry = PagingGeometry::k4Level;
  // Memory of programs comes in large pages where it can.
  enum class LargePages : uint8_t { kNo, kYes } large_pages = LargePages::kNo;
};

struct GuestKernelStats {
  uint64_t demand_faults = 0;
  uint64_t copies = 0;  // of pages that were shared after a fork
  uint64_t large_pages = 0;
  uint64_t large_splits = 0;
  uint64_t context_switches = 0;
  uint64_t invlpgs = 0;
};

// Thread-compatible: runs on the one vCPU that `cpu` is. Functions fail with
// RESOURCE_EXHAUSTED when the guest's memory is used up, PERMISSION_DENIED when
// a program does what its memory does not allow, INVALID_ARGUMENT for what
// names no process or is no program's memory, and as the processor does.
class GuestKernel {
 public:
  enum class Writable : uint8_t { kNo, kYes };

  // `memory` begins at or above gpa 0 and ends within what the geometry's
  // direct map has room for. `cpu` has paging off, and outlives this.
  GuestKernel(GuestCpu& cpu, const GpaSpace& memory,
              const GuestKernelOptions& options);

  // Makes the kernel's own mappings and the first process, 1, and switches
  // paging on.
  absl::Status Boot();

  // A process without memory. Its number; numbers are not used again.
  absl::StatusOr<int> CreateProcess();
  // A copy of the running process: both share all pages until one writes.
  absl::StatusOr<int> Fork();
  // Makes `process` the running one. kKeep asks the processor not to forget
  // what it knows of it; the kernel insists where that would be wrong.
  absl::Status SwitchTo(int process, Cr3Load how);
  // Frees a process that does not run.
  absl::Status Exit(int process);
  int running() const { return running_; }

  // One access of the running program to the aligned 8-byte word at `gva`.
  absl::Status Access(Gva gva, AccessKind kind, uint64_t* word);
  // Takes the pages of [gva, gva + bytes) away; the next access finds zeros.
  absl::Status Unmap(Gva gva, uint64_t bytes);
  // Only what is mapped now; what comes later is writable.
  absl::Status Protect(Gva gva, uint64_t bytes, Writable writable);

  const GuestKernelStats& stats() const { return stats_; }
  const FrameAllocator& frames() const { return frames_; }

 private:
  // Of one access: more than it takes to build what it needs.
  static constexpr int kMaxFaults = 64;

  struct Process {
    std::unique_ptr<GuestPageTables> tables;
    // Something changed while it did not run, or its root is a new one.
    bool must_flush = true;
  };

  absl::StatusOr<Process*> NewProcess(int* id);
  absl::Status MapKernel(GuestPageTables& tables);
  absl::Status HandleFault(const GuestPageFault& fault);
  absl::Status MapFresh(Gva gva);
  bool MapLarge(Gva gva);
  // The page of `gva` gets a frame of its own, and write permission.
  absl::Status Copy(Gva gva);
  // The entry of the 4 KiB page; a large one there is split.
  absl::StatusOr<GuestPte> FindSmall(Gva gva);
  absl::Status Exhausted() const;
  absl::Status CheckUserRange(Gva gva, uint64_t bytes) const;
  void DropLeaf(const GuestPte& pte);
  void Invlpg(Gva gva);
  Process& Running() { return processes_.at(running_); }

  GuestCpu& cpu_;
  const GuestKernelOptions options_;
  const GpaSpace space_;
  DirectMapMemory memory_;
  FrameAllocator frames_;
  std::map<int, Process> processes_;
  int next_process_ = 1;
  int running_ = 0;
  GuestKernelStats stats_;
};

}  // namespace mmu

#endif  // MMU_CORE_GUEST_KERNEL_GUEST_KERNEL_H_
