#include "client/mmu_client/owner_token.h"

#include <set>
#include <string>

#include "gtest/gtest.h"

namespace mmud::client {
namespace {

TEST(OwnerTokenTest, TokensHaveTheLengthAndNoTwoAreTheSame) {
  std::set<std::string> tokens;
  for (int i = 0; i < 1000; ++i) {
    const std::string token = NewOwnerToken();
    EXPECT_EQ(token.size(), kOwnerTokenBytes);
    tokens.insert(token);
  }
  EXPECT_EQ(tokens.size(), 1000u);
}

TEST(OwnerTokenTest, EachByteOfATokenIsRandom) {
  std::string always_set(kOwnerTokenBytes, '\xff');
  std::string ever_set(kOwnerTokenBytes, '\0');
  for (int i = 0; i < 200; ++i) {
    const std::string token = NewOwnerToken();
    for (size_t at = 0; at < kOwnerTokenBytes; ++at) {
      always_set[at] = static_cast<char>(always_set[at] & token[at]);
      ever_set[at] = static_cast<char>(ever_set[at] | token[at]);
    }
  }
  EXPECT_EQ(always_set, std::string(kOwnerTokenBytes, '\0'));
  EXPECT_EQ(ever_set, std::string(kOwnerTokenBytes, '\xff'));
}

}  // namespace
}  // namespace mmud::client
