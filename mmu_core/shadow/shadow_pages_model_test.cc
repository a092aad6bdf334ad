// Random operations on shadow pages, each followed by the auditor.

#include <cstdint>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "mmu_core/base/level.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/paging/access_rights.h"
#include "mmu_core/testing/shadow_test_util.h"

namespace mmu {
namespace {

using ::mmu::testing::DirectRole;
using ::mmu::testing::IndirectRole;
using ::mmu::testing::NestedRole;
using ::mmu::testing::ShadowFixture;

// Guests' tables are at gfns below kTables; leafs map these, too.
constexpr uint64_t kTables = 24;
constexpr int kLevels = 4;

class ShadowPagesModelTest : public ::testing::TestWithParam<uint32_t>,
                             protected ShadowFixture {
 protected:
  ShadowPagesModelTest() : ShadowFixture(TdpEnabled::kYes) {
    pages_.SetLimit(lock_, 64, nullptr);
  }
  ~ShadowPagesModelTest() override {
    while (!roots_.empty()) DropRoot();
  }

  uint64_t Random(uint64_t end) { return rng_() % end; }
  int RandomIndex() { return static_cast<int>(Random(8)); }
  // Null if there are no active pages.
  ShadowPageState* RandomPage() {
    std::vector<ShadowPageState*> pages;
    for (ShadowPageState* page = pages_.set().active().oldest();
         page != nullptr; page = page->newer) {
      pages.push_back(page);
    }
    return pages.empty() ? nullptr : pages[Random(pages.size())];
  }

  void Create() {
    const int level = 1 + static_cast<int>(Random(kLevels));
    const PageRole role = Random(4) == 0   ? DirectRole(1 + (level > 2))
                          : Random(2) == 0 ? NestedRole(level)
                                           : IndirectRole(level);
    const uint64_t gfn =
        role.IsDirect() ? 512 * 512 * Random(2) : 1 + Random(kTables - 1);
    ASSERT_TRUE(pages_.MakeAvailable(lock_, nullptr));
    GetSyncing(gfn, role, [this](ShadowPageState&) {
      return Random(3) == 0 ? PageSync::kFailed : PageSync::kNeedsFlush;
    });
  }
  void LinkTwo(ShadowPageState& parent, ShadowPageState& child) {
    const SpteSlot& entry = parent.EntryAt(RandomIndex());
    if (child.level() != ChildOf(parent.level())) return;
    if (entry.Load().IsPresentTable(parent.level())) return;
    Link(parent, IndexInTable(entry), child);
  }
  // Whether a guest's table in `range` must not be written.
  bool IsGuarded(GfnRange range) {
    bool guarded = false;
    for (Gfn gfn = range.start; gfn < range.end && gfn < Gfn(kTables);
         gfn += 1) {
      pages_.set().ForEachWithGuestPtes(lock_, gfn,
                                        [&](const ShadowPageState& page) {
                                          guarded |= !page.unsync;
                                          return true;
                                        });
    }
    return guarded;
  }
  void MapOne(ShadowPageState& page) {
    const int index = RandomIndex();
    const Level level = page.level();
    if (level > Level::k2M) return;
    if (page.EntryAt(index).Load().IsPresent()) return;
    const Gfn gfn = page.translations != nullptr
                        ? Gfn(Random(40) * PagesPer(level))
                        : page.TranslationOf(index).gfn;
    const Spte leaf = SpteFormat::Ept().MakeLeaf(
        {.level = level,
         .pfn = Pfn(gfn.value()),
         .write = !IsGuarded(GfnRange::Of(gfn, PagesPer(level)))});
    TopUp();
    pages_.links().AddLeaf(lock_, page.EntryAt(index), leaf,
                           {gfn, page.page->role.access()}, Rmaps(gfn.value()),
                           caches_.lists, nullptr);
  }
  void Empty(ShadowPageState& page) {
    ZappedPages zapped;
    pages_.zap().ZapSpte(lock_, page.EntryAt(RandomIndex()), zapped);
    pages_.zap().Commit(lock_, zapped, nullptr);
  }
  void LetGuestWrite(ShadowPageState& page) {
    if (page.level() != Level::k4K || !page.page->role.HasGuestPtes()) return;
    if (Rmaps(page.gfn().value()).IsWriteTracked(page.gfn())) return;
    MarkUnsync(page);
  }
  void Sync(ShadowPageState& top) {
    for (;;) {
      UnsyncBatch batch;
      pages_.unsync().Collect(lock_, top, batch);
      if (batch.count == 0) break;
      for (int i = 0; i < batch.count; ++i) {
        pages_.tracking().WriteProtectGfn(lock_, 0, batch.pages[i]->gfn());
        pages_.unsync().ClearUnsync(lock_, *batch.pages[i]);
      }
    }
    EXPECT_EQ(top.unsync_children, 0u);
  }
  void TakeRoot(ShadowPageState& page) {
    if (roots_.size() == 8) return;
    pages_.zap().GetRoot(lock_, page);
    roots_.push_back(&page);
  }
  void DropRoot() {
    if (roots_.empty()) return;
    const size_t i = Random(roots_.size());
    PutRoot(*roots_[i]);
    roots_.erase(roots_.begin() + static_cast<int64_t>(i));
  }
  void ZapAllFast() {
    pages_.zap().StartGeneration(lock_);
    Create();  // beside the old ones
    pages_.zap().ZapObsolete(lock_, nullptr);
  }

  std::mt19937 rng_{GetParam()};
  std::vector<ShadowPageState*> roots_;
};

TEST_P(ShadowPagesModelTest, WhateverIsDoneThePagesStayInOrder) {
  for (int step = 0; step < 1500; ++step) {
    const uint64_t what = Random(100);
    ShadowPageState* const page = RandomPage();
    if (page == nullptr || what < 25) {
      Create();
    } else if (what < 45) {
      LinkTwo(*page, *RandomPage());
    } else if (what < 70) {
      MapOne(*page);
    } else if (what < 80) {
      LetGuestWrite(*page);
    } else if (what < 85) {
      Sync(*page);
    } else if (what < 90) {
      Empty(*page);
    } else if (what < 94) {
      Zap(*page);
    } else if (what < 96) {
      TakeRoot(*page);
    } else if (what < 99) {
      DropRoot();
    } else {
      ZapAllFast();
    }
    ASSERT_EQ(AuditFindings(), "") << "after step " << step << ", " << what;
    ASSERT_FALSE(HasFatalFailure());
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, ShadowPagesModelTest,
                         ::testing::Values(1, 2, 3, 4));

}  // namespace
}  // namespace mmu
