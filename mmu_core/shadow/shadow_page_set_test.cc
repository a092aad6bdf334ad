#include "mmu_core/shadow/shadow_page_set.h"

#include <cstdint>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/testing/shadow_test_util.h"

namespace mmu {
namespace {

using ::mmu::testing::DirectRole;
using ::mmu::testing::IndirectRole;
using ::mmu::testing::PassthroughRole;
using ::mmu::testing::ShadowFixture;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

class ShadowPageSetTest : public ::testing::Test, protected ShadowFixture {
 protected:
  std::vector<uint64_t> ActiveGfns() {
    std::vector<uint64_t> gfns;
    for (ShadowPageState* page = pages_.set().active().newest();
         page != nullptr; page = page->older) {
      gfns.push_back(page->gfn().value());
    }
    return gfns;
  }
  std::vector<ShadowPageState*> WithGuestPtes(uint64_t gfn) {
    std::vector<ShadowPageState*> found;
    pages_.set().ForEachWithGuestPtes(lock_, Gfn(gfn),
                                      [&](ShadowPageState& page) {
                                        found.push_back(&page);
                                        return true;
                                      });
    return found;
  }
};

// Covers: SHD-01
TEST_F(ShadowPageSetTest, ActivePagesAreListedTheNewestFirst) {
  ShadowPageState& one = Page(1, IndirectRole(1));
  ShadowPageState& two = Page(2, IndirectRole(1));
  Page(3, IndirectRole(1));
  Page(1, IndirectRole(1));  // use does not move it
  EXPECT_THAT(ActiveGfns(), ElementsAre(3, 2, 1));
  Zap(two);
  EXPECT_THAT(ActiveGfns(), ElementsAre(3, 1));
  Zap(one);
  Page(1, IndirectRole(1));
  EXPECT_THAT(ActiveGfns(), ElementsAre(1, 3));
}

// Covers: SHD-07, ROLE-31, ROLE-34
TEST_F(ShadowPageSetTest, PagesWithGuestPtesOfAGfnAreFoundAndNoOthers) {
  ShadowPageState& table = Page(9, IndirectRole(1));
  ShadowPageState& directory = Page(9, IndirectRole(2));
  ShadowPageState& obsolete_root = Page(9, IndirectRole(4));
  Page(9, DirectRole(1));
  Page(9, PassthroughRole());
  Page(10, IndirectRole(1));
  EXPECT_THAT(WithGuestPtes(9),
              UnorderedElementsAre(&table, &directory, &obsolete_root));
  pages_.zap().GetRoot(lock_, obsolete_root);
  Zap(obsolete_root);
  EXPECT_THAT(WithGuestPtes(9), UnorderedElementsAre(&table, &directory));
  PutRoot(obsolete_root);
}

TEST_F(ShadowPageSetTest, ALoopOverAChainMayZapWhatItMeets) {
  for (int level = 1; level <= 4; ++level) Page(9, IndirectRole(level));
  ZappedPages zapped;
  int met = 0;
  pages_.set().ForEachWithGuestPtes(lock_, Gfn(9), [&](ShadowPageState& page) {
    ++met;
    pages_.zap().Prepare(lock_, page, zapped);
    return true;
  });
  EXPECT_EQ(met, 4);
  EXPECT_THAT(WithGuestPtes(9), IsEmpty());
  EXPECT_THAT(ActiveGfns(), IsEmpty());
  pages_.zap().Commit(lock_, zapped, nullptr);
  EXPECT_EQ(pages_.set().FirstInChain(Gfn(9)), nullptr);
}

// Covers: SHD-24
TEST_F(ShadowPageSetTest, PagesOfAnOlderGenerationAreObsolete) {
  ShadowPageState& old_page = Page(1, IndirectRole(1));
  EXPECT_FALSE(pages_.set().IsObsolete(old_page));
  pages_.zap().StartGeneration(lock_);
  EXPECT_TRUE(pages_.set().IsObsolete(old_page));
  EXPECT_FALSE(old_page.IsInvalid());
  EXPECT_THAT(WithGuestPtes(1), IsEmpty());
  const ShadowPages::Result other = Get(1, IndirectRole(1));
  EXPECT_TRUE(other.created);
  EXPECT_FALSE(pages_.set().IsObsolete(other.page));
  pages_.zap().ZapObsolete(lock_, nullptr);
}

TEST_F(ShadowPageSetTest, GfnsSpreadOverTheChains) {
  std::vector<int> pages_in(ShadowPageSet::kChains);
  for (uint64_t i = 0; i < 8192; ++i) {
    const int chain = ShadowPageSet::ChainOf(Gfn(i * 512));
    ASSERT_LT(chain, ShadowPageSet::kChains);
    ++pages_in[chain];
  }
  for (const int pages : pages_in) EXPECT_LE(pages, 4);
}

}  // namespace
}  // namespace mmu
