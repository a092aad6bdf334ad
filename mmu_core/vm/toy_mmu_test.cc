// A sketch of a further MMU: a flat map of pages, added to a VM by one call. It
// shows that a VM's dirty logging, memslots, splits, notifier, ageing, listing
// and audit need no change for an MMU that they do not know. It is the second
// MMU of a VM whose guest runs on the TDP MMU, and the third of one whose guest
// is a hypervisor.

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/bits.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/memory/mark_dirty.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/mmu/mmu.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/tdp_test_util.h"
#include "mmu_core/testing/test_mmu_kind.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/core/vm_core.h"
#include "mmu_core/vm/jobs/split_job.h"
#include "mmu_core/vm/slots/host_notifier.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/vm/vm_state.h"

namespace mmu::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// Maps pages of 4 KiB of address space 0 in a std::map. Externally synchronised
// by mmu_lock; the comments at Mmu say in which mode.
class ToyMmu final : public Mmu {
 public:
  explicit ToyMmu(VmCore& vm) : vm_(vm) {}

  // Writes to the page as its vCPU would, with a fault if the page is not
  // writable. Returns false if there is no memory.
  bool Write(Gfn gfn) {
    RcuReadGuard rcu;
    const Memslot* const slot = vm_.slots.Active(0).FindByGfn(gfn);
    if (slot == nullptr || slot->invalid()) return false;
    MmuWriteLocked lock(vm_.mmu_lock, LockOp::kFault);
    Page& page = pages_[gfn];
    if (!page.writable) MarkPageDirty(*slot, gfn, /*ring=*/nullptr);
    page.writable = true;
    page.accessed = true;
    return true;
  }
  // A write that only this MMU notices.
  void WriteUnseen(Gfn gfn) { unseen_.push_back(gfn); }
  size_t page_count() const { return pages_.size(); }
  // The ranges of the calls of Age.
  const std::vector<GfnRange>& aged() const { return aged_; }

  MmuKind kind() const override { return kTestMmu; }
  bool MayMap(const Memslot& slot) const override { return slot.as_id == 0; }
  bool MayBeInUse() const override { return true; }
  AgingLock aging_lock() const override { return AgingLock::kRmap; }

  SplitOutcome EnableLog(const Memslot& slot, const LogPlan&,
                         MmuCost* cost) override {
    MmuWriteLocked lock(vm_.mmu_lock, LockOp::kEnable, cost);
    ForEachIn(slot.range(), [](Page& page) { page.writable = false; });
    return {};
  }
  SplitOutcome Split(const Memslot&, GfnRange range, const SplitPlan&,
                     MmuCost*) override {
    SplitOutcome nothing;  // all of its pages are small
    nothing.next_gfn = range.end;
    return nothing;
  }
  RecoverOutcome Recover(const Memslot&, GfnRange, MmuCost*,
                         const HoldLimit&) override {
    return {};
  }
  void FastZapAll(LockOp op, MmuCost* cost) override {
    MmuWriteLocked lock(vm_.mmu_lock, op, cost);
    pages_.clear();
  }
  bool ZapLeafs(MmuWriteLocked&, const Memslot&, GfnRange range, FlushReason,
                MayYield, MmuCost*) override {
    const auto first = pages_.lower_bound(range.start);
    const auto end = pages_.lower_bound(range.end);
    const bool any = first != end;
    pages_.erase(first, end);
    return any;
  }
  void ForgetSlot(MmuWriteLocked& lock, const Memslot& slot,
                  MmuCost* cost) override {
    ZapLeafs(lock, slot, slot.range(), FlushReason::kZap, MayYield::kYes, cost);
  }
  SplitOutcome SplitForClear(MmuWriteLocked&, const Memslot&, GfnRange, Level,
                             MmuCost*) override {
    return {};
  }
  void Reprotect(MmuWriteLocked&, const Memslot&,
                 absl::Span<const PageMask> pages, NoticeBy, AlsoProtected&,
                 MmuCost*) override {
    for (const PageMask& part : pages) {
      for (const uint64_t bit : SetBitsOf(part.mask)) {
        ForEachIn(GfnRange::Of(part.first + bit, 1),
                  [](Page& page) { page.writable = false; });
      }
    }
  }
  bool WriteProtectGfn(const MmuWriteLocked&, const Memslot&, Gfn,
                       Level min_level) override {
    return min_level > Level::k4K ? false : true;
  }
  absl::Status CollectDirty(MmuCost*) override {
    RcuReadGuard rcu;
    for (const Gfn gfn : std::exchange(unseen_, {})) {
      MarkPageDirty(*vm_.slots.Active(0).FindByGfn(gfn), gfn, nullptr);
    }
    return absl::OkStatus();
  }
  void Age(const MemslotTable&, int, GfnRange range, AgeMode mode, AgeScan,
           AgeResult& result, MmuCost*) const override {
    aged_.push_back(range);
    for (auto& [gfn, page] : pages_) {
      if (!range.Contains(gfn)) continue;
      const uint64_t bit = gfn - result.start;
      result.mapped[bit / 64] |= uint64_t{1} << (bit % 64);
      if (page.accessed) result.young[bit / 64] |= uint64_t{1} << (bit % 64);
      if (mode == AgeMode::kTestAndClear) page.accessed = false;
    }
  }
  // The map counts as one table.
  bool List(ShadowPageLister& listing) const override {
    if (listing.position.major != 0) return true;
    if (listing.full()) return false;
    listing.pages.emplace_back();
    listing.pages.back().owner = kTestMmu;
    listing.position.major = 1;
    return true;
  }
  void Audit(const MmuWriteLocked&, AuditSink& sink) const override {
    for (const auto& [gfn, page] : pages_) {
      if (vm_.slots.Active(0).FindByGfn(gfn) == nullptr) {
        sink.Violation(4, "the toy maps gfn 0x%x of no slot", gfn.value());
      }
    }
  }

 private:
  struct Page {
    bool writable = false;
    mutable bool accessed = false;
  };

  template <typename Fn>
  void ForEachIn(GfnRange range, Fn fn) {
    for (auto at = pages_.lower_bound(range.start);
         at != pages_.end() && at->first < range.end; ++at) {
      fn(at->second);
    }
  }

  VmCore& vm_;
  std::map<Gfn, Page> pages_;
  std::vector<Gfn> unseen_;
  mutable std::vector<GfnRange> aged_;
};

std::unique_ptr<Vm> MakeVmIn(MmuMode mode) {
  VmConfig config;
  config.mmu = mode;
  config.memslots = {Slot(0, 0, kMiB), Slot(1, 16 * kMiB, kMiB)};
  std::unique_ptr<Vm> vm = MakeVmFrom(config);
  // From its first root on, the shadow MMU may map the slots, too.
  if (vm->state().shadow != nullptr) {
    EXPECT_TRUE(vm->state().PrepareForShadowRoot().ok());
  }
  return vm;
}

// In a VM with the MMUs of the mode.
class ToyMmuTest : public ::testing::TestWithParam<MmuMode> {
 protected:
  ToyMmuTest() : vm_(MakeVmIn(GetParam())) {
    auto toy = std::make_unique<ToyMmu>(vm_->state());
    toy_ = toy.get();
    // The only line that a new MMU needs.
    vm_->state().mmus.Add(std::move(toy));
  }
  ~ToyMmuTest() override { EXPECT_EQ(AuditFindings(*vm_), ""); }

  // Clears and acknowledges page `page` of slot 0 in `epoch`.
  void ClearPage(uint64_t epoch, uint64_t page) {
    EXPECT_TRUE(ClearAndDeliver(*vm_, 0, epoch, 0, kMiB / kPageSize,
                                MaskOf(kMiB / kPageSize, {page}))
                    .ok());
  }

  const std::unique_ptr<Vm> vm_;
  ToyMmu* toy_;
};

TEST_P(ToyMmuTest, ItsWritesAreLoggedAndLoggedAgainAfterAClear) {
  ASSERT_TRUE(toy_->Write(Gfn(3)));
  ASSERT_TRUE(StartLog(*vm_).ok());
  ASSERT_TRUE(toy_->Write(Gfn(3)));
  uint64_t epoch = 0;
  EXPECT_THAT(SealAndList(*vm_, 0, &epoch), ElementsAre(3));
  ClearPage(epoch, 3);
  EXPECT_THAT(SealAndList(*vm_, 0, &epoch), IsEmpty());
  ASSERT_TRUE(toy_->Write(Gfn(3)));
  Write(*vm_, 5 * kPageSize);  // a write through the TDP MMU
  EXPECT_THAT(SealAndList(*vm_, 0, &epoch), ElementsAre(3, 5));
}

TEST_P(ToyMmuTest, WhatOnlyItKnowsIsInTheNextSeal) {
  ASSERT_TRUE(StartLog(*vm_).ok());
  toy_->WriteUnseen(Gfn(7));
  EXPECT_THAT(SealAndList(*vm_, 0), ElementsAre(7));
}

TEST_P(ToyMmuTest, AStopThatRefusesLossFindsWhatOnlyItKnows) {
  ASSERT_TRUE(StartLog(*vm_).ok());
  toy_->WriteUnseen(Gfn(7));
  EXPECT_FALSE(StopLog(*vm_, RecoverOnStop::kNo, Undelivered::kRefuse).ok());
}

TEST_P(ToyMmuTest, TheHostTakesPagesFromIt) {
  ASSERT_TRUE(toy_->Write(Gfn(3)));
  ASSERT_TRUE(toy_->Write(Gfn(4)));
  const Hva hva = SlotOf(*vm_, Gfn(0)).HvaOf(Gfn(3));
  InvalidateRangeStart(vm_->state(), {hva, hva + kPageSize}, MayYield::kYes);
  EXPECT_EQ(toy_->page_count(), 1u);
  InvalidateRangeEnd(vm_->state(), {hva, hva + kPageSize});
}

TEST_P(ToyMmuTest, ASlotThatGoesIsMappedNoMore) {
  ASSERT_TRUE(toy_->Write(ToGfn(Gpa(16 * kMiB))));
  ASSERT_TRUE(vm_->DeleteMemslot(1, Undelivered::kDiscard).ok());
  EXPECT_EQ(toy_->page_count(), 0u);
  EXPECT_FALSE(toy_->Write(ToGfn(Gpa(16 * kMiB))));
}

TEST_P(ToyMmuTest, APageIsYoungIfOneOfTheMmusSaysSo) {
  ASSERT_TRUE(toy_->Write(Gfn(3)));
  Read(*vm_, 5 * kPageSize);
  const GfnRange range = GfnRange::Of(Gfn(0), 64);
  AgeResult aged = vm_->Age(range, AgeMode::kTestAndClear, nullptr).value();
  EXPECT_EQ(aged.young[0], uint64_t{1} << 3 | uint64_t{1} << 5);
  EXPECT_TRUE(aged.reach.was_fast) << "the TDP MMU, which ages fast, found one";
  ASSERT_TRUE(toy_->Write(Gfn(3)));
  aged = vm_->Age(range, AgeMode::kTest, nullptr).value();
  EXPECT_EQ(aged.young[0], uint64_t{1} << 3);
  EXPECT_EQ(aged.old_page_count, 1u);
  EXPECT_FALSE(aged.reach.was_fast);
}

// An RCU read section keeps the freed memory of all VMs.
TEST_P(ToyMmuTest, OneReadSectionAgesAGibAtMost) {
  const uint64_t gib = PagesPer(Level::k1G);
  ASSERT_TRUE(vm_->SetMemslot(Slot(2, kGiB - kMiB, 2 * kMiB)).ok());
  ASSERT_TRUE(toy_->Write(Gfn(3)));
  ASSERT_TRUE(toy_->Write(Gfn(gib + 1)));
  Read(*vm_, kGiB - kPageSize);
  const AgeResult aged = vm_->state().mmus.Age(
      vm_->state().slots, /*as_id=*/0, {Gfn(2), Gfn(2 * gib + 5)},
      AgeMode::kTest, AgeOptions{}, nullptr);
  EXPECT_THAT(
      toy_->aged(),
      ElementsAre(GfnRange{Gfn(2), Gfn(gib)}, GfnRange{Gfn(gib), Gfn(2 * gib)},
                  GfnRange{Gfn(2 * gib), Gfn(2 * gib + 5)}));
  EXPECT_THAT(PagesOf(aged.young), ElementsAre(1, gib - 3, gib - 1));
  EXPECT_EQ(aged.young_page_count, 3u);
}

TEST_P(ToyMmuTest, ItIsAddedAfterTheMmusOfTheMode) {
  const std::vector<MmuKind> kinds = vm_->MmuKinds();
  EXPECT_EQ(kinds.size(), GetParam() == MmuMode::kNested ? 3u : 2u);
  EXPECT_EQ(kinds.back(), kTestMmu);
}

TEST_P(ToyMmuTest, ASplitOfTheOthersLeavesItsPages) {
  ASSERT_TRUE(toy_->Write(Gfn(3)));
  SplitRequest request;
  request.ranges = {GfnRange::Of(Gfn(0), kMiB / kPageSize)};
  EXPECT_TRUE(vm_->MakeSplitJob(request).value()->Run().ok());
  EXPECT_EQ(toy_->page_count(), 1u);
}

TEST_P(ToyMmuTest, ItsTableIsListedAfterThoseOfTheOthers) {
  Write(*vm_, 0);
  const ShadowPageListing all = vm_->ListShadowPages({}, {}, 100);
  EXPECT_FALSE(all.next.has_value());
  ASSERT_GT(all.pages.size(), 1u);
  EXPECT_EQ(all.pages.front().owner, MmuKind::kTdp);
  // The same tables one by one, each listing from the position of the last.
  std::vector<MmuKind> owners;
  std::optional<ShadowPagePosition> position = ShadowPagePosition();
  while (position.has_value() && owners.size() <= all.pages.size()) {
    const ShadowPageListing one = vm_->ListShadowPages({}, *position, 1);
    for (const ShadowPageInfo& page : one.pages) owners.push_back(page.owner);
    position = one.next;
  }
  EXPECT_EQ(owners.size(), all.pages.size());
  EXPECT_EQ(std::count(owners.begin(), owners.end(), kTestMmu), 1);
  EXPECT_EQ(owners.back(), kTestMmu);
}

// Nothing counts by a kind that the statistics do not know.
TEST_P(ToyMmuTest, TheStatisticsAreThoseOfTheOthers) {
  Write(*vm_, 5 * kPageSize);
  ASSERT_TRUE(toy_->Write(Gfn(3)));
  EXPECT_EQ(vm_->Stats().pages_4k, 1u);
}

INSTANTIATE_TEST_SUITE_P(Modes, ToyMmuTest,
                         ::testing::Values(MmuMode::kTdp, MmuMode::kNested),
                         [](const auto& p) {
                           return p.param == MmuMode::kTdp ? "Second" : "Third";
                         });

}  // namespace
}  // namespace mmu::testing
