// A picture of a working set as text.

#ifndef CLIENT_WORKING_SET_TERMINAL_VIEW_H_
#define CLIENT_WORKING_SET_TERMINAL_VIEW_H_

#include <string>

#include "client/working_set/picture.h"

namespace mmud::client {

enum class TextColour {
  kNone,  // ASCII only; heavier characters are hotter
  k256,   // with escape sequences for 256 colours, for a dark screen
};

// A value.
struct TerminalViewOptions {
  // Of the heat map. At least 1.
  int cells_per_line = 64;
  TextColour colour = TextColour::kNone;
};

// The working set of each window, a histogram of ages, a map of guest memory
// with one character for each cell, and what was not examined. Shares are those
// of tracked memory. Bars and cells of one age have one character, which the
// legend explains.
std::string ViewInTerminal(const WorkingSetPicture& picture,
                           const TerminalViewOptions& options = {});

}  // namespace mmud::client

#endif  // CLIENT_WORKING_SET_TERMINAL_VIEW_H_
