#include "client/comparison/bar_chart.h"

#include <optional>
#include <string>

#include "gtest/gtest.h"

namespace mmud::client {
namespace {

TEST(BarChartTest, BarsShareOneScaleThatBeginsAtZero) {
  BarChart chart;
  chart.title = "faults";
  chart.groups = {
      {.heading = "1 vCPU",
       .bars = {{.series = 0, .label = "lazy", .value = 200.0, .text = "200"},
                {.series = 1, .label = "eager", .value = 50.0, .text = "50"}}}};
  EXPECT_EQ(RenderBarChart(chart),
            R"(<svg role="img" aria-label="faults" viewBox="0 0 640 76">
<text class="heading" x="0" y="16">1 vCPU</text>
<text class="label" x="82" y="37">lazy</text>
<rect class="series-0" x="90" y="24" width="420.0" height="18"/>
<text x="516.0" y="37">200</text>
<text class="label" x="82" y="59">eager</text>
<rect class="series-1" x="90" y="46" width="105.0" height="18"/>
<text x="201.0" y="59">50</text>
</svg>
)");
}

TEST(BarChartTest, AnUnknownValueHasATextAndNoBar) {
  BarChart chart;
  chart.groups = {{.heading = "1 vCPU",
                   .bars = {{.label = "lazy", .value = {}, .text = "-"}}}};
  const std::string svg = RenderBarChart(chart);
  EXPECT_EQ(svg.find("<rect"), std::string::npos) << svg;
  EXPECT_NE(svg.find(">-</text>"), std::string::npos) << svg;
}

TEST(BarChartTest, ZerosHaveBarsThatCanBeSeen) {
  BarChart chart;
  chart.groups = {{.heading = "1 vCPU",
                   .bars = {{.label = "lazy", .value = 0.0, .text = "0"}}}};
  EXPECT_NE(RenderBarChart(chart).find("width=\"1.0\""), std::string::npos);
}

TEST(BarChartTest, ReservedCharactersAreReplaced) {
  BarChart chart;
  chart.title = "<t>";
  chart.groups = {
      {.heading = "a & b",
       .bars = {{.label = "<l>", .value = 1.0, .text = "> 60.0 s"}}}};
  const std::string svg = RenderBarChart(chart);
  for (const char* part : {"aria-label=\"&lt;t&gt;\"", ">a &amp; b<",
                           ">&lt;l&gt;<", ">&gt; 60.0 s<"}) {
    EXPECT_NE(svg.find(part), std::string::npos) << part << "\n" << svg;
  }
}

TEST(BarChartTest, EachSeriesHasAColour) {
  const std::string style = BarChartStyle();
  for (int i = 0; i < kBarSeries; ++i) {
    EXPECT_NE(style.find(".series-" + std::to_string(i) +
                         " { fill: var(--series-" + std::to_string(i) + ")"),
              std::string::npos)
        << style;
  }
}

}  // namespace
}  // namespace mmud::client
