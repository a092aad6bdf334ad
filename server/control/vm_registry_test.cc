#include "server/control/vm_registry.h"

#include <cstdint>
#include <functional>
#include <map>
#include <new>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/notification.h"
#include "gtest/gtest.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/level.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/base/thread.h"
#include "mmu_core/dirty/dirty_log_state.h"
#include "mmu_core/memory/host_memory.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/failing_allocations.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/core/nx_parameters.h"
#include "mmu_core/vm/core/vm_config.h"
#include "mmu_core/vm/vm.h"
#include "server/base/budget.h"
#include "server/control/managed_vm.h"

namespace mmud {
namespace {

constexpr int64_t kMiB = 1 << 20;

mmu::VmConfig Config(uint64_t size_bytes = kMiB) {
  mmu::VmConfig config;
  config.memslots.push_back(mmu::testing::Slot(0, 0, size_bytes));
  return config;
}

using Undelivered = mmu::UndeliveredCounts;

absl::StatusOr<Undelivered> AnyVm(const ManagedVm&) { return Undelivered(); }
absl::Status Patient() { return absl::OkStatus(); }

mmu::Reason Reason(const absl::Status& status) {
  return mmu::DetailOf(status).reason;
}

TEST(VmRegistry, FindsWhatItCreated) {
  VmRegistry vms({});
  ASSERT_TRUE(vms.Create("vms/a", Config()).ok());
  EXPECT_EQ(vms.Find("vms/a").value()->name(), "vms/a");
  EXPECT_EQ(Reason(vms.Find("vms/b").status()), mmu::Reason::kVmNotFound);
  EXPECT_EQ(Reason(vms.Create("vms/a", Config()).status()),
            mmu::Reason::kVmExists);
}

TEST(VmRegistry, AFailedCreationLeavesTheNameAndTheMemoryFree) {
  VmRegistry vms({.max_guest_memory_bytes = kMiB});
  mmu::VmConfig bad = Config();
  bad.vcpu_count = 0;
  EXPECT_FALSE(vms.Create("vms/a", bad).ok());
  EXPECT_TRUE(vms.Create("vms/a", Config()).ok());
}

TEST(VmRegistry, HoldsItsLimits) {
  VmRegistry vms({.max_vms = 2, .max_guest_memory_bytes = 2 * kMiB});
  EXPECT_EQ(Reason(vms.Create("vms/a", Config(3 * kMiB)).status()),
            mmu::Reason::kLimitExceeded);
  ASSERT_TRUE(vms.Create("vms/a", Config()).ok());
  ASSERT_TRUE(vms.Create("vms/b", Config()).ok());
  EXPECT_EQ(Reason(vms.Create("vms/c", Config()).status()),
            mmu::Reason::kLimitExceeded);
  ASSERT_TRUE(vms.Delete("vms/a", AnyVm, Patient).ok());
  EXPECT_TRUE(vms.Create("vms/c", Config()).ok());
}

TEST(VmRegistry, WithoutAThreadToDeleteItAVmStaysAsItIs) {
  VmRegistry vms({});
  ASSERT_TRUE(vms.Create("vms/a", Config()).ok());
  mmu::LimitThreads(0);
  const absl::Status none = vms.Delete("vms/a", AnyVm, Patient).status();
  mmu::LimitThreads(-1);
  EXPECT_EQ(Reason(none), mmu::Reason::kThreadsExhausted);
  EXPECT_FALSE(vms.Find("vms/a").value()->deleting());
  EXPECT_TRUE(vms.Delete("vms/a", AnyVm, Patient).ok());
  EXPECT_EQ(Reason(vms.Find("vms/a").status()), mmu::Reason::kVmNotFound);
}

TEST(VmRegistry, MetadataOnlyMemoryCostsNoBudget) {
  using mmu::testing::Slot;
  EXPECT_EQ(ContentBytes({Slot(0, 0, uint64_t{1} << 40, mmu::Level::k4K,
                               mmu::BackingKind::kMetadataOnly),
                          Slot(1, 0, 4096)}),
            4096);
}

TEST(VmRegistry, EnormousSizesAddUpToMoreThanAnyBudget) {
  using mmu::testing::Slot;
  EXPECT_GT(
      ContentBytes({Slot(0, 0, ~uint64_t{4095}), Slot(1, 0, ~uint64_t{4095})}),
      int64_t{1} << 50);
}

TEST(VmRegistry, ReservedMemoryCanBeGivenBack) {
  VmRegistry vms({.max_guest_memory_bytes = 2 * kMiB});
  VmUse vm = vms.Create("vms/a", Config()).value();
  ASSERT_TRUE(vms.ReserveMemory(*vm, kMiB).ok());
  EXPECT_EQ(Reason(vms.ReserveMemory(*vm, 1)), mmu::Reason::kLimitExceeded);
  vms.ReleaseMemory(*vm, kMiB);
  EXPECT_TRUE(vms.ReserveMemory(*vm, kMiB).ok());
}

TEST(VmRegistry, ListsInTheOrderOfNames) {
  VmRegistry vms({});
  for (const char* name : {"vms/c", "vms/a", "vms/b"}) {
    ASSERT_TRUE(vms.Create(name, Config()).ok());
  }
  const std::vector<VmRegistry::Sight> first = vms.List("", 2);
  ASSERT_EQ(first.size(), 2u);
  EXPECT_EQ(first[1].name, "vms/b");
  EXPECT_EQ(vms.List("vms/b", 2)[0].name, "vms/c");
}

// Whichever allocation fails, no use stays behind. No use is released under the
// lock that its release takes: the call would never return.
TEST(VmRegistry, ALookThatFindsNoMemoryLeavesNothingBehind) {
  VmRegistry vms({});
  for (const char* name : {"vms/a", "vms/b", "vms/c"}) {
    ASSERT_TRUE(vms.Create(name, Config()).ok());
  }
  const std::map<std::string, std::function<void()>> looks = {
      {"Look", [&] { vms.Look("vms/b").IgnoreError(); }},
      {"Find", [&] { vms.Find("vms/b").IgnoreError(); }},
      {"List", [&] { vms.List("vms/a", 2); }},
      {"All", [&] { vms.All(); }},
      {"ForScrape", [&] { vms.ForScrape(); }}};
  for (const auto& [name, look] : looks) {
    SCOPED_TRACE(name);
    uint64_t n = 1;
    const auto fails = [&, &look = look] {
      return mmu::testing::FailOneAllocation(n,
                                             [&] {
                                               try {
                                                 look();
                                               } catch (const std::bad_alloc&) {
                                               }
                                               return absl::OkStatus();
                                             })
          .failed;
    };
    while (fails()) ++n;
    EXPECT_TRUE(n > 1 || name == "Find");
  }
  for (const char* name : {"vms/a", "vms/b", "vms/c"}) {
    EXPECT_TRUE(vms.Delete(name, AnyVm, Patient).ok());
  }
}

TEST(VmRegistry, AnOperationForbidsDeletion) {
  VmRegistry vms({});
  VmUse operation;
  {
    VmUse call = vms.Create("vms/a", Config()).value();
    operation = vms.ForOperation(call).value();
  }
  EXPECT_EQ(Reason(vms.Delete("vms/a", AnyVm, Patient).status()),
            mmu::Reason::kOperationRunning);
  EXPECT_TRUE(vms.Find("vms/a").ok());
  operation.Release();
  EXPECT_TRUE(vms.Delete("vms/a", AnyVm, Patient).ok());
  EXPECT_EQ(Reason(vms.Delete("vms/a", AnyVm, Patient).status()),
            mmu::Reason::kVmNotFound);
}

TEST(VmRegistry, AGuestThatRunsForbidsDeletion) {
  VmRegistry vms({});
  VmUse guest;
  {
    VmUse call = vms.Create("vms/a", Config()).value();
    guest = vms.ForGuest(call).value();
  }
  const absl::Status refused = vms.Delete("vms/a", AnyVm, Patient).status();
  EXPECT_EQ(Reason(refused), mmu::Reason::kOperationRunning);
  EXPECT_EQ(refused.message(), "\"vms/a\" runs a workload; stop it first");
  guest.Release();
  EXPECT_TRUE(vms.Delete("vms/a", AnyVm, Patient).ok());
}

// Deletes on a thread of its own.
class Deleter {
 public:
  explicit Deleter(VmRegistry& vms)
      : thread_([this, &vms] {
          deleted_ = vms.Delete("vms/a", AnyVm, [this] {
            if (!waiting_.HasBeenNotified()) waiting_.Notify();
            return absl::OkStatus();
          });
        }) {}
  // Waits until the deletion has begun.
  void AwaitBegin() { waiting_.WaitForNotification(); }
  absl::StatusOr<VmRegistry::Deleted> Join() {
    thread_.join();
    return deleted_;
  }

 private:
  absl::StatusOr<VmRegistry::Deleted> deleted_;
  absl::Notification waiting_;
  std::thread thread_;
};

TEST(VmRegistry, DeletionWaitsForCallsAndIsVisibleMeanwhile) {
  VmRegistry vms({});
  VmUse call = vms.Create("vms/a", Config()).value();
  ASSERT_TRUE(vms.Create("vms/b", Config()).ok());
  const int64_t created = call->create_time().unix_nanos();
  Deleter deleter(vms);
  deleter.AwaitBegin();
  EXPECT_TRUE(call->deleting());

  const VmRegistry::Sight sight = vms.Look("vms/a").value();
  EXPECT_EQ(sight.name, "vms/a");
  EXPECT_EQ(sight.create_time.unix_nanos(), created);
  EXPECT_FALSE(sight.use);
  const std::vector<VmRegistry::Sight> list = vms.List("", 5);
  ASSERT_EQ(list.size(), 2u);
  EXPECT_EQ(list[0].name, "vms/a");
  EXPECT_FALSE(list[0].use);
  EXPECT_TRUE(list[1].use);
  EXPECT_EQ(vms.All().size(), 1u);

  EXPECT_EQ(Reason(vms.Find("vms/a").status()), mmu::Reason::kVmDeleted);
  EXPECT_EQ(Reason(vms.ForOperation(call).status()), mmu::Reason::kVmDeleted);
  EXPECT_EQ(Reason(vms.Create("vms/a", Config()).status()),
            mmu::Reason::kVmExists);
  call.Release();
  EXPECT_TRUE(deleter.Join().ok());
  EXPECT_EQ(Reason(vms.Look("vms/a").status()), mmu::Reason::kVmNotFound);
  EXPECT_TRUE(vms.Create("vms/a", Config()).ok());
}

TEST(VmRegistry, ADeletionGoesOnWithoutItsCaller) {
  VmRegistry vms({});
  VmUse call = vms.Create("vms/a", Config()).value();
  EXPECT_EQ(
      vms.Delete("vms/a", AnyVm, [] { return absl::CancelledError("left"); })
          .status()
          .code(),
      absl::StatusCode::kCancelled);
  EXPECT_TRUE(call->deleting());
  EXPECT_EQ(Reason(vms.Find("vms/a").status()), mmu::Reason::kVmDeleted);
  // Another call waits for the same end.
  Deleter deleter(vms);
  deleter.AwaitBegin();
  call.Release();
  EXPECT_TRUE(deleter.Join().ok());
  EXPECT_EQ(Reason(vms.Delete("vms/a", AnyVm, Patient).status()),
            mmu::Reason::kVmNotFound);
}

TEST(VmRegistry, NobodyNeedsToWaitForADeletion) {
  VmRegistry vms({});
  VmUse call = vms.Create("vms/a", Config()).value();
  EXPECT_FALSE(
      vms.Delete("vms/a", AnyVm, [] { return absl::CancelledError("left"); })
          .ok());
  call.Release();
  while (vms.Look("vms/a").ok()) std::this_thread::yield();
  EXPECT_TRUE(vms.Create("vms/a", Config()).ok());
}

TEST(VmRegistry, ADeletionThatRunsAtTheEndOfAllIsWaitedFor) {
  VmRegistry vms({});
  VmUse call = vms.Create("vms/a", Config()).value();
  EXPECT_FALSE(
      vms.Delete("vms/a", AnyVm, [] { return absl::CancelledError("left"); })
          .ok());
  call.Release();
}

// A stream whose client does not read keeps its use until the stream is ended.
TEST(VmRegistry, ADeletionEndsTheStreamsOfItsVm) {
  std::map<std::string, VmUse> streams;
  VmRegistry vms({}, mmu::NxParameters::Process(),
                 [&](absl::string_view vm) { streams.erase(std::string(vm)); });
  for (const char* name : {"vms/a", "vms/b"}) {
    ASSERT_TRUE(vms.Create(name, Config()).ok());
    streams[name] = vms.Find(name).value();
  }
  EXPECT_TRUE(vms.Delete("vms/a", AnyVm, Patient).ok());
  EXPECT_EQ(streams.size(), 1u);
  streams.clear();
}

// Pages that a guest writes until it stops are counted.
TEST(VmRegistry, DirtyPagesAreCountedOnceNoGuestRuns) {
  VmRegistry vms({});
  VmUse vm = vms.Create("vms/a", Config()).value();
  ASSERT_TRUE(mmu::testing::StartLog(vm->vm()).ok());
  VmUse guest = vms.ForGuest(vm).value();
  mmu::testing::Write(vm->vm(), 0);
  int checks = 0;
  const auto check =
      [&](const ManagedVm& checked) -> absl::StatusOr<Undelivered> {
    const mmu::UndeliveredCounts count = checked.vm().CountUndelivered();
    if (++checks == 1) {
      // The pages have been counted, and the guest still runs; then it stops.
      mmu::testing::Write(guest->vm(), mmu::kPageSize);
      guest.Release();
      vm.Release();
    }
    return count;
  };
  const absl::StatusOr<VmRegistry::Deleted> deleted =
      vms.Delete("vms/a", check, Patient);
  ASSERT_TRUE(deleted.ok());
  EXPECT_EQ(deleted->discarded.open, 2u);
  EXPECT_EQ(checks, 2);
}

// The same for an operation that began after the first look and has ended
// since.
TEST(VmRegistry, AnOperationBesideTheCheckMakesItCountAgain) {
  VmRegistry vms({});
  VmUse vm = vms.Create("vms/a", Config()).value();
  int checks = 0;
  const auto check = [&](const ManagedVm&) -> absl::StatusOr<Undelivered> {
    if (++checks == 1) {
      VmUse operation = vms.ForOperation(vm).value();
      operation.Release();
      vm.Release();
    } else if (checks == 2) {
      return absl::FailedPreconditionError("dirty by now");
    }
    return Undelivered();
  };
  EXPECT_EQ(vms.Delete("vms/a", check, Patient).status().message(),
            "dirty by now");
  EXPECT_TRUE(vms.Find("vms/a").ok()) << "refused: nothing has changed";
}

// For example a change of a slot or of labels: the state that `check` read is
// out of date.
TEST(VmRegistry, AChangeBesideTheCheckMakesItCountAgain) {
  VmRegistry vms({});
  VmUse vm = vms.Create("vms/a", Config()).value();
  int checks = 0;
  const auto check = [&](const ManagedVm&) -> absl::StatusOr<Undelivered> {
    if (++checks > 1) return Undelivered{.open = 3};
    VmUse change = vms.ForChange(vm).value();
    change.Release();
    vm.Release();
    return Undelivered();
  };
  const absl::StatusOr<VmRegistry::Deleted> deleted =
      vms.Delete("vms/a", check, Patient);
  ASSERT_TRUE(deleted.ok()) << deleted.status();
  EXPECT_EQ(checks, 2);
  EXPECT_EQ(deleted->discarded.open, 3u);
}

TEST(VmRegistry, ADeletionBeginsOnceNoChangeIsInHand) {
  VmRegistry vms({});
  VmUse vm = vms.Create("vms/a", Config()).value();
  VmUse change = vms.ForChange(vm).value();
  vm.Release();
  int64_t pages = 0;
  int asked = 0;
  const absl::StatusOr<VmRegistry::Deleted> deleted = vms.Delete(
      "vms/a",
      [&](const ManagedVm&) -> absl::StatusOr<Undelivered> {
        return Undelivered{.open = static_cast<uint64_t>(pages)};
      },
      [&] {
        if (++asked == 2) {
          EXPECT_TRUE(vms.Find("vms/a").ok()) << "not begun";
          pages = 5;
          change.Release();
        }
        return absl::OkStatus();
      });
  ASSERT_TRUE(deleted.ok()) << deleted.status();
  EXPECT_EQ(deleted->discarded.open, 5u);
}

TEST(VmRegistry, WhatIsBeingDeletedIsNotChanged) {
  VmRegistry vms({});
  VmUse vm = vms.Create("vms/a", Config()).value();
  EXPECT_FALSE(
      vms.Delete("vms/a", AnyVm, [] { return absl::CancelledError("left"); })
          .ok());
  EXPECT_EQ(Reason(vms.ForChange(vm).status()), mmu::Reason::kVmDeleted);
  vm.Release();
}

// Operations that come and go delay the beginning of a deletion only as long as
// its caller waits.
TEST(VmRegistry, ADeletionThatDoesNotBeginEndsWithItsCaller) {
  VmRegistry vms({});
  VmUse vm = vms.Create("vms/a", Config()).value();
  int checks = 0;
  const auto check = [&](const ManagedVm&) -> absl::StatusOr<Undelivered> {
    if (++checks == 100) return absl::InternalError("nobody asked the caller");
    VmUse operation = vms.ForOperation(vm).value();
    operation.Release();
    return Undelivered();
  };
  int asked = 0;
  const absl::Status status =
      vms.Delete(
             "vms/a", check,
             [&] {
               return ++asked < 3 ? absl::OkStatus()
                                  : absl::DeadlineExceededError("too late");
             },
             [](const VmRegistry::Deleted&) { ADD_FAILURE(); })
          .status();
  EXPECT_EQ(status.message(), "too late");
  EXPECT_EQ(checks, 3);
  EXPECT_TRUE(vms.Find("vms/a").ok());
  vm.Release();
  EXPECT_TRUE(vms.Delete("vms/a", AnyVm, Patient).ok());
}

TEST(VmRegistry, AllWhoAskForADeletionAreToldTheSame) {
  VmRegistry vms({});
  VmUse call = vms.Create("vms/a", Config()).value();
  std::vector<VmRegistry::Deleted> ends;
  const auto at_end = [&ends](const VmRegistry::Deleted& end) {
    ends.push_back(end);  // used only by the deletion's thread
  };
  // The first call leaves before the deletion's end.
  EXPECT_FALSE(vms.Delete(
                      "vms/a",
                      [](const ManagedVm&) -> absl::StatusOr<Undelivered> {
                        return Undelivered{.open = 7};
                      },
                      [] { return absl::CancelledError("left"); }, at_end)
                   .ok());
  EXPECT_TRUE(ends.empty());
  const absl::StatusOr<VmRegistry::Deleted> second = vms.Delete(
      "vms/a",
      [](const ManagedVm&) -> absl::StatusOr<Undelivered> {
        ADD_FAILURE() << "the first has been asked";
        return Undelivered();
      },
      [&] {
        call.Release();
        return absl::OkStatus();
      },
      at_end);
  ASSERT_TRUE(second.ok());
  EXPECT_EQ(second->discarded.open, 7u);
  // Joins the deletion's thread.
  EXPECT_FALSE(vms.Delete("vms/a", AnyVm, Patient).ok());
  ASSERT_EQ(ends.size(), 2u);
  for (const VmRegistry::Deleted& end : ends) {
    EXPECT_EQ(end.discarded.open, 7u);
    EXPECT_EQ(end.wall, second->wall);
  }
}

TEST(VmRegistry, ARefusedDeletionHasNoEnd) {
  VmRegistry vms({});
  ASSERT_TRUE(vms.Create("vms/a", Config()).ok());
  const auto at_end = [](const VmRegistry::Deleted&) { ADD_FAILURE(); };
  EXPECT_FALSE(vms.Delete(
                      "vms/a",
                      [](const ManagedVm&) -> absl::StatusOr<Undelivered> {
                        return absl::AbortedError("etag");
                      },
                      Patient, at_end)
                   .ok());
  EXPECT_TRUE(vms.Delete("vms/a", AnyVm, Patient).ok());
}

TEST(VmRegistry, AFailedCheckChangesNothing) {
  VmRegistry vms({});
  ASSERT_TRUE(vms.Create("vms/a", Config()).ok());
  EXPECT_EQ(vms.Delete(
                   "vms/a",
                   [](const ManagedVm&) -> absl::StatusOr<Undelivered> {
                     return absl::AbortedError("etag");
                   },
                   Patient)
                .status()
                .code(),
            absl::StatusCode::kAborted);
  EXPECT_TRUE(vms.Find("vms/a").ok());
}

TEST(VmRegistry, CountersOfDeletedVmsAreKept) {
  VmRegistry vms({});
  uint64_t acquisitions = 0;
  const auto sum = [](const mmu::VmStatsSnapshot& metrics) {
    uint64_t count = 0;
    for (const auto& by_op : metrics.lock.ops) {
      for (const auto& op : by_op) count += op.acquisitions;
    }
    return count;
  };
  {
    VmUse vm = vms.Create("vms/a", Config()).value();
    ASSERT_TRUE(mmu::testing::StartLog(vm->vm()).ok());
    acquisitions = sum(vm->vm().Stats());
    ASSERT_GT(acquisitions, 0u);
  }
  ASSERT_TRUE(vms.Delete("vms/a", AnyVm, Patient).ok());
  const VmRegistry::Scrape scrape = vms.ForScrape();
  EXPECT_TRUE(scrape.vms.empty());
  EXPECT_GE(sum(scrape.gone.stats), acquisitions);
}

TEST(VmRegistry, MetricsLabelsAreHandedOutAgain) {
  VmRegistry vms({.max_labelled_vms = 1});
  EXPECT_EQ(vms.Create("vms/a", Config()).value()->metrics_label(),
            ManagedVm::MetricsLabel::kOwn);
  EXPECT_EQ(vms.Create("vms/b", Config()).value()->metrics_label(),
            ManagedVm::MetricsLabel::kOther);
  ASSERT_TRUE(vms.Delete("vms/a", AnyVm, Patient).ok());
  EXPECT_EQ(vms.Create("vms/c", Config()).value()->metrics_label(),
            ManagedVm::MetricsLabel::kOwn);
}

TEST(VmRegistryLimitsTest, AWrongConfigurationIsNotRefusedByALimit) {
  VmRegistry vms({.max_vms = 1, .max_guest_memory_bytes = kMiB});
  ASSERT_TRUE(vms.Create("vms/a", Config()).ok());
  mmu::VmConfig wrong = Config();
  wrong.vcpu_count = 0;
  for (const char* name : {"vms/a", "vms/b"}) {
    const absl::Status status = vms.Create(name, wrong).status();
    EXPECT_EQ(Reason(status), mmu::Reason::kInvalidVcpuCount);
    EXPECT_EQ(mmu::DetailOf(status).field, "vm.vcpu_count");
  }
  for (const BudgetUse& use : vms.Uses()) EXPECT_EQ(use.refused, 0) << use.name;
}

TEST(VmRegistryLimitsTest, WhatIsUsedOfEachIsTold) {
  VmRegistry vms({.max_vms = 2, .max_guest_memory_bytes = 3 << 20});
  ASSERT_TRUE(vms.Create("vms/a", Config(2 << 20)).ok());
  EXPECT_FALSE(vms.Create("vms/b", Config(2 << 20)).ok());  // too much memory
  ASSERT_TRUE(vms.Create("vms/b", mmu::VmConfig()).ok());
  EXPECT_FALSE(vms.Create("vms/c", mmu::VmConfig()).ok());
  EXPECT_FALSE(vms.Create("vms/d", mmu::VmConfig()).ok());
  const std::vector<BudgetUse> uses = vms.Uses();
  ASSERT_EQ(uses.size(), 2u);
  EXPECT_EQ(uses[0].name, "max_vms");
  EXPECT_EQ(uses[0].limit, 2);
  EXPECT_EQ(uses[0].used, 2);
  EXPECT_EQ(uses[0].refused, 2);
  EXPECT_EQ(uses[1].name, "max_guest_memory_bytes");
  EXPECT_EQ(uses[1].limit, 3 << 20);
  EXPECT_EQ(uses[1].used, 2 << 20);
  EXPECT_EQ(uses[1].refused, 1);
}

}  // namespace
}  // namespace mmud
