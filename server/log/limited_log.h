// Lines about what clients cause, as many as log_limiter.h lets through.

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

// Whatever a client can have written by doing something often goes through
// here: calls, ends of operations, connections. Says what was cut. Thread-safe.
class LimitedLog {
 public:
  using Sink = std::function<void(LogLevel, absl::string_view message,
                                  const LogFields& fields)>;

  // `clock` outlives this.
  explicit LimitedLog(Sink sink = Log, const LogLimiter::Limits& limits = {},
                      const mmu::Clock& clock = mmu::Clock::Real())
      : sink_(std::move(sink)), limiter_(limits, clock) {}

  // Writes the line unless too many of `key`, or in all, were written lately.
  // `key`: who causes it and of what kind it is.
  void Write(absl::string_view key, LogLevel level, absl::string_view message,
             const LogFields& fields);

  // Says what was cut since it was said last, if that is a second ago.
  void SayDropped();
  // The same however long that is ago: the last words of a daemon.
  void ReportDropped();
  // Lines that were cut.
  uint64_t dropped() const { return limiter_.dropped(); }

 private:
  void Say(uint64_t dropped);

  const Sink sink_;
  LogLimiter limiter_;
};

}  // namespace mmud

#endif  // SERVER_LOG_LIMITED_LOG_H_
