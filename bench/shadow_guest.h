// A guest with its own page tables, for measurements of the shadow MMU.
//
// The host writes the guest's tables, bypassing the vCPU and the MMU. So at the
// beginning of a measurement the tables exist, and the MMU has not shadowed
// them. All entries have Accessed and Dirty set, so walks only read.

#ifndef BENCH_SHADOW_GUEST_H_
#define BENCH_SHADOW_GUEST_H_

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/guest/hypervisor/nested_tables.h"
#include "mmu_core/guest/kernel/frame_allocator.h"
#include "mmu_core/guest/kernel/physical_memory.h"
#include "mmu_core/guest_paging/guest_walk.h"
#include "mmu_core/memory/guest_words.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/paging/spte_slot.h"
#include "mmu_core/shadow/shadow_mmu.h"
#include "mmu_core/vm/vcpu/shadow_vcpu.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/vm/vm_state.h"

namespace mmu::bench {

// vCPUs with the same tables, and two slots: a small one at 0 for tables, and a
// large one without contents from kData on. Thread-compatible; after Start,
// each vCPU may be used by a thread of its own.
class ShadowGuest {
 public:
  enum class Kind : uint8_t {
    kGuestTables,  // the guest's tables of four levels, no second stage
    kEpt,          // L1's EPT, and an L2 guest
    kDirect,       // direct shadow pages as the second stage, no guest tables
  };
  static constexpr Gpa kData{uint64_t{1} << 30};

  // `host_page_level` is that of the large slot.
  ShadowGuest(Kind kind, uint64_t data_bytes, Level host_page_level,
              int vcpus = 1);
  ShadowGuest(const ShadowGuest&) = delete;
  ShadowGuest& operator=(const ShadowGuest&) = delete;

  // Writes an entry of `level` that translates `address` to `gpa` into the
  // guest's tables, and makes missing tables above it.
  void Map(uint64_t address, Gpa gpa, Level level = Level::k4K);
  // The address of the guest's table with the entry of `level` for `address`.
  Gpa TableOf(uint64_t address, Level level);
  // Writes or reads 8 bytes of guest memory, bypassing the vCPU and the MMU.
  void Poke(Gpa gpa, uint64_t value);
  uint64_t Peek(Gpa gpa);
  // The 512 entries of the table at `gpa`, as the host sees them.
  const uint64_t* HostTable(Gpa gpa);

  // Makes the vCPUs use these tables.
  void Start();
  // Loads the root's address into CR3 or EPTP again. kYes also flushes.
  void ReloadRoot(ShadowVcpu::Flush flush, int vcpu = 0) {
    shadow(vcpu).SetRoot(root_, flush);
  }

  // Makes one access by a vCPU, which must succeed.
  void Access(uint64_t address, AccessKind kind, uint64_t word = 0,
              int vcpu = 0);
  // Calls the fault handler for an entry that is not present.
  void Fault(uint64_t address, AccessKind kind, int vcpu = 0);
  // The entry for `address` in the shadow 4K table that covers it, found by the
  // hardware's walk. REQUIRES: that table exists.
  SpteSlot& WalkShadow(uint64_t address);

  Vm& vm() { return *vm_; }
  VmState& state() { return vm_->state(); }
  ShadowMmu& mmu() { return *state().shadow; }
  ShadowVcpu& shadow(int vcpu = 0) { return *state().vcpus[vcpu]->shadow(); }
  const GuestRoot& root() const { return root_; }
  GuestPageAccess AccessOf(AccessKind kind) const { return {.kind = kind}; }

  // The large slot, and all of its gfns. The slot never changes, so the
  // reference stays valid.
  const Memslot& data_slot();
  GfnRange data() const { return data_; }
  // Zaps all mappings of the large slot; shadow pages stay.
  void ZapData();
  // Zaps all mappings and returns all shadow pages to the pools.
  void ZapEverything();
  uint64_t Leafs(Level level) { return state().counters.Leafs(level); }

 private:
  class Memory final : public PhysicalMemory {
   public:
    explicit Memory(ShadowGuest& guest) : guest_(guest) {}

   private:
    absl::Status Access(Gpa gpa, int size_bytes, AccessKind kind,
                        uint64_t* word) override;
    ShadowGuest& guest_;
  };

  const Kind kind_;
  const GfnRange data_;
  const std::unique_ptr<Vm> vm_;
  const NestedEntryFormat& format_;
  Memory memory_{*this};
  FrameAllocator frames_;
  NestedTables tables_;
  GuestRoot root_;
};

}  // namespace mmu::bench

#endif  // BENCH_SHADOW_GUEST_H_
