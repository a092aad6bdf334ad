#include "server/log/limited_log.h"

#include <cstdint>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "server/log/logging.h"

namespace mmud {

void LimitedLog::Write(absl::string_view key, LogLevel level,
                       absl::string_view message, const LogFields& fields) {
  if (!LogsLevel(level) || !limiter_.Admit(key)) return;
  sink_(level, message, fields);
}

void LimitedLog::SayDropped() { Say(limiter_.TakeDropped()); }

void LimitedLog::ReportDropped() { Say(limiter_.TakeDroppedNow()); }

void LimitedLog::Say(uint64_t dropped) {
  if (dropped == 0) return;
  sink_(LogLevel::kWarning, "there were too many lines about clients",
        {{"dropped", absl::StrCat(dropped)}});
}

}  // namespace mmud
