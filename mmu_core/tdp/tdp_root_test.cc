#include "mmu_core/tdp/tdp_root.h"

#include <atomic>
#include <cstdint>
#include <memory>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/level.h"
#include "mmu_core/paging/page_role.h"
#include "mmu_core/paging/table_cache.h"
#include "mmu_core/paging/table_pool.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/testing/interleaving.h"
#include "mmu_core/testing/lock_trace.h"
#include "mmu_core/testing/tdp_test_util.h"
#include "mmu_core/testing/vm_builder.h"

namespace mmu {
namespace {

using ::mmu::testing::AllMappings;
using ::mmu::testing::AuditFindings;
using ::mmu::testing::Interleaving;
using ::mmu::testing::kMiB;
using ::mmu::testing::LockTrace;
using ::mmu::testing::MakeVm;
using ::mmu::testing::Mapping;
using ::mmu::testing::Read;
using ::mmu::testing::Slot;
using ::mmu::testing::Touch;
using ::mmu::testing::Write;
using ::testing::ElementsAre;

int Refs(const TdpRoot& root) { return root.references(); }

// A RootList without a VM.
class TdpRootTest : public ::testing::Test {
 protected:
  ~TdpRootTest() override {
    Invalidate();
    Zap();
    RcuBarrier();
    EXPECT_EQ(pool_.tables_out(), 0u) << "a root was leaked";
  }

  RootRef Load(int as_id) {
    ShadowPage* page = pool_.Take(1).head;
    page->table->FillUnpublished(Spte::Initial());
    RootRef root;
    {
      MmuReadLocked lock(lock_, LockOp::kFault);
      auto spare = std::make_unique<TdpRoot>();
      root = list_.FindOrCreate(PageRole::Direct(Level::k512G, as_id), page,
                                spare);
    }
    if (page != nullptr) pool_.Return(page);
    return root;
  }
  void Invalidate() {
    MmuWriteLocked lock(lock_, LockOp::kZap);
    list_.InvalidateAll();
  }
  // Zaps the scheduled roots. They map nothing, so this only drops the MMU's
  // references.
  int Zap() {
    MmuReadLocked lock(lock_, LockOp::kZap);
    int zapped = 0;
    while (RootRef root = list_.TakeScheduled()) {
      list_.PutMmuReference(*root);
      ++zapped;
    }
    return zapped;
  }
  std::vector<uint64_t> Ids(RootFilter filter, int as_id = RootList::kAnyAsId) {
    std::vector<uint64_t> ids;
    for (RootRef root = list_.First(filter, as_id); root;
         root = list_.Next(std::move(root), filter, as_id)) {
      ids.push_back(root->id());
    }
    std::vector<uint64_t> by_rcu;
    RcuReadGuard rcu;
    for (TdpRoot* root = list_.FirstRcu(filter, as_id); root != nullptr;
         root = list_.NextRcu(root, filter, as_id)) {
      by_rcu.push_back(root->id());
    }
    EXPECT_EQ(ids, by_rcu);
    return ids;
  }

  TablePool pool_;
  MmuLock lock_;
  RootList list_;
};

// Covers: TDP-01
TEST_F(TdpRootTest, TheListMayBeReadWhileRootsComeAndGo) {
  std::atomic<bool> stop{false};
  std::vector<std::thread> readers;
  std::atomic<uint64_t> seen{0};
  for (const bool by_reference : {false, true}) {
    readers.emplace_back([&, by_reference] {
      while (!stop.load()) {
        if (by_reference) {
          for (RootRef root = list_.First(RootFilter::kAll, RootList::kAnyAsId);
               root; root = list_.Next(std::move(root), RootFilter::kAll,
                                       RootList::kAnyAsId)) {
            seen += root->id() != 0 && Refs(*root) > 0;
          }
        } else {
          RcuReadGuard rcu;
          for (TdpRoot* root =
                   list_.FirstRcu(RootFilter::kAll, RootList::kAnyAsId);
               root != nullptr; root = list_.NextRcu(root, RootFilter::kAll,
                                                     RootList::kAnyAsId)) {
            // Reads the table, so that a sanitizer reports a use after free.
            seen += !root->table()->entries[0].Load().IsPresent();
          }
        }
      }
    });
  }
  for (int round = 0; round < 500 || seen.load() == 0; ++round) {
    RootRef a = Load(0), b = Load(1), c = Load(0);
    ASSERT_EQ(a.get(), c.get());
    Invalidate();
    Zap();
  }
  stop.store(true);
  for (std::thread& reader : readers) reader.join();
  EXPECT_THAT(Ids(RootFilter::kAll), ElementsAre());
}

// Covers: TDP-02
TEST_F(TdpRootTest, ManyThreadsThatNeedARootMakeOneForEachRole) {
  for (int round = 0; round < 5; ++round) {
    std::vector<RootRef> roots(64);
    std::vector<std::thread> threads;
    std::atomic<int> ready{0};
    for (int t = 0; t < 64; ++t) {
      threads.emplace_back([&, t] {
        ++ready;
        while (ready.load() < 64) std::this_thread::yield();
        roots[t] = Load(t % 2);
      });
    }
    for (std::thread& thread : threads) thread.join();
    std::set<TdpRoot*> distinct;
    for (const RootRef& root : roots) distinct.insert(root.get());
    EXPECT_EQ(distinct.size(), 2u);
    EXPECT_EQ(Ids(RootFilter::kValid).size(), 2u);
    for (int t = 0; t < 64; ++t) {
      EXPECT_EQ(roots[t]->as_id(), t % 2);
      EXPECT_EQ(Refs(*roots[t]), 32 + 1);
    }
    Invalidate();
    Zap();
  }
}

// Covers: TDP-02
TEST_F(TdpRootTest, AThreadThatFindsNoRootLooksAgainBeforeItMakesOne) {
  uint64_t id = 0;
  Interleaving threads;
  threads.Add("late", [&] { id = Load(0)->id(); });
  threads.RunTo("late", HookPoint::kNoRootToLock);
  const uint64_t first = Load(0)->id();
  threads.RunToEnd("late");
  EXPECT_EQ(id, first);
  EXPECT_THAT(Ids(RootFilter::kValid), ElementsAre(first));
}

// This thread lets go of the root after another thread, and frees it. Between
// the two, only the count of references orders the other's use of the root
// before its end; without that, ThreadSanitizer reports a race.
// Covers: TDP-04
TEST_F(TdpRootTest, AllUsesOfARootComeBeforeItsEnd) {
  RootRef root = Load(0);
  RootRef shared = Load(0);
  const uint64_t id = root->id();
  Invalidate();
  Zap();
  std::atomic<bool> used{false};
  std::thread other([&] {
    RootRef mine = std::move(shared);
    EXPECT_EQ(mine->id(), id);
    mine.reset();
    used.store(true, std::memory_order_relaxed);
  });
  while (!used.load(std::memory_order_relaxed)) std::this_thread::yield();
  root.reset();
  RcuBarrier();
  other.join();
  EXPECT_THAT(Ids(RootFilter::kAll), ElementsAre());
}

// Covers: TDP-03
TEST_F(TdpRootTest, ANewRootHasAReferenceForItsMakerAndOneOfTheMmu) {
  RootRef root = Load(0);
  EXPECT_EQ(Refs(*root), 2);
  TdpRoot* const raw = root.get();
  root.reset();
  EXPECT_EQ(Refs(*raw), 1);
  EXPECT_THAT(Ids(RootFilter::kValid), ElementsAre(raw->id()));
  EXPECT_EQ(Load(0).get(), raw) << "it is found again";
}

// Covers: TDP-03
TEST(TdpRootVmTest, ARootAndItsMappingsOutliveTheLastVcpu) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB)});
  Touch(*vm, GfnRange::Of(Gfn(0), 3));
  Vcpu& vcpu = *vm->state().vcpus[0];
  const uint64_t id = vcpu.root()->id();
  const std::vector<Mapping> before = AllMappings(vm->state());
  vcpu.ReleaseRoot();
  EXPECT_EQ(vcpu.root(), nullptr);
  EXPECT_EQ(AllMappings(vm->state()), before);
  const VcpuStatsSnapshot stats = vm->VcpuStats()[0];
  Read(*vm, 0);
  EXPECT_EQ(vcpu.root()->id(), id);
  EXPECT_EQ(vm->VcpuStats()[0].pf_taken, stats.pf_taken) << "no fault";
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: TDP-04
TEST_F(TdpRootTest, TheLastReferenceOfAnInvalidRootFreesItAfterAGracePeriod) {
  RootRef root = Load(0);
  Invalidate();
  Zap();
  EXPECT_EQ(Refs(*root), 1);
  {
    RcuReadGuard rcu;
    const TdpRoot* raw = root.get();
    root.reset();
    EXPECT_THAT(Ids(RootFilter::kAll), ElementsAre()) << "unlinked at once";
    EXPECT_EQ(pool_.tables_out(), 1u) << "but a reader may still be on it";
    EXPECT_EQ(Refs(*raw), 0);
    EXPECT_FALSE(raw->table()->entries[5].Load().IsPresent());
  }
  RcuBarrier();
  EXPECT_EQ(pool_.tables_out(), 0u);
}

// Covers: TDP-04
TEST(TdpRootDeathTest, DroppingTheLastReferenceOfAValidRootIsABug) {
  EXPECT_DEATH(
      {
        TablePool pool;
        RootList list;
        ShadowPage* page = pool.Take(1).head;
        auto spare = std::make_unique<TdpRoot>();
        RootRef root =
            list.FindOrCreate(PageRole::Direct(Level::k512G, 0), page, spare);
        list.PutMmuReference(*root);
        root.reset();
      },
      "IsInvalid");
}

// Covers: TDP-05
TEST_F(TdpRootTest, AnInvalidRootIsNeverHandedOutAgain) {
  RootRef old = Load(0);
  RootRef other = Load(1);
  Invalidate();
  EXPECT_TRUE(old->IsInvalid());
  EXPECT_TRUE(other->IsInvalid());
  RootRef fresh = Load(0);
  EXPECT_NE(fresh.get(), old.get());
  EXPECT_NE(fresh->id(), old->id());
  EXPECT_FALSE(fresh->IsInvalid());
  EXPECT_THAT(Ids(RootFilter::kValid), ElementsAre(fresh->id()));
}

// Covers: TDP-05
TEST_F(TdpRootTest, RootsThatAreInvalidAlreadyAreNotScheduledAgain) {
  RootRef old = Load(0);
  Invalidate();
  EXPECT_EQ(Zap(), 1);
  RootRef fresh = Load(0);
  Invalidate();
  EXPECT_EQ(Zap(), 1) << "only the fresh one";
  EXPECT_EQ(Refs(*old), 1);
}

// Covers: TDP-06
TEST_F(TdpRootTest, ARootIsStillFoundWhileItIsZapped) {
  const uint64_t id = Load(0)->id();
  Invalidate();
  RootRef zapped = list_.TakeScheduled();
  ASSERT_TRUE(zapped);
  EXPECT_EQ(zapped->id(), id);
  EXPECT_EQ(Refs(*zapped), 2) << "the zapper's and the MMU's";
  EXPECT_FALSE(list_.TakeScheduled()) << "its mark is cleared";
  EXPECT_THAT(Ids(RootFilter::kAll), ElementsAre(id));
  EXPECT_THAT(Ids(RootFilter::kValid), ElementsAre());
  list_.PutMmuReference(*zapped);
  EXPECT_THAT(Ids(RootFilter::kAll), ElementsAre(id));
  zapped.reset();
  EXPECT_THAT(Ids(RootFilter::kAll), ElementsAre());
}

// Covers: TDP-07
TEST(TdpRootVmTest, AnInvalidRootThatSomebodyHoldsMapsNothing) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB)});
  Touch(*vm, GfnRange::Of(Gfn(0), 600));
  TableCache cache(vm->state().pool);
  auto held = vm->state().tdp.LoadRoot(0, cache);
  ASSERT_TRUE(held.ok());
  vm->state().tdp.FastZapAll(nullptr);
  EXPECT_TRUE((*held)->IsInvalid());
  for (const SpteSlot& slot : (*held)->table()->entries) {
    ASSERT_FALSE(slot.Load().IsPresent());
  }
  EXPECT_EQ(vm->Stats().pages_4k, 0u);
  RootRef found =
      const_cast<RootList&>(vm->state().tdp.roots()).First(RootFilter::kAll, 0);
  EXPECT_EQ(found.get(), held->get()) << "still listed";
  found.reset();
  Write(*vm, 0);  // the vCPU drops this root and loads a new one
  EXPECT_EQ(Refs(**held), 1);
  EXPECT_NE(vm->state().vcpus[0]->root(), held->get());
  EXPECT_EQ(AuditFindings(*vm),
            "INV-7: root 1 has 1 references, but vCPUs and MMU have 0")
      << "the reference is the test's";
  held->reset();
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: TDP-08
TEST_F(TdpRootTest, ALoopThatEndsEarlyLeavesTheReferencesInBalance) {
  RootRef roots[] = {Load(0), Load(1), Load(2)};
  for (int stop_after = 0; stop_after <= 3; ++stop_after) {
    int visited = 0;
    for (RootRef root = list_.First(RootFilter::kValid, RootList::kAnyAsId);
         root; root = list_.Next(std::move(root), RootFilter::kValid,
                                 RootList::kAnyAsId)) {
      EXPECT_EQ(Refs(*root), 3) << "the loop holds the current one";
      if (visited++ == stop_after) break;
    }
    for (const RootRef& root : roots) EXPECT_EQ(Refs(*root), 2);
  }
}

// Covers: TDP-08
TEST_F(TdpRootTest, TheNextRootIsTakenBeforeThePreviousOneIsDropped) {
  const RootRef older = Load(0);
  const RootRef newer = Load(1);
  RootRef root = list_.First(RootFilter::kValid, RootList::kAnyAsId);
  ASSERT_EQ(root.get(), newer.get());
  std::vector<int> refs_of_previous;
  {
    LockTrace trace([&](const LockTrace::Event& event) {
      if (event.point != HookPoint::kRootFoundToGet) return;
      refs_of_previous.push_back(Refs(*newer));
    });
    root = list_.Next(std::move(root), RootFilter::kValid, RootList::kAnyAsId);
  }
  EXPECT_EQ(root.get(), older.get());
  EXPECT_THAT(refs_of_previous, ElementsAre(3));
  EXPECT_EQ(Refs(*newer), 2);
  EXPECT_EQ(Refs(*older), 3);
}

// Covers: TDP-08
TEST_F(TdpRootTest, ALoopGoesOnFromARootThatDiedMeanwhile) {
  RootRef roots[] = {Load(0), Load(1), Load(2)};
  std::vector<uint64_t> ids;
  for (RootRef root = list_.First(RootFilter::kAll, RootList::kAnyAsId); root;
       root =
           list_.Next(std::move(root), RootFilter::kAll, RootList::kAnyAsId)) {
    ids.push_back(root->id());
    if (ids.size() != 1) continue;
    // All other owners drop their references to all roots.
    Invalidate();
    for (RootRef& held : roots) held.reset();
    Zap();
  }
  EXPECT_EQ(ids.size(), 1u) << "the next ones are gone, the loop ends";
}

// Covers: TDP-08
TEST_F(TdpRootTest, LoopsSeeTheRootsOfTheirFilterAndAddressSpace) {
  RootRef invalid0 = Load(0);
  Invalidate();
  RootRef valid0 = Load(0);
  RootRef valid1 = Load(1);
  const uint64_t i0 = invalid0->id(), v0 = valid0->id(), v1 = valid1->id();
  EXPECT_THAT(Ids(RootFilter::kValid), ElementsAre(v1, v0));
  EXPECT_THAT(Ids(RootFilter::kValid, 0), ElementsAre(v0));
  EXPECT_THAT(Ids(RootFilter::kValid, 1), ElementsAre(v1));
  EXPECT_THAT(Ids(RootFilter::kAll), ElementsAre(v1, v0, i0));
  EXPECT_THAT(Ids(RootFilter::kAll, 0), ElementsAre(v0, i0));
  EXPECT_THAT(Ids(RootFilter::kAll, 7), ElementsAre());
}

#ifndef NDEBUG
using TdpRootReadersDeathTest = TdpRootTest;

// Covers: TDP-01
TEST_F(TdpRootReadersDeathTest, AReaderOfTheListNeedsAReadSection) {
  const RootRef root = Load(0);
  EXPECT_DEATH(list_.FirstRcu(RootFilter::kAll, RootList::kAnyAsId),
               "InRcuReadSection");
  EXPECT_DEATH(list_.NextRcu(root.get(), RootFilter::kAll, RootList::kAnyAsId),
               "InRcuReadSection");
}
#endif

}  // namespace
}  // namespace mmu
