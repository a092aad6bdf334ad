#include "mmu_core/paging/page_role.h"

#include <cstdint>
#include <set>

#include "gtest/gtest.h"
#include "mmu_core/base/level.h"

namespace mmu {
namespace {

TEST(PageRoleTest, EachLevelAndAddressSpaceIsARoleOfItsOwn) {
  std::set<uint32_t> words;
  for (int level = 1; level <= 5; ++level) {
    for (const int as_id : {0, 1, 255}) {
      const PageRole role = PageRole::Direct(static_cast<Level>(level), as_id);
      EXPECT_EQ(ToInt(role.level()), level);
      EXPECT_EQ(role.as_id(), as_id);
      EXPECT_TRUE(role.IsDirect());
      EXPECT_TRUE(words.insert(role.word()).second);
      EXPECT_EQ(role.word() >> 24, static_cast<uint32_t>(as_id));
    }
  }
  EXPECT_FALSE(PageRole().IsDirect());
}

TEST(PageRoleTest, AChildDiffersFromItsParentInTheLevelOnly) {
  for (const int as_id : {0, 1}) {
    EXPECT_EQ(PageRole::Direct(Level::k256T, as_id).Child(),
              PageRole::Direct(Level::k512G, as_id));
    EXPECT_EQ(PageRole::Direct(Level::k2M, as_id).Child(),
              PageRole::Direct(Level::k4K, as_id));
  }
}

}  // namespace
}  // namespace mmu
