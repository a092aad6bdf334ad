// mmuctl dirty-log: who owns the log, where the token is, where pages are.

#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "client/mmu_client/fake_guest.h"
#include "client/mmuctl/mmuctl.h"
#include "client/mmuctl/owner_store.h"
#include "client/text/error_text.h"
#include "client/text/message_json.h"
#include "client/text/progress.h"
#include "grpcpp/support/status.h"
#include "gtest/gtest.h"

namespace mmud::client {
namespace {

struct Result {
  int exit_code;
  std::string out;
  std::string err;
};

bool Contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

class DirtyLogCommandsTest : public testing::Test {
 protected:
  DirtyLogCommandsTest() {
    std::string name = absl::StrCat(testing::TempDir(), "/run.XXXXXX");
    runtime_ = mkdtemp(name.data());
    setenv("XDG_RUNTIME_DIR", runtime_.c_str(), 1);
  }
  ~DirtyLogCommandsTest() override { std::filesystem::remove_all(runtime_); }

  Result Run(const std::string& line) {
    std::vector<std::string> words = absl::StrSplit(line, ' ');
    words.insert(words.begin(), {"--address", guest_.address()});
    std::istringstream in;
    std::ostringstream out, err;
    const int exit_code =
        RunMmuctl(std::move(words), in, out, err, ProgressStyle::kQuiet);
    return {exit_code, out.str(), err.str()};
  }
  std::string Must(const std::string& line) {
    const Result result = Run(line);
    EXPECT_EQ(result.exit_code, kExitOk) << line << ": " << result.err;
    return result.out;
  }
  Json MustJson(const std::string& line) {
    return Json::parse(Must("--json " + line));
  }
  // The log is this person's, started by mmuctl.
  void Start() {
    guest_.StopLog();
    Must("dirty-log start fake --owner me");
  }
  std::string TokenFile() const {
    return OwnerStore(runtime_ + "/mmuctl")
        .PathOf(guest_.address(), FakeGuest::kVm);
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
                       "1 pages, 4 KiB, are acknowledged"));
  EXPECT_EQ(guest_.in_flight_page_count(), 0);
}

TEST_F(DirtyLogCommandsTest, HarvestThatFailsSaysHowItsPagesComeBack) {
  Start();
  guest_.Write(7);
  guest_.BreakCalls(
      FakeCall::kClear,
      {{grpc::Status(grpc::StatusCode::INTERNAL, "the answer is lost"), true}});
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
  EXPECT_TRUE(Contains(result.err, "mmuctl dirty-log peek VM")) << result.err;
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
  EXPECT_TRUE(Contains(Must("dirty-log read fake"), "are sealed in epoch 1"));
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
  EXPECT_TRUE(Contains(Must("dirty-log acquire fake"), "yours already"));

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
  guest_.BreakCalls(
      FakeCall::kAcquire,
      {{grpc::Status(grpc::StatusCode::INTERNAL, "the answer is lost"), true}});
  EXPECT_EQ(Run("dirty-log acquire fake --owner me").exit_code, kExitInternal);
  EXPECT_EQ(guest_.owner(), "me");
  guest_.Write(7);
  Must("dirty-log harvest fake");
  EXPECT_TRUE(
      Contains(Must("dirty-log acquire fake --owner me"), "yours already"));
  EXPECT_TRUE(std::filesystem::exists(TokenFile()));
  EXPECT_FALSE(std::filesystem::exists(TokenFile() + ".candidate"));
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

TEST_F(DirtyLogCommandsTest, NoOutputContainsTheToken) {
  Start();
  std::ifstream file(TokenFile());
  const std::string text((std::istreambuf_iterator<char>(file)), {});
  const std::string token = Json::parse(text)["owner_token"];
  ASSERT_EQ(token.size(), 64u);
  for (const char* line : {"dirty-log get fake", "dirty-log harvest fake",
                           "dirty-log acquire fake", "dirty-log start fake",
                           "dirty-log stop fake --discard"}) {
    for (const char* form : {"", "--json "}) {
      const Result result = Run(absl::StrCat(form, line));
      EXPECT_FALSE(Contains(result.out + result.err, token)) << line;
    }
  }
}

}  // namespace
}  // namespace mmud::client
