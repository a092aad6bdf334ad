#include "client/mmu_client/crc32c.h"

#include <string>

#include "absl/strings/string_view.h"
#include "gtest/gtest.h"

namespace mmud::client {
namespace {

// Vectors of RFC 3720, section B.4.
TEST(Crc32cTest, AgreesWithPublishedVectors) {
  EXPECT_EQ(Crc32c(std::string(32, '\0')), 0x8a9136aau);
  EXPECT_EQ(Crc32c(std::string(32, '\xff')), 0x62a8ab43u);
  EXPECT_EQ(Crc32c("123456789"), 0xe3069283u);
  EXPECT_EQ(Crc32c(""), 0u);
}

TEST(Crc32cTest, ExtendingEqualsOneGo) {
  const std::string data = "one go, or several: the same checksum";
  for (size_t cut = 0; cut <= data.size(); ++cut) {
    const absl::string_view view = data;
    EXPECT_EQ(ExtendCrc32c(Crc32c(view.substr(0, cut)), view.substr(cut)),
              Crc32c(data))
        << "cut at " << cut;
  }
}

}  // namespace
}  // namespace mmud::client
