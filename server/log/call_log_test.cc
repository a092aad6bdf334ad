#include "server/log/call_log.h"

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "google/longrunning/operations.pb.h"
#include "gtest/gtest.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/testing/fake_clock.h"
#include "mmud/v1/dirty_log_service.pb.h"
#include "mmud/v1/vm_service.pb.h"
#include "server/base/errors.h"
#include "server/base/status_mapping.h"
#include "server/log/limited_log.h"
#include "server/log/logging.h"

namespace mmud {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

const grpc::ServerContextBase* Call(uintptr_t number) {
  return reinterpret_cast<const grpc::ServerContextBase*>(number * 64);
}

grpc::Status Refused() {
  return ToGrpcStatus(InvalidField(mmu::Reason::kInvalidVcpuCount,
                                   "vm.vcpu_count",
                                   "vcpu_count is -1 of token-of-mine"));
}

class CallLogTest : public ::testing::Test {
 protected:
  CallLogTest() { ConfigureLogging("text", "debug"); }
  ~CallLogTest() override { ConfigureLogging("text", "info"); }

  CallEnd Ended(grpc::Status status = grpc::Status::OK,
                absl::Duration duration = absl::Milliseconds(3)) {
    return {.method = "/mmud.v1.VmService/CreateVm",
            .kind = CallEnd::Kind::kShort,
            .peer = "ipv4:10.1.2.3:4711",
            .status = std::move(status),
            .duration = duration};
  }

  std::vector<std::string> Take() { return std::exchange(lines_, {}); }

  mmu::FakeClock clock_;
  std::vector<std::string> lines_;
  LimitedLog limited_{[this](LogLevel level, absl::string_view message,
                             const LogFields& fields) {
                        std::string line =
                            absl::StrCat(LogLevelName(level), " ", message);
                        for (const auto& [key, value] : fields) {
                          absl::StrAppend(&line, " ", key, "=", value);
                        }
                        lines_.push_back(line);
                      },
                      {.lines_per_second = 1, .burst = 3},
                      clock_};
  CallLog log_{limited_};
};

TEST_F(CallLogTest, AChangeIsLoggedOnceWithWhoWhatAndHowItEnded) {
  v1::CreateVmRequest request;
  request.set_vm_id("alpha");
  request.set_request_id("6ba7b810-9dad-11d1-80b4-00c04fd430c8");
  log_.NoteRequest(Call(1), request);
  log_.NoteResponse(Call(1), v1::CreateVmResponse());
  log_.End(Call(1), Ended());
  log_.Forget(Call(1));
  EXPECT_THAT(
      Take(),
      ElementsAre("info call method=mmud.v1.VmService/CreateVm vm=vms/alpha "
                  "request_id=6ba7b810-9dad-11d1-80b4-00c04fd430c8 code=OK "
                  "duration=3ms address=10.1.2.3:4711"));
}

TEST_F(CallLogTest, ACallThatStartsAnOperationNamesIt) {
  v1::DeleteVmRequest request;
  request.set_name("vms/alpha");
  google::longrunning::Operation operation;
  operation.set_name("operations/7");
  log_.NoteRequest(Call(1), request);
  log_.NoteResponse(Call(1), operation);
  log_.End(Call(1), Ended());
  EXPECT_THAT(
      Take(),
      ElementsAre(HasSubstr("vm=vms/alpha operation=operations/7 code=OK")));
}

TEST_F(CallLogTest, ARefusedCallIsForDebuggingAndItsMessageIsNotLogged) {
  v1::CreateVmRequest request;
  request.set_vm_id("alpha");
  log_.NoteRequest(Call(1), request);
  log_.End(Call(1), Ended(Refused()));
  const std::vector<std::string> lines = Take();
  ASSERT_THAT(lines, ElementsAre(HasSubstr(
                         "debug call refused method=mmud.v1.VmService/"
                         "CreateVm vm=vms/alpha code=INVALID_ARGUMENT "
                         "reason=INVALID_VCPU_COUNT field=vm.vcpu_count")));
  EXPECT_THAT(lines[0], Not(HasSubstr("token-of-mine")));

  ConfigureLogging("text", "info");
  log_.End(Call(2), Ended(Refused()));
  EXPECT_THAT(Take(), IsEmpty());
  EXPECT_EQ(limited_.dropped(), 0u) << "it was not wanted, so it was not cut";
}

TEST_F(CallLogTest, AReadIsLoggedOnlyIfItIsSlowOrFails) {
  const auto read = [this](const CallEnd& end) {
    log_.NoteRequest(Call(1), v1::GetVmRequest());
    log_.End(Call(1), end);
  };
  read(Ended());
  EXPECT_THAT(Take(), IsEmpty());
  read(Ended(grpc::Status::OK, absl::Seconds(1)));
  EXPECT_THAT(Take(), ElementsAre(HasSubstr("info slow call ")));
  CallEnd stream = Ended(grpc::Status::OK, absl::Hours(1));
  stream.kind = CallEnd::Kind::kPatient;
  read(stream);
  EXPECT_THAT(Take(), IsEmpty()) << "it lasts as long as its reader likes";
  read(Ended(grpc::Status(grpc::StatusCode::INTERNAL, "")));
  EXPECT_THAT(Take(), ElementsAre(HasSubstr("warning call failed ")));
  read(Ended(grpc::Status(grpc::StatusCode::CANCELLED, "")));
  EXPECT_THAT(Take(), ElementsAre(HasSubstr("debug call given up ")));
}

TEST_F(CallLogTest, AChangeThatWasGivenUpMayHaveBeenMadeInPart) {
  log_.NoteRequest(Call(1), v1::StartDirtyLogRequest());
  log_.End(Call(1),
           Ended(grpc::Status(grpc::StatusCode::DEADLINE_EXCEEDED, "late")));
  EXPECT_THAT(Take(), ElementsAre(HasSubstr("info call given up ")));
}

TEST_F(CallLogTest, ACallThatFailsAfterPartOfItsWorkIsNotRefused) {
  v1::ClearDirtyLogRequest request;
  request.set_vm("vms/alpha");
  log_.NoteRequest(Call(1), request);
  log_.NotePartDone(Call(1));
  log_.End(Call(1), Ended(ToGrpcStatus(VmDeleted("vms/alpha"))));
  EXPECT_THAT(Take(), ElementsAre(HasSubstr("info call broken off ")));
  log_.NoteRequest(Call(1), request);
  log_.End(Call(1), Ended(ToGrpcStatus(VmDeleted("vms/alpha"))));
  EXPECT_THAT(Take(), ElementsAre(HasSubstr("debug call refused ")));
}

TEST_F(CallLogTest, ACallOfWhichNothingIsKnownIsLoggedByItsMethod) {
  log_.End(Call(1), Ended(grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED,
                                       "no thread")));
  EXPECT_THAT(Take(),
              ElementsAre(HasSubstr(
                  "debug call refused method=mmud.v1.VmService/CreateVm "
                  "code=RESOURCE_EXHAUSTED")));
}

TEST_F(CallLogTest, CallsAreToldApartAndForgotten) {
  v1::DeleteVmRequest a;
  a.set_name("vms/a");
  v1::DeleteVmRequest b;
  b.set_name("vms/b");
  log_.NoteRequest(Call(1), a);
  log_.NoteRequest(Call(2), b);
  log_.Forget(Call(1));
  log_.End(Call(2), Ended());
  log_.End(Call(1), Ended());  // another call with the same address
  EXPECT_THAT(Take(), ElementsAre(HasSubstr(" vm=vms/b ")));
}

TEST_F(CallLogTest, AFloodIsCutAndSaidToBe) {
  v1::DeleteVmRequest request;
  request.set_name("vms/a");
  const auto remove = [&](const std::string& peer) {
    CallEnd end = Ended();
    end.method = "/mmud.v1.VmService/DeleteVm";
    end.peer = peer;
    log_.NoteRequest(Call(1), request);
    log_.End(Call(1), end);
  };
  // All calls come from one caller, whose port differs each time.
  for (int i = 0; i < 10; ++i) remove(absl::StrCat("ipv4:10.0.0.1:", i));
  EXPECT_EQ(Take().size(), 3u + 1u) << "and the first report";
  EXPECT_EQ(limited_.dropped(), 7u);
  remove("ipv4:10.0.0.2:1");
  EXPECT_EQ(Take().size(), 1u) << "another caller is heard";
  clock_.Advance(1'000'000'000);
  remove("ipv4:10.0.0.2:1");
  EXPECT_EQ(Take()[0],
            "warning there were too many lines about clients dropped=6");
  for (int i = 0; i < 5; ++i) remove("ipv4:10.0.0.1:1");
  Take();
  limited_.ReportDropped();
  EXPECT_THAT(Take(), ElementsAre("warning there were too many lines about "
                                  "clients dropped=4"));
  limited_.ReportDropped();
  EXPECT_THAT(Take(), IsEmpty());
}

}  // namespace
}  // namespace mmud
