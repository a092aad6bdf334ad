// A guest with random tables, which it edits while it runs. The processor must
// find the same translations in the shadow tables as in the guest's.

#include <algorithm>
#include <cstdint>
#include <memory>
#include <ostream>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/guest_paging/control_registers.h"
#include "mmu_core/guest_paging/cpu_role.h"
#include "mmu_core/guest_paging/guest_entry.h"
#include "mmu_core/guest_paging/guest_walk.h"
#include "mmu_core/guest_paging/guest_walker.h"
#include "mmu_core/memory/guest_words.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/paging/access_rights.h"
#include "mmu_core/paging/page_role.h"
#include "mmu_core/paging/spte_format.h"
#include "mmu_core/rmap/pte_list_cache.h"
#include "mmu_core/shadow/shadow_caches.h"
#include "mmu_core/testing/shadow_vcpu_test_util.h"

namespace mmu::testing {
namespace {

constexpr uint64_t kSlotPages = 8192;
constexpr uint64_t kTables = 12;  // the guest's are at the gfns from 1 on
constexpr int kSteps = 30000;

constexpr GuestPagingState kWithoutWp = {
    .cr0 = kCr0Pg, .cr4 = kCr4Pae | kCr4Smep, .efer = kEferLma | kEferNx};
// One paging mode, and the root role for it.
struct Paging {
  GuestWalker walker;
  PageRole root;
};
struct Mode {
  std::string name;
  std::vector<Paging> vcpus;
  const SpteFormat* format = &SpteFormat::Npt();
  TdpEnabled tdp = TdpEnabled::kNo;
};
std::ostream& operator<<(std::ostream& os, const Mode& mode) {
  return os << mode.name;
}

Paging Legacy(const GuestPagingState& state) {
  const CpuRole role = LegacyCpuRole(state);
  return {GuestWalker(GuestTables::kLegacy, role, {}), ShadowRootRole(role)};
}
Paging Npt(const GuestPagingState& l1, Level tdp_level) {
  const CpuRole role = NptCpuRole(l1);
  return {GuestWalker(GuestTables::kNpt, role, {}),
          ShadowNptRootRole(role, tdp_level)};
}
Paging Ept(const EptOptions& options) {
  const CpuRole role = EptCpuRole(options, 0);
  return {GuestWalker(GuestTables::kEpt, role, {}), ShadowEptRootRole(role)};
}

std::vector<Mode> Modes() {
  const SpteFormat* const ept = &SpteFormat::Ept();
  const SpteFormat* const npt = &SpteFormat::Npt();
  return {
      {"TwoLevel", {Legacy(kTwoLevelPaging)}},
      {"Pae", {Legacy(kPaePaging)}},
      {"FourLevel", {Legacy(kFourLevelPaging), Legacy(kWithoutWp)}},
      {"FiveLevel", {Legacy(kFiveLevelPaging)}},
      {"Ept",
       {Ept({.ad_bits = true, .exec_only = true}), Ept({.exec_only = true})},
       ept,
       TdpEnabled::kYes},
      {"NptPassthrough",
       {Npt(kFourLevelPaging, Level::k256T)},
       npt,
       TdpEnabled::kYes},
      {"NptTwoLevel",
       {Npt(kTwoLevelPaging, Level::k512G)},
       npt,
       TdpEnabled::kYes},
      {"NptPae", {Npt(kPaePaging, Level::k256T)}, npt, TdpEnabled::kYes},
  };
}

class ShadowTreeModelTest : public ::testing::TestWithParam<Mode> {
 protected:
  ShadowTreeModelTest()
      : vm_({.format = GetParam().format, .tdp = GetParam().tdp}) {
    vm_.memory.AddSlot(GfnRange::Of(Gfn(0), kSlotPages), Level::k2M);
    for (const Paging& paging : GetParam().vcpus) {
      vcpus_.push_back(
          std::make_unique<ShadowTestVcpu>(vm_, paging.walker, paging.root));
    }
    size_ = GetParam().vcpus[0].walker.entry_size();
    for (uint64_t table = 1; table <= kTables; ++table) {
      for (int i = 0; i < 60; ++i) EditQuietly(Gfn(table));
    }
    for (auto& vcpu : vcpus_) LoadCr3(*vcpu);
  }

  bool OneIn(int n) { return random_() % static_cast<uint64_t>(n) == 0; }
  uint64_t Below(uint64_t n) { return random_() % n; }
  bool IsEpt() const {
    return GetParam().vcpus[0].walker.tables() == GuestTables::kEpt;
  }
  int index_bits() const { return size_ == WordSize::k4 ? 10 : 9; }

  Gfn AnyTable() { return Gfn(1 + Below(kTables)); }
  int AnyIndex() {
    static constexpr int kIndices[] = {0, 1, 2, 3, 7, 8};
    if (OneIn(8)) return (1 << index_bits()) - 1 - static_cast<int>(Below(2));
    const int index = kIndices[Below(6)];
    // The second half of 1024 entries has a shadow page of its own.
    return size_ == WordSize::k4 && OneIn(3) ? index + 512 : index;
  }
  uint64_t AnyAddress() {
    const CpuRole role = GetParam().vcpus[0].walker.role();
    int level = role.guest_level();
    uint64_t address = 0;
    if (level == 3) {  // four PDPTEs
      address = Below(4) << 30;
      level = 2;
    }
    for (; level >= 1; --level) {
      address |= static_cast<uint64_t>(AnyIndex())
                 << (kPageShift + index_bits() * (level - 1));
    }
    return address;
  }

  // An entry that is valid at some level.
  uint64_t AnyEntry() {
    using namespace guest_entry;  // NOLINT: names of bits
    if (OneIn(6)) return 0;
    Gfn target;
    uint64_t entry = 0;
    if (!OneIn(3)) {
      target = AnyTable();
    } else if (OneIn(2)) {
      target = Gfn(Below(kSlotPages / 1024) * 1024);
      entry |= guest_entry::kPageSize;
    } else {
      target = Gfn(Below(kSlotPages + 64));  // some gfns are in no slot
    }
    entry |= ToGpa(target).value();
    if (IsEpt()) {
      static constexpr uint64_t kRights[] = {kEptRead, kEptRead | kEptWrite,
                                             kEptRead | kEptExec, kEptExec};
      entry |= !OneIn(4) ? kEptRead | kEptWrite | kEptExec : kRights[Below(4)];
      if (target > Gfn(kTables) || (entry & guest_entry::kPageSize) != 0 ||
          OneIn(4)) {
        entry |= uint64_t{6} << kEptMemoryTypeShift;
      }
      if (!OneIn(3)) entry |= kEptAccessed;
      if (OneIn(2)) entry |= kEptDirty;
      return entry;
    }
    entry |= kPresent;
    if (!OneIn(4)) entry |= kWritable;
    if (!OneIn(4)) entry |= kUser;
    if (!OneIn(3)) entry |= kAccessed;
    if (OneIn(2)) entry |= kDirty;
    if (size_ == WordSize::k8 && OneIn(5)) entry |= kNx;
    return entry;
  }
  void EditQuietly(Gfn table) {
    vm_.memory.PutEntry(table, AnyIndex(), AnyEntry(), size_);
  }

  void LoadCr3(ShadowTestVcpu& vcpu) {
    for (uint64_t& pdpte : vcpu.where().pdptes) {
      pdpte = OneIn(5) ? 0 : ToGpa(AnyTable()).value() | guest_entry::kPresent;
    }
    vcpu.LoadCr3(AnyTable());
  }
  // Flushes every vCPU's TLB, as the guest must after it has edited a table.
  void FlushAll() {
    for (auto& vcpu : vcpus_) ASSERT_TRUE(vcpu->Load().ok());
  }

  static bool Allows(const HardwareTranslation& found,
                     const GuestPageAccess& access) {
    AccessRights needed = access.kind == AccessKind::kRead    ? kMayRead
                          : access.kind == AccessKind::kWrite ? kMayWrite
                                                              : kMayExec;
    return found.present && found.rights.Has(needed);
  }
  bool HasTable(Gfn gfn) { return !vm_.PagesOf(gfn.value()).empty(); }

  void Access(ShadowTestVcpu& vcpu, uint64_t address) {
    const GuestPageAccess access = {
        .kind = static_cast<AccessKind>(Below(kAccessKinds)),
        .privilege = OneIn(2) ? Privilege::kUser : Privilege::kSupervisor};
    for (int tries = 0; tries < 4; ++tries) {
      const auto result = vcpu.Fault(address, access);
      if (!result.has_value()) return;  // the guest's own fault
      const AccessRights rights = vcpu.rights;
      const HardwareTranslation found = vcpu.Translate(address);
      // Either a write has zapped the root, or one table is used at two levels
      // and the walk has set a bit in an entry that it read before.
      if (*result == FaultResult::kRetry) {
        if (vcpu.roots().IsObsolete()) vcpu.roots().FreeObsolete(nullptr);
        continue;
      }
      if (*result == FaultResult::kEmulate) {
        ASSERT_EQ(vcpu.fault.slot, nullptr);
        ASSERT_FALSE(found.present);
        return;
      }
      ++mapped_;
      if (found.level > Level::k4K) ++mapped_huge_;
      ASSERT_TRUE(found.present);
      ASSERT_EQ(found.pfn, vcpu.fault.slot->PfnOf(vcpu.walk.gfn));
      ASSERT_EQ(found.rights.Without(kMayWrite), rights.Without(kMayWrite));
      ASSERT_TRUE(rights.Has(found.rights));
      if (rights.Has(kMayWrite) && !found.rights.Has(kMayWrite)) {
        ASSERT_TRUE(HasTable(vcpu.walk.gfn)) << vcpu.walk.gfn;
      }
      if (*result == FaultResult::kWriteProtected) {
        ASSERT_TRUE(HasTable(vcpu.walk.gfn)) << vcpu.walk.gfn;
        ++write_protected_;
      } else {
        ASSERT_TRUE(Allows(found, access));
      }
      return;
    }
    FAIL() << "the fault does not end";
  }

  // Checks that the shadow tables grant no more than the guest's tables.
  void Check(ShadowTestVcpu& vcpu, uint64_t address) {
    if (vcpu.roots().IsObsolete()) vcpu.roots().FreeObsolete(nullptr);
    if (vcpu.roots().table() == nullptr) {
      ASSERT_TRUE(vcpu.Load().ok());
    }
    const HardwareTranslation found = vcpu.Translate(address);
    if (!found.present) return;
    ++checked_;
    GuestPageAccess access = {.kind = AccessKind::kRead};
    GuestWalkResult wanted = vcpu.WalkQuietly(address, access);
    if (!wanted.translated()) {
      access.kind = AccessKind::kExec;
      wanted = vcpu.WalkQuietly(address, access);
    }
    if (!wanted.translated() &&
        wanted.fault.kind == GuestFault::Kind::kNestedPageFault &&
        (wanted.fault.code & kPferrReserved) == 0 &&
        (wanted.fault.code & kPferrPresent) != 0) {
      // NPT treats all accesses as user accesses. Both tables deny them.
      ASSERT_FALSE(found.rights.Has(kMayUser));
      return;
    }
    ASSERT_TRUE(wanted.translated()) << "the guest's tables have no page there";
    const Memslot* const slot = vm_.memory.SlotOf(0, wanted.gfn);
    ASSERT_NE(slot, nullptr);
    ASSERT_EQ(found.pfn, slot->PfnOf(wanted.gfn));
    const AccessRights for_supervisors =
        AccessOfSupervisorWrite(vcpu.guest().cpu_role(), wanted.access);
    const auto fits = [&](AccessRights rights) {
      return rights.Has(found.rights) &&
             rights.Without(kMayWrite) == found.rights.Without(kMayWrite);
    };
    ASSERT_TRUE(fits(wanted.access) || fits(for_supervisors))
        << found.rights << " of " << wanted.access;
  }

  ShadowTestVm vm_;
  std::vector<std::unique_ptr<ShadowTestVcpu>> vcpus_;
  WordSize size_;
  std::mt19937_64 random_{20261121};
  // Counts, to check that the test did something.
  int mapped_ = 0;
  int mapped_huge_ = 0;
  int write_protected_ = 0;
  int noticed_writes_ = 0;
  int checked_ = 0;
};

// Covers: SHD-19
TEST_P(ShadowTreeModelTest, TheProcessorFindsWhatTheGuestsTablesSay) {
  for (int step = 0; step < kSteps; ++step) {
    SCOPED_TRACE(step);
    ShadowTestVcpu& vcpu = *vcpus_[Below(vcpus_.size())];
    const uint64_t address = AnyAddress();
    if (OneIn(30)) {
      if (!vm_.GuestWrites(AnyTable().value(), AnyIndex(), AnyEntry(), size_)) {
        ++noticed_writes_;
      }
      FlushAll();
    } else if (OneIn(40)) {
      LoadCr3(vcpu);
    } else {
      Access(vcpu, address);
    }
    if (HasFatalFailure()) return;
    // Often the guest has edited nothing since the access.
    Check(vcpu, address);
    for (int i = 0; i < 8 && !HasFatalFailure(); ++i) {
      Check(*vcpus_[Below(vcpus_.size())], AnyAddress());
    }
    if (HasFatalFailure()) return;
    if (step % 100 == 0) {
      ASSERT_EQ(vm_.AuditFindings(), "");
    }
  }
  for (const auto& vcpu : vcpus_) {
    EXPECT_LE(vcpu->most_used.lists, kFaultPteLists.min);
    EXPECT_LE(vcpu->most_used.pages, ShadowCaches::kPagesPerFault);
    EXPECT_GT(vcpu->most_used.pages, 0);
  }
  EXPECT_GT(mapped_, kSteps / 100);
  EXPECT_GT(mapped_huge_, 0);
  EXPECT_GT(write_protected_, 0);
  EXPECT_GT(noticed_writes_, 0);
  EXPECT_GT(checked_, kSteps / 100);
}

INSTANTIATE_TEST_SUITE_P(Modes, ShadowTreeModelTest,
                         ::testing::ValuesIn(Modes()),
                         [](const auto& mode) { return mode.param.name; });

}  // namespace
}  // namespace mmu::testing
