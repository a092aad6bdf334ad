// Switching dirty logs off: the recovery of huge pages, and the dirty pages
// that are not delivered.

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/guest/access_source.h"
#include "mmu_core/guest/gpa_space.h"
#include "mmu_core/guest/guest_access.h"
#include "mmu_core/guest/pattern.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/dirty_log_test_util.h"
#include "mmu_core/testing/lock_trace.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/run/workload.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/vm/vm_state.h"

namespace mmu {
namespace {

using ::mmu::testing::AuditFindings;
using ::mmu::testing::ClearLog;
using ::mmu::testing::ErrorOf;
using ::mmu::testing::ErrorText;
using ::mmu::testing::kEager;
using ::mmu::testing::kGiB;
using ::mmu::testing::kMiB;
using ::mmu::testing::kPages2M;
using ::mmu::testing::kPlain;
using ::mmu::testing::MakePmlVm;
using ::mmu::testing::MakeRingVm;
using ::mmu::testing::MakeVm;
using ::mmu::testing::MakeVmFrom;
using ::mmu::testing::MaskOf;
using ::mmu::testing::SealAndList;
using ::mmu::testing::Slot;
using ::mmu::testing::SpteOf;
using ::mmu::testing::StartLog;
using ::mmu::testing::StopLog;
using ::mmu::testing::Touch;
using ::mmu::testing::Write;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

// Covers: DL-06, TDP-52
TEST(StopDirtyLogTest, HugePagesComeBackIfAskedFor) {
  auto vm = MakeVm(
      {Slot(0, 0, 8 * kMiB, Level::k2M), Slot(1, kGiB, kGiB, Level::k1G)});
  Touch(*vm, GfnRange::Of(Gfn(0), 2048));
  Write(*vm, kGiB);
  ASSERT_TRUE(StartLog(*vm, kEager, nullptr).ok());
  ASSERT_EQ(vm->Stats().pages_2m, 0u);
  const auto stopped =
      StopLog(*vm, RecoverOnStop::kYes, Undelivered::kRefuse, nullptr);
  ASSERT_TRUE(stopped.ok()) << stopped.status();
  EXPECT_EQ(stopped->recovered_2m_count, 4u);
  EXPECT_EQ(stopped->recovered_1g_count, 1u);
  EXPECT_EQ(vm->Stats().pages_2m, 4u);
  EXPECT_EQ(vm->Stats().pages_1g, 1u);
  EXPECT_EQ(vm->Stats().pages_4k, 0u);
  EXPECT_FALSE(vm->LogsDirtyPages());
  EXPECT_EQ(AuditFindings(*vm), "");
}

// The shadow MMU zaps the small pages, and the next access maps the huge page.
// Covers: DL-06, SHD-82
TEST(StopDirtyLogTest, AStageOfShadowPagesCountsTheSameHugePages) {
  VmConfig config;
  config.mmu = MmuMode::kTdpShadow;
  config.memslots = {Slot(0, 0, 8 * kMiB, Level::k2M),
                     Slot(1, kGiB, kGiB, Level::k1G)};
  auto vm = MakeVmFrom(config);
  ASSERT_TRUE(StartLog(*vm, kPlain, nullptr).ok());
  Touch(*vm, GfnRange::Of(Gfn(0), 2048));
  Write(*vm, kGiB);
  Write(*vm, kGiB + 5 * kMiB);
  const auto stopped =
      StopLog(*vm, RecoverOnStop::kYes, Undelivered::kDiscard, nullptr);
  ASSERT_TRUE(stopped.ok()) << stopped.status();
  EXPECT_EQ(stopped->recovered_2m_count, 4u);
  EXPECT_EQ(stopped->recovered_1g_count, 1u);
  EXPECT_EQ(vm->Stats().recoveries[0], 4u);
  EXPECT_EQ(vm->Stats().recoveries[1], 1u);
  EXPECT_EQ(vm->Stats().pages_4k, 0u);
  Write(*vm, 0);
  Write(*vm, kGiB + 5 * kMiB);
  EXPECT_EQ(vm->Stats().pages_2m, 1u);
  EXPECT_EQ(vm->Stats().pages_1g, 1u);
  EXPECT_EQ(vm->Stats().pages_4k, 0u);
  const auto again = vm->RecoverHugePages({}, nullptr);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->to_2m_count + again->to_1g_count, 0u);
  EXPECT_EQ(AuditFindings(*vm), "");
}

TEST(StopDirtyLogTest, OtherwisePagesStaySmallAndAreWritableAgain) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB, Level::k2M)});
  Write(*vm, 0);
  ASSERT_TRUE(StartLog(*vm, kEager, nullptr).ok());
  ASSERT_TRUE(
      StopLog(*vm, RecoverOnStop::kNo, Undelivered::kRefuse, nullptr).ok());
  EXPECT_EQ(vm->Stats().pages_4k, kPages2M);
  Write(*vm, 9 * kPageSize, 4);
  EXPECT_TRUE(SpteOf(vm->state(), Gfn(9)).IsWritable());
  EXPECT_EQ(AuditFindings(*vm), "");
}

TEST(StopDirtyLogTest, UndeliveredPagesAreThrownAwayOnlyOnRequest) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB)});
  ASSERT_TRUE(StartLog(*vm, kPlain, nullptr).ok());
  Write(*vm, 0x1000);
  SealAndList(*vm, 0);
  const auto refused =
      StopLog(*vm, RecoverOnStop::kNo, Undelivered::kRefuse, nullptr);
  EXPECT_EQ(ErrorOf(refused.status()),
            ErrorText(absl::StatusCode::kFailedPrecondition,
                      Reason::kUndeliveredPages, "undelivered", EBUSY));
  EXPECT_THAT(std::string(refused.status().message()),
              HasSubstr("request that they are discarded"));
  EXPECT_THAT(SealAndList(*vm, 0), ElementsAre(1));
  const auto stopped =
      StopLog(*vm, RecoverOnStop::kNo, Undelivered::kDiscard, nullptr);
  ASSERT_TRUE(stopped.ok());
  EXPECT_EQ(stopped->discarded, UndeliveredCounts{.sealed = 1});
}

// Open pages are a loss like sealed ones, whether they are in a bitmap, a ring
// or a PML buffer.
TEST(StopDirtyLogTest, OpenPagesAreRefusedAndCountedLikeSealedOnes) {
  const std::vector<MemslotConfig> slots = {Slot(0, 0, 4 * kMiB),
                                            Slot(1, kGiB, 4 * kMiB)};
  const auto expect = [](std::unique_ptr<Vm> vm, const char* kind) {
    SCOPED_TRACE(kind);
    ASSERT_TRUE(StartLog(*vm, kPlain, nullptr).ok());
    Touch(*vm, GfnRange::Of(Gfn(1), 3));
    uint64_t epoch = 0;
    SealAndList(*vm, 0, &epoch);
    ASSERT_TRUE(ClearLog(*vm, 0, epoch, 0, 64, MaskOf(64, {1})).ok());
    Write(*vm, 0x1000, 2);  // the page is in flight as well
    Write(*vm, 0x7000);
    Write(*vm, kGiB);
    const UndeliveredCounts counts = {.open = 3, .sealed = 2, .in_flight = 1};
    EXPECT_EQ(vm->CountUndelivered(), counts);
    EXPECT_EQ(
        ErrorOf(StopLog(*vm, RecoverOnStop::kNo, Undelivered::kRefuse, nullptr)
                    .status()),
        ErrorText(absl::StatusCode::kFailedPrecondition,
                  Reason::kUndeliveredPages, "undelivered", EBUSY));
    const absl::Status refused =
        StopLog(*vm, RecoverOnStop::kNo, Undelivered::kRefuse, nullptr)
            .status();
    EXPECT_THAT(std::string(refused.message()),
                HasSubstr("3 open, 2 sealed, 1 in flight"));
    EXPECT_THAT(vm->FindDirtyLog()->state.slots, SizeIs(2))
        << "nothing has ended";
    const auto stopped =
        StopLog(*vm, RecoverOnStop::kNo, Undelivered::kDiscard, nullptr);
    ASSERT_TRUE(stopped.ok());
    EXPECT_EQ(stopped->discarded, counts);
    EXPECT_TRUE(vm->CountUndelivered().none());
    EXPECT_EQ(AuditFindings(*vm), "");
  };
  expect(MakeVm(slots), "bitmap");
  expect(MakeRingVm(slots, 256), "ring");
  expect(MakePmlVm(slots), "pml");
  expect(MakePmlVm(slots, 1, 1024), "pml and ring");
}

TEST(StopDirtyLogTest, ADeletionIsRefusedAndCountsAsAStopDoes) {
  const auto expect = [](std::unique_ptr<Vm> vm) {
    ASSERT_TRUE(StartLog(*vm, kPlain, nullptr).ok());
    Write(*vm, 0x1000);
    SealAndList(*vm, 0);
    Write(*vm, 0x2000);
    EXPECT_EQ(ErrorOf(vm->DeleteMemslot(0, Undelivered::kRefuse).status()),
              ErrorText(absl::StatusCode::kFailedPrecondition,
                        Reason::kUndeliveredPages, "undelivered", EBUSY));
    const UndeliveredCounts counts = {.open = 1, .sealed = 1};
    EXPECT_EQ(vm->CountUndelivered(), counts);
    const auto lost = vm->DeleteMemslot(0, Undelivered::kDiscard);
    ASSERT_TRUE(lost.ok()) << lost.status();
    EXPECT_EQ(*lost, counts);
    EXPECT_THAT(vm->FindDirtyLog()->state.slots, IsEmpty());
    EXPECT_EQ(ErrorOf(vm->DeleteMemslot(0, Undelivered::kRefuse).status()),
              ErrorText(absl::StatusCode::kNotFound, Reason::kMemslotNotFound,
                        "slot", EINVAL));
  };
  expect(MakeVm({Slot(0, 0, 4 * kMiB)}));
  expect(MakeRingVm({Slot(0, 0, 4 * kMiB)}, 256));
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB), Slot(1, kGiB, 4 * kMiB)});
  ASSERT_TRUE(StartLog(*vm, kPlain, nullptr).ok());
  Write(*vm, 0x1000);
  const auto clean = vm->DeleteMemslot(1, Undelivered::kRefuse);
  ASSERT_TRUE(clean.ok()) << "another slot's pages are no reason";
  EXPECT_TRUE(clean->none());
}

// A stop that must lose nothing checks the log and then ends it. No vCPU may
// write in between. Here the vCPUs only read, so that no page becomes dirty.
// Where the processor notes writes besides the log.
enum class NotedIn { kNothing, kPmlBuffer, kDescriptor };

struct StandStill {
  const char* name;
  NotedIn noted_in;
  Undelivered undelivered;
};

class StandStillTest : public ::testing::TestWithParam<StandStill> {};

TEST_P(StandStillTest, VcpusStandStillFromTheLookAtTheLogToItsEnd) {
  VmConfig config;
  config.vcpu_count = 2;
  if (GetParam().noted_in == NotedIn::kPmlBuffer) {
    config.pml = VmConfig::Pml::kYes;
  } else if (GetParam().noted_in == NotedIn::kDescriptor) {
    config.mmu = MmuMode::kStage2;
    config.stage2.access_flag = Stage2Config::AccessFlag::kByHardware;
    config.stage2.dirty_state = Stage2Config::DirtyState::kByHardware;
  }
  config.memslots = {Slot(0, 0, 4 * kMiB)};
  auto vm = testing::MakeVmFrom(config);
  Touch(*vm, GfnRange::Of(Gfn(0), 1024));
  ASSERT_TRUE(StartLog(*vm, kPlain, nullptr).ok());
  PatternSpec spec;
  spec.kind = PatternSpec::Kind::kUniform;
  spec.write_fraction = 0;
  WorkloadOptions options;
  for (int i = 0; i < 2; ++i) {
    options.sources.push_back(MakePattern(spec, vm->GuestSpace(), i, 2));
  }
  ASSERT_TRUE(vm->StartWorkload(std::move(options)).ok());
  const auto accesses = [&] { return vm->Stats().vcpus.accesses; };
  while (accesses() == 0) std::this_thread::yield();
  bool looked = false;
  int in_guest = 0;
  int looks = 0;
  {
    testing::LockTrace trace([&](const testing::LockTrace::Event& event) {
      looked |= event.point == HookPoint::kCountToSwitch;
      if (!looked || event.point == HookPoint::kUnlock) return;
      // The check has made the vCPUs leave the guest. This gives them time to
      // come back, if they can.
      const int times = event.point == HookPoint::kCountToSwitch ? 10'000 : 1;
      for (int i = 0; i < times; ++i) {
        ++looks;
        for (const auto& vcpu : vm->state().vcpus) {
          in_guest += vcpu->gate().in_guest();
        }
        std::this_thread::yield();
      }
    });
    ASSERT_TRUE(
        StopLog(*vm, RecoverOnStop::kNo, GetParam().undelivered, nullptr).ok());
  }
  EXPECT_GT(looks, 10'000);
  EXPECT_EQ(in_guest, 0);
  const uint64_t before = accesses();
  while (accesses() == before) std::this_thread::yield();  // the vCPUs continue
  vm->StopWorkload();
}

// What the processor has noted must be collected before the end. Otherwise
// these pages would not count as discarded.
INSTANTIATE_TEST_SUITE_P(
    Stops, StandStillTest,
    ::testing::Values(StandStill{"ThatRefuses", NotedIn::kNothing,
                                 Undelivered::kRefuse},
                      StandStill{"ThatRefusesWithPml", NotedIn::kPmlBuffer,
                                 Undelivered::kRefuse},
                      StandStill{"ThatDiscardsWithPml", NotedIn::kPmlBuffer,
                                 Undelivered::kDiscard},
                      StandStill{"ThatDiscardsWithDirtyState",
                                 NotedIn::kDescriptor, Undelivered::kDiscard}),
    [](const auto& p) { return std::string(p.param.name); });

// A vCPU that stays in the guest until the test ends it. A thread that pauses
// the vCPUs waits for it.
class Stuck : public AccessSource {
 public:
  explicit Stuck(std::shared_future<void> end) : end_(std::move(end)) {}
  bool Next(GuestAccess*) override {
    there_.store(true);
    end_.wait();
    return false;
  }
  void AwaitThere() const {
    while (!there_.load()) std::this_thread::yield();
  }

 private:
  const std::shared_future<void> end_;
  std::atomic<bool> there_ = false;
};

TEST(DeleteLoggedSlotTest, ADeletionThatIsRefusedHoldsNoVcpu) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB), Slot(1, kGiB, 4 * kMiB)});
  ASSERT_TRUE(StartLog(*vm, kPlain, nullptr).ok());
  Write(*vm, kGiB);
  std::promise<void> end;
  auto source = std::make_unique<Stuck>(end.get_future().share());
  const Stuck& stuck = *source;
  WorkloadOptions options;
  options.sources.push_back(std::move(source));
  ASSERT_TRUE(vm->StartWorkload(std::move(options)).ok());
  stuck.AwaitThere();
  std::future<absl::Status> refused = std::async(std::launch::async, [&] {
    return vm->DeleteMemslot(1, Undelivered::kRefuse).status();
  });
  EXPECT_EQ(refused.wait_for(std::chrono::seconds(20)),
            std::future_status::ready)
      << "it waits for the vCPU";
  end.set_value();
  EXPECT_EQ(DetailOf(refused.get()).reason, Reason::kUndeliveredPages);
  EXPECT_TRUE(vm->WaitWorkload(absl::Minutes(1)));
}

enum class Logs { kNo, kYes };
class DeleteSlotBesideVcpusTest : public ::testing::TestWithParam<Logs> {};

// A deletion that succeeds pauses the vCPUs only if the slot logs. The vCPUs
// read another slot.
TEST_P(DeleteSlotBesideVcpusTest, VcpusStandStillOnlyIfTheSlotLogs) {
  const bool logs = GetParam() == Logs::kYes;
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB), Slot(1, kGiB, 4 * kMiB)});
  Touch(*vm, GfnRange::Of(Gfn(0), 1024));
  DirtyLogConfig config = kPlain;
  config.slots = {logs ? 1u : 0u};
  ASSERT_TRUE(StartLog(*vm, config, nullptr).ok());
  PatternSpec spec;
  spec.kind = PatternSpec::Kind::kUniform;
  spec.write_fraction = 0;
  WorkloadOptions options;
  options.sources.push_back(MakePattern(
      spec, GpaSpace::Create({GfnRange::Of(Gfn(0), 1024)}).value(), 0, 1));
  ASSERT_TRUE(vm->StartWorkload(std::move(options)).ok());
  const auto& vcpu = *vm->state().vcpus[0];
  const auto accesses = [&] { return vcpu.stats().Snapshot().accesses; };
  while (accesses() == 0) std::this_thread::yield();
  int looks = 0;
  bool in_guest = false;
  bool went_on = false;
  {
    testing::LockTrace trace([&](const testing::LockTrace::Event&) {
      // This is before any lock that the vCPU could wait for.
      if (++looks > 1) return;
      const uint64_t before = accesses();
      const MonotonicTime end =
          MonotonicTime::Now() +
          (logs ? absl::Milliseconds(50) : absl::Seconds(20));
      while (!went_on && MonotonicTime::Now() < end) {
        in_guest |= vcpu.gate().in_guest();
        went_on = accesses() != before;
        std::this_thread::yield();
      }
    });
    const auto deleted = vm->DeleteMemslot(1, Undelivered::kRefuse);
    ASSERT_TRUE(deleted.ok()) << deleted.status();
  }
  EXPECT_GT(looks, 0);
  EXPECT_EQ(went_on, !logs);
  EXPECT_FALSE(logs && in_guest);
  EXPECT_FALSE(vm->FindMemslot(0, 1).has_value());
  vm->StopWorkload();
}

INSTANTIATE_TEST_SUITE_P(Slots, DeleteSlotBesideVcpusTest,
                         ::testing::Values(Logs::kNo, Logs::kYes),
                         [](const auto& p) {
                           return std::string(p.param == Logs::kYes
                                                  ? "ThatLogs"
                                                  : "WithoutALog");
                         });

TEST(StopDirtyLogTest, AVmWithoutALogHasNoneToStop) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB), Slot(1, kGiB, 4 * kMiB)});
  DirtyLogConfig config = kPlain;
  config.slots = {1};
  ASSERT_TRUE(StartLog(*vm, config, nullptr).ok());
  EXPECT_TRUE(
      StopLog(*vm, RecoverOnStop::kNo, Undelivered::kRefuse, nullptr).ok());
  EXPECT_EQ(
      ErrorOf(StopLog(*vm, RecoverOnStop::kNo, Undelivered::kRefuse, nullptr)
                  .status()),
      ErrorText(absl::StatusCode::kFailedPrecondition, Reason::kDirtyLogOff,
                "vm", ENOENT));
}

TEST(StopDirtyLogTest, ALogStartedAgainBeginsAnew) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB)});
  ASSERT_TRUE(StartLog(*vm, kPlain, nullptr).ok());
  Write(*vm, 0x1000);
  ASSERT_TRUE(
      StopLog(*vm, RecoverOnStop::kNo, Undelivered::kDiscard, nullptr).ok());
  ASSERT_TRUE(StartLog(*vm, kPlain, nullptr).ok());
  EXPECT_THAT(SealAndList(*vm, 0), IsEmpty());
  Write(*vm, 0x1000);
  EXPECT_THAT(SealAndList(*vm, 0), ElementsAre(1));
}

}  // namespace
}  // namespace mmu
