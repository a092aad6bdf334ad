#include "mmu_core/memory/memslot_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/level.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/dirty/dirty_bitmap.h"
#include "mmu_core/dirty/dirty_log_types.h"
#include "mmu_core/memory/invalidate_sequence.h"
#include "mmu_core/memory/lpage_info.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/memory/region_request.h"
#include "mmu_core/memory/region_test_util.h"
#include "mmu_core/rmap/lazy_slot_rmaps.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/testing/failing_allocations.h"
#include "mmu_core/testing/interleaving.h"

namespace mmu {
namespace {

using ::mmu::testing::Interleaving;
using ::testing::Each;

using Events = std::vector<std::string>;

constexpr uint32_t kLog = kMemslotLogDirtyPages;

// Not for a thread that holds it.
bool IsFree(Mutex& mutex) {
  if (!mutex.TryLock()) return false;
  mutex.Unlock();
  return true;
}

// Covers: SLOT-21
TEST(MemslotTableTest, GenerationsStartAt0And1AndAdvanceByTwo) {
  TestTable t;
  EXPECT_EQ(t.generation(0), uint64_t{0});
  EXPECT_EQ(t.generation(1), uint64_t{1});
  ASSERT_TRUE(t.Set(Region(0, 0, 16)).ok());
  EXPECT_EQ(t.generation(0), uint64_t{2});
  EXPECT_EQ(t.generation(1), uint64_t{1});
  ASSERT_TRUE(t.Set(InSpace(Region(0, 0, 16), 1)).ok());
  EXPECT_EQ(t.generation(0), uint64_t{2});
  EXPECT_EQ(t.generation(1), uint64_t{3});
}

// Covers: SLOT-26
TEST(MemslotTableTest, CreateAndFlagsAreOneSwapEach) {
  TestTable t;
  ASSERT_TRUE(t.Set(Region(0, 0, 16)).ok());
  EXPECT_EQ(t.generation(), uint64_t{2});
  ASSERT_TRUE(t.Set(Region(0, 0, 16, kLog)).ok());
  EXPECT_EQ(t.generation(), uint64_t{4});
  EXPECT_EQ(t.hooks.events, (Events{"create - 0", "flags 0 0"}));
}

// Covers: SLOT-25
TEST(MemslotTableTest, DeleteAndMoveAreTwoSwapsEach) {
  TestTable t;
  ASSERT_TRUE(t.Set(Region(0, 0, 16)).ok());
  ASSERT_TRUE(t.Set(MovedTo(Region(0, 0, 16), 64)).ok());
  EXPECT_EQ(t.generation(), uint64_t{6});
  ASSERT_TRUE(t.Set(Deleted(Region(0, 0, 16))).ok());
  EXPECT_EQ(t.generation(), uint64_t{10});
  EXPECT_EQ(t.hooks.events, (Events{"create - 0", "flush 0", "move 0 64",
                                    "flush 0", "delete 64 -"}));
}

// Covers: SLOT-25
TEST(MemslotTableTest, SlotIsFoundInvalidWhileItsMappingsAreZapped) {
  TestTable t;
  ASSERT_TRUE(t.Set(Region(0, 0, 16)).ok());
  ASSERT_TRUE(t.Set(Region(1, 16, 16)).ok());
  int flushes = 0;
  t.hooks.on_flush = [&](const Memslot& old_slot) {
    ++flushes;
    EXPECT_FALSE(old_slot.invalid());
    ASSERT_NE(t.Find(5), nullptr);
    EXPECT_TRUE(t.Find(5)->invalid());
    EXPECT_EQ(t.Find(5)->HvaOf(Gfn(5)), old_slot.HvaOf(Gfn(5)));
    EXPECT_FALSE(t.Find(16)->invalid());
    EXPECT_EQ(t.Find(64), nullptr);
  };
  ASSERT_TRUE(t.Set(MovedTo(Region(0, 0, 16), 64)).ok());
  EXPECT_EQ(t.Find(5), nullptr);
  EXPECT_FALSE(t.Find(69)->invalid());
  t.hooks.on_flush = [&](const Memslot&) {
    ++flushes;
    EXPECT_TRUE(t.Find(69)->invalid());
  };
  ASSERT_TRUE(t.Set(Deleted(Region(0, 0, 16))).ok());
  EXPECT_EQ(t.Find(69), nullptr);
  EXPECT_EQ(flushes, 2);
}

// Covers: SLOT-11
TEST(MemslotTableTest, IdenticalCallChangesNothing) {
  TestTable t;
  ASSERT_TRUE(t.Set(Region(0, 0, 16, kLog)).ok());
  const auto active = [&t] {
    RcuReadGuard reader;
    return &t.table.Active(0);
  };
  const MemslotSet* before = active();
  EXPECT_TRUE(t.Set(Region(0, 0, 16, kLog)).ok());
  EXPECT_EQ(t.generation(), uint64_t{2});
  EXPECT_EQ(active(), before);
  EXPECT_EQ(t.hooks.events, (Events{"create - 0"}));
}

// Covers: SLOT-11
TEST(MemslotTableTest, ChangeOfAddressAndFlagIsAMove) {
  TestTable t;
  ASSERT_TRUE(t.Set(Region(0, 0, 16)).ok());
  ASSERT_TRUE(t.Set(WithFlags(MovedTo(Region(0, 0, 16), 64), kLog)).ok());
  EXPECT_EQ(t.hooks.events.back(), "move 0 64");
  EXPECT_TRUE(t.Find(64)->dirty_log_enabled());
}

// Hooks that need no memory, like those of a VM.
struct CountingHooks : MemslotTableHooks {
  void BeforeSwap(RegionChange, const Memslot*) override { ++calls; }
  void FlushShadowSlot(const Memslot&) override { ++calls; }
  void CommitRegion(RegionChange, const Memslot*, const Memslot*) override {
    ++calls;
  }
  int calls = 0;
};

// A table with rmaps from the start and two slots, the second of which logs.
struct FailingTable {
  FailingTable() {
    EXPECT_TRUE(Set(Region(0, 0, 600)).ok());
    EXPECT_TRUE(Set(Region(1, 1024, 600, kLog)).ok());
  }
  absl::Status Set(const RegionRequest& request) {
    MutexLock lock(table.slots_lock);
    return table.SetRegion(request, hooks);
  }
  absl::Status SwitchOn() {
    MutexLock lock(table.slots_lock);
    return table.SwitchLogging(0, MemslotTable::Logging::kOn, both_slots, hooks,
                               [this] { ++certain; });
  }
  std::string State() const {
    std::string state;
    RcuReadGuard reader;
    const MemslotSet& set = table.Active(0);
    for (const Memslot* slot : set.slots()) {
      absl::StrAppend(&state, slot->id, "@", slot->base_gfn.value(), " ",
                      slot->flags, " ", slot->dirty_bitmap != nullptr, " ",
                      slot->shadow_rmaps() != nullptr, "; ");
    }
    return absl::StrCat(state, set.generation(), " ", table.total_pages(), " ",
                        table.logging_slots(), " ", hooks.calls);
  }

  ShadowRootGate gate{ShadowRootGate::TdpMmu::kDisabled};
  MemslotTable table{{.max_gfn = kTestMaxGfn, .shadow_roots = &gate}};
  CountingHooks hooks;
  const std::vector<MemslotTable::LoggedSlot> both_slots = {{0}, {1}};
  int certain = 0;
};

// Covers: SLOT-14
TEST(MemslotTableTest, WhicheverAllocationFailsNothingChanged) {
  const std::vector<
      std::pair<const char*, std::function<absl::Status(FailingTable&)>>>
      changes = {
          {"create", [](auto& t) { return t.Set(Region(2, 4096, 600, kLog)); }},
          {"move",
           [](auto& t) { return t.Set(MovedTo(Region(0, 0, 600), 8192)); }},
          {"flags", [](auto& t) { return t.Set(Region(0, 0, 600, kLog)); }},
          {"delete", [](auto& t) { return t.Set(Deleted(Region(1, 0, 600))); }},
          {"switch", [](auto& t) { return t.SwitchOn(); }},
      };
  for (const auto& [name, change] : changes) {
    SCOPED_TRACE(name);
    uint64_t n = 1;
    for (;; ++n) {
      SCOPED_TRACE(n);
      FailingTable t;
      const std::string before = t.State();
      const testing::Attempt attempt =
          testing::FailOneAllocation(n, [&, &run = change] { return run(t); });
      if (!attempt.failed) {
        ASSERT_TRUE(attempt.status.ok()) << attempt.status;
        break;
      }
      EXPECT_EQ(attempt.status.code(), absl::StatusCode::kResourceExhausted);
      EXPECT_EQ(DetailOf(attempt.status).reason,
                Reason::kResourceExhaustedMemory);
      EXPECT_EQ(DetailOf(attempt.status).kvm_errno, ENOMEM);
      EXPECT_EQ(t.State(), before);
      EXPECT_EQ(t.certain, 0);
      {
        RcuReadGuard reader;
        EXPECT_EQ(t.table.Active(0).FindByGfn(Gfn(5))->HvaOf(Gfn(5)).value(),
                  Region(0, 0, 600).userspace_addr.value() + 5 * kPageSize);
      }
      EXPECT_TRUE(change(t).ok());
      EXPECT_NE(t.State(), before);
    }
    EXPECT_GT(n, 5u);
  }
}

// Covers: SLOT-21, SLOT-29
TEST(MemslotTableTest, TheLogsOfManySlotsAreSwitchedInOneSwap) {
  TestTable t;
  for (uint32_t id = 0; id < 5; ++id) {
    ASSERT_TRUE(t.Set(Region(id, id * 100, 100, id == 3 ? kLog : 0)).ok());
  }
  t.hooks.events.clear();
  const uint64_t before = t.generation();
  const auto mine = std::make_shared<DirtyBitmap>(100, InitiallySet::kNo);
  {
    MutexLock lock(t.table.slots_lock);
    const std::vector<MemslotTable::LoggedSlot> slots = {{4}, {3}, {0, mine}};
    ASSERT_TRUE(
        t.table
            .SwitchLogging(0, MemslotTable::Logging::kOn, slots, t.hooks, [] {})
            .ok());
  }
  EXPECT_EQ(t.generation(), before + 2);
  // Slot 3 gets no event, because it logs already.
  EXPECT_EQ(t.hooks.events, (Events{"flags 400 400", "flags 0 0"}));
  EXPECT_EQ(t.table.logging_slots(), 3);
  EXPECT_EQ(t.Find(0)->dirty_bitmap, mine);
  EXPECT_NE(t.Find(400)->dirty_bitmap, nullptr);
  EXPECT_FALSE(t.Find(100)->dirty_log_enabled());

  MutexLock lock(t.table.slots_lock);
  const std::vector<MemslotTable::LoggedSlot> all = {{0}, {1}, {2}, {3}, {4}};
  ASSERT_TRUE(
      t.table.SwitchLogging(0, MemslotTable::Logging::kOff, all, t.hooks, [] {})
          .ok());
  EXPECT_EQ(t.generation(), before + 4);
  EXPECT_EQ(t.table.logging_slots(), 0);
  EXPECT_EQ(t.Find(0)->dirty_bitmap, nullptr);
}

// Covers: SLOT-22
TEST(MemslotTableTest, NothingCachedIsUsedWhileASwapIsInProgress) {
  EXPECT_TRUE(GenerationMatches(4, 4));
  EXPECT_FALSE(GenerationMatches(4, 6));
  EXPECT_FALSE(GenerationMatches(4, 4 | kGenerationInProgress));
  EXPECT_FALSE(
      GenerationMatches(4 | kGenerationInProgress, 4 | kGenerationInProgress));
}

// Covers: SLOT-21, SLOT-24
TEST(MemslotTableTest, ReaderDelaysTheEndOfASwapAndSeesBit63) {
  TestTable t;
  ASSERT_TRUE(t.Set(Region(0, 0, 16)).ok());
  std::atomic<bool> returned = false;
  std::thread updater;
  {
    RcuReadGuard guard;
    const MemslotSet* old_set = &t.table.Active(0);
    updater = std::thread([&] {
      EXPECT_TRUE(t.Set(Region(1, 16, 16)).ok());
      returned = true;
    });
    // The new set is published without waiting for this reader ...
    while (&t.table.Active(0) == old_set) std::this_thread::yield();
    const MemslotSet& new_set = t.table.Active(0);
    // ... but before the reader leaves, the swap does not end and the old set
    // is not freed.
    for (int i = 0; i < 1000; ++i) {
      EXPECT_EQ(new_set.generation(), uint64_t{2} | kGenerationInProgress);
      std::this_thread::yield();
    }
    EXPECT_FALSE(returned.load());
    EXPECT_EQ(old_set->generation(), uint64_t{2});
    EXPECT_EQ(old_set->FindByGfn(Gfn(16)), nullptr);
    EXPECT_NE(old_set->FindByGfn(Gfn(0)), nullptr);
    EXPECT_NE(new_set.FindByGfn(Gfn(16)), nullptr);
  }
  updater.join();
  EXPECT_EQ(t.generation(), uint64_t{4});
}

// Where `set` has a slot with gfn 5 and the host memory of `region`, by its
// three indexes. Null: nowhere.
std::vector<const Memslot*> FoundIn(const MemslotSet& set,
                                    const RegionRequest& region) {
  const Memslot* by_hva = nullptr;
  set.ForEachInHvaRange(region.userspace_addr,
                        region.userspace_addr + kPageSize,
                        [&](const Memslot& slot, GfnRange) { by_hva = &slot; });
  return {set.FindById(region.slot), set.FindByGfn(Gfn(5)), by_hva};
}

// Each set is the same by all of its indexes, and a reader keeps the set that
// it has.
// Covers: SLOT-20
TEST(MemslotTableTest, AReaderKeepsItsSetWhileAnotherIsPublished) {
  TestTable t;
  const RegionRequest region = Region(0, 0, 16);
  ASSERT_TRUE(t.Set(region).ok());
  Interleaving threads;
  threads.Add("delete", [&] { EXPECT_TRUE(t.Set(Deleted(region)).ok()); });
  const MemslotSet* with_invalid = nullptr;
  {
    RcuReadGuard reader;
    const MemslotSet& with_slot = t.table.Active(0);
    const Memslot* slot = with_slot.FindById(0);
    threads.RunTo("delete", HookPoint::kGracePeriod);
    EXPECT_FALSE(slot->invalid());
    EXPECT_THAT(FoundIn(with_slot, region), Each(slot));
    with_invalid = &t.table.Active(0);
    EXPECT_NE(with_invalid, &with_slot);
  }
  const Memslot* invalid = with_invalid->FindById(0);
  ASSERT_NE(invalid, nullptr);
  EXPECT_TRUE(invalid->invalid());
  EXPECT_THAT(FoundIn(*with_invalid, region), Each(invalid));
  // The updater has published the next set, and frees this one later.
  threads.RunTo("delete", HookPoint::kGracePeriod);
  EXPECT_THAT(FoundIn(*with_invalid, region), Each(invalid));
  {
    RcuReadGuard reader;
    EXPECT_THAT(FoundIn(t.table.Active(0), region), Each(nullptr));
  }
  threads.RunToEnd("delete");
}

// Covers: SLOT-20
TEST(MemslotTableTest, ReaderSeesTheSlotsBeforeOrAfterAndNoMixture) {
  TestTable t;
  const RegionRequest region = Region(0, 0, 1024);
  ASSERT_TRUE(t.Set(region).ok());
  std::atomic<bool> done = false;
  std::atomic<int> ready = 0;
  std::vector<std::thread> readers;
  for (int i = 0; i < 2; ++i) {
    readers.emplace_back([&] {
      ++ready;
      while (!done.load()) {
        RcuReadGuard guard;
        const MemslotSet& set = t.table.Active(0);
        const Memslot* low = set.FindByGfn(Gfn(5));
        const Memslot* high = set.FindByGfn(Gfn(4096 + 5));
        // The slot is at exactly one of its two places.
        ASSERT_NE(low == nullptr, high == nullptr);
        const Memslot* slot = low != nullptr ? low : high;
        ASSERT_EQ(set.FindById(0), slot);
        ASSERT_EQ(FoundIn(set, region)[2], slot);
        ASSERT_EQ(set.slots().size(), size_t{1});
        ASSERT_EQ(slot->HvaOf(slot->base_gfn), region.userspace_addr);
        ASSERT_TRUE(slot->lpage_info->block_count(Level::k2M) == 2);
      }
    });
  }
  while (ready.load() < 2) std::this_thread::yield();
  for (int i = 0; i < 200; ++i) {
    ASSERT_TRUE(t.Set(MovedTo(region, i % 2 == 0 ? 4096 : 0)).ok());
  }
  done = true;
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(t.generation(), uint64_t{2 + 200 * 4});
}

// Covers: SLOT-23
TEST(MemslotTableTest, SwapWaitsForAnAnnouncedInvalidation) {
  InvalidationGate gate;
  TestTable t(&gate);
  gate.Announce();
  std::atomic<bool> returned = false;
  std::thread updater([&] {
    EXPECT_TRUE(t.Set(Region(0, 0, 16)).ok());
    returned = true;
  });
  // Once the updater holds slots_lock, nothing but the gate can stop it.
  while (t.table.slots_lock.TryLock()) {
    t.table.slots_lock.Unlock();
    std::this_thread::yield();
  }
  for (int i = 0; i < 1000; ++i) {
    EXPECT_EQ(t.Find(0), nullptr);
    EXPECT_EQ(t.generation(), uint64_t{0});
    std::this_thread::yield();
  }
  EXPECT_FALSE(returned.load());
  gate.Conclude();
  updater.join();
  EXPECT_NE(t.Find(0), nullptr);
}

// The updater publishes the new set, and then waits for the reader of the old
// set, which it does not touch before.
// Covers: SLOT-24
TEST(MemslotTableTest, AnUpdateIsOverOnlyAfterTheReadersOfTheOldSet) {
  TestTable t;
  ASSERT_TRUE(t.Set(Region(0, 0, 100)).ok());
  std::atomic<bool> reading = true;
  t.hooks.on_commit = [&](const Memslot*, const Memslot*) {
    EXPECT_FALSE(reading.load());
  };
  t.hooks.events.clear();
  std::shared_ptr<const Memslot> old_slot;
  Interleaving threads;
  threads.Add("update",
              [&] { EXPECT_TRUE(t.Set(Region(0, 0, 100, kLog)).ok()); });
  {
    RcuReadGuard reader;
    const MemslotSet& old_set = t.table.Active(0);
    old_slot = old_set.FindOwnedById(0);
    const long owners = old_slot.use_count();
    threads.RunTo("update", HookPoint::kGracePeriod);
    EXPECT_TRUE(t.Find(0)->dirty_log_enabled()) << "is published";
    EXPECT_EQ(t.generation(), kGenerationInProgress | 2);
    EXPECT_FALSE(IsFree(t.table.slots_lock));
    threads.Start("update");
    for (int i = 0; i < 1000; ++i) {
      ASSERT_FALSE(threads.HasEnded("update"));
      std::this_thread::yield();
    }
    EXPECT_EQ(t.generation(), kGenerationInProgress | 2);
    EXPECT_EQ(t.hooks.events, Events());
    // The updater has become one more owner, and the old set still is one.
    EXPECT_EQ(old_slot.use_count(), owners + 1);
    EXPECT_FALSE(old_set.FindById(0)->dirty_log_enabled());
    reading = false;
  }
  threads.WaitForEnd("update");
  EXPECT_EQ(t.generation(), uint64_t{4});
  EXPECT_EQ(t.hooks.events, (Events{"flags 0 0"}));
  EXPECT_EQ(old_slot.use_count(), 1) << "the old set is gone";
}

// A vCPU loads the first shadow root in a read section, and so allocates rmaps
// under slots_arch_lock. An updater waits for the end of the section. A slot
// that moves is prepared by then and not published.
// Covers: SLOT-24
TEST(MemslotTableTest, AnUpdaterThatWaitsForReadersLeavesSlotsArchLockToThem) {
  for (const RegionRequest& change :
       {Region(1, 1024, 100), MovedTo(Region(0, 0, 100), 8192)}) {
    ShadowRootGate gate(ShadowRootGate::TdpMmu::kEnabled);
    MemslotTable table({.max_gfn = kTestMaxGfn, .shadow_roots = &gate});
    CountingHooks hooks;
    const auto set = [&](const RegionRequest& request) {
      MutexLock lock(table.slots_lock);
      EXPECT_TRUE(table.SetRegion(request, hooks).ok());
    };
    set(Region(0, 0, 100));
    Interleaving threads;
    threads.Add("update", [&] { set(change); });
    threads.Add("root", [&] {
      RcuReadGuard reader;
      AtHook(HookPoint::kSlotToFault);
      const absl::Status status = gate.BeforeShadowRoot([&] {
        std::vector<LazySlotRmaps*> published;
        for (const Memslot* slot : table.Active(0).slots()) {
          published.push_back(slot->rmaps.get());
        }
        return published;
      });
      EXPECT_TRUE(status.ok()) << status;
    });
    threads.RunTo("root", HookPoint::kSlotToFault);
    threads.RunTo("update", HookPoint::kGracePeriod);
    EXPECT_FALSE(IsFree(table.slots_lock));
    EXPECT_TRUE(IsFree(gate.slots_arch_lock()));
    threads.Start("update");
    threads.RunToEnd("root");
    threads.WaitForEnd("update");
    EXPECT_TRUE(gate.SlotsHaveRmaps());
    RcuReadGuard reader;
    for (const Memslot* slot : table.Active(0).slots()) {
      EXPECT_NE(slot->shadow_rmaps(), nullptr) << slot->id;
    }
  }
}

TEST(MemslotTableTest, UpdatesOfSeveralThreadsAreSerialised) {
  TestTable t;
  std::vector<std::thread> threads;
  for (uint32_t id = 0; id < 4; ++id) {
    threads.emplace_back([&t, id] {
      for (int i = 0; i < 50; ++i) {
        const RegionRequest region = Region(id, id * 100, 100);
        EXPECT_TRUE(t.Set(region).ok());
        EXPECT_TRUE(t.Set(Deleted(region)).ok());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  // Each iteration swaps the set three times.
  EXPECT_EQ(t.generation(), uint64_t{4 * 50 * 3 * 2});
  EXPECT_EQ(t.table.total_pages(), uint64_t{0});
  RcuReadGuard reader;
  EXPECT_TRUE(t.table.Active(0).slots().empty());
}

// Covers: SLOT-27
TEST(MemslotTableTest, FlagsKeepLpageInfoAndMoveMakesItAnew) {
  TestTable t;
  ASSERT_TRUE(t.Set(Region(0, 0, 1024)).ok());
  const std::shared_ptr<LpageInfo> first = t.Find(0)->lpage_info;
  first->Disallow(Gfn(3));
  ASSERT_TRUE(t.Set(Region(0, 0, 1024, kLog)).ok());
  EXPECT_EQ(t.Find(0)->lpage_info, first);
  EXPECT_EQ(t.Find(0)->lpage_info->Count(Gfn(3), Level::k2M), uint32_t{1});

  // After a move by 2 MiB, pages of 2 MiB still fit. The moved slot has
  // forgotten the page that was disallowed.
  ASSERT_TRUE(t.Set(MovedTo(Region(0, 0, 1024, kLog), 512)).ok());
  EXPECT_NE(t.Find(512)->lpage_info, first);
  EXPECT_EQ(t.Find(515)->lpage_info->Count(Gfn(515), Level::k2M), uint32_t{0});
  // After a move by one more page, they do not fit.
  ASSERT_TRUE(t.Set(MovedTo(Region(0, 0, 1024, kLog), 513)).ok());
  EXPECT_TRUE(t.Find(1024)->lpage_info->Disallowed(Gfn(1024), Level::k2M));
}

// Covers: SLOT-27, SLOT-51
TEST(MemslotTableTest, BitmapIsKeptWhileLoggingStaysOn) {
  TestTable t;
  const RegionRequest region = Region(0, 0, 100);
  ASSERT_TRUE(t.Set(region).ok());
  EXPECT_EQ(t.Find(0)->dirty_bitmap, nullptr);

  ASSERT_TRUE(t.Set(WithFlags(region, kLog)).ok());
  const std::shared_ptr<DirtyBitmap> bitmap = t.Find(0)->dirty_bitmap;
  ASSERT_NE(bitmap, nullptr);
  EXPECT_EQ(bitmap->CountDirty(), uint64_t{0});
  bitmap->Mark(7);

  ASSERT_TRUE(t.Set(WithFlags(MovedTo(region, 512), kLog)).ok());
  EXPECT_EQ(t.Find(512)->dirty_bitmap, bitmap);
  EXPECT_TRUE(t.Find(512)->dirty_bitmap->Test(7));

  ASSERT_TRUE(t.Set(MovedTo(region, 512)).ok());
  EXPECT_EQ(t.Find(512)->dirty_bitmap, nullptr);
  EXPECT_EQ(bitmap.use_count(), 1);  // the table has dropped it

  ASSERT_TRUE(t.Set(WithFlags(MovedTo(region, 512), kLog)).ok());
  EXPECT_NE(t.Find(512)->dirty_bitmap, bitmap);
  EXPECT_EQ(t.Find(512)->dirty_bitmap->CountDirty(), uint64_t{0});
}

// Covers: SLOT-51
TEST(MemslotTableTest, BitmapLivesUntilReadersOfTheOldSlotAreGone) {
  TestTable t;
  ASSERT_TRUE(t.Set(Region(0, 0, 100, kLog)).ok());
  std::thread updater;
  {
    RcuReadGuard guard;
    const MemslotSet* old_set = &t.table.Active(0);
    const Memslot* slot = old_set->FindByGfn(Gfn(0));
    const std::weak_ptr<DirtyBitmap> bitmap = slot->dirty_bitmap;
    updater = std::thread([&] { EXPECT_TRUE(t.Set(Region(0, 0, 100)).ok()); });
    while (&t.table.Active(0) == old_set) std::this_thread::yield();
    EXPECT_FALSE(bitmap.expired());
    EXPECT_TRUE(slot->dirty_bitmap->Mark(99));
  }
  updater.join();
  EXPECT_EQ(t.Find(0)->dirty_bitmap, nullptr);
}

// Covers: SLOT-51
TEST(MemslotTableTest, InitiallySetAffectsSlotsEnabledLater) {
  TestTable t;
  ASSERT_TRUE(t.Set(Region(0, 0, 100, kLog)).ok());
  {
    MutexLock lock(t.table.slots_lock);
    t.table.SetDirtyLogInitiallySet(InitiallySet::kYes);
  }
  ASSERT_TRUE(t.Set(Region(1, 1000, 100, kLog)).ok());
  {
    MutexLock lock(t.table.slots_lock);
    t.table.SetDirtyLogInitiallySet(InitiallySet::kNo);
  }
  ASSERT_TRUE(t.Set(Region(2, 2000, 100, kLog)).ok());
  EXPECT_EQ(t.Find(0)->dirty_bitmap->CountDirty(), uint64_t{0});
  EXPECT_EQ(t.Find(1000)->dirty_bitmap->CountDirty(), uint64_t{100});
  EXPECT_EQ(t.Find(2000)->dirty_bitmap->CountDirty(), uint64_t{0});
}

// Covers: SLOT-29
TEST(MemslotTableTest, PagesAndLoggingSlotsAreCounted) {
  TestTable t;
  int logging_at_commit = -1;
  t.hooks.on_commit = [&](const Memslot*, const Memslot*) {
    logging_at_commit = t.table.logging_slots();
  };
  const RegionRequest a = Region(0, 0, 16);
  const RegionRequest b = Region(1, 100, 32, kLog);
  ASSERT_TRUE(t.Set(a).ok());
  EXPECT_EQ(t.table.logging_slots(), 0);
  ASSERT_TRUE(t.Set(b).ok());
  EXPECT_EQ(t.table.total_pages(), uint64_t{48});
  EXPECT_EQ(t.table.logging_slots(), 1);
  EXPECT_EQ(logging_at_commit, 1);
  ASSERT_TRUE(t.Set(WithFlags(a, kLog)).ok());
  EXPECT_EQ(t.table.logging_slots(), 2);
  ASSERT_TRUE(t.Set(MovedTo(b, 200)).ok());
  EXPECT_EQ(t.table.logging_slots(), 2);
  EXPECT_EQ(t.table.total_pages(), uint64_t{48});
  ASSERT_TRUE(t.Set(WithFlags(MovedTo(b, 300), 0)).ok());
  EXPECT_EQ(t.table.logging_slots(), 1);
  ASSERT_TRUE(t.Set(Deleted(a)).ok());
  EXPECT_EQ(t.table.logging_slots(), 0);
  EXPECT_EQ(t.table.total_pages(), uint64_t{32});
  EXPECT_EQ(logging_at_commit, 0);
}

TEST(MemslotTableTest, AddressSpacesAreIndependent) {
  TestTable t;
  ASSERT_TRUE(t.Set(Region(5, 0, 16)).ok());
  ASSERT_TRUE(t.Set(InSpace(Region(5, 8, 16), 1)).ok());
  EXPECT_EQ(t.Find(0, 0)->as_id, 0);
  EXPECT_EQ(t.Find(0, 1), nullptr);
  EXPECT_EQ(t.Find(16, 1)->as_id, 1);
  ASSERT_TRUE(t.Set(Deleted(Region(5, 0, 16))).ok());
  EXPECT_NE(t.Find(16, 1), nullptr);
}

#ifndef NDEBUG
// Covers: SLOT-24
TEST(MemslotTableDeathTest, AReaderNeedsAReadSectionOrSlotsLock) {
  TestTable t;
  MutexLock lock(t.table.slots_lock);
  t.table.Active(0);
  EXPECT_DEATH(std::thread([&t] { t.table.Active(0); }).join(),
               "InRcuReadSection");
  std::thread([&t] {
    RcuReadGuard reader;
    t.table.Active(0);
  }).join();
}
#endif

}  // namespace
}  // namespace mmu
