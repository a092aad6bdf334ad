#include "server/convert/vm_conditions.h"

#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "gtest/gtest.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/dirty/dirty_log_calls.h"
#include "mmu_core/dirty/log_owner.h"
#include "mmu_core/guest/access_source.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/core/vm_config.h"
#include "mmu_core/vm/run/workload.h"
#include "mmu_core/vm/vm.h"
#include "mmud/v1/vm_service.pb.h"
#include "server/base/wall_time.h"
#include "server/control/managed_vm.h"
#include "server/control/shown_vm.h"
#include "server/control/workload_run.h"

namespace mmud {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

std::unique_ptr<ManagedVm> Manage(std::unique_ptr<mmu::Vm> vm) {
  return std::make_unique<ManagedVm>("vms/a", std::move(vm), WallTime::Now(),
                                     ManagedVm::MetricsLabel::kOwn);
}

std::vector<v1::VmCondition> Conditions(const ManagedVm& vm) {
  return ConditionsOf(ShowVm(vm, SlotLogs::kLeaveOut));
}

std::vector<v1::VmConditionType> TypesOf(const ManagedVm& vm) {
  std::vector<v1::VmConditionType> types;
  for (const v1::VmCondition& condition : Conditions(vm)) {
    types.push_back(condition.type());
    EXPECT_FALSE(condition.message().empty());
    // A condition cannot have begun before the VM was created.
    EXPECT_GE(condition.since().seconds(),
              vm.create_time().unix_nanos() / 1'000'000'000);
  }
  return types;
}

using Types = std::vector<v1::VmConditionType>;

// Writes to page after page of a MiB, then ends with `status`.
class Sweep : public mmu::AccessSource {
 public:
  Sweep(int64_t count, absl::Status status)
      : left_(count), status_(std::move(status)) {}
  bool Next(mmu::GuestAccess* access) override {
    if (left_-- == 0) return false;
    *access = {page_++ % 256 * 4096, 8, mmu::AccessKind::kWrite};
    return true;
  }
  absl::Status status() const override { return status_; }

 private:
  int64_t left_;
  uint64_t page_ = 0;
  const absl::Status status_;
};

// Runs on the VM's first vCPU, as its workload, until it ends.
void RunWorkload(ManagedVm& vm, int64_t count,
                 const absl::Status& status = absl::OkStatus()) {
  const auto run =
      std::make_shared<WorkloadRun>(vm.vm(), WorkloadDescription());
  ASSERT_TRUE(vm.TryBeginWorkload());
  mmu::WorkloadOptions options;
  options.sources.push_back(std::make_unique<Sweep>(count, status));
  ASSERT_TRUE(run->Start(std::move(options),
                         [&] {
                           vm.SetWorkload(run);
                           return absl::OkStatus();
                         })
                  .ok());
  run->RunToEnd([](const WorkloadRun::Progress&) {});
}

absl::Status Exhausted(mmu::Reason reason) {
  return mmu::MakeError(absl::StatusCode::kResourceExhausted, {reason, "", 0},
                        "no page table is left");
}

TEST(VmConditionsTest, AVmThatIsWellHasNone) {
  const auto vm =
      Manage(mmu::testing::MakeVm({mmu::testing::Slot(0, 0, kMiB)}));
  EXPECT_EQ(TypesOf(*vm), Types());
  RunWorkload(*vm, 10);
  EXPECT_EQ(TypesOf(*vm), Types());
}

TEST(VmConditionsTest, APauseIsOneWhileItLasts) {
  const auto vm = Manage(mmu::testing::MakeVm({}));
  vm->pause().Extend(absl::Hours(1));
  EXPECT_EQ(TypesOf(*vm), Types({v1::VM_CONDITION_TYPE_PAUSED}));
  vm->pause().End();
  EXPECT_EQ(TypesOf(*vm), Types());
}

TEST(VmConditionsTest, AWaitForRoomInARingIsOneWhileItLasts) {
  const auto vm = Manage(
      mmu::testing::MakeRingVm({mmu::testing::Slot(0, 0, 2 * kMiB)}, 256));
  ASSERT_TRUE(mmu::testing::StartLog(vm->vm()).ok());
  mmu::WorkloadOptions options;
  options.sources.push_back(std::make_unique<Sweep>(256, absl::OkStatus()));
  ASSERT_TRUE(vm->vm().StartWorkload(std::move(options)).ok());
  while (Conditions(*vm).empty()) std::this_thread::yield();
  EXPECT_EQ(TypesOf(*vm), Types({v1::VM_CONDITION_TYPE_RING_FULL}));
  vm->vm().StopWorkload();
  EXPECT_EQ(TypesOf(*vm), Types());
}

TEST(VmConditionsTest, ALogWhoseOwnerIsSilentIsOneUntilSomebodyOwnsIt) {
  const auto vm =
      Manage(mmu::testing::MakeVm({mmu::testing::Slot(0, 0, kMiB)}));
  mmu::DirtyLogStart start = mmu::testing::TestStart({});
  start.claim.owner = "a silent owner";
  start.claim.lease = absl::Hours(1);
  ASSERT_TRUE(vm->vm().StartDirtyLog(start, nullptr).ok());
  EXPECT_EQ(TypesOf(*vm), Types());
  // The lease expires a moment from now.
  start.claim.lease = absl::Nanoseconds(1);
  ASSERT_TRUE(vm->vm()
                  .AcquireDirtyLog(start.claim, absl::nullopt,
                                   mmu::LogOwner::Force::kNo,
                                   mmu::MonotonicTime::Now(), nullptr)
                  .ok());
  EXPECT_EQ(TypesOf(*vm), Types({v1::VM_CONDITION_TYPE_LOG_ABANDONED}));
  EXPECT_TRUE(
      absl::StrContains(Conditions(*vm)[0].message(), "a silent owner"));
  mmu::LogClaim next = start.claim;
  next.key.bytes[0] ^= 1;
  next.lease = absl::Hours(1);
  ASSERT_TRUE(vm->vm()
                  .AcquireDirtyLog(next, absl::nullopt,
                                   mmu::LogOwner::Force::kNo,
                                   mmu::MonotonicTime::Now(), nullptr)
                  .ok());
  EXPECT_EQ(TypesOf(*vm), Types());
}

TEST(VmConditionsTest, AWorkloadThatFoundNoPagesIsOneUntilTheNext) {
  const auto vm =
      Manage(mmu::testing::MakeVm({mmu::testing::Slot(0, 0, kMiB)}));
  for (const mmu::Reason reason :
       {mmu::Reason::kMmuPagesExhausted, mmu::Reason::kShadowPagesExhausted}) {
    RunWorkload(*vm, 10, Exhausted(reason));
    EXPECT_EQ(TypesOf(*vm), Types({v1::VM_CONDITION_TYPE_PAGES_EXHAUSTED}));
    EXPECT_TRUE(absl::StrContains(Conditions(*vm)[0].message(),
                                  std::string(mmu::ToString(reason))));
    RunWorkload(*vm, 10);
    EXPECT_EQ(TypesOf(*vm), Types());
  }
  // A workload that failed for another reason is no condition.
  RunWorkload(*vm, 10, Exhausted(mmu::Reason::kTraceTooLarge));
  EXPECT_EQ(TypesOf(*vm), Types());
}

TEST(VmConditionsTest, ALostGuestIsOneForGood) {
  mmu::VmConfig config;
  config.mmu = mmu::MmuMode::kShadow;
  config.format = mmu::EntryFormat::kNpt;
  config.memslots = {mmu::testing::Slot(0, 0, 32 * kMiB)};
  const auto vm = Manage(mmu::testing::MakeVmFrom(config));
  RunWorkload(*vm, 1000);
  EXPECT_EQ(TypesOf(*vm), Types());
  mmu::MemslotConfig gone = config.memslots[0];
  gone.size_bytes = 0;
  ASSERT_TRUE(vm->vm().SetMemslot(gone).ok());
  RunWorkload(*vm, 1000);
  EXPECT_EQ(TypesOf(*vm), Types({v1::VM_CONDITION_TYPE_GUEST_LOST}));
  ASSERT_TRUE(vm->vm().SetMemslot(config.memslots[0]).ok());
  RunWorkload(*vm, 1000);
  vm->pause().Extend(absl::Hours(1));
  EXPECT_EQ(TypesOf(*vm), Types({v1::VM_CONDITION_TYPE_GUEST_LOST,
                                 v1::VM_CONDITION_TYPE_PAUSED}));
}

}  // namespace
}  // namespace mmud
