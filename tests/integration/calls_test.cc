// Many calls at once: none takes what another kind needs, and who is refused
// hears by which limit.

#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "google/longrunning/operations.grpc.pb.h"
#include "google/protobuf/descriptor.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "mmud/v1/vm_service.grpc.pb.h"
#include "tests/integration/daemon.h"
#include "tests/integration/guest.h"
#include "tests/integration/metrics_text.h"

namespace mmud::integration {
namespace {

using google::longrunning::Operation;
using google::longrunning::Operations;
using google::longrunning::WaitOperationRequest;

// Calls in flight that need no thread of the test. All have ended when this
// goes.
template <typename Request, typename Response>
class Calls {
 public:
  // Starts a call of a callback stub.
  using Start =
      std::function<void(grpc::ClientContext*, const Request*, Response*,
                         std::function<void(grpc::Status)>)>;
  struct Call {
    grpc::ClientContext context;
    Request request;
    Response response;
    grpc::Status status;
    std::atomic<bool> ended{false};
  };

  explicit Calls(Start start) : start_(std::move(start)) {}
  ~Calls() {
    for (Call& call : calls_) call.context.TryCancel();
    Join();
  }

  Call& Add(const Request& request) {
    Call& call = calls_.emplace_back();
    call.request = request;
    SetTimeout(absl::Minutes(2), &call.context);
    start_(&call.context, &call.request, &call.response,
           [&call](grpc::Status status) {
             call.status = std::move(status);
             call.ended = true;
           });
    return call;
  }

  int ended() const {
    int count = 0;
    for (const Call& call : calls_) count += call.ended ? 1 : 0;
    return count;
  }
  // Waits for the end of all.
  void Join() const {
    EXPECT_TRUE(Eventually(
        [this] { return ended() == static_cast<int>(calls_.size()); }));
  }
  const std::deque<Call>& all() const { return calls_; }

 private:
  const Start start_;
  std::deque<Call> calls_;
};

v1::LimitUse UseOf(const TestClient& client, const std::string& name) {
  const v1::GetCapabilitiesResponse capabilities = client.Must(
      &v1::VmService::Stub::GetCapabilities, v1::GetCapabilitiesRequest());
  for (const v1::LimitUse& use : capabilities.limits()) {
    if (use.name() == name) return use;
  }
  ADD_FAILURE() << "no limit " << name;
  return {};
}

// Huge pages to split, and a throttle with which that takes for ever.
class SlowGuest {
 public:
  explicit SlowGuest(const Daemon& daemon)
      : guest_(daemon.client(), "slow",
               {MakeSlot(64 * kMiB, v1::MEMORY_BACKING_METADATA_ONLY,
                         v1::PAGE_SIZE_2M)}),
        stub_(daemon.client().channel()),
        starts_([this](auto* context, const auto* request, auto* response,
                       auto done) {
          stub_.async()->StartDirtyLog(context, request, response,
                                       std::move(done));
        }) {
    guest_.ReadWords(64 * kMiB, 2 * kMiB);
  }

  void StartDirtyLog() {
    v1::StartDirtyLogRequest request;
    request.set_vm(guest_.name());
    request.mutable_throttle()->set_max_pages_per_second(1);
    starts_.Add(request);
  }
  const Guest& guest() const { return guest_; }
  int ended() const { return starts_.ended(); }

 private:
  const Guest guest_;
  v1::DirtyLogService::Stub stub_;
  Calls<v1::StartDirtyLogRequest, v1::StartDirtyLogResponse> starts_;
};

TEST(CallsTest, SlowCallsTakeNothingThatAnotherVmNeeds) {
  Daemon daemon;
  const Guest other(daemon.client(), "other", {MakeSlot(kMiB)});
  other.WritePages(1);
  SlowGuest slow(daemon);
  for (int i = 0; i < 63; ++i) slow.StartDirtyLog();
  EXPECT_TRUE(Eventually([&] {
    return UseOf(daemon.client(), "max_long_calls").used_count() == 63;
  }));
  v1::VmService::Stub stub(daemon.client().channel());
  Calls<v1::GetVmRequest, v1::GetVmResponse> gets(
      [&stub](auto* context, const auto* request, auto* response, auto done) {
        stub.async()->GetVm(context, request, response, std::move(done));
      });
  v1::GetVmRequest get;
  get.set_name(other.name());
  for (int i = 0; i < 1000; ++i) gets.Add(get);
  gets.Join();
  for (const auto& call : gets.all()) {
    ASSERT_TRUE(call.status.ok()) << call.status.error_message();
  }
  // Changes and streams go on, too.
  const Guest third(daemon.client(), "third", {MakeSlot(kMiB)});
  EXPECT_EQ(other.ReadAll(kPage).size(), static_cast<size_t>(kPage));
  EXPECT_EQ(slow.ended(), 0);
}

TEST(CallsTest, AnyNumberOfWaitsLeavesRoomForStreamsAndIsAnsweredAtTheEnd) {
  Daemon daemon;
  const Guest guest(daemon.client(), "alpha", {MakeSlot(kMiB)});
  guest.WritePages(1);
  WaitOperationRequest request;
  request.set_name(guest.StartRandomWrites(1));
  Operations::Stub stub(daemon.client().channel());
  Calls<WaitOperationRequest, Operation> waits(
      [&stub](auto* context, const auto* wait, auto* response, auto done) {
        stub.async()->WaitOperation(context, wait, response, std::move(done));
      });
  for (int i = 0; i < 200; ++i) waits.Add(request);
  EXPECT_TRUE(Eventually(
      [&] { return UseOf(daemon.client(), "max_waits").used_count() == 200; }));
  EXPECT_EQ(waits.ended(), 0);
  EXPECT_EQ(UseOf(daemon.client(), "max_streams").used_count(), 0);
  EXPECT_EQ(guest.ReadAll(kPage).size(), static_cast<size_t>(kPage));
  guest.StopWorkload();
  waits.Join();
  for (const auto& call : waits.all()) {
    EXPECT_TRUE(call.status.ok()) << call.status.error_message();
    EXPECT_TRUE(call.response.done());
  }
  EXPECT_EQ(UseOf(daemon.client(), "max_waits").used_count(), 0);
}

TEST(CallsTest, AWaitBeyondItsLimitIsRefusedAndNotAnsweredAtOnce) {
  Daemon daemon({"--max-waits=2"});
  const Guest guest(daemon.client(), "alpha", {MakeSlot(kMiB)});
  WaitOperationRequest request;
  request.set_name(guest.StartRandomWrites(1));
  Operations::Stub stub(daemon.client().channel());
  {
    Calls<WaitOperationRequest, Operation> waits(
        [&stub](auto* context, const auto* wait, auto* response, auto done) {
          stub.async()->WaitOperation(context, wait, response, std::move(done));
        });
    waits.Add(request);
    waits.Add(request);
    EXPECT_TRUE(Eventually(
        [&] { return UseOf(daemon.client(), "max_waits").used_count() == 2; }));
    const auto third =
        daemon.client().Call(&Operations::Stub::WaitOperation, request);
    EXPECT_EQ(third.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
    const ErrorFacts facts = FactsOf(third.status);
    EXPECT_EQ(facts.reason, "LIMIT_EXCEEDED");
    EXPECT_EQ(facts.limit, "max_waits");
    EXPECT_TRUE(facts.has_retry_info);
    EXPECT_EQ(waits.ended(), 0);
  }
  // Who leaves gives its place back.
  EXPECT_TRUE(Eventually(
      [&] { return UseOf(daemon.client(), "max_waits").used_count() == 0; }));
  const v1::LimitUse use = UseOf(daemon.client(), "max_waits");
  EXPECT_EQ(use.limit_count(), 2);
  EXPECT_EQ(use.refused_count(), 1);
  const absl::StatusOr<Metrics> metrics = ParseMetrics(daemon.MetricsText());
  ASSERT_TRUE(metrics.ok()) << metrics.status();
  EXPECT_EQ(metrics->Value("mmud_limit{limit=\"max_waits\"}"), 2);
  EXPECT_EQ(metrics->Value("mmud_limit_used{limit=\"max_waits\"}"), 0);
  EXPECT_EQ(metrics->Value("mmud_limit_exceeded_total{limit=\"max_waits\"}"),
            1);
  guest.StopWorkload();
}

TEST(CallsTest, ALongCallBeyondItsLimitIsRefusedAndShortOnesAreServed) {
  Daemon daemon({"--max-long-calls=1", "--max-rpc-threads=1"});
  SlowGuest slow(daemon);
  slow.StartDirtyLog();
  EXPECT_TRUE(Eventually([&] {
    return UseOf(daemon.client(), "max_long_calls").used_count() == 1;
  }));
  const grpc::Status refused =
      daemon.client()
          .CallText("mmud.v1.VmService/CreateVm", "vm_id: 'new' vm {}")
          .status;
  EXPECT_EQ(ReasonOf(refused), "LIMIT_EXCEEDED");
  EXPECT_EQ(FactsOf(refused).limit, "max_long_calls");
  EXPECT_TRUE(FactsOf(refused).has_retry_info);
  EXPECT_TRUE(
      daemon.client().CallText("mmud.v1.VmService/ListVms", "").status.ok());
}

TEST(CallsTest, StreamsHaveALimitInAllAndOneOfEachVm) {
  Daemon daemon({"--max-streams=3", "--max-streams-per-vm=2"});
  const Guest alpha(daemon.client(), "alpha", {MakeSlot(64 * kMiB)});
  const Guest beta(daemon.client(), "beta", {MakeSlot(64 * kMiB)});
  alpha.WritePages(64 * kMiB / kPage);
  beta.WritePages(64 * kMiB / kPage);
  struct Stream {
    grpc::ClientContext context;
    std::unique_ptr<grpc::ClientReader<v1::ReadPagesResponse>> reader;
    v1::ReadPagesResponse response;
  };
  v1::GuestMemoryService::Stub stub(daemon.client().channel());
  std::deque<Stream> streams;
  // Reads one message and no more: the limit that refused it, or "".
  const auto open = [&](const Guest& guest) -> std::string {
    Stream& stream = streams.emplace_back();
    v1::ReadPagesRequest request;
    request.set_vm(guest.name());
    request.add_extents()->set_size_bytes(64 * kMiB);
    SetTimeout(absl::Minutes(2), &stream.context);
    stream.reader = stub.ReadPages(&stream.context, request);
    if (stream.reader->Read(&stream.response)) return "";
    const grpc::Status status = stream.reader->Finish();
    streams.pop_back();
    EXPECT_EQ(ReasonOf(status), "LIMIT_EXCEEDED") << status.error_message();
    EXPECT_TRUE(FactsOf(status).has_retry_info);
    return FactsOf(status).limit;
  };
  EXPECT_EQ(open(alpha), "");
  EXPECT_EQ(open(alpha), "");
  EXPECT_EQ(open(alpha), "max_streams_per_vm");
  EXPECT_EQ(open(beta), "");
  EXPECT_EQ(open(beta), "max_streams");
  // None of them reads, and other calls are served.
  EXPECT_EQ(alpha.Get().name(), alpha.name());
  EXPECT_EQ(UseOf(daemon.client(), "max_streams").used_count(), 3);
  EXPECT_EQ(UseOf(daemon.client(), "max_streams_per_vm").used_count(), 2);
  for (Stream& stream : streams) {
    stream.context.TryCancel();
    stream.reader->Finish();
  }
  streams.clear();
  EXPECT_TRUE(Eventually(
      [&] { return UseOf(daemon.client(), "max_streams").used_count() == 0; }));
  EXPECT_EQ(open(beta), "");
  streams.front().context.TryCancel();
  streams.front().reader->Finish();
}

TEST(CallsTest, BytesThatAreNoRequestAreRefusedByEveryMethod) {
  Daemon daemon;
  const auto* pool = google::protobuf::DescriptorPool::generated_pool();
  int methods = 0;
  for (const char* name :
       {"mmud.v1.VmService", "mmud.v1.WorkloadService",
        "mmud.v1.DirtyLogService", "mmud.v1.GuestMemoryService",
        "mmud.v1.SplitService", "mmud.v1.AgingService", "mmud.v1.StatsService",
        "mmud.v1.AdminService", "mmud.v1.DebugService",
        "google.longrunning.Operations"}) {
    const auto* service = pool->FindServiceByName(name);
    ASSERT_NE(service, nullptr) << name;
    for (int i = 0; i < service->method_count(); ++i) {
      const std::string method =
          absl::StrCat(name, "/", service->method(i)->name());
      const grpc::Status status =
          daemon.client().CallRaw(method, "\xff\xff").status;
      EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT)
          << method;
      EXPECT_EQ(ReasonOf(status), "INVALID_REQUEST")
          << method << " " << status.error_message();
      ++methods;
    }
  }
  EXPECT_GT(methods, 30);
}

}  // namespace
}  // namespace mmud::integration
