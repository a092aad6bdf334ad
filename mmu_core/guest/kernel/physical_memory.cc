#include "mmu_core/guest/kernel/physical_memory.h"

namespace mmu {

uint64_t PhysicalMemory::Load(Gpa gpa, int size_bytes) {
  uint64_t word = 0;
  if (status_.ok()) status_ = Access(gpa, size_bytes, AccessKind::kRead, &word);
  return status_.ok() ? word : 0;
}

void PhysicalMemory::Store(Gpa gpa, int size_bytes, uint64_t value) {
  if (!status_.ok()) return;
  status_ = Access(gpa, size_bytes, AccessKind::kWrite, &value);
}

void PhysicalMemory::ZeroPage(Gfn gfn) {
  for (uint64_t at = 0; at < kPageSize; at += 8) Store(ToGpa(gfn) + at, 8, 0);
}

void PhysicalMemory::CopyPage(Gfn from, Gfn to) {
  for (uint64_t at = 0; at < kPageSize; at += 8) {
    Store(ToGpa(to) + at, 8, Load(ToGpa(from) + at, 8));
  }
}

}  // namespace mmu
