#include "client/working_set/colours.h"

#include <algorithm>
#include <set>

#include "client/working_set/age_scale.h"
#include "gtest/gtest.h"

namespace mmud::client {
namespace {

double Contrast(Rgb a, Rgb b) {
  const double more = std::max(Luminance(a), Luminance(b));
  const double less = std::min(Luminance(a), Luminance(b));
  return (more + 0.05) / (less + 0.05);
}

TEST(ColoursTest, LightnessChangesInOneDirection) {
  for (int steps = 2; steps <= AgeScale::kMaxSteps; ++steps) {
    for (int step = 1; step < steps; ++step) {
      EXPECT_GT(Luminance(HeatColour(Background::kLight, step, steps)),
                Luminance(HeatColour(Background::kLight, step - 1, steps)));
      EXPECT_LT(Luminance(HeatColour(Background::kDark, step, steps)),
                Luminance(HeatColour(Background::kDark, step - 1, steps)));
    }
  }
}

TEST(ColoursTest, NeighboursAreToldApartByLightness) {
  for (const Background background : {Background::kLight, Background::kDark}) {
    constexpr int kSteps = AgeScale::kMaxSteps;
    for (int step = 1; step < kSteps; ++step) {
      EXPECT_GE(Contrast(HeatColour(background, step, kSteps),
                         HeatColour(background, step - 1, kSteps)),
                1.1)
          << step;
    }
    EXPECT_GE(Contrast(HeatColour(background, kSteps - 1, kSteps),
                       NeverYoungColour(background)),
              1.1);
  }
}

TEST(ColoursTest, HotColoursStandOutFromTheBackground) {
  EXPECT_GE(Contrast(HeatColour(Background::kLight, 0, 8), {255, 255, 255}), 7);
  EXPECT_GE(Contrast(HeatColour(Background::kDark, 0, 8), {0, 0, 0}), 7);
}

TEST(ColoursTest, AllStepsLieBetweenTheSameEnds) {
  for (const Background background : {Background::kLight, Background::kDark}) {
    EXPECT_EQ(HeatColour(background, 0, 1), HeatColour(background, 0, 8));
    EXPECT_EQ(HeatColour(background, 1, 2), HeatColour(background, 7, 8));
  }
}

TEST(ColoursTest, HexHasTwoDigitsForEachPart) {
  EXPECT_EQ(Hex({0, 10, 255}), "#000aff");
}

TEST(ColoursTest, TheNearestColourOfATerminalIsTaken) {
  EXPECT_EQ(Ansi256({0, 0, 0}), 16);
  EXPECT_EQ(Ansi256({255, 255, 255}), 231);
  EXPECT_EQ(Ansi256({95, 0, 0}), 52);
  EXPECT_EQ(Ansi256({0, 114, 116}), 16 + 6 * 1 + 2);
  EXPECT_EQ(Ansi256({154, 156, 255}), 16 + 36 * 2 + 6 * 3 + 5);
  EXPECT_EQ(Ansi256({18, 18, 18}), 233);
  EXPECT_EQ(Ansi256({57, 58, 60}), 237);
  EXPECT_EQ(Ansi256({240, 238, 237}), 255);
}

TEST(ColoursTest, TheStepsDifferOnATerminal) {
  std::set<int> codes = {Ansi256(NeverYoungColour(Background::kDark))};
  for (int step = 0; step < AgeScale::kMaxSteps; ++step) {
    codes.insert(Ansi256(HeatColour(Background::kDark, step, 8)));
  }
  EXPECT_EQ(codes.size(), 9u);
}

}  // namespace
}  // namespace mmud::client
