#include "client/working_set/html_view.h"

#include <cstddef>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/time/time.h"
#include "client/working_set/picture.h"
#include "client/working_set/sample_picture.h"
#include "gtest/gtest.h"

namespace mmud::client {
namespace {

void ExpectHas(const std::string& page, const std::string& part) {
  EXPECT_NE(page.find(part), page.npos) << part;
}

TEST(HtmlViewTest, ThePageNeedsNoOtherFile) {
  const std::string page =
      absl::AsciiStrToLower(ViewWorkingSetAsHtml(SamplePicture("web-7")));
  for (const char* part : {"http:", "https:", "//", "<link", "src=", "href",
                           "@import", "url(", "fetch", "xmlhttp"}) {
    EXPECT_EQ(page.find(part), page.npos) << part;
  }
}

TEST(HtmlViewTest, TextOfOthersIsEscaped) {
  WorkingSetPicture picture;
  picture.vm = "a<script>\"&\x01";
  picture.coverage = {"</main><b>"};
  const std::string page = ViewWorkingSetAsHtml(picture);
  const std::string name = "a&lt;script&gt;&quot;&amp;\xef\xbf\xbd<";
  ExpectHas(page, "<title>Working set of " + name);
  ExpectHas(page, "<h1>Working set of " + name);
  ExpectHas(page, "<li>&lt;/main&gt;&lt;b&gt;</li>");
}

TEST(HtmlViewTest, TheMainNumbersStandAtTheTop) {
  const std::string page = ViewWorkingSetAsHtml(SamplePicture("web-7"));
  ExpectHas(page, "Observed 2026-11-21 08:24:37 UTC, 4s after the last ageing");
  ExpectHas(page,
            "<li class=\"window-0\"><span>in the last 1m</span><strong>10.1 "
            "GiB</strong><span>18.4% of tracked</span></li>");
  ExpectHas(page,
            "<li class=\"window-3\"><span>in the last 6h</span><strong>43.9 "
            "GiB</strong><span>at most</span></li>");
  ExpectHas(page,
            "<li class=\"tracked\"><span>tracked</span><strong>55 "
            "GiB</strong><span>of 64 GiB in all</span></li>");
  ExpectHas(page,
            "<li>The shadow MMU was skipped: its pages have no age.</li>");
  ExpectHas(page, "<li>Tracking began less than 6h ago: memory counts");
}

TEST(HtmlViewTest, APageOf64GiBIsSmall) {
  EXPECT_LT(ViewWorkingSetAsHtml(SamplePicture("web-7")).size(), 300'000u);
}

TEST(HtmlViewTest, WhatIsNotKnownHasNoSection) {
  WorkingSetPicture picture;
  picture.vm = "alpha";
  const std::string page = ViewWorkingSetAsHtml(picture);
  ExpectHas(page, "<h2>Memory by age</h2>");
  EXPECT_EQ(page.find("<h2>Guest memory</h2>"), page.npos);
  EXPECT_EQ(page.find("<h2>Over time</h2>"), page.npos);
  EXPECT_EQ(page.find("class=\"notice\""), page.npos);
}

}  // namespace
}  // namespace mmud::client
