#include "client/working_set/page_style.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "client/working_set/colours.h"
#include "gtest/gtest.h"

namespace mmud::client {
namespace {

TEST(PageStyleTest, EachStepHasAColourForLightAndForDarkScreens) {
  const std::string css = PageStyle(3);
  const size_t dark = css.find("@media (prefers-color-scheme: dark)");
  ASSERT_NE(dark, css.npos);
  for (int step = 0; step < 3; ++step) {
    EXPECT_LT(css.find(absl::StrCat(
                  "--heat-", step, ": ",
                  Hex(HeatColour(Background::kLight, step, 3)), ";")),
              dark);
    EXPECT_NE(
        css.find(absl::StrCat("--heat-", step, ": ",
                              Hex(HeatColour(Background::kDark, step, 3)), ";"),
                 dark),
        css.npos);
    EXPECT_NE(css.find(absl::StrCat(".heat-", step, " { fill: var(--heat-",
                                    step, ")")),
              css.npos);
  }
  EXPECT_EQ(css.find("--heat-3"), css.npos);
}

TEST(PageStyleTest, TheScriptHasNoReservedCharacters) {
  EXPECT_EQ(PageScript().find_first_of("<>&"), std::string::npos);
}

}  // namespace
}  // namespace mmud::client
