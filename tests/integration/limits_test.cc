// Enormous requests: refused or served, never a crash.

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "mmud/v1/aging_service.grpc.pb.h"
#include "tests/integration/daemon.h"
#include "tests/integration/guest.h"

namespace mmud::integration {
namespace {

TEST(LimitsTest, SlotsOfTheGreatestSizeWorkWithoutContents) {
  Daemon daemon;
  // The most pages a slot can have, rounded down to 1 GiB: just below 8 TiB.
  constexpr int64_t kSize = int64_t{8191} * kGiB;
  const Guest guest(
      daemon.client(), "huge",
      {MakeSlot(kSize, v1::MEMORY_BACKING_METADATA_ONLY, v1::PAGE_SIZE_1G)});
  guest.ReadWords(64 * kGiB, kGiB);
  EXPECT_EQ(guest.Get().mapped_pages().pages_1g_count(), 64);
  EXPECT_EQ(guest.Audit(), "");
}

TEST(LimitsTest, AbsurdSizesAndAddressesAreRefused) {
  Daemon daemon;
  const Guest guest(daemon.client(), "alpha", {MakeSlot(kMiB)});
  const std::string kMax = "9223372036854771712";  // 2^63 - 4096
  struct AbsurdCall {
    std::string method;
    std::string request;
    std::string reason = "";  // if another field is invalid as well
  };
  const std::vector<AbsurdCall> kCalls = {
      {"mmud.v1.VmService/SetMemslot",
       "vm: 'vms/alpha' memslot { slot: 1 size_bytes: " + kMax + " }"},
      {"mmud.v1.VmService/SetMemslot",
       "vm: 'vms/alpha' memslot { slot: 1 size_bytes: 4096 gpa_bytes: " + kMax +
           " }"},
      {"mmud.v1.VmService/SetMemslot",
       "vm: 'vms/alpha' memslot { slot: 2147483647 size_bytes: 4096 }"},
      {"mmud.v1.GuestMemoryService/ReadPages",
       "vm: 'vms/alpha' extents { size_bytes: " + kMax + " }"},
      {"mmud.v1.GuestMemoryService/ReadPages",
       "vm: 'vms/alpha' extents { gpa_bytes: " + kMax + " size_bytes: " + kMax +
           " }"},
      {"mmud.v1.GuestMemoryService/ReadPages",
       "vm: 'vms/alpha' extents { size_bytes: 4096 } max_message_bytes: " +
           kMax},
      {"mmud.v1.SplitService/SplitHugePages",
       "vm: 'vms/alpha' throttle { chunk_bytes: " + kMax + " }"},
      {"mmud.v1.AgingService/AgeRange",
       "vm: 'vms/alpha' mode: AGING_MODE_TEST ranges { size_bytes: " + kMax +
           " }"},
      {"mmud.v1.DirtyLogService/StartDirtyLog",
       "vm: 'vms/alpha' owner: 'a' owner_token: '0123456789abcdef' ttl { "
       "seconds: " +
           kMax + " }",
       "INVALID_TTL"},
      {"mmud.v1.DirtyLogService/StartDirtyLog",
       "vm: 'vms/alpha' owner: 'a' owner_token: '0123456789abcdef' lease { "
       "seconds: " +
           kMax + " }",
       "INVALID_LEASE"},
      {"mmud.lab.v1.WorkloadService/StartWorkload",
       "vm: 'vms/alpha' workload { pattern { uniform {} extent { size_bytes: " +
           kMax + " } } }"},
      {"mmud.lab.v1.WorkloadService/StartWorkload",
       "vm: 'vms/alpha' workload { pattern { sequential { stride_bytes: " +
           kMax + " } } vcpu_count: 2147483647 }"},
      {"google.longrunning.Operations/WaitOperation",
       "name: 'operations/3f0d7c52-7f41-4b7e-8d35-6a0c9d1e2f3b' timeout { "
       "seconds: -" +
           kMax + " }",
       "INVALID_REQUEST"},
      {"mmud.v1.VmService/ListVms", "page_size: -2147483648"},
  };
  for (const auto& [method, request, reason] : kCalls) {
    const RawResult result = daemon.client().CallText(method, request);
    EXPECT_FALSE(result.status.ok()) << method << " " << request;
    EXPECT_EQ(FactsOf(result.status).domain, "mmud")
        << method << " " << request << " " << result.status.error_message();
    if (!reason.empty()) {
      EXPECT_EQ(FactsOf(result.status).reason, reason)
          << method << " " << request << " " << result.status.error_message();
    }
  }
  EXPECT_EQ(guest.Get().memslots_size(), 1);
}

TEST(LimitsTest, ReadsOfManyRangesAreServedUpToTheLimit) {
  Daemon daemon;
  const Guest guest(daemon.client(), "alpha", {MakeSlot(kMiB)});
  guest.WritePages(1);
  v1::ReadPagesRequest request;
  request.set_vm(guest.name());
  for (int i = 0; i < 65536; ++i) {
    request.add_extents()->set_size_bytes(kPage);
  }
  const std::string method = "mmud.v1.GuestMemoryService/ReadPages";
  const RawResult most =
      daemon.client().CallRaw(method, request.SerializeAsString());
  EXPECT_TRUE(most.status.ok()) << most.status.error_message();
  int64_t pages = 0;
  for (const std::string& bytes : most.messages) {
    EXPECT_LE(bytes.size(), static_cast<size_t>(kMiB));
    v1::ReadPagesResponse response;
    ASSERT_TRUE(response.ParseFromString(bytes));
    if (response.has_trailer()) pages = response.trailer().page_count();
  }
  EXPECT_EQ(pages, 65536);

  while (request.extents_size() < 100'000) {
    request.add_extents()->set_size_bytes(kPage);
  }
  const RawResult more =
      daemon.client().CallRaw(method, request.SerializeAsString());
  EXPECT_EQ(ReasonOf(more.status), "LIMIT_EXCEEDED");
}

TEST(LimitsTest, LimitsOfTheFlagsHold) {
  Daemon daemon({"--max-guest-memory-bytes=67108864", "--max-operations=1",
                 "--max-vms=3"});
  const TestClient& client = daemon.client();
  const auto create = [&](const std::string& id, int64_t mebibytes) {
    return ReasonOf(
        client
            .CallText("mmud.v1.VmService/CreateVm",
                      absl::StrCat("vm_id: '", id, "' vm { tdp {} memslots { ",
                                   "size_bytes: ", mebibytes * kMiB, " } }"))
            .status);
  };
  EXPECT_EQ(create("a", 65), "LIMIT_EXCEEDED");
  EXPECT_EQ(create("a", 64), "");
  EXPECT_EQ(create("b", 1), "LIMIT_EXCEEDED");
  client.CallText("mmud.v1.VmService/DeleteVm", "name: 'vms/a'");
  EXPECT_EQ(create("a", 32), "");
  EXPECT_EQ(create("b", 32), "");

  // A running guest is no operation, so it does not take the place of a split.
  const Guest a(client, "vms/a");
  const Guest b(client, "vms/b");
  a.StartRandomWrites(1);
  b.StartRandomWrites(2);
  const Guest huge(client, "huge",
                   {MakeSlot(64 * kMiB, v1::MEMORY_BACKING_METADATA_ONLY,
                             v1::PAGE_SIZE_2M)});
  huge.ReadWords(64 * kMiB, 2 * kMiB);
  v1::SplitHugePagesRequest slow;
  slow.mutable_throttle()->set_max_pages_per_second(1);
  const std::string split = huge.StartSplit(slow);
  const RawResult second =
      client.CallText("mmud.v1.SplitService/SplitHugePages", "vm: 'vms/b'");
  EXPECT_EQ(ReasonOf(second.status), "LIMIT_EXCEEDED");
  EXPECT_EQ(FactsOf(second.status).limit, "max_operations");
  EXPECT_TRUE(FactsOf(second.status).has_retry_info);
  client.CallText("google.longrunning.Operations/CancelOperation",
                  "name: '" + split + "'");
  client.WaitDone(split);
  EXPECT_TRUE(
      client.CallText("mmud.v1.SplitService/SplitHugePages", "vm: 'vms/b'")
          .status.ok());
  a.StopWorkload();
  b.StopWorkload();
}

TEST(LimitsTest, MessagesBeyondTheReceiveLimitAreRefused) {
  Daemon daemon;
  v1::ClearDirtyLogRequest request;
  request.set_vm("vms/alpha");
  request.mutable_pages()->set_bitmap(std::string(65 << 20, '\xff'));
  const RawResult result = daemon.client().CallRaw(
      "mmud.v1.DirtyLogService/ClearDirtyLog", request.SerializeAsString());
  EXPECT_EQ(result.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(daemon.client().Health(), "SERVING");
}

}  // namespace
}  // namespace mmud::integration
