// Sends 10,000 malformed requests to all methods of every service: random
// bytes, and valid messages that were changed at random.

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "gtest/gtest.h"
#include "tests/fuzz/any_message.h"
#include "tests/fuzz/mutation.h"
#include "tests/integration/daemon.h"
#include "tests/integration/guest.h"

namespace mmud::integration {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::DescriptorPool;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::MessageFactory;
using google::protobuf::MethodDescriptor;
using google::protobuf::Reflection;
using google::protobuf::ServiceDescriptor;

constexpr int kRequests = 10'000;
constexpr int64_t kSealedEpoch = 1;  // the first of a log
constexpr uint32_t kSeed = 20240229;
// Long enough for an answer, short enough for a call that waits until its
// deadline.
constexpr absl::Duration kTimeout = absl::Milliseconds(500);

using fuzz::Below;
using fuzz::Fill;
using fuzz::Random;

std::vector<const MethodDescriptor*> AllMethods() {
  std::vector<const MethodDescriptor*> methods;
  const auto* pool = DescriptorPool::generated_pool();
  for (const char* file :
       {"mmud/lab/v1/workload_service.proto", "mmud/v1/admin_service.proto",
        "mmud/v1/aging_service.proto", "mmud/v1/debug_service.proto",
        "mmud/v1/dirty_log_service.proto", "mmud/v1/guest_memory_service.proto",
        "mmud/v1/split_service.proto", "mmud/v1/stats_service.proto",
        "mmud/v1/vm_service.proto", "google/longrunning/operations.proto"}) {
    const auto* descriptor = pool->FindFileByName(file);
    EXPECT_NE(descriptor, nullptr) << file;
    if (descriptor == nullptr) continue;
    for (int i = 0; i < descriptor->service_count(); ++i) {
      const ServiceDescriptor* service = descriptor->service(i);
      for (int j = 0; j < service->method_count(); ++j) {
        methods.push_back(service->method(j));
      }
    }
  }
  return methods;
}

// Names an existing VM, so that the daemon checks more than the VM's name.
void NameTheVm(Message* message) {
  const Descriptor& descriptor = *message->GetDescriptor();
  const FieldDescriptor* vm = descriptor.FindFieldByName("vm");
  if (vm != nullptr && vm->type() == FieldDescriptor::TYPE_STRING) {
    message->GetReflection()->SetString(message, vm, "vms/alpha");
  }
}

// Sets the token of the log's owner and the epoch that TidyUp seals, so that
// the daemon checks more than these.
void NameTheOwner(Message* message) {
  const Descriptor& descriptor = *message->GetDescriptor();
  const Reflection& reflection = *message->GetReflection();
  const FieldDescriptor* token = descriptor.FindFieldByName("owner_token");
  if (token == nullptr) return;
  reflection.SetString(message, token, kOwnerToken);
  const FieldDescriptor* epoch = descriptor.FindFieldByName("epoch");
  if (epoch != nullptr) reflection.SetInt64(message, epoch, kSealedEpoch);
  for (const char* name : {"log_id", "request_id"}) {
    const FieldDescriptor* field = descriptor.FindFieldByName(name);
    if (field != nullptr) reflection.ClearField(message, field);
  }
}

// The messages that begin a stream of HarvestDirtyLog: the stream is open, and
// a round may be in progress. So the daemon checks more than the first message.
std::vector<std::string> BeginHarvest(Random& random) {
  v1::HarvestDirtyLogRequest open;
  open.mutable_open()->set_vm("vms/alpha");
  open.mutable_open()->set_owner_token(kOwnerToken);
  std::vector<std::string> messages = {open.SerializeAsString()};
  if (Below(random, 2) == 0) {
    v1::HarvestDirtyLogRequest seal;
    seal.mutable_seal();
    messages.push_back(seal.SerializeAsString());
  }
  return messages;
}

std::string Bend(std::string bytes, Random& random) {
  if (bytes.empty()) return bytes;
  const size_t at = Below(random, bytes.size());
  switch (Below(random, 5)) {
    case 0:
      bytes[at] = static_cast<char>(bytes[at] ^ (1 << Below(random, 8)));
      return bytes;
    case 1:
      return bytes.substr(0, at);
    case 2:
      // A varint of eleven bytes; the longest valid one has ten.
      return bytes.insert(at, std::string(11, '\xff'));
    case 3:
      // A length that reaches far beyond the end of the message.
      return bytes + "\x0a\xff\xff\xff\xff\x07";
    default:
      return bytes + bytes;
  }
}

std::string MalformedRequest(const MethodDescriptor& method, Random& random) {
  const uint64_t kind = Below(random, 10);
  if (kind == 0) {
    std::string bytes(Below(random, 200), '\0');
    for (char& c : bytes) c = static_cast<char>(random());
    return bytes;
  }
  const std::unique_ptr<Message> message(MessageFactory::generated_factory()
                                             ->GetPrototype(method.input_type())
                                             ->New());
  Fill(message.get(), 4, random);
  if (Below(random, 4) != 0) NameTheVm(message.get());
  if (Below(random, 2) != 0) NameTheOwner(message.get());
  // The bytes depend only on the seed, except for the order of maps.
  std::string bytes = message->SerializePartialAsString();
  return kind < 4 ? Bend(std::move(bytes), random) : bytes;
}

// Whether the daemon can parse the bytes as a message.
bool Parses(const MethodDescriptor& method, const std::string& bytes) {
  const std::unique_ptr<Message> message(MessageFactory::generated_factory()
                                             ->GetPrototype(method.input_type())
                                             ->New());
  return message->ParseFromString(bytes);
}

// Stops all workloads and deletes all operations and all VMs but alpha, so that
// they do not accumulate.
void TidyUp(const TestClient& client) {
  const auto workloads =
      client.Must(&lab::v1::WorkloadService::Stub::ListWorkloads,
                  lab::v1::ListWorkloadsRequest());
  for (const lab::v1::Workload& workload : workloads.workloads()) {
    lab::v1::StopWorkloadRequest stop;
    stop.set_name(workload.name());
    client.Call(&lab::v1::WorkloadService::Stub::StopWorkload, stop);
  }
  const auto operations =
      client.Must(&google::longrunning::Operations::Stub::ListOperations,
                  google::longrunning::ListOperationsRequest());
  for (const auto& operation : operations.operations()) {
    if (!operation.done()) {
      google::longrunning::CancelOperationRequest cancel;
      cancel.set_name(operation.name());
      client.Call(&google::longrunning::Operations::Stub::CancelOperation,
                  cancel);
      client.WaitDone(operation.name());
    }
    google::longrunning::DeleteOperationRequest request;
    request.set_name(operation.name());
    client.Call(&google::longrunning::Operations::Stub::DeleteOperation,
                request);
  }
  const auto vms =
      client.Must(&v1::VmService::Stub::ListVms, v1::ListVmsRequest());
  for (const v1::Vm& vm : vms.vms()) {
    v1::DeleteVmRequest request;
    request.set_name(vm.name());
    request.set_force(true);
    client.Must(&v1::VmService::Stub::DeleteVm, request);
  }
  const Guest alpha(client, "alpha", {MakeSlot(kMiB)}, 2);
  alpha.StartDirtyLog();
  alpha.WritePages(64);
  ASSERT_EQ(alpha.Seal().epoch, kSealedEpoch);
}

TEST(MalformedRequestsTest, DaemonStaysHealthyAndAnswersEachOne) {
  Daemon daemon({"--max-guest-memory-bytes=1073741824"});
  const TestClient& client = daemon.client();
  TidyUp(client);
  const int64_t resident_before = daemon.ResidentBytes();
  const std::vector<const MethodDescriptor*> methods = AllMethods();
  EXPECT_GE(methods.size(), 30u);
  Random random(kSeed);
  int refused = 0;
  int unreadable = 0;
  std::map<std::string, int> served;
  for (int i = 0; i < kRequests; ++i) {
    const MethodDescriptor& method =
        *methods[static_cast<size_t>(i) % methods.size()];
    const bool begins_well =
        method.name() == "HarvestDirtyLog" && Below(random, 4) != 0;
    std::vector<std::string> messages;
    if (begins_well) messages = BeginHarvest(random);
    messages.push_back(MalformedRequest(method, random));
    const RawResult result = client.CallRawStream(
        absl::StrCat(method.service()->full_name(), "/", method.name()),
        messages, kTimeout);
    const grpc::StatusCode code = result.status.error_code();
    const bool parses = Parses(method, messages.back());
    if (!parses) ++unreadable;
    if (code == grpc::StatusCode::OK) ++served[method.name()];
    // A message after the answer to `open` was served.
    if (begins_well && result.messages.size() > 1) {
      ++served["behind open"];
    }
    if (code != grpc::StatusCode::OK) ++refused;
    if (code != grpc::StatusCode::OK &&
        code != grpc::StatusCode::DEADLINE_EXCEEDED) {
      const ErrorFacts facts = FactsOf(result.status);
      // A message before the malformed one may be refused too, for example
      // without a log.
      EXPECT_TRUE(parses || begins_well || facts.reason == "INVALID_REQUEST")
          << "request " << i << " to " << method.full_name() << ": " << code
          << " " << facts.reason;
      EXPECT_TRUE(facts.error_infos == 1 && facts.domain == "mmud" &&
                  facts.reason != "INTERNAL_ERROR" &&
                  code != grpc::StatusCode::UNKNOWN &&
                  code != grpc::StatusCode::INTERNAL)
          << "request " << i << " to " << method.full_name() << ": " << code
          << " " << facts.reason << " " << result.status.error_message();
    }
    ASSERT_TRUE(daemon.process().running())
        << "request " << i << " to " << method.full_name();
    // Do this often, since a stopped log refuses all later requests to it.
    if (i % 100 == 99) TidyUp(client);
  }
  EXPECT_GT(refused, kRequests / 4);
  // Many requests must pass the first checks, or the test would cover only
  // those checks.
  EXPECT_LT(refused, kRequests - kRequests / 20);
  EXPECT_GT(unreadable, kRequests / 20);
  for (const char* name : {"SealDirtyLog", "AcknowledgePages", "StopDirtyLog",
                           "HarvestDirtyLog", "behind open"}) {
    EXPECT_GT(served[name], 0) << name << " never got past the owner's token";
  }

  EXPECT_EQ(client.Health(), "SERVING");
  EXPECT_LT(daemon.ResidentBytes() - resident_before, 256 * kMiB);
  TidyUp(client);
  const Guest alpha(client, "vms/alpha");
  EXPECT_EQ(alpha.Seal().pages.size(), 64u);
  EXPECT_EQ(alpha.Audit(), "");
  EXPECT_EQ(daemon.Terminate(), 0) << daemon.process().Err();
  EXPECT_FALSE(absl::StrContains(daemon.process().Err(), " error "))
      << daemon.process().Err();
}

}  // namespace
}  // namespace mmud::integration
