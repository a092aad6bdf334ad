#include "server/base/owner_token.h"

#include <string>

#include "absl/strings/escaping.h"
#include "absl/strings/string_view.h"
#include "gtest/gtest.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/reason.h"

namespace mmud {
namespace {

std::string Hex(const mmu::OwnerKey& key) {
  return absl::BytesToHexString(absl::string_view(
      reinterpret_cast<const char*>(key.bytes.data()), key.bytes.size()));
}

// The examples of FIPS 180-2, appendix B, and the hash of no bytes.
TEST(OwnerToken, HashesAsTheStandardDoes) {
  EXPECT_EQ(Hex(Sha256("abc")),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(
      Hex(Sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq")),
      "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(Hex(Sha256(std::string(1'000'000, 'a'))),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  EXPECT_EQ(Hex(Sha256("")),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

TEST(OwnerToken, HasSixteenToSixtyFourBytes) {
  EXPECT_TRUE(ToOwnerKey(std::string(16, '\0')).ok());
  EXPECT_TRUE(ToOwnerKey(std::string(64, 'x')).ok());
  for (const size_t size : {0, 15, 65, 1000}) {
    const absl::Status status = ToOwnerKey(std::string(size, 'x')).status();
    EXPECT_EQ(mmu::DetailOf(status).reason, mmu::Reason::kInvalidOwnerToken)
        << size;
    EXPECT_EQ(mmu::DetailOf(status).field, "owner_token");
    EXPECT_EQ(status.message().find("xxx"), absl::string_view::npos);
  }
}

TEST(OwnerToken, AnyDifferenceMakesAnotherKey) {
  const std::string token(32, 'k');
  EXPECT_EQ(*ToOwnerKey(token), *ToOwnerKey(token));
  std::string other = token;
  other.back() = 'K';
  EXPECT_FALSE(*ToOwnerKey(token) == *ToOwnerKey(other));
  EXPECT_FALSE(*ToOwnerKey(token) == *ToOwnerKey(token + '\0'));
}

}  // namespace
}  // namespace mmud
