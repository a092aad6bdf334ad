#include "client/working_set/picture.h"

#include "gtest/gtest.h"

namespace mmud::client {
namespace {

TEST(PictureTest, TrackedMemoryIsOfAllAgesAndOfNone) {
  WorkingSetPicture picture;
  EXPECT_EQ(TrackedBytes(picture), 0);
  picture.bins = {{.size_bytes = 5}, {.size_bytes = 7}};
  picture.never_young_bytes = 100;
  EXPECT_EQ(TrackedBytes(picture), 112);
}

TEST(PictureTest, GuestMemoryIsThatOfAllSlots) {
  WorkingSetPicture picture;
  EXPECT_EQ(GuestBytes(picture), 0);
  picture.heat = {{.size_bytes = 3}, {.size_bytes = 4}};
  EXPECT_EQ(GuestBytes(picture), 7);
}

}  // namespace
}  // namespace mmud::client
