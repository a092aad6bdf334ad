// The type of the flags that set options.

#ifndef SERVER_CONFIG_OPTION_FLAG_H_
#define SERVER_CONFIG_OPTION_FLAG_H_

#include <string>
#include <type_traits>
#include <utility>

#include "absl/flags/marshalling.h"
#include "absl/strings/string_view.h"
#include "server/config/config.h"

namespace mmud {

// A value, and whether the command line gave it. A flag that is given wins over
// the configuration file, even with the default as its value. --help shows the
// default from Config. An empty string is written as "".
template <typename T>
struct OptionFlag {
  OptionFlag() = default;
  // A value that was given, for absl::SetFlag.
  explicit OptionFlag(T given) : value(std::move(given)), is_given(true) {}
  // A value that was not given: the default.
  explicit OptionFlag(T Config::*member) : value(Config().*member) {}

  T value = {};
  bool is_given = false;
};

template <typename T>
OptionFlag(T Config::*) -> OptionFlag<T>;

// Called by Abseil.
template <typename T>
bool AbslParseFlag(absl::string_view text, OptionFlag<T>* flag,
                   std::string* error) {
  flag->is_given = true;
  if (std::is_same_v<T, std::string> && text == "\"\"") text = "";
  return absl::ParseFlag(text, &flag->value, error);
}
template <typename T>
std::string AbslUnparseFlag(const OptionFlag<T>& flag) {
  const std::string text = absl::UnparseFlag<T>(flag.value);
  return text.empty() ? "\"\"" : text;
}

}  // namespace mmud

#endif  // SERVER_CONFIG_OPTION_FLAG_H_
