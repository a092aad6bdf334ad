// Small pictures of numbers in a few characters of a terminal.

#ifndef CLIENT_TOP_MARKS_H_
#define CLIENT_TOP_MARKS_H_

#include <string>

#include "client/top/model.h"

namespace mmud::client {

// Characters that a terminal can show.
enum class Charset { kAscii, kUtf8 };

// The newest values of a history in exactly `width` columns, the newest at the
// right end; columns without a value are blank. The largest value that is shown
// has the full height, zero has none.
std::string Sparkline(const History& history, int width, Charset charset);

// "[####------]" in exactly `width` columns, of which `share`, 0 to 1, is full.
// REQUIRES: `width` >= 3.
std::string Bar(double share, int width);

// At most five characters: "0", "0.25", "7.5", "512", "12.3k", "123k", "4.56M".
std::string CompactNumber(double value);

// At most five characters: "0%", "0.02%", "3.2%", "41%", "100%".
std::string CompactShare(double share);

}  // namespace mmud::client

#endif  // CLIENT_TOP_MARKS_H_
