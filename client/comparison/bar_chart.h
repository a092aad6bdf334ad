// Bar charts as SVG, for a page whose style sheet has BarChartStyle().

#ifndef CLIENT_COMPARISON_BAR_CHART_H_
#define CLIENT_COMPARISON_BAR_CHART_H_

#include <optional>
#include <string>
#include <vector>

namespace mmud::client {

// The number of series that have a colour of their own.
inline constexpr int kBarSeries = 3;

// One bar. A value.
struct Bar {
  int series = 0;  // 0 to kBarSeries - 1, decides the colour
  std::string label;
  std::optional<double> value;  // 0 or more; without it there is no bar
  std::string text;             // the value for people, behind the bar
};

// Bars under a common heading. A value.
struct BarGroup {
  std::string heading;
  std::vector<Bar> bars;
};

// A value.
struct BarChart {
  std::string title;
  std::vector<BarGroup> groups;
};

// The chart as one <svg> element: horizontal bars, all on one scale that begins
// at 0, each with its label and its value as text.
std::string RenderBarChart(const BarChart& chart);

// Rules of a style sheet for all charts of a page. They use the page's colours
// as --text, and a colour per series as --series-0 and so on.
std::string BarChartStyle();

}  // namespace mmud::client

#endif  // CLIENT_COMPARISON_BAR_CHART_H_
