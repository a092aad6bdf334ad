#include "client/text/progress.h"

#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <functional>
#include <optional>
#include <ostream>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"

namespace mmud::client {
namespace {

constexpr int kBarWidth = 30;
constexpr absl::Duration kBarInterval = absl::Milliseconds(100);
constexpr absl::Duration kLineInterval = absl::Seconds(2);

}  // namespace

ProgressStyle StyleFor(int fd) {
  return isatty(fd) != 0 ? ProgressStyle::kBar : ProgressStyle::kLines;
}

Progress::Progress(std::ostream* out, ProgressStyle style, std::string title,
                   std::function<absl::Time()> now)
    : out_(out),
      style_(style),
      title_(std::move(title)),
      now_(std::move(now)) {}

Progress::~Progress() {
  if (open_) *out_ << "\n" << std::flush;
}

void Progress::Update(std::optional<double> share, const std::string& words) {
  const absl::Duration interval =
      style_ == ProgressStyle::kBar ? kBarInterval : kLineInterval;
  const absl::Time now = now_();
  if (now - last_ < interval) return;
  last_ = now;
  Draw(share, words);
}

void Progress::Finish(const std::string& words, std::optional<double> share) {
  Draw(share, words);
  if (open_) *out_ << "\n" << std::flush;
  open_ = false;
}

void Progress::Draw(std::optional<double> share, const std::string& words) {
  if (style_ == ProgressStyle::kQuiet) return;
  if (share) share = std::clamp(*share, 0.0, 1.0);
  std::string line = title_;
  if (style_ == ProgressStyle::kBar && share) {
    const int full = static_cast<int>(*share * kBarWidth);
    absl::StrAppend(&line, " [", std::string(full, '#'),
                    std::string(kBarWidth - full, '.'), "]");
  }
  if (share) absl::StrAppendFormat(&line, " %3.0f%%", *share * 100);
  if (!words.empty()) absl::StrAppend(&line, "  ", words);
  if (style_ == ProgressStyle::kLines) {
    *out_ << line << "\n" << std::flush;
    return;
  }
  // Blanks over what the longer line before left on the screen.
  const size_t old = width_;
  width_ = line.size();
  if (old > width_) line.append(old - width_, ' ');
  *out_ << "\r" << line << std::flush;
  open_ = true;
}

}  // namespace mmud::client
