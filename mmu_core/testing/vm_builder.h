// A small VM for tests, and operations that most tests need.

#ifndef MMU_CORE_TESTING_VM_BUILDER_H_
#define MMU_CORE_TESTING_VM_BUILDER_H_

#include <cstdint>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/paging/table_pool.h"
#include "mmu_core/stats/vcpu_stats.h"
#include "mmu_core/tlb/tlb_options.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/vm/vm_state.h"

namespace mmu::testing {

// One leaf of the tables, as a test writes it down: {gfn, level, "rw"}.
// `flags`: r present, w writable, m MMU-writable without w, a accessed, d
// dirty.
struct Mapping {
  uint64_t gfn = 0;
  Level level = Level::k4K;
  std::string flags;

  friend bool operator==(const Mapping&, const Mapping&) = default;
  friend std::ostream& operator<<(std::ostream& os, const Mapping& m);
};

// Every leaf of the valid roots of address space 0, in gfn order.
std::vector<Mapping> AllMappings(const VmState& vm);

// The level of the leaf that maps `gfn`, or k256T if no leaf does.
Level LevelOf(const VmState& vm, Gfn gfn);
// The leaf SPTE of `gfn`; a non-present one if there is none.
Spte SpteOf(const VmState& vm, Gfn gfn);

// A slot of address space 0 at `gpa_bytes`.
MemslotConfig Slot(uint32_t id, uint64_t gpa_bytes, uint64_t size_bytes,
                   Level host_page_level = Level::k4K,
                   BackingKind backing = BackingKind::kAnonymous);

// Creates a VM with these slots; dies if it cannot.
std::unique_ptr<Vm> MakeVm(std::vector<MemslotConfig> slots, int vcpu_count = 1,
                           EntryFormat format = EntryFormat::kEpt);
// Like MakeVm, with page-modification logging, and with rings unless
// `ring_entries` is 0.
std::unique_ptr<Vm> MakePmlVm(std::vector<MemslotConfig> slots,
                              int vcpu_count = 1, uint32_t ring_entries = 0);
// Like MakeVm, with a dirty ring of `ring_entries` entries for each vCPU.
std::unique_ptr<Vm> MakeRingVm(std::vector<MemslotConfig> slots,
                               uint32_t ring_entries, int vcpu_count = 1);
// TLBs that forget only what they are told to. All VMs made here have them,
// unless their configuration says otherwise.
TlbOptions PreciseTlbs();
// Creates a VM from any configuration; dies if it cannot.
std::unique_ptr<Vm> MakeVmFrom(
    const VmConfig& config,
    NxParameters& nx_parameters = NxParameters::Process());

// One access by vCPU `vcpu`, on the calling thread.
AccessOutcome Read(Vm& vm, uint64_t gpa_bytes, int vcpu = 0);
AccessOutcome Exec(Vm& vm, uint64_t gpa_bytes, int vcpu = 0);
AccessOutcome Write(Vm& vm, uint64_t gpa_bytes, uint64_t value = 1,
                    int vcpu = 0);
// The value that a vCPU reads at `gpa_bytes`.
uint64_t ReadValue(Vm& vm, uint64_t gpa_bytes, int vcpu = 0);
// Accesses each page of the range once, by default with a write.
void Touch(Vm& vm, GfnRange range, AccessKind kind = AccessKind::kWrite,
           int vcpu = 0);

// Pages whose bit is set, as page numbers of the slot.
std::vector<uint64_t> PagesOf(absl::Span<const uint64_t> words);
// A bitmap over the whole slot with these pages set.
std::vector<uint64_t> MaskOf(uint64_t npages,
                             const std::vector<uint64_t>& pages);

// The auditor's findings, one per line; "" if there are none.
std::string AuditFindings(Vm& vm);

// The counter of the time that the vCPU waits for room in its dirty ring. Tests
// begin and end a wait by hand.
WaitTime& RingFullWaitOf(Vm& vm, int vcpu);

}  // namespace mmu::testing

#endif  // MMU_CORE_TESTING_VM_BUILDER_H_
