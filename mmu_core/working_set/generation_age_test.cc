#include "mmu_core/working_set/generation_age.h"

#include <cstdint>

#include "gtest/gtest.h"

namespace mmu {
namespace {

TEST(GenerationAgeTest, ByteIsNeverThatOfAPageThatWasNeverYoung) {
  for (uint64_t sequence = 1; sequence <= 600; ++sequence) {
    ASSERT_NE(GenerationByte(sequence), 0) << sequence;
  }
  EXPECT_EQ(GenerationByte(1), 2);
  EXPECT_EQ(GenerationByte(254), 255);
  EXPECT_EQ(GenerationByte(255), 1);
  EXPECT_EQ(GenerationByte(256), 2);
}

TEST(GenerationAgeTest, AgeIsTheDifferenceUpToTheGreatest) {
  for (uint64_t newest = 1; newest <= 600; ++newest) {
    for (uint64_t age = 0; age < newest && age <= 191; ++age) {
      ASSERT_EQ(AgeOfByte(GenerationByte(newest - age), newest),
                age < 127 ? age : 127)
          << newest << " - " << age;
    }
  }
}

TEST(GenerationAgeTest, PageOfALaterGenerationHasAgeZero) {
  for (uint64_t newest = 1; newest <= 600; ++newest) {
    for (uint64_t later = 1; later < 64; ++later) {
      ASSERT_EQ(AgeOfByte(GenerationByte(newest + later), newest), 0);
    }
  }
}

TEST(GenerationAgeTest, NoPageIsYoungWithoutAByteOrBeforeTheFirstGeneration) {
  EXPECT_EQ(AgeOfByte(0, 0), kNeverYoung);
  EXPECT_EQ(AgeOfByte(0, 77), kNeverYoung);
  EXPECT_EQ(AgeOfByte(GenerationByte(1), 0), kNeverYoung);
}

TEST(GenerationAgeTest, TableHasTheAgeOfEachByte) {
  const GenerationAges ages(300);
  for (unsigned byte = 0; byte < 256; ++byte) {
    const auto b = static_cast<uint8_t>(byte);
    ASSERT_EQ(ages[b], AgeOfByte(b, 300)) << byte;
  }
}

}  // namespace
}  // namespace mmu
