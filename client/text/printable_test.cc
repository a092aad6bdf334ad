#include "client/text/printable.h"

#include "gtest/gtest.h"

namespace mmud::client {
namespace {

TEST(Printable, BytesThatMightSteerATerminalBecomeQuestionMarks) {
  EXPECT_EQ(Printable("migrator 7 (rack-3)"), "migrator 7 (rack-3)");
  EXPECT_EQ(Printable("a\x1b[2Jb\n\x7f"), "a?[2Jb??");
  EXPECT_EQ(Printable("\xc3\xa9"), "??");
  EXPECT_EQ(Printable(""), "");
}

}  // namespace
}  // namespace mmud::client
