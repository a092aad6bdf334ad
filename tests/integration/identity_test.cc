// Ids that are never reused: uids of VMs, names of operations, the boot id.

#include <signal.h>

#include <set>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "mmud/v1/admin_service.grpc.pb.h"
#include "mmud/v1/split_service.grpc.pb.h"
#include "mmud/v1/vm_service.grpc.pb.h"
#include "tests/integration/daemon.h"
#include "tests/integration/guest.h"

namespace mmud::integration {
namespace {

using google::longrunning::ListOperationsRequest;
using OperationsStub = google::longrunning::Operations::Stub;

std::string BootIdOf(const Daemon& daemon) {
  return daemon.client()
      .Must(&v1::AdminService::Stub::GetBuildInfo, v1::GetBuildInfoRequest())
      .boot_id();
}

// Splits a VM without memory, which is done at once. Returns the operation's
// name.
std::string Split(const Guest& guest) {
  return guest.StartSplit(v1::SplitHugePagesRequest());
}

TEST(IdentityTest, AVmOfTheSameNameIsAnotherVm) {
  Daemon daemon;
  const Guest first(daemon.client(), "alpha", {});
  const std::string uid = first.Get().uid();
  EXPECT_EQ(uid.size(), 36u);
  EXPECT_EQ(first.Get().uid(), uid);
  const std::string etag = first.Get().etag();
  v1::DeleteVmRequest deletion;
  deletion.set_name(first.name());
  daemon.client().Must(&v1::VmService::Stub::DeleteVm, deletion);

  const Guest second(daemon.client(), "alpha", {});
  EXPECT_NE(second.Get().uid(), uid);
  deletion.set_etag(etag);
  EXPECT_EQ(ReasonOf(daemon.client()
                         .Call(&v1::VmService::Stub::DeleteVm, deletion)
                         .status),
            "ETAG_MISMATCH");
}

TEST(IdentityTest, OperationsOfAVmAreFoundByItsUidAlone) {
  Daemon daemon;
  const TestClient& client = daemon.client();
  std::set<std::string> names;
  std::string last_uid;
  for (int i = 0; i < 2; ++i) {
    const Guest guest(client, "alpha", {});
    last_uid = guest.Get().uid();
    names.insert(client.WaitDone(Split(guest)).name());
    v1::DeleteVmRequest deletion;
    deletion.set_name(guest.name());
    client.Must(&v1::VmService::Stub::DeleteVm, deletion);
  }
  EXPECT_EQ(names.size(), 2u);
  ListOperationsRequest list;
  list.set_filter("vm = \"vms/alpha\"");
  EXPECT_EQ(
      client.Must(&OperationsStub::ListOperations, list).operations_size(), 2);
  list.set_filter("vm = \"vms/alpha\" AND vm_uid = " + last_uid);
  const auto of_last = client.Must(&OperationsStub::ListOperations, list);
  ASSERT_EQ(of_last.operations_size(), 1);
  EXPECT_EQ(
      Unpack<v1::SplitMetadata>(of_last.operations(0).metadata()).vm_uid(),
      last_uid);
  list.set_filter("end_time > \"1970-01-01T00:00:00Z\"");
  EXPECT_EQ(
      client.Must(&OperationsStub::ListOperations, list).operations_size(), 2);
}

TEST(IdentityTest, ListsOfOperationsGoOnWhereThePageBeforeEnded) {
  Daemon daemon;
  const TestClient& client = daemon.client();
  const Guest guest(client, "alpha", {});
  std::vector<std::string> started;
  for (int i = 0; i < 5; ++i) {
    started.push_back(client.WaitDone(Split(guest)).name());
  }
  std::vector<std::string> listed;
  ListOperationsRequest list;
  list.set_page_size(2);
  do {
    const auto page = client.Must(&OperationsStub::ListOperations, list);
    for (const auto& operation : page.operations()) {
      listed.push_back(operation.name());
    }
    list.set_page_token(page.next_page_token());
  } while (!list.page_token().empty() && listed.size() < 10);
  EXPECT_EQ(listed, started);
}

TEST(IdentityTest, ARestartedDaemonKnowsNothingOfTheOneBefore) {
  Daemon daemon;
  const Guest guest(daemon.client(), "alpha", {});
  const std::string uid = guest.Get().uid();
  const std::string boot_id = BootIdOf(daemon);
  EXPECT_EQ(boot_id.size(), 36u);
  EXPECT_EQ(BootIdOf(daemon), boot_id);
  const std::string first = daemon.client().WaitDone(Split(guest)).name();
  daemon.client().WaitDone(Split(guest));
  ListOperationsRequest list;
  list.set_page_size(1);
  list.set_page_token(daemon.client()
                          .Must(&OperationsStub::ListOperations, list)
                          .next_page_token());
  ASSERT_FALSE(list.page_token().empty());
  daemon.process().Signal(SIGKILL);
  EXPECT_EQ(daemon.process().Wait(absl::Seconds(10)), -SIGKILL);

  const auto after = Daemon::OnSocketOf(daemon);
  EXPECT_NE(BootIdOf(*after), boot_id);
  const Guest again(after->client(), "alpha", {});
  EXPECT_NE(again.Get().uid(), uid);
  EXPECT_NE(Split(again), first);
  google::longrunning::GetOperationRequest get;
  get.set_name(first);
  EXPECT_EQ(
      ReasonOf(after->client().Call(&OperationsStub::GetOperation, get).status),
      "OPERATION_NOT_FOUND");
  EXPECT_EQ(
      ReasonOf(
          after->client().Call(&OperationsStub::ListOperations, list).status),
      "INVALID_PAGE_TOKEN");
}

}  // namespace
}  // namespace mmud::integration
