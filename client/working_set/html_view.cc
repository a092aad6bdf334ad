#include "client/working_set/html_view.h"

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "client/text/html.h"
#include "client/text/units.h"
#include "client/working_set/age_chart.h"
#include "client/working_set/age_scale.h"
#include "client/working_set/age_text.h"
#include "client/working_set/heat_map.h"
#include "client/working_set/page_style.h"
#include "client/working_set/picture.h"
#include "client/working_set/timeline_chart.h"

namespace mmud::client {
namespace {

std::string Number(absl::string_view css_class, absl::string_view title,
                   int64_t bytes, absl::string_view note) {
  return absl::StrCat("<li class=\"", css_class, "\"><span>", title,
                      "</span><strong>", FormatBytes(bytes), "</strong><span>",
                      note, "</span></li>\n");
}

// The main numbers: a window has the colour that it has in the timeline.
std::string Numbers(const WorkingSetPicture& picture) {
  const int64_t tracked = TrackedBytes(picture);
  std::string html = "<ul class=\"numbers\">\n";
  for (size_t i = 0; i < picture.windows.size(); ++i) {
    const WindowSize& window = picture.windows[i];
    absl::StrAppend(
        &html,
        Number(absl::StrCat("window-", i % kWindowColours),
               absl::StrCat("in the last ", FormatAge(window.window)),
               window.size_bytes,
               window.complete
                   ? absl::StrCat(FormatShareOf(window.size_bytes, tracked),
                                  " of tracked")
                   : "at most"));
  }
  return absl::StrCat(
      html,
      Number("never", "never young", picture.never_young_bytes,
             absl::StrCat(FormatShareOf(picture.never_young_bytes, tracked),
                          " of tracked")),
      Number("tracked", "tracked", tracked,
             absl::StrCat("of ", FormatBytes(GuestBytes(picture)), " in all")),
      "</ul>\n");
}

std::string Notices(const WorkingSetPicture& picture) {
  std::vector<std::string> sentences = picture.coverage;
  for (const WindowSize& window : picture.windows) {
    if (window.complete) continue;
    sentences.push_back(
        absl::StrCat("Tracking began less than ", FormatAge(window.window),
                     " ago: memory counts that was in use before, too."));
  }
  if (sentences.empty()) return "";
  std::string html = "<div class=\"notice\" role=\"note\"><ul>\n";
  for (const std::string& sentence : sentences) {
    absl::StrAppend(&html, "<li>", EscapeHtml(sentence), "</li>\n");
  }
  return absl::StrCat(html, "</ul></div>\n");
}

// `contents` with a scroll bar of its own where the window is narrow.
std::string Scrolled(absl::string_view contents) {
  return absl::StrCat("<div class=\"scroll\">", contents, "</div>\n");
}

std::string Section(absl::string_view title, absl::string_view explanation,
                    absl::string_view contents, absl::string_view table) {
  return absl::StrCat("<section>\n<h2>", title, "</h2>\n<p class=\"muted\">",
                      explanation, "</p>\n", contents,
                      "<details><summary>The numbers as a table</summary>\n",
                      Scrolled(table), "</details>\n</section>\n");
}

}  // namespace

std::string ViewWorkingSetAsHtml(const WorkingSetPicture& picture) {
  const AgeScale scale(picture);
  const std::string title =
      absl::StrCat("Working set of ", EscapeHtml(picture.vm));
  const std::string timeline = RenderTimeline(picture);
  return absl::StrCat(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
      "<meta name=\"viewport\" content=\"width=device-width, "
      "initial-scale=1\"/>\n<title>",
      title, "</title>\n<style>\n", PageStyle(scale.steps()),
      "</style>\n</head>\n<body>\n<main>\n<h1>", title,
      "</h1>\n<p class=\"muted\">Observed ", FormatWallTime(picture.time), ", ",
      FormatAge(picture.staleness), " after the last ageing pass.</p>\n",
      Numbers(picture), Notices(picture),
      Section("Memory by age",
              "The time since pages were last found young, by generation.",
              Scrolled(RenderAgeChart(picture, scale)),
              RenderAgeTable(picture)),
      picture.heat.empty()
          ? ""
          : Section("Guest memory",
                    "Each cell has the age of its youngest page. Addresses go "
                    "along the rows.",
                    absl::StrCat(RenderHeatLegend(scale),
                                 RenderHeatMap(picture, scale)),
                    RenderHeatTable(picture, scale)),
      timeline.empty()
          ? ""
          : Section("Over time",
                    "The working set of each window, and the memory found "
                    "young by the latest pass.",
                    Scrolled(timeline), RenderTimelineTable(picture)),
      "</main>\n<script>\n", PageScript(), "</script>\n</body>\n</html>\n");
}

}  // namespace mmud::client
