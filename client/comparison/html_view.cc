#include "client/comparison/html_view.h"

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "client/comparison/bar_chart.h"
#include "client/comparison/columns.h"
#include "client/comparison/plan.h"
#include "client/comparison/stalls.h"
#include "client/text/html.h"
#include "client/text/table.h"

namespace mmud::client {
namespace {

// Colours differ in lightness too, and have a contrast of at least 3 to the
// background.
constexpr char kStyle[] =
    ":root { color-scheme: light dark; --background: #ffffff; --text: #1f2328; "
    "--rule: #d0d7de; --series-0: #2f6db5; --series-1: #b4560f; --series-2: "
    "#1f7a54; }\n"
    "@media (prefers-color-scheme: dark) { :root { --background: #15181c; "
    "--text: #e6e8eb; --rule: #3a4149; --series-0: #6aa5e8; --series-1: "
    "#f0a050; --series-2: #5fc79a; } }\n"
    "body { margin: 2rem auto; max-width: 62rem; padding: 0 1rem; font: 15px/"
    "1.5 system-ui, sans-serif; background: var(--background); color: "
    "var(--text); }\n"
    ".charts { display: grid; grid-template-columns: repeat(auto-fit, "
    "minmax(26rem, 1fr)); gap: 1rem 2rem; }\n"
    ".scroll { overflow-x: auto; }\n"
    "table { border-collapse: collapse; margin: 1rem 0; white-space: nowrap; "
    "font-variant-numeric: tabular-nums; }\n"
    "th, td { padding: 0.2rem 0.7rem; border-bottom: 1px solid var(--rule); "
    "text-align: right; }\n"
    "th.left, td.left { text-align: left; }\n"
    "dt { font-weight: 600; }\n"
    "h2 { font-size: 1.1rem; }\n";

// One chart: its title, and what a row shows in it.
struct Chart {
  std::string title;
  std::optional<double> (*value)(const CombinationResult& result);
  std::string (*text)(const CombinationResult& result);
};

std::optional<double> EnableSeconds(const CombinationResult& result) {
  double seconds = absl::ToDoubleSeconds(result.enabling.time);
  if (result.split_ahead.has_value()) {
    seconds += absl::ToDoubleSeconds(result.split_ahead->time);
  }
  return seconds;
}

std::optional<double> StallSeconds(const CombinationResult& result) {
  const std::optional<Percentile> percentile = PercentileOf(result.stalls, 990);
  if (!percentile.has_value() ||
      percentile->at_most == absl::InfiniteDuration()) {
    return std::nullopt;
  }
  return absl::ToDoubleSeconds(percentile->at_most);
}

// The cell of the column with this title.
std::string CellOf(const std::vector<ResultColumn>& columns,
                   const std::string& title, const CombinationResult& result) {
  for (const ResultColumn& column : columns) {
    if (column.title == title) return column.cell(result);
  }
  return "";
}

std::vector<Chart> Charts() {
  return {
      {"Time until all memory that the guest writes is dirty",
       [](const CombinationResult& result) -> std::optional<double> {
         return absl::ToDoubleSeconds(result.pass.time);
       },
       [](const CombinationResult& result) {
         return CellOf(TimeColumns(), "DIRTY", result);
       }},
      {"Time to enable the log, with the split before it", EnableSeconds,
       [](const CombinationResult& result) {
         const std::string ahead = CellOf(TimeColumns(), "SPLIT AHEAD", result);
         const std::string enable = CellOf(TimeColumns(), "ENABLE", result);
         return result.split_ahead.has_value()
                    ? absl::StrCat(ahead, " + ", enable)
                    : enable;
       }},
      {"Stall of a page fault, 99th percentile (upper bound)", StallSeconds,
       [](const CombinationResult& result) {
         return CellOf(TimeColumns(), "P99 <=", result);
       }},
      {"Page faults",
       [](const CombinationResult& result) -> std::optional<double> {
         return static_cast<double>(FaultCount(result));
       },
       [](const CombinationResult& result) {
         return CellOf(WorkColumns(GuestMmu()), "FAULTS", result);
       }},
  };
}

BarChart MakeChart(const Comparison& comparison, const Chart& chart) {
  BarChart bars = {.title = chart.title, .groups = {}};
  for (const CombinationResult& result : comparison.results) {
    const std::string heading = DescribeGuest(result.combination);
    if (bars.groups.empty() || bars.groups.back().heading != heading) {
      bars.groups.push_back({heading, {}});
    }
    bars.groups.back().bars.push_back(
        {.series = static_cast<int>(result.combination.policy),
         .label = PolicyWord(result.combination.policy),
         .value = chart.value(result),
         .text = chart.text(result)});
  }
  return bars;
}

std::string Cell(const char* tag, const ResultColumn& column,
                 const std::string& text) {
  return absl::StrCat("<", tag,
                      column.align == Align::kLeft ? " class=\"left\"" : "",
                      ">", EscapeHtml(text), "</", tag, ">");
}

std::string TableOf(const Comparison& comparison,
                    const std::vector<ResultColumn>& rest) {
  std::vector<ResultColumn> columns = NameColumns();
  columns.insert(columns.end(), rest.begin(), rest.end());
  std::string html = "<div class=\"scroll\"><table>\n<thead><tr>";
  for (const ResultColumn& column : columns) {
    absl::StrAppend(&html, Cell("th", column, column.title));
  }
  absl::StrAppend(&html, "</tr></thead>\n<tbody>\n");
  for (const CombinationResult& result : comparison.results) {
    absl::StrAppend(&html, "<tr>");
    for (const ResultColumn& column : columns) {
      absl::StrAppend(&html, Cell("td", column, column.cell(result)));
    }
    absl::StrAppend(&html, "</tr>\n");
  }
  return absl::StrCat(html, "</tbody>\n</table></div>\n");
}

std::string Meanings(const GuestMmu& mmu) {
  std::string html = "<dl>\n";
  for (const std::vector<ResultColumn>& columns :
       {NameColumns(), TimeColumns(), WorkColumns(mmu)}) {
    for (const ResultColumn& column : columns) {
      absl::StrAppend(&html, "<dt>", EscapeHtml(column.title), "</dt><dd>",
                      EscapeHtml(column.meaning), "</dd>\n");
    }
  }
  return absl::StrCat(html, "</dl>\n");
}

}  // namespace

std::string ViewAsHtml(const Comparison& comparison) {
  const GuestMmu& mmu = *comparison.plan.options.mmu;
  const std::string title = "Policies of dirty logging";
  std::string html = absl::StrCat(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
      "<meta name=\"viewport\" content=\"width=device-width, "
      "initial-scale=1\"/>\n<title>",
      title, "</title>\n<style>\n", kStyle, BarChartStyle(),
      "</style>\n</head>\n<body>\n<h1>", title, "</h1>\n<p>",
      EscapeHtml(DescribeGuests(comparison.plan)), "</p>\n");
  const std::string warnings = Warnings(comparison);
  if (!warnings.empty()) {
    absl::StrAppend(&html, "<pre>", EscapeHtml(warnings), "</pre>\n");
  }
  absl::StrAppend(&html, "<div class=\"charts\">\n");
  for (const Chart& chart : Charts()) {
    absl::StrAppend(&html, "<section>\n<h2>", EscapeHtml(chart.title),
                    "</h2>\n", RenderBarChart(MakeChart(comparison, chart)),
                    "</section>\n");
  }
  return absl::StrCat(
      html, "</div>\n<h2>Times</h2>\n<p>", EscapeHtml(HowToRead()), "</p>\n",
      TableOf(comparison, TimeColumns()), "<h2>Work</h2>\n",
      TableOf(comparison, WorkColumns(mmu)), "<h2>What the columns mean</h2>\n",
      Meanings(mmu), "</body>\n</html>\n");
}

}  // namespace mmud::client
