// The options of the daemon: how the value of each is checked and stored.

#ifndef SERVER_CONFIG_CONFIG_OPTIONS_H_
#define SERVER_CONFIG_CONFIG_OPTIONS_H_

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/config/config.h"

namespace mmud {

// A value. `member` also decides the type: a string, a number, a duration
// written as in "10s", or true and false.
struct ConfigOption {
  using Member = std::variant<std::string Config::*, int64_t Config::*,
                              bool Config::*, absl::Duration Config::*>;

  const char* name;
  Member member;
  // For numbers: the smallest and the largest value.
  int64_t min = 0;
  int64_t max = INT64_MAX;
  // For strings: the allowed values; empty for any.
  std::vector<std::string> choices = {};
};

const std::vector<ConfigOption>& ConfigOptions();

// The option's value in `config`, written as on the command line.
std::string ShowOption(const ConfigOption& option, const Config& config);

// Sets one option. INVALID_ARGUMENT naming option, value and rule.
absl::Status SetOption(const ConfigOption& option, std::string value,
                       Config* config);
absl::Status SetOption(const ConfigOption& option, int64_t value,
                       Config* config);
absl::Status SetOption(const ConfigOption& option, bool value, Config* config);
absl::Status SetOption(const ConfigOption& option, absl::Duration value,
                       Config* config);

}  // namespace mmud

#endif  // SERVER_CONFIG_CONFIG_OPTIONS_H_
