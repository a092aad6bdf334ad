#include "tests/integration/dirty_log_error_cases.h"

#include <string>

#include "gtest/gtest.h"
#include "mmud/v1/dirty_log_service.grpc.pb.h"
#include "tests/integration/guest.h"
#include "tests/integration/test_client.h"

namespace mmud::integration {
namespace {

std::string Log(const TestClient&, const Guest& guest) {
  guest.StartDirtyLog();
  return "";
}

// These return the id of the log.
std::string SealOnce(const TestClient&, const Guest& guest) {
  guest.StartDirtyLog();
  guest.WritePages(8);
  return guest.Seal().log_id;
}

// Makes dirty pages in the open epoch only.
std::string WriteOnly(const TestClient&, const Guest& guest) {
  guest.StartDirtyLog();
  guest.WritePages(5);
  return "";
}

std::string SealTwice(const TestClient& client, const Guest& guest) {
  const std::string log_id = SealOnce(client, guest);
  guest.Seal();
  return log_id;
}

// Takes pages of four epochs into flight and seals a fifth epoch.
std::string FillFlights(const TestClient& client, const Guest& guest) {
  guest.StartDirtyLog();
  v1::SealDirtyLogRequest seal;
  seal.set_vm(guest.name());
  seal.set_owner_token(kOwnerToken);
  for (int i = 0; i < 5; ++i) {
    guest.WritePages(i + 1);
    const int64_t epoch =
        client.Must(&v1::DirtyLogService::Stub::SealDirtyLog, seal).epoch();
    if (i < 4) {
      EXPECT_TRUE(guest.Clear(epoch, {i}).status.ok());
    }
  }
  return "";
}

// Another owner acquires the log.
std::string TakeOver(const TestClient& client, const Guest& guest) {
  guest.StartDirtyLog();
  v1::AcquireDirtyLogRequest acquire;
  acquire.set_vm(guest.name());
  acquire.set_owner("the next");
  acquire.set_owner_token("token of the next owner");
  acquire.set_force(true);
  client.Must(&v1::DirtyLogService::Stub::AcquireDirtyLog, acquire);
  return "";
}

// Begins a start of the log that never ends by itself.
std::string StartSlowly(const TestClient& client, const Guest& guest) {
  v1::StartDirtyLogRequest request;
  request.set_vm(guest.name());
  request.set_owner(kOwner);
  request.set_owner_token(kOwnerToken);
  request.mutable_throttle()->mutable_min_pause()->set_seconds(10);
  client.Must(&v1::DirtyLogService::Stub::StartDirtyLog, request);
  return "";
}

}  // namespace

const std::vector<ErrorCase>& DirtyLogErrorCases() {
  static const auto* const kCases = new std::vector<ErrorCase>{
      {"INVALID_DIRTY_LOG_MODE", kInvalid,
       "mmud.v1.DirtyLogService/StartDirtyLog",
       "vm: '$0' owner: 'a test' owner_token: 'integration test\\'s token' "
       "mode: DIRTY_LOG_MODE_RING",
       "mode", "RING"},
      {"INVALID_SPLIT_POLICY", kInvalid,
       "mmud.v1.DirtyLogService/StartDirtyLog",
       "vm: '$0' owner: 'a test' owner_token: 'integration test\\'s token' "
       "initially_set: true split: DIRTY_LOG_SPLIT_EAGER",
       "split", "eager"},
      {"INVALID_TTL", kInvalid, "mmud.v1.DirtyLogService/StartDirtyLog",
       "vm: '$0' owner: 'a test' owner_token: 'integration test\\'s token' ttl "
       "{ nanos: 5000000 }",
       "ttl", "5ms"},
      {"INVALID_LEASE", kInvalid, "mmud.v1.DirtyLogService/StartDirtyLog",
       "vm: '$0' owner: 'a test' owner_token: 'integration test\\'s token' "
       "lease { seconds: 3601 }",
       "lease", "1h1s"},
      {"INVALID_OWNER", kInvalid, "mmud.v1.DirtyLogService/StartDirtyLog",
       "vm: '$0' owner_token: 'integration test\\'s token' ", "owner", "128"},
      {"INVALID_OWNER_TOKEN", kInvalid, "mmud.v1.DirtyLogService/StartDirtyLog",
       "vm: '$0' owner: 'a test' owner_token: 'short'", "owner_token",
       "5 bytes"},
      {"INVALID_OWNER_TOKEN", kInvalid, "mmud.v1.DirtyLogService/SealDirtyLog",
       "vm: '$0' ", "owner_token", "0 bytes", Log},
      {"INVALID_LOG_ID", kInvalid, "mmud.v1.DirtyLogService/SealDirtyLog",
       "vm: '$0' owner_token: 'integration test\\'s token' log_id: 'ABC'",
       "log_id", "ABC", Log},
      {"INVALID_LOG_ID", kInvalid, "mmud.v1.DirtyLogService/ReadDirtyPages",
       "vm: '$0' epoch: 1", "log_id", "epoch", SealOnce},
      {"INVALID_BITMAP", kInvalid, "mmud.v1.DirtyLogService/ClearDirtyLog",
       "vm: '$0' owner_token: 'integration test\\'s token' epoch: 1 pages { "
       "size_bytes: 262144 bitmap: 'abc' }",
       "pages.bitmap", "3", SealOnce},
      {"INVALID_BITMAP", kInvalid, "mmud.v1.DirtyLogService/ClearDirtyLog",
       "vm: '$0' owner_token: 'integration test\\'s token' epoch: 1 pages { "
       "size_bytes: 262144 }",
       "pages", "bitmap", SealOnce},
      {"INVALID_RANGE", kInvalid, "mmud.v1.DirtyLogService/ClearDirtyLog",
       "vm: '$0' owner_token: 'integration test\\'s token' epoch: 1 pages { "
       "size_bytes: 262144 extents { extents { size_bytes: 4096 } extents { "
       "gpa_bytes: 4096 size_bytes: 4096 } } }",
       "pages.extents.extents[1]", "4096", SealOnce},
      {"UNALIGNED_CLEAR", kInvalid, "mmud.v1.DirtyLogService/ClearDirtyLog",
       "vm: '$0' owner_token: 'integration test\\'s token' epoch: 1 pages { "
       "start_gpa_bytes: 4096 size_bytes: 262144 extents {} }",
       "pages.start_gpa_bytes", "4096", SealOnce},
      {"UNALIGNED_CLEAR", kInvalid, "mmud.v1.DirtyLogService/AcknowledgePages",
       "vm: '$0' owner_token: 'integration test\\'s token' epoch: 1 pages { "
       "size_bytes: 4096 extents {} }",
       "pages.size_bytes", "4096", SealOnce},
      {"UNALIGNED_CLEAR", kInvalid, "mmud.v1.DirtyLogService/ClearDirtyLog",
       "vm: '$0' owner_token: 'integration test\\'s token' epoch: 1 pages { "
       "start_gpa_bytes: 77 size_bytes: 262144 extents {} }",
       "pages.start_gpa_bytes", "77", SealOnce},
      {"GPA_OUT_OF_RANGE", grpc::StatusCode::OUT_OF_RANGE,
       "mmud.v1.DirtyLogService/ClearDirtyLog",
       "vm: '$0' owner_token: 'integration test\\'s token' epoch: 1 pages { "
       "start_gpa_bytes: 262144 size_bytes: 8388608 extents {} }",
       "pages.start_gpa_bytes", "page 64", SealOnce},
      {"INVALID_SLOT", kInvalid, "mmud.v1.DirtyLogService/ReadDirtyPages",
       "vm: '$0' slots: 2 slots: 0", "slots[1]", "ascend", Log},
      {"INVALID_RESUME_OFFSET", kInvalid,
       "mmud.v1.DirtyLogService/ReadDirtyPages",
       "vm: '$0' start { gpa_bytes: 262144 }", "start", "epoch", Log},
      {"INVALID_RESUME_OFFSET", kInvalid,
       "mmud.v1.DirtyLogService/ReadDirtyPages",
       "vm: '$0' log_id: '$1' epoch: 1 start { gpa_bytes: 12288 }",
       "start.gpa_bytes", "12288", SealOnce},
      {"INVALID_WINDOW", kInvalid, "mmud.v1.DirtyLogService/GetDirtyRate",
       "vm: '$0' windows { nanos: 1000000 }", "windows[0]", "1ms", Log},
      {"INVALID_ENUM_VALUE", kInvalid, "mmud.v1.DirtyLogService/ReadDirtyPages",
       "vm: '$0' encoding: 7", "encoding", "7", Log},
      {"EPOCH_UNKNOWN", kNotFound, "mmud.v1.DirtyLogService/ReadDirtyPages",
       "vm: '$0' log_id: '$1' epoch: 9", "epoch", "9", SealOnce},
      {"EPOCH_UNKNOWN", kNotFound, "mmud.v1.DirtyLogService/SealDirtyLog",
       "vm: '$0' owner_token: 'integration test\\'s token' acknowledged_epoch: "
       "9",
       "acknowledged_epoch", "9", SealOnce},
      {"EPOCH_UNKNOWN", kNotFound, "mmud.v1.DirtyLogService/AcknowledgePages",
       "vm: '$0' owner_token: 'integration test\\'s token' epoch: 9", "epoch",
       "9", SealOnce},
      {"EPOCH_UNKNOWN", kNotFound, "mmud.v1.DirtyLogService/ReadDirtyPages",
       "vm: '$0' log_id: '$1' epoch: -1", "epoch", "-1", SealOnce},
      {"EPOCH_UNKNOWN", kNotFound, "mmud.v1.DirtyLogService/SealDirtyLog",
       "vm: '$0' owner_token: 'integration test\\'s token' acknowledged_epoch: "
       "-1",
       "acknowledged_epoch", "-1", SealOnce},
      {"EPOCH_UNKNOWN", kNotFound, "mmud.v1.DirtyLogService/AcknowledgePages",
       "vm: '$0' owner_token: 'integration test\\'s token' epoch: -1", "epoch",
       "-1", SealOnce},
      {"EPOCH_UNKNOWN", kNotFound, "mmud.v1.GuestMemoryService/ReadPages",
       "vm: '$0' in_flight { log_id: '$1' epoch: -1 }", "in_flight.epoch", "-1",
       SealOnce},
      {"EPOCH_UNKNOWN", kNotFound, "mmud.v1.GuestMemoryService/ReadPages",
       "vm: '$0' in_flight { log_id: '$1' epoch: 9 }", "in_flight.epoch", "9",
       SealOnce},
      {"DIRTY_LOG_ACTIVE", kExists, "mmud.v1.DirtyLogService/StartDirtyLog",
       "vm: '$0' owner: 'a test' owner_token: 'integration test\\'s token' "
       "split: DIRTY_LOG_SPLIT_NONE",
       "vm", "settings", Log},
      {"DIRTY_LOG_ACTIVE", kPrecondition,
       "mmud.v1.SplitService/RecoverHugePages", "vm: '$0'", "", "slot 0", Log},
      {"DIRTY_LOG_OFF", kPrecondition, "mmud.v1.DirtyLogService/GetDirtyLog",
       "vm: '$0' ", "", "log"},
      {"DIRTY_LOG_OFF", kPrecondition, "mmud.v1.DirtyLogService/ReadDirtyPages",
       "vm: '$0' ", "", "log"},
      {"DIRTY_LOG_OFF", kPrecondition, "mmud.v1.DirtyLogService/StopDirtyLog",
       "vm: '$0' owner_token: 'integration test\\'s token' ", "vm", "log"},
      {"DIRTY_LOG_OFF", kPrecondition, "mmud.v1.DirtyLogService/SealDirtyLog",
       "vm: '$0' owner_token: 'integration test\\'s token' ", "vm", "log"},
      {"UNDELIVERED_PAGES", kPrecondition,
       "mmud.v1.DirtyLogService/StopDirtyLog",
       "vm: '$0' owner_token: 'integration test\\'s token' ",
       "discard_undelivered", "8 sealed", SealOnce},
      {"UNDELIVERED_PAGES", kPrecondition,
       "mmud.v1.DirtyLogService/StopDirtyLog", "vm: '$0' force: true",
       "discard_undelivered", "5 open", WriteOnly},
      {"UNDELIVERED_PAGES", kPrecondition, "mmud.v1.VmService/DeleteMemslot",
       "name: '$0/memslots/0'", "discard_undelivered", "5 open", WriteOnly},
      {"UNDELIVERED_PAGES", kPrecondition, "mmud.v1.VmService/DeleteVm",
       "name: '$0'", "force", "5 open", WriteOnly},
      {"LOG_OWNED", kPrecondition, "mmud.v1.DirtyLogService/SealDirtyLog",
       "vm: '$0' owner_token: 'a token of somebody else'", "owner_token",
       "an integration test", Log},
      {"LOG_OWNED", kPrecondition, "mmud.v1.DirtyLogService/AcquireDirtyLog",
       "vm: '$0' owner: 'me' owner_token: 'a token of somebody else'",
       "owner_token", "force", Log},
      {"LOG_FENCED", kPrecondition, "mmud.v1.DirtyLogService/ClearDirtyLog",
       "vm: '$0' owner_token: 'integration test\\'s token' epoch: 1 pages { "
       "extents {} }",
       "owner_token", "the next", TakeOver},
      {"LOG_FENCED", kPrecondition, "mmud.v1.DirtyLogService/AcquireDirtyLog",
       "vm: '$0' owner: 'a test' owner_token: 'integration test\\'s token' "
       "force: true",
       "owner_token", "the next", TakeOver},
      {"EPOCH_MISMATCH", kAborted, "mmud.v1.DirtyLogService/ClearDirtyLog",
       "vm: '$0' owner_token: 'integration test\\'s token' epoch: 5 pages { "
       "extents {} }",
       "epoch", "5", SealOnce},
      {"EPOCH_SUPERSEDED", kAborted, "mmud.v1.DirtyLogService/ReadDirtyPages",
       "vm: '$0' log_id: '$1' epoch: 1", "epoch", "1", SealTwice},
      {"LOG_CHANGED", kAborted, "mmud.v1.DirtyLogService/SealDirtyLog",
       "vm: '$0' owner_token: 'integration test\\'s token' log_id: "
       "'00000000000000000000000000000001'",
       "log_id", "begin anew", Log},
      {"DIRTY_LOG_STARTING", kAborted, "mmud.v1.DirtyLogService/StartDirtyLog",
       "vm: '$0' owner: 'a test' owner_token: 'integration test\\'s token' ",
       "", "vms/case", StartSlowly},
      {"EPOCH_MISMATCH", kAborted, "mmud.v1.DirtyLogService/ClearDirtyLog",
       "vm: '$0' owner_token: 'integration test\\'s token' epoch: -1 pages { "
       "extents {} }",
       "epoch", "-1", SealOnce},
      {"LIMIT_EXCEEDED", kExhausted, "mmud.v1.DirtyLogService/ClearDirtyLog",
       "vm: '$0' owner_token: 'integration test\\'s token' epoch: 5 pages { "
       "size_bytes: 262144 extents { extents { size_bytes: 262144 } } }",
       "epoch", "acknowledge", FillFlights},
      {"INSUFFICIENT_HISTORY", kPrecondition,
       "mmud.v1.DirtyLogService/GetDirtyRate",
       "vm: '$0' windows { seconds: 300 }", "", "5m", Log},
  };
  return *kCases;
}

}  // namespace mmud::integration
