#include "client/working_set/timeline_chart.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "client/text/html.h"
#include "client/text/units.h"
#include "client/working_set/age_text.h"
#include "client/working_set/picture.h"

namespace mmud::client {
namespace {

// All in units of the picture.
constexpr int kWidth = 912;
constexpr int kHeight = 300;
constexpr int kLeft = 72;
constexpr int kRight = 790;  // of the lines; their names follow
constexpr int kTop = 12;
constexpr int kBottom = 268;
constexpr int kNameStep = 16;  // least distance between two names
constexpr int kMaxNotes = 240;

// A line of the chart: a size for each point of the timeline.
struct Series {
  std::string name;
  std::string css_class;
  std::vector<std::optional<int64_t>> bytes;
};

std::vector<Series> SeriesOf(const WorkingSetPicture& picture) {
  std::vector<Series> all = {{"young", "young", {}}};
  for (const TimelinePoint& point : picture.timeline) {
    all[0].bytes.push_back(point.young_bytes);
  }
  for (size_t i = 0; i < picture.windows.size(); ++i) {
    Series series = {FormatAge(picture.windows[i].window),
                     absl::StrCat("window-", i % kWindowColours),
                     {}};
    for (const TimelinePoint& point : picture.timeline) {
      series.bytes.push_back(i < point.working_set_bytes.size()
                                 ? point.working_set_bytes[i]
                                 : std::nullopt);
    }
    all.push_back(series);
  }
  return all;
}

// Maps times and sizes to places.
struct Frame {
  absl::Duration span;
  int64_t step_bytes = 1;  // between two marks of the axis
  int64_t top_bytes = 1;

  double X(absl::Duration ago) const {
    return kRight - (kRight - kLeft) * absl::FDivDuration(ago, span);
  }
  double Y(int64_t bytes) const {
    return kBottom - (kBottom - kTop) * static_cast<double>(bytes) /
                         static_cast<double>(top_bytes);
  }
};

Frame FrameOf(const WorkingSetPicture& picture,
              const std::vector<Series>& all) {
  int64_t largest = 1;
  for (const Series& series : all) {
    for (const std::optional<int64_t>& bytes : series.bytes) {
      largest = std::max(largest, bytes.value_or(0));
    }
  }
  Frame frame;
  frame.span = std::max(picture.timeline.front().ago, absl::Nanoseconds(1));
  while (frame.step_bytes * 5 < largest) frame.step_bytes *= 2;
  frame.top_bytes =
      (largest + frame.step_bytes - 1) / frame.step_bytes * frame.step_bytes;
  return frame;
}

std::string RenderAxes(const Frame& frame) {
  std::string svg;
  for (int64_t bytes = 0; bytes <= frame.top_bytes; bytes += frame.step_bytes) {
    absl::StrAppendFormat(
        &svg,
        "<path class=\"rule\" d=\"M%d %.1fH%d\"/>"
        "<text class=\"end muted\" x=\"%d\" y=\"%.1f\">%s</text>\n",
        kLeft, frame.Y(bytes), kRight, kLeft - 8, frame.Y(bytes) + 4,
        FormatBytes(bytes));
  }
  absl::Duration step = frame.span;
  for (const absl::Duration age : RoundAges()) {
    if (age * 7 >= frame.span) {
      step = age;
      break;
    }
  }
  for (absl::Duration ago; ago <= frame.span; ago += step) {
    absl::StrAppendFormat(
        &svg,
        "<path class=\"rule\" d=\"M%.1f %dv5\"/>"
        "<text class=\"middle muted\" x=\"%.1f\" y=\"%d\">%s</text>\n",
        frame.X(ago), kBottom, frame.X(ago), kBottom + 21,
        ago == absl::ZeroDuration() ? "now"
                                    : absl::StrCat(FormatAge(ago), " ago"));
  }
  return svg;
}

// The path of a line, with a gap where a size is unknown.
std::string LineOf(const WorkingSetPicture& picture, const Series& series,
                   const Frame& frame) {
  std::string path;
  bool drawing = false;
  for (size_t i = 0; i < series.bytes.size(); ++i) {
    if (series.bytes[i].has_value()) {
      // "h0" makes a dot of a point without neighbours.
      absl::StrAppendFormat(&path, "%s%.1f %.1f%s", drawing ? "L" : "M",
                            frame.X(picture.timeline[i].ago),
                            frame.Y(*series.bytes[i]), drawing ? "" : "h0");
    }
    drawing = series.bytes[i].has_value();
  }
  return path;
}

std::string RenderLines(const WorkingSetPicture& picture,
                        const std::vector<Series>& all, const Frame& frame) {
  // The series of young memory is known at each point, so it has an area.
  std::string svg = absl::StrFormat(
      "<path class=\"area\" d=\"%sL%.1f %dH%.1fz\"/>\n",
      LineOf(picture, all[0], frame), frame.X(picture.timeline.back().ago),
      kBottom, frame.X(picture.timeline.front().ago));
  for (const Series& series : all) {
    absl::StrAppend(&svg, "<path class=\"line ", series.css_class, "\" d=\"",
                    LineOf(picture, series, frame), "\"/>\n");
  }
  return svg;
}

// The names at the ends of the lines, moved apart where they would overlap.
std::string RenderNames(const std::vector<Series>& all, const Frame& frame) {
  struct Name {
    double y = 0;
    const Series* series = nullptr;
  };
  std::vector<Name> names;
  for (const Series& series : all) {
    if (series.bytes.back().has_value()) {
      names.push_back({frame.Y(*series.bytes.back()), &series});
    }
  }
  std::sort(names.begin(), names.end(),
            [](const Name& a, const Name& b) { return a.y > b.y; });
  double lowest = kBottom;
  for (Name& name : names) {
    name.y = std::min(name.y, lowest);
    lowest = name.y - kNameStep;
  }
  std::string svg;
  for (const Name& name : names) {
    absl::StrAppendFormat(
        &svg,
        "<path class=\"line %s\" d=\"M%d %.1fh14\"/>"
        "<text x=\"%d\" y=\"%.1f\">%s<tspan class=\"muted\" dx=\"6\">%s</tspan>"
        "</text>\n",
        name.series->css_class, kRight + 6, name.y, kRight + 25, name.y + 4,
        EscapeHtml(name.series->name), FormatBytes(*name.series->bytes.back()));
  }
  return svg;
}

// What is known of a point, in lines.
std::string NoteOf(const WorkingSetPicture& picture,
                   const std::vector<Series>& all, size_t point) {
  const absl::Duration ago = picture.timeline[point].ago;
  std::string note = ago < absl::Milliseconds(1)
                         ? "now"
                         : absl::StrCat(FormatAge(ago), " ago");
  for (const Series& series : all) {
    absl::StrAppend(&note, "\n", series.name, ": ",
                    series.bytes[point].has_value()
                        ? FormatBytes(*series.bytes[point])
                        : "unknown");
  }
  return note;
}

// Invisible stripes, each with the numbers of a point. They meet halfway
// between their points.
std::string RenderNotes(const WorkingSetPicture& picture,
                        const std::vector<Series>& all, const Frame& frame) {
  const size_t count = picture.timeline.size();
  const size_t step = (count + kMaxNotes - 1) / kMaxNotes;
  std::string svg;
  double right = kRight;
  // Backwards, so that the newest point has one.
  for (size_t back = 0; back < count; back += step) {
    const size_t point = count - 1 - back;
    const double x = frame.X(picture.timeline[point].ago);
    const double left =
        point < step ? kLeft
                     : (x + frame.X(picture.timeline[point - step].ago)) / 2;
    absl::StrAppendFormat(&svg,
                          "<rect class=\"note\" x=\"%.1f\" y=\"%d\" "
                          "width=\"%.1f\" height=\"%d\"><title>%s</title>"
                          "</rect>\n",
                          left, kTop, right - left, kBottom - kTop,
                          EscapeHtml(NoteOf(picture, all, point)));
    right = left;
  }
  return svg;
}

}  // namespace

std::string RenderTimeline(const WorkingSetPicture& picture) {
  if (picture.timeline.size() < 2) return "";
  const std::vector<Series> all = SeriesOf(picture);
  const Frame frame = FrameOf(picture, all);
  return absl::StrFormat(
      "<svg class=\"timeline\" role=\"img\" width=\"%d\" height=\"%d\" "
      "viewBox=\"0 0 %d %d\">\n<title>Young memory and the working set of each "
      "window over the last %s</title>\n%s%s%s%s</svg>\n",
      kWidth, kHeight, kWidth, kHeight, FormatAge(frame.span),
      RenderAxes(frame), RenderLines(picture, all, frame),
      RenderNames(all, frame), RenderNotes(picture, all, frame));
}

std::string RenderTimelineTable(const WorkingSetPicture& picture) {
  std::string html =
      "<table>\n<thead><tr><th>Window</th><th>Last</th><th>Least</th>"
      "<th>Largest</th></tr></thead>\n<tbody>\n";
  for (const Series& series : SeriesOf(picture)) {
    std::vector<int64_t> known;
    for (const std::optional<int64_t>& bytes : series.bytes) {
      if (bytes.has_value()) known.push_back(*bytes);
    }
    absl::StrAppend(&html, "<tr><td>", EscapeHtml(series.name), "</td>");
    if (known.empty()) {
      absl::StrAppend(&html, "<td>-</td><td>-</td><td>-</td>");
    } else {
      absl::StrAppend(
          &html, "<td>", FormatBytes(known.back()), "</td><td>",
          FormatBytes(*std::min_element(known.begin(), known.end())),
          "</td><td>",
          FormatBytes(*std::max_element(known.begin(), known.end())), "</td>");
    }
    absl::StrAppend(&html, "</tr>\n");
  }
  return absl::StrCat(html, "</tbody>\n</table>\n");
}

}  // namespace mmud::client
