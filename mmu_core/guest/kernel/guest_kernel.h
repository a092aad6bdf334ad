// A small guest kernel: processes with their own page tables, demand paging,
// large pages, fork with copy-on-write, protection, context switches. It keeps
// its tables in guest memory and edits them with ordinary stores, so an MMU
// that shadows these tables sees the same as with a real guest.
//
// The kernel invalidates the TLB only where the architecture requires it (SDM
// vol. 3, 4.10.4): nothing when an entry appears, INVLPG when one page loses
// something, a load of CR3 when many pages do.

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
  // Programs' memory is mapped in large pages where possible.
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
// RESOURCE_EXHAUSTED if the guest's memory is used up, PERMISSION_DENIED if a
// program does something that its memory does not allow, INVALID_ARGUMENT for
// an unknown process or an address outside of programs' memory, and with the
// processor's own errors.
class GuestKernel {
 public:
  enum class Writable : uint8_t { kNo, kYes };

  // `memory` begins at or above gpa 0 and fits into the geometry's direct map.
  // `cpu` has paging off, and outlives this object.
  GuestKernel(GuestCpu& cpu, const GpaSpace& memory,
              const GuestKernelOptions& options);

  // Makes the kernel's own mappings and the first process, number 1, and
  // switches paging on.
  absl::Status Boot();

  // Makes a process without memory. Returns its number; numbers are not reused.
  absl::StatusOr<int> CreateProcess();
  // Makes a copy of the running process: both share each page until one writes
  // to it.
  absl::StatusOr<int> Fork();
  // Makes `process` the running one. kKeep asks the processor to keep the TLB
  // entries of `process`; the kernel flushes nevertheless where keeping them
  // would be wrong.
  absl::Status SwitchTo(int process, Cr3Load how);
  // Frees a process that is not the running one.
  absl::Status Exit(int process);
  int running() const { return running_; }

  // Makes one access of the running program to the aligned 8-byte word at
  // `gva`.
  absl::Status Access(Gva gva, AccessKind kind, uint64_t* word);
  // Unmaps the pages of [gva, gva + bytes); the next access finds zeros.
  absl::Status Unmap(Gva gva, uint64_t bytes);
  // Affects only pages that are mapped now; pages mapped later are writable.
  absl::Status Protect(Gva gva, uint64_t bytes, Writable writable);

  const GuestKernelStats& stats() const { return stats_; }
  const FrameAllocator& frames() const { return frames_; }

 private:
  // The limit of faults per access: more than mapping the access needs.
  static constexpr int kMaxFaults = 64;

  struct Process {
    std::unique_ptr<GuestPageTables> tables;
    // Its tables changed while it did not run, or its root is new.
    bool must_flush = true;
  };

  absl::StatusOr<Process*> NewProcess(int* id);
  absl::Status MapKernel(GuestPageTables& tables);
  absl::Status HandleFault(const GuestPageFault& fault);
  absl::Status MapFresh(Gva gva);
  bool MapLarge(Gva gva);
  // Gives the page of `gva` its own frame, and write permission.
  absl::Status Copy(Gva gva);
  // The entry of the 4 KiB page; a large page is split first.
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
