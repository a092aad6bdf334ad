#include "client/text/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <optional>
#include <ostream>
#include <string>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "mmu_core/base/clock.h"

namespace mmud::client {
namespace {

constexpr int kBarWidth = 30;
constexpr int kMinBarWidth = 8;
constexpr int kMinScreenWidth = 20;
constexpr int kUsualScreenWidth = 80;
constexpr absl::Duration kBarInterval = absl::Milliseconds(100);
constexpr absl::Duration kLineInterval = absl::Seconds(2);

// The columns of UTF-8 text, which can have more bytes than columns.
int Width(const std::string& text) {
  return static_cast<int>(std::count_if(
      text.begin(), text.end(), [](char c) { return (c & '\xc0') != '\x80'; }));
}

// The first `columns` columns of `text`; dots replace the rest.
std::string Cut(const std::string& text, int columns) {
  if (Width(text) <= columns) return text;
  std::string cut;
  int width = 0;
  for (const char c : text) {
    const bool begins = (c & '\xc0') != '\x80';
    if (begins && ++width > columns - 3) break;
    cut += c;
  }
  return cut + "...";
}

}  // namespace

ProgressStyle StyleFor(int fd) {
  return isatty(fd) != 0 ? ProgressStyle::kBar : ProgressStyle::kLines;
}

int TerminalWidth() {
  winsize size = {};
  if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) {
    return size.ws_col;
  }
  int columns = 0;
  const char* environment = std::getenv("COLUMNS");
  if (environment != nullptr && absl::SimpleAtoi(environment, &columns) &&
      columns > 0) {
    return columns;
  }
  return kUsualScreenWidth;
}

Progress::Progress(std::ostream* out, ProgressStyle style, std::string title,
                   std::function<mmu::MonotonicTime()> now,
                   std::function<int()> width)
    : out_(out),
      style_(style),
      title_(std::move(title)),
      now_(std::move(now)),
      screen_width_(std::move(width)) {}

Progress::~Progress() {
  if (open_) *out_ << "\n" << std::flush;
}

void Progress::Update(std::optional<double> share, const std::string& words) {
  const absl::Duration interval =
      style_ == ProgressStyle::kBar ? kBarInterval : kLineInterval;
  const mmu::MonotonicTime now = now_();
  if (now - last_ < interval) return;
  last_ = now;
  Draw(share, words);
}

void Progress::Finish(const std::string& words, std::optional<double> share) {
  Draw(share, words);
  if (open_) *out_ << "\n" << std::flush;
  open_ = false;
}

std::string Progress::BarLine(std::optional<double> share,
                              const std::string& words) const {
  // One column stays free: a terminal may move on to the next line as soon as
  // the last one is written.
  const int columns = std::max(screen_width_(), kMinScreenWidth) - 1;
  std::string percent;
  std::string end;
  int bar = 0;
  if (share) {
    percent = absl::StrFormat(" %3.0f%%", *share * 100);
    // The room for the bar and the words, beside the title, a blank, two
    // brackets and the percentage.
    const int room = columns - Width(title_) - 3 - Width(percent);
    bar = std::min(kBarWidth, room);
    // The words have priority over the bar's length, down to the minimum length
    // of a bar.
    if (!words.empty()) {
      bar =
          std::clamp(room - 2 - Width(words), std::min(kMinBarWidth, bar), bar);
    }
  }
  if (!words.empty()) end = absl::StrCat("  ", words);
  std::string line = title_;
  if (bar > 0) {
    const int full = static_cast<int>(*share * bar);
    absl::StrAppend(&line, " [", std::string(full, '#'),
                    std::string(bar - full, '.'), "]");
  }
  return Cut(absl::StrCat(line, percent, end), columns);
}

void Progress::Draw(std::optional<double> share, const std::string& words) {
  if (style_ == ProgressStyle::kQuiet) return;
  if (share) share = std::clamp(*share, 0.0, 1.0);
  if (style_ == ProgressStyle::kLines) {
    *out_ << title_;
    if (share) *out_ << absl::StrFormat(" %3.0f%%", *share * 100);
    if (!words.empty()) *out_ << "  " << words;
    *out_ << "\n" << std::flush;
    return;
  }
  std::string line = BarLine(share, words);
  // Overwrite the end of a longer line before with blanks, but not beyond the
  // screen, which may have become narrower.
  const int old = std::min(width_, screen_width_() - 1);
  width_ = Width(line);
  if (old > width_) line.append(static_cast<size_t>(old - width_), ' ');
  *out_ << "\r" << line << std::flush;
  open_ = true;
}

}  // namespace mmud::client
