#include "client/working_set/timeline_chart.h"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "absl/time/time.h"
#include "client/working_set/picture.h"
#include "gtest/gtest.h"

namespace mmud::client {
namespace {

constexpr int64_t kMiB = 1024 * 1024;

WorkingSetPicture FourPoints() {
  WorkingSetPicture picture;
  picture.windows = {{absl::Minutes(1), 4 * kMiB, true}};
  picture.timeline = {{absl::Minutes(3), 1 * kMiB, {2 * kMiB}},
                      {absl::Minutes(2), 2 * kMiB, {std::nullopt}},
                      {absl::Minutes(1), 2 * kMiB, {3 * kMiB}},
                      {absl::ZeroDuration(), 1 * kMiB, {4 * kMiB}}};
  return picture;
}

size_t CountOf(const std::string& text, const std::string& part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != text.npos;
       at = text.find(part, at + 1)) {
    ++count;
  }
  return count;
}

TEST(TimelineChartTest, ALineHasAGapWhereItsSizeIsNotKnown) {
  EXPECT_EQ(
      RenderTimeline(FourPoints()),
      R"(<svg class="timeline" role="img" width="912" height="300" viewBox="0 0 912 300">
<title>Young memory and the working set of each window over the last 3m</title>
<path class="rule" d="M72 268.0H790"/><text class="end muted" x="64" y="272.0">0 B</text>
<path class="rule" d="M72 204.0H790"/><text class="end muted" x="64" y="208.0">1 MiB</text>
<path class="rule" d="M72 140.0H790"/><text class="end muted" x="64" y="144.0">2 MiB</text>
<path class="rule" d="M72 76.0H790"/><text class="end muted" x="64" y="80.0">3 MiB</text>
<path class="rule" d="M72 12.0H790"/><text class="end muted" x="64" y="16.0">4 MiB</text>
<path class="rule" d="M790.0 268v5"/><text class="middle muted" x="790.0" y="289">now</text>
<path class="rule" d="M670.3 268v5"/><text class="middle muted" x="670.3" y="289">30s ago</text>
<path class="rule" d="M550.7 268v5"/><text class="middle muted" x="550.7" y="289">1m ago</text>
<path class="rule" d="M431.0 268v5"/><text class="middle muted" x="431.0" y="289">1m30s ago</text>
<path class="rule" d="M311.3 268v5"/><text class="middle muted" x="311.3" y="289">2m ago</text>
<path class="rule" d="M191.7 268v5"/><text class="middle muted" x="191.7" y="289">2m30s ago</text>
<path class="rule" d="M72.0 268v5"/><text class="middle muted" x="72.0" y="289">3m ago</text>
<path class="area" d="M72.0 204.0h0L311.3 140.0L550.7 140.0L790.0 204.0L790.0 268H72.0z"/>
<path class="line young" d="M72.0 204.0h0L311.3 140.0L550.7 140.0L790.0 204.0"/>
<path class="line window-0" d="M72.0 140.0h0M550.7 76.0h0L790.0 12.0"/>
<path class="line young" d="M796 204.0h14"/><text x="815" y="208.0">young<tspan class="muted" dx="6">1 MiB</tspan></text>
<path class="line window-0" d="M796 12.0h14"/><text x="815" y="16.0">1m<tspan class="muted" dx="6">4 MiB</tspan></text>
<rect class="note" x="670.3" y="12" width="119.7" height="256"><title>now
young: 1 MiB
1m: 4 MiB</title></rect>
<rect class="note" x="431.0" y="12" width="239.3" height="256"><title>1m ago
young: 2 MiB
1m: 3 MiB</title></rect>
<rect class="note" x="191.7" y="12" width="239.3" height="256"><title>2m ago
young: 2 MiB
1m: unknown</title></rect>
<rect class="note" x="72.0" y="12" width="119.7" height="256"><title>3m ago
young: 1 MiB
1m: 2 MiB</title></rect>
</svg>
)");
}

TEST(TimelineChartTest, TheTableHasTheEndsOfEachLine) {
  EXPECT_EQ(RenderTimelineTable(FourPoints()), R"(<table>
<thead><tr><th>Window</th><th>Last</th><th>Least</th><th>Largest</th></tr></thead>
<tbody>
<tr><td>young</td><td>1 MiB</td><td>1 MiB</td><td>2 MiB</td></tr>
<tr><td>1m</td><td>4 MiB</td><td>2 MiB</td><td>4 MiB</td></tr>
</tbody>
</table>
)");
}

TEST(TimelineChartTest, OnePointIsNoTimeline) {
  WorkingSetPicture picture = FourPoints();
  picture.timeline.resize(1);
  EXPECT_EQ(RenderTimeline(picture), "");
  picture.timeline.clear();
  EXPECT_EQ(RenderTimeline(picture), "");
}

TEST(TimelineChartTest, APointMayKnowFewerWindows) {
  WorkingSetPicture picture = FourPoints();
  picture.windows.push_back({absl::Hours(1), 5 * kMiB, true});
  EXPECT_EQ(CountOf(RenderTimeline(picture), "1h: unknown"), 4u);
  EXPECT_NE(RenderTimelineTable(picture).find(
                "<td>1h</td><td>-</td><td>-</td><td>-</td>"),
            std::string::npos);
}

TEST(TimelineChartTest, LongTimelinesHaveABoundedNumberOfNotes) {
  WorkingSetPicture picture;
  for (int i = 5000; i > 0; --i) {
    picture.timeline.push_back({absl::Seconds(i), kMiB, {}});
  }
  const std::string svg = RenderTimeline(picture);
  EXPECT_LE(CountOf(svg, "class=\"note\""), 240u);
  EXPECT_GE(CountOf(svg, "class=\"note\""), 200u);
}

TEST(TimelineChartTest, NamesDoNotOverlap) {
  WorkingSetPicture picture = FourPoints();
  picture.timeline.back().working_set_bytes = {1 * kMiB};
  const std::string svg = RenderTimeline(picture);
  EXPECT_NE(svg.find("<text x=\"815\" y=\"186.7\">"), svg.npos) << svg;
  EXPECT_NE(svg.find("<text x=\"815\" y=\"170.7\">"), svg.npos) << svg;
}

}  // namespace
}  // namespace mmud::client
