#include "server/log/logging.h"

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "nlohmann/json.hpp"
#include "server/base/wall_time.h"
#include "spdlog/sinks/stdout_sinks.h"
#include "spdlog/spdlog.h"

namespace mmud {
namespace {

constexpr std::array<const char*, kLogLevels> kNames = {"debug", "info",
                                                        "warning", "error"};

// Set before other threads log.
LogFormat g_format = LogFormat::kText;
LogLevel g_least = LogLevel::kInfo;
// Relaxed: independent counters.
std::array<std::atomic<uint64_t>, kLogLevels> g_counts{};

// Writes each line as a whole.
spdlog::logger& Logger() {
  static spdlog::logger* const logger = [] {
    auto* made = new spdlog::logger(
        "mmud", std::make_shared<spdlog::sinks::stderr_sink_mt>());
    made->set_pattern("%v");
    made->set_level(spdlog::level::trace);
    made->flush_on(spdlog::level::trace);
    return made;
  }();
  return *logger;
}

std::string Rfc3339(WallTime time) {
  return absl::FormatTime("%Y-%m-%d%ET%H:%M:%E6SZ",
                          absl::FromUnixNanos(time.unix_nanos()),
                          absl::UTCTimeZone());
}

bool NeedsQuotes(absl::string_view value) {
  if (value.empty()) return true;
  for (char c : value) {
    if (!absl::ascii_isgraph(static_cast<unsigned char>(c)) || c == '"' ||
        c == '=') {
      return true;
    }
  }
  return false;
}

}  // namespace

const char* LogLevelName(LogLevel level) {
  return kNames[static_cast<int>(level)];
}

void ConfigureLogging(absl::string_view format, absl::string_view level) {
  g_format = format == "json" ? LogFormat::kJson : LogFormat::kText;
  for (int i = 0; i < kLogLevels; ++i) {
    if (level == kNames[i]) g_least = static_cast<LogLevel>(i);
  }
}

bool LogsLevel(LogLevel level) { return level >= g_least; }

void Log(LogLevel level, absl::string_view message, const LogFields& fields) {
  if (!LogsLevel(level)) return;
  g_counts[static_cast<int>(level)].fetch_add(1, std::memory_order_relaxed);
  const std::string line =
      FormatLogLine(g_format, WallTime::Now(), level, message, fields);
  Logger().info(spdlog::string_view_t(line.data(), line.size()));
}

std::array<uint64_t, kLogLevels> LogMessageCounts() {
  std::array<uint64_t, kLogLevels> counts{};
  for (int i = 0; i < kLogLevels; ++i) {
    counts[i] = g_counts[i].load(std::memory_order_relaxed);
  }
  return counts;
}

std::string FormatLogLine(LogFormat format, WallTime time, LogLevel level,
                          absl::string_view message, const LogFields& fields) {
  if (format == LogFormat::kJson) {
    nlohmann::ordered_json line;
    line["time"] = Rfc3339(time);
    line["level"] = LogLevelName(level);
    line["message"] = std::string(message);
    for (const auto& [key, value] : fields) line[key] = value;
    return line.dump(-1, ' ', false,
                     nlohmann::ordered_json::error_handler_t::replace);
  }
  std::string line = absl::StrCat(Rfc3339(time), " ", LogLevelName(level), " ",
                                  absl::CHexEscape(message));
  for (const auto& [key, value] : fields) {
    if (NeedsQuotes(value)) {
      absl::StrAppend(&line, " ", key, "=\"", absl::CHexEscape(value), "\"");
    } else {
      absl::StrAppend(&line, " ", key, "=", value);
    }
  }
  return line;
}

}  // namespace mmud
