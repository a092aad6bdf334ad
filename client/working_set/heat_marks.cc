#include "client/working_set/heat_marks.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "client/working_set/age_scale.h"
#include "client/working_set/colours.h"
#include "client/working_set/picture.h"
#include "client/working_set/terminal_view.h"

namespace mmud::client {
namespace {

// From hot to cold.
constexpr char kRamp[] = "@#%*+=-:";
constexpr int kLastOfRamp = AgeScale::kMaxSteps - 1;
static_assert(sizeof(kRamp) == AgeScale::kMaxSteps + 1);

}  // namespace

char HeatMarks::Character(const HeatCell& cell) const {
  if (cell.kind == HeatCell::Kind::kAbsent) return ' ';
  if (cell.kind == HeatCell::Kind::kNeverYoung) return '.';
  if (scale_->steps() == 1) return kRamp[0];
  return kRamp[scale_->StepOf(cell.age) * kLastOfRamp / (scale_->steps() - 1)];
}

int HeatMarks::Code(const HeatCell& cell) const {
  if (colour_ == TextColour::kNone || cell.kind == HeatCell::Kind::kAbsent) {
    return 0;
  }
  return Ansi256(cell.kind == HeatCell::Kind::kNeverYoung
                     ? NeverYoungColour(Background::kDark)
                     : HeatColour(Background::kDark, scale_->StepOf(cell.age),
                                  scale_->steps()));
}

std::string HeatMarks::Line(absl::Span<const HeatCell> cells) const {
  std::string line;
  int last = 0;
  for (const HeatCell& cell : cells) {
    const int code = Code(cell);
    if (code != last) {
      absl::StrAppend(
          &line, code == 0 ? "\x1b[0m" : absl::StrCat("\x1b[48;5;", code, "m"));
    }
    last = code;
    line += colour_ == TextColour::kNone ? Character(cell) : ' ';
  }
  if (last != 0) line += "\x1b[0m";
  return line;
}

std::string HeatMarks::Bar(const HeatCell& cell, int width) const {
  return Line(std::vector<HeatCell>(width, cell));
}

std::string HeatMarks::Legend(int width) const {
  std::vector<std::pair<HeatCell, std::string>> entries;
  for (int step = 0; step < scale_->steps(); ++step) {
    entries.emplace_back(HeatCell{HeatCell::Kind::kAged, scale_->LeastOf(step)},
                         scale_->LabelOf(step));
  }
  entries.emplace_back(HeatCell{HeatCell::Kind::kNeverYoung, {}},
                       "never young");
  entries.emplace_back(HeatCell{HeatCell::Kind::kAbsent, {}},
                       "(blank) not mapped or not tracked");
  std::string legend;
  int column = 0;
  for (const auto& [cell, label] : entries) {
    const bool blank = cell.kind == HeatCell::Kind::kAbsent;
    const int needed = static_cast<int>(label.size()) + (blank ? 0 : 2);
    if (column > 0 && column + 3 + needed > width) {
      legend += "\n";
      column = 0;
    }
    if (column > 0) legend += "   ";
    column += needed + (column > 0 ? 3 : 0);
    if (!blank) absl::StrAppend(&legend, Bar(cell, 1), " ");
    legend += label;
  }
  return legend + "\n";
}

}  // namespace mmud::client
