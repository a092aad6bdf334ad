// Dirty pages are never lost: not with a broken stream, a dead client, two
// clients, nor while the guest writes.

#include <signal.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "tests/integration/daemon.h"
#include "tests/integration/guest.h"

namespace mmud::integration {
namespace {

constexpr int64_t kPages = 16384;

PageSet EverySecondPage() {
  PageSet pages;
  for (int64_t i = 0; i < kPages; i += 2) pages.insert(i);
  return pages;
}

// A guest of 64 MiB that has written every second page: many small chunks.
Guest StripedGuest(const Daemon& daemon) {
  Guest guest(daemon.client(), "alpha", {MakeSlot(kPages * kPage)});
  guest.StartDirtyLog();
  guest.WritePages(kPages, 2);
  return guest;
}

v1::GetDirtyLogRequest SmallChunks(int64_t epoch = 0) {
  v1::GetDirtyLogRequest request;
  request.set_mode(v1::GET_DIRTY_LOG_MODE_SEAL);
  request.set_epoch(epoch);
  request.set_encoding(v1::DIRTY_LOG_ENCODING_EXTENTS);
  request.set_max_message_bytes(4096);
  return request;
}

TEST(HarvestTest, StreamHasEveryWrittenPageOnceAndNoOther) {
  Daemon daemon;
  const Guest guest = StripedGuest(daemon);
  const Harvest harvest = guest.Read(SmallChunks());
  EXPECT_TRUE(harvest.status.ok());
  EXPECT_TRUE(harvest.complete);
  EXPECT_GT(harvest.chunks, 20);
  EXPECT_EQ(harvest.dirty_page_count, kPages / 2);
  EXPECT_EQ(harvest.pages, EverySecondPage());
}

TEST(HarvestTest, PeekChangesNothing) {
  Daemon daemon;
  const Guest guest = StripedGuest(daemon);
  v1::GetDirtyLogRequest peek;
  peek.set_mode(v1::GET_DIRTY_LOG_MODE_PEEK);
  const Harvest first = guest.Read(peek);
  const Harvest second = guest.Read(peek);
  EXPECT_EQ(first.pages, EverySecondPage());
  EXPECT_EQ(second.pages, first.pages);
  EXPECT_EQ(second.epoch, 1);
  EXPECT_EQ(guest.Get().memslots(0).dirty_log().sealed_epoch(), 0);
}

TEST(HarvestTest, BrokenStreamGoesOnWhereItBroke) {
  Daemon daemon;
  const Guest guest = StripedGuest(daemon);
  int messages = 0;
  const Harvest broken =
      guest.Read(SmallChunks(), [&] { return ++messages < 5; });
  EXPECT_EQ(broken.status.error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_FALSE(broken.complete);
  ASSERT_LT(broken.pages.size(), static_cast<size_t>(kPages / 2));

  // Another connection, which knows epoch and offset. Chunks begin on any
  // page; the resume offset on a multiple of 64, at or before it.
  const TestClient client(daemon.address());
  const Guest same(client, guest.name());
  v1::GetDirtyLogRequest request = SmallChunks(broken.epoch);
  request.set_start_gpa_bytes(broken.resume_gpa_bytes / (64 * kPage) *
                              (64 * kPage));
  const Harvest rest = same.Read(request);
  EXPECT_TRUE(rest.complete) << rest.status.error_message();
  EXPECT_GE(*rest.pages.begin() * kPage, request.start_gpa_bytes());
  PageSet all = broken.pages;
  all.insert(rest.pages.begin(), rest.pages.end());
  EXPECT_EQ(all, EverySecondPage());
  EXPECT_EQ(same.Get().memslots(0).dirty_log().open_epoch(), 2);
}

TEST(HarvestTest, NextSealTakesInWhatABrokenStreamLeft) {
  Daemon daemon;
  const Guest guest = StripedGuest(daemon);
  guest.Read(SmallChunks(), [] { return false; });
  guest.WritePages(2);  // page 1 is new
  const Harvest next = guest.Seal();
  EXPECT_EQ(next.epoch, 2);
  EXPECT_EQ(next.merged_page_count, kPages / 2);
  PageSet expected = EverySecondPage();
  expected.insert(1);
  EXPECT_EQ(next.pages, expected);
}

TEST(HarvestTest, ClientKilledInMidStreamLosesNothing) {
  Daemon daemon;
  const Guest guest = StripedGuest(daemon);
  {
    ChildProcess client(
        {"tests/integration/stuck_harvester", daemon.address(), guest.name()},
        daemon.directory().File("harvester"));
    ASSERT_TRUE(Eventually([&] { return client.Out() == "reading\n"; }));
    client.Signal(SIGKILL);
    EXPECT_EQ(client.Wait(absl::Seconds(10)), -SIGKILL);
  }
  EXPECT_EQ(guest.Get().memslots(0).dirty_log().unacked_page_count(),
            kPages / 2);
  const Harvest harvest = guest.Seal();
  EXPECT_TRUE(harvest.complete);
  EXPECT_EQ(harvest.pages, EverySecondPage());
  EXPECT_TRUE(guest.Clear(harvest.epoch, harvest.pages).status.ok());
  EXPECT_TRUE(guest.Seal().pages.empty());
}

TEST(HarvestTest, OnlyPagesThatWereClearedLeaveTheLog) {
  Daemon daemon;
  const Guest guest = StripedGuest(daemon);
  const Harvest first = guest.Seal();
  PageSet half, rest;
  for (const int64_t page : first.pages) {
    (page < kPages / 2 ? half : rest).insert(page);
  }
  const auto cleared = guest.Clear(first.epoch, half);
  EXPECT_EQ(cleared.response.cleared_page_count(), kPages / 4);
  EXPECT_EQ(cleared.response.unacked_page_count(), kPages / 4);
  // The same once more changes nothing.
  const auto again = guest.Clear(first.epoch, half);
  EXPECT_EQ(again.response.cleared_page_count(), 0);
  EXPECT_EQ(again.response.already_clean_page_count(), kPages / 4);
  EXPECT_EQ(guest.Read(SmallChunks(first.epoch)).pages, rest);
  // A page that is written after its clear is dirty in the next epoch.
  guest.WritePages(1);
  PageSet expected = rest;
  expected.insert(0);
  EXPECT_EQ(guest.Seal().pages, expected);
}

TEST(HarvestTest, TwoClientsTogetherSeeEveryWrite) {
  Daemon daemon;
  const Guest guest(daemon.client(), "alpha", {MakeSlot(kPages * kPage)}, 2);
  guest.StartDirtyLog();
  std::atomic<bool> written{false};
  std::vector<PageSet> cleared(2);
  std::vector<std::thread> clients;
  std::atomic<int> rounds{0};
  for (PageSet& mine : cleared) {
    clients.emplace_back([&] {
      const TestClient client(daemon.address());
      const Guest same(client, guest.name());
      bool last = false;
      while (!last) {
        last = written.load();
        const Harvest harvest = same.Seal();
        // The other one may seal at any time; what is refused stays dirty.
        if (!harvest.complete) {
          EXPECT_EQ(ReasonOf(harvest.status), "EPOCH_SUPERSEDED");
          last = false;
          continue;
        }
        const auto result = same.Clear(harvest.epoch, harvest.pages);
        if (!result.status.ok()) {
          EXPECT_EQ(ReasonOf(result.status), "EPOCH_MISMATCH");
          last = false;
          continue;
        }
        mine.insert(harvest.pages.begin(), harvest.pages.end());
        ++rounds;
      }
    });
  }
  for (int64_t i = 1; i <= 16; ++i) guest.WritePages(kPages / 16 * i);
  written = true;
  for (std::thread& client : clients) client.join();
  PageSet all = cleared[0];
  all.insert(cleared[1].begin(), cleared[1].end());
  const Harvest rest = guest.Seal();
  all.insert(rest.pages.begin(), rest.pages.end());
  EXPECT_EQ(static_cast<int64_t>(all.size()), kPages);
  EXPECT_GE(rounds.load(), 2);
  EXPECT_EQ(guest.Audit(), "");
}

TEST(HarvestTest, CopyMadeInTheOrderSealClearCopyEqualsTheGuest) {
  Daemon daemon;
  constexpr int64_t kSize = 32 * kMiB;
  const Guest guest(
      daemon.client(), "alpha",
      {MakeSlot(kSize, v1::MEMORY_BACKING_MEMFD, v1::PAGE_SIZE_2M)}, 2);
  guest.StartDirtyLog();
  guest.ExpectThatAMigrationCopiesAll(kSize);
}

TEST(HarvestTest, ARepeatedSealSaysHowManyPagesFollow) {
  Daemon daemon;
  const Guest guest(daemon.client(), "alpha", {MakeSlot(kMiB)});
  guest.StartDirtyLog();
  guest.WritePages(256);
  v1::GetDirtyLogRequest request;
  request.set_mode(v1::GET_DIRTY_LOG_MODE_SEAL);
  request.set_request_id("3f0d7c52-7f41-4b7e-8d35-6a0c9d1e2f3b");
  const Harvest first = guest.Read(request);
  EXPECT_EQ(first.dirty_page_count, 256);
  PageSet half;
  for (int64_t page = 0; page < 128; ++page) half.insert(page);
  ASSERT_TRUE(guest.Clear(first.epoch, half).status.ok());
  const Harvest again = guest.Read(request);
  EXPECT_TRUE(again.complete) << again.status.error_message();
  EXPECT_EQ(again.epoch, first.epoch);
  EXPECT_EQ(again.pages.size(), 128u);
  EXPECT_EQ(again.dirty_page_count, 128);
  EXPECT_EQ(again.merged_page_count, 0);
  // Sealed by somebody else meanwhile: that epoch is no more.
  guest.Seal();
  EXPECT_EQ(ReasonOf(guest.Read(request).status), "EPOCH_SUPERSEDED");
}

// A slot of 100 pages ends in the middle of 64.
TEST(HarvestTest, AStreamThatBrokeAtTheSlotsEndIsResumedThere) {
  Daemon daemon;
  const Guest guest(daemon.client(), "alpha", {MakeSlot(100 * kPage)});
  guest.StartDirtyLog();
  guest.WritePages(100);
  v1::GetDirtyLogRequest request;
  request.set_mode(v1::GET_DIRTY_LOG_MODE_SEAL);
  request.set_epoch(guest.Seal().epoch);
  request.set_start_gpa_bytes(100 * kPage);
  const Harvest rest = guest.Read(request);
  EXPECT_TRUE(rest.complete) << rest.status.error_message();
  EXPECT_TRUE(rest.pages.empty());
  request.set_start_gpa_bytes(99 * kPage);
  EXPECT_EQ(ReasonOf(guest.Read(request).status), "INVALID_RESUME_OFFSET");
}

TEST(HarvestTest, EachSlotSaysWithWhichSettingsItLogs) {
  Daemon daemon;
  v1::Memslot second = MakeSlot(kMiB);
  second.set_slot(1);
  second.set_gpa_bytes(kMiB);
  const Guest guest(daemon.client(), "alpha", {MakeSlot(kMiB), second});
  v1::StartDirtyLogRequest request;
  request.set_vm(guest.name());
  request.add_slots(0);
  const auto start = [&] {
    return daemon.client()
        .Must(&v1::DirtyLogService::Stub::StartDirtyLog, request)
        .dirty_log();
  };
  EXPECT_EQ(start().split(), v1::DIRTY_LOG_SPLIT_EAGER);
  request.set_slots(0, 1);
  request.set_initially_set(true);
  const v1::DirtyLog both = start();
  EXPECT_FALSE(both.initially_set()) << "not of all";
  EXPECT_EQ(both.split(), v1::DIRTY_LOG_SPLIT_UNSPECIFIED);
  ASSERT_EQ(both.slots_size(), 2);
  EXPECT_FALSE(both.slots(0).initially_set());
  EXPECT_EQ(both.slots(0).split(), v1::DIRTY_LOG_SPLIT_EAGER);
  EXPECT_TRUE(both.slots(1).initially_set());
  EXPECT_EQ(both.slots(1).split(), v1::DIRTY_LOG_SPLIT_ON_CLEAR);
}

TEST(HarvestTest, ReadOnlySlotsAloneAreNothingToLog) {
  Daemon daemon;
  v1::Memslot rom = MakeSlot(kMiB);
  rom.set_readonly(true);
  const Guest guest(daemon.client(), "alpha", {rom});
  v1::StartDirtyLogRequest request;
  request.set_vm(guest.name());
  EXPECT_EQ(
      ReasonOf(daemon.client()
                   .Call(&v1::DirtyLogService::Stub::StartDirtyLog, request)
                   .status),
      "MEMSLOT_NOT_FOUND");
  EXPECT_EQ(guest.Get().memslots(0).dirty_log().state(),
            v1::DIRTY_LOG_STATE_OFF);
}

TEST(HarvestTest, LogThatNobodyHarvestsStopsItself) {
  Daemon daemon;
  const Guest guest(daemon.client(), "alpha", {MakeSlot(kMiB)});
  v1::StartDirtyLogRequest request;
  request.set_vm(guest.name());
  request.mutable_ttl()->set_seconds(1);
  const auto started =
      daemon.client().Must(&v1::DirtyLogService::Stub::StartDirtyLog, request);
  EXPECT_EQ(started.dirty_log().ttl().seconds(), 1);
  EXPECT_TRUE(Eventually([&] {
    return guest.Get().memslots(0).dirty_log().state() ==
           v1::DIRTY_LOG_STATE_OFF;
  }));
}

}  // namespace
}  // namespace mmud::integration
