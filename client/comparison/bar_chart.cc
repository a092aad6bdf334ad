#include "client/comparison/bar_chart.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/text/html.h"

namespace mmud::client {
namespace {

// All in units of the picture.
constexpr int kWidth = 640;
constexpr int kLabelWidth = 90;  // left of the bars
constexpr int kTextWidth = 130;  // right of the longest bar
constexpr int kBarWidth = kWidth - kLabelWidth - kTextWidth;
constexpr int kBarHeight = 18;
constexpr int kBarStep = 22;
constexpr int kHeadingHeight = 24;
constexpr int kGroupGap = 8;
// From the top of a bar to the base line of its text.
constexpr int kBaseLine = 13;

double Largest(const BarChart& chart) {
  double largest = 0;
  for (const BarGroup& group : chart.groups) {
    for (const Bar& bar : group.bars) {
      largest = std::max(largest, bar.value.value_or(0));
    }
  }
  return largest;
}

std::string RenderBar(const Bar& bar, int top, double largest) {
  const double length =
      largest > 0 ? kBarWidth * bar.value.value_or(0) / largest : 0;
  std::string svg =
      absl::StrFormat("<text class=\"label\" x=\"%d\" y=\"%d\">%s</text>\n",
                      kLabelWidth - 8, top + kBaseLine, EscapeHtml(bar.label));
  if (bar.value.has_value()) {
    absl::StrAppendFormat(&svg,
                          "<rect class=\"series-%d\" x=\"%d\" y=\"%d\" "
                          "width=\"%.1f\" height=\"%d\"/>\n",
                          bar.series, kLabelWidth, top, std::max(length, 1.0),
                          kBarHeight);
  }
  absl::StrAppendFormat(&svg, "<text x=\"%.1f\" y=\"%d\">%s</text>\n",
                        kLabelWidth + length + 6, top + kBaseLine,
                        EscapeHtml(bar.text));
  return svg;
}

}  // namespace

std::string RenderBarChart(const BarChart& chart) {
  const double largest = Largest(chart);
  std::string body;
  int top = 0;
  for (const BarGroup& group : chart.groups) {
    absl::StrAppendFormat(&body,
                          "<text class=\"heading\" x=\"0\" y=\"%d\">%s</text>"
                          "\n",
                          top + kHeadingHeight - 8, EscapeHtml(group.heading));
    top += kHeadingHeight;
    for (const Bar& bar : group.bars) {
      absl::StrAppend(&body, RenderBar(bar, top, largest));
      top += kBarStep;
    }
    top += kGroupGap;
  }
  return absl::StrFormat(
      "<svg role=\"img\" aria-label=\"%s\" viewBox=\"0 0 %d %d\">\n%s</svg>\n",
      EscapeHtml(chart.title), kWidth, top, body);
}

std::string BarChartStyle() {
  std::string style =
      "svg { width: 100%; max-width: 640px; height: auto; display: block; }\n"
      "svg text { fill: var(--text); font-size: 12px; }\n"
      "svg text.label { text-anchor: end; }\n"
      "svg text.heading { font-weight: 600; }\n";
  for (int i = 0; i < kBarSeries; ++i) {
    absl::StrAppend(&style, "svg .series-", i, " { fill: var(--series-", i,
                    "); }\n");
  }
  return style;
}

}  // namespace mmud::client
