#include "client/text/html.h"

#include <string>

#include "absl/strings/string_view.h"
#include "gtest/gtest.h"

namespace mmud::client {
namespace {

TEST(HtmlTest, ReservedCharactersAreReplaced) {
  EXPECT_EQ(EscapeHtml("a<b>\"c\"&amp;"), "a&lt;b&gt;&quot;c&quot;&amp;amp;");
}

TEST(HtmlTest, ControlCharactersAreReplaced) {
  EXPECT_EQ(EscapeHtml(absl::string_view("a\0b\x1b[1m\x7f", 8)),
            "a\xef\xbf\xbd"
            "b\xef\xbf\xbd[1m\xef\xbf\xbd");
}

TEST(HtmlTest, OtherTextStaysAsItIs) {
  EXPECT_EQ(EscapeHtml("two\nlines, \xc3\xa9t\xc3\xa9 'x'"),
            "two\nlines, \xc3\xa9t\xc3\xa9 'x'");
}

}  // namespace
}  // namespace mmud::client
