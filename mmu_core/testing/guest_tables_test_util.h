// Shadow pages for guest tables in memory that a test writes.

#ifndef MMU_CORE_TESTING_GUEST_TABLES_TEST_UTIL_H_
#define MMU_CORE_TESTING_GUEST_TABLES_TEST_UTIL_H_

#include <cstdint>

#include "mmu_core/base/address.h"
#include "mmu_core/guest_paging/control_registers.h"
#include "mmu_core/guest_paging/cpu_role.h"
#include "mmu_core/guest_paging/guest_entry.h"
#include "mmu_core/guest_paging/guest_walker.h"
#include "mmu_core/memory/guest_words.h"
#include "mmu_core/paging/access_rights.h"
#include "mmu_core/paging/page_role.h"
#include "mmu_core/shadow/guest_context.h"
#include "mmu_core/shadow/shadow_leaf.h"
#include "mmu_core/shadow/shadow_sync.h"
#include "mmu_core/shadow/unsync_gate.h"
#include "mmu_core/testing/guest_memory_test_util.h"
#include "mmu_core/testing/shadow_test_util.h"

namespace mmu::testing {

inline constexpr GuestPagingState kFourLevelGuest = {
    .cr0 = kCr0Pg | kCr0Wp, .cr4 = kCr4Pae, .efer = kEferLma | kEferNx};
inline constexpr GuestPagingState kTwoLevelGuest = {.cr0 = kCr0Pg | kCr0Wp,
                                                    .efer = kEferNx};

// A legacy entry that grants all rights; its Accessed and Dirty bits are set.
inline constexpr uint64_t kGuestPte =
    guest_entry::kPresent | guest_entry::kWritable | guest_entry::kUser |
    guest_entry::kAccessed | guest_entry::kDirty;

// The paging mode and memory of one vCPU.
struct TestGuest {
  TestGuest(const GuestWalker& w, PageRole root, GuestWords& memory,
            ShadowCaches& caches)
      : walker(w),
        context{.walker = walker,
                .memory = memory,
                .root_role = root,
                .caches = caches} {}
  TestGuest(const TestGuest&) = delete;
  TestGuest& operator=(const TestGuest&) = delete;

  const GuestWalker walker;
  GuestContext context;
};

// A base class, so that it is constructed before mmu_lock is held.
struct HasGuestMemory {
  GuestMemory memory_;
};

// The first 1024 gfns of address space 0 have contents, initially zero.
class GuestTablesFixture : protected HasGuestMemory, protected ShadowFixture {
 protected:
  explicit GuestTablesFixture(const GuestPagingState& state = kFourLevelGuest,
                              TdpEnabled tdp = TdpEnabled::kNo)
      : ShadowFixture(tdp),
        guest_(GuestWalker(GuestTables::kLegacy, LegacyCpuRole(state), {}),
               ShadowRootRole(LegacyCpuRole(state)), memory_.words(), caches_) {
  }

  GuestContext& context() { return guest_.context; }

  // The role of pages that shadow the guest's tables.
  PageRole RoleAt(int level, AccessRights access = kAllRights,
                  int quadrant = 0) const {
    PageRole::Fields fields = guest_.context.root_role.fields();
    fields.level = level;
    fields.access = access;
    fields.quadrant = quadrant;
    return PageRole::Of(fields);
  }
  // Sets entry `index` of the guest's table at gfn `table` to `entry`.
  void Put(uint64_t table, int index, uint64_t entry) {
    memory_.PutEntry(table << kPageShift, index, entry,
                     guest_.walker.entry_size());
  }
  // Sets an entry that maps `gfn`, and adds the SPTE that shadows it.
  void PutAndMap(ShadowPageState& page, int index, uint64_t gfn) {
    Put(page.gfn().value(), index, gfn << kPageShift | kGuestPte);
    Map(page, index, gfn);
  }

  TestGuest guest_;
  UnsyncGate gate_{pages_.set(), pages_.unsync()};
  ShadowLeafs leafs_{Parts(), gate_, {}};
  ShadowSync sync_{Parts(), pages_, leafs_};
};

}  // namespace mmu::testing

#endif  // MMU_CORE_TESTING_GUEST_TABLES_TEST_UTIL_H_
