#include "client/working_set/terminal_view.h"

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "client/working_set/picture.h"
#include "gtest/gtest.h"
#include "server/base/wall_time.h"

namespace mmud::client {
namespace {

constexpr int64_t kMiB = 1024 * 1024;
constexpr HeatCell kAbsent = {};
constexpr HeatCell kNeverYoung = {HeatCell::Kind::kNeverYoung, {}};

HeatCell Aged(absl::Duration age) { return {HeatCell::Kind::kAged, age}; }

// Two slots; all marks are used.
WorkingSetPicture SmallPicture() {
  WorkingSetPicture picture;
  picture.vm = "alpha";
  picture.time = WallTime::FromUnixNanos(1795249477'000000000);
  picture.staleness = absl::Milliseconds(2100);
  picture.bins = {{7, absl::ZeroDuration(), absl::Seconds(10), 256, 1 * kMiB},
                  {6, absl::Seconds(10), absl::Seconds(70), 1024, 4 * kMiB},
                  {5, absl::Seconds(70), absl::InfiniteDuration(), 1, 4096}};
  picture.never_young_bytes = 1 * kMiB;
  picture.windows = {{absl::Seconds(10), 1 * kMiB, true},
                     {absl::Hours(1), 5 * kMiB, false}};
  picture.coverage = {"shadow skipped"};
  const HeatCell hot = Aged(absl::ZeroDuration());
  const HeatCell warm = Aged(absl::Seconds(10));
  const HeatCell cold = Aged(absl::Seconds(70));
  picture.heat = {
      {0, 0, 6 * kMiB, kMiB, {hot, hot, warm, cold, kNeverYoung, kAbsent}},
      {1, 256 * kMiB, 2 * kMiB, kMiB, {kAbsent, warm}}};
  return picture;
}

TEST(TerminalViewTest, HotMemoryHasHeavyCharacters) {
  EXPECT_EQ(ViewInTerminal(SmallPicture(), {.cells_per_line = 4}),
            R"(VM:         alpha
observed:   2026-11-21 08:24:37 UTC
staleness:  2s since the last ageing pass
memory:     8 MiB, 6 MiB of it mapped and tracked
coverage:   shadow skipped

WINDOW  WORKING SET  SHARE
   10s        1 MiB  16.7%
    1h        5 MiB  83.3%  at most: tracked for less time

GENERATION          AGE   SIZE  SHARE
         7     0s - 10s  1 MiB  16.7%  @@@@@@@@
         6  10s - 1m10s  4 MiB  66.6%  ******************************
         5   over 1m10s  4 KiB   0.1%  :
         -  never young  1 MiB  16.7%  ........

The age of the youngest page of each stretch of guest memory:
@ under 10s   * 10s to 1m   : 1m and more   . never young
(blank) not mapped or not tracked

slot 0: 0, 6 MiB, 1 MiB per character
       0 |@@*:|
0x400000 |. |

slot 1: 0x10000000, 2 MiB, 1 MiB per character
0x10000000 | *|
)");
}

TEST(TerminalViewTest, ColoursTakeThePlaceOfCharacters) {
  std::string text =
      ViewInTerminal(SmallPicture(), {.colour = TextColour::k256});
  for (size_t at = 0; (at = text.find('\x1b', at)) != text.npos;) {
    text.replace(at, 1, "ESC");
  }
  EXPECT_EQ(text, R"(VM:         alpha
observed:   2026-11-21 08:24:37 UTC
staleness:  2s since the last ageing pass
memory:     8 MiB, 6 MiB of it mapped and tracked
coverage:   shadow skipped

WINDOW  WORKING SET  SHARE
   10s        1 MiB  16.7%
    1h        5 MiB  83.3%  at most: tracked for less time

GENERATION          AGE   SIZE  SHARE
         7     0s - 10s  1 MiB  16.7%  ESC[48;5;229m        ESC[0m
         6  10s - 1m10s  4 MiB  66.6%  ESC[48;5;167m                              ESC[0m
         5   over 1m10s  4 KiB   0.1%  ESC[48;5;60m ESC[0m
         -  never young  1 MiB  16.7%  ESC[48;5;237m        ESC[0m

The age of the youngest page of each stretch of guest memory:
ESC[48;5;229m ESC[0m under 10s   ESC[48;5;167m ESC[0m 10s to 1m   ESC[48;5;60m ESC[0m 1m and more   ESC[48;5;237m ESC[0m never young
(blank) not mapped or not tracked

slot 0: 0, 6 MiB, 1 MiB per character
       0 |ESC[48;5;229m  ESC[48;5;167m ESC[48;5;60m ESC[48;5;237m ESC[0m |

slot 1: 0x10000000, 2 MiB, 1 MiB per character
0x10000000 | ESC[48;5;167m ESC[0m|
)");
}

TEST(TerminalViewTest, ALineHas64CellsUnlessToldOtherwise) {
  WorkingSetPicture picture;
  picture.heat = {{0, 0, 100 * 4096, 4096, std::vector<HeatCell>(100)}};
  const std::string text = ViewInTerminal(picture);
  EXPECT_NE(text.find("\n      0 |" + std::string(64, ' ') + "|\n0x40000 |" +
                      std::string(36, ' ') + "|\n"),
            text.npos)
      << text;
}

TEST(TerminalViewTest, AVmOfWhichNothingIsKnownHasAPicture) {
  EXPECT_EQ(ViewInTerminal(WorkingSetPicture()), R"(VM:
observed:   1970-01-01 00:00:00 UTC
staleness:  0s since the last ageing pass
memory:     0 B, 0 B of it mapped and tracked

no windows

GENERATION          AGE  SIZE  SHARE
         -  never young   0 B   0.0%
)");
}

TEST(TerminalViewTest, NamesCannotChangeTheTerminal) {
  WorkingSetPicture picture;
  picture.vm = "a\x1b[31m\xc3\xa9";
  picture.coverage = {"b\rc"};
  const std::string text = ViewInTerminal(picture);
  EXPECT_NE(text.find(" a?[31m??\n"), text.npos) << text;
  EXPECT_NE(text.find(" b?c\n"), text.npos) << text;
}

}  // namespace
}  // namespace mmud::client
