// Many concurrent calls: the calls of one kind take no place of another kind,
// and an error of a refused call names the limit.

#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "google/longrunning/operations.grpc.pb.h"
#include "google/protobuf/descriptor.h"
#include "grpc/reflection/v1alpha/reflection.grpc.pb.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "mmud/v1/debug_service.pb.h"
#include "mmud/v1/vm_service.grpc.pb.h"
#include "tests/integration/daemon.h"
#include "tests/integration/guest.h"
#include "tests/integration/metrics_text.h"

namespace mmud::integration {
namespace {

using google::longrunning::Operation;
using google::longrunning::Operations;
using google::longrunning::WaitOperationRequest;

// A slot for an operation that continues until it is cancelled.
v1::Memslot HugeSlot() {
  return MakeSlot(4 * kMiB, v1::MEMORY_BACKING_ANONYMOUS, v1::PAGE_SIZE_2M);
}

// Concurrent calls that need no thread of the test. The destructor waits until
// all have ended.
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
  // Waits until all calls have ended.
  void Join() const {
    EXPECT_TRUE(Eventually(
        [this] { return ended() == static_cast<int>(calls_.size()); }));
  }
  const std::deque<Call>& all() const { return calls_; }

 private:
  const Start start_;
  std::deque<Call> calls_;
};

double MetricOf(const Daemon& daemon, const std::string& series) {
  const absl::StatusOr<Metrics> metrics = ParseMetrics(daemon.MetricsText());
  EXPECT_TRUE(metrics.ok()) << metrics.status();
  return metrics.ok() ? metrics->Value(series) : -1;
}

TEST(CallsTest, AnyNumberOfWaitsLeavesRoomForStreamsAndIsAnsweredAtTheEnd) {
  Daemon daemon;
  const Guest guest(daemon.client(), "alpha", {HugeSlot()});
  WaitOperationRequest request;
  request.set_name(guest.StartLongOperation());
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
  daemon.client().Cancel(request.name());
  waits.Join();
  for (const auto& call : waits.all()) {
    EXPECT_TRUE(call.status.ok()) << call.status.error_message();
    EXPECT_TRUE(call.response.done());
  }
  EXPECT_TRUE(Eventually(
      [&] { return UseOf(daemon.client(), "max_waits").used_count() == 0; }));
}

TEST(CallsTest, AWaitBeyondItsLimitIsRefusedAndNotAnsweredAtOnce) {
  Daemon daemon({"--max-waits=2"});
  const Guest guest(daemon.client(), "alpha", {HugeSlot()});
  WaitOperationRequest request;
  request.set_name(guest.StartLongOperation());
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
  // A cancelled call gives its place back.
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
  daemon.client().Cancel(request.name());
}

// A start with a slow throttle takes no place and no thread of the calls.
TEST(CallsTest, AThrottledStartOfADirtyLogIsAnOperation) {
  Daemon daemon({"--max-long-calls=1"});
  const TestClient& client = daemon.client();
  const Guest guest(client, "slow",
                    {MakeSlot(64 * kMiB, v1::MEMORY_BACKING_METADATA_ONLY,
                              v1::PAGE_SIZE_2M)});
  // A call keeps its place until a moment after its answer.
  const auto no_call_is_in_hand = [&client] {
    return UseOf(client, "max_long_calls").used_count() == 0;
  };
  EXPECT_TRUE(Eventually(no_call_is_in_hand));
  guest.ReadWords(64 * kMiB, 2 * kMiB);
  EXPECT_TRUE(Eventually(no_call_is_in_hand));
  v1::StartDirtyLogRequest request;
  request.set_vm(guest.name());
  request.set_owner(kOwner);
  request.set_owner_token(kOwnerToken);
  request.mutable_throttle()->set_max_pages_per_second(1);
  const std::string name =
      client.Must(&v1::DirtyLogService::Stub::StartDirtyLog, request).name();
  EXPECT_TRUE(Eventually([&] {
    return Unpack<v1::StartDirtyLogMetadata>(
               client.GetOperation(name).metadata())
               .done_bytes() > 0;
  }));
  EXPECT_TRUE(Eventually(no_call_is_in_hand)) << "and the start is at work";
  const auto metadata =
      Unpack<v1::StartDirtyLogMetadata>(client.GetOperation(name).metadata());
  EXPECT_EQ(metadata.vm(), guest.name());
  EXPECT_EQ(metadata.vm_uid(), guest.Get().uid());
  EXPECT_EQ(metadata.owner(), kOwner);
  EXPECT_EQ(metadata.state(), v1::START_DIRTY_LOG_STATE_SPLITTING);
  EXPECT_EQ(metadata.total_bytes(), 64 * kMiB);
  EXPECT_EQ(metadata.ShortDebugString().find(kOwnerToken), std::string::npos);
  EXPECT_EQ(
      ReasonOf(client.Call(&v1::DirtyLogService::Stub::StartDirtyLog, request)
                   .status),
      "DIRTY_LOG_STARTING");
  google::longrunning::CancelOperationRequest cancel;
  cancel.set_name(name);
  client.Must(&google::longrunning::Operations::Stub::CancelOperation, cancel);
  const auto cancelled = client.WaitDone(name);
  EXPECT_EQ(cancelled.error().code(), grpc::StatusCode::CANCELLED);
  EXPECT_EQ(guest.Get().memslots(0).dirty_log().state(),
            v1::DIRTY_LOG_STATE_OFF);
  EXPECT_TRUE(Eventually(no_call_is_in_hand));
  request.clear_throttle();
  guest.StartDirtyLog(request);
}

// Calls whose answers arrive but are not read. They use a connection of their
// own, which does not read ahead.
class UnreadCalls {
 public:
  explicit UnreadCalls(const Daemon& daemon) : stub_(Connect(daemon)) {}
  ~UnreadCalls() {
    for (Call& call : calls_) call.context.TryCancel();
    calls_.clear();
    queue_.Shutdown();
    void* tag = nullptr;
    bool ok = false;
    while (queue_.Next(&tag, &ok)) {
    }
  }

  void Add(const std::string& method,
           const google::protobuf::Message& request) {
    Call& call = calls_.emplace_back();
    call.stream = stub_.PrepareCall(&call.context, "/" + method, &queue_);
    call.stream->StartCall(nullptr);
    EXPECT_TRUE(Next());
    const grpc::Slice slice(request.SerializeAsString());
    call.stream->WriteLast(grpc::ByteBuffer(&slice, 1), grpc::WriteOptions(),
                           nullptr);
    EXPECT_TRUE(Next());
  }

 private:
  struct Call {
    grpc::ClientContext context;
    std::unique_ptr<grpc::GenericClientAsyncReaderWriter> stream;
  };
  static std::shared_ptr<grpc::Channel> Connect(const Daemon& daemon) {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
    arguments.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, 5);
    return grpc::CreateCustomChannel(
        daemon.address(), grpc::InsecureChannelCredentials(), arguments);
  }
  bool Next() {
    void* tag = nullptr;
    bool ok = false;
    return queue_.Next(&tag, &ok) && ok;
  }

  grpc::GenericStub stub_;
  grpc::CompletionQueue queue_;
  std::deque<Call> calls_;
};

TEST(CallsTest, LongCallsHaveALimitInAllAndOneOfEachVm) {
  Daemon daemon({"--max-long-calls=3", "--max-long-calls-per-vm=2"});
  const TestClient& client = daemon.client();
  const Guest alpha(client, "alpha", {MakeSlot(kMiB)});
  const Guest beta(client, "beta", {MakeSlot(kMiB)});
  const auto used = [&] {
    return UseOf(client, "max_long_calls").used_count();
  };
  EXPECT_TRUE(Eventually([&] { return used() == 0; }));
  const auto expect_refused = [&](const std::string& limit) {
    const grpc::Status refused =
        client
            .CallText("mmud.v1.VmService/DeleteMemslot",
                      "name: 'vms/alpha/memslots/0'")
            .status;
    EXPECT_EQ(ReasonOf(refused), "LIMIT_EXCEEDED");
    EXPECT_EQ(FactsOf(refused).limit, limit);
    EXPECT_TRUE(FactsOf(refused).has_retry_info);
    EXPECT_EQ(
        MetricOf(daemon, absl::StrCat("mmud_limit_exceeded_total{limit=\"",
                                      limit, "\"}")),
        1);
  };
  UnreadCalls unread(daemon);
  v1::RunAuditRequest audit;
  audit.set_vm(alpha.name());
  unread.Add("mmud.v1.DebugService/RunAudit", audit);
  unread.Add("mmud.v1.DebugService/RunAudit", audit);
  EXPECT_TRUE(Eventually([&] {
    return UseOf(client, "max_long_calls_per_vm").used_count() == 2;
  }));
  expect_refused("max_long_calls_per_vm");
  EXPECT_EQ(beta.StartDirtyLog().dirty_log().slots_size(), 1);
  EXPECT_TRUE(Eventually([&] { return used() == 2; }));
  audit.set_vm(beta.name());
  unread.Add("mmud.v1.DebugService/RunAudit", audit);
  EXPECT_TRUE(Eventually([&] { return used() == 3; }));
  expect_refused("max_long_calls");
}

TEST(CallsTest, ACallKeepsItsPlaceUntilItsAnswerHasLeft) {
  Daemon daemon({"--max-short-calls=2"});
  const Guest guest(daemon.client(), "alpha", {MakeSlot(kMiB)});
  const std::string used = "mmud_limit_used{limit=\"max_short_calls\"}";
  {
    UnreadCalls unread(daemon);
    v1::GetVmRequest get;
    get.set_name(guest.name());
    unread.Add("mmud.v1.VmService/GetVm", get);
    unread.Add("mmud.v1.VmService/GetVm", get);
    EXPECT_TRUE(Eventually([&] {
      return MetricOf(daemon,
                      "grpc_server_handled_total{grpc_code=\"OK\","
                      "grpc_method=\"GetVm\","
                      "grpc_service=\"mmud.v1.VmService\","
                      "grpc_type=\"unary\"}") == 2;
    }));
    EXPECT_EQ(MetricOf(daemon, used), 2) << "done, and not taken";
    const grpc::Status refused =
        daemon.client().CallText("mmud.v1.VmService/ListVms", "").status;
    EXPECT_EQ(FactsOf(refused).limit, "max_short_calls");
  }
  EXPECT_TRUE(Eventually([&] { return MetricOf(daemon, used) == 0; }));
  EXPECT_TRUE(
      daemon.client().CallText("mmud.v1.VmService/ListVms", "").status.ok());
}

TEST(CallsTest, AConnectionCarriesSoManyCallsAndItsClientKeepsTheOthers) {
  constexpr int kMost = 1024;
  Daemon daemon({"--max-waits=2000"});
  const Guest guest(daemon.client(), "alpha", {HugeSlot()});
  WaitOperationRequest request;
  request.set_name(guest.StartLongOperation());
  const TestClient other(daemon.address());
  Operations::Stub stub(other.channel());
  Calls<WaitOperationRequest, Operation> waits(
      [&stub](auto* context, const auto* wait, auto* response, auto done) {
        stub.async()->WaitOperation(context, wait, response, std::move(done));
      });
  for (int i = 0; i < kMost + 100; ++i) waits.Add(request);
  const auto used = [&] {
    return UseOf(daemon.client(), "max_waits").used_count();
  };
  EXPECT_TRUE(Eventually([&] { return used() >= kMost; }));
  for (int i = 0; i < 100; ++i) EXPECT_EQ(used(), kMost);
  EXPECT_EQ(waits.ended(), 0);
  daemon.client().Cancel(request.name());
  waits.Join();
  for (const auto& call : waits.all()) {
    EXPECT_TRUE(call.status.ok()) << call.status.error_message();
  }
}

TEST(CallsTest, StreamsOfReflectionHaveNoThreadAndALimitOfTheirOwn) {
  using grpc::reflection::v1alpha::ServerReflection;
  using grpc::reflection::v1alpha::ServerReflectionRequest;
  using grpc::reflection::v1alpha::ServerReflectionResponse;
  Daemon daemon({"--max-reflections=40"});
  ServerReflection::Stub stub(daemon.client().channel());
  struct Stream {
    grpc::ClientContext context;
    std::unique_ptr<grpc::ClientReaderWriter<ServerReflectionRequest,
                                             ServerReflectionResponse>>
        stream;
  };
  ServerReflectionRequest request;
  request.set_list_services("");
  ServerReflectionResponse response;
  const double threads = MetricOf(daemon, "process_threads");
  std::deque<Stream> streams;
  for (int i = 0; i < 40; ++i) {
    Stream& open = streams.emplace_back();
    open.stream = stub.ServerReflectionInfo(&open.context);
    // The daemon has answered, and the stream stays open.
    ASSERT_TRUE(open.stream->Write(request));
    ASSERT_TRUE(open.stream->Read(&response));
    EXPECT_GT(response.list_services_response().service_size(), 10);
  }
  EXPECT_LT(MetricOf(daemon, "process_threads"), threads + 20);
  EXPECT_EQ(UseOf(daemon.client(), "max_reflections").used_count(), 40);
  grpc::ClientContext context;
  const auto refused = stub.ServerReflectionInfo(&context);
  EXPECT_FALSE(refused->Read(&response));
  const grpc::Status status = refused->Finish();
  EXPECT_EQ(ReasonOf(status), "LIMIT_EXCEEDED");
  EXPECT_EQ(FactsOf(status).limit, "max_reflections");
  for (Stream& open : streams) {
    EXPECT_TRUE(open.stream->WritesDone());
    EXPECT_TRUE(open.stream->Finish().ok());
  }
  EXPECT_TRUE(Eventually([&] {
    return UseOf(daemon.client(), "max_reflections").used_count() == 0;
  }));
  // The message is not a valid request.
  const std::string method =
      "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";
  EXPECT_EQ(ReasonOf(daemon.client().CallRaw(method, "\xff\xff").status),
            "INVALID_REQUEST");
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
  // Opens a stream and reads one message. Returns the limit that refused the
  // stream, or "".
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
  // Other calls are served although no client reads its stream.
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
       {"mmud.v1.VmService", "mmud.lab.v1.WorkloadService",
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
