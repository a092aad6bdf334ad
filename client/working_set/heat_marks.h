// How a terminal shows the heat of memory: a character or a colour per age.

#ifndef CLIENT_WORKING_SET_HEAT_MARKS_H_
#define CLIENT_WORKING_SET_HEAT_MARKS_H_

#include <string>

#include "absl/types/span.h"
#include "client/working_set/age_scale.h"
#include "client/working_set/picture.h"
#include "client/working_set/terminal_view.h"

namespace mmud::client {

// Thread-compatible. `scale` must outlive it.
class HeatMarks {
 public:
  HeatMarks(const AgeScale* scale, TextColour colour)
      : scale_(scale), colour_(colour) {}

  // One column for each cell.
  std::string Line(absl::Span<const HeatCell> cells) const;

  // `width` columns of the mark of `cell`.
  std::string Bar(const HeatCell& cell, int width) const;

  // What each mark means, in lines of at most `width` columns.
  std::string Legend(int width) const;

 private:
  // A character that looks like `cell`, and with colours a code that stands for
  // its background; 0 is none.
  char Character(const HeatCell& cell) const;
  int Code(const HeatCell& cell) const;

  const AgeScale* const scale_;
  const TextColour colour_;
};

}  // namespace mmud::client

#endif  // CLIENT_WORKING_SET_HEAT_MARKS_H_
