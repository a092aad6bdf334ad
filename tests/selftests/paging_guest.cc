#include "tests/selftests/paging_guest.h"

#include "mmu_core/base/check.h"
#include "mmu_core/guest/kernel/guest_cpu.h"
#include "mmu_core/vm/vm_state.h"

namespace mmu::testing {

PagingGuest::PagingGuest(Vm& vm, const PagingGeometry& geometry)
    : geometry_(geometry),
      cpu_(*vm.state().vcpus[0]),
      memory_(cpu_),
      frames_(vm.GuestSpace()),
      tables_(geometry, memory_, frames_) {
  MMU_CHECK(tables_.Create());
  const uint64_t bytes = vm.GuestSpace().size_bytes();
  for (uint64_t gpa = 0; gpa < bytes; gpa += geometry.LargePageBytes()) {
    Map(geometry.direct_map + gpa, ToGfn(Gpa(gpa)),
        gpte::kPresent | gpte::kWrite | gpte::kPageSize | gpte::kAccessed |
            gpte::kDirty,
        2);
  }
  cpu_.EnablePaging(geometry, tables_.root());
  memory_.SetDirectMap(geometry.direct_map);
}

void PagingGuest::Map(Gva gva, Gfn gfn, uint64_t bits, int level) {
  MMU_CHECK(tables_.Set(gva, level, ToGpa(gfn).value() | bits));
  MMU_CHECK(memory_.status().ok());
}

Gfn PagingGuest::NewPage() {
  const std::optional<FrameAllocator::Frame> frame = frames_.Allocate();
  MMU_CHECK(frame.has_value() && !frame->recycled);
  return frame->gfn;
}

std::optional<uint64_t> PagingGuest::Access(Gva gva, AccessKind kind,
                                            Privilege privilege,
                                            uint64_t* word) {
  uint64_t own = 0x5a;
  GuestPageFault fault;
  switch (cpu_.Access(gva, 8, kind, privilege, word != nullptr ? word : &own,
                      &fault)) {
    case GuestCpu::Outcome::kDone:
      return std::nullopt;
    case GuestCpu::Outcome::kFault:
      MMU_CHECK(fault.address == gva);
      return fault.error_code;
    case GuestCpu::Outcome::kError:
      break;
  }
  MMU_CHECK(false);
  return std::nullopt;
}

uint64_t PagingGuest::ValueAt(Gva gva, Privilege who) {
  uint64_t word = 0;
  MMU_CHECK(!Access(gva, AccessKind::kRead, who, &word).has_value());
  return word;
}

void PagingGuest::SetProtection(bool wp, bool smep) {
  GuestPagingState state = cpu_.control_registers();
  state.cr0 = (state.cr0 & ~kCr0Wp) | (wp ? kCr0Wp : 0);
  state.cr4 = (state.cr4 & ~kCr4Smep) | (smep ? kCr4Smep : 0);
  cpu_.SetControlRegisters(state);
}

}  // namespace mmu::testing
