#include "mmu_core/guest/hypervisor/l2_write_protection.h"

#include "gtest/gtest.h"

namespace mmu {
namespace {

bool SeemsReadOnly(const L2WriteProtection& page) {
  return page.WasReadOnly(page.BeginWrite());
}

TEST(L2WriteProtectionTest, IsReadOnlyFromTheProtectionToTheGrant) {
  L2WriteProtection page;
  EXPECT_FALSE(SeemsReadOnly(page));
  const auto begun = page.BeginProtect();
  ASSERT_TRUE(begun.has_value());
  EXPECT_FALSE(SeemsReadOnly(page));
  page.EndProtect(*begun);
  EXPECT_TRUE(SeemsReadOnly(page));
  EXPECT_FALSE(page.BeginProtect().has_value());
  page.BeginGrant();
  EXPECT_FALSE(SeemsReadOnly(page));
  page.EndGrant();
  EXPECT_FALSE(SeemsReadOnly(page));
}

TEST(L2WriteProtectionTest, AWriteDuringAChangeIsRight) {
  L2WriteProtection page;
  uint64_t write = page.BeginWrite();
  page.EndProtect(*page.BeginProtect());
  EXPECT_FALSE(page.WasReadOnly(write));
  write = page.BeginWrite();
  page.BeginGrant();
  page.EndGrant();
  page.EndProtect(*page.BeginProtect());
  EXPECT_FALSE(page.WasReadOnly(write));
}

// Nobody knows which of the two changes L1 makes first.
TEST(L2WriteProtectionTest, AGrantAtTheSameTimeLeavesItOpen) {
  L2WriteProtection page;
  const auto begun = page.BeginProtect();
  page.BeginGrant();
  EXPECT_FALSE(page.BeginProtect().has_value());
  page.EndProtect(*begun);
  EXPECT_FALSE(SeemsReadOnly(page));
  page.EndGrant();
  EXPECT_FALSE(SeemsReadOnly(page));
  EXPECT_TRUE(page.BeginProtect().has_value());
}

}  // namespace
}  // namespace mmu
