#include "server/base/uuid.h"

#include <set>
#include <string>

#include "gtest/gtest.h"

namespace mmud {
namespace {

TEST(UuidTest, NewOnesAreCanonicalAndNeverTheSame) {
  std::set<std::string> uuids;
  for (int i = 0; i < 1000; ++i) {
    const std::string uuid = NewUuid();
    EXPECT_TRUE(IsUuid(uuid)) << uuid;
    EXPECT_EQ(CanonicalUuid(uuid), uuid);
    uuids.insert(uuid);
  }
  EXPECT_EQ(uuids.size(), 1000u);
}

TEST(UuidTest, IsOfVersionFourWhateverItsLetters) {
  EXPECT_TRUE(IsUuid("6f9619ff-8b86-4d01-b42d-00cf4fc964ff"));
  EXPECT_TRUE(IsUuid("6F9619FF-8B86-4D01-B42D-00CF4FC964FF"));
  for (const char* text : {"", "6f9619ff",
                           // Version 1, the wrong variant, no digit, a dash too
                           // many, a character too many.
                           "6f9619ff-8b86-1d01-b42d-00cf4fc964ff",
                           "6f9619ff-8b86-4d01-c42d-00cf4fc964ff",
                           "6f9619fg-8b86-4d01-b42d-00cf4fc964ff",
                           "6f9619ff-8b86-4d01-b42d-00cf4fc9-4ff",
                           "6f9619ff-8b86-4d01-b42d-00cf4fc964ff0"}) {
    EXPECT_FALSE(IsUuid(text)) << text;
  }
}

TEST(UuidTest, CapitalsMakeNoDifference) {
  EXPECT_EQ(CanonicalUuid("6F9619FF-8B86-4D01-B42D-00CF4FC964FF"),
            "6f9619ff-8b86-4d01-b42d-00cf4fc964ff");
}

}  // namespace
}  // namespace mmud
