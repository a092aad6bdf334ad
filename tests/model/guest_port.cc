#include "tests/model/guest_port.h"

#include <cstddef>

#include "absl/strings/str_cat.h"
#include "mmu_core/base/address.h"
#include "mmu_core/guest/kernel/guest_cpu.h"
#include "mmu_core/guest_paging/guest_walker.h"
#include "mmu_core/vm/core/noted_pages.h"
#include "mmu_core/vm/logging/dirty_rings.h"
#include "mmu_core/vm/vcpu/vcpu.h"
#include "mmu_core/vm/vm_state.h"

namespace mmu::testing {
namespace {

size_t At(int vcpu) { return static_cast<size_t>(vcpu); }

GuestPagingState ControlRegisters(const ModelConfig& config) {
  using Mode = GuestPagingConfig::Mode;
  GuestPagingState state;
  state.cr0 = kCr0Pg | (config.wp ? kCr0Wp : 0);
  state.cr4 = (config.smep ? kCr4Smep : 0) | (config.smap ? kCr4Smap : 0);
  if (config.paging == Mode::k32Bit) {
    state.cr4 |= kCr4Pse;
    return state;
  }
  state.cr4 |= kCr4Pae;
  state.efer = kEferNx;
  if (config.paging == Mode::kPae) return state;
  state.efer |= kEferLma;
  if (config.paging == Mode::k5Level) state.cr4 |= kCr4La57;
  return state;
}

}  // namespace

GuestPort::GuestPort(Vm& vm, const ModelConfig& config)
    : vm_(vm),
      config_(config),
      format_(config),
      shadow_(config.vm.mmu == MmuMode::kShadow),
      spaces_(At(config.vcpus)),
      roots_(At(config.vcpus)),
      in_l2_(At(config.vcpus)) {
  const auto room = [this] { return MakeRingRoom(); };
  for (const auto& vcpu : vm.state().vcpus) {
    if (shadow_) {
      processors_.push_back(std::make_unique<GuestProcessor>(*vcpu, room));
    } else if (config.vm.mmu == MmuMode::kNested) {
      hypervisors_.push_back(
          std::make_unique<L1Processor>(*vcpu, RootLevel(config.vm), room));
    }
  }
}

void GuestPort::Fail(const std::string& what) {
  if (error_.empty()) error_ = what;
}

bool GuestPort::MakeRingRoom() {
  HarvestDirtyRings(vm_.state());
  return ResetDirtyRings(
             vm_.state(), [] { return false; }, nullptr)
      .ok();
}

AccessOutcome GuestPort::AccessByGpa(int vcpu, uint64_t gpa_bytes,
                                     AccessKind kind, uint64_t* word) {
  if (!hypervisors_.empty() && in_l2_[At(vcpu)]) {
    hypervisors_[At(vcpu)]->LeaveL2();
    in_l2_[At(vcpu)] = false;
  }
  Vcpu& cpu = *vm_.state().vcpus[At(vcpu)];
  AccessOutcome outcome = cpu.Access(Gpa(gpa_bytes), kind, word);
  while (outcome == AccessOutcome::kDirtyRingFull && MakeRingRoom()) {
    outcome = cpu.ContinueAccess(Gpa(gpa_bytes), kind, word);
  }
  if (outcome == AccessOutcome::kError) Fail(cpu.status().ToString());
  return outcome;
}

AccessOutcome GuestPort::Access(int vcpu, uint64_t page, AccessKind kind,
                                uint64_t* word) {
  if (!shadow_) return AccessByGpa(vcpu, page << kPageShift, kind, word);
  GuestPageFault fault;
  GuestProcessor& cpu = *processors_[At(vcpu)];
  switch (cpu.Access(Gva(DirectMap(format_) + (page << kPageShift)), 8, kind,
                     Privilege::kSupervisor, word, &fault)) {
    case GuestCpu::Outcome::kDone:
      return AccessOutcome::kDone;
    case GuestCpu::Outcome::kFault:
      Fail(absl::StrCat("the direct map of page ", page, " faults, code ",
                        fault.error_code));
      return AccessOutcome::kGuestFault;
    case GuestCpu::Outcome::kError:
      break;
  }
  Fail(cpu.status().ToString());
  return AccessOutcome::kError;
}

void GuestPort::Store(int vcpu, uint64_t gpa_bytes, int size_bytes,
                      uint64_t value) {
  if (!shadow_) {
    const AccessOutcome outcome =
        AccessByGpa(vcpu, gpa_bytes, AccessKind::kWrite, &value);
    if (outcome != AccessOutcome::kDone) Fail("a table cannot be written");
    return;
  }
  GuestPageFault fault;
  GuestProcessor& cpu = *processors_[At(vcpu)];
  // Before paging is on, the kernel's addresses are physical ones.
  const bool paging = (cpu.control_registers().cr0 & kCr0Pg) != 0;
  const uint64_t address = (paging ? DirectMap(format_) : 0) + gpa_bytes;
  if (cpu.Access(Gva(address), size_bytes, AccessKind::kWrite,
                 Privilege::kSupervisor, &value,
                 &fault) != GuestCpu::Outcome::kDone) {
    Fail(absl::StrCat("a table cannot be written, code ", fault.error_code,
                      ", ", cpu.status().ToString()));
  }
}

UseOutcome GuestPort::Use(int vcpu, uint64_t address, AccessKind kind,
                          Privilege privilege, uint64_t* word) {
  if (shadow_) {
    GuestPageFault fault;
    GuestProcessor& cpu = *processors_[At(vcpu)];
    const GuestCpu::Outcome outcome =
        cpu.Access(Gva(address), 8, kind, privilege, word, &fault);
    if (outcome == GuestCpu::Outcome::kError) Fail(cpu.status().ToString());
    return {.done = outcome == GuestCpu::Outcome::kDone,
            .fault_code = fault.error_code};
  }
  L1Processor& cpu = *hypervisors_[At(vcpu)];
  if (!in_l2_[At(vcpu)]) EnterL2(vcpu);
  NestedExit exit;
  const L1Cpu::Outcome outcome =
      cpu.L2Access({.nested_gpa = Gpa(address), .kind = kind}, word, &exit);
  if (outcome == L1Cpu::Outcome::kError) Fail(cpu.status().ToString());
  if (outcome == L1Cpu::Outcome::kExit) {
    in_l2_[At(vcpu)] = false;
    if (exit.fault.kind == GuestFault::Kind::kEptMisconfiguration) {
      Fail(absl::StrCat("EPT misconfiguration at nested gpa ", address));
    }
  }
  return {.done = outcome == L1Cpu::Outcome::kDone,
          .fault_code = exit.fault.code};
}

void GuestPort::EnterL2(int vcpu) {
  const Level root_level = format_.levels() == 5 ? Level::k256T : Level::k512G;
  NestedPaging paging = {
      .tables = format_.ept() ? GuestTables::kEpt : GuestTables::kNpt,
      .root = ToGpa(Gfn(roots_[At(vcpu)])),
      .ept = {.root_level = root_level,
              .ad_bits = config_.ept_ad_bits,
              .exec_only = config_.ept_exec_only},
      .l1 = ControlRegisters(config_)};
  hypervisors_[At(vcpu)]->EnterL2(paging);
  in_l2_[At(vcpu)] = true;
}

void GuestPort::EnablePaging(int vcpu, int space, uint64_t root) {
  LoadSpace(vcpu, space, root, Flush::kYes);
  processors_[At(vcpu)]->SetControlRegisters(ControlRegisters(config_));
  // In PAE mode the load reads the PDPTEs.
  LoadSpace(vcpu, space, root, Flush::kYes);
}

void GuestPort::LoadSpace(int vcpu, int space, uint64_t root, Flush flush) {
  spaces_[At(vcpu)] = space;
  roots_[At(vcpu)] = root;
  const Gpa top = ToGpa(Gfn(root));
  if (shadow_) {
    // A space has a PCID, except where there are none.
    const bool has_pcids = format_.levels() >= 4;
    processors_[At(vcpu)]->LoadCr3(
        top, has_pcids ? static_cast<Pcid>(space + 1) : Pcid{0},
        has_pcids && flush == Flush::kNo ? Cr3Load::kKeep : Cr3Load::kFlush);
    return;
  }
  L1Processor& cpu = *hypervisors_[At(vcpu)];
  if (in_l2_[At(vcpu)]) cpu.LeaveL2();
  if (!format_.ept()) {
    // All spaces have one ASID, so what it has cached of another one must go.
    cpu.FlushAsid();
  } else if (flush == Flush::kYes) {
    cpu.InveptSingleContext(top);
  }
  EnterL2(vcpu);
}

void GuestPort::InvalidatePage(int vcpu, uint64_t address) {
  processors_[At(vcpu)]->Invlpg(Gva(address));
}

void GuestPort::InvalidateAll(int vcpu,
                              const std::array<uint64_t, kSpaces>& roots) {
  if (!shadow_ && format_.ept()) {
    if (in_l2_[At(vcpu)]) hypervisors_[At(vcpu)]->LeaveL2();
    in_l2_[At(vcpu)] = false;
    hypervisors_[At(vcpu)]->InveptGlobal();
    return;
  }
  const int loaded = space(vcpu);
  for (int i = 1; i <= kSpaces; ++i) {
    const int other = (loaded + i) % kSpaces;  // at last the loaded one
    LoadSpace(vcpu, other, roots[static_cast<size_t>(other)], Flush::kYes);
  }
}

}  // namespace mmu::testing
