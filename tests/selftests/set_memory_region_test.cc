// Requests for memslots, as in KVM's set_memory_region_test: no slot at all,
// the maximum number of slots, and every combination of flags.
// memslot_stress_test.cc covers slots that change while they are used.

#include <cerrno>
#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/memory/region_request.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/slots/region_hooks.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/vm/vm_state.h"

namespace mmu {
namespace {

using ::mmu::testing::AuditFindings;
using ::mmu::testing::MakeVm;
using ::mmu::testing::Read;
using ::mmu::testing::ReadValue;
using ::mmu::testing::Slot;
using ::mmu::testing::Write;

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kGiB = uint64_t{1} << 30;

int ErrnoOf(const absl::Status& status) {
  return status.ok() ? 0 : DetailOf(status).kvm_errno;
}

// Covers: TST-09
TEST(SetMemoryRegionTest, AVmWithoutSlotsHasNoMemory) {
  auto vm = MakeVm({});
  EXPECT_EQ(Read(*vm, 0), AccessOutcome::kEmulated);
  EXPECT_EQ(Write(*vm, kGiB), AccessOutcome::kEmulated);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: TST-09, SLOT-01
TEST(SetMemoryRegionTest, AsManySlotsAsThereAreIdsAndNotOneMore) {
  auto vm = MakeVm({});
  const auto add = [&](uint32_t id) {
    return vm->SetMemslot(Slot(id, id * kPageSize, kPageSize, Level::k4K,
                               BackingKind::kMetadataOnly));
  };
  for (uint32_t id = 0; id < kUserMemslots; ++id) {
    ASSERT_TRUE(add(id).ok()) << id;
  }
  const absl::Status one_more = add(kUserMemslots);
  EXPECT_EQ(ErrnoOf(one_more), EINVAL);
  EXPECT_EQ(DetailOf(one_more).reason, Reason::kInvalidSlot);
  EXPECT_EQ(vm->Memslots().size(), kUserMemslots);
  EXPECT_EQ(Write(*vm, (kUserMemslots - 1) * kPageSize), AccessOutcome::kDone);
  EXPECT_EQ(Write(*vm, kUserMemslots * kPageSize), AccessOutcome::kEmulated);
}

// Calls the table itself, since the slots of Vm have flags in another form.
class FlagsTest : public ::testing::Test {
 protected:
  FlagsTest() : vm_(MakeVm({})) {}

  absl::Status Set(uint32_t flags, uint64_t size_bytes = kMiB) {
    VmState& state = vm_->state();
    MutexLock lock(state.slots.slots_lock);
    if (backing_ == nullptr) {
      backing_ = *state.memory.Allocate({.size_bytes = kMiB});
    }
    RegionRequest request;
    request.flags = flags;
    request.gpa = Gpa(kGiB);
    request.size_bytes = size_bytes;
    request.userspace_addr = backing_->hva();
    request.backing = backing_;
    RegionHooks hooks(state, /*cost=*/nullptr);
    return state.slots.SetRegion(request, hooks);
  }

  std::unique_ptr<Vm> vm_;
  std::shared_ptr<Backing> backing_;
};

// Covers: TST-09, SLOT-02
TEST_F(FlagsTest, OnlyLoggingAndReadOnlyExist) {
  for (int bit = 0; bit < 32; ++bit) {
    const uint32_t flags = uint32_t{1} << bit;
    const bool exists =
        flags == kMemslotLogDirtyPages || flags == kMemslotReadonly;
    for (const uint32_t beside : {0u, kMemslotLogDirtyPages, kMemslotReadonly,
                                  kMemslotLogDirtyPages | kMemslotReadonly}) {
      EXPECT_EQ(ErrnoOf(Set(flags | beside)), exists ? 0 : EINVAL)
          << (flags | beside);
      if (exists) {
        ASSERT_TRUE(Set(0, 0).ok());
      }
    }
  }
}

// Covers: TST-09, SLOT-10, SLOT-11
TEST_F(FlagsTest, ASlotMayBeginOrCeaseToLogButNotToBeReadOnly) {
  constexpr uint32_t kAll[] = {0, kMemslotLogDirtyPages, kMemslotReadonly,
                               kMemslotLogDirtyPages | kMemslotReadonly};
  for (const uint32_t from : kAll) {
    for (const uint32_t to : kAll) {
      ASSERT_TRUE(Set(from).ok());
      const bool toggles_readonly = ((from ^ to) & kMemslotReadonly) != 0;
      EXPECT_EQ(ErrnoOf(Set(to)), toggles_readonly ? EINVAL : 0)
          << from << " to " << to;
      ASSERT_TRUE(Set(0, 0).ok());
    }
  }
}

// Covers: TST-09
TEST_F(FlagsTest, WhatTheGuestMayDoFollowsTheFlags) {
  ASSERT_TRUE(Set(kMemslotReadonly).ok());
  EXPECT_EQ(Read(*vm_, kGiB), AccessOutcome::kDone);
  EXPECT_EQ(Write(*vm_, kGiB), AccessOutcome::kEmulated);
  ASSERT_TRUE(Set(0, 0).ok());
  EXPECT_EQ(Read(*vm_, kGiB), AccessOutcome::kEmulated);
  ASSERT_TRUE(Set(kMemslotLogDirtyPages).ok());
  EXPECT_EQ(Write(*vm_, kGiB, 5), AccessOutcome::kDone);
  EXPECT_EQ(ReadValue(*vm_, kGiB), 5u);
  {
    MutexLock lock(vm_->state().slots.slots_lock);
    EXPECT_TRUE(
        vm_->state().slots.Active(0).FindById(0)->dirty_bitmap->Test(0));
  }
  ASSERT_TRUE(Set(0, 0).ok());
}

}  // namespace
}  // namespace mmu
