#include "client/top/marks.h"

#include "gtest/gtest.h"

namespace mmud::client {
namespace {

TEST(Sparkline, TheNewestValueIsAtTheRightEnd) {
  EXPECT_EQ(Sparkline({0, 4, 8}, 5, Charset::kUtf8), "   ▄█");
  EXPECT_EQ(Sparkline({8, 4, 2, 0}, 3, Charset::kUtf8), "█▄ ");
  EXPECT_EQ(Sparkline({0, 4, 8}, 5, Charset::kAscii), "   ~#");
}

TEST(Sparkline, WhateverIsAboveZeroIsVisible) {
  EXPECT_EQ(Sparkline({1, 1e9}, 2, Charset::kUtf8), "▁█");
  EXPECT_EQ(Sparkline({0, 0}, 3, Charset::kUtf8), "   ");
  EXPECT_EQ(Sparkline({}, 2, Charset::kUtf8), "  ");
}

TEST(Bar, IsFullOnlyAtTheEnd) {
  EXPECT_EQ(Bar(0, 6), "[----]");
  EXPECT_EQ(Bar(0.5, 6), "[##--]");
  EXPECT_EQ(Bar(0.99, 6), "[###-]");
  EXPECT_EQ(Bar(1, 6), "[####]");
  EXPECT_EQ(Bar(1.5, 6), "[####]");
}

TEST(CompactNumber, HasAtMostFiveCharacters) {
  EXPECT_EQ(CompactNumber(0), "0");
  EXPECT_EQ(CompactNumber(0.25), "0.25");
  EXPECT_EQ(CompactNumber(7.5), "7.5");
  EXPECT_EQ(CompactNumber(9999), "9999");
  EXPECT_EQ(CompactNumber(12'345), "12.3k");
  EXPECT_EQ(CompactNumber(123'456), "123k");
  EXPECT_EQ(CompactNumber(999'950), "1.00M");
  EXPECT_EQ(CompactNumber(4.56e9), "4.56G");
}

TEST(CompactShare, HasAtMostFiveCharacters) {
  EXPECT_EQ(CompactShare(0), "0%");
  EXPECT_EQ(CompactShare(0.00021), "0.02%");
  EXPECT_EQ(CompactShare(0.032), "3.2%");
  EXPECT_EQ(CompactShare(0.41), "41%");
  EXPECT_EQ(CompactShare(1), "100%");
}

}  // namespace
}  // namespace mmud::client
