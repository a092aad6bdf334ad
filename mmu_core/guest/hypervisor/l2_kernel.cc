#include "mmu_core/guest/hypervisor/l2_kernel.h"

#include <utility>

#include "absl/memory/memory.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/guest/gpa_space.h"
#include "mmu_core/guest/guest_access.h"

namespace mmu {

absl::StatusOr<std::unique_ptr<L2Kernel>> L2Kernel::Start(
    L1Hypervisor& l1, const Options& options) {
  auto started = absl::WrapUnique(new L2Kernel(l1, options));
  absl::StatusOr<std::unique_ptr<KernelProgram>> program = KernelProgram::Start(
      started->cpu_, *GpaSpace::Create({GfnRange::Of(Gfn(0), kPages)}),
      {.kernel = {.large_pages = options.large_pages},
       .processes = kPrograms,
       .pages = 16,
       .seed = options.seed,
       .check = ReadCheck::kYes,
       .accesses_per_switch = 32,
       .accesses_per_fork = 64,
       .accesses_per_unmap = 8,
       .accesses_per_protect = 8});
  if (!program.ok()) return program.status();
  started->program_ = *std::move(program);
  return started;
}

absl::Status L2Kernel::Step() {
  GuestAccess access;
  access.address_bytes =
      random_() % program_->program_pages() * kPageSize + word_ * 8;
  access.size_bytes = 8;
  access.kind = random_() % 2 == 0 ? AccessKind::kWrite : AccessKind::kRead;
  uint64_t word = ++last_value_;
  return program_->Access(access, &word);
}

}  // namespace mmu
