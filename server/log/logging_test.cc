#include "server/log/logging.h"

#include <string>

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "server/base/wall_time.h"

namespace mmud {
namespace {

TEST(Logging, TextLinesQuoteWhatNeedsIt) {
  EXPECT_EQ(FormatLogLine(LogFormat::kText, WallTime::FromUnixNanos(0),
                          LogLevel::kInfo, "ready",
                          {{"port", "42"}, {"path", "a b"}, {"empty", ""}}),
            "1970-01-01T00:00:00.000000Z info ready port=42 path=\"a b\" "
            "empty=\"\"");
}

TEST(Logging, JsonLinesAreOneObjectEach) {
  const std::string line =
      FormatLogLine(LogFormat::kJson, WallTime::FromUnixNanos(0),
                    LogLevel::kError, "bad \"thing\"\n", {{"bytes", "\xff"}});
  EXPECT_EQ(line.find('\n'), std::string::npos);
  const auto json = nlohmann::json::parse(line);
  EXPECT_EQ(json["level"], "error");
  EXPECT_EQ(json["message"], "bad \"thing\"\n");
  EXPECT_EQ(json["time"], "1970-01-01T00:00:00.000000Z");
}

TEST(Logging, CountsOnlyTheLinesThatAreWritten) {
  ConfigureLogging("text", "warning");
  const auto before = LogMessageCounts();
  Log(LogLevel::kInfo, "not written");
  Log(LogLevel::kWarning, "written {}");
  const auto after = LogMessageCounts();
  EXPECT_EQ(after[1], before[1]);
  EXPECT_EQ(after[2], before[2] + 1);
}

}  // namespace
}  // namespace mmud
