#include "server/services/dirty_log_codec.h"

#include <cstdint>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/error.h"
#include "mmud/v1/dirty_log_service.pb.h"

namespace mmud {
namespace {

constexpr uint64_t kStart = uint64_t{5} << 30;

// The pages that chunks name, and that the checksums and order are right.
std::set<uint64_t> Decode(const std::vector<v1::DirtyLogChunk>& chunks) {
  std::set<uint64_t> pages;
  int64_t last_end = 0;
  for (const auto& chunk : chunks) {
    EXPECT_EQ(chunk.crc32c(), PayloadCrc(chunk, 0));
    EXPECT_GE(chunk.gpa_bytes(), last_end);
    last_end = chunk.gpa_bytes() + chunk.size_bytes();
    const uint64_t base =
        (static_cast<uint64_t>(chunk.gpa_bytes()) - kStart) >> 12;
    for (size_t i = 0; i < chunk.bitmap().size() * 8; ++i) {
      if (chunk.bitmap()[i / 8] >> (i % 8) & 1) pages.insert(base + i);
    }
    for (const auto& extent : chunk.extents().extents()) {
      for (int64_t at = 0; at < extent.size_bytes(); at += 4096) {
        pages.insert(
            (static_cast<uint64_t>(extent.gpa_bytes() + at) - kStart) >> 12);
      }
    }
  }
  return pages;
}

TEST(DirtyLogCodec, EveryEncodingSaysTheSame) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 50; ++round) {
    std::vector<uint64_t> words(40);
    for (uint64_t& word : words) {
      switch (random() % 4) {
        case 0:
          word = random();
          break;
        case 1:
          word = ~uint64_t{0};
          break;
        case 2:
          word = uint64_t{1} << (random() % 64);
          break;
        default:
          word = 0;
      }
    }
    std::set<uint64_t> expected;
    for (size_t i = 0; i < words.size() * 64; ++i) {
      if (words[i / 64] >> (i % 64) & 1) expected.insert(i);
    }
    for (auto encoding :
         {v1::DIRTY_LOG_ENCODING_AUTO, v1::DIRTY_LOG_ENCODING_BITMAP,
          v1::DIRTY_LOG_ENCODING_EXTENTS}) {
      EXPECT_EQ(Decode(EncodeDirtyPages(mmu::Gpa(kStart), words,
                                        words.size() * 64, encoding, 64)),
                expected);
    }
  }
}

TEST(DirtyLogCodec, CleanMemoryNeedsNoChunk) {
  const std::vector<uint64_t> words(100, 0);
  EXPECT_TRUE(EncodeDirtyPages(mmu::Gpa(kStart), words, words.size() * 64,
                               v1::DIRTY_LOG_ENCODING_BITMAP, 64)
                  .empty());
  EXPECT_TRUE(EncodeDirtyPages(mmu::Gpa(kStart), words, words.size() * 64,
                               v1::DIRTY_LOG_ENCODING_AUTO, 64)
                  .empty());
}

TEST(DirtyLogCodec, AutoTakesTheShorterForm) {
  std::vector<uint64_t> sparse(64, 0);
  sparse[0] = 1;
  sparse[63] = 1;
  EXPECT_TRUE(EncodeDirtyPages(mmu::Gpa(kStart), sparse, sparse.size() * 64,
                               v1::DIRTY_LOG_ENCODING_AUTO, 4096)[0]
                  .has_extents());
  const std::vector<uint64_t> dense(64, 0x5555555555555555);
  EXPECT_TRUE(EncodeDirtyPages(mmu::Gpa(kStart), dense, dense.size() * 64,
                               v1::DIRTY_LOG_ENCODING_AUTO, 4096)[0]
                  .has_bitmap());
}

TEST(DirtyLogCodec, ChunksStayWithinTheirSize) {
  const std::vector<uint64_t> words(64, 0x5555555555555555);
  for (const auto& chunk :
       EncodeDirtyPages(mmu::Gpa(kStart), words, words.size() * 64,
                        v1::DIRTY_LOG_ENCODING_EXTENTS, 96)) {
    EXPECT_LE(chunk.extents().extents_size(), 4);
  }
  for (const auto& chunk :
       EncodeDirtyPages(mmu::Gpa(kStart), words, words.size() * 64,
                        v1::DIRTY_LOG_ENCODING_BITMAP, 96)) {
    EXPECT_LE(chunk.bitmap().size(), 96u);
  }
}

TEST(DirtyLogCodec, NoChunkReachesBeyondItsPages) {
  // The end of a slot of 100 pages; the last two are dirty.
  const std::vector<uint64_t> words = {1, uint64_t{3} << 34};
  for (const auto encoding :
       {v1::DIRTY_LOG_ENCODING_AUTO, v1::DIRTY_LOG_ENCODING_BITMAP,
        v1::DIRTY_LOG_ENCODING_EXTENTS}) {
    const auto chunks =
        EncodeDirtyPages(mmu::Gpa(kStart), words, 100, encoding, 4096);
    ASSERT_EQ(chunks.size(), 1u);
    EXPECT_EQ(chunks[0].gpa_bytes(), kStart);
    EXPECT_EQ(chunks[0].size_bytes(), 100 * 4096);
    if (chunks[0].has_bitmap()) {
      EXPECT_EQ(chunks[0].bitmap().size(), 13u);
    }
  }
}

v1::ClearDirtyLogRequest Request() {
  v1::ClearDirtyLogRequest request;
  request.set_start_gpa_bytes(kStart);
  return request;
}

void AddExtent(v1::ClearDirtyLogRequest* request, uint64_t page,
               uint64_t pages) {
  auto* extent = request->mutable_extents()->add_extents();
  extent->set_gpa_bytes(static_cast<int64_t>(kStart + page * 4096));
  extent->set_size_bytes(static_cast<int64_t>(pages * 4096));
}

TEST(DirtyLogCodec, ExtentsBecomeAMask) {
  auto request = Request();
  AddExtent(&request, 1, 2);
  AddExtent(&request, 60, 70);
  const auto words = DecodeClearPages(request, 192);
  ASSERT_TRUE(words.ok());
  EXPECT_EQ(*words, (std::vector<uint64_t>{0xf000000000000006,
                                           0xffffffffffffffff, 0x3}));
}

TEST(DirtyLogCodec, ABitmapMustHaveOneBitPerPage) {
  auto request = Request();
  request.set_bitmap(std::string(9, '\1'));
  EXPECT_EQ(*DecodeClearPages(request, 70),
            (std::vector<uint64_t>{0x0101010101010101, 1}));
  EXPECT_EQ(mmu::DetailOf(DecodeClearPages(request, 64).status()).reason,
            "INVALID_BITMAP");
  request.set_bitmap(std::string(9, '\xff'));
  EXPECT_EQ(mmu::DetailOf(DecodeClearPages(request, 70).status()).reason,
            "INVALID_BITMAP");
}

TEST(DirtyLogCodec, RefusesExtentsOutsideOrOutOfOrder) {
  auto outside = Request();
  AddExtent(&outside, 60, 5);
  EXPECT_EQ(mmu::DetailOf(DecodeClearPages(outside, 64).status()).reason,
            "INVALID_BITMAP");
  auto disordered = Request();
  AddExtent(&disordered, 5, 1);
  AddExtent(&disordered, 4, 1);
  EXPECT_EQ(mmu::DetailOf(DecodeClearPages(disordered, 64).status()).reason,
            "INVALID_RANGE");
  auto touching = Request();
  AddExtent(&touching, 0, 4);
  AddExtent(&touching, 4, 1);
  EXPECT_EQ(mmu::DetailOf(DecodeClearPages(touching, 64).status()).reason,
            "INVALID_RANGE");
  EXPECT_EQ(mmu::DetailOf(DecodeClearPages(Request(), 64).status()).reason,
            "INVALID_BITMAP");
}

}  // namespace
}  // namespace mmud
