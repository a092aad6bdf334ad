// The daemon's memory does not grow with the number of VMs that it had before.

#include <stdlib.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gtest/gtest.h"
#include "mmud/v1/dirty_log_service.grpc.pb.h"
#include "mmud/v1/vm_service.grpc.pb.h"
#include "tests/integration/daemon.h"
#include "tests/integration/guest.h"

namespace mmud::integration {
namespace {

constexpr int kClients = 8;

// Calls `call` with the id of each of `vms` VMs, from one thread per client.
template <typename Call>
void ForEachVm(int vms, const Call& call) {
  std::vector<std::thread> clients;
  for (int client = 0; client < kClients; ++client) {
    clients.emplace_back([&call, client, vms] {
      for (int vm = 0; vm < vms / kClients; ++vm) {
        call(absl::StrCat("vm-", client, "-", vm));
      }
    });
  }
  for (std::thread& client : clients) client.join();
}

void MakeVms(const Daemon& daemon, int vms) {
  ForEachVm(vms, [&](const std::string& id) {
    v1::CreateVmRequest request;
    request.set_vm_id(id);
    request.mutable_vm()->mutable_tdp();
    *request.mutable_vm()->add_memslots() = MakeSlot(kMiB);
    daemon.client().Must(&v1::VmService::Stub::CreateVm, request);
    Guest(daemon.client(), "vms/" + id).StartDirtyLog();
  });
}

void DeleteVms(const Daemon& daemon, int vms) {
  ForEachVm(vms, [&](const std::string& id) {
    v1::DeleteVmRequest request;
    request.set_name("vms/" + id);
    daemon.client().Must(&v1::VmService::Stub::DeleteVm, request);
  });
}

// The test measures resident memory before the first VM, with all VMs of the
// first round, and at rest after the last round. The daemon may keep half of
// the memory that the VMs needed, some 50 MB, which is enough for a few thread
// stacks and gRPC buffers. An allocator that returns no memory keeps all of it,
// and more after each round.
TEST(MemoryTest, WhatDeletedVmsNeededIsGivenBack) {
  constexpr int kRounds = 6;
  constexpr int kVms = 512;
  Daemon daemon({"--max-vms=1000"});
  const int64_t before = daemon.ResidentBytes();
  ASSERT_GT(before, 0);
  MakeVms(daemon, kVms);
  const int64_t needed = daemon.ResidentBytes() - before;
  DeleteVms(daemon, kVms);
  for (int round = 1; round < kRounds; ++round) {
    MakeVms(daemon, kVms);
    DeleteVms(daemon, kVms);
  }
  int64_t kept = 0;
  EXPECT_TRUE(Eventually([&] {
    kept = daemon.ResidentBytes() - before;
    return kept < needed / 2;
  })) << kept
      << " bytes are kept of " << needed << " that the VMs needed";
  RecordProperty("kept_bytes", absl::StrCat(kept));
  RecordProperty("needed_bytes", absl::StrCat(needed));
}

// A daemon whose allocator returns unused pages at once, so that resident
// memory after a round is memory in use.
std::unique_ptr<Daemon> DaemonThatKeepsNoPages() {
  setenv("MALLOC_CONF", "dirty_decay_ms:0", 1);
  auto daemon = std::make_unique<Daemon>();
  unsetenv("MALLOC_CONF");
  return daemon;
}

// The test measures resident memory after each round. The first rounds fill
// memory that the daemon keeps for good. After the last round it may be larger
// by a quarter of the memory that one round's VMs need. This allows less than
// 1/300 of a VM's memory to be kept per VM.
TEST(MemoryTest, AHundredRoundsLeaveWhatTenLeft) {
  constexpr int kRounds = 100;
  constexpr int kVms = 48;
  const std::unique_ptr<Daemon> daemon = DaemonThatKeepsNoPages();
  std::vector<int64_t> sizes;
  int64_t needed = 0;
  for (int round = 0; round < kRounds; ++round) {
    MakeVms(*daemon, kVms);
    if (round == 10) needed = daemon->ResidentBytes() - sizes.back();
    DeleteVms(*daemon, kVms);
    sizes.push_back(daemon->ResidentBytes());
  }
  const int64_t settled =
      *std::min_element(sizes.begin() + 10, sizes.begin() + 20);
  EXPECT_TRUE(Eventually([&] {
    sizes.push_back(daemon->ResidentBytes());
    return sizes.back() - settled < needed / 4;
  })) << "VMs that need "
      << needed << " bytes; after each round: "
      << absl::StrJoin(sizes.begin(), sizes.begin() + kRounds, " ");
  RecordProperty("needed_bytes", absl::StrCat(needed));
  RecordProperty("settled_bytes", absl::StrCat(settled));
  RecordProperty("last_bytes", absl::StrCat(sizes.back()));
}

}  // namespace
}  // namespace mmud::integration
