// Lists of VMs, their memslots and their statistics: views, pages, labels.

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "mmud/v1/stats_service.grpc.pb.h"
#include "mmud/v1/vm_service.grpc.pb.h"
#include "tests/integration/daemon.h"
#include "tests/integration/guest.h"

namespace mmud::integration {
namespace {

using VmStub = v1::VmService::Stub;

// `count` slots of one page each, at descending addresses.
std::vector<v1::Memslot> Slots(int count) {
  std::vector<v1::Memslot> slots;
  for (int i = 0; i < count; ++i) {
    v1::Memslot slot = MakeSlot(kPage, v1::MEMORY_BACKING_METADATA_ONLY);
    slot.set_slot(2 * i);
    slot.set_gpa_bytes((count - i) * 2 * kPage);
    slots.push_back(slot);
  }
  return slots;
}

v1::UpdateVmRequest LabelRequest(const Guest& guest, const std::string& key,
                                 const std::string& value) {
  v1::UpdateVmRequest request;
  request.mutable_vm()->set_name(guest.name());
  (*request.mutable_vm()->mutable_labels())[key] = value;
  request.mutable_update_mask()->add_paths("labels");
  return request;
}

TEST(VmListsTest, SlotsComeInPagesInTheOrderOfTheirIds) {
  Daemon daemon;
  const TestClient& client = daemon.client();
  const Guest guest(client, "alpha", Slots(5));
  std::vector<int> listed;
  std::vector<int> sizes;
  v1::ListMemslotsRequest request;
  request.set_vm(guest.name());
  request.set_page_size(2);
  std::string second_page;
  do {
    const auto page = client.Must(&VmStub::ListMemslots, request);
    sizes.push_back(page.memslots_size());
    for (const v1::Memslot& slot : page.memslots()) {
      listed.push_back(slot.slot());
      v1::GetMemslotRequest get;
      get.set_name(slot.name());
      EXPECT_EQ(
          client.Must(&VmStub::GetMemslot, get).memslot().ShortDebugString(),
          slot.ShortDebugString());
    }
    request.set_page_token(page.next_page_token());
    if (sizes.size() == 1) second_page = request.page_token();
  } while (!request.page_token().empty() && sizes.size() < 10);
  EXPECT_EQ(listed, (std::vector<int>{0, 2, 4, 6, 8}));
  EXPECT_EQ(sizes, (std::vector<int>{2, 2, 1}));

  // The page token belongs to the first VM.
  const Guest other(client, "beta", Slots(5));
  request.set_vm(other.name());
  request.set_page_token(second_page);
  EXPECT_EQ(ReasonOf(client.Call(&VmStub::ListMemslots, request).status),
            "INVALID_PAGE_TOKEN");
}

TEST(VmListsTest, ASlotIsShownWithItsDirtyLog) {
  Daemon daemon;
  const Guest guest(daemon.client(), "alpha", {MakeSlot(kMiB)});
  guest.StartDirtyLog();
  v1::ListMemslotsRequest request;
  request.set_vm(guest.name());
  const auto page = daemon.client().Must(&VmStub::ListMemslots, request);
  ASSERT_EQ(page.memslots_size(), 1);
  EXPECT_EQ(page.memslots(0).dirty_log().state(), v1::DIRTY_LOG_STATE_ACTIVE);
  EXPECT_EQ(page.memslots(0).ShortDebugString(),
            guest.Get().memslots(0).ShortDebugString());
}

TEST(VmListsTest, SlotsAreInTheFullViewAlone) {
  Daemon daemon;
  const TestClient& client = daemon.client();
  const Guest guest(client, "alpha", Slots(3));
  v1::GetVmRequest get;
  get.set_name(guest.name());
  EXPECT_EQ(client.Must(&VmStub::GetVm, get).vm().memslots_size(), 3);
  get.set_view(v1::VM_VIEW_BASIC);
  const v1::Vm basic = client.Must(&VmStub::GetVm, get).vm();
  EXPECT_EQ(basic.memslots_size(), 0);
  EXPECT_EQ(basic.memory_size_bytes(), 3 * kPage);
  v1::ListVmsRequest list;
  EXPECT_EQ(client.Must(&VmStub::ListVms, list).vms(0).memslots_size(), 0);
  list.set_view(v1::VM_VIEW_FULL);
  EXPECT_EQ(client.Must(&VmStub::ListVms, list).vms(0).memslots_size(), 3);
}

TEST(VmListsTest, APageOfLargeVmsEndsBeforeItIsTooLarge) {
  Daemon daemon;
  const TestClient& client = daemon.client();
  for (int i = 0; i < 4; ++i) {
    const Guest guest(client, absl::StrCat("vm-", i), Slots(6000));
  }
  v1::ListVmsRequest request;
  request.set_view(v1::VM_VIEW_FULL);
  std::vector<std::string> listed;
  int pages = 0;
  do {
    const auto page = client.Must(&VmStub::ListVms, request);
    EXPECT_LT(page.ByteSizeLong(), 4u << 20);
    for (const v1::Vm& vm : page.vms()) listed.push_back(vm.name());
    request.set_page_token(page.next_page_token());
    ++pages;
  } while (!request.page_token().empty() && pages < 10);
  EXPECT_EQ(listed, (std::vector<std::string>{"vms/vm-0", "vms/vm-1",
                                              "vms/vm-2", "vms/vm-3"}));
  EXPECT_GE(pages, 2);
}

TEST(VmListsTest, StatisticsOfAllVmsComeInPages) {
  Daemon daemon;
  const TestClient& client = daemon.client();
  std::set<std::string> made;
  for (int i = 0; i < 5; ++i) {
    made.insert(Guest(client, absl::StrCat("vm-", i), {}).name());
  }
  v1::GetMmuStatsRequest request;
  request.set_page_size(2);
  std::set<std::string> seen;
  std::vector<int> sizes;
  do {
    const auto page =
        client.Must(&v1::StatsService::Stub::GetMmuStats, request);
    sizes.push_back(page.vms_size());
    EXPECT_GT(page.process_statistics_size(), 0);
    for (const v1::VmMmuStats& vm : page.vms()) seen.insert(vm.vm());
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty() && sizes.size() < 10);
  EXPECT_EQ(seen, made);
  EXPECT_EQ(sizes, (std::vector<int>{2, 2, 1}));
}

TEST(VmListsTest, LabelsAreKeptReplacedAndGuardedByTheEtag) {
  Daemon daemon;
  const TestClient& client = daemon.client();
  v1::CreateVmRequest create;
  create.set_vm_id("alpha");
  create.mutable_vm()->mutable_tdp();
  (*create.mutable_vm()->mutable_labels())["owner"] = "tests";
  const v1::Vm made = client.Must(&VmStub::CreateVm, create).vm();
  EXPECT_EQ(made.labels().at("owner"), "tests");

  const Guest guest(client, "vms/alpha");
  v1::UpdateVmRequest update = LabelRequest(guest, "team", "mmu");
  update.set_etag(made.etag());
  const v1::Vm changed = client.Must(&VmStub::UpdateVm, update).vm();
  EXPECT_EQ(changed.labels_size(), 1);
  EXPECT_EQ(changed.labels().at("team"), "mmu");
  EXPECT_EQ(guest.Get().labels().at("team"), "mmu");
  EXPECT_NE(changed.etag(), made.etag());
  EXPECT_EQ(ReasonOf(client.Call(&VmStub::UpdateVm, update).status),
            "ETAG_MISMATCH");
  // Fields that the mask does not name are ignored.
  update = LabelRequest(guest, "team", "mmu");
  update.mutable_vm()->set_vcpu_count(7);
  update.mutable_vm()->set_shadow_page_limit(100);
  EXPECT_EQ(client.Must(&VmStub::UpdateVm, update).vm().ShortDebugString(),
            changed.ShortDebugString());
}

TEST(VmListsTest, AnUpdateThatIsRepeatedGetsItsFirstAnswer) {
  Daemon daemon;
  const TestClient& client = daemon.client();
  const Guest guest(client, "alpha", {});
  v1::UpdateVmRequest update = LabelRequest(guest, "team", "mmu");
  update.set_request_id("0b7c6a4e-53a8-4f0c-9d7e-1f2a3b4c5d6e");
  const auto first = client.Must(&VmStub::UpdateVm, update);
  client.Must(&VmStub::UpdateVm, LabelRequest(guest, "team", "other"));
  EXPECT_EQ(client.Must(&VmStub::UpdateVm, update).SerializeAsString(),
            first.SerializeAsString());
  EXPECT_EQ(guest.Get().labels().at("team"), "other");
}

}  // namespace
}  // namespace mmud::integration
