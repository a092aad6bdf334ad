// Shows the progress of long work: on a terminal as a bar that is redrawn,
// otherwise as a line now and then.

#ifndef CLIENT_TEXT_PROGRESS_H_
#define CLIENT_TEXT_PROGRESS_H_

#include <functional>
#include <iosfwd>
#include <optional>
#include <string>

#include "mmu_core/base/clock.h"

namespace mmud::client {

enum class ProgressStyle { kBar, kLines, kQuiet };

// kBar if `fd` is a terminal, else kLines.
ProgressStyle StyleFor(int fd);

// Columns of the terminal of standard error: as the terminal reports, otherwise
// $COLUMNS, otherwise 80. The number may change from one call to the next.
int TerminalWidth();

// Thread-compatible.
class Progress {
 public:
  // `title` is printed before the bar. `out` must outlive this object. `width`
  // returns the columns of the screen; it is called for each drawing of the
  // bar.
  Progress(std::ostream* out, ProgressStyle style, std::string title,
           std::function<mmu::MonotonicTime()> now = mmu::MonotonicTime::Now,
           std::function<int()> width = TerminalWidth);
  // Ends the line of a bar that was not finished.
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // Shows the share done, 0 to 1, or nothing if it is unknown, and a few words.
  // A bar is drawn at most ten times a second; a line is written at most every
  // two seconds. A bar's line is never wider than the screen, since each
  // drawing would then begin a new line: the bar gets shorter, then the words
  // are cut.
  void Update(std::optional<double> share, const std::string& words);

  // Shows the final state; `share` is less than 1 if the work ended early.
  void Finish(const std::string& words, std::optional<double> share = 1.0);

 private:
  void Draw(std::optional<double> share, const std::string& words);
  std::string BarLine(std::optional<double> share,
                      const std::string& words) const;

  std::ostream* const out_;
  const ProgressStyle style_;
  const std::string title_;
  const std::function<mmu::MonotonicTime()> now_;
  const std::function<int()> screen_width_;
  mmu::MonotonicTime last_ = mmu::MonotonicTime::InfinitePast();
  int width_ = 0;  // of the bar's line on the screen
  bool open_ = false;
};

}  // namespace mmud::client

#endif  // CLIENT_TEXT_PROGRESS_H_
