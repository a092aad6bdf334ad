// The colours of heat.

#ifndef CLIENT_WORKING_SET_COLOURS_H_
#define CLIENT_WORKING_SET_COLOURS_H_

#include <string>

namespace mmud::client {

// Each part is 0 to 255. A value.
struct Rgb {
  int red = 0;
  int green = 0;
  int blue = 0;

  friend bool operator==(const Rgb&, const Rgb&) = default;
};

enum class Background { kLight, kDark };

// The colour of a step of an AgeScale with `steps` steps; 0 is the hottest.
// Hot colours differ most from the background. Lightness changes in one
// direction only, so that the steps are told apart without seeing hues.
// REQUIRES: 0 <= `step` < `steps`.
Rgb HeatColour(Background background, int step, int steps);

// The colour of memory that was never found young. It has no hue.
Rgb NeverYoungColour(Background background);

// "#a1b2c3".
std::string Hex(Rgb colour);

// The nearest colour in the cube of 216 and the 24 greys of the palette of 256
// that terminals have.
int Ansi256(Rgb colour);

// Relative luminance as for contrasts on the web: 0 (black) to 1 (white).
double Luminance(Rgb colour);

}  // namespace mmud::client

#endif  // CLIENT_WORKING_SET_COLOURS_H_
