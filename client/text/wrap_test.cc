#include "client/text/wrap.h"

#include "gtest/gtest.h"

namespace mmud::client {
namespace {

TEST(WrapTest, LinesAfterTheFirstAreIndentedAndNoneIsTooWide) {
  EXPECT_EQ(Wrap("one two three four", 12, 3),
            "one two\n"
            "   three\n"
            "   four");
  EXPECT_EQ(Wrap("one two", 80, 3), "one two");
  EXPECT_EQ(Wrap("", 80, 3), "");
}

TEST(WrapTest, LineBreaksStayAndALongWordHasALineOfItsOwn) {
  EXPECT_EQ(Wrap("a\nb c", 80, 2), "a\n  b c");
  EXPECT_EQ(Wrap("a incomprehensibilities b", 10, 0),
            "a\nincomprehensibilities\nb");
}

TEST(WrapCommandTest, BrokenLineIsStillOneCommand) {
  EXPECT_EQ(WrapCommand("mmuctl vm create alpha --vcpus 2", 20, 2),
            "  mmuctl vm create \\\n"
            "      alpha \\\n"
            "      --vcpus 2");
  EXPECT_EQ(WrapCommand("mmuctl vm list", 80, 2), "  mmuctl vm list");
}

TEST(WrapCommandTest, QuotedTextStaysWhole) {
  EXPECT_EQ(WrapCommand("call X '{\"a\": 1, \"b\": 2}' -q", 24, 2),
            "  call X \\\n"
            "      '{\"a\": 1, \"b\": 2}' \\\n"
            "      -q");
}

}  // namespace
}  // namespace mmud::client
