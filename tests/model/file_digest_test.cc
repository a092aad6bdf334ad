#include "tests/model/file_digest.h"

#include <cstdlib>
#include <fstream>
#include <set>
#include <string>

#include "absl/status/status.h"
#include "gtest/gtest.h"

namespace mmu::testing {
namespace {

std::string DigestOf(const std::string& contents) {
  const std::string file = std::string(std::getenv("TEST_TMPDIR")) + "/file";
  std::ofstream(file, std::ios::binary) << contents;
  return DigestOfFile(file).value();
}

TEST(FileDigestTest, DependsOnEachByteAndOnTheSize) {
  const std::string contents(200'001, 'x');
  std::set<std::string> digests = {DigestOf(contents)};
  EXPECT_EQ(digests.begin()->size(), 16u);
  EXPECT_EQ(DigestOf(contents), *digests.begin());
  for (const size_t byte : {0, 7, 8, 65'535, 65'536, 200'000}) {
    std::string other = contents;
    other[byte] = 'y';
    EXPECT_TRUE(digests.insert(DigestOf(other)).second) << byte;
  }
  EXPECT_TRUE(digests.insert(DigestOf(contents + '\0')).second);
  EXPECT_TRUE(digests.insert(DigestOf("")).second);
}

TEST(FileDigestTest, OfThisProgram) {
  EXPECT_TRUE(DigestOfFile("/proc/self/exe").ok());
}

TEST(FileDigestTest, AMissingFileIsAnError) {
  EXPECT_FALSE(DigestOfFile("/no such file").ok());
}

}  // namespace
}  // namespace mmu::testing
