#include "client/comparison/html_view.h"

#include <cstddef>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "client/comparison/example_test_util.h"
#include "client/comparison/result.h"
#include "gtest/gtest.h"

namespace mmud::client {
namespace {

// The first violation of XML's rules on tags and on reserved characters, with
// what follows it; "" if there is none.
std::string FirstFlaw(absl::string_view page) {
  std::vector<std::string> open;
  const absl::string_view type = "<!DOCTYPE html>";
  if (!absl::StartsWith(page, type)) return "no document type";
  for (size_t at = type.size(); at < page.size(); ++at) {
    const std::string here(page.substr(at, 60));
    if (page[at] == '>') return "a bare '>': " + here;
    if (page[at] == '&' &&
        page.substr(at, 6).find(';') == absl::string_view::npos) {
      return "a bare '&': " + here;
    }
    if (page[at] != '<') continue;
    const size_t end = page.find('>', at);
    if (end == absl::string_view::npos) return "an open '<': " + here;
    const absl::string_view tag = page.substr(at + 1, end - at - 1);
    if (tag.find('<') != absl::string_view::npos) return "a bare '<': " + here;
    at = end;
    if (absl::EndsWith(tag, "/")) continue;
    if (!absl::StartsWith(tag, "/")) {
      open.emplace_back(tag.substr(0, tag.find(' ')));
    } else if (open.empty() || open.back() != tag.substr(1)) {
      return "an end without its beginning: " + here;
    } else {
      open.pop_back();
    }
  }
  return open.empty() ? "" : "no end of " + open.back();
}

TEST(HtmlViewTest, ThePageIsWellFormed) {
  EXPECT_EQ(FirstFlaw(ViewAsHtml(ExampleComparison())), "");
}

TEST(HtmlViewTest, FlawsAreFound) {
  const std::string type = "<!DOCTYPE html>";
  for (const char* page : {"<p>", "</p>", "<p></b></p>", "<p>a < b</p>",
                           "<p>a > b</p>", "<p>a & b</p>", "<p>a <b</p>"}) {
    EXPECT_NE(FirstFlaw(type + page), "") << page;
  }
  EXPECT_EQ(FirstFlaw(type + "<p class=\"a\">&lt;<br/></p>\n"), "");
}

TEST(HtmlViewTest, ThePageNeedsNoOtherFile) {
  const std::string page =
      absl::AsciiStrToLower(ViewAsHtml(ExampleComparison()));
  for (const char* part : {"http:", "https:", "//", "<script", "<link",
                           "src=", "href", "@import", "url("}) {
    EXPECT_EQ(page.find(part), std::string::npos) << part;
  }
  EXPECT_NE(page.find("<style>"), std::string::npos);
}

TEST(HtmlViewTest, ThereAreColoursForLightAndDarkScreens) {
  const std::string page = ViewAsHtml(ExampleComparison());
  EXPECT_NE(page.find("color-scheme: light dark"), std::string::npos);
  EXPECT_NE(page.find("@media (prefers-color-scheme: dark)"),
            std::string::npos);
  for (const char* colour : {"--background:", "--text:", "--rule:",
                             "--series-0:", "--series-1:", "--series-2:"}) {
    const size_t light = page.find(colour);
    ASSERT_NE(light, std::string::npos) << colour;
    EXPECT_NE(page.find(colour, light + 1), std::string::npos)
        << colour << " on dark screens";
  }
}

TEST(HtmlViewTest, ATableHasTheNumbersOfTheCharts) {
  const std::string page = ViewAsHtml(ExampleComparison());
  EXPECT_TRUE(absl::StrContains(
      page,
      "<tr><td>2</td><td>100%</td><td class=\"left\">throttled</td>"
      "<td>4.00 ms</td><td>250 us</td><td>&gt; 12.0 ms</td><td>-</td>"
      "<td>-</td><td>-</td><td>30.0 us</td></tr>"))
      << page;
  EXPECT_TRUE(absl::StrContains(
      page,
      "<tr><td>2</td><td>100%</td><td class=\"left\">lazy</td>"
      "<td>2,048</td><td>2,048</td><td>3</td><td>-</td><td>0</td><td>4</td>"
      "<td>-</td></tr>"))
      << page;
  // A chart has a bar for each row with a value.
  size_t charts = 0;
  for (size_t at = page.find("<svg"); at != std::string::npos;
       at = page.find("<svg", at + 1)) {
    ++charts;
    const absl::string_view chart(page.data() + at,
                                  page.find("</svg>", at) - at);
    EXPECT_TRUE(absl::StrContains(chart, ">2 vCPUs, 100% writes<")) << chart;
    for (const char* policy : {"lazy", "eager", "throttled"}) {
      EXPECT_TRUE(absl::StrContains(chart, absl::StrCat(">", policy, "<")))
          << chart;
    }
  }
  EXPECT_EQ(charts, 4u);
  EXPECT_TRUE(absl::StrContains(page, ">4.00 ms + 250 us<")) << page;
}

TEST(HtmlViewTest, WarningsStandOnThePage) {
  EXPECT_TRUE(absl::StrContains(
      ViewAsHtml(ExampleComparison()),
      "2 vCPUs, 100% writes, throttled: the pass ended at the time limit"));
}

}  // namespace
}  // namespace mmud::client
