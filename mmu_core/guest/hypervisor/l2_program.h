// An L2 guest under a hypervisor in L1, as a workload: a stream's addresses are
// nested guest-physical ones, whose pages the hypervisor hands out, moves,
// merges, splits, protects and takes away.

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
  // A max_page that does not fit into L1's memory becomes smaller.
  L1HypervisorOptions hypervisor = {};
  // A multiple of 512; 0 is as many as fit.
  uint64_t pages = 0;
  uint64_t seed = 1;
  ReadCheck check = ReadCheck::kNo;

  // After so many accesses each, on average; 0 is never. Each concerns one page
  // but the last, which is L1's dirty log of all of them.
  uint64_t accesses_per_unmap = 1024;
  uint64_t accesses_per_protect = 1024;  // what L2 needs then it gets back
  uint64_t accesses_per_remap = 1024;
  uint64_t accesses_per_promote = 4096;
  uint64_t accesses_per_demote = 4096;
  uint64_t accesses_per_take_dirty = 16384;
};

// Deterministic in its arguments: the same accesses under the same options on
// any processor do the same. Thread-compatible.
class L2Program final : public VirtualWorkload {
 public:
  // Starts a hypervisor in `memory`, of which L2 gets what is left when L1 has
  // its tables. INVALID_ARGUMENT if that is less than `pages` or 512 pages;
  // otherwise as L1Hypervisor. `cpu` is in L1, and outlives the program.
  static absl::StatusOr<std::unique_ptr<L2Program>> Start(
      L1Cpu& cpu, const GpaSpace& memory, const L2ProgramOptions& options);

  // DATA_LOSS with ReadCheck::kYes also if L1's dirty log lacks a page.
  absl::Status Access(const GuestAccess& access, uint64_t* word) override;
  uint64_t program_pages() const override { return pages_; }
  absl::Status Verify() override;

  // With ReadCheck::kYes: what L2's memory holds, by nested gpa, which begins
  // at 0.
  const ReferenceMemory& contents() const { return contents_; }
  uint64_t ExpectedWord(Gpa nested) const {
    return contents_.Expected(nested.value());
  }
  L1Hypervisor& hypervisor() { return hypervisor_; }

 private:
  L2Program(L1Cpu& cpu, const GpaSpace& memory, const L2ProgramOptions& options,
            uint64_t pages);

  // Asks L1 for the page if it is protected.
  absl::Status AccessWithRights(Gpa nested, AccessKind kind, uint64_t* word);
  // What happens between two accesses.
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
  std::set<Gfn> written_;  // since L1 looked into its dirty log
};

}  // namespace mmu

#endif  // MMU_CORE_GUEST_HYPERVISOR_L2_PROGRAM_H_
