// HarvestDirtyLog: the window of a stream, the reasons that end a stream, and
// takeovers, by which no page is lost.

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/descriptor.h"
#include "gtest/gtest.h"
#include "mmud/v1/dirty_log_service.grpc.pb.h"
#include "mmud/v1/vm_service.grpc.pb.h"
#include "tests/integration/daemon.h"
#include "tests/integration/guest.h"
#include "tests/integration/test_client.h"

namespace mmud::integration {
namespace {

constexpr int64_t kPages = 2048;
constexpr char kNextToken[] = "token of the next owner";

using Request = v1::HarvestDirtyLogRequest;
using Response = v1::HarvestDirtyLogResponse;

PageSet PagesOf(const v1::DirtyLogChunk& chunk) {
  PageSet pages;
  for (const v1::Extent& extent : chunk.extents().extents()) {
    for (int64_t at = 0; at < extent.size_bytes(); at += kPage) {
      pages.insert((extent.gpa_bytes() + at) / kPage);
    }
  }
  return pages;
}

// A stream of HarvestDirtyLog, with chunks of at most 160 extents. Each
// function that sends a message returns the daemon's next message, or an empty
// one at the end of the stream.
class Conversation {
 public:
  explicit Conversation(const TestClient& client)
      : stub_(client.channel()), stream_([&] {
          SetTimeout(kCallTimeout, &context_);
          return stub_.HarvestDirtyLog(&context_);
        }()) {}
  // Cancels the stream if it was not finished.
  ~Conversation() {
    if (is_finished_) return;
    context_.TryCancel();
    while (Hear().part_case() != Response::PART_NOT_SET) {
    }
    stream_->Finish();
  }
  Conversation(const Conversation&) = delete;
  Conversation& operator=(const Conversation&) = delete;

  Response Say(const Request& request) {
    stream_->Write(request);  // the answer shows whether it arrived
    return Hear();
  }
  Response Hear() {
    Response response;
    return stream_->Read(&response) ? response : Response();
  }
  Response Open(const std::string& vm, const std::string& token = kOwnerToken,
                int64_t window = 0) {
    Request request;
    request.mutable_open()->set_vm(vm);
    request.mutable_open()->set_owner_token(token);
    request.mutable_open()->set_window_chunk_count(window);
    request.mutable_open()->set_max_message_bytes(4096);
    request.mutable_open()->set_encoding(v1::DIRTY_LOG_ENCODING_EXTENTS);
    return Say(request);
  }
  Response Seal(int64_t acknowledged_epoch = 0) {
    Request request;
    request.mutable_seal()->set_acknowledged_epoch(acknowledged_epoch);
    return Say(request);
  }
  Response Clear(int64_t number) {
    Request request;
    request.mutable_clear()->set_number(number);
    return Say(request);
  }
  Response Acknowledge(int64_t epoch) {
    Request request;
    request.mutable_acknowledge()->set_epoch(epoch);
    return Say(request);
  }

  // To be called after a seal. Receives all chunks, clears each, and calls
  // `more` with the pages of each cleared chunk. Stops if `more` returns false.
  // Returns the number of dirty pages in the trailer, or -1 without a trailer.
  int64_t ClearAll(const std::function<bool(const PageSet&)>& more) {
    std::map<int64_t, PageSet> sent;
    int64_t count = -1;
    while (count < 0 || !sent.empty()) {
      const Response response = Hear();
      if (response.has_trailer()) {
        count = response.trailer().dirty_page_count();
      } else if (response.has_chunk()) {
        sent[response.chunk().number()] = PagesOf(response.chunk().pages());
        Request request;
        request.mutable_clear()->set_number(response.chunk().number());
        stream_->Write(request);
      } else if (response.has_cleared()) {
        const auto chunk = sent.find(response.cleared().number());
        if (chunk == sent.end()) return -1;
        if (!more(chunk->second)) return count;
        sent.erase(chunk);
      } else {
        ADD_FAILURE() << response.ShortDebugString();
        return -1;
      }
    }
    return count;
  }

  grpc::Status Finish() {
    is_finished_ = true;
    return stream_->Finish();
  }
  // Expects that the stream has ended, and returns the reason.
  std::string EndReason() {
    EXPECT_EQ(Hear().part_case(), Response::PART_NOT_SET);
    return ReasonOf(Finish());
  }

 private:
  grpc::ClientContext context_;
  v1::DirtyLogService::Stub stub_;
  const std::unique_ptr<grpc::ClientReaderWriter<Request, Response>> stream_;
  bool is_finished_ = false;
};

void TakeOver(const TestClient& client, const std::string& vm) {
  v1::AcquireDirtyLogRequest request;
  request.set_vm(vm);
  request.set_owner("the next");
  request.set_owner_token(kNextToken);
  request.set_force(true);
  client.Must(&v1::DirtyLogService::Stub::AcquireDirtyLog, request);
}

// A guest of 8 MiB that has written every second page. Its log has seven
// chunks.
class HarvestStreamTest : public ::testing::Test {
 protected:
  HarvestStreamTest() {
    guest_.StartDirtyLog();
    guest_.WritePages(kPages, 2);
    for (int64_t page = 0; page < kPages; page += 2) striped_.insert(page);
  }

  const std::string& vm() const { return guest_.name(); }

  // Moves slot 0 to `gpa_bytes`.
  void Move(int64_t gpa_bytes) const {
    v1::SetMemslotRequest request;
    request.set_vm(vm());
    *request.mutable_memslot() = MakeSlot(kPages * kPage);
    request.mutable_memslot()->set_gpa_bytes(gpa_bytes);
    daemon_.client().Must(&v1::VmService::Stub::SetMemslot, request);
  }
  void Delete() const {
    v1::DeleteMemslotRequest request;
    request.set_name(vm() + "/memslots/0");
    request.set_discard_undelivered(true);
    daemon_.client().Must(&v1::VmService::Stub::DeleteMemslot, request);
  }

  Daemon daemon_;
  const Guest guest_{daemon_.client(), "alpha", {MakeSlot(kPages * kPage)}};
  PageSet striped_;
};

// The daemon reads from the stream again only after it has sent all chunks that
// the window allows. So a chunk that the window wrongly allows would come
// before the answer to the clear.
TEST_F(HarvestStreamTest, NoChunkComesBeforeThereIsRoomInTheWindow) {
  Conversation stream(daemon_.client());
  ASSERT_TRUE(stream.Open(vm(), kOwnerToken, 2).has_opened());
  ASSERT_TRUE(stream.Seal().has_sealed());
  ASSERT_EQ(stream.Hear().chunk().number(), 1);
  ASSERT_EQ(stream.Hear().chunk().number(), 2);
  for (int64_t cleared = 1; cleared <= 5; ++cleared) {
    ASSERT_EQ(stream.Clear(cleared).cleared().number(), cleared);
    ASSERT_EQ(stream.Hear().chunk().number(), cleared + 2);
  }
  EXPECT_EQ(stream.Hear().trailer().chunk_count(), 7);
  // Chunks may be cleared in any order.
  EXPECT_EQ(stream.Clear(7).cleared().number(), 7);
  EXPECT_EQ(stream.Clear(6).cleared().number(), 6);
  EXPECT_EQ(stream.Acknowledge(1).acknowledged().acknowledged_page_count(),
            kPages / 2);
}

// The stream reads 128 MiB of this guest's log at a time, as one chunk. So
// another call can clear a page before the page's chunk is made.
TEST(HarvestStreamCountsTest, APageThatAnotherCallTookIsNotCountedForAChunk) {
  Daemon daemon;
  constexpr int64_t kSize = 512 * kMiB;
  constexpr int64_t kTaken = 300 * kMiB / kPage;
  const Guest guest(daemon.client(), "alpha",
                    {MakeSlot(kSize, v1::MEMORY_BACKING_METADATA_ONLY)});
  guest.StartDirtyLog();
  guest.WritePages(kSize / kPage, kMiB / kPage);
  Conversation stream(daemon.client());
  ASSERT_TRUE(stream.Open(guest.name(), kOwnerToken, 1).has_opened());
  ASSERT_EQ(stream.Seal().sealed().epoch(), 1);
  ASSERT_EQ(stream.Hear().chunk().number(), 1);
  ASSERT_TRUE(guest.Clear(1, {kTaken}).status.ok());
  for (int64_t number = 1; number <= 2; ++number) {
    ASSERT_EQ(stream.Clear(number).cleared().number(), number);
    const Response next = stream.Hear();
    ASSERT_EQ(next.chunk().number(), number + 1);
    ASSERT_EQ(PagesOf(next.chunk().pages()).count(kTaken), 0u);
  }
  const v1::ClearDirtyLogResponse third = stream.Clear(3).cleared().result();
  EXPECT_EQ(third.cleared_page_count(), 127);
  EXPECT_EQ(third.already_in_flight_page_count(), 0);
  EXPECT_EQ(third.already_clean_page_count(), 0);
}

TEST_F(HarvestStreamTest, ASecondSealSendsAllAgainAndEndsTheOldChunks) {
  Conversation stream(daemon_.client());
  ASSERT_TRUE(stream.Open(vm(), kOwnerToken, 1).has_opened());
  ASSERT_EQ(stream.Seal().sealed().epoch(), 1);
  ASSERT_EQ(stream.Hear().chunk().number(), 1);
  // The window is full, and the next chunk waits for room.
  const Response again = stream.Seal();
  ASSERT_EQ(again.sealed().epoch(), 2);
  EXPECT_EQ(again.sealed().slots(0).merged_page_count(), kPages / 2);
  const Response chunk = stream.Hear();
  ASSERT_EQ(chunk.chunk().number(), 2) << "numbers go on";
  EXPECT_EQ(chunk.chunk().pages().gpa_bytes(), 0);
  PageSet pages = PagesOf(chunk.chunk().pages());
  ASSERT_EQ(stream.Clear(2).cleared().result().cleared_page_count(),
            static_cast<int64_t>(pages.size()));
  EXPECT_EQ(stream.ClearAll([&pages](const PageSet& more) {
    pages.insert(more.begin(), more.end());
    return true;
  }),
            kPages / 2);
  EXPECT_EQ(pages, striped_);
  stream.Clear(1);
  EXPECT_EQ(stream.EndReason(), "EPOCH_MISMATCH");
}

TEST_F(HarvestStreamTest, AChunkOfBeforeASealCannotBeCleared) {
  Conversation stream(daemon_.client());
  ASSERT_TRUE(stream.Open(vm(), kOwnerToken, 1).has_opened());
  ASSERT_TRUE(stream.Seal().has_sealed());
  ASSERT_EQ(stream.Hear().chunk().number(), 1);
  ASSERT_TRUE(stream.Seal().has_sealed());
  ASSERT_EQ(stream.Hear().chunk().number(), 2);
  EXPECT_FALSE(stream.Clear(1).has_cleared());
  EXPECT_EQ(stream.EndReason(), "EPOCH_MISMATCH");
  EXPECT_EQ(guest_.GetDirtyLog().slots(0).sealed_page_count(), kPages / 2);
}

TEST_F(HarvestStreamTest, ATakeoverFencesAStreamAndLeavesItNothing) {
  Conversation stream(daemon_.client());
  ASSERT_TRUE(stream.Open(vm(), kOwnerToken, 1).has_opened());
  ASSERT_TRUE(stream.Seal().has_sealed());
  ASSERT_EQ(stream.Hear().chunk().number(), 1);
  ASSERT_TRUE(stream.Clear(1).has_cleared());
  ASSERT_EQ(stream.Hear().chunk().number(), 2);
  TakeOver(daemon_.client(), vm());
  EXPECT_FALSE(stream.Clear(2).has_cleared());
  EXPECT_EQ(stream.EndReason(), "LOG_FENCED");
  EXPECT_EQ(guest_.GetDirtyLog().slots(0).sealed_page_count(), kPages / 2)
      << "what was in flight is sealed again";
}

TEST_F(HarvestStreamTest, AChunkOfASlotThatWasMovedCannotBeCleared) {
  // Move the slot up and down, by more than a chunk and by less than 64 pages.
  for (const int64_t gpa_bytes : {32 * kMiB, 31 * kMiB, 31 * kMiB - kPage}) {
    Conversation stream(daemon_.client());
    ASSERT_TRUE(stream.Open(vm(), kOwnerToken, 1).has_opened());
    ASSERT_TRUE(stream.Seal().has_sealed());
    ASSERT_EQ(stream.Hear().chunk().number(), 1);
    Move(gpa_bytes);
    EXPECT_FALSE(stream.Clear(1).has_cleared());
    const grpc::Status status = stream.Finish();
    EXPECT_EQ(ReasonOf(status), "EPOCH_MISMATCH") << status.error_message();
    EXPECT_EQ(status.error_code(), grpc::StatusCode::ABORTED);
    EXPECT_EQ(FactsOf(status).field, "clear.number");
    EXPECT_EQ(guest_.GetDirtyLog().slots(0).in_flight_page_count(), 0);
  }
}

TEST_F(HarvestStreamTest, AChunkOfASlotThatWasDeletedCannotBeCleared) {
  Conversation stream(daemon_.client());
  ASSERT_TRUE(stream.Open(vm(), kOwnerToken, 1).has_opened());
  ASSERT_TRUE(stream.Seal().has_sealed());
  ASSERT_EQ(stream.Hear().chunk().number(), 1);
  Delete();
  EXPECT_FALSE(stream.Clear(1).has_cleared());
  EXPECT_EQ(stream.EndReason(), "MEMSLOT_NOT_FOUND");
}

TEST_F(HarvestStreamTest, AChunkOfASlotThatWasMadeAnewCannotBeCleared) {
  Conversation stream(daemon_.client());
  ASSERT_TRUE(stream.Open(vm(), kOwnerToken, 1).has_opened());
  ASSERT_TRUE(stream.Seal().has_sealed());
  ASSERT_EQ(stream.Hear().chunk().number(), 1);
  Delete();
  v1::SetMemslotRequest request;
  request.set_vm(vm());
  *request.mutable_memslot() = MakeSlot(64 * kPage);  // smaller than the chunk
  daemon_.client().Must(&v1::VmService::Stub::SetMemslot, request);
  EXPECT_FALSE(stream.Clear(1).has_cleared());
  EXPECT_EQ(stream.EndReason(), "EPOCH_MISMATCH");
}

// There are more streams than worker threads, and each stream has more to send
// than gRPC buffers.
TEST(HarvestStreamOfManyTest, PeersThatDoNotReadHoldNobodyUp) {
  constexpr int kPeers = 12;
  constexpr int64_t kManyPages = 65536;
  Daemon daemon;
  const Guest guest(
      daemon.client(), "alpha",
      {MakeSlot(kManyPages * kPage, v1::MEMORY_BACKING_METADATA_ONLY)});
  guest.StartDirtyLog();
  guest.WritePages(kManyPages, 2);
  std::vector<std::unique_ptr<TestClient>> clients;
  std::vector<std::unique_ptr<Conversation>> peers;
  Request open;
  open.mutable_open()->set_vm(guest.name());
  open.mutable_open()->set_owner_token(kOwnerToken);
  open.mutable_open()->set_window_chunk_count(64);
  open.mutable_open()->set_max_message_bytes(64 << 10);
  open.mutable_open()->set_encoding(v1::DIRTY_LOG_ENCODING_EXTENTS);
  for (int i = 0; i < kPeers; ++i) {
    clients.push_back(std::make_unique<TestClient>(daemon.address()));
    peers.push_back(std::make_unique<Conversation>(*clients.back()));
    ASSERT_TRUE(peers.back()->Say(open).has_opened());
    ASSERT_TRUE(peers.back()->Seal().has_sealed());
  }
  // Meanwhile another stream and unary calls are served.
  Conversation stream(daemon.client());
  ASSERT_TRUE(stream.Open(guest.name()).has_opened());
  ASSERT_TRUE(stream.Seal().has_sealed());
  int64_t cleared = 0;
  EXPECT_EQ(stream.ClearAll([&](const PageSet& pages) {
    cleared += static_cast<int64_t>(pages.size());
    return guest.GetDirtyLog().open_epoch() == kPeers + 2;
  }),
            kManyPages / 2);
  EXPECT_EQ(cleared, kManyPages / 2);
  EXPECT_TRUE(guest.Peek().complete);
  // The deletion of the VM does not wait for these streams either.
  v1::DeleteVmRequest remove;
  remove.set_name(guest.name());
  remove.set_force(true);
  daemon.client().Must(&v1::VmService::Stub::DeleteVm, remove);
}

// The first owner clears all chunks of its first epoch and copies every second
// one before another owner takes the log. The guest writes so rarely that a
// lost page is not written again before the end.
TEST(HarvestStreamMigrationTest, ATakeoverInItsMiddleLosesNothing) {
  constexpr int64_t kSize = 32 * kMiB;
  Daemon daemon;
  const Guest guest(daemon.client(), "alpha", {MakeSlot(kSize)}, 2);
  guest.StartDirtyLog();
  guest.WritePages(kSize / kPage, 2);
  guest.StartFewWrites(5);
  std::string copy(static_cast<size_t>(kSize), '\0');
  Conversation first(daemon.client());
  ASSERT_TRUE(first.Open(guest.name()).has_opened());
  ASSERT_TRUE(first.Seal().has_sealed());
  int64_t chunks = 0;
  EXPECT_GE(first.ClearAll([&](const PageSet& pages) {
    if (++chunks % 2 == 0) guest.Copy(pages, &copy);
    return true;
  }),
            kSize / kPage / 2);
  EXPECT_GT(chunks, 10);
  TakeOver(daemon.client(), guest.name());
  // The first owner does not know of the takeover, and tries to acknowledge
  // pages that it did not copy.
  EXPECT_FALSE(first.Acknowledge(1).has_acknowledged());
  EXPECT_EQ(first.EndReason(), "LOG_FENCED");

  Conversation next(daemon.client());
  ASSERT_TRUE(next.Open(guest.name(), kNextToken).has_opened());
  const auto round = [&] {
    const Response sealed = next.Seal();
    EXPECT_TRUE(sealed.has_sealed()) << sealed.ShortDebugString();
    const int64_t count = next.ClearAll([&](const PageSet& pages) {
      guest.Copy(pages, &copy);
      return true;
    });
    EXPECT_TRUE(next.Acknowledge(sealed.sealed().epoch()).has_acknowledged());
    return count;
  };
  EXPECT_GE(round(), kSize / kPage / 2) << "all that the first had in flight";
  for (int i = 0; i < 3; ++i) round();
  guest.PauseVcpus();
  round();
  EXPECT_EQ(round(), 0);
  EXPECT_TRUE(guest.ReadAll(kSize) == copy);
  EXPECT_NE(copy.find_first_not_of('\0'), std::string::npos);
  EXPECT_EQ(guest.Audit(), "");
}

// True if `path`, for example "clear.number" or "open.slots[1]", is a field of
// the message.
bool IsFieldOf(const google::protobuf::Descriptor* message,
               absl::string_view path) {
  for (const absl::string_view part : absl::StrSplit(path, '.')) {
    if (message == nullptr) return false;
    const google::protobuf::FieldDescriptor* field =
        message->FindFieldByName(std::string(part.substr(0, part.find('['))));
    if (field == nullptr) return false;
    message = field->message_type();
  }
  return true;
}

TEST(HarvestStreamErrorsTest, EveryErrorNamesAFieldOfTheRequest) {
  Daemon daemon;
  const Guest guest(daemon.client(), "alpha", {MakeSlot(kMiB)});
  guest.StartDirtyLog();
  guest.WritePages(4);
  const auto open = [&guest](const std::function<void(v1::HarvestOpen*)>& set) {
    Request request;
    request.mutable_open()->set_vm(guest.name());
    request.mutable_open()->set_owner_token(kOwnerToken);
    set(request.mutable_open());
    return request;
  };
  const Request good = open([](v1::HarvestOpen*) {});
  const auto part = [](const std::function<void(Request*)>& set) {
    Request request;
    set(&request);
    return request;
  };
  const Request seal = part([](Request* r) { r->mutable_seal(); });
  const auto clear = [&part](int64_t number) {
    return part([=](Request* r) { r->mutable_clear()->set_number(number); });
  };
  const auto acknowledge = [&part](int64_t epoch) {
    return part(
        [=](Request* r) { r->mutable_acknowledge()->set_epoch(epoch); });
  };
  const auto seal_after = [&part](int64_t epoch) {
    return part(
        [=](Request* r) { r->mutable_seal()->set_acknowledged_epoch(epoch); });
  };
  struct Case {
    std::vector<Request> says;
    std::string reason;
    std::string field;
    std::function<void()> before_last = [] {};
  };
  const std::string other = "00000000000000000000000000000001";
  const auto take_over = [&] { TakeOver(daemon.client(), guest.name()); };
  const auto stop = [&] {
    v1::StopDirtyLogRequest request;
    request.set_vm(guest.name());
    request.set_owner_token(kOwnerToken);
    request.set_discard_undelivered(true);
    daemon.client().Must(&v1::DirtyLogService::Stub::StopDirtyLog, request);
  };
  const auto stop_and_start = [&] {
    stop();
    guest.StartDirtyLog();
    guest.WritePages(4);
  };
  const auto seal_elsewhere = [&] { guest.Seal(); };
  using Open = v1::HarvestOpen;
  const std::vector<Case> cases = {
      {{seal}, "INVALID_REQUEST", "open"},
      {{good, good}, "INVALID_REQUEST", "open"},
      {{good, Request()}, "INVALID_REQUEST", "seal"},
      {{open([](Open* o) { o->set_vm("x"); })}, "INVALID_NAME", "open.vm"},
      {{open([](Open* o) { o->set_owner_token("x"); })},
       "INVALID_OWNER_TOKEN",
       "open.owner_token"},
      {{open([](Open* o) { o->set_owner_token("a stranger's token"); })},
       "LOG_OWNED",
       "open.owner_token"},
      {{open([](Open* o) { o->set_log_id("x"); })},
       "INVALID_LOG_ID",
       "open.log_id"},
      {{open([&](Open* o) { o->set_log_id(other); })},
       "LOG_CHANGED",
       "open.log_id"},
      {{open([](Open* o) { o->add_slots(-1); })},
       "INVALID_SLOT",
       "open.slots[0]"},
      {{open([](Open* o) { o->set_max_message_bytes(1); })},
       "INVALID_MESSAGE_SIZE",
       "open.max_message_bytes"},
      {{open([](Open* o) { o->set_window_chunk_count(65); })},
       "INVALID_RANGE",
       "open.window_chunk_count"},
      {{good, seal_after(-1)}, "EPOCH_UNKNOWN", "seal.acknowledged_epoch"},
      {{good, seal_after(999)}, "EPOCH_UNKNOWN", "seal.acknowledged_epoch"},
      {{good, acknowledge(-1)}, "EPOCH_UNKNOWN", "acknowledge.epoch"},
      {{good, acknowledge(999)}, "EPOCH_UNKNOWN", "acknowledge.epoch"},
      {{good, clear(7)}, "EPOCH_MISMATCH", "clear.number"},
      {{good, seal, clear(1)},
       "EPOCH_MISMATCH",
       "clear.number",
       seal_elsewhere},
      {{good, seal, clear(1)}, "LOG_CHANGED", "open.log_id", stop_and_start},
      {{good, seal}, "LOG_CHANGED", "open.log_id", stop_and_start},
      {{good, acknowledge(1)}, "LOG_CHANGED", "open.log_id", stop_and_start},
      {{good, seal, clear(1)}, "DIRTY_LOG_OFF", "open.vm", stop},
      {{good}, "DIRTY_LOG_OFF", "open.vm"},
      {{good, seal, clear(1)}, "LOG_FENCED", "open.owner_token", take_over},
  };
  for (const Case& wrong : cases) {
    SCOPED_TRACE(wrong.reason + " " + wrong.field);
    // The last case needs the log, which an earlier case has stopped.
    if (&wrong == &cases.back()) {
      guest.StartDirtyLog();
      guest.WritePages(4);
    }
    Conversation stream(daemon.client());
    for (size_t i = 0; i + 1 < wrong.says.size(); ++i) {
      ASSERT_NE(stream.Say(wrong.says[i]).part_case(), Response::PART_NOT_SET);
    }
    if (wrong.says.size() == 3) {  // after a seal
      ASSERT_EQ(stream.Hear().chunk().number(), 1);
      ASSERT_TRUE(stream.Hear().has_trailer());
    }
    wrong.before_last();
    EXPECT_EQ(stream.Say(wrong.says.back()).part_case(),
              Response::PART_NOT_SET);
    const ErrorFacts facts = FactsOf(stream.Finish());
    EXPECT_EQ(facts.reason, wrong.reason);
    EXPECT_EQ(facts.field, wrong.field);
    EXPECT_TRUE(IsFieldOf(Request::descriptor(), facts.field));
    if (!facts.violated_field.empty()) {
      EXPECT_EQ(facts.violated_field, facts.field);
    }
  }
  EXPECT_FALSE(IsFieldOf(Request::descriptor(), "clear.epoch"));
}

}  // namespace
}  // namespace mmud::integration
