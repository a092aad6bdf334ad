#include "wire/crc32c.h"

#include <cstddef>
#include <cstdint>
#include <numeric>
#include <random>
#include <string>

#include "absl/strings/string_view.h"
#include "gtest/gtest.h"

namespace mmud {
namespace {

// The definition of CRC-32C, bit by bit, with the polynomial's bits reversed.
uint32_t ByDefinition(absl::string_view data) {
  uint32_t state = ~uint32_t{0};
  for (const char c : data) {
    state ^= static_cast<unsigned char>(c);
    for (int bit = 0; bit < 8; ++bit) {
      state = state >> 1 ^ ((state & 1) != 0 ? 0x82F63B78u : 0u);
    }
  }
  return ~state;
}

std::string RandomBytes(size_t size) {
  std::mt19937 random(1);
  std::string bytes(size, '\0');
  for (char& byte : bytes) byte = static_cast<char>(random());
  return bytes;
}

// RFC 3720, section B.4.
TEST(Crc32cTest, AgreesWithTheVectorsOfRfc3720) {
  EXPECT_EQ(Crc32c(std::string(32, '\0')), 0x8A9136AAu);
  EXPECT_EQ(Crc32c(std::string(32, '\xff')), 0x62A8AB43u);
  std::string ascending(32, '\0');
  std::iota(ascending.begin(), ascending.end(), '\0');
  EXPECT_EQ(Crc32c(ascending), 0x46DD794Eu);
  EXPECT_EQ(Crc32c(std::string(ascending.rbegin(), ascending.rend())),
            0x113FDB5Cu);
  std::string read_command(48, '\0');  // an iSCSI SCSI Read PDU
  read_command[0] = '\x01';
  read_command[1] = '\xc0';
  read_command[16] = '\x14';
  read_command[22] = '\x04';
  read_command[27] = '\x14';
  read_command[31] = '\x18';
  read_command[32] = '\x28';
  read_command[40] = '\x02';
  EXPECT_EQ(Crc32c(read_command), 0xD9963A56u);
}

TEST(Crc32cTest, AgreesWithTheCheckValueOfCatalogues) {
  EXPECT_EQ(Crc32c("123456789"), 0xE3069283u);
}

TEST(Crc32cTest, OfNothingIsZeroAndNothingAddsNothing) {
  EXPECT_EQ(Crc32c(""), 0u);
  EXPECT_EQ(Crc32c(absl::string_view()), 0u);
  EXPECT_EQ(ExtendCrc32c(0xE3069283u, ""), 0xE3069283u);
}

TEST(Crc32cTest, EveryLengthAndAlignmentIsByTheDefinition) {
  const std::string bytes = RandomBytes(5000);
  const absl::string_view all = bytes;
  for (size_t begin = 0; begin < 16; ++begin) {
    for (size_t size = 0; size < 300; ++size) {
      const absl::string_view data = all.substr(begin, size);
      ASSERT_EQ(Crc32c(data), ByDefinition(data)) << begin << " +" << size;
    }
  }
  EXPECT_EQ(Crc32c(all), ByDefinition(all));
}

TEST(Crc32cTest, PiecesAgreeWithTheWhole) {
  const std::string bytes = RandomBytes(1000);
  const absl::string_view all = bytes;
  const uint32_t whole = Crc32c(all);
  for (size_t cut = 0; cut <= all.size(); ++cut) {
    ASSERT_EQ(ExtendCrc32c(Crc32c(all.substr(0, cut)), all.substr(cut)), whole)
        << "cut at " << cut;
  }
  uint32_t crc = 0;
  for (size_t begin = 0; begin < all.size(); begin += 7) {
    crc = ExtendCrc32c(crc, all.substr(begin, 7));
  }
  EXPECT_EQ(crc, whole);
}

}  // namespace
}  // namespace mmud
