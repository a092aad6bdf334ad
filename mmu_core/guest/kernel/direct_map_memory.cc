#include "mmu_core/guest/kernel/direct_map_memory.h"

#include <string>

#include "mmu_core/base/format.h"

namespace mmu {

absl::Status DirectMapMemory::Access(Gpa gpa, int size_bytes, AccessKind kind,
                                     uint64_t* word) {
  GuestPageFault fault;
  switch (cpu_->Access(direct_map_ + gpa.value(), size_bytes, kind,
                       Privilege::kSupervisor, word, &fault)) {
    case GuestCpu::Outcome::kDone:
      break;
    case GuestCpu::Outcome::kFault:
      return absl::InternalError(Format(
          "the guest kernel's %s of its own memory at gpa 0x%x faulted: #PF "
          "error code 0x%x at 0x%x",
          std::string(ToString(kind)), gpa.value(), fault.error_code,
          fault.address.value()));
    case GuestCpu::Outcome::kError:
      return cpu_->status();
  }
  return absl::OkStatus();
}

}  // namespace mmu
