#include "mmu_core/vm/jobs/split_job.h"

#include <atomic>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/paging/table_pool.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/testing/await.h"
#include "mmu_core/testing/hold_clock.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/vm/vm_state.h"

namespace mmu {
namespace {

using ::mmu::testing::AllMappings;
using ::mmu::testing::AuditFindings;
using ::mmu::testing::LeapingHoldClock;
using ::mmu::testing::LevelOf;
using ::mmu::testing::MakeVm;
using ::mmu::testing::Read;
using ::mmu::testing::ReadValue;
using ::mmu::testing::Slot;
using ::mmu::testing::StillHoldClock;
using ::mmu::testing::Write;

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kGiB = uint64_t{1} << 30;

using State = SplitProgress::State;

std::shared_ptr<SplitJob> Job(Vm& vm, const SplitRequest& request) {
  absl::StatusOr<std::shared_ptr<SplitJob>> job =
      SplitJob::Create(vm.state(), request);
  EXPECT_TRUE(job.ok()) << job.status();
  return *std::move(job);
}

SplitProgress RunSplit(Vm& vm, const SplitRequest& request) {
  const std::shared_ptr<SplitJob> job = Job(vm, request);
  EXPECT_TRUE(job->Run().ok());
  return job->Progress();
}

// A VM of `mib` MiB, all mapped by 2 MiB pages.
std::unique_ptr<Vm> HugeVm(uint64_t mib) {
  auto vm = MakeVm({Slot(0, 0, mib * kMiB, Level::k2M)});
  for (uint64_t at = 0; at < mib; at += 2) Write(*vm, at * kMiB, at + 1);
  return vm;
}

absl::Duration ThrottledTime(const Vm& vm, ThrottleLimit limit) {
  return absl::Nanoseconds(
      vm.Stats().split_throttled_nanos[static_cast<int>(limit)]);
}

void WaitUntil(const std::function<bool()>& done) {
  testing::Await("a state of the job", done);
}

absl::Status SetThrottle(SplitJob& job, const Throttle& throttle) {
  return job.ChangeThrottle([&throttle](Throttle* all) {
    *all = throttle;
    return absl::OkStatus();
  });
}

// Covers: TDP-60, TDP-61, TLB-07
TEST(SplitJobTest, AOneGigabytePageBecomesSmallPagesWithoutAFlush) {
  auto vm = MakeVm({Slot(0, 0, kGiB, Level::k1G)});
  Write(*vm, 77 * kMiB, 5);
  const uint64_t tables = vm->Stats().table_pages;
  const SplitProgress progress = RunSplit(*vm, {});
  EXPECT_EQ(progress.state, State::kDone);
  EXPECT_EQ(progress.split_1g_count, 1);
  EXPECT_EQ(progress.split_2m_count, 512);
  EXPECT_EQ(progress.total_bytes, static_cast<int64_t>(kGiB));
  EXPECT_EQ(progress.done_bytes, progress.total_bytes);
  EXPECT_EQ(progress.cost.tlb_flush_count, 0);
  EXPECT_EQ(progress.eta, absl::ZeroDuration());
  const VmStatsSnapshot stats = vm->Stats();
  EXPECT_EQ(stats.pages_1g, 0u);
  EXPECT_EQ(stats.pages_2m, 0u);
  EXPECT_EQ(stats.pages_4k, 262144u);
  EXPECT_EQ(stats.table_pages, tables + 513);
  EXPECT_EQ(stats.flush.remote_tlb_flush_requests, 0u);
  EXPECT_EQ(ReadValue(*vm, 77 * kMiB), 5u);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: TDP-61
TEST(SplitJobTest, ASplitToTwoMegabytesStopsThere) {
  auto vm = MakeVm({Slot(0, 0, kGiB, Level::k1G)});
  Write(*vm, 0);
  SplitRequest request;
  request.target = Level::k2M;
  const SplitProgress progress = RunSplit(*vm, request);
  EXPECT_EQ(progress.split_1g_count, 1);
  EXPECT_EQ(progress.split_2m_count, 0);
  EXPECT_EQ(vm->Stats().pages_2m, 512u);
  EXPECT_EQ(vm->Stats().pages_4k, 0u);
}

TEST(SplitJobTest, OnlyTheRangesAskedForAreSplit) {
  auto vm = HugeVm(16);
  SplitRequest request;
  request.ranges = {GfnRange::Of(Gfn(3 * 512), 1), GfnRange::Of(Gfn(512), 512)};
  const SplitProgress progress = RunSplit(*vm, request);
  EXPECT_EQ(progress.split_2m_count, 2);
  EXPECT_EQ(progress.total_bytes, static_cast<int64_t>(513 * kPageSize));
  for (int i = 0; i < 8; ++i) {
    EXPECT_EQ(LevelOf(vm->state(), Gfn(i * 512)),
              i == 1 || i == 3 ? Level::k4K : Level::k2M)
        << i;
  }
}

TEST(SplitJobTest, ARangeOverAHoleBetweenSlotsCoversTheSlots) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB, Level::k2M),
                    Slot(1, 8 * kMiB, 4 * kMiB, Level::k2M)});
  Write(*vm, 0);
  Write(*vm, 8 * kMiB);
  SplitRequest request;
  request.ranges = {GfnRange::Of(Gfn(0), 3 * 1024)};
  const SplitProgress progress = RunSplit(*vm, request);
  EXPECT_EQ(progress.total_bytes, static_cast<int64_t>(8 * kMiB));
  EXPECT_EQ(progress.done_bytes, progress.total_bytes);
  EXPECT_EQ(progress.split_2m_count, 2);
}

// A job with a limit of one page per second, which sleeps after its first
// chunk.
SplitRequest Slow(SplitOrder order = SplitOrder::kAscending) {
  SplitRequest request;
  request.order = order;
  request.throttle.max_pages_per_second = 1;
  return request;
}

TEST(SplitJobTest, ACancelledSplitKeepsItsWorkAndDescendsIfAskedTo) {
  for (const SplitOrder order :
       {SplitOrder::kAscending, SplitOrder::kDescending}) {
    auto vm = HugeVm(16);
    const std::shared_ptr<SplitJob> job = Job(*vm, Slow(order));
    EXPECT_EQ(job->Progress().state, State::kPending);
    std::thread runner([&] { EXPECT_TRUE(job->Run().ok()); });
    WaitUntil([&] { return job->Progress().split_2m_count == 1; });
    job->Cancel();
    runner.join();
    const SplitProgress progress = job->Progress();
    EXPECT_EQ(progress.state, State::kCancelled);
    EXPECT_EQ(progress.split_2m_count, 1);
    EXPECT_EQ(progress.done_bytes, static_cast<int64_t>(2 * kMiB));
    EXPECT_EQ(vm->Stats().pages_2m, 7u);
    EXPECT_EQ(vm->Stats().pages_4k, 512u);
    const Gfn first(order == SplitOrder::kAscending ? 0 : 7 * 512);
    EXPECT_EQ(LevelOf(vm->state(), first), Level::k4K);
    EXPECT_EQ(AuditFindings(*vm), "");
  }
}

TEST(SplitJobTest, AJobCancelledBeforeItRunsDoesNothing) {
  auto vm = HugeVm(4);
  const std::shared_ptr<SplitJob> job = Job(*vm, {});
  job->Cancel();
  EXPECT_TRUE(job->Run().ok());
  EXPECT_EQ(job->Progress().state, State::kCancelled);
  EXPECT_EQ(vm->Stats().pages_2m, 2u);
}

TEST(SplitJobTest, APausedJobWaitsAndGoesOn) {
  auto vm = HugeVm(16);
  const std::shared_ptr<SplitJob> job = Job(*vm, {});
  job->Pause();
  std::thread runner([&] { EXPECT_TRUE(job->Run().ok()); });
  WaitUntil([&] { return job->Progress().state == State::kPaused; });
  EXPECT_EQ(job->Progress().done_bytes, 0);
  EXPECT_EQ(job->Progress().eta, absl::InfiniteDuration());
  EXPECT_EQ(vm->Stats().pages_2m, 8u);
  job->Resume();
  runner.join();
  EXPECT_EQ(job->Progress().state, State::kDone);
  EXPECT_EQ(vm->Stats().pages_2m, 0u);
}

TEST(SplitJobTest, APausedJobCanBeCancelled) {
  auto vm = HugeVm(4);
  const std::shared_ptr<SplitJob> job = Job(*vm, {});
  job->Pause();
  std::thread runner([&] { EXPECT_TRUE(job->Run().ok()); });
  WaitUntil([&] { return job->Progress().state == State::kPaused; });
  job->Cancel();
  runner.join();
  EXPECT_EQ(job->Progress().state, State::kCancelled);
}

TEST(SplitJobTest, ANewThrottleEndsALongSleep) {
  auto vm = HugeVm(16);
  const std::shared_ptr<SplitJob> job = Job(*vm, Slow());
  std::thread runner([&] { EXPECT_TRUE(job->Run().ok()); });
  WaitUntil([&] { return job->Progress().split_2m_count == 1; });
  // Under the old limit the sleep would last 512 s.
  ASSERT_TRUE(SetThrottle(*job, {}).ok());
  EXPECT_EQ(job->throttle().max_pages_per_second, 0);
  runner.join();
  EXPECT_EQ(job->Progress().state, State::kDone);
  EXPECT_EQ(vm->Stats().pages_4k, 8u * 512);
}

// ChangeThrottle reads and changes the throttle in one step: a second call sees
// the result of the first.
TEST(SplitJobTest, AChangeOfTheThrottleIsOneStepWithTheLookAtIt) {
  auto vm = HugeVm(4);
  const std::shared_ptr<SplitJob> job = Job(*vm, {});
  std::atomic<bool> second_begins{false};
  std::thread second;
  const absl::Status first = job->ChangeThrottle([&](Throttle* throttle) {
    second = std::thread([&] {
      second_begins = true;
      EXPECT_TRUE(job->ChangeThrottle([](Throttle* seen) {
                       EXPECT_EQ(seen->max_pages_per_second, 7);
                       seen->min_pause = absl::Milliseconds(1);
                       return absl::OkStatus();
                     })
                      .ok());
    });
    while (!second_begins) std::this_thread::yield();
    throttle->max_pages_per_second = 7;
    return absl::OkStatus();
  });
  second.join();
  EXPECT_TRUE(first.ok());
  EXPECT_EQ(job->throttle().max_pages_per_second, 7);
  EXPECT_EQ(job->throttle().min_pause, absl::Milliseconds(1));
  // If the change, or the check of its result, fails, the throttle stays as it
  // is.
  EXPECT_EQ(job->ChangeThrottle([](Throttle* throttle) {
    throttle->max_pages_per_second = 8;
    return absl::AbortedError("no");
  }),
            absl::AbortedError("no"));
  EXPECT_FALSE(job->ChangeThrottle([](Throttle* throttle) {
                    throttle->max_pages_per_second = -1;
                    return absl::OkStatus();
                  })
                   .ok());
  EXPECT_EQ(job->throttle().max_pages_per_second, 7);
}

TEST(SplitJobTest, TheTimeLeftCountsPausesFromTheFirstOneOn) {
  auto vm = HugeVm(16);
  const std::shared_ptr<SplitJob> job = Job(*vm, Slow());
  std::thread runner([&] { EXPECT_TRUE(job->Run().ok()); });
  WaitUntil([&] { return job->Progress().done_bytes > 0; });
  // Seven chunks of 512 s are left, and the rest of the first chunk's pause.
  EXPECT_GE(job->Progress().eta, absl::Seconds(7 * 512));
  EXPECT_LT(job->Progress().eta, absl::Hours(3));
  job->Cancel();
  runner.join();
  EXPECT_EQ(job->Progress().eta, absl::ZeroDuration());
}

TEST(SplitJobTest, TheTimeLeftIsUnknownUntilEnoughIsDone) {
  auto vm = HugeVm(128);
  const std::shared_ptr<SplitJob> job = Job(*vm, Slow());
  EXPECT_EQ(job->Progress().eta, absl::InfiniteDuration());
  std::thread runner([&] { EXPECT_TRUE(job->Run().ok()); });
  // Waits for the first of 64 chunks.
  WaitUntil([&] { return job->Progress().done_bytes > 0; });
  EXPECT_EQ(job->Progress().eta, absl::InfiniteDuration());
  job->Cancel();
  runner.join();
}

TEST(SplitJobTest, AThrottleSetBeforehandCostsNoPause) {
  auto vm = HugeVm(4);
  SplitRequest request;
  const std::shared_ptr<SplitJob> job = Job(*vm, request);
  Throttle throttle;
  throttle.min_pause = absl::Milliseconds(5);
  ASSERT_TRUE(SetThrottle(*job, throttle).ok());
  ASSERT_TRUE(job->Run().ok());
  const SplitProgress progress = job->Progress();
  // A pause comes after each of the two chunks, also after the first.
  EXPECT_GE(progress.throttled[static_cast<int>(ThrottleLimit::kPause)],
            absl::Milliseconds(10));
}

TEST(SplitJobTest, EachLimitSleepsForWhatIsMissingAndBooksIt) {
  {
    auto vm = HugeVm(8);
    SplitRequest request;
    request.throttle.max_pages_per_second = 512 * 100;  // 10 ms per chunk
    const MonotonicTime begin = MonotonicTime::Now();
    const SplitProgress progress = RunSplit(*vm, request);
    EXPECT_GE(MonotonicTime::Now() - begin, absl::Milliseconds(40));
    EXPECT_GT(progress.throttled[static_cast<int>(ThrottleLimit::kRate)],
              absl::ZeroDuration());
    EXPECT_EQ(progress.throttled[static_cast<int>(ThrottleLimit::kPause)],
              absl::ZeroDuration());
    EXPECT_EQ(ThrottledTime(*vm, ThrottleLimit::kRate),
              progress.throttled[static_cast<int>(ThrottleLimit::kRate)]);
  }
  {
    auto vm = HugeVm(8);
    SplitRequest request;
    request.throttle.min_pause = absl::Milliseconds(3);
    const SplitProgress progress = RunSplit(*vm, request);
    EXPECT_GE(progress.throttled[static_cast<int>(ThrottleLimit::kPause)],
              absl::Milliseconds(12));
  }
}

TEST(SplitJobTest, ALargerChunkIsDoneInFewerSteps) {
  const StillHoldClock clock;
  const auto chunks = [](int64_t chunk_bytes) {
    auto vm = HugeVm(16);
    SplitRequest request;
    request.throttle.chunk_bytes = chunk_bytes;
    EXPECT_EQ(RunSplit(*vm, request)
                  .throttled[static_cast<int>(ThrottleLimit::kLockHold)],
              absl::ZeroDuration());
    return vm->Stats().split_chunk.count;
  };
  EXPECT_EQ(chunks(2 * kMiB), 8u);
  EXPECT_EQ(chunks(8 * kMiB), 2u);
  EXPECT_EQ(chunks(64 * kMiB), 1u);
}

TEST(SplitJobTest, ALockHoldThatIsOverAtOnceStillComesToTheEnd) {
  const LeapingHoldClock clock;
  for (const SplitOrder order :
       {SplitOrder::kAscending, SplitOrder::kDescending}) {
    auto vm = HugeVm(64);
    SplitRequest request;
    request.order = order;
    request.throttle.chunk_bytes = kGiB;
    request.throttle.max_lock_hold = absl::Microseconds(10);
    const SplitProgress progress = RunSplit(*vm, request);
    EXPECT_EQ(progress.split_2m_count, 32);
    EXPECT_EQ(progress.done_bytes, progress.total_bytes);
    EXPECT_EQ(vm->Stats().pages_4k, 32u * 512);
    // Each page has its own step.
    EXPECT_GE(vm->Stats().split_chunk.count, 32u);
    // The limit made each step but the first take the lock again.
    constexpr auto kLockHold = static_cast<int>(ThrottleLimit::kLockHold);
    EXPECT_GT(progress.throttled[kLockHold], absl::ZeroDuration());
    EXPECT_EQ(ThrottledTime(*vm, ThrottleLimit::kLockHold),
              progress.throttled[kLockHold]);
    EXPECT_EQ(AuditFindings(*vm), "");
  }
}

TEST(SplitJobTest, TheLockIsLetGoAsOftenAsAsked) {
  auto vm = HugeVm(256);
  SplitRequest request;
  request.throttle.chunk_bytes = 256 * kMiB;
  request.throttle.max_lock_hold = absl::Microseconds(10);
  const SplitProgress progress = RunSplit(*vm, request);
  EXPECT_GT(vm->Stats().split_chunk.count, 1u);
  EXPECT_GT(progress.cost.max_lock_hold, absl::ZeroDuration());
  // There is no bound on the time: the thread may be descheduled with the lock
  // held.
  EXPECT_LT(progress.cost.max_lock_hold, progress.cost.wall);
}

// Covers: TDP-63, TDP-62
TEST(SplitJobTest, WithoutMemoryForTablesTheJobEndsAndSaysWhatItSkipped) {
  auto vm = HugeVm(8);
  RcuBarrier();
  TablePool& pool = TablePool::Process();
  pool.SetMaxTables(pool.tables_out());
  const SplitProgress progress = RunSplit(*vm, {});
  pool.SetMaxTables(0);
  EXPECT_EQ(progress.state, State::kDone);
  EXPECT_EQ(progress.split_2m_count, 0);
  EXPECT_EQ(progress.skipped_by_reason[static_cast<int>(SplitFailure::kLimit)],
            4);
  EXPECT_EQ(vm->Stats().pages_2m, 4u);
  EXPECT_EQ(AuditFindings(*vm), "");
  EXPECT_EQ(RunSplit(*vm, {}).split_2m_count, 4);
}

TEST(SplitJobTest, ASplitWhileVcpusWriteLosesNothing) {
  auto vm = HugeVm(64);
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    for (uint64_t i = 0; !stop.load(); ++i) {
      const uint64_t gpa = i * 7919 % (64 * kMiB / kPageSize) * kPageSize;
      Write(*vm, gpa + 8, i);
      EXPECT_EQ(ReadValue(*vm, gpa + 8), i);
    }
  });
  SplitRequest request;
  request.throttle.min_pause = absl::Microseconds(200);
  const SplitProgress progress = RunSplit(*vm, request);
  stop.store(true);
  writer.join();
  EXPECT_EQ(progress.split_2m_count, 32);
  EXPECT_EQ(AuditFindings(*vm), "");
}

TEST(SplitJobTest, EachFieldOfAThrottleHasItsRule) {
  const Throttle good;
  EXPECT_TRUE(ValidateThrottle(good).ok());
  const Throttle most = {.chunk_bytes = kGiB,
                         .max_lock_hold = absl::Seconds(1),
                         .min_pause = absl::Seconds(10),
                         .max_vcpu_stall_ratio = 1};
  EXPECT_TRUE(ValidateThrottle(most).ok());
  const auto rejects = [&](const std::string& field, auto change) {
    Throttle throttle = good;
    change(throttle);
    const absl::Status status = ValidateThrottle(throttle);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << field;
    EXPECT_EQ(DetailOf(status).reason, Reason::kInvalidThrottle);
    EXPECT_EQ(DetailOf(status).field, field);

    auto vm = HugeVm(4);
    SplitRequest request;
    request.throttle = throttle;
    EXPECT_EQ(DetailOf(SplitJob::Create(vm->state(), request).status()).field,
              field);
    const std::shared_ptr<SplitJob> job = Job(*vm, {});
    EXPECT_EQ(DetailOf(SetThrottle(*job, throttle)).field, field);
    EXPECT_EQ(job->throttle().chunk_bytes, good.chunk_bytes);
  };
  rejects("max_pages_per_second",
          [](Throttle& t) { t.max_pages_per_second = -1; });
  rejects("chunk_bytes", [](Throttle& t) { t.chunk_bytes = 0; });
  rejects("chunk_bytes", [](Throttle& t) { t.chunk_bytes = -(2 << 20); });
  rejects("chunk_bytes", [](Throttle& t) { t.chunk_bytes = 3 << 20; });
  rejects("chunk_bytes",
          [](Throttle& t) { t.chunk_bytes = kGiB + (int64_t{2} << 20); });
  rejects("max_lock_hold",
          [](Throttle& t) { t.max_lock_hold = absl::ZeroDuration(); });
  rejects("max_lock_hold",
          [](Throttle& t) { t.max_lock_hold = absl::Nanoseconds(9'999); });
  rejects("max_lock_hold", [](Throttle& t) {
    t.max_lock_hold = absl::Seconds(1) + absl::Nanoseconds(1);
  });
  rejects("min_pause", [](Throttle& t) { t.min_pause = -absl::Seconds(1); });
  rejects("min_pause", [](Throttle& t) {
    t.min_pause = absl::Seconds(10) + absl::Nanoseconds(1);
  });
  rejects("max_flushes_per_second",
          [](Throttle& t) { t.max_flushes_per_second = -1; });
  rejects("max_vcpu_stall_ratio",
          [](Throttle& t) { t.max_vcpu_stall_ratio = 1.01; });
  rejects("max_vcpu_stall_ratio",
          [](Throttle& t) { t.max_vcpu_stall_ratio = -0.01; });
  rejects("max_vcpu_stall_ratio", [](Throttle& t) {
    t.max_vcpu_stall_ratio = std::numeric_limits<double>::quiet_NaN();
  });
}

TEST(SplitJobTest, BadRangesAndTargetsAreRefused) {
  auto vm = HugeVm(4);
  const auto detail = [&](const SplitRequest& request) {
    const absl::Status status = SplitJob::Create(vm->state(), request).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return DetailOf(status);
  };
  for (const Level target : {Level::k1G, Level::k512G}) {
    SplitRequest request;
    request.target = target;
    EXPECT_EQ(detail(request).reason, Reason::kInvalidPageSize);
    EXPECT_EQ(detail(request).field, "target");
  }
  const std::vector<std::vector<GfnRange>> bad = {
      {GfnRange::Of(Gfn(5), 0)},                            // empty
      {GfnRange{Gfn(5), Gfn(4)}},                           // backwards
      {GfnRange::Of(Gfn(1024), 10)},                        // in no slot
      {GfnRange::Of(Gfn(9), 2), GfnRange::Of(Gfn(0), 10)},  // overlap
      {GfnRange::Of(Gfn(9), 2), GfnRange::Of(Gfn(9), 2)},   // twice
  };
  for (const std::vector<GfnRange>& ranges : bad) {
    SplitRequest request;
    request.ranges = ranges;
    EXPECT_EQ(detail(request).reason, Reason::kInvalidRange);
    EXPECT_EQ(detail(request).field, "ranges");
  }
  EXPECT_EQ(vm->Stats().pages_2m, 2u);
}

}  // namespace
}  // namespace mmu
