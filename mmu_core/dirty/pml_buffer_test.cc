#include "mmu_core/dirty/pml_buffer.h"

#include <cstdint>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace mmu {
namespace {

using ::testing::ElementsAre;

std::vector<uint64_t> Entries(const PmlBuffer& buffer) {
  std::vector<uint64_t> entries;
  buffer.ForEach([&](Gpa gpa) { entries.push_back(gpa.value()); });
  return entries;
}

TEST(PmlBufferTest, EntriesAreAddressesOfPagesAndComeOutOldestFirst) {
  PmlBuffer buffer;
  EXPECT_TRUE(buffer.empty());
  buffer.Log(Gpa(0x2008));
  buffer.Log(Gpa(0x1fff));
  buffer.Log(Gpa(0x3000));
  EXPECT_EQ(buffer.count(), 3);
  EXPECT_THAT(Entries(buffer), ElementsAre(0x2000, 0x1000, 0x3000));
  buffer.Reset();
  EXPECT_TRUE(buffer.empty());
  EXPECT_THAT(Entries(buffer), ElementsAre());
}

// Covers: DL-30
TEST(PmlBufferTest, FiveHundredAndTwelveEntriesFillIt) {
  PmlBuffer buffer;
  std::vector<uint64_t> expected;
  for (uint64_t page = 0; page < 512; ++page) {
    ASSERT_FALSE(buffer.full()) << page;
    ASSERT_EQ(buffer.count(), static_cast<int>(page));
    buffer.Log(Gpa(page * kPageSize));
    expected.push_back(page * kPageSize);
  }
  EXPECT_TRUE(buffer.full());
  EXPECT_FALSE(buffer.empty());
  EXPECT_EQ(buffer.count(), 512);
  EXPECT_EQ(Entries(buffer), expected);
  buffer.Reset();
  EXPECT_FALSE(buffer.full());
  EXPECT_TRUE(buffer.empty());
}

}  // namespace
}  // namespace mmu
