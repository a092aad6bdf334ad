// VMs with different CPU features: page-modification logging, no Accessed and
// Dirty bits, no MMIO caching.

#include <cstdint>
#include <string>

#include "gtest/gtest.h"
#include "mmud/v1/dirty_log_service.grpc.pb.h"
#include "mmud/v1/vm_service.grpc.pb.h"
#include "tests/integration/daemon.h"
#include "tests/integration/guest.h"
#include "tests/integration/test_client.h"

namespace mmud::integration {
namespace {

constexpr int64_t kSize = 16 * kMiB;

// Makes a VM with the fields of `vm`, 2 vCPUs and one slot of kSize.
Guest Make(Daemon& daemon, v1::Vm vm) {
  v1::CreateVmRequest request;
  request.set_vm_id("alpha");
  *request.mutable_vm() = vm;
  request.mutable_vm()->set_vcpu_count(2);
  *request.mutable_vm()->add_memslots() =
      MakeSlot(kSize, v1::MEMORY_BACKING_MEMFD, v1::PAGE_SIZE_2M);
  daemon.client().Must(&v1::VmService::Stub::CreateVm, request);
  return Guest(daemon.client(), "vms/alpha");
}

v1::Vm WithPml() {
  v1::Vm vm;
  vm.mutable_tdp()->set_pml(v1::FEATURE_ON);
  return vm;
}

TEST(PmlTest, AMigrationThatTheProcessorLogsCopiesEveryPage) {
  Daemon daemon;
  const Guest guest = Make(daemon, WithPml());
  EXPECT_EQ(guest.Get().tdp().pml(), v1::FEATURE_ON);
  EXPECT_EQ(guest.StartDirtyLog().dirty_log().protection(),
            v1::DIRTY_LOG_PROTECTION_D_BIT);
  guest.ExpectThatAMigrationCopiesAll(kSize);
}

TEST(PmlTest, ItGoesWithRings) {
  Daemon daemon;
  v1::Vm vm = WithPml();
  vm.set_dirty_ring_entries(1024);
  const Guest guest = Make(daemon, vm);
  const v1::DirtyLog log = guest.StartDirtyLog().dirty_log();
  EXPECT_EQ(log.mode(), v1::DIRTY_LOG_MODE_RING);
  EXPECT_EQ(log.protection(), v1::DIRTY_LOG_PROTECTION_D_BIT);
  guest.ExpectThatAMigrationCopiesAll(kSize);
}

TEST(PmlTest, WithoutDirtyBitsWritesAreLoggedByProtection) {
  Daemon daemon;
  v1::Vm vm;
  vm.mutable_tdp()->set_accessed_dirty_bits(v1::FEATURE_OFF);
  const Guest guest = Make(daemon, vm);
  EXPECT_EQ(guest.Get().tdp().accessed_dirty_bits(), v1::FEATURE_OFF);
  EXPECT_EQ(guest.Get().tdp().pml(), v1::FEATURE_OFF);
  EXPECT_EQ(guest.StartDirtyLog().dirty_log().protection(),
            v1::DIRTY_LOG_PROTECTION_WRITE_PROTECT);
  guest.ExpectThatAMigrationCopiesAll(kSize);
}

TEST(PmlTest, DefaultsAreFilledIn) {
  Daemon daemon;
  const Guest guest(daemon.client(), "beta", {MakeSlot(kMiB)});
  EXPECT_EQ(guest.Get().tdp().accessed_dirty_bits(), v1::FEATURE_ON);
  EXPECT_EQ(guest.Get().tdp().pml(), v1::FEATURE_OFF);
  EXPECT_EQ(guest.Get().tdp().mmio_caching(), v1::FEATURE_ON);
  v1::Vm vm;
  vm.mutable_tdp()->set_mmio_caching(v1::FEATURE_OFF);
  EXPECT_EQ(Make(daemon, vm).Get().tdp().mmio_caching(), v1::FEATURE_OFF);
}

TEST(PmlTest, TheProtectionAskedForMustBeTheVms) {
  Daemon daemon;
  const Guest pml = Make(daemon, WithPml());
  const Guest plain(daemon.client(), "beta", {MakeSlot(kMiB)});
  const auto start = [&](const Guest& guest, v1::DirtyLogProtection wanted) {
    v1::StartDirtyLogRequest request;
    request.set_vm(guest.name());
    request.set_owner(kOwner);
    request.set_owner_token(kOwnerToken);
    request.set_protection(wanted);
    return ReasonOf(
        daemon.client()
            .Call(&v1::DirtyLogService::Stub::StartDirtyLog, request)
            .status);
  };
  const auto kWriteProtect = v1::DIRTY_LOG_PROTECTION_WRITE_PROTECT;
  const auto kDBit = v1::DIRTY_LOG_PROTECTION_D_BIT;
  EXPECT_EQ(start(pml, kWriteProtect), "INVALID_DIRTY_LOG_MODE");
  EXPECT_EQ(start(plain, kDBit), "INVALID_DIRTY_LOG_MODE");
  EXPECT_EQ(start(pml, kDBit), "");
  EXPECT_EQ(start(plain, kWriteProtect), "");
}

}  // namespace
}  // namespace mmud::integration
