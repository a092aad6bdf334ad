#include "client/working_set/terminal_view.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "client/text/printable.h"
#include "client/text/table.h"
#include "client/text/units.h"
#include "client/working_set/age_bins.h"
#include "client/working_set/age_scale.h"
#include "client/working_set/age_text.h"
#include "client/working_set/heat_marks.h"
#include "client/working_set/picture.h"

namespace mmud::client {
namespace {

constexpr int kWidth = 80;
constexpr int kBarWidth = 30;

std::string ViewHead(const WorkingSetPicture& picture) {
  KeyValues values;
  values.Add("VM", Printable(picture.vm));
  values.Add("observed", FormatWallTime(picture.time));
  values.Add("staleness", absl::StrCat(FormatAge(picture.staleness),
                                       " since the last ageing pass"));
  values.Add("memory", absl::StrCat(FormatBytes(GuestBytes(picture)), ", ",
                                    FormatBytes(TrackedBytes(picture)),
                                    " of it mapped and tracked"));
  for (const std::string& sentence : picture.coverage) {
    values.Add("coverage", Printable(sentence));
  }
  return values.ToString();
}

std::string ViewWindows(const WorkingSetPicture& picture) {
  if (picture.windows.empty()) return "no windows\n";
  Table table({{"WINDOW", Align::kRight},
               {"WORKING SET", Align::kRight},
               {"SHARE", Align::kRight},
               {""}});
  for (const WindowSize& window : picture.windows) {
    table.AddRow({FormatAge(window.window), FormatBytes(window.size_bytes),
                  FormatShareOf(window.size_bytes, TrackedBytes(picture)),
                  window.complete ? "" : "at most: tracked for less time"});
  }
  return table.ToString();
}

std::string ViewAges(const WorkingSetPicture& picture, const HeatMarks& marks) {
  Table table({{"GENERATION", Align::kRight},
               {"AGE", Align::kRight},
               {"SIZE", Align::kRight},
               {"SHARE", Align::kRight},
               {""}});
  const int64_t all = TrackedBytes(picture);
  int64_t largest = picture.never_young_bytes;
  for (const AgeBin& bin : picture.bins) {
    largest = std::max(largest, bin.size_bytes);
  }
  const auto bar = [&](const HeatCell& cell, int64_t bytes) {
    if (bytes == 0) return std::string();
    const double length =
        kBarWidth * static_cast<double>(bytes) / static_cast<double>(largest);
    return marks.Bar(cell, std::max(static_cast<int>(std::lround(length)), 1));
  };
  for (const AgeBin& bin : picture.bins) {
    table.AddRow({GenerationsOf(bin), FormatAgeRange(bin.min_age, bin.max_age),
                  FormatBytes(bin.size_bytes),
                  FormatShareOf(bin.size_bytes, all),
                  bar({HeatCell::Kind::kAged, bin.min_age}, bin.size_bytes)});
  }
  table.AddRow(
      {"-", "never young", FormatBytes(picture.never_young_bytes),
       FormatShareOf(picture.never_young_bytes, all),
       bar({HeatCell::Kind::kNeverYoung, {}}, picture.never_young_bytes)});
  return table.ToString();
}

std::string ViewSlot(const HeatSlot& slot, int cells_per_line,
                     const HeatMarks& marks) {
  std::string text =
      absl::StrCat("slot ", slot.slot, ": ", FormatGpa(slot.gpa_bytes), ", ",
                   FormatBytes(slot.size_bytes), ", ",
                   FormatBytes(slot.cell_bytes), " per character\n");
  const int64_t line_bytes = slot.cell_bytes * cells_per_line;
  const size_t gpa_width = FormatGpa(slot.gpa_bytes + slot.size_bytes).size();
  int64_t gpa = slot.gpa_bytes;
  absl::Span<const HeatCell> rest = slot.cells;
  while (!rest.empty()) {
    const absl::Span<const HeatCell> line = rest.subspan(0, cells_per_line);
    const std::string label = FormatGpa(gpa);
    absl::StrAppend(
        &text, std::string(gpa_width - std::min(gpa_width, label.size()), ' '),
        label, " |", marks.Line(line), "|\n");
    rest.remove_prefix(line.size());
    gpa += line_bytes;
  }
  return text;
}

}  // namespace

std::string ViewInTerminal(const WorkingSetPicture& picture,
                           const TerminalViewOptions& options) {
  const AgeScale scale(picture);
  const HeatMarks marks(&scale, options.colour);
  std::string text = absl::StrCat(ViewHead(picture), "\n", ViewWindows(picture),
                                  "\n", ViewAges(picture, marks));
  if (picture.heat.empty()) return text;
  absl::StrAppend(
      &text,
      "\nThe age of the youngest page of each stretch of guest memory:\n",
      marks.Legend(kWidth));
  for (const HeatSlot& slot : picture.heat) {
    absl::StrAppend(&text, "\n",
                    ViewSlot(slot, std::max(options.cells_per_line, 1), marks));
  }
  return text;
}

}  // namespace mmud::client
