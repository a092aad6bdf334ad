// Contention for mmu_lock, provoked and then read from /metrics alone: who held
// the lock, who waited, who yielded, and how much time the vCPUs lost.

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/integration/daemon.h"
#include "tests/integration/guest.h"
#include "tests/integration/metrics_text.h"

namespace mmud::integration {
namespace {

constexpr int64_t kGuestGiB = 64;

Metrics Scrape(const Daemon& daemon) {
  absl::StatusOr<Metrics> metrics = ParseMetrics(daemon.MetricsText());
  EXPECT_TRUE(metrics.ok()) << metrics.status();
  return metrics.value_or(Metrics());
}

// A slot that is mapped by 1 GiB pages, without contents.
v1::Memslot HugeSlot() {
  return MakeSlot(kGuestGiB * kGiB, v1::MEMORY_BACKING_METADATA_ONLY,
                  v1::PAGE_SIZE_1G);
}

std::string Series(const std::string& name, const std::string& op,
                   const std::string& mode) {
  return absl::StrCat("mmud_mmu_lock_", name, "{mode=\"", mode, "\",op=\"", op,
                      "\"}");
}

v1::Memslot SmallPagesBehind(int64_t size_bytes) {
  v1::Memslot slot =
      MakeSlot(size_bytes, v1::MEMORY_BACKING_METADATA_ONLY, v1::PAGE_SIZE_4K);
  slot.set_slot(1);
  slot.set_gpa_bytes(kGuestGiB * kGiB);
  return slot;
}

// One clear splits and protects 64 GiB under mmu_lock in write mode. Meanwhile
// two vCPUs touch memory for the first time, and need the lock in read mode for
// each page.
TEST(ContentionTest, MetricsTellWhoHeldWhoWaitedAndWhatItCostTheGuest) {
  Daemon daemon;
  const TestClient& client = daemon.client();
  constexpr int64_t kNewBytes = 64 * kGiB;
  const Guest guest(client, "contended",
                    {HugeSlot(), SmallPagesBehind(kNewBytes)}, 2);
  guest.ReadWords(kGuestGiB * kGiB, kGiB);
  v1::StartDirtyLogRequest log;
  log.add_slots(0);
  log.set_initially_set(true);
  log.set_split(v1::DIRTY_LOG_SPLIT_ON_CLEAR);
  guest.StartDirtyLog(log);
  const int64_t epoch = guest.Seal().epoch;

  lab::v1::Workload writes;
  writes.mutable_pattern()->mutable_sequential();
  writes.mutable_pattern()->set_write_fraction(1);
  writes.mutable_pattern()->mutable_extent()->set_gpa_bytes(kGuestGiB * kGiB);
  writes.mutable_pattern()->mutable_extent()->set_size_bytes(kNewBytes);
  const Metrics before = Scrape(daemon);
  guest.Start(writes);
  ASSERT_TRUE(Eventually(
      [&] { return guest.Get().mapped_pages().pages_4k_count() > 1000; }));
  v1::ClearDirtyLogRequest clear;
  clear.set_vm(guest.name());
  clear.set_owner_token(kOwnerToken);
  clear.set_epoch(epoch);
  v1::SlotPages* pages = clear.mutable_pages();
  pages->set_size_bytes(kGuestGiB * kGiB);
  pages->mutable_extents()->add_extents()->set_size_bytes(kGuestGiB * kGiB);
  const auto cleared =
      client.Must(&v1::DirtyLogService::Stub::ClearDirtyLog, clear);
  EXPECT_EQ(cleared.splits().split_1g_count(), kGuestGiB);
  const Metrics after = Scrape(daemon);
  guest.StopWorkload();
  const auto increase = [&](const std::string& series) {
    return after.Value(series) - before.Value(series);
  };

  // The clear held the lock, far longer at a time than a fault.
  const auto mean_hold = [&](const std::string& op, const std::string& mode) {
    const double count = increase(Series("hold_seconds_count", op, mode));
    EXPECT_GT(count, 0) << op;
    return increase(Series("hold_seconds_sum", op, mode)) / count;
  };
  EXPECT_GT(mean_hold("clear", "write"), 4 * mean_hold("fault", "read"));
  // The clear yielded many times, so that no hold was very long.
  EXPECT_GT(increase(Series("yields_total", "clear", "write")), 100);
  // The faults waited. Each contention has a recorded wait.
  EXPECT_GT(increase(Series("contended_total", "fault", "read")), 0);
  EXPECT_EQ(increase(Series("wait_seconds_count", "fault", "read")),
            increase(Series("contended_total", "fault", "read")));
  EXPECT_GT(increase(Series("wait_seconds_sum", "fault", "read")), 0);
  // The guest lost time by the waits.
  EXPECT_GT(increase("mmud_vcpu_stall_seconds_total{cause=\"lock\"}"), 0);
  EXPECT_EQ(guest.Audit(), "");
}

// The fraction of the split's lock holds that were not longer than `bound`.
double ShareWithin(const Metrics& before, const Metrics& after,
                   const std::string& bound) {
  const std::string bucket =
      absl::StrCat("mmud_mmu_lock_hold_seconds_bucket{le=\"", bound,
                   "\",mode=\"read\",op=\"split\"}");
  const std::string all = Series("hold_seconds_count", "split", "read");
  return (after.Value(bucket) - before.Value(bucket)) /
         (after.Value(all) - before.Value(all));
}

// With the default throttle 99.9 % of the holds are within max_lock_hold, 200
// us. The test uses the next larger bucket, 256 us. On a busy machine a thread
// can be preempted while it holds the lock, so one quiet attempt in five is
// enough.
TEST(ContentionTest, ThrottledSplitHoldsTheLockNoLongerThanItSays) {
  Daemon daemon;
  double best = 0;
  for (int attempt = 0; attempt < 5 && best < 0.999; ++attempt) {
    const Guest guest(daemon.client(), absl::StrCat("paced-", attempt),
                      {HugeSlot()});
    guest.ReadWords(kGuestGiB * kGiB, kGiB);
    guest.StartRandomWrites(1);
    const Metrics before = Scrape(daemon);
    daemon.client().WaitDone(guest.StartSplit({}));
    const Metrics after = Scrape(daemon);
    guest.StopWorkload();
    // The split works in chunks of 2 MiB: 32 Ki chunks, each with a hold of its
    // own.
    const std::string all = Series("hold_seconds_count", "split", "read");
    EXPECT_GE(after.Value(all) - before.Value(all), kGuestGiB * 512);
    best = std::max(best, ShareWithin(before, after, "0.000256"));
  }
  EXPECT_GE(best, 0.999);
}

}  // namespace
}  // namespace mmud::integration
