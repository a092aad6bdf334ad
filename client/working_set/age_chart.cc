#include "client/working_set/age_chart.h"

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/text/html.h"
#include "client/text/units.h"
#include "client/working_set/age_bins.h"
#include "client/working_set/age_scale.h"
#include "client/working_set/age_text.h"
#include "client/working_set/picture.h"

namespace mmud::client {
namespace {

// All in units of the picture.
constexpr int kWidth = 912;
constexpr int kAgeRight = 118;  // where the ages end
constexpr int kBarLeft = 132;
constexpr int kTextWidth = 150;  // right of the longest bar
constexpr int kBarWidth = kWidth - kBarLeft - kTextWidth;
constexpr int kBarHeight = 20;
constexpr int kStep = 28;
// From the top of a bar to the base line of its text.
constexpr int kBaseLine = 14;

struct Row {
  std::string age;
  std::string generation;  // for people
  std::string css_class;
  int64_t bytes = 0;
};

std::vector<Row> RowsOf(const WorkingSetPicture& picture,
                        const AgeScale& scale) {
  std::vector<Row> rows;
  for (const AgeBin& bin : picture.bins) {
    rows.push_back({FormatAgeRange(bin.min_age, bin.max_age),
                    absl::StrCat("generation ", GenerationsOf(bin), ", ",
                                 FormatCount(bin.page_count), " pages"),
                    absl::StrCat("heat-", scale.StepOf(bin.min_age)),
                    bin.size_bytes});
  }
  rows.push_back({"never young", "mapped, and not found young so far",
                  "heat-never", picture.never_young_bytes});
  return rows;
}

}  // namespace

std::string RenderAgeChart(const WorkingSetPicture& picture,
                           const AgeScale& scale) {
  const std::vector<Row> rows = RowsOf(picture, scale);
  const int64_t all = TrackedBytes(picture);
  int64_t largest = 1;
  for (const Row& row : rows) largest = std::max(largest, row.bytes);
  std::string svg = absl::StrFormat(
      "<svg class=\"ages\" role=\"img\" width=\"%d\" height=\"%d\" "
      "viewBox=\"0 0 %d %d\">\n<title>Memory by age: %s tracked</title>\n",
      kWidth, kStep * rows.size(), kWidth, kStep * rows.size(),
      FormatBytes(all));
  int top = (kStep - kBarHeight) / 2;
  for (const Row& row : rows) {
    const double length =
        std::max(1.0, kBarWidth * static_cast<double>(row.bytes) /
                          static_cast<double>(largest));
    absl::StrAppendFormat(
        &svg,
        "<g class=\"bar\"><title>%s: %s, %s of tracked memory; %s</title>"
        "<rect class=\"row\" y=\"%d\" width=\"%d\" height=\"%d\"/>"
        "<text class=\"end\" x=\"%d\" y=\"%d\">%s</text>"
        "<rect class=\"%s\" x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"%d\" "
        "rx=\"2\"/>"
        "<text x=\"%.1f\" y=\"%d\">%s<tspan class=\"muted\" dx=\"8\">%s</tspan>"
        "</text></g>\n",
        EscapeHtml(row.age), FormatBytes(row.bytes),
        FormatShareOf(row.bytes, all), EscapeHtml(row.generation),
        top - (kStep - kBarHeight) / 2, kWidth, kStep, kAgeRight,
        top + kBaseLine, EscapeHtml(row.age), row.css_class, kBarLeft, top,
        length, kBarHeight, kBarLeft + length + 8, top + kBaseLine,
        FormatBytes(row.bytes), FormatShareOf(row.bytes, all));
    top += kStep;
  }
  return absl::StrCat(svg, "</svg>\n");
}

std::string RenderAgeTable(const WorkingSetPicture& picture) {
  std::string html =
      "<table>\n<thead><tr><th>Generation</th><th>Age</th><th>Pages</th>"
      "<th>Size</th><th>Share</th></tr></thead>\n<tbody>\n";
  const int64_t all = TrackedBytes(picture);
  for (const AgeBin& bin : picture.bins) {
    absl::StrAppend(&html, "<tr><td>", GenerationsOf(bin), "</td><td>",
                    FormatAgeRange(bin.min_age, bin.max_age), "</td><td>",
                    FormatCount(bin.page_count), "</td><td>",
                    FormatBytes(bin.size_bytes), "</td><td>",
                    FormatShareOf(bin.size_bytes, all), "</td></tr>\n");
  }
  return absl::StrCat(html, "<tr><td>-</td><td>never young</td><td>-</td><td>",
                      FormatBytes(picture.never_young_bytes), "</td><td>",
                      FormatShareOf(picture.never_young_bytes, all),
                      "</td></tr>\n</tbody>\n</table>\n");
}

}  // namespace mmud::client
