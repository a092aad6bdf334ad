#include "bench/l2_guests.h"

#include <utility>

#include "absl/strings/str_format.h"
#include "mmu_core/base/level.h"
#include "mmu_core/guest/gpa_space.h"
#include "mmu_core/guest/hypervisor/l1_cpu.h"
#include "mmu_core/guest/hypervisor/nested_tables.h"
#include "mmu_core/guest/kernel/frame_allocator.h"
#include "mmu_core/guest/kernel/physical_memory.h"
#include "mmu_core/vm/vm_state.h"

namespace mmu::bench {
namespace {

// L1's memory, accessed by one of L1's processors.
class L1Memory final : public PhysicalMemory {
 public:
  explicit L1Memory(L1Cpu& cpu) : cpu_(cpu) {}

 private:
  absl::Status Access(Gpa gpa, int size_bytes, AccessKind kind,
                      uint64_t* word) override {
    return cpu_.Access(gpa, size_bytes, kind, word) ? absl::OkStatus()
                                                    : cpu_.status();
  }
  L1Cpu& cpu_;
};

}  // namespace

L2Guests::L2Guests(Vm& vm) {
  for (const auto& vcpu : vm.state().vcpus) {
    cpus_.push_back(std::make_unique<L1Processor>(*vcpu, Level::k512G));
  }
}

absl::StatusOr<std::unique_ptr<L2Guests>> L2Guests::Enter(Vm& vm,
                                                          GfnRange range) {
  std::unique_ptr<L2Guests> guests(new L2Guests(vm));
  absl::StatusOr<GpaSpace> space =
      GpaSpace::Create({{Gfn(0), Gfn(kTableBytes >> kPageShift)}});
  if (!space.ok()) return space.status();
  L1Memory memory(*guests->cpus_[0]);
  FrameAllocator frames(*space);
  const NestedEntryFormat& format = NestedEntryFormat::kEpt;
  NestedTables tables(format, Level::k512G, memory, frames);
  bool made = tables.Create();
  const uint64_t step = PagesPer(Level::k1G);
  for (uint64_t gfn = range.start.value() / step * step;
       made && gfn < range.end.value(); gfn += step) {
    // Accessed and Dirty are set from the beginning, as in KVM's tests.
    made = tables.Set(ToGpa(Gfn(gfn)), Level::k1G,
                      tables.MakeLeaf(Gfn(gfn), Level::k1G, format.full) |
                          format.accessed | format.dirty);
  }
  if (!memory.status().ok()) return memory.status();
  if (!made) {
    return absl::ResourceExhaustedError(absl::StrFormat(
        "the tables of L1 do not fit into %d bytes", kTableBytes));
  }
  const NestedPaging paging = {
      .root = tables.root(), .ept = {.ad_bits = true}, .l1 = {}};
  for (const auto& cpu : guests->cpus_) cpu->EnterL2(paging);
  return guests;
}

absl::Status L2Guests::Access(const Vcpu& vcpu, Gpa gpa, AccessKind kind,
                              uint64_t* word) {
  L1Processor& cpu = *cpus_[vcpu.index()];
  NestedExit exit;
  switch (cpu.L2Access({.nested_gpa = gpa, .kind = kind}, word, &exit)) {
    case L1Cpu::Outcome::kDone:
      return absl::OkStatus();
    case L1Cpu::Outcome::kError:
      return cpu.status();
    case L1Cpu::Outcome::kExit:
      break;
  }
  return absl::InternalError(absl::StrFormat(
      "vCPU %d: L1 does not map nested gpa 0x%x", vcpu.index(), gpa.value()));
}

}  // namespace mmu::bench
