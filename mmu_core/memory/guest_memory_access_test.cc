#include "mmu_core/memory/guest_memory_access.h"

#include <cstdint>
#include <memory>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/level.h"
#include "mmu_core/dirty/dirty_ring.h"
#include "mmu_core/memory/backing.h"
#include "mmu_core/memory/guest_words.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/interleaving.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/vm.h"

namespace mmu::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using Result = GuestWordResult;

constexpr uint64_t kSlotBytes = 1 << 20;

class GuestMemoryAccessTest : public ::testing::Test {
 protected:
  GuestMemoryAccessTest() {
    MemslotConfig readonly = Slot(1, kSlotBytes, kSlotBytes);
    readonly.mode = MemslotConfig::Mode::kReadOnly;
    vm_ = MakeVm({Slot(0, 0, kSlotBytes), readonly,
                  Slot(2, 2 * kSlotBytes, kSlotBytes, Level::k4K,
                       BackingKind::kMetadataOnly)});
  }

  std::unique_ptr<Vm> vm_;
};

TEST_F(GuestMemoryAccessTest, WordsAreTheOnesThatTheGuestReadsAndWrites) {
  GuestMemoryAccess memory(vm_->state().slots, 0, nullptr);
  Write(*vm_, 0x3008, 0x1122334455667788);
  uint64_t value = 0;
  EXPECT_EQ(memory.Read(Gpa(0x3008), WordSize::k8, &value), Result::kDone);
  EXPECT_EQ(value, 0x1122334455667788u);
  EXPECT_EQ(memory.Read(Gpa(0x300c), WordSize::k4, &value), Result::kDone);
  EXPECT_EQ(value, 0x11223344u);

  EXPECT_EQ(memory.CompareExchange(Gpa(0x3008), WordSize::k4, 0x55667788, 7),
            Result::kDone);
  EXPECT_EQ(ReadValue(*vm_, 0x3008), 0x1122334400000007u);
}

TEST_F(GuestMemoryAccessTest, AnExchangeAgainstAnotherValueWritesNothing) {
  GuestMemoryAccess memory(vm_->state().slots, 0, nullptr);
  Write(*vm_, 0x3000, 5);
  EXPECT_EQ(memory.CompareExchange(Gpa(0x3000), WordSize::k8, 4, 6),
            Result::kChanged);
  EXPECT_EQ(ReadValue(*vm_, 0x3000), 5u);
}

TEST_F(GuestMemoryAccessTest, WhatCannotBeReadOrWrittenSaysWhy) {
  GuestMemoryAccess memory(vm_->state().slots, 0, nullptr);
  uint64_t value = 99;
  EXPECT_EQ(memory.Read(Gpa(kSlotBytes), WordSize::k8, &value), Result::kDone);
  EXPECT_EQ(value, 0u);
  EXPECT_EQ(memory.CompareExchange(Gpa(kSlotBytes), WordSize::k8, 0, 1),
            Result::kReadonly);

  value = 99;
  const Gpa metadata_only(2 * kSlotBytes);
  EXPECT_EQ(memory.Read(metadata_only, WordSize::k8, &value),
            Result::kNoContents);
  EXPECT_EQ(memory.CompareExchange(metadata_only, WordSize::k8, 0, 1),
            Result::kNoContents);
  const Gpa hole(3 * kSlotBytes);
  EXPECT_EQ(memory.Read(hole, WordSize::k8, &value), Result::kNoSlot);
  EXPECT_EQ(memory.CompareExchange(hole, WordSize::k8, 0, 1), Result::kNoSlot);
  EXPECT_EQ(value, 99u);
}

TEST_F(GuestMemoryAccessTest, AnotherAddressSpaceHasOtherMemory) {
  GuestMemoryAccess smm(vm_->state().slots, 1, nullptr);
  uint64_t value = 0;
  EXPECT_EQ(smm.Read(Gpa(0), WordSize::k8, &value), Result::kNoSlot);
}

TEST_F(GuestMemoryAccessTest, ASlotThatIsGoneIsFoundNoMore) {
  GuestMemoryAccess memory(vm_->state().slots, 0, nullptr);
  uint64_t value = 0;
  ASSERT_EQ(memory.Read(Gpa(0), WordSize::k8, &value), Result::kDone);
  MemslotConfig gone = Slot(0, 0, 0);
  ASSERT_TRUE(vm_->SetMemslot(gone).ok());
  EXPECT_EQ(memory.Read(Gpa(0), WordSize::k8, &value), Result::kNoSlot);
}

// The slot is published as invalid, and the deletion waits for readers of the
// set before.
// Covers: SLOT-25
TEST_F(GuestMemoryAccessTest, ASlotThatIsGoneSoonHasNoWords) {
  GuestMemoryAccess memory(vm_->state().slots, 0, nullptr);
  uint64_t value = 0;
  Interleaving threads;
  threads.Add("delete",
              [&] { EXPECT_TRUE(vm_->SetMemslot(Slot(0, 0, 0)).ok()); });
  threads.RunTo("delete", HookPoint::kGracePeriod);
  EXPECT_EQ(memory.Read(Gpa(0), WordSize::k8, &value), Result::kNoSlot);
  EXPECT_EQ(memory.CompareExchange(Gpa(0), WordSize::k8, 0, 1),
            Result::kNoSlot);
  threads.RunToEnd("delete");
}

TEST_F(GuestMemoryAccessTest, OnlyAnExchangeThatWroteMarksItsPage) {
  ASSERT_TRUE(StartLog(*vm_, {.slots = {0}}, nullptr).ok());
  GuestMemoryAccess memory(vm_->state().slots, 0, nullptr);
  uint64_t value = 0;
  ASSERT_EQ(memory.Read(Gpa(0x1000), WordSize::k8, &value), Result::kDone);
  ASSERT_EQ(memory.CompareExchange(Gpa(0x2000), WordSize::k8, 1, 2),
            Result::kChanged);
  EXPECT_THAT(SealAndList(*vm_, 0), IsEmpty());
  ASSERT_EQ(memory.CompareExchange(Gpa(0x5ff8), WordSize::k8, 0, 2),
            Result::kDone);
  EXPECT_THAT(SealAndList(*vm_, 0), ElementsAre(5));
}

// Covers: DL-42
TEST_F(GuestMemoryAccessTest, AtTheSoftLimitOfTheRingNothingIsWrittenThatLogs) {
  std::unique_ptr<Vm> vm = MakeRingVm(
      {Slot(3, 0, kSlotBytes), Slot(4, kSlotBytes, kSlotBytes)}, 256);
  ASSERT_TRUE(StartLog(*vm, {.slots = {3}}, nullptr).ok());
  DirtyRing* ring = vm->state().vcpus[0]->dirty_ring();
  GuestMemoryAccess memory(vm->state().slots, 0, ring);
  uint64_t word = 0;
  while (!ring->SoftFull()) {
    ASSERT_EQ(memory.CompareExchange(Gpa(0x7000), WordSize::k8, word, word + 1),
              Result::kDone);
    ++word;
  }
  for (int i = 0; i < 1000; ++i) {
    ASSERT_EQ(memory.CompareExchange(Gpa(0x7000), WordSize::k8, word, word + 1),
              Result::kRingFull);
  }
  EXPECT_EQ(ring->used(), ring->soft_limit());
  uint64_t value = 0;
  ASSERT_EQ(memory.Read(Gpa(0x7000), WordSize::k8, &value), Result::kDone);
  EXPECT_EQ(value, word);
  EXPECT_EQ(memory.CompareExchange(Gpa(kSlotBytes), WordSize::k8, 0, 1),
            Result::kDone)
      << "what does not log needs no room";
}

TEST_F(GuestMemoryAccessTest, WithRingsTheMarkGoesToTheVcpusRing) {
  std::unique_ptr<Vm> vm = MakeRingVm({Slot(3, 0, kSlotBytes)}, 256);
  ASSERT_TRUE(StartLog(*vm, {.slots = {3}}, nullptr).ok());
  DirtyRing* ring = vm->state().vcpus[0]->dirty_ring();
  GuestMemoryAccess memory(vm->state().slots, 0, ring);
  ASSERT_EQ(memory.CompareExchange(Gpa(0x7000), WordSize::k4, 0, 2),
            Result::kDone);
  std::vector<DirtyGfn> pages;
  ring->ForEach([&](DirtyGfn page) { pages.push_back(page); });
  EXPECT_THAT(pages, ElementsAre(DirtyGfn{.slot = 3, .offset = 7}));
}

// The page is cleared and copied after the word was written and before it is
// marked. The mark belongs to the next epoch.
TEST_F(GuestMemoryAccessTest, Race26AClearBetweenWriteAndMarkLosesNothing) {
  ASSERT_TRUE(StartLog(*vm_, {.slots = {0}}, nullptr).ok());
  Write(*vm_, 0x5000, 1);
  Interleaving threads;
  threads.Add("walk", [&] {
    GuestMemoryAccess memory(vm_->state().slots, 0, nullptr);
    EXPECT_EQ(memory.CompareExchange(Gpa(0x5000), WordSize::k8, 1, 2),
              Result::kDone);
  });
  uint64_t copied = 0;
  threads.Add("migration", [&] {
    uint64_t epoch = 0;
    EXPECT_THAT(SealAndList(*vm_, 0, &epoch), ElementsAre(5));
    EXPECT_TRUE(
        ClearAndDeliver(*vm_, 0, epoch, 0, 256, MaskOf(256, {5}), nullptr)
            .ok());
    copied = ReadValue(*vm_, 0x5000);
  });
  threads.RunTo("walk", HookPoint::kGuestWordToMark);
  threads.RunToEnd("migration");
  threads.RunToEnd("walk");
  EXPECT_EQ(copied, 2u) << "the word is in the copy";
  EXPECT_THAT(SealAndList(*vm_, 0), ElementsAre(5)) << "and marked again";
  EXPECT_EQ(AuditFindings(*vm_), "");
}

}  // namespace
}  // namespace mmu::testing
