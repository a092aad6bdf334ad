#include "server/config/config_options.h"

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "server/base/errors.h"
#include "server/config/config.h"

namespace mmud {
namespace {

constexpr int64_t kMaxDurationSeconds = 24 * 3600;

absl::Status Bad(const ConfigOption& option, absl::string_view value,
                 absl::string_view rule) {
  return absl::InvalidArgumentError(
      absl::StrCat(option.name, " is ", value, "; it must be ", rule));
}

template <typename T>
absl::Status Assign(const ConfigOption& option, T value,
                    absl::string_view shown, Config* config) {
  if (auto* member = std::get_if<T Config::*>(&option.member)) {
    config->*(*member) = std::move(value);
    return absl::OkStatus();
  }
  struct TypeName {
    const char* operator()(std::string Config::*) { return "a string"; }
    const char* operator()(int64_t Config::*) { return "a whole number"; }
    const char* operator()(bool Config::*) { return "true or false"; }
    const char* operator()(absl::Duration Config::*) {
      return "a duration such as \"10s\" or \"1m30s\"";
    }
  };
  return Bad(option, shown, std::visit(TypeName(), option.member));
}

}  // namespace

const std::vector<ConfigOption>& ConfigOptions() {
  static const auto* const kOptions = new std::vector<ConfigOption>{
      {"listen", &Config::listen},
      {"listen_tcp", &Config::listen_tcp},
      {"allow_remote_plaintext", &Config::allow_remote_plaintext},
      {"port_file", &Config::port_file},
      {"metrics_address", &Config::metrics_address},
      {"trace_dir", &Config::trace_dir},
      {"max_vms", &Config::max_vms, 1, 10'000},
      {"max_guest_memory_bytes", &Config::max_guest_memory_bytes},
      {"max_page_tables", &Config::max_page_tables},
      {"max_operations", &Config::max_operations, 1, 10'000},
      {"metrics_max_vms", &Config::metrics_max_vms, 0, 10'000},
      {"max_connections", &Config::max_connections, 1, 1'000'000},
      {"max_rpc_threads", &Config::max_rpc_threads, 1, 1024},
      {"max_short_calls", &Config::max_short_calls, 1, 100'000},
      {"max_long_calls", &Config::max_long_calls, 1, 10'000},
      {"max_long_calls_per_vm", &Config::max_long_calls_per_vm, 1, 10'000},
      {"max_streams", &Config::max_streams, 1, 10'000},
      {"max_streams_per_vm", &Config::max_streams_per_vm, 1, 10'000},
      {"max_waits", &Config::max_waits, 1, 100'000},
      {"max_reflections", &Config::max_reflections, 1, 10'000},
      {"drain_timeout", &Config::drain_timeout},
      {"min_drain", &Config::min_drain},
      {"enable_debug_service", &Config::enable_debug_service},
      {"nx_huge_pages",
       &Config::nx_huge_pages,
       0,
       0,
       {"auto", "force", "off", "never"}},
      {"nx_huge_pages_recovery_ratio", &Config::nx_huge_pages_recovery_ratio, 0,
       UINT32_MAX},
      {"nx_huge_pages_recovery_period", &Config::nx_huge_pages_recovery_period},
      {"allow_nx_huge_pages_opt_out", &Config::allow_nx_huge_pages_opt_out},
      {"log_format", &Config::log_format, 0, 0, {"text", "json"}},
      {"log_level",
       &Config::log_level,
       0,
       0,
       {"debug", "info", "warning", "error"}},
  };
  return *kOptions;
}

std::string ShowOption(const ConfigOption& option, const Config& config) {
  struct Show {
    const Config& config;
    std::string operator()(std::string Config::*member) const {
      return config.*member;
    }
    std::string operator()(int64_t Config::*member) const {
      return absl::StrCat(config.*member);
    }
    std::string operator()(bool Config::*member) const {
      return config.*member ? "true" : "false";
    }
    std::string operator()(absl::Duration Config::*member) const {
      return absl::FormatDuration(config.*member);
    }
  };
  return std::visit(Show{config}, option.member);
}

absl::Status SetOption(const ConfigOption& option, std::string value,
                       Config* config) {
  const std::string shown = Quote(value);
  if (std::holds_alternative<absl::Duration Config::*>(option.member)) {
    absl::Duration duration;
    if (absl::ParseDuration(value, &duration)) {
      return SetOption(option, duration, config);
    }
  }
  if (!option.choices.empty() &&
      std::find(option.choices.begin(), option.choices.end(), value) ==
          option.choices.end()) {
    return Bad(option, shown,
               absl::StrCat("one of ", absl::StrJoin(option.choices, ", ")));
  }
  return Assign(option, std::move(value), shown, config);
}

absl::Status SetOption(const ConfigOption& option, int64_t value,
                       Config* config) {
  if (std::holds_alternative<int64_t Config::*>(option.member) &&
      (value < option.min || value > option.max)) {
    return Bad(option, absl::StrCat(value),
               absl::StrCat("from ", option.min, " to ", option.max));
  }
  return Assign(option, value, absl::StrCat(value), config);
}

absl::Status SetOption(const ConfigOption& option, bool value, Config* config) {
  return Assign(option, value, value ? "true" : "false", config);
}

absl::Status SetOption(const ConfigOption& option, absl::Duration value,
                       Config* config) {
  if (value < absl::ZeroDuration() ||
      value > absl::Seconds(kMaxDurationSeconds)) {
    return Bad(option, absl::FormatDuration(value), "from 0 to 24h");
  }
  return Assign(option, value, absl::FormatDuration(value), config);
}

}  // namespace mmud
