// The MMUs that each operation of a VM calls, in their order, and how the
// thread holds mmu_lock at the call. The VMs have each possible set of MMUs;
// one has an MMU that the VM's code does not know. The modes in which the MMUs
// take the lock themselves are in locking_table_test.cc and
// shadow_locking_test.cc.

#include "mmu_core/vm/core/mmu_set.h"

#include <algorithm>
#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/format.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/memory/guest_memory_access.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/fake_mmu.h"
#include "mmu_core/testing/host_pages_test_util.h"
#include "mmu_core/testing/lock_trace.h"
#include "mmu_core/testing/tdp_test_util.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/jobs/nx_recovery.h"
#include "mmu_core/vm/jobs/split_job.h"
#include "mmu_core/vm/slots/host_notifier.h"
#include "mmu_core/vm/vcpu/emulate_write.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/vm/vm_state.h"

namespace mmu::testing {
namespace {

using ::testing::ElementsAreArray;

constexpr uint64_t kSlotBytes = 8 * kMiB;

// The MMUs of a VM, in the order in which they were added.
struct Mmus {
  const char* name;
  MmuMode mode;
  std::vector<std::string> all;
  std::vector<std::string> in_use;  // the MMUs that are asked for young pages
  bool has_fake = false;
};
std::ostream& operator<<(std::ostream& os, const Mmus& mmus) {
  return os << mmus.name;
}

enum class Order : uint8_t { kFirstAddedFirst, kLastAddedFirst };

// A function that an operation calls on each MMU.
struct Call {
  const char* function;
  Order order;
  const char* held;  // how the operation holds mmu_lock meanwhile
};

struct Operation {
  const char* name;
  std::function<void(Vm&)> prepare;
  std::function<void(Vm&)> run;
  std::vector<Call> calls;
};

void Nothing(Vm&) {}

DirtyLogConfig LogConfig(InitiallySet initially_set, SplitPolicy split) {
  DirtyLogConfig config;
  config.slots = {0};
  config.initially_set = initially_set;
  config.split = split;
  return config;
}

void ClearFirstPage(Vm& vm) {
  const SealedSlot sealed = SealLog(vm).value();
  std::vector<uint64_t> mask(kSlotBytes / kPageSize / 64);
  mask[0] = 1;
  EXPECT_TRUE(
      ClearLog(vm, 0, sealed.epoch, 0, kSlotBytes / kPageSize, mask).ok());
}

const std::vector<Operation>& Operations() {
  constexpr Order kFirst = Order::kFirstAddedFirst;
  constexpr Order kLast = Order::kLastAddedFirst;
  static const auto* const operations = new std::vector<Operation>{
      {"EnableLog",
       Nothing,
       [](Vm& vm) {
         EXPECT_TRUE(
             StartLog(vm, LogConfig(InitiallySet::kNo, SplitPolicy::kEager))
                 .ok());
       },
       {{"EnableLog", kLast, "none"}}},
      {"Seal",
       [](Vm& vm) { EXPECT_TRUE(StartLog(vm).ok()); },
       [](Vm& vm) { EXPECT_TRUE(SealLog(vm).ok()); },
       {{"CollectDirty", kFirst, "none"}}},
      {"Clear",
       [](Vm& vm) {
         EXPECT_TRUE(StartLog(vm).ok());
         Write(vm, 0);
       },
       ClearFirstPage,
       {{"CollectDirty", kFirst, "none"}, {"Reprotect", kFirst, "write"}}},
      {"ClearOfAHugePage",
       [](Vm& vm) {
         EXPECT_TRUE(
             StartLog(vm, LogConfig(InitiallySet::kYes, SplitPolicy::kOnClear))
                 .ok());
       },
       ClearFirstPage,
       {{"CollectDirty", kFirst, "none"},
        {"SplitForClear", kLast, "write"},
        {"WriteProtectGfn", kFirst, "write"},
        {"Reprotect", kFirst, "write"}}},
      {"StopAndRecover",
       [](Vm& vm) {
         EXPECT_TRUE(
             StartLog(vm, LogConfig(InitiallySet::kNo, SplitPolicy::kNone))
                 .ok());
       },
       [](Vm& vm) { EXPECT_TRUE(StopLog(vm, RecoverOnStop::kYes).ok()); },
       {{"CollectDirty", kFirst, "none"},
        {"FreeSplitTables", kFirst, "none"},
        {"Recover", kLast, "none"}}},
      {"RecoverHugePages",
       Nothing,
       [](Vm& vm) {
         EXPECT_TRUE(
             vm.RecoverHugePages({GfnRange::Of(Gfn(0), 512)}, nullptr).ok());
       },
       {{"Recover", kLast, "none"}}},
      {"SplitJob",
       Nothing,
       [](Vm& vm) {
         SplitRequest request;
         request.ranges = {GfnRange::Of(Gfn(0), 512)};
         EXPECT_TRUE(vm.MakeSplitJob(request).value()->Run().ok());
       },
       {{"Split", kFirst, "none"}}},
      {"MakeASlot",
       Nothing,
       [](Vm& vm) {
         EXPECT_TRUE(vm.SetMemslot(Slot(5, 64 * kMiB, kMiB)).ok());
       },
       {{"SlotsChanged", kFirst, "none"}, {"FreeSplitTables", kFirst, "none"}}},
      {"DeleteASlotAndAllMappings",
       Nothing,
       [](Vm& vm) {
         EXPECT_TRUE(vm.DeleteMemslot(1, Undelivered::kDiscard).ok());
       },
       {{"FastZapAll", kLast, "none"},
        {"SlotsChanged", kFirst, "none"},
        {"FreeSplitTables", kFirst, "none"}}},
      {"HostTakesPagesAway",
       Nothing,
       [](Vm& vm) { HostUnmaps(vm, HostPagesOf(vm, 0, 0, 1)); },
       {{"ZapLeafs", kLast, "write"}}},
      {"ZapGfnRange",
       Nothing,
       [](Vm& vm) { ZapGfnRange(vm.state(), 0, GfnRange::Of(Gfn(3), 2)); },
       {{"ZapLeafs", kLast, "write"}}},
      {"RecoverNxHugePages",
       Nothing,
       [](Vm& vm) { RecoverNxHugePages(vm.state(), 1); },
       {{"RecoverNxHugePages", kFirst, "none"}}},
      {"EmulatedWrite",
       Nothing,
       [](Vm& vm) {
         VmState& state = vm.state();
         GuestMemoryAccess memory(state.slots, /*as_id=*/0, /*ring=*/nullptr);
         EXPECT_EQ(EmulateGuestWrite(state.mmus, memory, Gpa(0), 8, 1),
                   EmulatedWrite::kDone);
       },
       {{"GuestWrote", kFirst, "none"}}},
      {"List",
       Nothing,
       [](Vm& vm) { vm.ListShadowPages({}, {}, 100); },
       {{"List", kFirst, "none"}}},
      {"Audit",
       Nothing,
       [](Vm& vm) { EXPECT_EQ(AuditFindings(vm), ""); },
       {{"Audit", kFirst, "write"}}},
  };
  return *operations;
}

// Makes the MMUs of `vm` record their calls.
void Record(Vm& vm, const Mmus& mmus, MmuCalls& calls) {
  MmuSet& set = vm.state().mmus;
  size_t next = 0;
  set.WrapForTest([&](std::unique_ptr<Mmu> real) {
    return std::make_unique<FakeMmu>(mmus.all[next++], calls, std::move(real));
  });
  if (mmus.has_fake) {
    set.Add(std::make_unique<FakeMmu>(mmus.all[next++], calls));
  }
  EXPECT_EQ(next, mmus.all.size());
}

std::unique_ptr<Vm> MakeVmWith(
    MmuMode mode, VmConfig::SlotZap zap = VmConfig::SlotZap::kAll) {
  VmConfig config;
  config.mmu = mode;
  config.slot_zap = zap;
  config.memslots = {Slot(0, 0, kSlotBytes, Level::k2M),
                     Slot(1, 32 * kMiB, kMiB)};
  std::unique_ptr<Vm> vm = MakeVmFrom(config);
  // From its first root on, the shadow MMU may map the slots.
  if (vm->state().shadow != nullptr) {
    EXPECT_TRUE(vm->state().PrepareForShadowRoot().ok());
  }
  return vm;
}

std::vector<std::string> Expected(const std::vector<std::string>& mmus,
                                  const std::vector<Call>& calls) {
  std::vector<std::string> expected;
  for (const Call& call : calls) {
    std::vector<std::string> names = mmus;
    if (call.order == Order::kLastAddedFirst) {
      std::reverse(names.begin(), names.end());
    }
    for (const std::string& name : names) {
      expected.push_back(Format("%s.%s[%s]", name, call.function, call.held));
    }
  }
  return expected;
}

class MmuSetTest : public ::testing::TestWithParam<Mmus> {
 protected:
  // Returns the calls that `run` makes.
  std::vector<std::string> CallsOf(Vm& vm, const std::function<void()>& run) {
    MmuCalls calls;
    Record(vm, GetParam(), calls);
    LockTrace trace;
    calls.held = [&trace] { return LockTrace::NameOf(trace.mmu_lock()); };
    run();
    calls.held = nullptr;
    std::vector<std::string> result = calls.calls;
    // The MMUs still refer to `calls`, but destroying the VM makes no calls.
    return result;
  }
};

TEST_P(MmuSetTest, EachOperationAsksEachMmuInItsOrder) {
  for (const Operation& operation : Operations()) {
    SCOPED_TRACE(operation.name);
    const std::unique_ptr<Vm> vm = MakeVmWith(GetParam().mode);
    operation.prepare(*vm);
    EXPECT_THAT(CallsOf(*vm, [&] { operation.run(*vm); }),
                ElementsAreArray(Expected(GetParam().all, operation.calls)));
  }
}

TEST_P(MmuSetTest, ASlotThatGoesAloneIsForgottenByAllUnderOneHold) {
  const std::unique_ptr<Vm> vm =
      MakeVmWith(GetParam().mode, VmConfig::SlotZap::kSlot);
  EXPECT_THAT(
      CallsOf(*vm,
              [&] {
                EXPECT_TRUE(vm->DeleteMemslot(1, Undelivered::kDiscard).ok());
              }),
      ElementsAreArray(
          Expected(GetParam().all,
                   {{"ForgetSlot", Order::kLastAddedFirst, "write"},
                    {"SlotsChanged", Order::kFirstAddedFirst, "none"},
                    {"FreeSplitTables", Order::kFirstAddedFirst, "none"}})));
}

// Covers: AGE-10
TEST_P(MmuSetTest, OnlyWhatMayBeInUseIsAged) {
  const std::unique_ptr<Vm> vm = MakeVmWith(GetParam().mode);
  EXPECT_THAT(
      CallsOf(*vm,
              [&] {
                EXPECT_TRUE(
                    vm->Age(GfnRange::Of(Gfn(0), 64), AgeMode::kTest, nullptr)
                        .ok());
              }),
      ElementsAreArray(Expected(GetParam().in_use,
                                {{"Age", Order::kFirstAddedFirst, "none"}})));
}

TEST_P(MmuSetTest, TheLimitOfShadowPagesIsSetWhereThereIsOne) {
  const std::unique_ptr<Vm> vm = MakeVmWith(GetParam().mode);
  std::vector<std::string> limited;
  for (const std::string& mmu : GetParam().all) {
    if (mmu == "shadow") limited.push_back(mmu);
  }
  absl::Status status;
  EXPECT_THAT(
      CallsOf(*vm, [&] { status = vm->SetShadowPageLimit(100, nullptr); }),
      ElementsAreArray(Expected(
          limited, {{"SetShadowPageLimit", Order::kFirstAddedFirst, "none"}})));
  EXPECT_EQ(status.code(), limited.empty()
                               ? absl::StatusCode::kFailedPrecondition
                               : absl::StatusCode::kOk);
  EXPECT_EQ(vm->shadow_page_limit(), limited.empty() ? 0u : 100u);
}

INSTANTIATE_TEST_SUITE_P(
    Sets, MmuSetTest,
    ::testing::Values(
        Mmus{"Tdp", MmuMode::kTdp, {"tdp"}, {"tdp"}},
        Mmus{"Shadow", MmuMode::kTdpShadow, {"shadow"}, {"shadow"}},
        // L2 has not run, so the shadow MMU cannot have a young page.
        Mmus{"Both", MmuMode::kNested, {"tdp", "shadow"}, {"tdp"}},
        Mmus{"Another", MmuMode::kTdp, {"tdp", "fake"}, {"tdp", "fake"}, true}),
    [](const auto& p) { return std::string(p.param.name); });

// A VM with the TDP MMU and a third kind of MMU.
class ThirdMmuTest : public ::testing::Test {
 protected:
  ThirdMmuTest() : vm_(MakeVmWith(MmuMode::kTdp)) {
    auto fake = std::make_unique<FakeMmu>("fake", calls_);
    fake_ = fake.get();
    vm_->state().mmus.Add(std::move(fake));
  }

  MmuCalls calls_;
  const std::unique_ptr<Vm> vm_;
  FakeMmu* fake_;
};

TEST_F(ThirdMmuTest, OneThatComesIntoUseMeanwhileIsNotAged) {
  Read(*vm_, 0);
  Read(*vm_, kPageSize);
  ASSERT_TRUE(
      vm_->Age(GfnRange::Of(Gfn(0), 64), AgeMode::kTestAndClear, nullptr).ok());
  calls_.calls.clear();
  int looks = 0;
  fake_->set_in_use([&looks] { return ++looks > 1; });
  const AgeResult aged =
      vm_->Age(GfnRange::Of(Gfn(0), 512), AgeMode::kTest, nullptr).value();
  EXPECT_EQ(aged.young_page_count, 0u);
  EXPECT_EQ(aged.old_page_count, 512u) << "as the TDP MMU alone has them";
  EXPECT_TRUE(calls_.calls.empty());
}

TEST_F(ThirdMmuTest, WhatItCannotTellEndsASealAndAStopThatRefusesLoss) {
  ASSERT_TRUE(StartLog(*vm_).ok());
  ASSERT_TRUE(SealLog(*vm_).ok());
  fake_->set_collect_status(absl::UnavailableError("the process is gone"));
  EXPECT_EQ(SealLog(*vm_).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(
      StopLog(*vm_, RecoverOnStop::kNo, Undelivered::kRefuse).status().code(),
      absl::StatusCode::kUnavailable);
  EXPECT_TRUE(vm_->LogsDirtyPages());
  // With kDiscard the log ends nevertheless.
  EXPECT_TRUE(StopLog(*vm_, RecoverOnStop::kNo, Undelivered::kDiscard).ok());
  EXPECT_FALSE(vm_->LogsDirtyPages());
}

TEST_F(ThirdMmuTest, AnMmuThatTellsAllDoesNotHideTheErrorOfTheOneBefore) {
  ASSERT_TRUE(StartLog(*vm_).ok());
  FakeMmu* first = nullptr;
  vm_->state().mmus.WrapForTest(
      [&](std::unique_ptr<Mmu> mmu) -> std::unique_ptr<Mmu> {
        if (mmu->kind() != MmuKind::kTdp) return mmu;
        auto wrapped = std::make_unique<FakeMmu>("tdp", calls_, std::move(mmu));
        first = wrapped.get();
        return wrapped;
      });
  ASSERT_NE(first, nullptr);
  first->set_collect_status(absl::UnavailableError("the process is gone"));
  EXPECT_EQ(SealLog(*vm_).status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(ThirdMmuTest, ACountSaysIfItCannotTellAll) {
  ASSERT_TRUE(StartLog(*vm_).ok());
  Write(*vm_, 0);
  absl::Status taken_in = absl::UnknownError("not set");
  EXPECT_EQ(vm_->CountUndelivered(&taken_in), UndeliveredCounts{.open = 1});
  EXPECT_TRUE(taken_in.ok());
  fake_->set_collect_status(absl::UnavailableError("the process is gone"));
  EXPECT_EQ(vm_->CountUndelivered(&taken_in), UndeliveredCounts{.open = 1});
  EXPECT_EQ(taken_in.code(), absl::StatusCode::kUnavailable);
  ASSERT_TRUE(StopLog(*vm_, RecoverOnStop::kNo, Undelivered::kDiscard).ok());
  EXPECT_TRUE(vm_->CountUndelivered(&taken_in).none());
  EXPECT_TRUE(taken_in.ok()) << "there is no log";
}

}  // namespace
}  // namespace mmu::testing
