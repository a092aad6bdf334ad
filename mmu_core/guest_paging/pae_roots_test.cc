#include "mmu_core/guest_paging/pae_roots.h"

#include <cstdint>
#include <optional>
#include <set>

#include "gtest/gtest.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/level.h"
#include "mmu_core/guest_paging/control_registers.h"
#include "mmu_core/guest_paging/cpu_role.h"
#include "mmu_core/guest_paging/guest_walk.h"
#include "mmu_core/guest_paging/guest_walker.h"
#include "mmu_core/paging/page_role.h"
#include "mmu_core/testing/guest_memory_test_util.h"

namespace mmu::testing {
namespace {

constexpr uint64_t kPresent = 1;
const CpuRole kTwoLevel = LegacyCpuRole({.cr0 = kCr0Pg});
const CpuRole kPae = LegacyCpuRole({.cr0 = kCr0Pg, .cr4 = kCr4Pae});

// Covers: ROLE-12
TEST(PaeRootsTest, AFourByteDirectoryIsShadowedByFourPagesOfOneGfn) {
  const PageRole root = ShadowRootRole(kTwoLevel);
  std::set<uint32_t> words;
  for (int i = 0; i < kPaeRoots; ++i) {
    const std::optional<RootPage> page =
        PaeRootPage(kTwoLevel, root, Gfn(7), {}, i);
    ASSERT_TRUE(page.has_value());
    EXPECT_EQ(page->gfn, Gfn(7));
    EXPECT_EQ(page->role.level(), Level::k2M);
    EXPECT_EQ(page->role.quadrant(), i);
    EXPECT_TRUE(page->role.HasGuestPtes());
    EXPECT_TRUE(words.insert(page->role.word()).second);
  }
}

// Covers: ROLE-21
TEST(PaeRootsTest, APaeGuestHasARootForEachPresentPdpte) {
  const PageRole root = ShadowRootRole(kPae);
  const Pdptes pdptes = {0x5000 | kPresent, 0x6000, 0x7000 | kPresent, 0};
  PageRole::Fields fields = root.fields();
  fields.level = 2;
  const PageRole role = PageRole::Of(fields);
  EXPECT_EQ(PaeRootPage(kPae, root, Gfn(1), pdptes, 0),
            (RootPage{Gfn(5), role}));
  EXPECT_EQ(PaeRootPage(kPae, root, Gfn(1), pdptes, 1), std::nullopt);
  EXPECT_EQ(PaeRootPage(kPae, root, Gfn(1), pdptes, 2),
            (RootPage{Gfn(7), role}));
  EXPECT_EQ(PaeRootPage(kPae, root, Gfn(1), pdptes, 3), std::nullopt);
}

// Covers: ROLE-21
TEST(PaeRootsTest, APdpteIsReadWhenCr3IsLoadedAndNotByWalks) {
  GuestMemory memory;
  memory.Put(0x1020, 0x2000 | kPresent);  // CR3 is only 32-byte aligned
  memory.Put(0x2000, 0x3007);
  memory.Put(0x3000, 0x9007);
  memory.Put(0x4000, 0x5007);
  memory.Put(0x5000, 0xa007);
  const GuestWalker walker(GuestTables::kLegacy, kPae, {});

  GuestRoot root;
  root.pdptes = LoadPdptes(memory.words(), 0x1020, 46).value();
  const auto gfn = [&] { return walker.Walk(memory.words(), root, 0, {}).gfn; };
  EXPECT_EQ(gfn(), Gfn(9));
  memory.Put(0x1020, 0x4000 | kPresent);
  EXPECT_EQ(gfn(), Gfn(9));
  root.pdptes = LoadPdptes(memory.words(), 0x1020, 46).value();
  EXPECT_EQ(gfn(), Gfn(0xa));
}

TEST(PaeRootsTest, ALoadOfCr3FailsOnReservedBitsAndWithoutMemory) {
  GuestMemory memory;
  const auto loads = [&](uint64_t pdpte) {
    memory.Put(0x1010, pdpte);
    return LoadPdptes(memory.words(), 0x1000, 46).has_value();
  };
  EXPECT_TRUE(loads(0x2000 | kPresent));
  for (const int bit : {1, 2, 5, 6, 7, 8, 46, 52, 63}) {
    EXPECT_FALSE(loads(uint64_t{1} << bit | 0x2000 | kPresent)) << bit;
    EXPECT_TRUE(loads(uint64_t{1} << bit | 0x2000)) << "not present: " << bit;
  }
  EXPECT_FALSE(LoadPdptes(memory.words(), 0x80000000, 46).has_value());
}

// Covers: ROLE-22
TEST(PaeRootsTest, WithoutPagingTheRootsAreFourGigabytesOfMemory) {
  const CpuRole role = LegacyCpuRole({});
  const PageRole root = ShadowRootRole(role);
  const uint64_t gfns[] = {0, 0x40000, 0x80000, 0xc0000};
  for (int i = 0; i < kPaeRoots; ++i) {
    const std::optional<RootPage> page = PaeRootPage(role, root, Gfn(0), {}, i);
    ASSERT_TRUE(page.has_value());
    EXPECT_EQ(page->gfn, Gfn(gfns[i]));
    EXPECT_TRUE(page->role.IsDirect());
    EXPECT_EQ(page->role.level(), Level::k2M);
    EXPECT_EQ(page->role.quadrant(), 0);
  }
}

}  // namespace
}  // namespace mmu::testing
