#include "client/working_set/heat_map.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/text/html.h"
#include "client/text/units.h"
#include "client/working_set/age_scale.h"
#include "client/working_set/picture.h"

namespace mmud::client {
namespace {

// All in units of the picture.
constexpr int kGpaWidth = 128;  // left of the cells
constexpr int kMapWidth = 768;
constexpr int kMaxCellWidth = 16;
constexpr int kLabelStep = 40;  // least distance between two addresses
constexpr int kEdge = 8;        // above and below the cells

// The colours: one for each step of the scale, then these.
int NeverYoung(const AgeScale& scale) { return scale.steps(); }
int Absent(const AgeScale& scale) { return scale.steps() + 1; }
int ColoursOf(const AgeScale& scale) { return scale.steps() + 2; }

int ColourOf(const HeatCell& cell, const AgeScale& scale) {
  switch (cell.kind) {
    case HeatCell::Kind::kAbsent:
      return Absent(scale);
    case HeatCell::Kind::kNeverYoung:
      return NeverYoung(scale);
    case HeatCell::Kind::kAged:
      return scale.StepOf(cell.age);
  }
  return Absent(scale);
}

std::string ClassOf(int colour, const AgeScale& scale) {
  if (colour == NeverYoung(scale)) return "heat-never";
  if (colour == Absent(scale)) return "heat-absent";
  return absl::StrCat("heat-", colour);
}

std::string LabelOf(int colour, const AgeScale& scale) {
  if (colour == NeverYoung(scale)) return "never young";
  if (colour == Absent(scale)) return "not mapped or not tracked";
  return scale.LabelOf(colour);
}

// How many cells a row has: a power of two, with which the largest slot is
// wider than it is high.
size_t ColumnsOf(const std::vector<HeatSlot>& slots) {
  size_t most = 1;
  for (const HeatSlot& slot : slots) most = std::max(most, slot.cells.size());
  size_t columns = 16;
  while (columns * columns < 2 * most) columns *= 2;
  return columns;
}

// The memory of a cell, which is less for the last of some slots.
int64_t BytesOf(const HeatSlot& slot, size_t cell) {
  return std::min(
      slot.cell_bytes,
      slot.size_bytes - slot.cell_bytes * static_cast<int64_t>(cell));
}

struct Drawing {
  std::string path;  // in units of cells
  int64_t bytes = 0;
};

// One for each colour.
std::vector<Drawing> Draw(const HeatSlot& slot, const AgeScale& scale,
                          size_t columns) {
  std::vector<Drawing> drawings(ColoursOf(scale));
  for (size_t cell = 0; cell < slot.cells.size();) {
    const int colour = ColourOf(slot.cells[cell], scale);
    Drawing& drawing = drawings[colour];
    const size_t first = cell;
    do {
      drawing.bytes += BytesOf(slot, cell);
      ++cell;
    } while (cell < slot.cells.size() && cell % columns != 0 &&
             ColourOf(slot.cells[cell], scale) == colour);
    absl::StrAppend(&drawing.path, "M", first % columns, " ", first / columns,
                    "h", cell - first, "v1h-", cell - first, "z");
  }
  return drawings;
}

// The addresses at the left, and a line from each to the cells.
std::string RenderAddresses(const HeatSlot& slot, size_t columns, size_t rows,
                            int size) {
  size_t step = 1;
  while (static_cast<int>(step) * size < kLabelStep) step *= 2;
  std::string svg;
  for (size_t row = 0; row < rows; row += step) {
    const int top = kEdge + static_cast<int>(row) * size;
    const int64_t gpa =
        slot.gpa_bytes + slot.cell_bytes * static_cast<int64_t>(row * columns);
    absl::StrAppendFormat(&svg,
                          "<text class=\"end gpa\" x=\"%d\" y=\"%d\">%s</text>"
                          "<path class=\"rule\" d=\"M%d %d.5h6\"/>\n",
                          kGpaWidth - 12, top + 5, FormatGpa(gpa),
                          kGpaWidth - 8, top);
  }
  return svg;
}

std::string RenderSlot(const HeatSlot& slot, const AgeScale& scale,
                       size_t columns) {
  const size_t rows = (slot.cells.size() + columns - 1) / columns;
  const int size =
      std::clamp(kMapWidth / static_cast<int>(columns), 1, kMaxCellWidth);
  const int width = kGpaWidth + size * static_cast<int>(columns) + 1;
  const int height = 2 * kEdge + size * static_cast<int>(rows);
  const std::string name =
      absl::StrCat("Slot ", slot.slot, ": ", FormatBytes(slot.size_bytes),
                   " at ", FormatGpa(slot.gpa_bytes));
  std::string svg = absl::StrFormat(
      "<h3>%s <span class=\"muted\">%s per cell</span></h3>\n"
      "<div class=\"scroll\"><svg class=\"map\" role=\"img\" width=\"%d\" "
      "height=\"%d\" viewBox=\"0 0 %d %d\" data-gpa=\"%d\" data-cell=\"%d\" "
      "data-columns=\"%d\">\n<title>Heat of %s</title>\n",
      EscapeHtml(name), FormatBytes(slot.cell_bytes), width, height, width,
      height, slot.gpa_bytes, slot.cell_bytes, columns, EscapeHtml(name));
  absl::StrAppend(&svg, RenderAddresses(slot, columns, rows, size));
  absl::StrAppendFormat(
      &svg, "<g class=\"cells\" transform=\"translate(%d %d) scale(%d)\">\n",
      kGpaWidth, kEdge, size);
  const std::vector<Drawing> drawings = Draw(slot, scale, columns);
  for (int colour = 0; colour < ColoursOf(scale); ++colour) {
    const Drawing& drawing = drawings[colour];
    if (drawing.path.empty()) continue;
    absl::StrAppend(&svg, "<path class=\"", ClassOf(colour, scale), "\" d=\"",
                    drawing.path, "\"><title>", LabelOf(colour, scale),
                    ": cells of ", FormatBytes(drawing.bytes), " in all",
                    "</title></path>\n");
  }
  absl::StrAppendFormat(
      &svg,
      "</g>\n<rect class=\"rule\" x=\"%d.5\" y=\"%d.5\" width=\"%d\" "
      "height=\"%d\"/>\n",
      kGpaWidth - 1, kEdge - 1, size * columns + 1, size * rows + 1);
  return absl::StrCat(svg, "</svg></div>\n");
}

}  // namespace

std::string RenderHeatMap(const WorkingSetPicture& picture,
                          const AgeScale& scale) {
  const size_t columns = ColumnsOf(picture.heat);
  std::string html;
  for (const HeatSlot& slot : picture.heat) {
    absl::StrAppend(&html, RenderSlot(slot, scale, columns));
  }
  return html;
}

std::string RenderHeatLegend(const AgeScale& scale) {
  std::string html = "<ul class=\"legend\">\n";
  for (int colour = 0; colour < ColoursOf(scale); ++colour) {
    absl::StrAppend(&html, "<li><span class=\"swatch ", ClassOf(colour, scale),
                    "\"></span>", LabelOf(colour, scale), "</li>\n");
  }
  return absl::StrCat(html, "</ul>\n");
}

std::string RenderHeatTable(const WorkingSetPicture& picture,
                            const AgeScale& scale) {
  const int64_t all = GuestBytes(picture);
  std::vector<int64_t> bytes(ColoursOf(scale));
  for (const HeatSlot& slot : picture.heat) {
    for (size_t cell = 0; cell < slot.cells.size(); ++cell) {
      bytes[ColourOf(slot.cells[cell], scale)] += BytesOf(slot, cell);
    }
  }
  std::string html =
      "<table>\n<thead><tr><th>Age of the youngest page</th>"
      "<th>Memory of these cells</th><th>Share</th></tr></thead>\n<tbody>\n";
  for (int colour = 0; colour < ColoursOf(scale); ++colour) {
    absl::StrAppend(&html, "<tr><td>", LabelOf(colour, scale), "</td><td>",
                    FormatBytes(bytes[colour]), "</td><td>",
                    FormatShareOf(bytes[colour], all), "</td></tr>\n");
  }
  return absl::StrCat(html, "</tbody>\n</table>\n");
}

}  // namespace mmud::client
