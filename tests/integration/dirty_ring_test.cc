// Dirty logging into rings, through the daemon.

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "mmud/v1/dirty_log_service.grpc.pb.h"
#include "mmud/v1/vm_service.grpc.pb.h"
#include "tests/integration/daemon.h"
#include "tests/integration/guest.h"
#include "tests/integration/metrics_text.h"
#include "tests/integration/test_client.h"

namespace mmud::integration {
namespace {

constexpr int kEntries = 256;
constexpr int64_t kSize = 16 * kMiB;  // many times the capacity of the rings

Metrics Scrape(const Daemon& daemon) {
  absl::StatusOr<Metrics> metrics = ParseMetrics(daemon.MetricsText());
  EXPECT_TRUE(metrics.ok()) << metrics.status();
  return metrics.value_or(Metrics());
}

// A guest on the MMU that `mmu`, a field of Vm in text form, chooses.
Guest RingGuest(const Daemon& daemon, int vcpus,
                const std::string& mmu = "tdp {}") {
  const RawResult made = daemon.client().CallText(
      "mmud.v1.VmService/CreateVm",
      absl::StrCat("vm_id: 'alpha' vm { ", mmu, " vcpu_count: ", vcpus,
                   " dirty_ring_entries: ", kEntries,
                   " memslots { size_bytes: ", kSize,
                   " backing: MEMORY_BACKING_MEMFD "
                   "host_page_size: PAGE_SIZE_2M } }"));
  EXPECT_TRUE(made.status.ok()) << made.status.error_message();
  const Guest guest(daemon.client(), "vms/alpha");
  EXPECT_EQ(guest.Get().dirty_ring_entries(), kEntries);
  return guest;
}

struct Mmu {
  const char* name;
  const char* field;      // of Vm, in text form
  int64_t granule_pages;  // that one write makes dirty
};

class DirtyRingMmuTest : public ::testing::TestWithParam<Mmu> {
 protected:
  Guest MakeGuest(int vcpus) const {
    return RingGuest(daemon_, vcpus, GetParam().field);
  }

  const Daemon daemon_;
};

INSTANTIATE_TEST_SUITE_P(
    Mmus, DirtyRingMmuTest,
    ::testing::Values(Mmu{"Tdp", "tdp {}", 1},
                      Mmu{"Stage2Granule4K", "stage2 {}", 1},
                      Mmu{"Stage2Granule64K", "stage2 { granule_bytes: 65536 }",
                          16}),
    [](const auto& row) { return std::string(row.param.name); });

TEST_P(DirtyRingMmuTest, AMigrationWithRingsCopiesEveryPage) {
  const Guest guest = MakeGuest(/*vcpus=*/2);
  EXPECT_EQ(guest.StartDirtyLog().dirty_log().mode(), v1::DIRTY_LOG_MODE_RING);
  std::string copy(static_cast<size_t>(kSize), '\0');
  guest.StartRandomWrites(7);
  // A vCPU whose ring is full waits until a round resets the ring.
  const auto full_exits = [&] {
    return Scrape(daemon_).Value("mmud_dirty_ring_full_exits_total");
  };
  ASSERT_TRUE(Eventually([&] { return full_exits() >= 2; }));
  const auto round = [&] {
    const Harvest harvest = guest.Seal();
    EXPECT_TRUE(harvest.complete) << harvest.status.error_message();
    EXPECT_TRUE(guest.Clear(harvest.epoch, harvest.pages).status.ok());
    guest.Copy(harvest.pages, &copy);
    return static_cast<int64_t>(harvest.pages.size());
  };
  for (int i = 0; i < 8; ++i) EXPECT_LE(round(), 2 * kEntries);
  ASSERT_TRUE(Eventually([&] { return full_exits() >= 4; }));
  guest.PauseVcpus();
  round();
  EXPECT_EQ(round(), 0);
  const std::string memory = guest.ReadAll(kSize);
  EXPECT_TRUE(memory == copy);
  EXPECT_NE(memory.find_first_not_of('\0'), std::string::npos);
  EXPECT_EQ(guest.Audit(), "");
}

TEST_P(DirtyRingMmuTest, WhatADeadClientSealedComesAgain) {
  const Guest guest = MakeGuest(/*vcpus=*/1);
  guest.StartDirtyLog();
  guest.WritePages(100);
  // Each of the granules is dirty as a whole.
  const int64_t granule = GetParam().granule_pages;
  const int64_t dirty = (100 + granule - 1) / granule * granule;
  v1::SealDirtyLogRequest seal;
  seal.set_vm(guest.name());
  seal.set_owner_token(kOwnerToken);
  daemon_.client().Must(&v1::DirtyLogService::Stub::SealDirtyLog, seal);
  EXPECT_EQ(Scrape(daemon_).Value("mmud_dirty_ring_used_entries"), dirty);
  const Harvest again = guest.Seal();
  EXPECT_EQ(again.merged_page_count, dirty);
  EXPECT_EQ(again.pages.size(), static_cast<size_t>(dirty));
  EXPECT_TRUE(guest.Clear(again.epoch, again.pages).status.ok());
  EXPECT_EQ(Scrape(daemon_).Value("mmud_dirty_ring_used_entries"), 0);
  EXPECT_TRUE(guest.Seal().pages.empty());
}

TEST_P(DirtyRingMmuTest, AVcpuThatWaitsForRoomIsSeenWhileItWaits) {
  const Guest guest = MakeGuest(/*vcpus=*/2);
  guest.StartDirtyLog();
  EXPECT_EQ(Scrape(daemon_).Value("mmud_vcpus_waiting{cause=\"ring_full\"}"),
            0);
  guest.StartRandomWrites(7);
  // No owner harvests, so both vCPUs wait until this test ends.
  ASSERT_TRUE(Eventually([&] {
    return Scrape(daemon_).Value("mmud_vcpus_waiting{cause=\"ring_full\"}") ==
           2;
  }));
  EXPECT_EQ(guest.Get().vcpu_state(), v1::VCPU_STATE_RING_FULL);
  const std::string total =
      "mmud_vcpu_stall_seconds_total{cause=\"ring_full\"}";
  const std::string of_vm =
      "mmud_vm_vcpu_stall_seconds_total{cause=\"ring_full\",vm=\"vms/alpha\"}";
  const Metrics before = Scrape(daemon_);
  EXPECT_GT(before.Value(total), 0);
  EXPECT_GT(before.Value(of_vm), 0);
  const Metrics after = Scrape(daemon_);
  EXPECT_GT(after.Value(total), before.Value(total));
  EXPECT_GT(after.Value(of_vm), before.Value(of_vm));

  v1::GetDirtyRateRequest request;
  request.set_vm(guest.name());
  request.add_windows()->set_nanos(100'000'000);
  request.set_per_vcpu(true);
  v1::DirtyRate rate;
  ASSERT_TRUE(Eventually([&] {
    const auto result = daemon_.client().Call(
        &v1::DirtyLogService::Stub::GetDirtyRate, request);
    if (result.status.ok()) rate = result.response.rates(0);
    return result.status.ok() && rate.unique_pages_per_second() == 0;
  }));
  EXPECT_GT(rate.ring_full_ratio(), 0) << "0 pages/s are no calm guest";
  ASSERT_EQ(rate.vcpus_size(), 2);
  EXPECT_GT(rate.vcpus(0).ring_full_ratio(), 0);

  guest.StopWorkload();
  EXPECT_EQ(guest.Get().vcpu_state(), v1::VCPU_STATE_IDLE);
}

TEST_P(DirtyRingMmuTest, AFullRingEndsWithTheLog) {
  const Guest guest = MakeGuest(/*vcpus=*/1);
  guest.StartDirtyLog();
  guest.StartRandomWrites(7);
  ASSERT_TRUE(Eventually([&] {
    return Scrape(daemon_).Value("mmud_dirty_ring_full_exits_total") > 0;
  }));
  // The vCPU waits, so it causes no faults until the log is stopped.
  const double faults = Scrape(daemon_).Sum("mmud_page_faults_total");
  v1::StopDirtyLogRequest stop;
  stop.set_vm(guest.name());
  stop.set_owner_token(kOwnerToken);
  stop.set_discard_undelivered(true);
  daemon_.client().Must(&v1::DirtyLogService::Stub::StopDirtyLog, stop);
  EXPECT_TRUE(Eventually([&] {
    return Scrape(daemon_).Sum("mmud_page_faults_total") > faults;
  })) << "the guest goes on";
  guest.StopWorkload();
}

TEST(DirtyRingTest, ModeAndSizeMustFitTheVm) {
  Daemon daemon;
  const Guest ring = RingGuest(daemon, /*vcpus=*/1);
  const Guest bitmap(daemon.client(), "beta", {MakeSlot(kMiB)});
  const auto start = [&](const Guest& guest, v1::DirtyLogMode mode) {
    v1::StartDirtyLogRequest request;
    request.set_vm(guest.name());
    request.set_owner(kOwner);
    request.set_owner_token(kOwnerToken);
    request.set_mode(mode);
    return ReasonOf(
        daemon.client()
            .Call(&v1::DirtyLogService::Stub::StartDirtyLog, request)
            .status);
  };
  EXPECT_EQ(start(ring, v1::DIRTY_LOG_MODE_BITMAP), "INVALID_DIRTY_LOG_MODE");
  EXPECT_EQ(start(bitmap, v1::DIRTY_LOG_MODE_RING), "INVALID_DIRTY_LOG_MODE");
  EXPECT_EQ(start(ring, v1::DIRTY_LOG_MODE_RING), "");
  EXPECT_EQ(start(bitmap, v1::DIRTY_LOG_MODE_BITMAP), "");
  for (const int entries : {-1, 100, 128, 1 << 17}) {
    v1::CreateVmRequest request;
    request.set_vm_id("gamma");
    request.mutable_vm()->mutable_tdp();
    request.mutable_vm()->set_dirty_ring_entries(entries);
    EXPECT_EQ(ReasonOf(daemon.client()
                           .Call(&v1::VmService::Stub::CreateVm, request)
                           .status),
              "INVALID_MMU_OPTION")
        << entries;
  }
}

}  // namespace
}  // namespace mmud::integration
