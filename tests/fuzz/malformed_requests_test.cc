// 10,000 malformed requests against every method of every service: whatever
// arrives, the daemon answers with a proper status and goes on serving.
//
// A request is random bytes, or a message of the right type filled with extreme
// values, or such a message with bits flipped, bytes cut off or put in. All of
// it follows from one seed, which a failure prints with the request.

#include <cstdint>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "google/longrunning/operations.grpc.pb.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/dynamic_message.h"
#include "google/protobuf/message.h"
#include "gtest/gtest.h"
#include "mmud/v1/admin_service.pb.h"
#include "mmud/v1/aging_service.pb.h"
#include "mmud/v1/debug_service.pb.h"
#include "mmud/v1/dirty_log_service.pb.h"
#include "mmud/v1/guest_memory_service.pb.h"
#include "mmud/v1/split_service.pb.h"
#include "mmud/v1/stats_service.pb.h"
#include "mmud/v1/vm_service.grpc.pb.h"
#include "mmud/v1/workload_service.grpc.pb.h"
#include "tests/integration/daemon.h"
#include "tests/integration/test_client.h"

namespace mmud::integration {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::FileDescriptor;
using google::protobuf::Message;
using google::protobuf::MethodDescriptor;
using google::protobuf::Reflection;

constexpr int kRequests = 10'000;
constexpr uint64_t kSeed = 20240601;

std::vector<const MethodDescriptor*> AllMethods() {
  const FileDescriptor* files[] = {
      v1::CreateVmRequest::descriptor()->file(),
      v1::StartWorkloadRequest::descriptor()->file(),
      v1::ReadPagesRequest::descriptor()->file(),
      v1::StartDirtyLogRequest::descriptor()->file(),
      v1::SplitHugePagesRequest::descriptor()->file(),
      v1::AgeRangeRequest::descriptor()->file(),
      v1::GetMmuStatsRequest::descriptor()->file(),
      v1::RunAuditRequest::descriptor()->file(),
      v1::GetBuildInfoRequest::descriptor()->file(),
      google::longrunning::Operation::descriptor()->file(),
  };
  std::vector<const MethodDescriptor*> methods;
  for (const FileDescriptor* file : files) {
    for (int s = 0; s < file->service_count(); ++s) {
      for (int m = 0; m < file->service(s)->method_count(); ++m) {
        methods.push_back(file->service(s)->method(m));
      }
    }
  }
  return methods;
}

class Mutator {
 public:
  explicit Mutator(uint64_t seed) : random_(seed) {}

  std::string Request(const Descriptor* type) {
    if (OneIn(4)) return RandomBytes(Below(200));
    std::unique_ptr<Message> message(
        google::protobuf::MessageFactory::generated_factory()
            ->GetPrototype(type)
            ->New());
    Fill(message.get(), 0);
    std::string bytes = message->SerializeAsString();
    if (OneIn(2)) return bytes;
    for (uint64_t edits = 1 + Below(4); edits > 0; --edits) Damage(&bytes);
    return bytes;
  }

 private:
  uint64_t Below(uint64_t n) { return random_() % n; }
  bool OneIn(uint64_t n) { return Below(n) == 0; }

  template <typename T, size_t N>
  const T& OneOf(const T (&values)[N]) {
    return values[Below(N)];
  }

  std::string RandomBytes(uint64_t size) {
    std::string bytes;
    while (bytes.size() < size) bytes += static_cast<char>(Below(256));
    return bytes;
  }

  void Damage(std::string* bytes) {
    switch (Below(4)) {
      case 0:
        if (!bytes->empty()) (*bytes)[Below(bytes->size())] ^= 1 << Below(8);
        break;
      case 1:
        bytes->resize(Below(bytes->size() + 1));
        break;
      case 2:
        bytes->insert(Below(bytes->size() + 1), RandomBytes(1 + Below(8)));
        break;
      case 3:  // a field whose length claims more than there is
        bytes->append("\x0a\xff\xff\xff\xff\x07");
        break;
    }
  }

  int64_t Number() {
    constexpr int64_t kNumbers[] = {
        0,       1,         2,         -1,        63,        64,
        4095,    4096,      4097,      1 << 21,   1 << 30,   INT32_MAX,
        -4096,   1LL << 43, 1LL << 47, 1LL << 52, INT64_MAX, INT64_MIN,
        1 << 16, 32763,     32764,     1 << 20,   8192,      12288};
    return OneIn(4) ? static_cast<int64_t>(random_()) : OneOf(kNumbers);
  }

  double Real() {
    const double kReals[] = {0,
                             0.5,
                             1,
                             -1,
                             1e308,
                             -1e308,
                             std::numeric_limits<double>::quiet_NaN(),
                             std::numeric_limits<double>::infinity()};
    return OneOf(kReals);
  }

  std::string Text() {
    switch (Below(8)) {
      case 0:
        return "";
      case 1:
        return "vms/" + std::string(Below(300), 'a');
      case 2:
        return absl::StrCat("operations/", Below(50));
      case 3:
        return "sort.trace";
      case 4:
        return "../../etc/passwd";
      case 5:
        return "6f1c9a52-8d63-4c0e-9b1a-0f3c55aa7711";
      default:
        return "vms/alpha";
    }
  }

  void Fill(Message* message, int depth) {
    const Descriptor* type = message->GetDescriptor();
    for (int i = 0; i < type->field_count(); ++i) {
      const FieldDescriptor* field = type->field(i);
      if (OneIn(4)) continue;
      const uint64_t count = field->is_repeated() ? Below(4) : 1;
      for (uint64_t n = 0; n < count; ++n) FillField(message, field, depth);
    }
  }

  void FillField(Message* m, const FieldDescriptor* f, int depth) {
    const Reflection* r = m->GetReflection();
    const bool add = f->is_repeated();
    switch (f->cpp_type()) {
      case FieldDescriptor::CPPTYPE_INT32: {
        const auto v = static_cast<int32_t>(Number());
        add ? r->AddInt32(m, f, v) : r->SetInt32(m, f, v);
        break;
      }
      case FieldDescriptor::CPPTYPE_INT64:
        add ? r->AddInt64(m, f, Number()) : r->SetInt64(m, f, Number());
        break;
      case FieldDescriptor::CPPTYPE_UINT32: {
        const auto v = static_cast<uint32_t>(Number());
        add ? r->AddUInt32(m, f, v) : r->SetUInt32(m, f, v);
        break;
      }
      case FieldDescriptor::CPPTYPE_UINT64: {
        const auto v = static_cast<uint64_t>(Number());
        add ? r->AddUInt64(m, f, v) : r->SetUInt64(m, f, v);
        break;
      }
      case FieldDescriptor::CPPTYPE_DOUBLE:
        add ? r->AddDouble(m, f, Real()) : r->SetDouble(m, f, Real());
        break;
      case FieldDescriptor::CPPTYPE_BOOL:
        add ? r->AddBool(m, f, OneIn(2)) : r->SetBool(m, f, OneIn(2));
        break;
      case FieldDescriptor::CPPTYPE_ENUM: {
        const int v = static_cast<int>(Below(8)) - (OneIn(10) ? 100 : 0);
        add ? r->AddEnumValue(m, f, v) : r->SetEnumValue(m, f, v);
        break;
      }
      case FieldDescriptor::CPPTYPE_STRING: {
        const std::string v = f->type() == FieldDescriptor::TYPE_BYTES
                                  ? RandomBytes(Below(4096))
                                  : Text();
        add ? r->AddString(m, f, v) : r->SetString(m, f, v);
        break;
      }
      case FieldDescriptor::CPPTYPE_MESSAGE:
        if (depth < 6) {
          Fill(add ? r->AddMessage(m, f) : r->MutableMessage(m, f), depth + 1);
        }
        break;
      default:
        FAIL() << "no values for " << f->full_name();
    }
  }

  std::mt19937_64 random_;
};

bool Parses(const Descriptor* type, const std::string& bytes) {
  std::unique_ptr<Message> message(
      google::protobuf::MessageFactory::generated_factory()
          ->GetPrototype(type)
          ->New());
  return message->ParseFromString(bytes);
}

v1::CreateVmRequest SmallVm(const std::string& id) {
  v1::CreateVmRequest request;
  request.set_vm_id(id);
  request.mutable_vm()->set_vcpu_count(1);
  v1::Memslot* slot = request.mutable_vm()->add_memslots();
  slot->set_size_bytes(16 << 20);
  return request;
}

TEST(MalformedRequestsTest, TenThousandLeaveTheDaemonHealthy) {
  Daemon daemon({"--max_vms=4", "--max_operations=8",
                 "--max_guest_memory_bytes=1073741824",
                 "--enable_debug_service=true"});
  const TestClient& client = daemon.client();
  client.Must(&v1::VmService::Stub::CreateVm, SmallVm("alpha"));

  const std::vector<const MethodDescriptor*> methods = AllMethods();
  ASSERT_GE(methods.size(), 25u);
  Mutator mutator(kSeed);
  int refused = 0;
  for (int i = 0; i < kRequests; ++i) {
    const MethodDescriptor* method = methods[i % methods.size()];
    const std::string name =
        absl::StrCat(method->service()->full_name(), "/", method->name());
    const std::string bytes = mutator.Request(method->input_type());
    // Waiting for an operation is meant to take long.
    const absl::Duration timeout = method->name() == "WaitOperation"
                                       ? absl::Milliseconds(20)
                                       : absl::Seconds(5);
    const RawResult result = client.CallRaw(name, bytes, timeout);
    const grpc::StatusCode code = result.status.error_code();
    const std::string place =
        absl::StrCat(name, " request ", i, " of seed ", kSeed, ", bytes ",
                     absl::BytesToHexString(bytes.substr(0, 400)), "\n",
                     static_cast<int>(code), ": ",
                     std::string(result.status.error_message()));
    ASSERT_NE(code, grpc::StatusCode::UNKNOWN) << place;
    ASSERT_NE(code, grpc::StatusCode::UNAVAILABLE) << place;
    refused += !result.status.ok();
    if (!result.status.ok() && code != grpc::StatusCode::DEADLINE_EXCEEDED &&
        Parses(method->input_type(), bytes)) {
      const ErrorFacts facts = FactsOf(result.status);
      ASSERT_EQ(facts.error_infos, 1) << place;
      ASSERT_EQ(facts.domain, "mmud") << place;
      ASSERT_NE(facts.reason, "") << place;
    }
    if (i % 1000 == 0) {
      ASSERT_EQ(client.Health(), "SERVING") << place;
    }
    // Whatever was made of it, the guest that most requests name is there.
    if (method->name() == "DeleteVm" && result.status.ok()) {
      client.Call(&v1::VmService::Stub::CreateVm, SmallVm("alpha"));
    }
  }
  EXPECT_GT(refused, kRequests / 2);
  EXPECT_EQ(client.Health(), "SERVING");
  EXPECT_LT(daemon.ResidentBytes(), int64_t{2} << 30);

  // And it still does its work.
  const auto operations =
      client.Must(&google::longrunning::Operations::Stub::ListOperations,
                  google::longrunning::ListOperationsRequest());
  for (const auto& operation : operations.operations()) {
    google::longrunning::CancelOperationRequest cancel;
    cancel.set_name(operation.name());
    client.Call(&google::longrunning::Operations::Stub::CancelOperation,
                cancel);
  }
  v1::DeleteVmRequest remove;
  const v1::ListVmsResponse left =
      client.Must(&v1::VmService::Stub::ListVms, v1::ListVmsRequest());
  for (const v1::Vm& vm : left.vms()) {
    remove.set_name(vm.name());
    EXPECT_TRUE(Eventually([&] {
      return client.Call(&v1::VmService::Stub::DeleteVm, remove).status.ok();
    })) << vm.name();
  }
  client.Must(&v1::VmService::Stub::CreateVm, SmallVm("after"));
  v1::StartWorkloadRequest work;
  work.set_vm("vms/after");
  work.set_vcpu_count(1);
  work.set_access_count(1000);
  work.mutable_pattern()->set_write_fraction(1);
  work.mutable_pattern()->mutable_uniform();
  const auto started =
      client.Must(&v1::WorkloadService::Stub::StartWorkload, work);
  EXPECT_TRUE(client.WaitDone(started.name()).has_response());
  remove.set_name("vms/after");
  client.Must(&v1::VmService::Stub::DeleteVm, remove);
  EXPECT_EQ(daemon.Terminate(), 0);
}

}  // namespace
}  // namespace mmud::integration
