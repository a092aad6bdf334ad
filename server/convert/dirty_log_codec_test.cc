#include "server/convert/dirty_log_codec.h"

#include <cstddef>
#include <cstdint>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/optional.h"
#include "gtest/gtest.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/vm/core/vm_config.h"
#include "mmud/v1/common.pb.h"
#include "mmud/v1/dirty_log_service.pb.h"

namespace mmud {
namespace {

constexpr uint64_t kStart = uint64_t{5} << 30;
constexpr uint32_t kSlot = 3;

std::vector<v1::DirtyLogChunk> EncodeDirtyPages(
    const std::vector<uint64_t>& words, uint64_t page_count,
    v1::DirtyLogEncoding encoding, size_t max_bytes) {
  DirtyPageEncoder encoder(kSlot, mmu::Gpa(kStart), words, page_count, encoding,
                           max_bytes);
  std::vector<v1::DirtyLogChunk> chunks;
  while (absl::optional<v1::DirtyLogChunk> chunk = encoder.Next()) {
    chunks.push_back(*std::move(chunk));
  }
  EXPECT_FALSE(encoder.Next().has_value()) << "the end stays the end";
  return chunks;
}

// The pages that the chunks name; also checks the checksums and the order.
std::set<uint64_t> Decode(const std::vector<v1::DirtyLogChunk>& chunks) {
  std::set<uint64_t> pages;
  int64_t last_end = 0;
  for (const auto& chunk : chunks) {
    EXPECT_EQ(chunk.crc32c(), PayloadCrc(chunk, 0));
    EXPECT_EQ(chunk.slot(), static_cast<int32_t>(kSlot));
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
      EXPECT_EQ(
          Decode(EncodeDirtyPages(words, words.size() * 64, encoding, 1024)),
          expected);
    }
  }
}

// A run across two words is one extent, not two: with two extents, 120 bytes
// would exceed the bitmap's 112.
TEST(DirtyLogCodec, ARangeOverSeveralWordsCountsOnceForTheShorterForm) {
  std::vector<uint64_t> words(14, 0);
  words[0] = words[13] = words[6] = 1;
  words[8] = uint64_t{1} << 63;
  words[9] = 1;
  const auto chunks = EncodeDirtyPages(words, words.size() * 64,
                                       v1::DIRTY_LOG_ENCODING_AUTO, 4096);
  ASSERT_EQ(chunks.size(), 1u);
  EXPECT_EQ(chunks[0].extents().extents_size(), 4);
  EXPECT_EQ(CountPages(chunks[0]), 5);
}

TEST(DirtyLogCodec, CleanMemoryNeedsNoChunk) {
  const std::vector<uint64_t> words(100, 0);
  EXPECT_TRUE(EncodeDirtyPages(words, words.size() * 64,
                               v1::DIRTY_LOG_ENCODING_BITMAP, 64)
                  .empty());
  EXPECT_TRUE(EncodeDirtyPages(words, words.size() * 64,
                               v1::DIRTY_LOG_ENCODING_AUTO, 64)
                  .empty());
}

TEST(DirtyLogCodec, AutoTakesTheShorterForm) {
  std::vector<uint64_t> sparse(64, 0);
  sparse[0] = 1;
  sparse[63] = 1;
  EXPECT_TRUE(EncodeDirtyPages(sparse, sparse.size() * 64,
                               v1::DIRTY_LOG_ENCODING_AUTO, 4096)[0]
                  .has_extents());
  const std::vector<uint64_t> dense(64, 0x5555555555555555);
  EXPECT_TRUE(EncodeDirtyPages(dense, dense.size() * 64,
                               v1::DIRTY_LOG_ENCODING_AUTO, 4096)[0]
                  .has_bitmap());
}

TEST(DirtyLogCodec, ChunksStayWithinTheirSizeAndEndBetweenWords) {
  const std::vector<uint64_t> words(256, 0x5555555555555555);
  const auto extents = EncodeDirtyPages(words, words.size() * 64,
                                        v1::DIRTY_LOG_ENCODING_EXTENTS, 4096);
  EXPECT_GT(extents.size(), 40u);
  for (const auto& chunk : extents) {
    EXPECT_LE(chunk.extents().extents_size(), 4096 / 24);
    EXPECT_EQ((static_cast<uint64_t>(chunk.gpa_bytes()) - kStart) % (64 << 12),
              0u);
    EXPECT_EQ(chunk.size_bytes() % (64 << 12), 0);
  }
  for (const auto& chunk : EncodeDirtyPages(
           words, words.size() * 64, v1::DIRTY_LOG_ENCODING_BITMAP, 1024)) {
    EXPECT_LE(chunk.bitmap().size(), 1024u);
  }
}

// One run over the whole range, without a natural place to end a chunk.
TEST(DirtyLogCodec, ARangeThatGoesOnInTheNextChunkIsTwo) {
  std::vector<uint64_t> words(64, 0x5555555555555555);
  words[5] = words[6] = ~uint64_t{0};
  const auto chunks = EncodeDirtyPages(words, words.size() * 64,
                                       v1::DIRTY_LOG_ENCODING_EXTENTS, 1024);
  std::set<uint64_t> expected;
  for (size_t i = 0; i < words.size() * 64; ++i) {
    if (words[i / 64] >> (i % 64) & 1) expected.insert(i);
  }
  EXPECT_EQ(Decode(chunks), expected);
}

TEST(DirtyLogCodec, WhatWasSentCanBeClearedAsItWasSent) {
  const std::vector<uint64_t> words = {0, 0xf0, ~uint64_t{0}, uint64_t{3}};
  mmu::MemslotConfig slot;
  slot.slot = kSlot;
  slot.gpa = mmu::Gpa(kStart);
  slot.size_bytes = 200 << 12;
  for (const auto encoding :
       {v1::DIRTY_LOG_ENCODING_BITMAP, v1::DIRTY_LOG_ENCODING_EXTENTS}) {
    const auto chunks = EncodeDirtyPages(words, 200, encoding, 1024);
    ASSERT_EQ(chunks.size(), 1u);
    const auto named = DecodeSlotPages(PagesOf(chunks[0]), slot);
    ASSERT_TRUE(named.ok()) << named.status();
    EXPECT_EQ(named->slot, kSlot);
    EXPECT_EQ(named->first_page, 64u);
    EXPECT_EQ(named->page_count, 136u);
    EXPECT_EQ(named->mask,
              (std::vector<uint64_t>{0xf0, ~uint64_t{0}, uint64_t{3}}));
  }
}

TEST(DirtyLogCodec, NoChunkReachesBeyondItsPages) {
  // The end of a slot of 100 pages; the last two are dirty.
  const std::vector<uint64_t> words = {1, uint64_t{3} << 34};
  for (const auto encoding :
       {v1::DIRTY_LOG_ENCODING_AUTO, v1::DIRTY_LOG_ENCODING_BITMAP,
        v1::DIRTY_LOG_ENCODING_EXTENTS}) {
    const auto chunks = EncodeDirtyPages(words, 100, encoding, 4096);
    ASSERT_EQ(chunks.size(), 1u);
    EXPECT_EQ(chunks[0].gpa_bytes(), kStart);
    EXPECT_EQ(chunks[0].size_bytes(), 100 * 4096);
    if (chunks[0].has_bitmap()) {
      EXPECT_EQ(chunks[0].bitmap().size(), 13u);
    }
  }
}

v1::SlotPages Request(uint64_t page_count) {
  v1::SlotPages request;
  request.set_slot(kSlot);
  request.set_start_gpa_bytes(kStart);
  request.set_size_bytes(static_cast<int64_t>(page_count << 12));
  return request;
}

void AddExtent(v1::SlotPages* request, uint64_t page, uint64_t pages) {
  auto* extent = request->mutable_extents()->add_extents();
  extent->set_gpa_bytes(static_cast<int64_t>(kStart + page * 4096));
  extent->set_size_bytes(static_cast<int64_t>(pages * 4096));
}

// The mask in a slot that ends where the range does.
absl::StatusOr<std::vector<uint64_t>> MaskOf(const v1::SlotPages& request) {
  mmu::MemslotConfig slot;
  slot.slot = kSlot;
  slot.gpa = mmu::Gpa(kStart);
  slot.size_bytes = static_cast<uint64_t>(request.size_bytes());
  const auto named = DecodeSlotPages(request, slot);
  if (!named.ok()) return named.status();
  return named->mask;
}

mmu::Reason ReasonOf(const v1::SlotPages& request) {
  return mmu::DetailOf(MaskOf(request).status()).reason;
}

TEST(DirtyLogCodec, ExtentsBecomeAMask) {
  auto request = Request(192);
  AddExtent(&request, 1, 2);
  AddExtent(&request, 60, 70);
  const auto words = MaskOf(request);
  ASSERT_TRUE(words.ok());
  EXPECT_EQ(*words, (std::vector<uint64_t>{0xf000000000000006,
                                           0xffffffffffffffff, 0x3}));
}

TEST(DirtyLogCodec, ABitmapMustHaveOneBitPerPage) {
  auto request = Request(70);
  request.set_bitmap(std::string(9, '\1'));
  EXPECT_EQ(*MaskOf(request), (std::vector<uint64_t>{0x0101010101010101, 1}));
  request.set_size_bytes(64 << 12);
  EXPECT_EQ(ReasonOf(request), mmu::Reason::kInvalidBitmap);
  request.set_size_bytes(70 << 12);
  request.set_bitmap(std::string(9, '\xff'));
  EXPECT_EQ(ReasonOf(request), mmu::Reason::kInvalidBitmap);
}

TEST(DirtyLogCodec, RefusesExtentsOutsideOrOutOfOrder) {
  auto outside = Request(64);
  AddExtent(&outside, 60, 5);
  EXPECT_EQ(ReasonOf(outside), mmu::Reason::kInvalidBitmap);
  auto disordered = Request(64);
  AddExtent(&disordered, 5, 1);
  AddExtent(&disordered, 4, 1);
  EXPECT_EQ(ReasonOf(disordered), mmu::Reason::kInvalidRange);
  auto touching = Request(64);
  AddExtent(&touching, 0, 4);
  AddExtent(&touching, 4, 1);
  EXPECT_EQ(ReasonOf(touching), mmu::Reason::kInvalidRange);
  EXPECT_EQ(ReasonOf(Request(64)), mmu::Reason::kInvalidBitmap);
}

TEST(DirtyLogCodec, RefusesRangesThatAreNotOfTheSlot) {
  mmu::MemslotConfig slot;
  slot.gpa = mmu::Gpa(kStart);
  slot.size_bytes = 200 << 12;
  const auto reason = [&slot](uint64_t first, uint64_t pages) {
    v1::SlotPages request = Request(pages);
    request.set_start_gpa_bytes(static_cast<int64_t>(kStart + first * 4096));
    request.set_bitmap(std::string((pages + 7) / 8, '\0'));
    return mmu::DetailOf(DecodeSlotPages(request, slot).status()).reason;
  };
  EXPECT_EQ(reason(0, 200), mmu::Reason::kNone);
  EXPECT_EQ(reason(128, 72), mmu::Reason::kNone);
  EXPECT_EQ(reason(64, 0), mmu::Reason::kNone);
  EXPECT_EQ(reason(1, 64), mmu::Reason::kUnalignedClear);
  EXPECT_EQ(reason(0, 65), mmu::Reason::kUnalignedClear);
  EXPECT_EQ(reason(128, 128), mmu::Reason::kGpaOutOfRange);
  v1::SlotPages negative = Request(0);
  negative.set_size_bytes(-1);
  EXPECT_EQ(mmu::DetailOf(DecodeSlotPages(negative, slot).status()).reason,
            mmu::Reason::kInvalidSize);
  negative.set_start_gpa_bytes(-4096);
  EXPECT_EQ(mmu::DetailOf(DecodeSlotPages(negative, slot).status()).reason,
            mmu::Reason::kInvalidRange);
}

}  // namespace
}  // namespace mmud
