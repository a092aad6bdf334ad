// No dirty page is lost: not by a broken stream, a dead client, another client
// without the token, or writes during a harvest.

#include <signal.h>

#include <atomic>
#include <string>
#include <thread>

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

// A guest of 64 MiB that has written every second page, so its log has many
// small chunks.
Guest StripedGuest(const Daemon& daemon) {
  Guest guest(daemon.client(), "alpha", {MakeSlot(kPages * kPage)});
  guest.StartDirtyLog();
  guest.WritePages(kPages, 2);
  return guest;
}

// A request to read the sealed epoch of `harvest` again, in small chunks.
v1::ReadDirtyPagesRequest SmallChunks(const Harvest& harvest) {
  v1::ReadDirtyPagesRequest request;
  request.set_log_id(harvest.log_id);
  request.set_epoch(harvest.epoch);
  request.set_encoding(v1::DIRTY_LOG_ENCODING_EXTENTS);
  request.set_max_message_bytes(4096);
  return request;
}

TEST(HarvestTest, StreamHasEveryWrittenPageOnceAndNoOther) {
  Daemon daemon;
  const Guest guest = StripedGuest(daemon);
  const Harvest sealed = guest.Seal();
  EXPECT_EQ(sealed.fresh_page_count, kPages / 2);
  const Harvest harvest = guest.Read(SmallChunks(sealed));
  EXPECT_TRUE(harvest.status.ok());
  EXPECT_TRUE(harvest.complete);
  EXPECT_GT(harvest.chunks, 20);
  EXPECT_EQ(harvest.pages, EverySecondPage());
}

TEST(HarvestTest, PeekChangesNothingAndHasAllThatIsNotAcknowledged) {
  Daemon daemon;
  const Guest guest = StripedGuest(daemon);
  const Harvest first = guest.Peek();
  EXPECT_EQ(first.pages, EverySecondPage());
  EXPECT_EQ(guest.GetDirtyLog().sealed_epoch(), 0);
  const Harvest sealed = guest.Seal();
  EXPECT_EQ(guest.Peek().pages, first.pages);
  ASSERT_TRUE(guest.Clear(sealed.epoch, sealed.pages).status.ok());
  EXPECT_EQ(guest.Peek().pages, first.pages) << "in flight";
  ASSERT_TRUE(guest.Acknowledge(sealed.epoch).status.ok());
  EXPECT_TRUE(guest.Peek().pages.empty());
}

TEST(HarvestTest, BrokenStreamGoesOnWhereItBroke) {
  Daemon daemon;
  const Guest guest = StripedGuest(daemon);
  const Harvest sealed = guest.Seal();
  int messages = 0;
  const Harvest broken =
      guest.Read(SmallChunks(sealed), [&] { return ++messages < 5; });
  EXPECT_EQ(broken.status.error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_FALSE(broken.complete);
  ASSERT_LT(broken.pages.size(), static_cast<size_t>(kPages / 2));

  // The second connection knows the log's id, the epoch and the position.
  const TestClient client(daemon.address());
  const Guest same(client, guest.name());
  v1::ReadDirtyPagesRequest request = SmallChunks(sealed);
  *request.mutable_start() = broken.next;
  const Harvest rest = same.Read(request);
  EXPECT_TRUE(rest.complete) << rest.status.error_message();
  EXPECT_GE(*rest.pages.begin() * kPage, broken.next.gpa_bytes());
  PageSet all = broken.pages;
  all.insert(rest.pages.begin(), rest.pages.end());
  EXPECT_EQ(all, EverySecondPage());
  EXPECT_EQ(same.GetDirtyLog().open_epoch(), 2);
}

TEST(HarvestTest, NextSealTakesInWhatWasNotCleared) {
  Daemon daemon;
  const Guest guest = StripedGuest(daemon);
  guest.Read(SmallChunks(guest.Seal()), [] { return false; });
  guest.WritePages(2);  // page 1 is new
  const Harvest next = guest.Seal();
  EXPECT_EQ(next.epoch, 2);
  EXPECT_EQ(next.fresh_page_count, 1);
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
  EXPECT_EQ(guest.GetDirtyLog().slots(0).sealed_page_count(), kPages / 2);
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
  EXPECT_EQ(cleared.response.still_sealed_page_count(), kPages / 4);
  // Repeating the same clear changes nothing.
  const auto again = guest.Clear(first.epoch, half);
  EXPECT_EQ(again.response.cleared_page_count(), 0);
  EXPECT_EQ(again.response.already_in_flight_page_count(), kPages / 4);
  EXPECT_EQ(guest.Read(SmallChunks(first)).pages, rest);
  // A page that is written after its clear is dirty in the next epoch.
  guest.WritePages(1);
  PageSet expected = rest;
  expected.insert(0);
  EXPECT_EQ(guest.Seal().pages, expected);
}

// An operator who harvests during a migration gets an error that names the
// log's owner.
TEST(HarvestTest, SomebodyElseCannotTakePagesFromTheOwner) {
  Daemon daemon;
  constexpr int64_t kSize = 32 * kMiB;
  const Guest guest(daemon.client(), "alpha", {MakeSlot(kSize)}, 2);
  guest.StartDirtyLog();
  std::atomic<bool> over{false};
  std::atomic<int> refused{0};
  std::thread stranger([&] {
    const TestClient client(daemon.address());
    v1::SealDirtyLogRequest request;
    request.set_vm(guest.name());
    request.set_owner_token("a token of somebody else");
    while (!over) {
      const auto result =
          client.Call(&v1::DirtyLogService::Stub::SealDirtyLog, request);
      EXPECT_EQ(ReasonOf(result.status), "LOG_OWNED");
      ++refused;
    }
  });
  guest.ExpectThatAMigrationCopiesAll(kSize);
  over = true;
  stranger.join();
  EXPECT_GT(refused.load(), 0);
}

// If a client dies between clear and copy, the next owner gets the cleared
// pages.
TEST(HarvestTest, TakeoverSealsAgainWhatWasInFlight) {
  Daemon daemon;
  const Guest guest = StripedGuest(daemon);
  const Harvest dead = guest.Seal();
  ASSERT_TRUE(guest.Clear(dead.epoch, dead.pages).status.ok());
  v1::AcquireDirtyLogRequest acquire;
  acquire.set_vm(guest.name());
  acquire.set_owner("the next");
  acquire.set_owner_token("token of the next owner");
  const auto refused = daemon.client().Call(
      &v1::DirtyLogService::Stub::AcquireDirtyLog, acquire);
  EXPECT_EQ(ReasonOf(refused.status), "LOG_OWNED");
  acquire.set_force(true);
  const auto acquired = daemon.client().Must(
      &v1::DirtyLogService::Stub::AcquireDirtyLog, acquire);
  EXPECT_EQ(acquired.dirty_log().owner(), "the next");
  EXPECT_EQ(acquired.dirty_log().slots(0).sealed_page_count(), kPages / 2);
  EXPECT_EQ(ReasonOf(guest.Clear(dead.epoch, dead.pages).status), "LOG_FENCED");
  v1::SealDirtyLogRequest seal;
  seal.set_vm(guest.name());
  seal.set_owner_token(acquire.owner_token());
  const auto sealed =
      daemon.client().Must(&v1::DirtyLogService::Stub::SealDirtyLog, seal);
  EXPECT_EQ(sealed.slots(0).merged_page_count(), kPages / 2);
  EXPECT_EQ(guest.Peek().pages, EverySecondPage());
}

TEST(HarvestTest, CopyMadeInTheOrderOfTheProtocolEqualsTheGuest) {
  Daemon daemon;
  constexpr int64_t kSize = 32 * kMiB;
  const Guest guest(
      daemon.client(), "alpha",
      {MakeSlot(kSize, v1::MEMORY_BACKING_MEMFD, v1::PAGE_SIZE_2M)}, 2);
  guest.StartDirtyLog();
  guest.ExpectThatAMigrationCopiesAll(kSize);
}

TEST(HarvestTest, ARepeatedSealReturnsTheSameEpoch) {
  Daemon daemon;
  const Guest guest(daemon.client(), "alpha", {MakeSlot(kMiB)});
  guest.StartDirtyLog();
  guest.WritePages(256);
  v1::SealDirtyLogRequest request;
  request.set_vm(guest.name());
  request.set_owner_token(kOwnerToken);
  request.set_request_id("3f0d7c52-7f41-4b7e-8d35-6a0c9d1e2f3b");
  const auto seal = [&] {
    return daemon.client().Must(&v1::DirtyLogService::Stub::SealDirtyLog,
                                request);
  };
  const v1::SealDirtyLogResponse first = seal();
  EXPECT_EQ(first.slots(0).fresh_page_count(), 256);
  const v1::SealDirtyLogResponse again = seal();
  EXPECT_EQ(again.epoch(), first.epoch());
  EXPECT_EQ(again.slots(0).fresh_page_count(), 256);
  EXPECT_EQ(guest.GetDirtyLog().sealed_epoch(), first.epoch());
}

// The slot has 100 pages, so it ends in the middle of a word of 64 pages.
TEST(HarvestTest, AStreamThatBrokeAtTheSlotsEndIsResumedThere) {
  Daemon daemon;
  const Guest guest(daemon.client(), "alpha", {MakeSlot(100 * kPage)});
  guest.StartDirtyLog();
  guest.WritePages(100);
  v1::ReadDirtyPagesRequest request = SmallChunks(guest.Seal());
  request.mutable_start()->set_gpa_bytes(100 * kPage);
  const Harvest rest = guest.Read(request);
  EXPECT_TRUE(rest.complete) << rest.status.error_message();
  EXPECT_TRUE(rest.pages.empty());
  request.mutable_start()->set_gpa_bytes(99 * kPage);
  EXPECT_EQ(ReasonOf(guest.Read(request).status), "INVALID_RESUME_OFFSET");
}

TEST(HarvestTest, SlotThatIsMadeLaterJoinsWithAllOfItsPages) {
  Daemon daemon;
  const Guest guest(daemon.client(), "alpha", {MakeSlot(kMiB)});
  EXPECT_EQ(guest.StartDirtyLog().dirty_log().split(),
            v1::DIRTY_LOG_SPLIT_EAGER);
  guest.Seal();
  v1::SetMemslotRequest request;
  request.set_vm(guest.name());
  *request.mutable_memslot() = MakeSlot(kMiB);
  request.mutable_memslot()->set_slot(1);
  request.mutable_memslot()->set_gpa_bytes(kMiB);
  daemon.client().Must(&v1::VmService::Stub::SetMemslot, request);
  const v1::DirtyLog log = guest.GetDirtyLog();
  ASSERT_EQ(log.slots_size(), 2);
  EXPECT_FALSE(log.slots(0).initially_set());
  EXPECT_TRUE(log.slots(1).initially_set());
  EXPECT_EQ(log.slots(1).first_epoch(), 2);
  EXPECT_EQ(guest.Seal().fresh_page_count, 256);
}

TEST(HarvestTest, SecondLogOfAVmIsRefusedAndNamesTheOwner) {
  Daemon daemon;
  const Guest guest(daemon.client(), "alpha", {MakeSlot(kMiB)});
  guest.StartDirtyLog();
  v1::StartDirtyLogRequest request;
  request.set_vm(guest.name());
  request.set_owner("another");
  request.set_owner_token("sixteen bytes or more");
  const auto result =
      daemon.client().Call(&v1::DirtyLogService::Stub::StartDirtyLog, request);
  EXPECT_EQ(ReasonOf(result.status), "DIRTY_LOG_ACTIVE");
  EXPECT_NE(result.status.error_message().find(kOwner), std::string::npos);
}

TEST(HarvestTest, ReadOnlySlotsAloneAreNothingToLog) {
  Daemon daemon;
  v1::Memslot rom = MakeSlot(kMiB);
  rom.set_readonly(true);
  const Guest guest(daemon.client(), "alpha", {rom});
  v1::StartDirtyLogRequest request;
  request.set_vm(guest.name());
  request.set_owner(kOwner);
  request.set_owner_token(kOwnerToken);
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
  request.mutable_ttl()->set_seconds(1);
  EXPECT_EQ(guest.StartDirtyLog(request).dirty_log().ttl().seconds(), 1);
  EXPECT_TRUE(Eventually([&] {
    return guest.Get().memslots(0).dirty_log().state() ==
           v1::DIRTY_LOG_STATE_OFF;
  }));
}

}  // namespace
}  // namespace mmud::integration
