#include "trace/bytes.h"

#include <cstdint>
#include <string>
#include <string_view>

#include "gtest/gtest.h"

namespace mmud::trace {
namespace {

TEST(BytesTest, NumbersAreLittleEndian) {
  std::string bytes;
  AppendU32(bytes, 0x04030201);
  AppendU64(bytes, 0x0c0b0a0908070605);
  EXPECT_EQ(bytes, "\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c");
  EXPECT_EQ(ReadU32(bytes, 0), 0x04030201u);
  EXPECT_EQ(ReadU64(bytes, 4), 0x0c0b0a0908070605u);
}

TEST(BytesTest, VarintsComeBackWhateverTheirLength) {
  for (int shift = 0; shift < 64; ++shift) {
    for (const uint64_t value :
         {uint64_t{1} << shift, (uint64_t{1} << shift) - 1,
          ~uint64_t{0} >> shift}) {
      std::string bytes;
      AppendVarint(bytes, value);
      bytes += "rest";
      std::string_view view = bytes;
      uint64_t read = 0;
      ASSERT_TRUE(ConsumeVarint(view, read));
      EXPECT_EQ(read, value);
      EXPECT_EQ(view, "rest");
    }
  }
}

TEST(BytesTest, CutOrOverlongVarintsAreRefused) {
  for (const std::string& bad :
       {std::string(), std::string("\x80"), std::string(9, '\xff'),
        std::string(9, '\xff') + "\x02", std::string(20, '\x80')}) {
    std::string_view view = bad;
    uint64_t value = 0;
    EXPECT_FALSE(ConsumeVarint(view, value)) << bad.size();
  }
}

TEST(BytesTest, ZigZagIsSmallForSmallDistancesAndReversible) {
  EXPECT_EQ(ZigZag(0), 0u);
  EXPECT_EQ(ZigZag(~uint64_t{0}), 1u);  // -1
  EXPECT_EQ(ZigZag(1), 2u);
  EXPECT_EQ(ZigZag(uint64_t{0} - 64), 127u);
  for (const uint64_t x :
       {uint64_t{0}, uint64_t{1} << 63, ~uint64_t{0}, uint64_t{12345}}) {
    EXPECT_EQ(UnZigZag(ZigZag(x)), x);
  }
}

TEST(BytesTest, ChecksumIsTheWellKnownCrc32AndCanBeContinued) {
  EXPECT_EQ(Crc32("123456789"), 0xcbf43926u);
  EXPECT_EQ(Crc32("6789", Crc32("12345")), 0xcbf43926u);
}

}  // namespace
}  // namespace mmud::trace
