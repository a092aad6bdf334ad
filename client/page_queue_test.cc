#include "client/page_queue.h"

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace mmud::client {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class Destination final : public PageSink {
 public:
  absl::Status OnData(int64_t gpa, absl::string_view data) override {
    if (refuse) return absl::UnavailableError("the link broke");
    arrived.push_back(absl::StrCat(gpa, ":", data));
    return absl::OkStatus();
  }
  absl::Status OnZeros(GpaRange range) override {
    arrived.push_back(absl::StrCat(range.gpa_bytes, "+", range.size_bytes));
    return absl::OkStatus();
  }

  bool refuse = false;
  std::vector<std::string> arrived;
};

TEST(PageQueueTest, NothingArrivesBeforeItIsFlushed) {
  Destination destination;
  PageQueue queue(&destination, 100);
  ASSERT_TRUE(queue.OnData(0, "aa").ok());
  ASSERT_TRUE(queue.OnZeros({0, 2}).ok());
  EXPECT_THAT(destination.arrived, IsEmpty());
  ASSERT_TRUE(queue.Flush().ok());
  EXPECT_THAT(destination.arrived, ElementsAre("0:aa", "0+2"));
  ASSERT_TRUE(queue.Flush().ok());
  EXPECT_EQ(destination.arrived.size(), 2u);
}

TEST(PageQueueTest, FullQueueIsHandedOnInItsOrder) {
  Destination destination;
  PageQueue queue(&destination, 3);
  ASSERT_TRUE(queue.OnData(0, "aa").ok());
  ASSERT_TRUE(queue.OnData(2, "bb").ok());
  EXPECT_THAT(destination.arrived, ElementsAre("0:aa", "2:bb"));
}

TEST(PageQueueTest, WhatTheDestinationRefusesStays) {
  Destination destination;
  PageQueue queue(&destination, 100);
  ASSERT_TRUE(queue.OnZeros({4, 2}).ok());
  ASSERT_TRUE(queue.OnData(0, "aa").ok());
  destination.refuse = true;
  EXPECT_TRUE(absl::IsUnavailable(queue.Flush()));
  EXPECT_THAT(destination.arrived, ElementsAre("4+2"));
  destination.refuse = false;
  ASSERT_TRUE(queue.Flush().ok());
  EXPECT_THAT(destination.arrived, ElementsAre("4+2", "0:aa"));
}

}  // namespace
}  // namespace mmud::client
