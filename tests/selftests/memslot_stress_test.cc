// Memslots change while vCPUs run: no access is lost, and no access goes to
// memory of another slot.

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/vm/vm_state.h"

namespace mmu {
namespace {

using ::mmu::testing::AuditFindings;
using ::mmu::testing::MakeVm;
using ::mmu::testing::Read;
using ::mmu::testing::Slot;
using ::mmu::testing::Write;

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kGiB = uint64_t{1} << 30;

AccessOutcome ReadInto(Vm& vm, uint64_t gpa, uint64_t* word, int vcpu) {
  return vm.state().vcpus[vcpu]->Access(Gpa(gpa), AccessKind::kRead, word);
}

// Covers: TST-09, SLOT-25, PF-20
TEST(MemslotStressTest, ASlotDeletedInUseGivesItsContentsOrNoMemoryAtAll) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB, Level::k2M)}, 2);
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> done{0};
  std::atomic<uint64_t> emulated{0};
  std::vector<std::thread> vcpus;
  for (int i = 0; i < 2; ++i) {
    vcpus.emplace_back([&, i] {
      const uint64_t gpa = kGiB + static_cast<uint64_t>(i) * kPageSize;
      while (!stop.load()) {
        uint64_t word = ~uint64_t{0};
        const AccessOutcome outcome = ReadInto(*vm, gpa, &word, i);
        if (outcome == AccessOutcome::kDone) {
          // Only this vCPU writes to these pages. A slot that was made again is
          // zero.
          ASSERT_TRUE(word == 0 || word == gpa) << word;
          done.fetch_add(1);
          Write(*vm, gpa, gpa, i);
        } else {
          ASSERT_EQ(outcome, AccessOutcome::kEmulated);
          emulated.fetch_add(1);
        }
      }
    });
  }
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(vm->SetMemslot(Slot(5, kGiB, kMiB)).ok());
    uint64_t seen = done.load();
    while (done.load() == seen) std::this_thread::yield();
    ASSERT_TRUE(vm->SetMemslot(Slot(5, kGiB, 0)).ok());
    seen = emulated.load();
    while (emulated.load() == seen) std::this_thread::yield();
  }
  stop.store(true);
  for (std::thread& vcpu : vcpus) vcpu.join();
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: TST-09, SLOT-27
TEST(MemslotStressTest, ASlotMovedInUseIsSeenAtOneOfItsPlacesOnly) {
  auto vm = MakeVm({Slot(0, kGiB, kMiB)}, 1);
  Write(*vm, kGiB + 0x1000, 77);
  std::atomic<bool> stop{false};
  std::thread vcpu([&] {
    while (!stop.load()) {
      for (const uint64_t base : {kGiB, 2 * kGiB}) {
        uint64_t word = 0;
        if (ReadInto(*vm, base + 0x1000, &word, 0) == AccessOutcome::kDone) {
          ASSERT_EQ(word, 77u);
        }
      }
    }
  });
  for (int i = 0; i < 200; ++i) {
    ASSERT_TRUE(
        vm->SetMemslot(Slot(0, i % 2 == 0 ? 2 * kGiB : kGiB, kMiB)).ok());
  }
  stop.store(true);
  vcpu.join();
  EXPECT_EQ(Read(*vm, 2 * kGiB + 0x1000), AccessOutcome::kEmulated);
  EXPECT_EQ(testing::ReadValue(*vm, kGiB + 0x1000), 77u);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// As KVM's memslot_modification_stress_test. With the quirk of SLOT_ZAP_ALL
// each removal of a slot zaps all mappings, so the vCPUs fault all the time.
class DummySlotTest : public ::testing::TestWithParam<VmConfig::SlotZap> {};

INSTANTIATE_TEST_SUITE_P(SlotZaps, DummySlotTest,
                         ::testing::Values(VmConfig::SlotZap::kAll,
                                           VmConfig::SlotZap::kSlot),
                         [](const auto& zap) {
                           return zap.param == VmConfig::SlotZap::kAll
                                      ? "ZapAll"
                                      : "ZapSlot";
                         });

// Covers: TST-08
TEST_P(DummySlotTest, AddingAndRemovingADummySlotLosesNoAccess) {
  VmConfig config;
  config.vcpu_count = 2;
  config.slot_zap = GetParam();
  config.memslots = {Slot(0, 0, 16 * kMiB, Level::k2M)};
  auto vm = testing::MakeVmFrom(config);
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> passes{0};
  std::vector<std::thread> vcpus;
  for (int i = 0; i < 2; ++i) {
    vcpus.emplace_back([&, i] {
      // Each vCPU writes growing numbers to pages of its own.
      for (uint64_t n = 1; !stop.load(); ++n) {
        for (uint64_t page = i; page < 4096; page += 194) {
          ASSERT_EQ(Write(*vm, page * kPageSize, n, i), AccessOutcome::kDone);
          ASSERT_EQ(testing::ReadValue(*vm, page * kPageSize, i), n);
        }
        passes.fetch_add(1);
      }
    });
  }
  for (int i = 0; i < 200; ++i) {
    ASSERT_TRUE(vm->SetMemslot(Slot(9, 2 * kGiB, 64 * kPageSize)).ok());
    // Keep the slot until the vCPUs have made accesses.
    const uint64_t before = passes.load();
    while (passes.load() == before) std::this_thread::yield();
    ASSERT_TRUE(vm->SetMemslot(Slot(9, 2 * kGiB, 0)).ok());
  }
  stop.store(true);
  for (std::thread& vcpu : vcpus) vcpu.join();
  uint64_t faults = 0;
  for (const VcpuStatsSnapshot& stats : vm->VcpuStats()) {
    faults += stats.pf_taken;
  }
  if (GetParam() == VmConfig::SlotZap::kAll) {
    EXPECT_GT(faults, 200u) << "each removal makes the vCPUs fault";
  } else {
    EXPECT_LT(faults, 200u) << "no removal does";
  }
  EXPECT_EQ(AuditFindings(*vm), "");
}

}  // namespace
}  // namespace mmu
