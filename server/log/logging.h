// Log lines on stderr, as text or as JSON, one per event.

#ifndef SERVER_LOG_LOGGING_H_
#define SERVER_LOG_LOGGING_H_

#include <array>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "server/base/wall_time.h"

namespace mmud {

enum class LogLevel : uint8_t { kDebug, kInfo, kWarning, kError };
inline constexpr int kLogLevels = 4;
enum class LogFormat : uint8_t { kText, kJson };

// "debug", "info", "warning", "error".
const char* LogLevelName(LogLevel level);

// Facts beside the message, written in this order.
using LogFields = std::vector<std::pair<std::string, std::string>>;

// Sets format and level by the names in the options. Without this call: text
// from level info on. Called before other threads log. REQUIRES: the names are
// valid.
void ConfigureLogging(absl::string_view format, absl::string_view level);

// Whether lines of this level are written. Thread-safe.
bool LogsLevel(LogLevel level);

// Writes one line. Thread-safe.
void Log(LogLevel level, absl::string_view message,
         const LogFields& fields = {});

// Lines written, by level. Thread-safe.
std::array<uint64_t, kLogLevels> LogMessageCounts();

// One line without its line break, as Log writes it.
std::string FormatLogLine(LogFormat format, WallTime time, LogLevel level,
                          absl::string_view message, const LogFields& fields);

}  // namespace mmud

#endif  // SERVER_LOG_LOGGING_H_
