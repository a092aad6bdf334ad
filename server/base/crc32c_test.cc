#include "server/base/crc32c.h"

#include <string>

#include "gtest/gtest.h"

namespace mmud {
namespace {

TEST(Crc32c, AgreesWithTheCheckValueOfTheStandard) {
  const std::string digits = "123456789";
  EXPECT_EQ(Crc32c(digits.data(), digits.size()), 0xE3069283u);
}

TEST(Crc32c, OfThirtyTwoZerosIsThatOfRfc3720) {
  const std::string zeros(32, '\0');
  EXPECT_EQ(Crc32c(zeros.data(), zeros.size()), 0x8A9136AAu);
}

TEST(Crc32c, OfNothingIsZero) { EXPECT_EQ(Crc32c(nullptr, 0), 0u); }

TEST(Crc32c, CanBeContinued) {
  const std::string digits = "123456789";
  const uint32_t first = Crc32c(digits.data(), 4);
  EXPECT_EQ(Crc32c(digits.data() + 4, 5, first), 0xE3069283u);
}

}  // namespace
}  // namespace mmud
