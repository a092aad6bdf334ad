#include "client/working_set/heat_map.h"

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "client/working_set/age_scale.h"
#include "client/working_set/picture.h"
#include "gtest/gtest.h"

namespace mmud::client {
namespace {

constexpr HeatCell kAbsent = {};
constexpr HeatCell kNeverYoung = {HeatCell::Kind::kNeverYoung, {}};

HeatCell Aged(absl::Duration age) { return {HeatCell::Kind::kAged, age}; }

// 18 cells: one row of 16 and two more, of which the last is half a cell.
WorkingSetPicture TwoRows() {
  std::vector<HeatCell> cells(12, Aged(absl::ZeroDuration()));
  cells.push_back(Aged(absl::Minutes(1)));
  cells.resize(17, kNeverYoung);
  cells.push_back(kAbsent);
  WorkingSetPicture picture;
  picture.heat = {{3, 65536, 17 * 8192 + 4096, 8192, cells}};
  return picture;
}

TEST(HeatMapTest, NeighboursOfOneColourAreOneRectangleUpToTheEndOfTheirRow) {
  const WorkingSetPicture picture = TwoRows();
  EXPECT_EQ(
      RenderHeatMap(picture, AgeScale(picture)),
      R"svg(<h3>Slot 3: 140 KiB at 0x10000 <span class="muted">8 KiB per cell</span></h3>
<div class="scroll"><svg class="map" role="img" width="385" height="48" viewBox="0 0 385 48" data-gpa="65536" data-cell="8192" data-columns="16">
<title>Heat of Slot 3: 140 KiB at 0x10000</title>
<text class="end gpa" x="116" y="13">0x10000</text><path class="rule" d="M120 8.5h6"/>
<g class="cells" transform="translate(128 8) scale(16)">
<path class="heat-0" d="M0 0h12v1h-12z"><title>under 1m: cells of 96 KiB in all</title></path>
<path class="heat-1" d="M12 0h1v1h-1z"><title>1m and more: cells of 8 KiB in all</title></path>
<path class="heat-never" d="M13 0h3v1h-3zM0 1h1v1h-1z"><title>never young: cells of 32 KiB in all</title></path>
<path class="heat-absent" d="M1 1h1v1h-1z"><title>not mapped or not tracked: cells of 4 KiB in all</title></path>
</g>
<rect class="rule" x="127.5" y="7.5" width="257" height="33"/>
</svg></div>
)svg");
}

TEST(HeatMapTest, TheLegendNamesEachColour) {
  EXPECT_EQ(RenderHeatLegend(AgeScale(TwoRows())), R"(<ul class="legend">
<li><span class="swatch heat-0"></span>under 1m</li>
<li><span class="swatch heat-1"></span>1m and more</li>
<li><span class="swatch heat-never"></span>never young</li>
<li><span class="swatch heat-absent"></span>not mapped or not tracked</li>
</ul>
)");
}

TEST(HeatMapTest, TheTableCountsAShortLastCellAsItIs) {
  const WorkingSetPicture picture = TwoRows();
  EXPECT_EQ(RenderHeatTable(picture, AgeScale(picture)), R"(<table>
<thead><tr><th>Age of the youngest page</th><th>Memory of these cells</th><th>Share</th></tr></thead>
<tbody>
<tr><td>under 1m</td><td>96 KiB</td><td>68.6%</td></tr>
<tr><td>1m and more</td><td>8 KiB</td><td>5.7%</td></tr>
<tr><td>never young</td><td>32 KiB</td><td>22.9%</td></tr>
<tr><td>not mapped or not tracked</td><td>4 KiB</td><td>2.9%</td></tr>
</tbody>
</table>
)");
}

TEST(HeatMapTest, ALargeGuestWithoutAnyRunsHasAMapOfLessThanAMegabyte) {
  WorkingSetPicture picture;
  picture.heat = {{0, 0, int64_t{64} << 30, 2 << 20, {}}};
  for (int i = 0; i < 32768; ++i) {
    picture.heat[0].cells.push_back(Aged(absl::Seconds(1) * (1 << (i % 16))));
  }
  const AgeScale scale(picture);
  EXPECT_EQ(scale.steps(), AgeScale::kMaxSteps);
  EXPECT_LT(RenderHeatMap(picture, scale).size(), 1'000'000u);
}

TEST(HeatMapTest, ALargeGuestWithRunsHasASmallMap) {
  WorkingSetPicture picture;
  picture.heat = {{0, 0, int64_t{64} << 30, 2 << 20,
                   std::vector<HeatCell>(32768, kNeverYoung)}};
  EXPECT_LT(RenderHeatMap(picture, AgeScale(picture)).size(), 10'000u);
}

}  // namespace
}  // namespace mmud::client
