#include "client/top/marks.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/top/model.h"

namespace mmud::client {
namespace {

// From nothing to the full height.
constexpr const char* kBlocks[] = {" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
constexpr const char* kAsciiBlocks[] = {" ", "_", ".", "-", "~",
                                        "=", "+", "*", "#"};
constexpr int kSteps = 8;

}  // namespace

std::string Sparkline(const History& history, int width, Charset charset) {
  const size_t shown =
      std::min(history.size(), static_cast<size_t>(std::max(width, 0)));
  const auto begin =
      history.end() - static_cast<History::difference_type>(shown);
  double largest = 0;
  for (auto value = begin; value != history.end(); ++value) {
    largest = std::max(largest, *value);
  }
  std::string line(static_cast<size_t>(width) - shown, ' ');
  for (auto value = begin; value != history.end(); ++value) {
    // Everything above zero is visible.
    const int step = *value <= 0 ? 0
                                 : std::clamp(static_cast<int>(std::lround(
                                                  *value / largest * kSteps)),
                                              1, kSteps);
    line += charset == Charset::kUtf8 ? kBlocks[step] : kAsciiBlocks[step];
  }
  return line;
}

std::string Bar(double share, int width) {
  const int inside = width - 2;
  const int full = std::clamp(static_cast<int>(share * inside), 0, inside);
  return absl::StrCat("[", std::string(static_cast<size_t>(full), '#'),
                      std::string(static_cast<size_t>(inside - full), '-'),
                      "]");
}

std::string CompactNumber(double value) {
  if (value < 0.005) return "0";
  if (value < 0.995) return absl::StrFormat("%.2f", value);
  if (value < 9.95) return absl::StrFormat("%.1f", value);
  if (value < 9999.5) return absl::StrFormat("%.0f", value);
  const char* unit = "";
  for (const char* larger : {"k", "M", "G", "T"}) {
    if (value < 999.5) break;
    value /= 1000;
    unit = larger;
  }
  const int decimals = value < 9.995 ? 2 : value < 99.95 ? 1 : 0;
  return absl::StrFormat("%.*f%s", decimals, value, unit);
}

std::string CompactShare(double share) {
  const double percent = 100 * share;
  if (percent < 0.005) return "0%";
  const int decimals = percent < 0.995 ? 2 : percent < 9.95 ? 1 : 0;
  return absl::StrFormat("%.*f%%", decimals, percent);
}

}  // namespace mmud::client
