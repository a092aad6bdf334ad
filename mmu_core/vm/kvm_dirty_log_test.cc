// KVM's own ioctls on a slot's dirty bitmap, beside the epochs.

#include "mmu_core/vm/logging/kvm_dirty_log.h"

#include <cerrno>
#include <cstdint>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/memory/region_request.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/dirty_log_test_util.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/slots/region_hooks.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/vm/vm_state.h"

namespace mmu {
namespace {

using ::mmu::testing::ErrorOf;
using ::mmu::testing::ErrorText;
using ::mmu::testing::Flushes;
using ::mmu::testing::kGiB;
using ::mmu::testing::kMiB;
using ::mmu::testing::kPlain;
using ::mmu::testing::MakeVm;
using ::mmu::testing::MaskOf;
using ::mmu::testing::PagesOf;
using ::mmu::testing::Slot;
using ::mmu::testing::SpteOf;
using ::mmu::testing::StartLog;
using ::mmu::testing::Write;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

// Covers: DL-10, DL-11, DL-12
TEST(KvmCallsTest, LegacyGetTakesProtectsAndFlushes) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB)});
  ASSERT_TRUE(StartLog(*vm, kPlain, nullptr).ok());
  Write(*vm, 0x3000, 1);
  MmuCost cost;
  auto words = GetAndClearDirtyLog(vm->state(), 0, &cost);
  ASSERT_TRUE(words.ok());
  EXPECT_THAT(PagesOf(*words), ElementsAre(3));
  EXPECT_EQ(cost.tlb_flush_count, 1);
  // The cached translation must not allow a write any more.
  Write(*vm, 0x3000, 2);
  EXPECT_THAT(PagesOf(*GetAndClearDirtyLog(vm->state(), 0, nullptr)),
              ElementsAre(3));
  MmuCost idle;
  EXPECT_THAT(PagesOf(*GetAndClearDirtyLog(vm->state(), 0, &idle)), IsEmpty());
  EXPECT_EQ(idle.tlb_flush_count, 0);
}

// Covers: DL-13, DL-25
TEST(KvmCallsTest, ManualGetCopiesAndOnlyClearClears) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB)});
  ASSERT_TRUE(StartLog(*vm, kPlain, nullptr).ok());
  Write(*vm, 0x3000);
  Write(*vm, 0x4000);
  const uint64_t flushes = Flushes(*vm);
  EXPECT_THAT(PagesOf(*CopyDirtyLog(vm->state(), 0)), ElementsAre(3, 4));
  EXPECT_THAT(PagesOf(*CopyDirtyLog(vm->state(), 0)), ElementsAre(3, 4));
  EXPECT_EQ(Flushes(*vm), flushes);
  EXPECT_TRUE(SpteOf(vm->state(), Gfn(3)).IsWritable());
  const auto cleared =
      ClearBitmap(vm->state(), 0, 0, 64, MaskOf(64, {3, 9}), nullptr);
  ASSERT_TRUE(cleared.ok());
  EXPECT_EQ(cleared->cleared_page_count, 1u);
  EXPECT_FALSE(SpteOf(vm->state(), Gfn(3)).IsWritable());
  EXPECT_THAT(PagesOf(*CopyDirtyLog(vm->state(), 0)), ElementsAre(4));
}

// Covers: DL-14
TEST(KvmCallsTest, ManualProtectTakesItsTwoBitsAndHoldsForSlotsEnabledLater) {
  auto vm = MakeVm({Slot(0, 0, 64 * kPageSize), Slot(1, kGiB, 64 * kPageSize),
                    Slot(2, 2 * kGiB, 64 * kPageSize)});
  VmState& state = vm->state();
  for (const auto& [bits, flags] : std::vector<std::pair<uint64_t, uint32_t>>{
           {2, 0}, {4, 0}, {7, 0}, {1, 1}}) {
    EXPECT_EQ(ErrorOf(EnableManualProtect(state, bits, flags)),
              ErrorText(absl::StatusCode::kInvalidArgument,
                        Reason::kInvalidDirtyLogMode, "bits", EINVAL));
  }
  const auto dirty = [&](uint32_t id) {
    MutexLock lock(state.slots.slots_lock);
    return state.slots.Active(0).FindById(id)->dirty_bitmap->CountDirty();
  };
  const auto enable = [&](uint32_t id) {
    MutexLock lock(state.slots.slots_lock);
    const Memslot& slot = *state.slots.Active(0).FindById(id);
    RegionRequest request;
    request.slot = id;
    request.flags = kMemslotLogDirtyPages;
    request.gpa = ToGpa(slot.base_gfn);
    request.size_bytes = slot.npages << kPageShift;
    request.userspace_addr = slot.hva;
    RegionHooks hooks(state, nullptr);
    EXPECT_TRUE(state.slots.SetRegion(request, hooks).ok());
  };
  ASSERT_TRUE(EnableManualProtect(state, 3, 0).ok());
  enable(0);
  EXPECT_EQ(dirty(0), 64u);
  ASSERT_TRUE(EnableManualProtect(state, 1, 0).ok());
  enable(1);
  EXPECT_EQ(dirty(1), 0u);
  ASSERT_TRUE(EnableManualProtect(state, 3, 0).ok());
  EXPECT_EQ(dirty(1), 0u) << "it was enabled before";
  ASSERT_TRUE(EnableManualProtect(state, 0, 0).ok());
  EXPECT_EQ(dirty(0), 64u);
  enable(2);
  EXPECT_EQ(dirty(2), 0u);
}

TEST(KvmCallsTest, WithoutALogThereIsNothingToGet) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB)});
  const std::vector<uint64_t> mask(1);
  for (const uint32_t slot : {0u, 9u}) {
    for (const absl::Status& status :
         {GetAndClearDirtyLog(vm->state(), slot, nullptr).status(),
          CopyDirtyLog(vm->state(), slot).status(),
          ClearBitmap(vm->state(), slot, 0, 64, mask, nullptr).status()}) {
      EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
      EXPECT_EQ(DetailOf(status).kvm_errno, ENOENT);
    }
  }
}

// Covers: DL-21
TEST(KvmCallsTest, AClearMissesTheBitmapBeforeTheEndOfTheSlot) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB)});
  const std::vector<uint64_t> mask(1);
  constexpr uint64_t kBehindTheSlot = 4 * kMiB / kPageSize;
  const auto clear = [&] {
    return ClearBitmap(vm->state(), 0, kBehindTheSlot, 64, mask, nullptr)
        .status();
  };
  EXPECT_EQ(DetailOf(clear()).kvm_errno, ENOENT);
  ASSERT_TRUE(StartLog(*vm).ok());
  EXPECT_EQ(DetailOf(clear()).kvm_errno, EINVAL);
}

}  // namespace
}  // namespace mmu
