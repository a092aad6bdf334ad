#include "server/control/operation_store.h"

#include <atomic>
#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/base/thread.h"
#include "server/base/resource_names.h"
#include "server/control/drain_state.h"
#include "server/control/operation.h"
#include "server/log/limited_log.h"
#include "server/log/logging.h"

namespace mmud {
namespace {

PackedMessage Number(int64_t n) {
  return {.type_url = "a number", .value = absl::StrCat(n)};
}

// Runs until it is finished or cancelled by the test.
struct Controlled {
  absl::Notification end;
  std::atomic<bool> cancelled{false};
  std::atomic<bool> finished{false};

  // The store cancels operations that still run at its end, so this may be
  // called twice.
  void Finish() {
    if (!finished.exchange(true)) end.Notify();
  }

  OperationSpec Spec(std::shared_ptr<Controlled> self) {
    OperationSpec spec;
    spec.method = OperationMethod::kSplitHugePages;
    spec.vm = "vms/a";
    spec.run = [self]() -> absl::StatusOr<PackedMessage> {
      self->end.WaitForNotification();
      if (self->cancelled) return CancelledOperation();
      return Number(42);
    };
    spec.metadata = [] { return Number(7); };
    spec.cancel = [self] {
      self->cancelled = true;
      self->Finish();
    };
    return spec;
  }
};

class OperationStoreTest : public ::testing::Test {
 protected:
  OperationView Start(std::shared_ptr<Controlled> control) {
    return store_.Start(control->Spec(control)).value();
  }

  // Waits for the end of an operation.
  absl::StatusOr<OperationView> Wait(const OperationView& operation) {
    absl::Notification done;
    store_.NotifyWhenDone(operation.name, [&done] { done.Notify(); });
    done.WaitForNotification();
    return store_.Get(operation.name);
  }

  DrainState drain_;
  int lines_ = 0;   // under the log's lock
  LogFields last_;  // likewise
  LimitedLog log_{
      [this](LogLevel, absl::string_view message, const LogFields& fields) {
        if (message != "operation ended") return;
        ++lines_;
        last_ = fields;
      },
      {.lines_per_second = 0.001, .burst = 3}};
  OperationStore store_{{.max_running = 2, .max_done = 2}, drain_, log_};
};

TEST_F(OperationStoreTest, AFloodOfOperationsDoesNotFloodTheLog) {
  for (int i = 0; i < 20; ++i) {
    auto control = std::make_shared<Controlled>();
    control->Finish();
    ASSERT_TRUE(Wait(Start(control)).ok());
  }
  EXPECT_EQ(lines_, 3);
  EXPECT_EQ(log_.dropped(), 17u);
}

TEST_F(OperationStoreTest, TheLogSaysWhatEndedAndOfWhichVm) {
  auto control = std::make_shared<Controlled>();
  const OperationView started = Start(control);
  ASSERT_TRUE(store_.Cancel(started.name).ok());
  ASSERT_TRUE(Wait(started).ok());
  last_.pop_back();  // the duration
  EXPECT_EQ(last_, (LogFields{{"operation", started.name},
                              {"method", "SplitHugePages"},
                              {"vm", "vms/a"},
                              {"code", "CANCELLED"},
                              {"reason", "OPERATION_CANCELLED"}}));
}

TEST_F(OperationStoreTest, WithoutAThreadNothingBegins) {
  auto control = std::make_shared<Controlled>();
  mmu::LimitThreads(0);
  const absl::Status none = store_.Start(control->Spec(control)).status();
  mmu::LimitThreads(-1);
  EXPECT_EQ(mmu::DetailOf(none).reason, mmu::Reason::kThreadsExhausted);
  EXPECT_TRUE(store_.List(0, 10).empty());
  EXPECT_EQ(store_.Use().used, 0);
  EXPECT_EQ(store_.Splits().running, 0);
  Start(control);
  EXPECT_EQ(store_.List(0, 10).size(), 1u);
  control->Finish();
}

TEST_F(OperationStoreTest, NoTwoHaveTheSameNameAlsoInAnotherStore) {
  OperationStore after_restart({.max_running = 2, .max_done = 2}, drain_, log_);
  auto control = std::make_shared<Controlled>();
  std::set<std::string> names = {Start(control).name};
  names.insert(Start(control).name);
  const auto other = after_restart.Start(control->Spec(control)).value();
  names.insert(other.name);
  EXPECT_EQ(names.size(), 3u);
  for (const std::string& name : names) {
    EXPECT_EQ(ParseOperationName(name, "name").value(), name);
  }
  EXPECT_EQ(mmu::DetailOf(store_.Get(other.name).status()).reason,
            mmu::Reason::kOperationNotFound);
  control->Finish();
}

TEST_F(OperationStoreTest, GivesTheResponseWhenDone) {
  auto control = std::make_shared<Controlled>();
  const auto started = Start(control);
  EXPECT_FALSE(started.done);
  EXPECT_EQ(started.metadata.type_url, Number(7).type_url);
  control->Finish();
  const auto done = Wait(started).value();
  EXPECT_TRUE(done.done);
  EXPECT_EQ(done.response.value, Number(42).value);
  EXPECT_EQ(done.metadata.value, Number(7).value);
}

TEST_F(OperationStoreTest, CancelEndsItWithItsReason) {
  auto control = std::make_shared<Controlled>();
  const auto started = Start(control);
  ASSERT_TRUE(store_.Cancel(started.name).ok());
  const auto done = Wait(started).value();
  EXPECT_TRUE(absl::IsCancelled(done.error)) << done.error;
  EXPECT_TRUE(store_.Cancel(started.name).ok());
}

TEST_F(OperationStoreTest, WhoIsForgottenIsNotCalled) {
  auto control = std::make_shared<Controlled>();
  const auto started = Start(control);
  bool forgotten_called = false;
  const uint64_t ticket = store_.NotifyWhenDone(
      started.name, [&forgotten_called] { forgotten_called = true; });
  store_.Forget(started.name, ticket);
  control->Finish();
  ASSERT_TRUE(Wait(started)->done);
  EXPECT_FALSE(forgotten_called);
}

TEST_F(OperationStoreTest, WhoComesLateOrAsksForNothingKnownIsCalledAtOnce) {
  auto control = std::make_shared<Controlled>();
  const auto started = Start(control);
  control->Finish();
  ASSERT_TRUE(Wait(started)->done);
  int calls = 0;
  store_.NotifyWhenDone(started.name, [&calls] { ++calls; });
  store_.NotifyWhenDone(NewOperationName(), [&calls] { ++calls; });
  EXPECT_EQ(calls, 2);
}

TEST_F(OperationStoreTest, RefusesMoreThanItsLimit) {
  auto a = std::make_shared<Controlled>();
  auto b = std::make_shared<Controlled>();
  const auto first = Start(a);
  Start(b);
  const auto third = store_.Start(a->Spec(a));
  EXPECT_EQ(third.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(mmu::DetailOf(third.status()).reason, mmu::Reason::kLimitExceeded);
  EXPECT_EQ(store_.Use().name, "max_operations");
  EXPECT_EQ(store_.Use().used, 2);
  EXPECT_EQ(store_.Use().refused, 1);
  // A client that sees one done can start the next.
  a->Finish();
  ASSERT_TRUE(Wait(first)->done);
  auto c = std::make_shared<Controlled>();
  Start(c);
  b->Finish();
  c->Finish();
}

TEST_F(OperationStoreTest, DeletesOnlyWhatIsDone) {
  auto control = std::make_shared<Controlled>();
  const auto started = Start(control);
  EXPECT_EQ(mmu::DetailOf(store_.Delete(started.name)).reason,
            mmu::Reason::kOperationRunning);
  control->Finish();
  ASSERT_TRUE(Wait(started).ok());
  EXPECT_TRUE(store_.Delete(started.name).ok());
  EXPECT_EQ(mmu::DetailOf(store_.Get(started.name).status()).reason,
            mmu::Reason::kOperationNotFound);
  EXPECT_TRUE(store_.List(0, 10).empty());
}

TEST_F(OperationStoreTest, KeepsOnlyTheNewestOfTheDone) {
  std::vector<std::string> names;
  for (int i = 0; i < 4; ++i) {
    auto control = std::make_shared<Controlled>();
    control->Finish();
    const auto started = Start(control);
    names.push_back(started.name);
    ASSERT_TRUE(Wait(started).ok());
  }
  const auto list = store_.List(0, 10);
  ASSERT_EQ(list.size(), 2u);
  EXPECT_EQ(list[0].operation.name, names[2]);
  EXPECT_EQ(list[1].operation.name, names[3]);
  EXPECT_EQ(store_.List(list[0].place, 10).size(), 1u);
  EXPECT_EQ(mmu::DetailOf(store_.Get(names[0]).status()).reason,
            mmu::Reason::kOperationNotFound);
}

TEST_F(OperationStoreTest, ReleasesWhatItHoldsBeforeItIsDone) {
  auto held = std::make_shared<int>(1);
  OperationSpec spec;
  spec.run = [held]() -> absl::StatusOr<PackedMessage> {
    return Number(*held);
  };
  spec.metadata = [held] { return Number(0); };
  spec.cancel = [held] {};
  const auto started = store_.Start(std::move(spec)).value();
  ASSERT_TRUE(Wait(started)->done);
  EXPECT_EQ(held.use_count(), 1);
}

TEST_F(OperationStoreTest, DrainCancelsAndReportsAndRefuses) {
  auto control = std::make_shared<Controlled>();
  Start(control);
  drain_.Begin();
  const auto ended = store_.Drain(absl::Seconds(30));
  ASSERT_EQ(ended.size(), 1u);
  EXPECT_TRUE(ended[0].done);
  EXPECT_TRUE(control->cancelled);
  const auto refused = store_.Start(control->Spec(control));
  EXPECT_EQ(mmu::DetailOf(refused.status()).reason, mmu::Reason::kDraining);
}

TEST_F(OperationStoreTest, CountsByMethodAndCode) {
  auto control = std::make_shared<Controlled>();
  const auto started = Start(control);
  const int split = static_cast<int>(OperationMethod::kSplitHugePages);
  EXPECT_EQ(store_.Metrics()[split].running, 1);
  ASSERT_TRUE(store_.Cancel(started.name).ok());
  ASSERT_TRUE(Wait(started).ok());
  EXPECT_EQ(store_.Metrics()[split].running, 0);
  EXPECT_EQ(store_.Metrics()[split].finished[1], 1u);
  EXPECT_EQ(store_.Metrics()[split].duration.count, 1u);
}

}  // namespace
}  // namespace mmud
