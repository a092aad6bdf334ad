// VMs from creation to deletion: names, lists, etags, repeated requests.

#include <algorithm>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "mmud/v1/admin_service.grpc.pb.h"
#include "mmud/v1/stats_service.grpc.pb.h"
#include "mmud/v1/vm_service.grpc.pb.h"
#include "tests/integration/daemon.h"
#include "tests/integration/guest.h"

namespace mmud::integration {
namespace {

using VmStub = v1::VmService::Stub;

constexpr char kUuid[] = "0b7c6a4e-53a8-4f0c-9d7e-1f2a3b4c5d6e";

v1::CreateVmRequest CreateRequest(const std::string& id) {
  v1::CreateVmRequest request;
  request.set_vm_id(id);
  request.mutable_vm()->mutable_tdp();
  *request.mutable_vm()->add_memslots() = MakeSlot(16 * kMiB);
  return request;
}

v1::GetVmRequest GetRequest(const std::string& name) {
  v1::GetVmRequest request;
  request.set_name(name);
  return request;
}

v1::DeleteVmRequest DeleteRequest(const std::string& name) {
  v1::DeleteVmRequest request;
  request.set_name(name);
  return request;
}

TEST(LifecycleTest, CreatedVmHasEveryDefaultFilledIn) {
  Daemon daemon;
  const v1::Vm vm =
      daemon.client().Must(&VmStub::CreateVm, CreateRequest("alpha")).vm();
  EXPECT_EQ(vm.name(), "vms/alpha");
  EXPECT_EQ(vm.vcpu_count(), 1);
  EXPECT_EQ(vm.tdp().entry_format(), v1::ENTRY_FORMAT_EPT);
  EXPECT_EQ(vm.tdp().max_page_size(), v1::PAGE_SIZE_1G);
  EXPECT_EQ(vm.tdp().page_table_levels(), 4);
  EXPECT_EQ(vm.tdp().slot_zap(), v1::SLOT_ZAP_ALL);
  EXPECT_EQ(vm.state(), v1::VM_STATE_READY);
  EXPECT_EQ(vm.vcpu_state(), v1::VCPU_STATE_IDLE);
  EXPECT_EQ(vm.memory_size_bytes(), 16 * kMiB);
  ASSERT_EQ(vm.memslots_size(), 1);
  EXPECT_EQ(vm.memslots(0).name(), "vms/alpha/memslots/0");
  EXPECT_EQ(vm.memslots(0).backing(), v1::MEMORY_BACKING_ANONYMOUS);
  EXPECT_EQ(vm.memslots(0).host_page_size(), v1::PAGE_SIZE_4K);
  EXPECT_EQ(vm.memslots(0).dirty_log().state(), v1::DIRTY_LOG_STATE_OFF);
  EXPECT_GT(vm.create_time().seconds(), 0);

  const v1::Vm again =
      daemon.client().Must(&VmStub::GetVm, GetRequest("vms/alpha")).vm();
  EXPECT_EQ(again.ShortDebugString(), vm.ShortDebugString());
}

TEST(LifecycleTest, WhatADeletedSlotZapsIsTheVmsChoice) {
  Daemon daemon;
  v1::CreateVmRequest request = CreateRequest("alpha");
  request.mutable_vm()->mutable_tdp()->set_slot_zap(v1::SLOT_ZAP_SLOT);
  const v1::Vm vm = daemon.client().Must(&VmStub::CreateVm, request).vm();
  EXPECT_EQ(vm.tdp().slot_zap(), v1::SLOT_ZAP_SLOT);
}

TEST(LifecycleTest, DeletedVmIsGoneAndItsNameIsFree) {
  Daemon daemon;
  const TestClient& client = daemon.client();
  client.Must(&VmStub::CreateVm, CreateRequest("alpha"));
  client.Must(&VmStub::DeleteVm, DeleteRequest("vms/alpha"));
  EXPECT_EQ(
      ReasonOf(client.Call(&VmStub::GetVm, GetRequest("vms/alpha")).status),
      "VM_NOT_FOUND");
  EXPECT_EQ(client.Must(&VmStub::ListVms, v1::ListVmsRequest()).vms_size(), 0);
  client.Must(&VmStub::CreateVm, CreateRequest("alpha"));
}

TEST(LifecycleTest, FailedCreateLeavesNothing) {
  Daemon daemon;
  v1::CreateVmRequest request = CreateRequest("alpha");
  *request.mutable_vm()->add_memslots() = MakeSlot(16 * kMiB);
  request.mutable_vm()->mutable_memslots(1)->set_slot(1);
  const auto result = daemon.client().Call(&VmStub::CreateVm, request);
  EXPECT_EQ(ReasonOf(result.status), "REGION_OVERLAP");
  daemon.client().Must(&VmStub::CreateVm, CreateRequest("alpha"));
}

TEST(LifecycleTest, ListGoesThroughAllVmsPageByPage) {
  Daemon daemon;
  const TestClient& client = daemon.client();
  std::vector<std::string> expected;
  for (int i = 0; i < 7; ++i) {
    const std::string id = absl::StrCat("vm-", (i * 5) % 7);
    client.Must(&VmStub::CreateVm, CreateRequest(id));
    expected.push_back("vms/" + id);
  }
  std::sort(expected.begin(), expected.end());
  std::vector<std::string> listed;
  std::vector<int> sizes;
  v1::ListVmsRequest request;
  request.set_page_size(3);
  do {
    const v1::ListVmsResponse page = client.Must(&VmStub::ListVms, request);
    sizes.push_back(page.vms_size());
    for (const v1::Vm& vm : page.vms()) listed.push_back(vm.name());
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty() && sizes.size() < 10);
  EXPECT_EQ(listed, expected);
  EXPECT_EQ(sizes, (std::vector<int>{3, 3, 1}));
}

TEST(LifecycleTest, EtagChangesWithTheMemslotsAndGuardsADelete) {
  Daemon daemon;
  const TestClient& client = daemon.client();
  const v1::Vm vm = client.Must(&VmStub::CreateVm, CreateRequest("alpha")).vm();
  v1::SetMemslotRequest set;
  set.set_vm("vms/alpha");
  *set.mutable_memslot() = MakeSlot(kMiB);
  set.mutable_memslot()->set_slot(1);
  set.mutable_memslot()->set_gpa_bytes(kGiB);
  client.Must(&VmStub::SetMemslot, set);

  v1::DeleteVmRequest request = DeleteRequest("vms/alpha");
  request.set_etag(vm.etag());
  EXPECT_EQ(ReasonOf(client.Call(&VmStub::DeleteVm, request).status),
            "ETAG_MISMATCH");
  const v1::Vm now = client.Must(&VmStub::GetVm, GetRequest("vms/alpha")).vm();
  EXPECT_EQ(now.memslots_size(), 2);
  request.set_etag(now.etag());
  client.Must(&VmStub::DeleteVm, request);
}

TEST(LifecycleTest, MemslotIsMadeMovedAndDeleted) {
  Daemon daemon;
  const TestClient& client = daemon.client();
  const Guest guest(client, "alpha", {MakeSlot(4 * kMiB)});
  guest.WritePages(1024);
  EXPECT_EQ(guest.Get().mapped_pages().pages_4k_count(), 1024);

  v1::SetMemslotRequest set;
  set.set_vm(guest.name());
  *set.mutable_memslot() = MakeSlot(4 * kMiB);
  set.mutable_memslot()->set_gpa_bytes(kGiB);
  const v1::Memslot moved = client.Must(&VmStub::SetMemslot, set).memslot();
  EXPECT_EQ(moved.gpa_bytes(), kGiB);
  EXPECT_GT(moved.generation(), 0);
  EXPECT_EQ(guest.Get().mapped_pages().pages_4k_count(), 0);
  EXPECT_EQ(guest.Audit(), "");

  v1::DeleteMemslotRequest request;
  request.set_name(moved.name());
  request.set_etag(moved.etag());
  client.Must(&VmStub::DeleteMemslot, request);
  EXPECT_EQ(guest.Get().memslots_size(), 0);
  EXPECT_EQ(guest.Get().memory_size_bytes(), 0);
}

TEST(LifecycleTest, RepeatedRequestGetsTheFirstAnswerAndDoesNothing) {
  Daemon daemon;
  const TestClient& client = daemon.client();
  v1::CreateVmRequest request = CreateRequest("alpha");
  request.set_request_id(kUuid);
  const auto first = client.Must(&VmStub::CreateVm, request);
  client.Must(&VmStub::DeleteVm, DeleteRequest("vms/alpha"));
  const auto second = client.Must(&VmStub::CreateVm, request);
  EXPECT_EQ(second.SerializeAsString(), first.SerializeAsString());
  EXPECT_EQ(client.Must(&VmStub::ListVms, v1::ListVmsRequest()).vms_size(), 0);
}

TEST(LifecycleTest, ConcurrentRepetitionsOfOneRequestMakeOneVm) {
  Daemon daemon;
  v1::CreateVmRequest request = CreateRequest("alpha");
  request.set_request_id(kUuid);
  std::vector<std::string> answers(16);
  std::vector<std::thread> threads;
  for (std::string& answer : answers) {
    threads.emplace_back([&] {
      const TestClient client(daemon.address());
      answer = client.Must(&VmStub::CreateVm, request).SerializeAsString();
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(std::set<std::string>(answers.begin(), answers.end()).size(), 1u);
  EXPECT_FALSE(answers[0].empty());
}

TEST(LifecycleTest, CapabilitiesTellTheLimitsOfTheFlags) {
  Daemon daemon({"--max-vms=3", "--max-guest-memory-bytes=67108864"});
  const auto capabilities = daemon.client().Must(&VmStub::GetCapabilities,
                                                 v1::GetCapabilitiesRequest());
  EXPECT_EQ(capabilities.max_vms_count(), 3);
  EXPECT_EQ(capabilities.max_guest_memory_bytes(), 64 * kMiB);
  EXPECT_EQ(capabilities.max_vcpus_per_vm_count(), 256);
  EXPECT_EQ(capabilities.max_memslots_per_vm_count(), 32764);
  EXPECT_EQ(capabilities.entry_formats_size(), 2);
  EXPECT_EQ(capabilities.page_sizes_size(), 3);
  EXPECT_EQ(capabilities.backings_size(), 3);
  // Each limit has a use count.
  const Guest guest(daemon.client(), "alpha", {MakeSlot(kMiB)});
  guest.WritePages(1);
  std::map<std::string, std::pair<int64_t, int64_t>> uses;
  const auto with_a_vm = daemon.client().Must(&VmStub::GetCapabilities,
                                              v1::GetCapabilitiesRequest());
  for (const v1::LimitUse& limit : with_a_vm.limits()) {
    uses[limit.name()] = {limit.used_count(), limit.limit_count()};
  }
  EXPECT_EQ(uses.at("max_vms"), std::make_pair(int64_t{1}, int64_t{3}));
  EXPECT_EQ(uses.at("max_guest_memory_bytes"), std::make_pair(kMiB, 64 * kMiB));
  EXPECT_GE(uses.at("max_page_tables").first, 4);
  EXPECT_EQ(uses.at("max_page_tables").second, 0);
  EXPECT_GT(capabilities.max_message_bytes(), 0);
  EXPECT_LE(capabilities.max_message_bytes(), kMiB);
}

// Covers: STAT-11, STAT-21
TEST(LifecycleTest, StatisticsHaveKvmsNames) {
  Daemon daemon;
  const Guest guest(daemon.client(), "alpha", {MakeSlot(4 * kMiB)});
  guest.WritePages(100);
  v1::GetMmuStatsRequest request;
  request.set_vm(guest.name());
  const auto response =
      daemon.client().Must(&v1::StatsService::Stub::GetMmuStats, request);
  ASSERT_EQ(response.vms_size(), 1);
  std::set<std::string> names;
  for (const v1::MmuStatistic& statistic : response.vms(0).statistics()) {
    EXPECT_TRUE(names.insert(statistic.name()).second) << statistic.name();
    if (statistic.name() == "pages_4k" || statistic.name() == "pf_fixed") {
      EXPECT_EQ(statistic.value(), 100) << statistic.name();
    }
  }
  for (const char* name : {"remote_tlb_flush",
                           "remote_tlb_flush_requests",
                           "mmu_shadow_zapped",
                           "mmu_pte_write",
                           "mmu_pde_zapped",
                           "mmu_flooded",
                           "mmu_recycled",
                           "mmu_cache_miss",
                           "mmu_unsync",
                           "pages_4k",
                           "pages_2m",
                           "pages_1g",
                           "nx_lpage_splits",
                           "max_mmu_rmap_size",
                           "max_mmu_page_hash_collisions",
                           "pf_taken",
                           "pf_fixed",
                           "pf_emulate",
                           "pf_spurious",
                           "pf_fast",
                           "pf_mmio_spte_created",
                           "pf_guest",
                           "tlb_flush",
                           "invlpg",
                           "pf_retried",
                           "stall_invalidation"}) {
    EXPECT_EQ(names.count(name), 1u) << name;
  }
}

TEST(LifecycleTest, StatisticsTellTablesInUseFromThoseInTheirGracePeriod) {
  Daemon daemon({"--max-page-tables=1000"});
  const Guest guest(daemon.client(), "alpha", {MakeSlot(4 * kMiB)});
  guest.WritePages(1);
  const auto response = daemon.client().Must(
      &v1::StatsService::Stub::GetMmuStats, v1::GetMmuStatsRequest());
  std::map<std::string, int64_t> values;
  for (const v1::MmuStatistic& statistic : response.process_statistics()) {
    values[statistic.name()] = statistic.value();
  }
  ASSERT_EQ(values.size(), 4u);
  EXPECT_GE(values.at("page_tables_in_use"), 4);
  EXPECT_EQ(values.at("page_tables_in_grace_period"), 0);
  EXPECT_EQ(values.at("page_tables_limit"), 1000);
  EXPECT_EQ(values.at("page_table_waits"), 0);
}

TEST(LifecycleTest, BuildInfoSaysWhetherFaultsCanBeInjected) {
  Daemon daemon;
  const auto info = daemon.client().Must(&v1::AdminService::Stub::GetBuildInfo,
                                         v1::GetBuildInfoRequest());
  EXPECT_FALSE(info.fault_injection());
  EXPECT_FALSE(info.version().empty());
  EXPECT_FALSE(info.compiler().empty());
}

}  // namespace
}  // namespace mmud::integration
