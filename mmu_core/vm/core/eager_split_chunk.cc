#include "mmu_core/vm/core/eager_split_chunk.h"

#include <atomic>
#include <cerrno>

#include "mmu_core/base/error.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/vm/core/stage2_check.h"
#include "mmu_core/vm/core/vm_config.h"

namespace mmu {
namespace {

constexpr char kField[] = "stage2.eager_split_chunk_bytes";

}  // namespace

uint64_t EagerSplitChunk(const VmCore& vm) {
  if (vm.stage2 == nullptr) return 0;
  return vm.stage2->eager_split_chunk_bytes().load(std::memory_order_relaxed);
}

absl::Status SetEagerSplitChunk(VmCore& vm, uint64_t bytes) {
  if (!RunsOnStage2(vm.config)) {
    return MakeError(absl::StatusCode::kInvalidArgument,
                     {Reason::kInvalidMmuOption, kField, EINVAL},
                     "eager_split_chunk_bytes cannot be set: this VM has no "
                     "stage-2 tables, and only those are split in chunks; "
                     "create a VM with stage2");
  }
  if (absl::Status s =
          CheckEagerSplitChunk(vm.config.stage2.granule_bytes, bytes, kField);
      !s.ok()) {
    return s;
  }
  MutexLock slots(vm.slots.slots_lock);
  vm.stage2->eager_split_chunk_bytes().store(bytes, std::memory_order_relaxed);
  return absl::OkStatus();
}

}  // namespace mmu
