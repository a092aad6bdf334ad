#include "client/mmu_client/dirty_log_stream.h"

#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "client/mmu_client/page_bitmap.h"
#include "gtest/gtest.h"
#include "mmud/v1/dirty_log_service.pb.h"
#include "wire/crc32c.h"

namespace mmud::client {
namespace {

constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
constexpr int64_t kMostPages = kMost - kPageBytes + 1;

v1::ReadDirtyPagesResponse Header(int64_t size_bytes) {
  v1::ReadDirtyPagesResponse message;
  message.mutable_header()->add_coverage()->set_size_bytes(size_bytes);
  return message;
}

// A chunk with one extent and a right checksum.
v1::ReadDirtyPagesResponse Chunk(GpaRange chunk, GpaRange extent) {
  v1::ReadDirtyPagesResponse message;
  v1::DirtyLogChunk& pages = *message.mutable_chunk();
  pages.set_gpa_bytes(chunk.gpa_bytes);
  pages.set_size_bytes(chunk.size_bytes);
  v1::Extent* one = pages.mutable_extents()->add_extents();
  one->set_gpa_bytes(extent.gpa_bytes);
  one->set_size_bytes(extent.size_bytes);
  pages.set_crc32c(Crc32c(ChunkPayload(pages)));
  return message;
}

TEST(DirtyLogStreamTest, RefusesACoverageThatNoSlotCanHave) {
  for (const int64_t size : {kMostPages, kMaxBitmapBytes + kPageBytes}) {
    SlotBitmaps pages;
    DirtyLogStream stream(&pages);
    EXPECT_TRUE(absl::IsDataLoss(stream.OnMessage(Header(size)))) << size;
    EXPECT_TRUE(pages.empty());
  }
}

TEST(DirtyLogStreamTest, RefusesPagesWhoseEndIsAbove2To63) {
  const GpaRange whole = {0, 64 * kPageBytes};
  for (const auto& [chunk, extent] :
       {std::pair(whole, GpaRange{kPageBytes, kMostPages}),
        std::pair(whole, GpaRange{kMostPages, kMostPages}),
        std::pair(GpaRange{kPageBytes, kMostPages}, whole)}) {
    SlotBitmaps pages;
    DirtyLogStream stream(&pages);
    ASSERT_TRUE(stream.OnMessage(Header(whole.size_bytes)).ok());
    EXPECT_TRUE(absl::IsDataLoss(stream.OnMessage(Chunk(chunk, extent))));
    EXPECT_TRUE(pages.at(0).empty());
  }
  SlotBitmaps pages;
  DirtyLogStream stream(&pages);
  ASSERT_TRUE(stream.OnMessage(Header(whole.size_bytes)).ok());
  EXPECT_TRUE(stream.OnMessage(Chunk(whole, {kPageBytes, kPageBytes})).ok());
  EXPECT_EQ(pages.at(0).Ranges(),
            (std::vector<GpaRange>{{kPageBytes, kPageBytes}}));
}

}  // namespace
}  // namespace mmud::client
