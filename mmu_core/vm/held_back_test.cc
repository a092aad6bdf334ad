// vCPUs of a workload whose faults are held back by an invalidation, and
// threads that want these vCPUs to stand still. One such thread may be the
// host, before it ends its invalidation.

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
#include "mmu_core/testing/host_pages_test_util.h"
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

// One thread sends it once; another waits for it.
class Signal {
 public:
  void Send() { promise_.set_value(); }
  // Returns false if it was not sent within kPatience.
  bool Await() const {
    return future_.wait_for(kPatience) == std::future_status::ready;
  }

 private:
  std::promise<void> promise_;
  const std::shared_future<void> future_ = promise_.get_future().share();
};

// Stands in for the parking place of a vCPU whose fault is held back. It stops
// the vCPU's thread after the last check whether the vCPU must park (which said
// no), and before the vCPU waits. The check before that one comes before any
// need to wait. It must outlive the vCPU's thread.
class StopBeforeWait : public ParkingPlace {
 public:
  // For vCPU 0.
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

  // Runs on the vCPU's thread, like that of the real parking place.
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
  // Runs on the vCPU's thread. At the first call it replaces the real parking
  // place.
  static void At(HookPoint point) {
    StopBeforeWait& stop = *current;
    if (point != HookPoint::kHeldBackToWait || stop.real_ != nullptr) return;
    stop.real_ = stop.vcpu_.parking();
    stop.vcpu_.set_parking(&stop);
  }

  static inline StopBeforeWait* current = nullptr;
  Vcpu& vcpu_;
  ParkingPlace* real_ = nullptr;  // used by the vCPU's thread, like looks_
  mutable int looks_ = 0;
  mutable Signal arrived_;
  Signal go_;
};

// Runs a call that may wait for ever on its own thread.
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

constexpr uint64_t kSlotBytes = uint64_t{64} << 20;

class HeldBackTest : public ::testing::TestWithParam<MmuMode> {
 protected:
  explicit HeldBackTest(int vcpus = 1) {
    // A waiting vCPU must be woken: its own regular check comes too late to
    // help.
    SetReleaseLook(absl::Hours(1));
    VmConfig config;
    config.mmu = GetParam();
    if (config.mmu == MmuMode::kShadow) config.format = EntryFormat::kNpt;
    config.vcpu_count = vcpus;
    config.memslots = {Slot(0, 0, kSlotBytes)};
    vm_ = MakeVmFrom(config);
    all_ = HostPagesOf(*vm_, 0, 0, kSlotBytes / kPageSize);
  }

  ~HeldBackTest() override { SetReleaseLook(absl::Milliseconds(5)); }

  // The host takes all memory away, and has not finished.
  void Begin() { InvalidateRangeStart(vm_->state(), all_, MayYield::kYes); }
  void End() { InvalidateRangeEnd(vm_->state(), all_); }

  // Returns whether `body` returns before the invalidation ends. If it does
  // not, ends the invalidation.
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
  // Starts the workload and waits until its fault is held back.
  void StartHeldBack() {
    Begin();
    ASSERT_TRUE(vm_->StartWorkload(Writes()).ok());
    while (Retried() == 0) std::this_thread::yield();
  }

  std::unique_ptr<Vm> vm_;
  HvaRange all_;
};

// Covers: PF-25
TEST_P(HeldBackTest, ItIsPausedAndGoesOnToBeHeldBack) {
  Begin();
  StopBeforeWait vcpu(*vm_);
  {
    // 1. The vCPU checks whether it must park: no. 2. The host pauses it. 3.
    // The vCPU waits.
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
    // Destroys the VM before the objects that its vCPU's thread uses
    if (!ended) vm_.reset();
    ASSERT_TRUE(ended);
  }
  // The second pause comes while the vCPU waits.
  vm_->ResumeVcpus();
  ASSERT_TRUE(EndsBeforeTheHost([this] {
    EXPECT_EQ(AuditFindings(*vm_), "");
    vm_->PauseVcpus();
  }));
  EXPECT_EQ(vm_->Stats().pages_4k, 0u);
  // After the invalidation the vCPU stays paused, and a pause does not count as
  // a stall.
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
    // The guest had booted, and was stopped in the middle of its work.
    EXPECT_EQ(DetailOf(vm_->Workload()->error).reason, Reason::kGuestLost);
  } else {
    // The kernel of kShadow was stopped during its boot, so it boots again.
    EXPECT_EQ(vm_->Workload()->state, WorkloadProgress::State::kDone)
        << vm_->Workload()->error;
  }
  EXPECT_EQ(AuditFindings(*vm_), "");
}

INSTANTIATE_TEST_SUITE_P(Mmus, HeldBackTest,
                         ::testing::Values(MmuMode::kTdp, MmuMode::kTdpShadow,
                                           MmuMode::kShadow, MmuMode::kNested,
                                           MmuMode::kStage2),
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
                             case MmuMode::kStage2:
                               return "Stage2";
                           }
                           return "";
                         });

class HeldBackLogTest : public HeldBackTest {};

// A log ends with a new set of memslots, which waits for the invalidation
// (SLOT-23). The check whether the log may end comes before this wait.
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

// Fails as soon as the test asks it to.
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

// A new slot waits for the end of the invalidation. Meanwhile a vCPU in an RCU
// section loads the VM's first shadow root. It waits for neither of the two.
// Covers: SLOT-23, SHD-13
TEST(HeldBackRootTest, AFirstShadowRootDoesNotWaitForASlotThatWaits) {
  VmConfig config;
  config.mmu = MmuMode::kNested;
  config.memslots = {Slot(0, 0, kSlotBytes)};
  const std::unique_ptr<Vm> vm = MakeVmFrom(config);
  const HvaRange all = HostPagesOf(*vm, 0, 0, kSlotBytes / kPageSize);
  InvalidateRangeStart(vm->state(), all, MayYield::kYes);
  Call change([&] {
    EXPECT_TRUE(vm->SetMemslot(Slot(1, uint64_t{1} << 30, 1 << 20)).ok());
  });
  // Gives the thread time to begin its wait. If it has not begun, the test is
  // only easier to pass.
  absl::SleepFor(absl::Milliseconds(100));
  {
    Call root([&] { EXPECT_TRUE(vm->state().PrepareForShadowRoot().ok()); });
    EXPECT_TRUE(root.EndsByItself());
    {
      RcuReadGuard rcu;
      EXPECT_EQ(vm->state().slots.Active(0).FindById(1), nullptr);
    }
    InvalidateRangeEnd(vm->state(), all);
  }
  EXPECT_TRUE(change.EndsByItself());
  EXPECT_EQ(vm->Memslots().size(), 2u);
}

}  // namespace
}  // namespace mmu::testing
