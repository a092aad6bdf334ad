// A VM on shadow pages whose guest's tables a test writes.

#ifndef MMU_CORE_TESTING_SHADOWED_GUEST_TEST_UTIL_H_
#define MMU_CORE_TESTING_SHADOWED_GUEST_TEST_UTIL_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/guest_paging/control_registers.h"
#include "mmu_core/guest_paging/guest_walk.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/testing/tdp_test_util.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/vcpu/shadow_vcpu.h"

namespace mmu::testing {

// Bits of a guest's entry.
inline constexpr uint64_t kTable = 0x27;  // present, writable, user, accessed
inline constexpr uint64_t kReadOnly = 0x65;  // present, user, accessed, dirty
inline constexpr uint64_t kWritable = kReadOnly | 2;

inline GuestPagingState LongMode() {
  return {.cr0 = kCr0Pg | kCr0Wp, .cr4 = kCr4Pae, .efer = kEferNx | kEferLma};
}

// A guest with its tables at gfns 1 to 5. Addresses below 2 MiB lead to the
// gfns from 0x1000 on, those of the next 2 MiB to the gfns from 0 on.
class ShadowedGuest {
 protected:
  void Make(VmConfig config, uint64_t leaf) {
    config.mmu = MmuMode::kShadow;
    config.format = EntryFormat::kNpt;
    config.memslots.insert(config.memslots.begin(), Slot(0, 0, 64 * kMiB));
    vm_ = MakeVmFrom(config);
    for (const int top : {0, 256}) Put(1, top, Entry(2, kTable));
    Put(2, 0, Entry(3, kTable));
    Put(3, 0, Entry(4, kTable));
    Put(3, 1, Entry(5, kTable));
    for (uint64_t i = 0; i < 512; ++i) {
      Put(4, i, Entry(0x1000 + i, leaf));
      Put(5, i, Entry(i, kWritable));
    }
    for (size_t vcpu = 0; vcpu < vm_->state().vcpus.size(); ++vcpu) {
      Run(shadow(vcpu), LongMode(), {.table = Gfn(1)});
    }
  }
  static void Run(ShadowVcpu& shadow, const GuestPagingState& state,
                  const GuestRoot& root) {
    shadow.SetPaging(ShadowPaging::OfGuest(state));
    shadow.SetRoot(root, ShadowVcpu::Flush::kYes);
  }
  static uint64_t Entry(uint64_t gfn, uint64_t bits) {
    return gfn << 12 | bits;
  }
  // A word of the guest's memory. A write to it bypasses all tables, as if the
  // value had been there from the start.
  uint64_t& Word(uint64_t gfn, uint64_t index) {
    RcuReadGuard rcu;
    const Memslot& slot = *vm_->state().slots.Active(0).FindByGfn(Gfn(gfn));
    return reinterpret_cast<uint64_t*>(
        slot.backing->PointerTo(slot.HvaOf(Gfn(gfn))))[index];
  }
  void Put(uint64_t gfn, uint64_t index, uint64_t entry) {
    Word(gfn, index) = entry;
  }
  ShadowVcpu& shadow(size_t vcpu = 0) {
    return *vm_->state().vcpus[vcpu]->shadow();
  }
  AccessOutcome Access(uint64_t address, AccessKind kind, uint64_t word = 0,
                       Privilege privilege = Privilege::kSupervisor,
                       size_t vcpu = 0) {
    GuestFault fault;
    return shadow(vcpu).Access(
        address, 8, {.kind = kind, .privilege = privilege}, &word, &fault);
  }
  AccessOutcome ReadAt(uint64_t address) {
    return Access(address, AccessKind::kRead);
  }
  // The guest stores an entry of the table at `gfn`.
  AccessOutcome Store(uint64_t gfn, uint64_t index, uint64_t entry,
                      size_t vcpu = 0) {
    return Access(2 * kMiB + gfn * kPageSize + 8 * index, AccessKind::kWrite,
                  entry, Privilege::kSupervisor, vcpu);
  }

  std::unique_ptr<Vm> vm_;
};

}  // namespace mmu::testing

#endif  // MMU_CORE_TESTING_SHADOWED_GUEST_TEST_UTIL_H_
