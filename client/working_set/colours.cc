#include "client/working_set/colours.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string>

#include "absl/strings/str_format.h"

namespace mmud::client {
namespace {

// From hot to cold.
constexpr std::array<Rgb, 5> kOnLight = {{{84, 8, 44},
                                          {178, 42, 40},
                                          {222, 116, 36},
                                          {230, 176, 76},
                                          {170, 214, 216}}};
constexpr std::array<Rgb, 5> kOnDark = {{{255, 240, 158},
                                         {250, 176, 70},
                                         {226, 92, 76},
                                         {160, 54, 128},
                                         {84, 52, 148}}};

int Between(int from, int to, double share) {
  return static_cast<int>(std::lround(from + (to - from) * share));
}

double Linear(int part) {
  const double share = part / 255.0;
  return share <= 0.04045 ? share / 12.92
                          : std::pow((share + 0.055) / 1.055, 2.4);
}

// The brightness of the levels of the cube.
constexpr std::array<int, 6> kCube = {0, 95, 135, 175, 215, 255};

int NearestLevel(int part) {
  return part < 48 ? 0 : part < 115 ? 1 : std::min((part - 35) / 40, 5);
}

int Distance(Rgb a, Rgb b) {
  const int red = a.red - b.red;
  const int green = a.green - b.green;
  const int blue = a.blue - b.blue;
  return red * red + green * green + blue * blue;
}

}  // namespace

Rgb HeatColour(Background background, int step, int steps) {
  const std::array<Rgb, 5>& stops =
      background == Background::kLight ? kOnLight : kOnDark;
  const double place =
      steps > 1 ? 1.0 * step / (steps - 1) * (stops.size() - 1) : 0;
  const auto stop = std::min(static_cast<size_t>(place), stops.size() - 2);
  const Rgb& from = stops[stop];
  const Rgb& to = stops[stop + 1];
  const double share = place - static_cast<double>(stop);
  return {Between(from.red, to.red, share),
          Between(from.green, to.green, share),
          Between(from.blue, to.blue, share)};
}

Rgb NeverYoungColour(Background background) {
  return background == Background::kLight ? Rgb{230, 233, 237}
                                          : Rgb{52, 58, 66};
}

std::string Hex(Rgb colour) {
  return absl::StrFormat("#%02x%02x%02x", colour.red, colour.green,
                         colour.blue);
}

int Ansi256(Rgb colour) {
  const int red = NearestLevel(colour.red);
  const int green = NearestLevel(colour.green);
  const int blue = NearestLevel(colour.blue);
  const int mean = (colour.red + colour.green + colour.blue) / 3;
  const int grey = std::clamp((mean - 3) / 10, 0, 23);
  const int brightness = 8 + 10 * grey;
  const bool is_grey =
      Distance(colour, {brightness, brightness, brightness}) <
      Distance(colour, {kCube[red], kCube[green], kCube[blue]});
  return is_grey ? 232 + grey : 16 + 36 * red + 6 * green + blue;
}

double Luminance(Rgb colour) {
  return 0.2126 * Linear(colour.red) + 0.7152 * Linear(colour.green) +
         0.0722 * Linear(colour.blue);
}

}  // namespace mmud::client
