#include "mmu_core/guest/kernel/physical_memory.h"

#include "absl/strings/str_format.h"

namespace mmu {

uint64_t PhysicalMemory::Load(Gpa gpa, int size_bytes) {
  uint64_t word = 0;
  Access(gpa, size_bytes, AccessKind::kRead, &word);
  return word;
}

void PhysicalMemory::Store(Gpa gpa, int size_bytes, uint64_t value) {
  Access(gpa, size_bytes, AccessKind::kWrite, &value);
}

void PhysicalMemory::ZeroPage(Gfn gfn) {
  for (uint64_t at = 0; at < kPageSize; at += 8) Store(ToGpa(gfn) + at, 8, 0);
}

void PhysicalMemory::CopyPage(Gfn from, Gfn to) {
  for (uint64_t at = 0; at < kPageSize; at += 8) {
    Store(ToGpa(to) + at, 8, Load(ToGpa(from) + at, 8));
  }
}

void PhysicalMemory::Access(Gpa gpa, int size_bytes, AccessKind kind,
                            uint64_t* word) {
  if (!status_.ok()) {
    if (kind != AccessKind::kWrite) *word = 0;
    return;
  }
  GuestPageFault fault;
  switch (cpu_.Access(direct_map_ + gpa.value(), size_bytes, kind,
                      Privilege::kSupervisor, word, &fault)) {
    case GuestCpu::Outcome::kDone:
      return;
    case GuestCpu::Outcome::kFault:
      status_ = absl::InternalError(absl::StrFormat(
          "the guest kernel's %s of its own memory at gpa 0x%x faulted: #PF "
          "error code 0x%x at 0x%x",
          std::string(ToString(kind)), gpa.value(), fault.error_code,
          fault.address.value()));
      return;
    case GuestCpu::Outcome::kError:
      status_ = cpu_.status();
      return;
  }
}

}  // namespace mmu
