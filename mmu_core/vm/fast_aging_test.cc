// The host asks which pages are young in the manner of MGLRU: a full query of
// one page and, if an MMU that ages fast found it young, fast-only queries of
// its neighbours.

#include <cstdint>
#include <memory>
#include <ostream>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/aging/aging.h"
#include "mmu_core/base/level.h"
#include "mmu_core/guest/hypervisor/l1_hypervisor.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/testing/host_pages_test_util.h"
#include "mmu_core/testing/lock_trace.h"
#include "mmu_core/testing/stage2_vm_test_util.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/run/l1_processor.h"
#include "mmu_core/vm/slots/host_notifier.h"
#include "mmu_core/vm/vcpu/shadow_vcpu.h"

namespace mmu {

void PrintTo(const HostYoung& young, std::ostream* os) {
  *os << (young.young ? "YOUNG" : "old") << (young.was_fast ? " WAS_FAST" : "");
}

namespace testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr HostYoung kOld = {};
constexpr HostYoung kYoung = {.young = true};
constexpr HostYoung kYoungAndWasFast = {.young = true, .was_fast = true};

constexpr uint64_t kBytes = uint64_t{64} << 20;
// MGLRU examines at most so many neighbours of a page.
constexpr uint64_t kBatch = 64;

HvaRange PagesAt(Vm& vm, Gfn first, uint64_t count) {
  return HostPagesOf(vm, 0, first.value(), first.value() + count);
}

// What MGLRU does with a page: the young pages that it finds.
std::vector<uint64_t> LookAround(Vm& vm, Gfn page) {
  const HostYoung found = ClearYoung(vm.state(), PagesAt(vm, page, 1));
  if (!found.young) return {};
  if (!found.was_fast) return {page.value()};
  std::vector<uint64_t> young;
  const uint64_t first = page.value() / kBatch * kBatch;
  for (uint64_t gfn = first; gfn < first + kBatch; ++gfn) {
    if (Gfn(gfn) == page ||
        ClearYoung(vm.state(), PagesAt(vm, Gfn(gfn), 1), FastOnly::kYes)
            .young) {
      young.push_back(gfn);
    }
  }
  return young;
}

// A guest L1 that runs a guest L2, so that both the TDP MMU, which ages fast,
// and the shadow MMU, which does not, map memory. All pages are old.
class NestedFastAgingTest : public ::testing::Test {
 protected:
  NestedFastAgingTest()
      : vm_(Make()),
        cpu_(*vm_->state().vcpus[0], Level::k512G),
        l1_(cpu_, vm_->GuestSpace(), {.tables = GuestTables::kEpt}) {
    EXPECT_TRUE(l1_.Boot().ok());
    for (const uint64_t page : {0, 1}) UseInL2(page, AccessKind::kWrite);
    frame_ = l1_.FrameOf(Gpa(0)).value();
    neighbour_ = l1_.FrameOf(Gpa(kPageSize)).value();
    EXPECT_EQ(frame_.value() / kBatch, neighbour_.value() / kBatch);
    ClearYoung(vm_->state(), AllPages());
    ForgetTranslations();
  }

  HvaRange AllPages() { return PagesAt(*vm_, Gfn(0), kBytes >> kPageShift); }
  HostYoung Clear(Gfn page, FastOnly fast_only = FastOnly::kNo) {
    return ClearYoung(vm_->state(), PagesAt(*vm_, page, 1), fast_only);
  }
  HostYoung Test(Gfn page, FastOnly fast_only = FastOnly::kNo) {
    return TestYoung(vm_->state(), PagesAt(*vm_, page, 1), fast_only);
  }
  // Ageing does not flush, so a cached translation would hide the next access.
  void ForgetTranslations() {
    Vcpu& vcpu = *vm_->state().vcpus[0];
    vcpu.tlb().FlushAll();
    vcpu.shadow()->tlb().FlushAll();
  }
  void UseInL1(Gfn page) { Read(*vm_, ToGpa(page).value()); }
  // The page of L2's memory.
  void UseInL2(uint64_t page, AccessKind kind = AccessKind::kRead) {
    uint64_t word = 1;
    ASSERT_TRUE(l1_.Access(Gpa(page * kPageSize), kind, &word).ok());
  }

  static std::unique_ptr<Vm> Make() {
    VmConfig config;
    config.mmu = MmuMode::kNested;
    config.memslots = {Slot(0, 0, kBytes)};
    return MakeVmFrom(config);
  }

  std::unique_ptr<Vm> vm_;
  L1Processor cpu_;
  L1Hypervisor l1_;
  Gfn frame_;      // of L2's page 0
  Gfn neighbour_;  // of L2's page 1
};

// A fast-only query may miss an access. It takes nothing from a later query.
// Covers: AGE-30, AGE-32
TEST_F(NestedFastAgingTest, AFastOnlyQueryMissesWhatOnlyL2Used) {
  UseInL2(0);
  {
    LockTrace trace;
    EXPECT_EQ(Test(frame_, FastOnly::kYes), kOld);
    EXPECT_EQ(Clear(frame_, FastOnly::kYes), kOld);
    EXPECT_EQ(trace.Modes(), "none");
    EXPECT_EQ(trace.CountOf(HookPoint::kRmapLockToWalk), 0);
  }
  EXPECT_EQ(Test(frame_), kYoung);
  EXPECT_EQ(Clear(frame_), kYoung) << "not WAS_FAST";
  EXPECT_EQ(Clear(frame_), kOld);
}

// Covers: AGE-31, AGE-11
TEST_F(NestedFastAgingTest, AFullClearLeavesNoMarkInEitherMmu) {
  UseInL1(frame_);
  UseInL2(0);
  LockTrace trace;
  EXPECT_EQ(Clear(frame_), kYoungAndWasFast);
  EXPECT_GT(trace.CountOf(HookPoint::kRmapLockToWalk), 0);
  EXPECT_EQ(Clear(frame_), kOld) << "nobody has used it since";
}

// A fast-only clear is no full one: what L2 used is young later.
TEST_F(NestedFastAgingTest, AFastOnlyClearLeavesTheMarkOfL2) {
  UseInL1(frame_);
  UseInL2(0);
  EXPECT_EQ(Clear(frame_, FastOnly::kYes), kYoungAndWasFast);
  EXPECT_EQ(Clear(frame_), kYoung);
}

// One MMU that ages fast is enough to look around, though not all do.
// Covers: AGE-33, AGE-40
TEST_F(NestedFastAgingTest, NeighboursAreExaminedIfAFastMmuFoundThePageYoung) {
  const Gfn other = Gfn(frame_.value() / kBatch * kBatch + kBatch - 1);
  UseInL1(frame_);
  UseInL2(0);
  UseInL1(other);
  UseInL1(other + 1);  // not of the batch
  UseInL2(1);
  EXPECT_THAT(LookAround(*vm_, frame_),
              ElementsAre(frame_.value(), other.value()));
  EXPECT_EQ(Clear(neighbour_), kYoung) << "which only L2 used";
  EXPECT_EQ(Clear(other), kOld);
  EXPECT_EQ(Clear(other + 1), kYoungAndWasFast);
}

// Covers: AGE-33
TEST_F(NestedFastAgingTest, NeighboursAreLeftAloneIfOnlyTheShadowMmuFoundIt) {
  const Gfn other = Gfn(frame_.value() / kBatch * kBatch + kBatch - 1);
  UseInL2(0);
  UseInL1(other);
  EXPECT_THAT(LookAround(*vm_, frame_), ElementsAre(frame_.value()));
  EXPECT_EQ(Clear(other), kYoungAndWasFast);
}

// A query that is refused clears nothing, in no MMU.
TEST_F(NestedFastAgingTest, ARefusedClearLeavesAllMarks) {
  UseInL1(frame_);
  UseInL2(1);
  EXPECT_FALSE(
      vm_->Age(GfnRange::Of(Gfn(0), kBytes >> kPageShift),
               AgeMode::kTestAndClear, nullptr, Gfn(0), MissingSlots::kRefuse,
               {.fast_only = FastOnly::kYes, .slow = SlowMmus::kRefuse})
          .ok());
  EXPECT_EQ(Clear(frame_), kYoungAndWasFast);
  EXPECT_EQ(Clear(neighbour_), kYoung);
}

// Without shadow pages the shadow MMU is neither asked nor in the way, although
// the memslots still have rmaps.
// Covers: AGE-35
TEST_F(NestedFastAgingTest, AShadowMmuWithoutPagesIsNotAsked) {
  const GfnRange page = GfnRange::Of(frame_, 1);
  const AgeOptions refuse = {.fast_only = FastOnly::kYes,
                             .slow = SlowMmus::kRefuse};
  const auto age = [&](const AgeOptions& options) {
    return vm_->Age(page, AgeMode::kTest, nullptr, Gfn(0),
                    MissingSlots::kRefuse, options);
  };
  EXPECT_TRUE(age({})->reach.Of(MmuKind::kShadow).asked);
  EXPECT_EQ(age({})->reach.lock(), AgingLock::kRmap);
  EXPECT_FALSE(age(refuse).ok());
  {
    MutexLock lock(vm_->state().slots.slots_lock);
    vm_->state().mmus.FastZapAll(LockOp::kZap, nullptr);
  }
  vm_->state().vcpus[0]->ReleaseRoot();
  vm_->state().vcpus[0]->shadow()->ReleaseRoots();
  EXPECT_FALSE(age({})->reach.Of(MmuKind::kShadow).asked);
  EXPECT_EQ(age({})->reach.lock(), AgingLock::kNone);
  EXPECT_TRUE(age(refuse).ok());
}

// VMs none of whose MMUs ages fast.
class SlowAgingTest : public ::testing::TestWithParam<MmuMode> {};

// Covers: AGE-34
TEST_P(SlowAgingTest, AFastOnlyQueryDoesNoWork) {
  VmConfig config;
  config.mmu = GetParam();
  config.memslots = {Slot(0, 0, kBytes)};
  auto vm = MakeVmFrom(config);
  EXPECT_FALSE(vm->AgesFast());
  Read(*vm, 0);
  const HvaRange pages = PagesAt(*vm, Gfn(0), kBytes >> kPageShift);
  {
    LockTrace trace;
    EXPECT_EQ(TestYoung(vm->state(), pages, FastOnly::kYes), kOld);
    EXPECT_EQ(ClearYoung(vm->state(), pages, FastOnly::kYes), kOld);
    EXPECT_THAT(trace.events(), IsEmpty());
  }
  MmuCost cost;
  const AgeResult aged =
      vm->Age(GfnRange::Of(Gfn(0), kBytes >> kPageShift),
              AgeMode::kTestAndClear, &cost, Gfn(0), MissingSlots::kRefuse,
              {.fast_only = FastOnly::kYes})
          .value();
  EXPECT_TRUE(aged.reach.skipped_any());
  EXPECT_EQ(aged.young_page_count + aged.old_page_count, 0u);
  EXPECT_EQ(cost.sptes_visited_count, 0);
  EXPECT_EQ(ClearYoung(vm->state(), pages), kYoung);
  EXPECT_EQ(ClearYoung(vm->state(), pages), kOld);
}

INSTANTIATE_TEST_SUITE_P(Mmus, SlowAgingTest,
                         ::testing::Values(MmuMode::kTdpShadow,
                                           MmuMode::kStage2),
                         [](const auto& mmu) {
                           return mmu.param == MmuMode::kStage2 ? "Stage2"
                                                                : "TdpShadow";
                         });

// The answer is the same whether the caller flushes or not, and the flush goes
// by YOUNG alone.
// Covers: AGE-36
TEST(FastAgingTest, AClearWithAFlushCarriesTheAnswerToo) {
  using Af = Stage2Config::AccessFlag;
  for (const Af af : {Af::kByFault, Af::kByHardware}) {
    VmConfig config;
    config.mmu = MmuMode::kStage2;
    config.stage2.access_flag = af;
    config.memslots = {Slot(0, 0, kBytes)};
    auto vm = MakeVmFrom(config);
    Read(*vm, 0);
    const HvaRange page = PagesAt(*vm, Gfn(0), 1);
    const uint64_t before = FlushRequests(*vm, FlushReason::kAge);
    EXPECT_EQ(ClearFlushYoung(vm->state(), page),
              af == Af::kByHardware ? kYoungAndWasFast : kYoung);
    EXPECT_EQ(FlushRequests(*vm, FlushReason::kAge), before + 1);
    EXPECT_EQ(ClearFlushYoung(vm->state(), page), kOld);
    EXPECT_EQ(FlushRequests(*vm, FlushReason::kAge), before + 1);
  }
}

}  // namespace
}  // namespace testing
}  // namespace mmu
