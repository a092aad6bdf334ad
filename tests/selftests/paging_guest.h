// A guest with paging of its own, whose page tables a test writes entry by
// entry.

#ifndef TESTS_SELFTESTS_PAGING_GUEST_H_
#define TESTS_SELFTESTS_PAGING_GUEST_H_

#include <cstdint>
#include <optional>

#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/guest/kernel/direct_map_memory.h"
#include "mmu_core/guest/kernel/frame_allocator.h"
#include "mmu_core/guest/kernel/page_tables.h"
#include "mmu_core/guest/kernel/paging_geometry.h"
#include "mmu_core/guest_paging/control_registers.h"
#include "mmu_core/vm/run/guest_processor.h"
#include "mmu_core/vm/vm.h"

namespace mmu::testing {

// Runs on vCPU 0 of a VM with MmuMode::kShadow. Supervisors can access all
// memory through the geometry's direct map. Fails the program if the guest's
// memory is insufficient.
class PagingGuest {
 public:
  explicit PagingGuest(
      Vm& vm, const PagingGeometry& geometry = PagingGeometry::k4Level);

  // Makes the entry of `level` for `gva` map or point to `gfn`. Flushes
  // nothing.
  void Map(Gva gva, Gfn gfn, uint64_t bits, int level = 1);
  // The entry at which the walk of `gva` ends.
  GuestPte Find(Gva gva) { return tables_.Find(gva); }
  // Load reads any entry, and Store writes one, as the guest's kernel does.
  uint64_t Load(Gpa gpa) { return memory_.Load(gpa, geometry_.entry_bytes); }
  void Store(Gpa gpa, uint64_t value) {
    memory_.Store(gpa, geometry_.entry_bytes, value);
  }
  // An unused page, filled with zeros.
  Gfn NewPage();
  // `count` unused pages in a row, aligned to `count`.
  Gfn NewPages(uint64_t count) { return *frames_.AllocateRun(count); }

  // Makes one access to an 8-byte word. Returns nullopt, or the error code of
  // the fault.
  std::optional<uint64_t> Access(Gva gva, AccessKind kind,
                                 Privilege privilege = Privilege::kUser,
                                 uint64_t* word = nullptr);
  std::optional<uint64_t> Read(Gva gva, Privilege who = Privilege::kUser) {
    return Access(gva, AccessKind::kRead, who);
  }
  std::optional<uint64_t> Write(Gva gva, Privilege who = Privilege::kUser) {
    return Access(gva, AccessKind::kWrite, who);
  }
  std::optional<uint64_t> Fetch(Gva gva, Privilege who = Privilege::kUser) {
    return Access(gva, AccessKind::kExec, who);
  }
  // The value at `gva`. REQUIRES: `who` may read it.
  uint64_t ValueAt(Gva gva, Privilege who = Privilege::kUser);

  // CR0.WP, CR4.SMEP.
  void SetProtection(bool wp, bool smep);
  GuestProcessor& cpu() { return cpu_; }
  GuestPageTables& tables() { return tables_; }

 private:
  const PagingGeometry& geometry_;
  GuestProcessor cpu_;
  DirectMapMemory memory_;
  FrameAllocator frames_;
  GuestPageTables tables_;
};

}  // namespace mmu::testing

#endif  // TESTS_SELFTESTS_PAGING_GUEST_H_
