// A daemon is not larger for what it did long ago.

#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "mmud/v1/vm_service.grpc.pb.h"
#include "tests/integration/daemon.h"
#include "tests/integration/guest.h"

namespace mmud::integration {
namespace {

constexpr int kClients = 8;
constexpr int kVmsPerClient = 64;

// Calls `call` with the ids of all VMs, those of each client on a thread of its
// own.
template <typename Call>
void ForEachVm(const Call& call) {
  std::vector<std::thread> clients;
  for (int client = 0; client < kClients; ++client) {
    clients.emplace_back([&call, client] {
      for (int vm = 0; vm < kVmsPerClient; ++vm) {
        call(absl::StrCat("vm-", client, "-", vm));
      }
    });
  }
  for (std::thread& client : clients) client.join();
}

void MakeVms(const Daemon& daemon) {
  ForEachVm([&](const std::string& id) {
    v1::CreateVmRequest request;
    request.set_vm_id(id);
    *request.mutable_vm()->add_memslots() = MakeSlot(kMiB);
    daemon.client().Must(&v1::VmService::Stub::CreateVm, request);
  });
}

void DeleteVms(const Daemon& daemon) {
  ForEachVm([&](const std::string& id) {
    v1::DeleteVmRequest request;
    request.set_name("vms/" + id);
    daemon.client().Must(&v1::VmService::Stub::DeleteVm, request);
  });
}

// Counted is resident memory: before there was a VM, with all VMs of the first
// round, and at rest after the last round. Half of what the VMs needed, some 50
// MB, is room enough for what is kept for good, stacks of threads and buffers
// of gRPC, which are a few; an allocator that gives nothing back keeps all of
// it, and more with each round.
TEST(MemoryTest, WhatDeletedVmsNeededIsGivenBack) {
  constexpr int kRounds = 6;
  Daemon daemon({"--max-vms=1000"});
  const int64_t before = daemon.ResidentBytes();
  ASSERT_GT(before, 0);
  MakeVms(daemon);
  const int64_t needed = daemon.ResidentBytes() - before;
  DeleteVms(daemon);
  for (int round = 1; round < kRounds; ++round) {
    MakeVms(daemon);
    DeleteVms(daemon);
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

}  // namespace
}  // namespace mmud::integration
