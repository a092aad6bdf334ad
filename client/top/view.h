// What is on the screen of `mmuctl top`: lines of styled text, made from the
// model alone.

#ifndef CLIENT_TOP_VIEW_H_
#define CLIENT_TOP_VIEW_H_

#include <string>
#include <vector>

#include "absl/time/time.h"
#include "client/top/columns.h"
#include "client/top/marks.h"
#include "client/top/model.h"

namespace mmud::client {

enum class Style { kPlain, kTitle, kDim, kSelected, kWarning };

// Text of one style. A value.
struct Span {
  std::string text;
  Style style = Style::kPlain;
};

using Line = std::vector<Span>;

// A value.
struct ViewOptions {
  // Columns of the screen, at least 1, and its lines; 0 lines: as many as
  // needed.
  int width = 80;
  int height = 0;
  Charset charset = Charset::kAscii;
  SortKey sort = SortKey::kDirty;
  SortOrder order = SortOrder::kUsual;
  // Vm.uid of the selected VM; "" for none.
  std::string selected;
  // The last line of the screen; "" for none.
  std::string help;
  // The daemon's address and the time between two samples, for the first line.
  std::string address;
  absl::Duration interval = absl::Seconds(2);
};

// All VMs, the running operations and the conditions. No line is wider than the
// screen, and there are exactly `height` lines unless that is 0. Operations and
// conditions have at most half of the screen. If a list does not fit, its last
// line says how many entries are missing; the selected VM is always shown.
std::vector<Line> ViewOverview(const TopModel& model,
                               const ViewOptions& options);

// Everything about the selected VM. If it does not exist any more, says so.
std::vector<Line> ViewDetail(const TopModel& model, const ViewOptions& options);

// The columns of UTF-8 text whose characters have one column each.
int WidthOf(const std::string& text);

// The lines without styles, each with a line feed and without blanks at its
// end.
std::string PlainText(const std::vector<Line>& lines);

}  // namespace mmud::client

#endif  // CLIENT_TOP_VIEW_H_
