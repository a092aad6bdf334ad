// mmuctl dirty-log: the owner of the log, the file of its token, and the state
// of pages.

#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "client/mmu_client/client.h"
#include "client/mmu_client/fake_guest.h"
#include "client/mmuctl/mmuctl.h"
#include "client/mmuctl/owner_store.h"
#include "client/mmuctl/run_line_test_util.h"
#include "client/text/error_text.h"
#include "client/text/message_json.h"
#include "client/text/progress.h"
#include "grpcpp/support/status.h"
#include "gtest/gtest.h"
#include "mmud/v1/dirty_log_service.pb.h"
#include "nlohmann/json.hpp"

namespace mmud::client {
namespace {

class DirtyLogCommandsTest : public testing::Test {
 protected:
  DirtyLogCommandsTest() {
    std::string name = absl::StrCat(testing::TempDir(), "/run.XXXXXX");
    runtime_ = mkdtemp(name.data());
    setenv("XDG_RUNTIME_DIR", runtime_.c_str(), 1);
  }
  ~DirtyLogCommandsTest() override { std::filesystem::remove_all(runtime_); }

  Result Run(const std::string& line) { return RunAt(guest_.address(), line); }
  Result RunAt(const std::string& address, const std::string& line) {
    std::vector<std::string> words = absl::StrSplit(line, ' ');
    words.insert(words.begin(), {"--address", address});
    return RunLine(std::move(words));
  }
  std::string Must(const std::string& line) {
    const Result result = Run(line);
    EXPECT_EQ(result.exit_code, kExitOk) << line << ": " << result.err;
    return result.out;
  }
  Json MustJson(const std::string& line) {
    return Json::parse(Must("--json " + line));
  }
  // Starts the log with mmuctl, so its token is stored for this user.
  void Start() {
    guest_.StopLog();
    Must("dirty-log start fake --owner me");
  }
  std::string TokenFile() const {
    return OwnerStore(runtime_ + "/mmuctl")
        .PathOf(guest_.address(), FakeGuest::kVm);
  }

  OwnerStore Store() const { return OwnerStore(runtime_ + "/mmuctl"); }
  std::string CandidateFile() const { return TokenFile() + ".candidate"; }
  void SaveCandidate(const std::string& token) {
    ASSERT_TRUE(
        Store()
            .SaveCandidate(guest_.address(), FakeGuest::kVm, {"", "me", token})
            .ok());
  }
  // Another owner takes the log by force.
  void TakeOverByOther() {
    v1::AcquireDirtyLogRequest request;
    request.set_vm(FakeGuest::kVm);
    request.set_owner("other");
    request.set_owner_token("the other owner's secret");
    request.set_force(true);
    ASSERT_TRUE(guest_.NewClient()->dirty_log().AcquireDirtyLog(request).ok());
  }
  // The next call of this kind fails. `done` says whether the daemon carried it
  // out.
  void Break(FakeCall call, bool done) {
    guest_.BreakCalls(
        call, {{grpc::Status(grpc::StatusCode::INTERNAL, "the answer is lost"),
                done}});
  }

  FakeGuest guest_{1000, 128, 100};
  std::string runtime_;
};

TEST_F(DirtyLogCommandsTest, StartKeepsTheTokenAndHarvestUsesIt) {
  Start();
  EXPECT_EQ(guest_.owner(), "me");
  EXPECT_TRUE(std::filesystem::exists(TokenFile()));
  guest_.Write(7);
  guest_.Write(1001);
  const std::string out = Must("dirty-log harvest fake");
  EXPECT_TRUE(Contains(out,
                       "2 pages, 8 KiB, are in flight: copy them now, "
                       "then mmuctl --address "))
      << out;
  EXPECT_TRUE(Contains(out, "dirty-log ack fake --epoch 1")) << out;
  EXPECT_EQ(guest_.in_flight_page_count(), 2);
  EXPECT_EQ(Must("dirty-log ack fake"),
            "acknowledged 2 pages; 0 are still in flight\n");
  EXPECT_EQ(guest_.in_flight_page_count(), 0);
}

TEST_F(DirtyLogCommandsTest, HarvestWithAckLeavesNothingInFlight) {
  Start();
  guest_.Write(7);
  EXPECT_TRUE(Contains(Must("dirty-log harvest fake --ack"),
                       "1 pages, 4 KiB; acknowledged 1 pages"));
  EXPECT_EQ(guest_.in_flight_page_count(), 0);
}

TEST_F(DirtyLogCommandsTest, HarvestWithAckLeavesWhatItDidNotShowInFlight) {
  Start();
  guest_.Write(7);
  Must("dirty-log harvest fake");
  guest_.Write(8);
  guest_.Write(1001);
  const Json json = MustJson("dirty-log harvest fake --ack");
  EXPECT_EQ(json["page_count"], 2);
  EXPECT_EQ(json["acknowledged"], true);
  EXPECT_EQ(json["acknowledged_page_count"], 2);
  EXPECT_EQ(guest_.in_flight_page_count(), 1);
}

TEST_F(DirtyLogCommandsTest, HarvestTellsWhatWasInFlightBefore) {
  Start();
  guest_.Write(7);
  const std::string first = Must("dirty-log harvest fake");
  EXPECT_FALSE(Contains(first, "note:")) << first;
  guest_.Write(8);
  guest_.Write(1001);
  const std::string second = Must("dirty-log harvest fake");
  const std::string mmuctl =
      absl::StrCat("mmuctl --address ", guest_.address(), " dirty-log ");
  EXPECT_TRUE(Contains(
      second,
      absl::StrCat("note: 1 more pages are in flight from before, which this "
                   "command did not list; ",
                   mmuctl, "ack fake covers them too.")))
      << second;
  EXPECT_TRUE(Contains(second, absl::StrCat(mmuctl, "acquire fake --force")))
      << second;
  guest_.Write(9);
  EXPECT_EQ(MustJson("dirty-log harvest fake")["earlier_in_flight_page_count"],
            3);
  // Writing a page that is already in flight does not count it twice.
  guest_.Write(9);
  EXPECT_EQ(
      MustJson("dirty-log harvest fake --ack")["earlier_in_flight_page_count"],
      3);
  Must("dirty-log acquire fake --force");
  const Json all = MustJson("dirty-log harvest fake");
  EXPECT_EQ(all["page_count"], 3);
  EXPECT_EQ(all["earlier_in_flight_page_count"], 0);
}

TEST_F(DirtyLogCommandsTest, ClearTellsWhatWasInFlightBefore) {
  Start();
  guest_.Write(7);
  guest_.Write(900);
  Must("dirty-log seal fake");
  const Json first =
      MustJson("dirty-log clear fake 3 --epoch 1 --range 4GiB+256KiB");
  EXPECT_EQ(first["cleared_page_count"], 1);
  EXPECT_EQ(first["earlier_in_flight_page_count"], 0);
  Must("dirty-log seal fake");
  const std::string second =
      Must("dirty-log clear fake 3 --epoch 2 --range 4GiB+4000KiB");
  EXPECT_TRUE(Contains(second, "cleared 1 pages")) << second;
  EXPECT_TRUE(Contains(second, "note: 1 more pages are in flight from before"))
      << second;
}

TEST_F(DirtyLogCommandsTest, InterruptedHarvestShowsWhatItTook) {
  for (const int number : {SIGINT, SIGTERM}) {
    struct sigaction before = {};
    sigaction(number, nullptr, &before);
    for (const char* line :
         {"--json dirty-log harvest fake", "dirty-log harvest fake"}) {
      Start();
      guest_.Write(7);
      guest_.Write(1001);
      // The harvest's third call, after a seal and a read, is the clear of the
      // first slot.
      std::atomic<int> calls = 0;
      guest_.OnCall([&calls, number] {
        if (++calls == 3) raise(number);
      });
      const Result result = Run(line);
      guest_.OnCall(nullptr);
      EXPECT_EQ(calls, 3) << line;
      EXPECT_EQ(result.exit_code, 128 + number) << result.err;
      EXPECT_EQ(guest_.in_flight_page_count(), 1);
      if (line[0] == '-') {
        EXPECT_EQ(Json::parse(result.out)["unfinished"],
                  Json::array({{{"slot", FakeGuest::kSlot},
                                {"page_count", 1},
                                {"size_bytes", 4096}}}));
        const Json error = Json::parse(result.err)["error"];
        EXPECT_EQ(error["code"], "CANCELLED");
        EXPECT_EQ(error["exit_code"], 128 + number);
      } else {
        EXPECT_TRUE(Contains(result.err, "interrupted by ")) << result.err;
        EXPECT_TRUE(Contains(result.err, "dirty-log acquire fake --force"))
            << result.err;
      }
      Must("dirty-log acquire fake --force");
      EXPECT_EQ(MustJson("dirty-log harvest fake")["page_count"], 2);
    }
    struct sigaction after = {};
    sigaction(number, nullptr, &after);
    EXPECT_EQ(after.sa_handler, before.sa_handler);
  }
}

TEST_F(DirtyLogCommandsTest, HarvestInterruptedInItsAcknowledgementIsShown) {
  Start();
  guest_.Write(7);
  guest_.Write(1001);
  // The harvest's fifth call, after a seal, a read and two clears, is the
  // acknowledgement of the first slot.
  std::atomic<int> calls = 0;
  guest_.OnCall([&calls] {
    if (++calls == 5) raise(SIGINT);
  });
  const Result result = Run("--json dirty-log harvest fake --ack");
  guest_.OnCall(nullptr);
  EXPECT_EQ(result.exit_code, 128 + SIGINT);
  const Json json = Json::parse(result.out);
  EXPECT_EQ(json["page_count"], 2);
  EXPECT_EQ(json["acknowledged"], false);
  EXPECT_EQ(json["acknowledged_page_count"], 1);
  EXPECT_EQ(json["earlier_in_flight_page_count"], 0);
  EXPECT_EQ(guest_.in_flight_page_count(), 1);
}

TEST_F(DirtyLogCommandsTest, HarvestThatCannotBeWrittenIsAnErrorWithAWayOut) {
  Start();
  guest_.Write(7);
  for (const char* line : {"dirty-log harvest fake",
                           "dirty-log clear fake 3 --epoch 2 --range "
                           "4GiB+256KiB"}) {
    std::vector<std::string> words = absl::StrSplit(line, ' ');
    words.insert(words.begin(), {"--address", guest_.address()});
    std::istringstream in;
    std::ostream nowhere(nullptr);
    std::ostringstream err;
    EXPECT_EQ(RunMmuctl(words, in, nowhere, err, ProgressStyle::kQuiet),
              kExitInternal);
    EXPECT_TRUE(Contains(err.str(), "cannot write to standard output"))
        << err.str();
    EXPECT_TRUE(Contains(err.str(), "dirty-log acquire fake --force"))
        << err.str();
    Must("dirty-log acquire fake --force");
    Must("dirty-log seal fake");
  }
}

TEST_F(DirtyLogCommandsTest, HarvestWhoseAcknowledgementFailsIsShown) {
  Start();
  guest_.Write(7);
  Break(FakeCall::kAcknowledge, /*done=*/false);
  const Result result = Run("--json dirty-log harvest fake --ack --ranges");
  EXPECT_EQ(result.exit_code, kExitInternal);
  const Json json = Json::parse(result.out);
  EXPECT_EQ(json["acknowledged"], false);
  EXPECT_EQ(json["acknowledged_page_count"], 0);
  EXPECT_EQ(json["slots"][0]["dirty_extents"][0]["gpa_bytes"],
            FakeGuest::kGpa + 7 * 4096);
  EXPECT_EQ(Json::parse(result.err)["error"]["code"], "INTERNAL");
  EXPECT_EQ(guest_.in_flight_page_count(), 1);
}

TEST_F(DirtyLogCommandsTest, HarvestThatFailsPrintsWhatIsInFlight) {
  Start();
  guest_.Write(7);
  Break(FakeCall::kClear, /*done=*/true);
  const Result result = Run("--json dirty-log harvest fake");
  EXPECT_EQ(result.exit_code, kExitInternal);
  const Json json = Json::parse(result.out);
  EXPECT_EQ(json["log_id"], guest_.log_id());
  EXPECT_EQ(json["epoch"], 1);
  ASSERT_EQ(json["unfinished"].size(), 1u);
  EXPECT_EQ(json["unfinished"][0], Json({{"slot", FakeGuest::kSlot},
                                         {"page_count", 1},
                                         {"size_bytes", 4096}}));
  EXPECT_EQ(Json::parse(result.err)["error"]["code"], "INTERNAL");
}

TEST_F(DirtyLogCommandsTest, HarvestThatFailsAndTookNothingGivesNoAdvice) {
  Start();
  guest_.Write(7);
  Must("dirty-log harvest fake");
  guest_.Write(8);
  Break(FakeCall::kClear, /*done=*/false);
  const Result result = Run("dirty-log harvest fake");
  EXPECT_EQ(result.exit_code, kExitInternal);
  EXPECT_EQ(result.out, "");
  EXPECT_FALSE(Contains(result.err, "note:")) << result.err;
  EXPECT_EQ(guest_.in_flight_page_count(), 1);
}

TEST_F(DirtyLogCommandsTest, HarvestOfTheFormerOwnerGivesNoAdviceToForceIt) {
  Start();
  guest_.Write(7);
  TakeOverByOther();
  // The new owner takes pages into flight.
  v1::SealDirtyLogRequest seal;
  seal.set_vm(FakeGuest::kVm);
  seal.set_owner_token("the other owner's secret");
  const auto client = guest_.NewClient();
  ASSERT_TRUE(client->dirty_log().SealDirtyLog(seal).ok());
  v1::ClearDirtyLogRequest clear;
  clear.set_vm(FakeGuest::kVm);
  clear.set_owner_token(seal.owner_token());
  clear.set_epoch(1);
  clear.mutable_pages()->set_slot(FakeGuest::kSlot);
  clear.mutable_pages()->set_start_gpa_bytes(FakeGuest::kGpa);
  clear.mutable_pages()->set_size_bytes(64 * 4096);
  clear.mutable_pages()->set_bitmap(std::string(8, '\xff'));
  ASSERT_TRUE(client->dirty_log().ClearDirtyLog(clear).ok());
  ASSERT_EQ(guest_.in_flight_page_count(), 1);

  const Result result = Run("dirty-log harvest fake");
  EXPECT_EQ(result.exit_code, kExitConflict);
  EXPECT_TRUE(Contains(result.err, "LOG_FENCED")) << result.err;
  EXPECT_FALSE(Contains(result.err, "note:")) << result.err;
}

TEST_F(DirtyLogCommandsTest, TokenThatIsNotTheOwnersNamesTheOwner) {
  SaveCandidate("of somebody who was refused");
  for (const char* line :
       {"dirty-log harvest fake", "dirty-log seal fake", "dirty-log ack fake",
        "dirty-log stop fake --discard"}) {
    guest_.SealByOther();
    const Result result = Run(line);
    EXPECT_EQ(result.exit_code, kExitConflict) << line;
    EXPECT_TRUE(Contains(result.err, "belongs to 'first owner' since 2026-"))
        << result.err;
    EXPECT_TRUE(
        Contains(result.err, "to see its pages without a token: mmuctl "))
        << result.err;
    EXPECT_TRUE(Contains(result.err, "dirty-log peek fake")) << result.err;
    EXPECT_TRUE(Contains(result.err, "lease_remaining_seconds=20"))
        << result.err;
  }
  EXPECT_EQ(guest_.owner(), FakeGuest::kOwner);
}

TEST_F(DirtyLogCommandsTest, TokenOfALogThatIsGoneIsForgotten) {
  Start();
  guest_.StopLog();
  v1::StartDirtyLogRequest request;
  request.set_vm(FakeGuest::kVm);
  request.set_owner("other");
  request.set_owner_token("the other owner's secret");
  ASSERT_TRUE(guest_.NewClient()->dirty_log().StartDirtyLog(request).ok());
  const Result result = Run("dirty-log harvest fake");
  EXPECT_EQ(result.exit_code, kExitConflict);
  EXPECT_TRUE(Contains(result.err, "belongs to 'other' since 2026-"))
      << result.err;
  EXPECT_TRUE(Contains(result.err, "the owner token of this log is not in"))
      << result.err;
  EXPECT_TRUE(Contains(result.err, "dirty-log peek fake")) << result.err;
  EXPECT_FALSE(std::filesystem::exists(TokenFile()));
}

TEST_F(DirtyLogCommandsTest, TokenIsForgottenWithItsVm) {
  for (const char* line :
       {"dirty-log harvest fake", "dirty-log seal fake", "dirty-log ack fake",
        "dirty-log acquire fake", "dirty-log acquire fake --force",
        "dirty-log start fake", "dirty-log stop fake",
        "dirty-log stop fake --force"}) {
    FakeGuest guest(1000, 128);
    const std::string address = guest.address();
    ASSERT_TRUE(
        Store().Save(address, FakeGuest::kVm, {"1", "me", "mine"}).ok());
    ASSERT_TRUE(
        Store().SaveCandidate(address, FakeGuest::kVm, {"", "me", "new"}).ok());
    guest.RemoveVm();
    const Result result = RunAt(address, line);
    EXPECT_EQ(result.exit_code, kExitNotFound) << line << result.err;
    EXPECT_FALSE(Store().Has(address, FakeGuest::kVm)) << line;
  }
}

TEST_F(DirtyLogCommandsTest, TokenIsForgottenOnceTheVmDoesNotLog) {
  for (const char* line :
       {"dirty-log harvest fake", "dirty-log seal fake",
        "dirty-log acquire fake", "dirty-log acquire fake --force",
        "dirty-log stop fake", "dirty-log stop fake --force"}) {
    Start();
    guest_.StopLog();
    // The candidate may be the token of a log that is starting, so it must
    // stay.
    SaveCandidate("of an earlier command");
    const Result result = Run(line);
    EXPECT_EQ(result.exit_code, kExitConflict) << line << result.err;
    EXPECT_FALSE(std::filesystem::exists(TokenFile())) << line;
    EXPECT_TRUE(std::filesystem::exists(CandidateFile())) << line;
    std::filesystem::remove(CandidateFile());
  }
}

TEST_F(DirtyLogCommandsTest, TokenIsForgottenWhenTheVmIsDeleted) {
  Start();
  SaveCandidate("of an earlier command");
  Must("vm delete fake");
  EXPECT_TRUE(std::filesystem::is_empty(runtime_ + "/mmuctl"));
  // Another client may have deleted the VM.
  SaveCandidate("of an earlier command");
  EXPECT_EQ(Run("vm delete fake").exit_code, kExitNotFound);
  EXPECT_TRUE(std::filesystem::is_empty(runtime_ + "/mmuctl"));
}

TEST_F(DirtyLogCommandsTest, DeletionOfAVmWithoutATokenMakesNoFolder) {
  Must("vm delete fake");
  EXPECT_TRUE(std::filesystem::is_empty(runtime_));
}

TEST_F(DirtyLogCommandsTest, LogIsStoppedByForceWhereNoTokenCanBeKept) {
  setenv("XDG_RUNTIME_DIR", "/proc", 1);
  const char* home = getenv("HOME");
  const std::string before = home != nullptr ? home : "";
  setenv("HOME", "/proc", 1);
  const Result refused = Run("dirty-log stop fake --discard");
  EXPECT_EQ(refused.exit_code, kExitConflict) << refused.err;
  EXPECT_TRUE(Contains(refused.err, "/proc/mmuctl cannot be made: "))
      << refused.err;
  EXPECT_TRUE(Contains(refused.err, "/proc/.cache cannot be made: "))
      << refused.err;
  Must("dirty-log stop fake --force");
  setenv("HOME", before.c_str(), 1);
}

TEST_F(DirtyLogCommandsTest, AdviceNamesTheVmAndTheDaemon) {
  Start();
  const std::string mmuctl =
      absl::StrCat("mmuctl --address ", guest_.address(), " dirty-log ");
  const std::string read = Run("dirty-log read fake").err;
  EXPECT_TRUE(Contains(read, absl::StrCat(mmuctl, "seal fake"))) << read;
  EXPECT_TRUE(Contains(read, absl::StrCat(mmuctl, "peek fake"))) << read;
  const std::string ack = Run("dirty-log ack fake").err;
  EXPECT_TRUE(Contains(ack, absl::StrCat(mmuctl, "harvest fake"))) << ack;
}

TEST_F(DirtyLogCommandsTest, TwoCommandsDoNotUseOneTokenAtATime) {
  Start();
  guest_.Write(7);
  {
    const auto lock = Store().Lock(guest_.address(), FakeGuest::kVm);
    ASSERT_TRUE(lock.ok()) << lock.status();
    for (const char* line :
         {"dirty-log harvest fake", "dirty-log ack fake",
          "dirty-log acquire fake --force", "dirty-log stop fake --discard"}) {
      const Result result = Run(line);
      EXPECT_EQ(result.exit_code, kExitConflict) << line;
      EXPECT_TRUE(
          Contains(result.err, "another mmuctl is using this owner token"))
          << result.err;
    }
    EXPECT_EQ(guest_.sealed_epoch(), 0);
    // A peek needs no token.
    Must("dirty-log peek fake");
  }
  Must("dirty-log harvest fake --ack");
  EXPECT_FALSE(std::filesystem::exists(TokenFile() + ".lock"));
}

TEST_F(DirtyLogCommandsTest, NameThatNoVmHasIsRefusedBeforeAnythingIsWritten) {
  for (const char* line :
       {"dirty-log start vms/../../up", "dirty-log acquire ../../up --force",
        "dirty-log harvest vms/../../up", "dirty-log stop Alpha"}) {
    const Result result = Run(absl::StrCat("--json ", line));
    EXPECT_EQ(result.exit_code, kExitRefused) << line << result.err;
    EXPECT_EQ(Json::parse(result.err)["error"]["reason"], "INVALID_NAME");
  }
  EXPECT_TRUE(std::filesystem::is_empty(runtime_));
}

TEST_F(DirtyLogCommandsTest, NothingIsAcknowledgedBeforeTheFirstSeal) {
  Start();
  const Result result = Run("dirty-log ack fake");
  EXPECT_EQ(result.exit_code, kExitConflict);
  EXPECT_TRUE(Contains(result.err,
                       "no epoch of the dirty log of vms/fake is "
                       "sealed yet"))
      << result.err;
}

TEST_F(DirtyLogCommandsTest, HarvestThatFailsSaysHowItsPagesComeBack) {
  Start();
  guest_.Write(7);
  Break(FakeCall::kClear, /*done=*/true);
  const Result result = Run("dirty-log harvest fake");
  EXPECT_EQ(result.exit_code, kExitInternal);
  EXPECT_TRUE(Contains(result.err, "dirty-log acquire fake --force"))
      << result.err;
  EXPECT_EQ(guest_.in_flight_page_count(), 1);
  Must("dirty-log acquire fake --force");
  EXPECT_EQ(MustJson("dirty-log harvest fake")["page_count"], 1);
}

TEST_F(DirtyLogCommandsTest, HarvestIsOneObjectWithItsSlots) {
  Start();
  guest_.Write(7);
  const Json json = MustJson("dirty-log harvest fake --ranges");
  EXPECT_EQ(json["log_id"], guest_.log_id());
  EXPECT_EQ(json["epoch"], 1);
  EXPECT_EQ(json["page_count"], 1);
  EXPECT_EQ(json["acknowledged"], false);
  ASSERT_EQ(json["slots"].size(), 2u);
  EXPECT_EQ(json["slots"][0]["slot"], FakeGuest::kSlot);
  EXPECT_EQ(json["slots"][0]["dirty_extents"][0]["gpa_bytes"],
            FakeGuest::kGpa + 7 * 4096);
}

TEST_F(DirtyLogCommandsTest, HarvestWithoutATokenNamesTheOwnerAndTakesNothing) {
  guest_.Write(7);
  const Result result = Run("dirty-log harvest fake");
  EXPECT_EQ(result.exit_code, kExitConflict);
  EXPECT_EQ(result.out, "");
  EXPECT_TRUE(Contains(result.err, "belongs to 'first owner' since 2026-"))
      << result.err;
  EXPECT_TRUE(Contains(result.err, "LOG_OWNED")) << result.err;
  const std::string mmuctl =
      absl::StrCat("mmuctl --address ", guest_.address(), " dirty-log ");
  EXPECT_TRUE(Contains(
      result.err, absl::StrCat("fix:     see the pages without a token: ",
                               mmuctl, "peek fake; take the log over: ", mmuctl,
                               "acquire fake, with --force")))
      << result.err;
  EXPECT_EQ(guest_.open_page_count(), 1);
  EXPECT_EQ(guest_.sealed_epoch(), 0);
}

TEST_F(DirtyLogCommandsTest, LookingNeedsNoTokenAndChangesNothing) {
  guest_.Write(7);
  EXPECT_TRUE(Contains(Must("dirty-log peek fake"),
                       "1 pages, 4 KiB, are open, sealed or in flight"));
  const std::string log = Must("dirty-log get fake --count-open");
  EXPECT_TRUE(Contains(log, "first owner, since ")) << log;
  EXPECT_TRUE(Contains(log, "1 open")) << log;
  EXPECT_EQ(MustJson("dirty-log get fake")["dirty_log"]["owner"],
            FakeGuest::kOwner);
  EXPECT_EQ(Run("dirty-log read fake").exit_code, kExitConflict)
      << "nothing is sealed";
  guest_.SealByOther();
  const std::string read = Must("dirty-log read fake");
  EXPECT_TRUE(Contains(read, "are sealed in epoch 1")) << read;
  EXPECT_EQ(guest_.sealed_page_count(), 1);
  EXPECT_FALSE(std::filesystem::exists(TokenFile()));
}

TEST_F(DirtyLogCommandsTest, StepsOfAHarvestOneByOne) {
  Start();
  guest_.Write(7);
  guest_.Write(900);
  EXPECT_TRUE(Contains(Must("dirty-log seal fake"), "epoch 1 is sealed"));
  EXPECT_EQ(MustJson("dirty-log read fake 3 --ranges")["page_count"], 2);
  EXPECT_TRUE(
      Contains(Must("dirty-log clear fake 3 --epoch 1 --range 4GiB+256KiB"),
               "cleared 1 pages"));
  EXPECT_EQ(guest_.in_flight_page_count(), 1);
  EXPECT_EQ(guest_.sealed_page_count(), 1);
  EXPECT_EQ(Must("dirty-log ack fake 3 --epoch 1 --range 4GiB+256KiB"),
            "acknowledged 1 pages; 0 are still in flight\n");
  EXPECT_TRUE(Contains(Must("dirty-log seal fake --ack 1"), "epoch 2"));
  EXPECT_EQ(guest_.sealed_page_count(), 1);
}

TEST_F(DirtyLogCommandsTest, EpochZeroIsNotTheNewestOne) {
  Start();
  guest_.Write(7);
  Must("dirty-log harvest fake");
  const Result ack = Run("dirty-log ack fake --epoch 0");
  EXPECT_EQ(ack.exit_code, kExitNotFound) << ack.out;
  EXPECT_TRUE(Contains(ack.err, "EPOCH_UNKNOWN")) << ack.err;
  EXPECT_EQ(guest_.in_flight_page_count(), 1);
  const Result read = Run("dirty-log read fake --epoch 0");
  EXPECT_EQ(read.exit_code, kExitUsage) << read.out;
  EXPECT_TRUE(Contains(read.err, "--epoch is 0; it must be")) << read.err;
  EXPECT_EQ(Must("dirty-log ack fake"),
            "acknowledged 1 pages; 0 are still in flight\n");
}

TEST_F(DirtyLogCommandsTest, AcquireTakesOverAnExpiredLeaseAndAForcedOne) {
  const Result refused = Run("dirty-log acquire fake --owner me");
  EXPECT_EQ(refused.exit_code, kExitConflict);
  EXPECT_TRUE(Contains(refused.err, "--force while the owner's lease"))
      << refused.err;
  EXPECT_EQ(guest_.owner(), FakeGuest::kOwner);
  guest_.ExpireLease();
  EXPECT_TRUE(
      Contains(Must("dirty-log acquire fake --owner me"), "taken over"));
  EXPECT_EQ(guest_.owner(), "me");
  EXPECT_TRUE(
      Contains(Must("dirty-log acquire fake"), "you owned the log already"));

  guest_.Write(7);
  Must("dirty-log harvest fake");
  EXPECT_TRUE(Contains(Must("dirty-log acquire fake --force --owner again"),
                       "taken over"));
  EXPECT_EQ(guest_.owner(), "again");
  EXPECT_EQ(guest_.in_flight_page_count(), 0);
  EXPECT_EQ(guest_.sealed_page_count(), 1);
  Must("dirty-log harvest fake --ack");
}

TEST_F(DirtyLogCommandsTest, WhoWasTakenOverIsToldSo) {
  Start();
  const std::string token_of_the_first = TokenFile();
  std::filesystem::copy_file(token_of_the_first, runtime_ + "/first");
  Must("dirty-log acquire fake --force --owner other");
  std::filesystem::copy_file(runtime_ + "/first", token_of_the_first,
                             std::filesystem::copy_options::overwrite_existing);
  const Result result = Run("dirty-log harvest fake");
  EXPECT_EQ(result.exit_code, kExitConflict);
  EXPECT_TRUE(Contains(result.err, "LOG_FENCED (")) << result.err;
  EXPECT_TRUE(Contains(result.err, "owner=other")) << result.err;
}

TEST_F(DirtyLogCommandsTest, TakeoverWhoseAnswerIsLostKeepsItsToken) {
  guest_.ExpireLease();
  Break(FakeCall::kAcquire, /*done=*/true);
  EXPECT_EQ(Run("dirty-log acquire fake --owner me").exit_code, kExitInternal);
  EXPECT_EQ(guest_.owner(), "me");
  guest_.Write(7);
  Must("dirty-log harvest fake");
  EXPECT_TRUE(Contains(Must("dirty-log acquire fake --owner me"),
                       "you owned the log already"));
  EXPECT_TRUE(std::filesystem::exists(TokenFile()));
  EXPECT_FALSE(std::filesystem::exists(TokenFile() + ".candidate"));
}

TEST_F(DirtyLogCommandsTest, CandidateIsKeptOnceACallWithItWentWell) {
  Start();
  // The daemon carries out the takeover, which fences the stored token.
  Break(FakeCall::kAcquire, /*done=*/true);
  EXPECT_EQ(Run("dirty-log acquire fake --force --owner again").exit_code,
            kExitInternal);
  EXPECT_TRUE(std::filesystem::exists(CandidateFile()));
  guest_.Write(7);
  Must("dirty-log harvest fake --ack");
  EXPECT_FALSE(std::filesystem::exists(CandidateFile()));
  const auto kept = Store().Load(guest_.address(), FakeGuest::kVm);
  ASSERT_TRUE(kept.ok() && kept->has_value());
  EXPECT_EQ((*kept)->owner, "again");
  EXPECT_EQ((*kept)->log_id, guest_.log_id());
}

TEST_F(DirtyLogCommandsTest, ForcedTakeoverNeverHasAnEarlierToken) {
  guest_.ExpireLease();
  Break(FakeCall::kAcquire, /*done=*/true);
  EXPECT_EQ(Run("dirty-log acquire fake --owner me").exit_code, kExitInternal);
  EXPECT_TRUE(
      Contains(Must("dirty-log acquire fake --force --owner me"),
               "taken over: the pages that were in flight are sealed again"));
}

TEST_F(DirtyLogCommandsTest, CandidateThatMayYetBeTheOwnersIsNotDropped) {
  Break(FakeCall::kAcquire, /*done=*/false);
  EXPECT_EQ(Run("dirty-log acquire fake").exit_code, kExitInternal);
  const auto token = [this] {
    const auto candidate =
        Store().LoadCandidate(guest_.address(), FakeGuest::kVm);
    return candidate.ok() && candidate->has_value() ? (*candidate)->token : "";
  };
  const std::string first = token();
  ASSERT_FALSE(first.empty());
  EXPECT_EQ(Run("dirty-log acquire fake").exit_code, kExitConflict);
  EXPECT_EQ(token(), first) << "LOG_OWNED";
  EXPECT_EQ(Run("dirty-log start fake").exit_code, kExitConflict);
  EXPECT_EQ(token(), first) << "DIRTY_LOG_ACTIVE";
  guest_.StopLog();
  EXPECT_EQ(Run("dirty-log acquire fake").exit_code, kExitConflict);
  EXPECT_EQ(token(), first) << "DIRTY_LOG_OFF";
}

TEST_F(DirtyLogCommandsTest, NewCandidateIsKeptWhileALogMayBeStarting) {
  guest_.StopLog();
  EXPECT_EQ(Run("dirty-log acquire fake").exit_code, kExitConflict);
  EXPECT_TRUE(std::filesystem::exists(CandidateFile()));
}

TEST_F(DirtyLogCommandsTest, CandidateThatWasFencedGivesWayToANewOne) {
  SaveCandidate(FakeGuest::kToken);
  TakeOverByOther();
  guest_.ExpireLease();
  EXPECT_TRUE(Contains(Must("dirty-log acquire fake"), "taken over"));
  EXPECT_FALSE(std::filesystem::exists(CandidateFile()));
}

TEST_F(DirtyLogCommandsTest, StopForgetsEveryToken) {
  Start();
  SaveCandidate("of an earlier command");
  Must("dirty-log stop fake --discard");
  EXPECT_TRUE(std::filesystem::is_empty(runtime_ + "/mmuctl"));
}

TEST_F(DirtyLogCommandsTest, RefusedTakeoverLeavesNoToken) {
  EXPECT_EQ(Run("dirty-log acquire fake").exit_code, kExitConflict);
  EXPECT_TRUE(std::filesystem::is_empty(runtime_ + "/mmuctl"));
}

TEST_F(DirtyLogCommandsTest, StopRefusesToLosePagesUnlessTold) {
  Start();
  guest_.Write(7);
  const Result refused = Run("dirty-log stop fake");
  EXPECT_EQ(refused.exit_code, kExitConflict);
  EXPECT_TRUE(Contains(refused.err, "UNDELIVERED_PAGES")) << refused.err;
  EXPECT_TRUE(Contains(refused.err, "open_page_count=1")) << refused.err;
  EXPECT_TRUE(Contains(Must("dirty-log stop fake --discard"),
                       "discarded 1 open, 0 sealed and 0 pages in flight"));
  EXPECT_FALSE(std::filesystem::exists(TokenFile()));
}

TEST_F(DirtyLogCommandsTest, LogOfSomebodyElseIsStoppedOnlyByForce) {
  EXPECT_EQ(Run("dirty-log stop fake --discard").exit_code, kExitConflict);
  Must("dirty-log stop fake --force");
}

TEST_F(DirtyLogCommandsTest, TokenThatOthersCanReadIsRefused) {
  Start();
  ASSERT_EQ(chmod(TokenFile().c_str(), 0644), 0);
  const Result result = Run("dirty-log harvest fake");
  EXPECT_EQ(result.exit_code, kExitConflict);
  EXPECT_TRUE(Contains(result.err, "run chmod 0600 " + TokenFile()))
      << result.err;
  ASSERT_EQ(chmod(TokenFile().c_str(), 0600), 0);
  Must("dirty-log harvest fake");
}

TEST_F(DirtyLogCommandsTest, NoOutputContainsAToken) {
  std::set<std::string> tokens;
  const auto collect = [this, &tokens] {
    for (const char* ending : {"", ".candidate"}) {
      std::ifstream file(TokenFile() + ending);
      const std::string text((std::istreambuf_iterator<char>(file)), {});
      if (text.empty()) continue;
      const std::string hex = Json::parse(text)["owner_token"];
      EXPECT_EQ(hex.size(), 64u);
      tokens.insert(absl::HexStringToBytes(hex));
    }
  };
  // Also collect the tokens of candidates that a command makes and drops.
  guest_.OnCall(collect);
  std::string output;
  for (const char* form : {"", "--json "}) {
    for (const char* line :
         {"dirty-log acquire fake", "dirty-log stop fake --force --discard",
          "dirty-log acquire fake", "dirty-log start fake",
          "dirty-log get fake", "dirty-log harvest fake",
          "dirty-log acquire fake", "dirty-log acquire fake --force",
          "dirty-log start fake", "dirty-log stop fake --discard",
          "dirty-log start fake"}) {
      const Result result = Run(absl::StrCat(form, line));
      collect();
      absl::StrAppend(&output, result.out, result.err);
    }
  }
  guest_.OnCall(nullptr);
  EXPECT_GE(tokens.size(), 6u);
  for (const std::string& token : tokens) {
    const std::string hex = absl::BytesToHexString(token);
    for (const std::string& form :
         {token, hex, absl::AsciiStrToUpper(hex), absl::Base64Escape(token),
          absl::WebSafeBase64Escape(token)}) {
      EXPECT_FALSE(Contains(output, form)) << form;
    }
  }
}

}  // namespace
}  // namespace mmud::client
