// A VM may have tens of thousands of memslots. The cost of an operation on all
// of them must grow in proportion to their number. The test compares the
// allocations with four times the slots.

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "gtest/gtest.h"
#include "mmu_core/base/level.h"
#include "mmu_core/dirty/dirty_log_types.h"
#include "mmu_core/memory/backing.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/failing_allocations.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/core/vm_config.h"
#include "mmu_core/vm/vm.h"

namespace mmu::testing {
namespace {

constexpr uint64_t kSlotPages = 4;

uint64_t BytesOf(absl::FunctionRef<void()> fn) {
  const uint64_t before = AllocationsOfThread().bytes;
  fn();
  return AllocationsOfThread().bytes - before;
}

// The bytes per slot that each operation allocates.
struct Costs {
  uint64_t create = 0;
  uint64_t start = 0;
  uint64_t look = 0;
  uint64_t harvest = 0;
  uint64_t stop = 0;
  uint64_t remove = 0;
};

Costs CostsOf(uint32_t slots, uint32_t ring_entries) {
  VmConfig config;
  config.dirty_ring_entries = ring_entries;
  if (ring_entries != 0) {
    config.companion_bitmap = VmConfig::CompanionBitmap::kYes;
  }
  DirtyLogConfig log;
  for (uint32_t id = 0; id < slots; ++id) {
    config.memslots.push_back(Slot(id, id * kSlotPages * kPageSize,
                                   kSlotPages * kPageSize, Level::k4K,
                                   BackingKind::kMetadataOnly));
    log.slots.push_back(id);
  }
  Costs costs;
  std::unique_ptr<Vm> vm;
  costs.create = BytesOf([&] { vm = MakeVmFrom(config); }) / slots;
  costs.start =
      BytesOf([&] { EXPECT_TRUE(StartLog(*vm, log, nullptr).ok()); }) / slots;
  costs.look = BytesOf([&] {
                 EXPECT_EQ(vm->Memslots().size(), slots);
                 EXPECT_EQ(vm->FindDirtyLog()->state.slots.size(), slots);
               }) /
               slots;
  costs.harvest = BytesOf([&] {
                    EXPECT_TRUE(SealLog(*vm).ok());
                    for (uint32_t id = 0; id < slots; ++id) {
                      EXPECT_TRUE(vm->FindMemslot(0, id).has_value());
                      EXPECT_NE(vm->state().dirty_log.FindSlot(id), nullptr);
                    }
                  }) /
                  slots;
  costs.stop = BytesOf([&] {
                 EXPECT_TRUE(StopLog(*vm, RecoverOnStop::kNo,
                                     Undelivered::kRefuse, nullptr)
                                 .ok());
               }) /
               slots;
  costs.remove = BytesOf([&] {
                   for (uint32_t id = 0; id < slots; ++id) {
                     EXPECT_TRUE(vm->SetMemslot(Slot(id, 0, 0)).ok());
                   }
                 }) /
                 slots;
  return costs;
}

TEST(ManySlotsTest, ASlotCostsTheSameWhetherThereAreManyOrFew) {
  for (const uint32_t ring_entries : {0, 1024}) {
    SCOPED_TRACE(ring_entries);
    const Costs few = CostsOf(1000, ring_entries);
    const Costs many = CostsOf(4000, ring_entries);
    // A new set shares its chunks with the previous set, but copies the list of
    // chunks in each of its three indexes. A list has one Place for about a
    // hundred slots: 32 bytes by id and by gfn, 48 by host address.
    EXPECT_LT(many.create, few.create + few.create / 2);
    EXPECT_LT(many.remove, few.remove + few.remove / 2);
    EXPECT_LT(many.start, few.start + few.start / 4);
    EXPECT_LT(many.look, few.look + few.look / 2);  // vectors grow by doubling
    EXPECT_LE(many.harvest, few.harvest + 8);
    EXPECT_LT(many.stop, few.stop + few.stop / 4);
  }
}

// A small slot's bitmaps take no whole host page each.
TEST(ManySlotsTest, ALogOfASmallSlotIsSmall) {
  EXPECT_LT(CostsOf(1000, 0).start, 2048u);
}

// One swap of the sets switches all logs on, and one switches them off.
TEST(ManySlotsTest, LogsOfAllSlotsAreSwitchedTogether) {
  std::vector<MemslotConfig> slots;
  for (uint32_t id = 0; id < 500; ++id) {
    slots.push_back(Slot(id, id * kPageSize, kPageSize, Level::k4K,
                         BackingKind::kMetadataOnly));
  }
  auto vm = MakeVm(std::move(slots));
  const uint64_t before = vm->FindMemslot(0, 0)->generation;
  ASSERT_TRUE(StartLog(*vm, {}, nullptr).ok());
  EXPECT_EQ(vm->FindMemslot(0, 0)->generation, before + 2);
  ASSERT_TRUE(
      StopLog(*vm, RecoverOnStop::kNo, Undelivered::kRefuse, nullptr).ok());
  EXPECT_EQ(vm->FindMemslot(0, 0)->generation, before + 4);
  EXPECT_EQ(AuditFindings(*vm), "");
}

}  // namespace
}  // namespace mmu::testing
