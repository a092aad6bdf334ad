#include "client/working_set/age_chart.h"

#include <string>

#include "absl/time/time.h"
#include "client/working_set/age_scale.h"
#include "client/working_set/picture.h"
#include "gtest/gtest.h"

namespace mmud::client {
namespace {

WorkingSetPicture TwoGenerations() {
  WorkingSetPicture picture;
  picture.bins = {
      {7, absl::ZeroDuration(), absl::Seconds(10), 256, 1048576},
      {6, absl::Seconds(10), absl::InfiniteDuration(), 512, 2097152}};
  picture.never_young_bytes = 1048576;
  return picture;
}

TEST(AgeChartTest, BarsShareOneScaleAndHaveTheColoursOfTheirAges) {
  const WorkingSetPicture picture = TwoGenerations();
  EXPECT_EQ(
      RenderAgeChart(picture, AgeScale(picture)),
      R"(<svg class="ages" role="img" width="912" height="84" viewBox="0 0 912 84">
<title>Memory by age: 4 MiB tracked</title>
<g class="bar"><title>0s - 10s: 1 MiB, 25.0% of tracked memory; generation 7, 256 pages</title><rect class="row" y="0" width="912" height="28"/><text class="end" x="118" y="18">0s - 10s</text><rect class="heat-0" x="132" y="4" width="315.0" height="20" rx="2"/><text x="455.0" y="18">1 MiB<tspan class="muted" dx="8">25.0%</tspan></text></g>
<g class="bar"><title>over 10s: 2 MiB, 50.0% of tracked memory; generation 6, 512 pages</title><rect class="row" y="28" width="912" height="28"/><text class="end" x="118" y="46">over 10s</text><rect class="heat-1" x="132" y="32" width="630.0" height="20" rx="2"/><text x="770.0" y="46">2 MiB<tspan class="muted" dx="8">50.0%</tspan></text></g>
<g class="bar"><title>never young: 1 MiB, 25.0% of tracked memory; mapped, and not found young so far</title><rect class="row" y="56" width="912" height="28"/><text class="end" x="118" y="74">never young</text><rect class="heat-never" x="132" y="60" width="315.0" height="20" rx="2"/><text x="455.0" y="74">1 MiB<tspan class="muted" dx="8">25.0%</tspan></text></g>
</svg>
)");
}

TEST(AgeChartTest, TheTableHasTheSameNumbers) {
  EXPECT_EQ(RenderAgeTable(TwoGenerations()), R"(<table>
<thead><tr><th>Generation</th><th>Age</th><th>Pages</th><th>Size</th><th>Share</th></tr></thead>
<tbody>
<tr><td>7</td><td>0s - 10s</td><td>256</td><td>1 MiB</td><td>25.0%</td></tr>
<tr><td>6</td><td>over 10s</td><td>512</td><td>2 MiB</td><td>50.0%</td></tr>
<tr><td>-</td><td>never young</td><td>-</td><td>1 MiB</td><td>25.0%</td></tr>
</tbody>
</table>
)");
}

TEST(AgeChartTest, WithoutMemoryTheBarsAreLines) {
  const WorkingSetPicture picture;
  const std::string svg = RenderAgeChart(picture, AgeScale(picture));
  EXPECT_NE(svg.find("width=\"1.0\""), svg.npos) << svg;
  EXPECT_NE(svg.find(">0 B<"), svg.npos) << svg;
}

}  // namespace
}  // namespace mmud::client
