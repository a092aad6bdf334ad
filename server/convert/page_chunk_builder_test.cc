#include "server/convert/page_chunk_builder.h"

#include <cstddef>
#include <cstdint>
#include <vector>

#include "gtest/gtest.h"
#include "mmu_core/base/address.h"
#include "wire/crc32c.h"

namespace mmud {
namespace {

TEST(PageChunkBuilder, NamesZeroPagesAndJoinsNeighbours) {
  const std::vector<std::byte> zero(4096), ones(4096, std::byte{1});
  PageChunkBuilder builder(8192);
  builder.Add(mmu::Gpa(0x1000), zero);
  builder.Add(mmu::Gpa(0x2000), ones);
  builder.Add(mmu::Gpa(0x3000), zero);
  builder.Add(mmu::Gpa(0x4000), zero);
  EXPECT_FALSE(builder.full());
  builder.Add(mmu::Gpa(0x5000), ones);
  EXPECT_TRUE(builder.full());
  const v1::PageChunk chunk = builder.Take();
  EXPECT_TRUE(builder.empty());
  ASSERT_EQ(chunk.data_extents_size(), 2);
  EXPECT_EQ(chunk.data_extents(1).gpa_bytes(), 0x5000);
  ASSERT_EQ(chunk.zero_extents_size(), 2);
  EXPECT_EQ(chunk.zero_extents(1).gpa_bytes(), 0x3000);
  EXPECT_EQ(chunk.zero_extents(1).size_bytes(), 0x2000);
  EXPECT_EQ(chunk.data().size(), 8192u);
  EXPECT_EQ(chunk.crc32c(), Crc32c(chunk.data()));
  EXPECT_EQ(builder.totals().page_count(), 5);
  EXPECT_EQ(builder.totals().zero_page_count(), 3);
  EXPECT_EQ(builder.totals().data_size_bytes(), 8192);
}

TEST(PageChunkBuilder, APageWithOneBitSetIsNotZero) {
  std::vector<std::byte> page(4096);
  page[4095] = std::byte{1};
  PageChunkBuilder builder(4096);
  builder.Add(mmu::Gpa(0), page);
  EXPECT_EQ(builder.Take().zero_extents_size(), 0);
}

TEST(PageChunkBuilder, IsFullWithManyExtents) {
  const std::vector<std::byte> zero(4096);
  PageChunkBuilder builder(1 << 20);
  uint64_t gpa = 0;
  while (!builder.full()) {
    builder.Add(mmu::Gpa(gpa), zero);
    gpa += 8192;
  }
  EXPECT_LT(builder.Take().ByteSizeLong(), size_t{64} << 10);
}

}  // namespace
}  // namespace mmud
