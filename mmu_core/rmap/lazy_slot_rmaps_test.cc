#include "mmu_core/rmap/lazy_slot_rmaps.h"

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/rmap/slot_rmaps.h"
#include "mmu_core/testing/interleaving.h"

namespace mmu {
namespace {

using ::mmu::testing::Interleaving;
using TdpMmu = ShadowRootGate::TdpMmu;

// Stands in for the memslots: an updater publishes slots in a list that other
// threads may read at any time.
class Slots {
 public:
  explicit Slots(ShadowRootGate& gate) : gate_(gate) {}

  // Creates a slot as an updater does. `prepared` runs between the two steps,
  // without the lock. `before_publish` runs under slots_arch_lock.
  template <typename Prepared, typename BeforePublish>
  absl::Status Create(uint64_t npages, Prepared prepared,
                      BeforePublish before_publish) {
    auto slot = std::make_unique<LazySlotRmaps>(GfnRange::Of(Gfn(0), npages));
    const absl::Status status = gate_.PrepareSlot(*slot);
    if (!status.ok()) return status;
    prepared();
    gate_.PublishSlot(*slot, [&, made = slot.get()] {
      before_publish();
      published_[count_.load()].store(made);
      count_.fetch_add(1);
    });
    owned_.push_back(std::move(slot));
    return absl::OkStatus();
  }
  absl::Status Create(uint64_t npages) {
    return Create(
        npages, [] {}, [] {});
  }
  absl::Status LoadRoot() {
    return gate_.BeforeShadowRoot([this] { return Published(); });
  }
  std::vector<LazySlotRmaps*> Published() const {
    std::vector<LazySlotRmaps*> slots;
    const size_t count = count_.load();
    for (size_t i = 0; i < count; ++i) slots.push_back(published_[i].load());
    return slots;
  }
  size_t WithRmaps() const {
    size_t count = 0;
    for (LazySlotRmaps* slot : Published()) count += slot->get() != nullptr;
    return count;
  }

 private:
  ShadowRootGate& gate_;
  std::vector<std::unique_ptr<LazySlotRmaps>> owned_;
  std::atomic<LazySlotRmaps*> published_[100] = {};
  std::atomic<size_t> count_{0};
};

TEST(LazySlotRmapsTest, WithTheTdpMmuNoSlotHasRmapsBeforeTheFirstShadowRoot) {
  ShadowRootGate gate(TdpMmu::kEnabled);
  Slots slots(gate);
  ASSERT_TRUE(slots.Create(16).ok());
  ASSERT_TRUE(slots.Create(32).ok());
  EXPECT_FALSE(gate.SlotsHaveRmaps());
  EXPECT_EQ(slots.WithRmaps(), 0u);

  ASSERT_TRUE(slots.LoadRoot().ok());
  EXPECT_TRUE(gate.SlotsHaveRmaps());
  EXPECT_EQ(slots.WithRmaps(), 2u);
  EXPECT_EQ(slots.Published()[1]->get()->range(), GfnRange::Of(Gfn(0), 32));

  ASSERT_TRUE(slots.Create(8).ok());
  EXPECT_EQ(slots.WithRmaps(), 3u) << "later ones have them from the start";
}

TEST(LazySlotRmapsTest, WithoutTheTdpMmuEachSlotHasThemFromTheStart) {
  ShadowRootGate gate(TdpMmu::kDisabled);
  Slots slots(gate);
  EXPECT_TRUE(gate.SlotsHaveRmaps());
  ASSERT_TRUE(slots.Create(16).ok());
  EXPECT_EQ(slots.WithRmaps(), 1u);
}

TEST(LazySlotRmapsTest, FurtherRootsChangeNothing) {
  ShadowRootGate gate(TdpMmu::kEnabled);
  Slots slots(gate);
  ASSERT_TRUE(slots.Create(16).ok());
  ASSERT_TRUE(slots.LoadRoot().ok());
  SlotRmaps* const rmaps = slots.Published()[0]->get();
  EXPECT_TRUE(gate.BeforeShadowRoot([]() -> std::vector<LazySlotRmaps*> {
                    ADD_FAILURE() << "nobody need list the slots";
                    return {};
                  })
                  .ok());
  EXPECT_EQ(slots.Published()[0]->get(), rmaps);
}

TEST(LazySlotRmapsTest, WithoutMemoryThereIsNoRootAndAnotherTryMaySucceed) {
  constexpr uint64_t kTooMany = uint64_t{1} << 50;
  ShadowRootGate gate(TdpMmu::kEnabled);
  LazySlotRmaps small(GfnRange::Of(Gfn(0), 16));
  LazySlotRmaps large(GfnRange::Of(Gfn(16), kTooMany));
  const absl::Status status = gate.BeforeShadowRoot([&] {
    return std::vector<LazySlotRmaps*>{&small, &large};
  });
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(DetailOf(status).reason, Reason::kResourceExhaustedMemory);
  EXPECT_EQ(DetailOf(status).kvm_errno, ENOMEM);
  EXPECT_FALSE(gate.SlotsHaveRmaps());
  SlotRmaps* const rmaps = small.get();
  EXPECT_NE(rmaps, nullptr);

  // The large slot is gone.
  EXPECT_TRUE(
      gate.BeforeShadowRoot([&] { return std::vector<LazySlotRmaps*>{&small}; })
          .ok());
  EXPECT_TRUE(gate.SlotsHaveRmaps());
  EXPECT_EQ(small.get(), rmaps);

  Slots slots(gate);
  EXPECT_EQ(DetailOf(slots.Create(kTooMany)).kvm_errno, ENOMEM);
  EXPECT_TRUE(slots.Create(16).ok());
}

// The slot is prepared before the root is loaded, and published afterwards.
TEST(LazySlotRmapsTest, Race30SlotThatIsPreparedIsNotMissedByTheRoot) {
  ShadowRootGate gate(TdpMmu::kEnabled);
  Slots slots(gate);
  ASSERT_TRUE(slots.Create(16).ok());
  Interleaving threads;
  threads.Add("updater", [&] {
    ASSERT_TRUE(slots
                    .Create(
                        32, [] { AtHook(HookPoint::kSlotToFault); }, [] {})
                    .ok());
  });
  threads.Add("root", [&] { ASSERT_TRUE(slots.LoadRoot().ok()); });
  threads.RunTo("updater", HookPoint::kSlotToFault);
  threads.RunToEnd("root");
  EXPECT_TRUE(gate.SlotsHaveRmaps());
  threads.RunToEnd("updater");
  EXPECT_EQ(slots.WithRmaps(), 2u);
}

// The root is loaded while the slot is being published.
TEST(LazySlotRmapsTest, Race30SlotThatIsBeingPublishedIsNotMissedByTheRoot) {
  ShadowRootGate gate(TdpMmu::kEnabled);
  Slots slots(gate);
  ASSERT_TRUE(slots.Create(16).ok());
  Interleaving threads;
  threads.Add("updater", [&] {
    ASSERT_TRUE(slots
                    .Create(
                        32, [] {}, [] { AtHook(HookPoint::kSlotToFault); })
                    .ok());
  });
  threads.Add("root", [&] { ASSERT_TRUE(slots.LoadRoot().ok()); });
  threads.RunTo("updater", HookPoint::kSlotToFault);
  threads.StartTo("root", HookPoint::kRmapsToPublish);
  threads.RunToEnd("updater");
  threads.WaitUntilThere("root");
  EXPECT_EQ(slots.WithRmaps(), 2u);
  EXPECT_FALSE(gate.SlotsHaveRmaps()) << "it is said afterwards";
  threads.RunToEnd("root");
  EXPECT_TRUE(gate.SlotsHaveRmaps());
}

// The slots have rmaps, but SlotsHaveRmaps() does not say so yet. A new slot
// waits in this state, and so does a second root.
TEST(LazySlotRmapsTest, Race30SlotAndRootThatComeMeanwhileWait) {
  ShadowRootGate gate(TdpMmu::kEnabled);
  Slots slots(gate);
  ASSERT_TRUE(slots.Create(16).ok());
  Interleaving threads;
  threads.Add("root", [&] { ASSERT_TRUE(slots.LoadRoot().ok()); });
  threads.Add("second root", [&] {
    ASSERT_TRUE(slots.LoadRoot().ok());
    EXPECT_TRUE(gate.SlotsHaveRmaps());
  });
  threads.Add("updater", [&] { ASSERT_TRUE(slots.Create(32).ok()); });
  threads.RunTo("root", HookPoint::kRmapsToPublish);
  SlotRmaps* const rmaps = slots.Published()[0]->get();
  threads.Start("second root");
  threads.Start("updater");
  EXPECT_FALSE(threads.HasEnded("second root"));
  EXPECT_FALSE(threads.HasEnded("updater"));
  threads.RunToEnd("root");
  threads.WaitForEnd("second root");
  threads.WaitForEnd("updater");
  EXPECT_EQ(slots.Published()[0]->get(), rmaps);
  EXPECT_EQ(slots.WithRmaps(), 2u);
}

TEST(LazySlotRmapsTest, WhoSeesThatSlotsHaveRmapsFindsThemInEachSlot) {
  for (int round = 0; round < 20; ++round) {
    ShadowRootGate gate(TdpMmu::kEnabled);
    Slots slots(gate);
    ASSERT_TRUE(slots.Create(16).ok());
    std::atomic<bool> done{false};
    std::atomic<int> missing{0};
    std::thread reader([&] {
      while (!done.load()) {
        std::this_thread::yield();
        if (!gate.SlotsHaveRmaps()) continue;
        for (LazySlotRmaps* slot : slots.Published()) {
          if (slot->get() == nullptr ||
              slot->get()->head_count(Level::k4K) == 0)
            missing.fetch_add(1);
        }
      }
    });
    std::thread updater([&] {
      for (int i = 0; i < 50; ++i) {
        ASSERT_TRUE(slots.Create(1 + i).ok());
        std::this_thread::yield();
      }
    });
    std::thread root([&] {
      while (slots.Published().size() < static_cast<size_t>(2 * round)) {
        std::this_thread::yield();
      }
      ASSERT_TRUE(slots.LoadRoot().ok());
    });
    updater.join();
    root.join();
    done.store(true);
    reader.join();
    EXPECT_EQ(missing.load(), 0);
    EXPECT_EQ(slots.WithRmaps(), 51u);
  }
}

}  // namespace
}  // namespace mmu
