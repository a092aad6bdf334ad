// Log lines that clients cause, limited in number by log_limiter.h.

#ifndef SERVER_LOG_LIMITED_LOG_H_
#define SERVER_LOG_LIMITED_LOG_H_

#include <cstdint>
#include <functional>
#include <utility>

#include "absl/strings/string_view.h"
#include "mmu_core/base/clock.h"
#include "server/log/log_limiter.h"
#include "server/log/logging.h"

namespace mmud {

// For every line that a client can trigger at will: calls, ends of operations,
// connections. Reports the number of lines that were cut. Thread-safe.
class LimitedLog {
 public:
  using Sink = std::function<void(LogLevel, absl::string_view message,
                                  const LogFields& fields)>;

  // `clock` outlives this.
  explicit LimitedLog(Sink sink = Log, const LogLimiter::Limits& limits = {},
                      const mmu::Clock& clock = mmu::Clock::Real())
      : sink_(std::move(sink)), limiter_(limits, clock) {}

  // Writes the line unless too many lines of `key`, or in total, were written
  // lately. `key` names the client and the kind of line.
  void Write(absl::string_view key, LogLevel level, absl::string_view message,
             const LogFields& fields);

  // Reports the lines cut since the last report, if that is a second ago.
  void SayDropped();
  // Reports them however recent the last report is; used at the daemon's end.
  void ReportDropped();
  // Number of lines that were cut.
  uint64_t dropped() const { return limiter_.dropped(); }

 private:
  void Say(uint64_t dropped);

  const Sink sink_;
  LogLimiter limiter_;
};

}  // namespace mmud

#endif  // SERVER_LOG_LIMITED_LOG_H_
