#include "client/mmu_client/channel.h"

#include <string>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace mmud::client {
namespace {

TEST(ParseAddressTest, TakesSocketsAndPorts) {
  EXPECT_EQ(*ParseAddress("unix:/run/mmud.sock"), "unix:/run/mmud.sock");
  EXPECT_EQ(*ParseAddress("/run/mmud.sock"), "unix:/run/mmud.sock");
  EXPECT_EQ(*ParseAddress("./mmud.sock"), "unix:./mmud.sock");
  EXPECT_EQ(*ParseAddress("localhost:7070"), "dns:localhost:7070");
  EXPECT_EQ(*ParseAddress("[::1]:7070"), "dns:[::1]:7070");
}

TEST(ParseAddressTest, SaysWhatIsWrong) {
  for (const char* bad : {"", "unix:", "localhost", ":7070", "localhost:",
                          "localhost:0", "localhost:65536", "localhost:x"}) {
    EXPECT_EQ(ParseAddress(bad).status().code(),
              absl::StatusCode::kInvalidArgument)
        << bad;
  }
}

TEST(ParseAddressTest, SaysThatAPathIsTooLongForASocket) {
  const std::string longest(107, 'x');
  EXPECT_EQ(*ParseAddress("unix:" + longest), "unix:" + longest);
  const absl::Status status = ParseAddress("unix:" + longest + "x").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              testing::HasSubstr("108 bytes, more than the 107"));
}

TEST(OpenChannelTest, RefusesABadAddress) {
  EXPECT_EQ(OpenChannel("nowhere").status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace mmud::client
