#include "mmu_core/vm/run/guest_system.h"

#include <algorithm>

#include "absl/memory/memory.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/format.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/guest/hypervisor/l2_program.h"
#include "mmu_core/guest/kernel/kernel_program.h"
#include "mmu_core/memory/backing.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/vm/run/guest_options.h"
#include "mmu_core/vm/run/guest_processor.h"
#include "mmu_core/vm/run/l1_processor.h"

namespace mmu {

absl::Status CheckGuestMemory(const VmCore& vm) {
  if (!GuestHasTables(vm.config)) return absl::OkStatus();
  RcuReadGuard rcu;
  for (const Memslot* slot : vm.slots.Active(0).slots()) {
    if (slot->readonly() || slot->backing->has_contents()) continue;
    return MakeError(
        absl::StatusCode::kFailedPrecondition, {Reason::kNoContents, "vm", 0},
        Format("slot %d has a metadata-only backing, and the guest keeps page "
               "tables of its own in its memory; give the slot memory, or the "
               "VM an MMU that does not look at a guest's tables",
               slot->id));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<GuestSystem>> GuestSystem::Boot(
    const VmConfig& config, Vcpu& vcpu, const GpaSpace& memory,
    const AwaitRingRoom& await) {
  auto guest = absl::WrapUnique(new GuestSystem());
  const uint64_t seed = static_cast<uint64_t>(vcpu.index()) + 1;
  if (config.mmu == MmuMode::kNested) {
    guest->l1_processor_ = std::make_unique<L1Processor>(
        vcpu, RootLevel(config), await, MissingMemory::kLost);
    absl::StatusOr<std::unique_ptr<L2Program>> program = L2Program::Start(
        *guest->l1_processor_, memory, HypervisorOptions(config, seed));
    if (!program.ok()) return program.status();
    guest->workload_ = std::move(*program);
    return guest;
  }
  const KernelProgramOptions options = KernelOptions(config, seed);
  guest->processor_ =
      std::make_unique<GuestProcessor>(vcpu, await, MissingMemory::kLost);
  // The memory that the kernel's direct map reaches.
  uint64_t pages = 0;
  const Gfn end = ToGfn(Gpa(options.kernel.geometry.max_memory_bytes));
  for (const GfnRange& range : memory.ranges()) {
    if (range.start < end) pages += std::min(range.end, end) - range.start;
  }
  absl::StatusOr<std::unique_ptr<KernelProgram>> program =
      KernelProgram::Start(*guest->processor_, memory.Slice(0, pages), options);
  if (!program.ok()) return program.status();
  guest->workload_ = std::move(*program);
  return guest;
}

absl::Status GuestSystem::Access(const GuestAccess& access, uint64_t* word) {
  if (!lost_.ok()) {
    return MakeError(
        absl::StatusCode::kFailedPrecondition, {Reason::kGuestLost, "", 0},
        absl::StrCat("the guest was stopped in the middle of a step (",
                     lost_.message(),
                     "); it cannot continue, create the VM again"));
  }
  lost_ = workload_->Access(access, word);
  return lost_;
}

}  // namespace mmu
