// The ownership of a log: tokens, leases, takeovers, and calls with a wrong
// epoch.

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "mmud/v1/dirty_log_service.grpc.pb.h"
#include "tests/integration/child_process.h"
#include "tests/integration/daemon.h"
#include "tests/integration/guest.h"
#include "tests/integration/test_client.h"

namespace mmud::integration {
namespace {

using Stub = v1::DirtyLogService::Stub;

constexpr int64_t kPages = 1024;
constexpr char kNextToken[] = "token of the next owner";

Guest WritingGuest(const Daemon& daemon,
                   const v1::StartDirtyLogRequest& start = {}) {
  Guest guest(daemon.client(), "alpha", {MakeSlot(kPages * kPage)});
  guest.StartDirtyLog(start);
  guest.WritePages(kPages);
  return guest;
}

Result<v1::AcquireDirtyLogResponse> Acquire(const Daemon& daemon,
                                            const std::string& token,
                                            bool force) {
  v1::AcquireDirtyLogRequest request;
  request.set_vm("vms/alpha");
  request.set_owner("the next");
  request.set_owner_token(token);
  request.set_force(force);
  return daemon.client().Call(&Stub::AcquireDirtyLog, request);
}

v1::SealDirtyLogRequest SealWith(const std::string& token) {
  v1::SealDirtyLogRequest request;
  request.set_vm("vms/alpha");
  request.set_owner_token(token);
  return request;
}

PageSet All() {
  PageSet pages;
  for (int64_t i = 0; i < kPages; ++i) pages.insert(pages.end(), i);
  return pages;
}

TEST(OwnershipTest, ALeaseThatRanOutTakesNothingUntilSomebodyAcquires) {
  Daemon daemon;
  v1::StartDirtyLogRequest start;
  start.mutable_lease()->set_seconds(1);
  const Guest guest = WritingGuest(daemon, start);
  const Harvest sealed = guest.Seal();
  // After the end of its lease the owner is still the owner, and its call
  // renews the lease.
  absl::SleepFor(absl::Milliseconds(1100));
  EXPECT_TRUE(guest.Clear(sealed.epoch, {0, 1}).status.ok());
  // If the owner makes no call for a second, the next owner may acquire the log
  // without force.
  EXPECT_TRUE(Eventually(
      [&] { return Acquire(daemon, kNextToken, false).status.ok(); }));
  EXPECT_EQ(ReasonOf(guest.Clear(sealed.epoch, sealed.pages).status),
            "LOG_FENCED");
  EXPECT_EQ(guest.Peek().pages, All()) << "nothing is lost by that";
  EXPECT_EQ(guest.GetDirtyLog().slots(0).in_flight_page_count(), 0);
  EXPECT_EQ(guest.GetDirtyLog().slots(0).sealed_page_count(), kPages);
}

TEST(OwnershipTest, AFormerTokenIsFencedForGood) {
  Daemon daemon;
  const Guest guest = WritingGuest(daemon);
  ASSERT_TRUE(Acquire(daemon, kNextToken, true).status.ok());
  EXPECT_TRUE(Acquire(daemon, kNextToken, false).response.already_owned());
  EXPECT_EQ(ReasonOf(Acquire(daemon, kOwnerToken, true).status), "LOG_FENCED");
  const Harvest peek = guest.Peek();
  EXPECT_EQ(peek.pages, All()) << "who only looks needs no token";
  const auto seal =
      daemon.client().Call(&Stub::SealDirtyLog, SealWith(kOwnerToken));
  EXPECT_EQ(ReasonOf(seal.status), "LOG_FENCED");
  EXPECT_NE(seal.status.error_message().find("the next"), std::string::npos);
  EXPECT_EQ(seal.status.error_message().find(kNextToken), std::string::npos);
}

TEST(OwnershipTest, TheTokenOfAnotherVmsLogIsAStrangers) {
  Daemon daemon;
  const Guest guest = WritingGuest(daemon);
  const Harvest sealed = guest.Seal();
  ASSERT_TRUE(guest.Clear(sealed.epoch, {0, 1, 2}).status.ok());
  const Guest other(daemon.client(), "beta", {MakeSlot(kPages * kPage)});
  v1::StartDirtyLogRequest start;
  start.set_owner("of another VM");
  start.set_owner_token(kNextToken);
  other.StartDirtyLog(start);

  const auto refused = [](const grpc::Status& status) {
    EXPECT_EQ(ReasonOf(status), "LOG_OWNED") << status.error_message();
  };
  const TestClient& client = daemon.client();
  refused(client.Call(&Stub::SealDirtyLog, SealWith(kNextToken)).status);
  v1::ClearDirtyLogRequest clear;
  clear.set_vm(guest.name());
  clear.set_owner_token(kNextToken);
  clear.set_epoch(sealed.epoch);
  clear.mutable_pages()->set_size_bytes(64 * kPage);
  clear.mutable_pages()->mutable_extents()->add_extents()->set_size_bytes(
      64 * kPage);
  refused(client.Call(&Stub::ClearDirtyLog, clear).status);
  v1::AcknowledgePagesRequest acknowledge;
  acknowledge.set_vm(guest.name());
  acknowledge.set_owner_token(kNextToken);
  acknowledge.set_epoch(sealed.epoch);
  refused(client.Call(&Stub::AcknowledgePages, acknowledge).status);
  v1::StopDirtyLogRequest stop;
  stop.set_vm(guest.name());
  stop.set_owner_token(kNextToken);
  stop.set_discard_undelivered(true);
  refused(client.Call(&Stub::StopDirtyLog, stop).status);
  refused(Acquire(daemon, kNextToken, false).status);

  const v1::DirtyLog log = guest.GetDirtyLog();
  EXPECT_EQ(log.owner(), kOwner);
  EXPECT_EQ(log.sealed_epoch(), sealed.epoch);
  EXPECT_EQ(log.slots(0).sealed_page_count(), kPages - 3);
  EXPECT_EQ(log.slots(0).in_flight_page_count(), 3);
  EXPECT_EQ(other.GetDirtyLog().sealed_epoch(), 0);
}

// A person harvests repeatedly during a migration: without a token, and with
// the token of a former owner.
TEST(OwnershipTest, MmuctlBesideAMigrationTakesNothing) {
  Daemon daemon;
  const Guest guest(daemon.client(), "alpha", {MakeSlot(kPages * kPage)}, 2);
  const ScratchDirectory nothing;
  const ScratchDirectory stale;
  const auto mmuctl = [&](const ScratchDirectory& tokens,
                          const std::vector<std::string>& words) {
    std::vector<std::string> arguments = {
        "/usr/bin/env", "MMUD_ADDRESS=" + daemon.address(),
        "XDG_RUNTIME_DIR=" + tokens.path(), MmuctlPath()};
    arguments.insert(arguments.end(), words.begin(), words.end());
    return RunProgram(arguments, tokens.File("mmuctl"));
  };
  const ProgramResult started = mmuctl(stale, {"dirty-log", "start", "alpha"});
  ASSERT_EQ(started.exit_code, 0) << started.err;
  ASSERT_TRUE(Acquire(daemon, kOwnerToken, true).status.ok());

  std::atomic<bool> migrated{false};
  std::atomic<int> harvests{0};
  std::thread person([&] {
    do {
      for (const bool is_stale : {false, true}) {
        const ProgramResult harvest = mmuctl(is_stale ? stale : nothing,
                                             {"dirty-log", "harvest", "alpha"});
        EXPECT_EQ(harvest.exit_code, 5) << harvest.err;
        EXPECT_EQ(harvest.out, "");
        EXPECT_NE(harvest.err.find(is_stale ? "LOG_FENCED" : "LOG_OWNED"),
                  std::string::npos)
            << harvest.err;
      }
      ++harvests;
    } while (!migrated);
  });
  // A page that such a harvest took would be missing in the copy.
  EXPECT_TRUE(Eventually([&] { return harvests > 0; }));
  guest.ExpectThatAMigrationCopiesAll(kPages * kPage);
  const int64_t epochs = guest.GetDirtyLog().sealed_epoch();
  const int before = harvests;
  EXPECT_TRUE(Eventually([&] { return harvests > before + 1; }));
  migrated = true;
  person.join();
  EXPECT_EQ(guest.GetDirtyLog().sealed_epoch(), epochs);
  EXPECT_EQ(guest.GetDirtyLog().owner(), "the next");
}

TEST(OwnershipTest, AcknowledgingTwiceOrWhatWasNeverClearedChangesNothing) {
  Daemon daemon;
  const Guest guest = WritingGuest(daemon);
  const Harvest sealed = guest.Seal();
  ASSERT_TRUE(guest.Clear(sealed.epoch, {0, 1, 2}).status.ok());
  EXPECT_EQ(guest.Acknowledge(sealed.epoch).response.acknowledged_page_count(),
            3);
  EXPECT_EQ(guest.Acknowledge(sealed.epoch).response.acknowledged_page_count(),
            0);
  v1::AcknowledgePagesRequest named;
  named.set_vm(guest.name());
  named.set_owner_token(kOwnerToken);
  named.set_epoch(sealed.epoch);
  named.mutable_pages()->set_size_bytes(64 * kPage);
  named.mutable_pages()->mutable_extents()->add_extents()->set_size_bytes(
      10 * kPage);
  const auto never = daemon.client().Must(&Stub::AcknowledgePages, named);
  EXPECT_EQ(never.acknowledged_page_count(), 0);
  EXPECT_EQ(never.not_in_flight_page_count(), 10);
  PageSet left = All();
  left.erase(0);
  left.erase(1);
  left.erase(2);
  EXPECT_EQ(guest.Peek().pages, left);
}

TEST(OwnershipTest, APageThatWasClearedAgainStaysInFlight) {
  Daemon daemon;
  const Guest guest = WritingGuest(daemon);
  const Harvest first = guest.Seal();
  ASSERT_TRUE(guest.Clear(first.epoch, first.pages).status.ok());
  guest.WritePages(1);
  const auto second =
      daemon.client().Must(&Stub::SealDirtyLog, SealWith(kOwnerToken));
  ASSERT_TRUE(guest.Clear(second.epoch(), {0}).status.ok());
  const auto acknowledged = guest.Acknowledge(first.epoch);
  EXPECT_EQ(acknowledged.response.acknowledged_page_count(), kPages - 1);
  EXPECT_EQ(acknowledged.response.still_in_flight_page_count(), 1);
  EXPECT_EQ(guest.Peek().pages, PageSet{0});
}

TEST(OwnershipTest, NothingOfAnEarlierLogIsTakenForOneOfThis) {
  Daemon daemon;
  const Guest guest = WritingGuest(daemon);
  const Harvest old = guest.Seal();
  v1::StopDirtyLogRequest stop;
  stop.set_vm(guest.name());
  stop.set_owner_token(kOwnerToken);
  stop.set_discard_undelivered(true);
  EXPECT_EQ(daemon.client()
                .Must(&Stub::StopDirtyLog, stop)
                .discarded()
                .sealed_page_count(),
            kPages);
  // Start a log for the same owner with the same token.
  guest.StartDirtyLog();
  guest.WritePages(kPages);
  const Harvest sealed = guest.Seal();
  EXPECT_NE(sealed.log_id, old.log_id);
  EXPECT_GT(sealed.epoch, old.epoch) << "no epoch has its number twice";
  v1::ReadDirtyPagesRequest read;
  read.set_log_id(old.log_id);
  read.set_epoch(old.epoch);
  EXPECT_EQ(ReasonOf(guest.Read(read).status), "LOG_CHANGED");
  EXPECT_EQ(ReasonOf(guest.Clear(old.epoch, old.pages).status),
            "EPOCH_MISMATCH");
  v1::SealDirtyLogRequest seal = SealWith(kOwnerToken);
  seal.set_log_id(old.log_id);
  EXPECT_EQ(ReasonOf(daemon.client().Call(&Stub::SealDirtyLog, seal).status),
            "LOG_CHANGED");
  EXPECT_EQ(guest.Peek().pages, All());
}

// In either order of the calls, the next owner gets every page.
TEST(OwnershipTest, ATakeoverBesideSealsLosesNothing) {
  Daemon daemon;
  const Guest guest = WritingGuest(daemon);
  guest.StartFewWrites(1);
  for (int round = 0; round < 10; ++round) {
    const std::string mine = "token of round " + std::to_string(round) + " #1";
    ASSERT_TRUE(Acquire(daemon, mine, true).status.ok());
    std::atomic<int> seals_with_pages_in_flight{0};
    std::thread sealer([&] {
      const TestClient client(daemon.address());
      v1::ClearDirtyLogRequest clear;
      clear.set_vm(guest.name());
      clear.set_owner_token(mine);
      clear.mutable_pages()->set_size_bytes(64 * kPage);
      clear.mutable_pages()->mutable_extents()->add_extents()->set_size_bytes(
          64 * kPage);
      bool fenced = false;
      while (!fenced) {
        const auto sealed = client.Call(&Stub::SealDirtyLog, SealWith(mine));
        grpc::Status status = sealed.status;
        if (status.ok() && seals_with_pages_in_flight == 0) {
          clear.set_epoch(sealed.response.epoch());
          const auto cleared = client.Call(&Stub::ClearDirtyLog, clear);
          status = cleared.status;
          EXPECT_EQ(cleared.response.cleared_page_count(), 64);
        }
        if (status.ok()) {
          ++seals_with_pages_in_flight;
          continue;
        }
        EXPECT_EQ(ReasonOf(status), "LOG_FENCED") << status.error_message();
        fenced = true;
      }
    });
    EXPECT_TRUE(Eventually([&] { return seals_with_pages_in_flight > 1; }));
    EXPECT_GT(guest.GetDirtyLog().slots(0).in_flight_page_count(), 0);
    EXPECT_TRUE(Acquire(daemon, mine + " and its successor", true).status.ok());
    sealer.join();
    EXPECT_EQ(guest.GetDirtyLog().slots(0).in_flight_page_count(), 0);
    EXPECT_EQ(guest.Peek().pages, All());
  }
  EXPECT_GT(guest.StopWorkload().statistics().write_count(), 0);
}

// DeleteVm and DeleteMemslot are refused if pages would be lost, and the error
// counts these pages.
TEST(OwnershipTest, NothingUndeliveredVanishesUnasked) {
  Daemon daemon;
  const Guest guest = WritingGuest(daemon);
  const Harvest sealed = guest.Seal();
  ASSERT_TRUE(guest.Clear(sealed.epoch, {0, 1, 2}).status.ok());
  guest.WritePages(2);
  v1::DeleteMemslotRequest slot;
  slot.set_name(guest.name() + "/memslots/0");
  EXPECT_EQ(ReasonOf(daemon.client()
                         .Call(&v1::VmService::Stub::DeleteMemslot, slot)
                         .status),
            "UNDELIVERED_PAGES");
  v1::DeleteVmRequest vm;
  vm.set_name(guest.name());
  EXPECT_EQ(
      ReasonOf(daemon.client().Call(&v1::VmService::Stub::DeleteVm, vm).status),
      "UNDELIVERED_PAGES");
  slot.set_discard_undelivered(true);
  const auto discarded = daemon.client()
                             .Must(&v1::VmService::Stub::DeleteMemslot, slot)
                             .discarded();
  EXPECT_EQ(discarded.open_page_count(), 2);
  EXPECT_EQ(discarded.sealed_page_count(), kPages - 3);
  EXPECT_EQ(discarded.in_flight_page_count(), 3);
  daemon.client().Must(&v1::VmService::Stub::DeleteVm, vm);
}

}  // namespace
}  // namespace mmud::integration
