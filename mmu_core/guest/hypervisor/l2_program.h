// An L2 guest under a hypervisor in L1, as a workload. The stream's addresses
// are nested guest-physical ones; the hypervisor maps, moves, merges, splits,
// protects and unmaps their pages.

#ifndef MMU_CORE_GUEST_HYPERVISOR_L2_PROGRAM_H_
#define MMU_CORE_GUEST_HYPERVISOR_L2_PROGRAM_H_

#include <cstdint>
#include <memory>
#include <set>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/guest/gpa_space.h"
#include "mmu_core/guest/guest_access.h"
#include "mmu_core/guest/hypervisor/l1_cpu.h"
#include "mmu_core/guest/hypervisor/l1_hypervisor.h"
#include "mmu_core/guest/random.h"
#include "mmu_core/guest/reference_memory.h"
#include "mmu_core/guest/virtual_workload.h"

namespace mmu {

struct L2ProgramOptions {
  // A max_page that does not fit into L1's memory is reduced.
  L1HypervisorOptions hypervisor = {};
  // A multiple of 512; 0: as many as fit.
  uint64_t pages = 0;
  uint64_t seed = 1;
  ReadCheck check = ReadCheck::kNo;

  // Average number of accesses between two such operations; 0: never. Each
  // operation concerns one page, except the last, which reads L1's dirty log of
  // all pages.
  uint64_t accesses_per_unmap = 1024;
  uint64_t accesses_per_protect = 1024;  // L2 gets the right back on need
  uint64_t accesses_per_remap = 1024;
  uint64_t accesses_per_promote = 4096;
  uint64_t accesses_per_demote = 4096;
  uint64_t accesses_per_take_dirty = 16384;
};

// Deterministic: the same accesses with the same options have the same effects
// on any processor. Thread-compatible.
class L2Program final : public VirtualWorkload {
 public:
  // Starts a hypervisor in `memory`; L2 gets the memory that L1's tables leave.
  // INVALID_ARGUMENT if that is less than `pages` or 512 pages; otherwise the
  // errors of L1Hypervisor. `cpu` is in L1, and outlives the program.
  static absl::StatusOr<std::unique_ptr<L2Program>> Start(
      L1Cpu& cpu, const GpaSpace& memory, const L2ProgramOptions& options);

  // With ReadCheck::kYes, DATA_LOSS also if L1's dirty log lacks a page.
  absl::Status Access(const GuestAccess& access, uint64_t* word) override;
  uint64_t program_pages() const override { return pages_; }
  absl::Status Verify() override;

  // With ReadCheck::kYes: the contents of L2's memory by nested gpa, which
  // begins at 0.
  const ReferenceMemory& contents() const { return contents_; }
  uint64_t ExpectedWord(Gpa nested) const {
    return contents_.Expected(nested.value());
  }
  L1Hypervisor& hypervisor() { return hypervisor_; }

 private:
  L2Program(L1Cpu& cpu, const GpaSpace& memory, const L2ProgramOptions& options,
            uint64_t pages);

  // The operations that are due between two accesses.
  absl::Status Housekeeping();
  absl::Status TakeDirty();
  bool Due(uint64_t accesses) {
    return accesses != 0 && UniformBelow(random_, accesses) == 0;
  }
  Gpa AnyPage() { return ToGpa(Gfn(UniformBelow(random_, pages_))); }

  const L2ProgramOptions options_;
  const uint64_t pages_;
  L1Hypervisor hypervisor_;
  Rng random_;
  ReferenceMemory contents_;
  std::set<Gfn> written_;  // since the last read of L1's dirty log
};

}  // namespace mmu

#endif  // MMU_CORE_GUEST_HYPERVISOR_L2_PROGRAM_H_
