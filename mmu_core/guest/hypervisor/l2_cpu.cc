#include "mmu_core/guest/hypervisor/l2_cpu.h"

#include "mmu_core/base/check.h"
#include "mmu_core/guest_paging/control_registers.h"
#include "mmu_core/guest_paging/cpu_role.h"

namespace mmu {

GuestCpu::Outcome L2Cpu::Access(Gva gva, int size_bytes, AccessKind kind,
                                Privilege privilege, uint64_t* word,
                                GuestPageFault* fault) {
  MMU_CHECK(size_bytes == 8);
  l1_.Select(guest_);
  const GuestWalkResult walk = walker_.Walk(
      words_, root_, gva.value(), {.kind = kind, .privilege = privilege});
  if (!status_.ok()) return Outcome::kError;
  if (!walk.translated()) {
    *fault = {.address = gva, .error_code = walk.fault.code};
    return Outcome::kFault;
  }
  const Gpa nested = ToGpa(walk.gfn) + (gva.value() & kPageMask);
  return AccessNested(nested, kind, NestedTarget::kPage, word)
             ? Outcome::kDone
             : Outcome::kError;
}

void L2Cpu::EnablePaging(const PagingGeometry& geometry, Gpa cr3) {
  MMU_CHECK(geometry.levels >= 4);
  GuestPagingState state;
  state.cr0 = kCr0Pg | kCr0Wp;
  state.cr4 = kCr4Pae | (geometry.levels == 5 ? kCr4La57 : 0);
  state.efer = kEferNx | kEferLma;
  walker_ = GuestWalker(GuestTables::kLegacy, LegacyCpuRole(state), {});
  LoadCr3(cr3, /*pcid=*/0, Cr3Load::kFlush);
}

void L2Cpu::LoadCr3(Gpa cr3, Pcid, Cr3Load) { root_ = {.table = ToGfn(cr3)}; }

void L2Cpu::Invlpg(Gva) {}

void L2Cpu::InvalidatePcid(Invpcid, Pcid, Gva) {}

bool L2Cpu::AccessNested(Gpa nested, AccessKind kind, NestedTarget target,
                         uint64_t* word) {
  if (status_.ok()) status_ = l1_.AccessGranting(nested, kind, word, target);
  return status_.ok();
}

GuestWordResult L2Cpu::Words::Read(Gpa gpa, WordSize size, uint64_t* value) {
  MMU_CHECK(size == WordSize::k8);
  uint64_t entry = 0;
  const auto access = [&](AccessKind kind) {
    return cpu_.AccessNested(gpa, kind, NestedTarget::kGuestTable, &entry);
  };
  if (!access(AccessKind::kRead) ||
      // The write of the same value needs the right that the walk needs.
      (cpu_.l1_.options().HasDirtyBits() && !access(AccessKind::kWrite))) {
    return GuestWordResult::kNoSlot;
  }
  *value = entry;
  return GuestWordResult::kDone;
}

GuestWordResult L2Cpu::Words::CompareExchange(Gpa gpa, WordSize size,
                                              uint64_t expected,
                                              uint64_t desired) {
  uint64_t value = 0;
  const GuestWordResult read = Read(gpa, size, &value);
  if (read != GuestWordResult::kDone) return read;
  if (value != expected) return GuestWordResult::kChanged;
  return cpu_.AccessNested(gpa, AccessKind::kWrite, NestedTarget::kGuestTable,
                           &desired)
             ? GuestWordResult::kDone
             : GuestWordResult::kNoSlot;
}

}  // namespace mmu
