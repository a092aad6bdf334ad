#include "client/mmu_client/request_id.h"

#include <regex>
#include <set>
#include <string>

#include "gtest/gtest.h"

namespace mmud::client {
namespace {

struct WithId {
  std::string id;
  const std::string& request_id() const { return id; }
  void set_request_id(const std::string& value) { id = value; }
};

struct WithoutId {};

TEST(RequestIdTest, IsAUuidOfVersion4) {
  const std::regex uuid4(
      "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}");
  for (int i = 0; i < 100; ++i) {
    const std::string id = NewRequestId();
    EXPECT_TRUE(std::regex_match(id, uuid4)) << id;
  }
}

TEST(RequestIdTest, NeverRepeats) {
  std::set<std::string> ids;
  for (int i = 0; i < 1000; ++i) ids.insert(NewRequestId());
  EXPECT_EQ(ids.size(), 1000u);
}

TEST(RequestIdTest, EnsureKeepsAnIdThatIsThere) {
  WithId request;
  EnsureRequestId(request);
  const std::string first = request.id;
  EXPECT_EQ(first.size(), 36u);
  EnsureRequestId(request);
  EXPECT_EQ(request.id, first);
}

TEST(RequestIdTest, EnsureLeavesTypesWithoutIdAlone) {
  WithoutId request;
  EnsureRequestId(request);
}

}  // namespace
}  // namespace mmud::client
