// vCPUs of a workload that are held back, and those who want them to stand
// still: also the host, before it ends its invalidation.

#include "mmu_core/vm/vcpu/held_back.h"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/dirty/dirty_log_types.h"
#include "mmu_core/guest/access_source.h"
#include "mmu_core/guest/pattern.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/interleaving.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/run/workload.h"
#include "mmu_core/vm/slots/host_notifier.h"
#include "mmu_core/vm/vcpu/parking_place.h"
#include "mmu_core/vm/vcpu/vcpu.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/vm/vm_state.h"

namespace mmu::testing {
namespace {

constexpr std::chrono::seconds kPatience(60);
constexpr absl::Duration kLong = absl::Seconds(60);
constexpr uint64_t kAccesses = 500;

// Sent once, from one thread to another.
class Signal {
 public:
  void Send() { promise_.set_value(); }
  // False: it has not come for a long time.
  bool Await() const {
    return future_.wait_for(kPatience) == std::future_status::ready;
  }

 private:
  std::promise<void> promise_;
  const std::shared_future<void> future_ = promise_.get_future().share();
};

// Stops the thread of a vCPU whose fault is held back between its last look at
// whether it is to park, which said no, and its wait. The look before that one
// is made before it may have to wait at all. Outlives the vCPU's thread.
class StopBeforeWait : public ParkingPlace {
 public:
  // Of vCPU 0.
  explicit StopBeforeWait(Vm& vm) : vcpu_(*vm.state().vcpus[0]) {}
  void Begin() {
    MMU_CHECK(current == nullptr);
    current = this;
#ifdef NDEBUG
    MMU_CHECK(!"this needs a build with hooks");
#else
    MMU_CHECK(hook_fn.exchange(&At) == nullptr);
#endif
  }
  void End() {
#ifndef NDEBUG
    hook_fn.store(nullptr);
#endif
    current = nullptr;
  }
  void AwaitArrival() { ASSERT_TRUE(arrived_.Await()); }
  void LetGo() { go_.Send(); }

  // On the vCPU's thread, as that of the place it stands for.
  bool IsWanted() const override {
    if (real_->IsWanted()) return true;
    if (++looks_ == 2) {
      arrived_.Send();
      EXPECT_TRUE(go_.Await());
    }
    return false;
  }
  bool Park() override { return real_->Park(); }

 private:
  // On the vCPU's thread: the first time puts this in its place's stead.
  static void At(HookPoint point) {
    StopBeforeWait& stop = *current;
    if (point != HookPoint::kHeldBackToWait || stop.real_ != nullptr) return;
    stop.real_ = stop.vcpu_.parking();
    stop.vcpu_.set_parking(&stop);
  }

  static inline StopBeforeWait* current = nullptr;
  Vcpu& vcpu_;
  ParkingPlace* real_ = nullptr;  // the vCPU's thread's, like looks_
  mutable int looks_ = 0;
  mutable Signal arrived_;
  Signal go_;
};

// A call on a thread of its own, which may turn out to wait for ever.
class Call {
 public:
  explicit Call(std::function<void()> body)
      : thread_([this, body = std::move(body)] {
          body();
          ended_.Send();
        }) {}
  ~Call() { thread_.join(); }
  bool EndsByItself() const { return ended_.Await(); }

 private:
  Signal ended_;
  std::thread thread_;
};

HvaRange HvasOfSlot0(const Vm& vm) {
  RcuReadGuard rcu;
  const Memslot* slot = vm.state().slots.Active(0).FindById(0);
  return {slot->hva, slot->hva + (slot->npages << kPageShift)};
}

class HeldBackTest : public ::testing::TestWithParam<MmuMode> {
 protected:
  explicit HeldBackTest(int vcpus = 1) {
    // Nothing is noticed only because a waiting vCPU looks by itself.
    SetReleaseLook(absl::Hours(1));
    VmConfig config;
    config.mmu = GetParam();
    if (config.mmu == MmuMode::kShadow) config.format = EntryFormat::kNpt;
    config.vcpu_count = vcpus;
    config.memslots = {Slot(0, 0, uint64_t{64} << 20)};
    vm_ = MakeVmFrom(config);
    all_ = HvasOfSlot0(*vm_);
  }

  ~HeldBackTest() override { SetReleaseLook(absl::Milliseconds(5)); }

  // The host takes all memory away, and does not say when it is done.
  void Begin() { InvalidateRangeStart(vm_->state(), all_, MayYield::kYes); }
  void End() { InvalidateRangeEnd(vm_->state(), all_); }

  // Whether `body` returns before the invalidation ends, which is ended if not.
  bool EndsBeforeTheHost(std::function<void()> body) {
    Call call(std::move(body));
    if (call.EndsByItself()) return true;
    End();
    return false;
  }

  WorkloadOptions Writes() const {
    WorkloadOptions options;
    PatternSpec spec;
    spec.write_fraction = 1;
    spec.access_count = kAccesses;
    options.sources.push_back(MakePattern(spec, vm_->GuestSpace(), 0, 1));
    return options;
  }
  uint64_t Retried() const { return vm_->VcpuStats()[0].pf_retried; }
  uint64_t Stalled() const {
    return vm_->VcpuStats()[0]
        .stall_nanos[static_cast<int>(StallCause::kInvalidation)];
  }
  // Has the vCPU's fault found to be held back.
  void StartHeldBack() {
    Begin();
    ASSERT_TRUE(vm_->StartWorkload(Writes()).ok());
    while (Retried() == 0) std::this_thread::yield();
  }

  std::unique_ptr<Vm> vm_;
  HvaRange all_;
};

// Covers: PF-25, SLOT-23
TEST_P(HeldBackTest, ItIsPausedAndGoesOnToBeHeldBack) {
  Begin();
  StopBeforeWait vcpu(*vm_);
  {
    // 1. vCPU: looks, nobody wants it to park. 2. host: pauses. 3. vCPU: waits.
    vcpu.Begin();
    ASSERT_TRUE(vm_->StartWorkload(Writes()).ok());
    vcpu.AwaitArrival();
    Call pause([this] { vm_->PauseVcpus(); });
    while (!vm_->vcpus_paused()) std::this_thread::yield();
    vcpu.LetGo();
    const bool ended = pause.EndsByItself();
    vcpu.End();
    if (!ended) End();
    EXPECT_TRUE(ended);
    if (!ended) vm_.reset();  // before what its vCPU's thread looks at
    ASSERT_TRUE(ended);
  }
  // Once more, from within its wait.
  vm_->ResumeVcpus();
  ASSERT_TRUE(EndsBeforeTheHost([this] {
    EXPECT_EQ(AuditFindings(*vm_), "");
    vm_->PauseVcpus();
  }));
  EXPECT_EQ(vm_->Stats().pages_4k, 0u);
  // Released, it still stands: it is paused. And a pause is no stall.
  const uint64_t stalled = Stalled();
  const uint64_t retried = Retried();
  const uint64_t accesses = vm_->VcpuStats()[0].accesses;
  End();
  EXPECT_EQ(AuditFindings(*vm_), "");
  EXPECT_EQ(vm_->VcpuStats()[0].accesses, accesses);
  EXPECT_EQ(Retried(), retried) << "parked, it tries nothing";
  EXPECT_EQ(vm_->Stats().pages_4k, 0u);
  vm_->ResumeVcpus();
  ASSERT_TRUE(vm_->WaitWorkload(kLong));
  EXPECT_EQ(vm_->Workload()->state, WorkloadProgress::State::kDone);
  EXPECT_EQ(Stalled(), stalled);
  EXPECT_EQ(AuditFindings(*vm_), "");
}

TEST_P(HeldBackTest, ItIsStopped) {
  StartHeldBack();
  ASSERT_TRUE(EndsBeforeTheHost([this] { vm_->StopWorkload(); }));
  EXPECT_EQ(vm_->Workload()->state, WorkloadProgress::State::kStopped);
  EXPECT_TRUE(vm_->Workload()->error.ok());
  EXPECT_EQ(vm_->Stats().pages_4k, 0u);
  End();
  ASSERT_TRUE(vm_->StartWorkload(Writes()).ok());
  ASSERT_TRUE(vm_->WaitWorkload(kLong));
  if (GetParam() == MmuMode::kNested) {
    // It had booted, and was in the middle of what it did.
    EXPECT_EQ(DetailOf(vm_->Workload()->error).reason, Reason::kGuestLost);
  } else {
    // The kernel of kShadow was stopped while it booted, and boots again.
    EXPECT_EQ(vm_->Workload()->state, WorkloadProgress::State::kDone)
        << vm_->Workload()->error;
  }
  EXPECT_EQ(AuditFindings(*vm_), "");
}

INSTANTIATE_TEST_SUITE_P(Mmus, HeldBackTest,
                         ::testing::Values(MmuMode::kTdp, MmuMode::kTdpShadow,
                                           MmuMode::kShadow, MmuMode::kNested),
                         [](const auto& p) {
                           switch (p.param) {
                             case MmuMode::kTdp:
                               return "Tdp";
                             case MmuMode::kTdpShadow:
                               return "TdpShadow";
                             case MmuMode::kShadow:
                               return "Shadow";
                             case MmuMode::kNested:
                               return "Nested";
                           }
                           return "";
                         });

class HeldBackLogTest : public HeldBackTest {};

// A log ends with a new set of memslots, which waits for the invalidation
// (SLOT-23); whether it may end is known before.
TEST_P(HeldBackLogTest, WhoEndsALogGetsToItsLookAtThePages) {
  ASSERT_TRUE(StartLog(*vm_, {.slots = {0}}, nullptr).ok());
  StartHeldBack();
  Interleaving threads;
  absl::Status stopped;
  threads.Add("stop", [&] {
    stopped = StopLog(*vm_, RecoverOnStop::kNo, Undelivered::kRefuse, nullptr)
                  .status();
  });
  threads.RunTo("stop", HookPoint::kCountToSwitch);
  End();
  threads.RunToEnd("stop");
  EXPECT_TRUE(stopped.ok()) << stopped;
  ASSERT_TRUE(vm_->WaitWorkload(kLong));
}

TEST_P(HeldBackLogTest, ADeletionThatWouldLosePagesIsRefused) {
  ASSERT_TRUE(StartLog(*vm_, {.slots = {0}}, nullptr).ok());
  Write(*vm_, 5 * kPageSize);
  StartHeldBack();
  absl::Status refused;
  ASSERT_TRUE(EndsBeforeTheHost(
      [&] { refused = vm_->DeleteMemslot(0, Undelivered::kRefuse).status(); }));
  EXPECT_EQ(DetailOf(refused).reason, Reason::kUndeliveredPages);
  End();
  ASSERT_TRUE(vm_->WaitWorkload(kLong));
}

INSTANTIATE_TEST_SUITE_P(Mmus, HeldBackLogTest,
                         ::testing::Values(MmuMode::kTdp, MmuMode::kTdpShadow),
                         [](const auto& p) {
                           return std::string(
                               p.param == MmuMode::kTdp ? "Tdp" : "TdpShadow");
                         });

// Fails once it is told to.
class Failing : public AccessSource {
 public:
  explicit Failing(const Signal& now) : now_(now) {}
  bool Next(GuestAccess*) override {
    EXPECT_TRUE(now_.Await());
    return false;
  }
  absl::Status status() const override {
    return absl::DataLossError("bad block");
  }

 private:
  const Signal& now_;
};

class HeldBackBesideAnotherTest : public HeldBackTest {
 protected:
  HeldBackBesideAnotherTest() : HeldBackTest(/*vcpus=*/2) {}
};

TEST_P(HeldBackBesideAnotherTest, AVcpuThatFailsEndsTheWorkload) {
  Signal fail;
  WorkloadOptions options = Writes();
  options.sources.push_back(std::make_unique<Failing>(fail));
  Begin();
  ASSERT_TRUE(vm_->StartWorkload(std::move(options)).ok());
  while (Retried() == 0) std::this_thread::yield();
  fail.Send();
  EXPECT_TRUE(vm_->WaitWorkload(kLong));
  End();
  EXPECT_EQ(vm_->Workload()->error, absl::DataLossError("bad block"));
}

INSTANTIATE_TEST_SUITE_P(Mmus, HeldBackBesideAnotherTest,
                         ::testing::Values(MmuMode::kTdp, MmuMode::kTdpShadow),
                         [](const auto& p) {
                           return std::string(
                               p.param == MmuMode::kTdp ? "Tdp" : "TdpShadow");
                         });

// A slot that is made waits for the invalidation's end; a vCPU that loads its
// VM's first shadow root meanwhile, in an RCU section, waits for neither.
// Covers: SLOT-23, SHD-13
TEST(HeldBackRootTest, AFirstShadowRootDoesNotWaitForASlotThatWaits) {
  VmConfig config;
  config.mmu = MmuMode::kNested;
  config.memslots = {Slot(0, 0, uint64_t{64} << 20)};
  const std::unique_ptr<Vm> vm = MakeVmFrom(config);
  const HvaRange all = HvasOfSlot0(*vm);
  InvalidateRangeStart(vm->state(), all, MayYield::kYes);
  Call change([&] {
    EXPECT_TRUE(vm->SetMemslot(Slot(1, uint64_t{1} << 30, 1 << 20)).ok());
  });
  // Time to come to its wait. Should it not be there, the rest is easy.
  absl::SleepFor(absl::Milliseconds(100));
  {
    Call root([&] { EXPECT_TRUE(vm->state().PrepareForShadowRoot().ok()); });
    EXPECT_TRUE(root.EndsByItself());
    InvalidateRangeEnd(vm->state(), all);
  }
  EXPECT_TRUE(change.EndsByItself());
}

}  // namespace
}  // namespace mmu::testing
