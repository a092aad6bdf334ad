#include "mmu_core/vm/logging/find_log.h"

#include <cerrno>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/base/with_memory.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/sync/rcu.h"

namespace mmu {

absl::StatusOr<std::shared_ptr<VmDirtyLog>> LogOf(const VmCore& vm) {
  std::shared_ptr<VmDirtyLog> log = vm.dirty_log.GetOn();
  if (log == nullptr) return DirtyLogOff();
  return log;
}

absl::Status Admit(VmDirtyLog& log, const LogCall& call) {
  return WithMemory("vm", "look at the dirty log",
                    [&] { return log.log.Admit(call); });
}

absl::Status NoSuchSlot(uint32_t slot) {
  return MakeError(absl::StatusCode::kNotFound,
                   {Reason::kMemslotNotFound, "slot", ENOENT},
                   absl::StrCat("there is no slot ", slot,
                                "; see the VM's list of memslots"));
}

absl::Status OrNoSuchSlot(const VmCore& vm, uint32_t slot,
                          absl::Status status) {
  if (status.ok()) return status;
  RcuReadGuard rcu;
  return vm.slots.Active(0).FindById(slot) != nullptr ? status
                                                      : NoSuchSlot(slot);
}

}  // namespace mmu
