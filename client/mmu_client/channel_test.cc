#include "client/mmu_client/channel.h"

#include "absl/status/status.h"
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

TEST(OpenChannelTest, RefusesABadAddress) {
  EXPECT_EQ(OpenChannel("nowhere").status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace mmud::client
