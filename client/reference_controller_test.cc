// Controllers that are killed at any point, and the controllers that take over
// from them.

#include "client/reference_controller.h"

#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "client/migration_report.h"
#include "client/mmu_client/client.h"
#include "client/mmu_client/error_info.h"
#include "client/mmu_client/fake_guest.h"
#include "client/mmu_client/owner_token.h"
#include "client/mmu_client/page_bitmap.h"
#include "client/send_order.h"
#include "grpcpp/support/status.h"
#include "gtest/gtest.h"
#include "mmu_core/base/clock.h"
#include "mmud/v1/dirty_log_service.pb.h"
#include "mmud/v1/error_reasons.pb.h"

namespace mmud::client {
namespace {

constexpr int64_t kPages = 2000;
constexpr int64_t kOtherPages = 100;
constexpr char kNever[] = "never";

class ReferenceControllerTest : public testing::Test {
 protected:
  ReferenceControllerTest() {
    std::string name = absl::StrCat(testing::TempDir(), "/kill.XXXXXX");
    folder_ = mkdtemp(name.data());
    destination_ = folder_ + "/destination";
    guest_.StopLog();
    guest_.OnCall([this] { WriteSome(); });
    WriteSome();
  }
  ~ReferenceControllerTest() override { std::filesystem::remove_all(folder_); }

  void WriteSome() {
    for (int i = 0; i < 20; ++i) guest_.Write(Random(kPages + kOtherPages));
  }

  int64_t Random(int64_t below) {
    absl::MutexLock lock(&mutex_);
    return std::uniform_int_distribution<int64_t>(0, below - 1)(random_);
  }

  pid_t Start(const std::string& point, int count) {
    std::vector<std::string> words = {"client/killed_controller",
                                      guest_.address(),
                                      "fake",
                                      destination_,
                                      point,
                                      absl::StrCat(count)};
    std::vector<char*> arguments;
    for (std::string& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    pid_t pid = -1;
    EXPECT_EQ(posix_spawn(&pid, arguments[0], nullptr, nullptr,
                          arguments.data(), environ),
              0);
    return pid;
  }

  // True if the controller was killed. Otherwise it ended by itself with an
  // equal copy.
  static bool WasKilled(pid_t pid) {
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (WIFSIGNALED(status)) {
      EXPECT_EQ(WTERMSIG(status), SIGKILL);
      return true;
    }
    EXPECT_EQ(WEXITSTATUS(status), EXIT_SUCCESS);
    return false;
  }

  std::string Destination() const {
    std::ifstream file(destination_, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(file), {});
  }

  // Starts a log whose pages are not at the destination. Returns its token.
  std::string StartLog(Client& client, const std::string& owner) {
    v1::StartDirtyLogRequest request;
    request.set_vm(FakeGuest::kVm);
    request.set_owner(owner);
    request.set_owner_token(NewOwnerToken());
    request.set_initially_set(true);
    EXPECT_TRUE(client.dirty_log().StartDirtyLog(request).ok());
    return request.owner_token();
  }

  // Makes the destination of a controller that died after it had started the
  // log with `token`.
  void MakeDestination(const std::string& token) const {
    std::ofstream(destination_, std::ios::binary)
        << std::string((kPages + kOtherPages) * kPageBytes, '?');
    std::ofstream(destination_ + ".token", std::ios::binary) << token << token;
  }

  // Expects that a takeover is refused and changes nothing.
  void ExpectRefusal(Client& client, const ControllerOptions& options,
                     const std::string& owner) const {
    const int64_t epoch = guest_.sealed_epoch();
    ControllerObserver observer;
    ReferenceController controller(&client, options, &observer);
    const absl::Status status = controller.TakeOver().status();
    EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
    EXPECT_TRUE(absl::StrContains(status.message(), "of " + owner)) << status;
    EXPECT_TRUE(absl::StrContains(status.message(), "dirty-log stop --force"))
        << status;
    EXPECT_EQ(guest_.owner(), owner);
    EXPECT_EQ(guest_.sealed_epoch(), epoch);
  }

  FakeGuest guest_{kPages, 64, kOtherPages};
  absl::Mutex mutex_;
  std::mt19937 random_ ABSL_GUARDED_BY(mutex_){1};
  std::string folder_;
  std::string destination_;
};

TEST_F(ReferenceControllerTest, NextOneFinishesWhatTwoHundredKillsLeft) {
  constexpr int kKillsOfEachKind = 50;
  constexpr int kMostThatEnd = 200;
  const std::vector<std::string> points = {kNever, "in-flight", "read",
                                           "arrived"};
  std::map<std::string, int> kills;
  int killed = 0;
  int finished = 0;
  // The shortest known run of a controller.
  absl::Duration whole = absl::Seconds(1);
  while (killed < kKillsOfEachKind * 4 && !HasFailure()) {
    // Take each kind of kill in turn. Repeat a kind if the controller ended
    // before it was killed.
    const std::string& point = points[killed % 4];
    const mmu::MonotonicTime start = mmu::MonotonicTime::Now();
    const pid_t pid = Start(point, static_cast<int>(1 + Random(12)));
    if (point == kNever) {
      absl::SleepFor(whole * (static_cast<double>(Random(900)) / 1000));
      kill(pid, SIGKILL);
    }
    if (WasKilled(pid)) {
      ++killed;
      ++kills[point];
    } else {
      ++finished;
      ASSERT_LE(finished, kMostThatEnd) << "after " << killed << " kills";
      whole = std::min(whole, mmu::MonotonicTime::Now() - start);
      ASSERT_TRUE(Destination() == guest_.MemoryCopy());
      // Overwrite the destination, so that the next migration cannot rely on
      // its contents.
      const std::string other((kPages + kOtherPages) * kPageBytes, '?');
      std::ofstream(destination_, std::ios::binary) << other;
    }
    guest_.Resume();
    WriteSome();
  }
  EXPECT_FALSE(WasKilled(Start(kNever, 0)));
  EXPECT_TRUE(Destination() == guest_.MemoryCopy());
  for (const std::string& point : points) {
    EXPECT_EQ(kills[point], kKillsOfEachKind) << point;
  }
  std::cout << killed << " kills, " << finished << " migrations ended\n";
}

TEST_F(ReferenceControllerTest, ReportNamesBothOwnersAndWhatIsInFlight) {
  const std::unique_ptr<Client> client = guest_.NewClient();
  MakeDestination(StartLog(*client, "the dead one"));
  ControllerOptions options;
  options.vm_id = "fake";
  options.destination = destination_;
  options.owner = "the next";
  options.pacing = Pacing::kNone;
  options.min_rounds = 2;
  ControllerObserver observer;
  ReferenceController controller(client.get(), options, &observer);
  const absl::StatusOr<MigrationReport> report = controller.TakeOver();
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_TRUE(report->equal);
  EXPECT_EQ(report->owner, "the next");
  EXPECT_EQ(report->former_owner, "the dead one");
  EXPECT_EQ(report->log_id, guest_.log_id());
  ASSERT_EQ(report->rounds.size(), 3u);
  // The controller sealed epoch 1 to find out whether its token owns the log.
  EXPECT_EQ(report->rounds[0].epoch, 2);
  EXPECT_EQ(report->rounds[0].page_count, kPages + kOtherPages);
  EXPECT_EQ(report->rounds[0].in_flight_page_count, kPages + kOtherPages);
  EXPECT_EQ(report->rounds[1].acknowledged_page_count, kPages + kOtherPages);
  EXPECT_EQ(report->rounds[2].in_flight_page_count, 0);
}

TEST_F(ReferenceControllerTest, LogThatIsNotOfTheDestinationIsLeftAlone) {
  const std::unique_ptr<Client> client = guest_.NewClient();
  StartLog(*client, "a stranger");
  ControllerOptions options;
  options.vm_id = "fake";
  options.pacing = Pacing::kNone;
  // Each destination is new: memory of this process, then a file, then the same
  // file again.
  ExpectRefusal(*client, options, "a stranger");
  options.destination = destination_;
  ExpectRefusal(*client, options, "a stranger");
  ExpectRefusal(*client, options, "a stranger");
  // The destination belongs to another log.
  MakeDestination(NewOwnerToken());
  ExpectRefusal(*client, options, "a stranger");
  // The log is not taken even after its lease has ended.
  guest_.ExpireLease();
  ExpectRefusal(*client, options, "a stranger");
}

TEST_F(ReferenceControllerTest, LogWhoseDestinationIsGoneIsLeftAlone) {
  const std::unique_ptr<Client> client = guest_.NewClient();
  MakeDestination(StartLog(*client, "the dead one"));
  ASSERT_TRUE(std::filesystem::remove(destination_));
  ControllerOptions options;
  options.vm_id = "fake";
  options.destination = destination_;
  options.pacing = Pacing::kNone;
  ExpectRefusal(*client, options, "the dead one");
  ExpectRefusal(*client, options, "the dead one");  // the file exists now
}

TEST_F(ReferenceControllerTest, LogThatSomebodyTookOverIsLeftToThem) {
  const std::unique_ptr<Client> client = guest_.NewClient();
  MakeDestination(StartLog(*client, "the dead one"));
  v1::AcquireDirtyLogRequest acquire;
  acquire.set_vm(FakeGuest::kVm);
  acquire.set_owner("a rescuer");
  acquire.set_owner_token(NewOwnerToken());
  acquire.set_force(true);
  ASSERT_TRUE(client->dirty_log().AcquireDirtyLog(acquire).ok());
  ControllerOptions options;
  options.vm_id = "fake";
  options.destination = destination_;
  options.pacing = Pacing::kNone;
  ExpectRefusal(*client, options, "a rescuer");
}

TEST_F(ReferenceControllerTest, OneThatDiedBeforeItAcquiredIsFollowed) {
  const std::unique_ptr<Client> client = guest_.NewClient();
  const std::string owner = StartLog(*client, "the dead one");
  // A controller that followed stored its own token, but died before it
  // acquired the log with it.
  MakeDestination(NewOwnerToken());
  std::ofstream(destination_ + ".token", std::ios::binary)
      << NewOwnerToken() << owner;
  ControllerOptions options;
  options.vm_id = "fake";
  options.destination = destination_;
  options.pacing = Pacing::kNone;
  ControllerObserver observer;
  ReferenceController controller(client.get(), options, &observer);
  const absl::StatusOr<MigrationReport> report = controller.TakeOver();
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_TRUE(report->equal);
  EXPECT_EQ(report->former_owner, "the dead one");
}

TEST_F(ReferenceControllerTest, OneThatDiedWhileItStartedTheLogIsFollowed) {
  const std::unique_ptr<Client> client = guest_.NewClient();
  const std::string token = NewOwnerToken();
  MakeDestination(token);
  guest_.BeginStart("the dead one", token);
  ControllerOptions options;
  options.vm_id = "fake";
  options.destination = destination_;
  options.pacing = Pacing::kNone;
  ControllerObserver observer;
  // Several controllers come before the start is done; none of them loses the
  // token.
  for (int i = 0; i < 2; ++i) {
    ReferenceController early(client.get(), options, &observer);
    const absl::Status status = early.TakeOver().status();
    EXPECT_EQ(ReasonOf(status), v1::DIRTY_LOG_STARTING) << status;
  }
  guest_.FinishStart();
  ReferenceController next(client.get(), options, &observer);
  const absl::StatusOr<MigrationReport> report = next.TakeOver();
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_TRUE(report->equal);
  EXPECT_EQ(report->former_owner, "the dead one");
}

TEST_F(ReferenceControllerTest, TokensOfALogThatIsStoppedAreDropped) {
  const std::unique_ptr<Client> client = guest_.NewClient();
  ControllerOptions options;
  options.vm_id = "fake";
  options.destination = destination_;
  options.pacing = Pacing::kNone;
  ControllerObserver observer;
  ReferenceController controller(client.get(), options, &observer);
  const absl::StatusOr<MigrationReport> report = controller.TakeOver();
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(std::filesystem::file_size(destination_ + ".token"), 0u);
}

ControllerOptions OptionsOf(SendOrder order) {
  ControllerOptions options;
  options.vm_id = "fake";
  options.pacing = Pacing::kNone;
  options.order = order;
  options.pieces = {.share = 16, .min_pages = 64};
  return options;
}

// The pages of the first slot that were cleared in `epoch`, in the order of the
// clears.
std::vector<int64_t> ClearedIn(
    int64_t epoch, const std::vector<v1::ClearDirtyLogRequest>& all) {
  std::vector<int64_t> pages;
  for (const v1::ClearDirtyLogRequest& clear : all) {
    if (clear.epoch() != epoch || clear.pages().slot() != FakeGuest::kSlot) {
      continue;
    }
    PageBitmap bitmap(
        {clear.pages().start_gpa_bytes(), clear.pages().size_bytes()});
    EXPECT_TRUE(bitmap.AddBitmap(bitmap.range(), clear.pages().bitmap()).ok());
    for (const GpaRange& range : bitmap.Ranges()) {
      for (int64_t gpa = range.gpa_bytes; gpa < range.end_bytes();
           gpa += kPageBytes) {
        pages.push_back((gpa - FakeGuest::kGpa) / kPageBytes);
      }
    }
  }
  return pages;
}

TEST_F(ReferenceControllerTest, HotMemoryIsClearedLast) {
  constexpr int64_t kHot = 128;
  guest_.SetHot({FakeGuest::kGpa, kHot * kPageBytes});
  const std::unique_ptr<Client> client = guest_.NewClient();
  ControllerObserver observer;
  ReferenceController controller(
      client.get(), OptionsOf(SendOrder::kColdestFirst), &observer);
  const absl::StatusOr<MigrationReport> report = controller.TakeOver();
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_TRUE(report->equal);
  EXPECT_EQ(report->order, "coldest-first");
  EXPECT_EQ(report->heat_problem, "");
  EXPECT_EQ(report->young_page_count, kHot);
  std::vector<int64_t> pages =
      ClearedIn(report->rounds[0].epoch, guest_.clears());
  ASSERT_EQ(static_cast<int64_t>(pages.size()), kPages);
  EXPECT_EQ(pages[0], kHot);
  // The last pieces have the hot pages and nothing else.
  std::sort(pages.end() - kHot, pages.end());
  EXPECT_EQ(pages[kPages - kHot], 0);
  EXPECT_EQ(pages[kPages - 1], kHot - 1);
  // The ager is as it was before.
  EXPECT_FALSE(guest_.ager().enabled());
}

TEST_F(ReferenceControllerTest, HotPagesAreSentAgainLessOftenIfTheyComeLast) {
  constexpr int64_t kHot = 128;
  guest_.SetHot({FakeGuest::kGpa, kHot * kPageBytes});
  guest_.OnCall([this] {
    for (int i = 0; i < 20; ++i) guest_.Write(Random(kHot));
  });
  const std::unique_ptr<Client> client = guest_.NewClient();
  ControllerObserver observer;
  std::vector<int64_t> resent;
  for (const SendOrder order :
       {SendOrder::kAscending, SendOrder::kAscendingPieces,
        SendOrder::kColdestFirst}) {
    ControllerOptions options = OptionsOf(order);
    options.min_rounds = 1;
    options.max_rounds = 1;
    ReferenceController controller(client.get(), options, &observer);
    const absl::StatusOr<MigrationReport> report = controller.TakeOver();
    ASSERT_TRUE(report.ok()) << report.status();
    EXPECT_TRUE(report->equal);
    int64_t sent = 0;
    for (const MigrationRound& round : report->rounds) {
      sent += round.page_count;
    }
    EXPECT_EQ(report->sent_page_count, sent);
    EXPECT_EQ(report->resent_page_count, sent - kPages - kOtherPages);
    resent.push_back(report->resent_page_count);
    guest_.Resume();
  }
  EXPECT_LT(resent[2], resent[1]);
}

TEST_F(ReferenceControllerTest, WithoutAnAgerTheMigrationSucceedsAndSaysSo) {
  guest_.BreakAging(grpc::Status(grpc::StatusCode::UNIMPLEMENTED, "no ager"));
  const std::unique_ptr<Client> client = guest_.NewClient();
  ControllerObserver observer;
  ReferenceController controller(
      client.get(), OptionsOf(SendOrder::kColdestFirst), &observer);
  const absl::StatusOr<MigrationReport> report = controller.TakeOver();
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_TRUE(report->equal);
  EXPECT_TRUE(absl::StrContains(report->heat_problem, "no ager"))
      << report->heat_problem;
}

// Takes over the log while another controller copies.
class Thief final : public ControllerObserver {
 public:
  explicit Thief(Client* client) : client_(client) {}
  void OnPages(Pages pages) override {
    if (pages != Pages::kInFlight) return;
    v1::AcquireDirtyLogRequest request;
    request.set_vm(FakeGuest::kVm);
    request.set_owner("a thief");
    request.set_owner_token(NewOwnerToken());
    request.set_force(true);
    EXPECT_TRUE(client_->dirty_log().AcquireDirtyLog(request).ok());
  }

 private:
  Client* const client_;
};

TEST_F(ReferenceControllerTest, OneThatIsFencedStopsCopying) {
  const std::unique_ptr<Client> client = guest_.NewClient();
  ControllerOptions options;
  options.vm_id = "fake";
  options.lease = absl::ZeroDuration();  // renewed before each page
  options.pacing = Pacing::kNone;
  Thief thief(client.get());
  ReferenceController controller(client.get(), options, &thief);
  const absl::StatusOr<MigrationReport> report = controller.TakeOver();
  EXPECT_EQ(ReasonOf(report.status()), v1::LOG_FENCED) << report.status();
  EXPECT_EQ(guest_.sealed_page_count(), kPages + kOtherPages);
}

}  // namespace
}  // namespace mmud::client
