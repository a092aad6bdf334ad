#include "mmu_core/memory/memslot_hint.h"

#include <cstdint>
#include <memory>

#include "gtest/gtest.h"
#include "mmu_core/base/address.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/memory/memslot_set.h"

namespace mmu {
namespace {

constexpr Gfn kGfn(5);

// A set with one slot, which has ten pages from gfn 0 on.
MemslotSet SetOf(uint64_t generation) {
  auto slot = std::make_shared<Memslot>();
  slot->npages = 10;
  return MemslotSet(generation, {slot});
}

TEST(MemslotHintTest, TheSlotIsTheOneOfTheSet) {
  const MemslotSet set = SetOf(2);
  MemslotHint hint;
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(hint.Find(set, kGfn), set.FindByGfn(kGfn));
    EXPECT_EQ(hint.Find(set, Gfn(10)), nullptr) << "not in the hint's slot";
  }
}

// Covers: SLOT-22
TEST(MemslotHintTest, ASlotOfAnotherGenerationIsNotReturned) {
  const MemslotSet before = SetOf(2);
  const MemslotSet after = SetOf(4);
  MemslotHint hint;
  EXPECT_EQ(hint.Find(before, kGfn), before.FindByGfn(kGfn));
  EXPECT_EQ(hint.Find(after, kGfn), after.FindByGfn(kGfn));
}

// A set that is being published is looked into each time.
// Covers: SLOT-22
TEST(MemslotHintTest, NothingIsKeptDuringASwap) {
  const MemslotSet first = SetOf(2 | kGenerationInProgress);
  const MemslotSet second = SetOf(2 | kGenerationInProgress);
  MemslotHint hint;
  EXPECT_EQ(hint.Find(first, kGfn), first.FindByGfn(kGfn));
  EXPECT_EQ(hint.Find(second, kGfn), second.FindByGfn(kGfn));
}

}  // namespace
}  // namespace mmu
