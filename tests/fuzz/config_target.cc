// The configuration file, and the texts of the flags that set the same options.

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "server/config/config.h"
#include "server/config/config_loader.h"
#include "server/config/config_options.h"
#include "server/config/option_flag.h"
#include "tests/fuzz/target.h"

namespace mmud::fuzz {
namespace {

constexpr char kSource[] = "mmud.json";

std::string Show(const Config& config) {
  std::string shown;
  for (const ConfigOption& option : ConfigOptions()) {
    absl::StrAppend(&shown, option.name, "=", ShowOption(option, config), "\n");
  }
  return shown;
}

void RunFile(absl::string_view text) {
  Config config;
  const absl::Status status = ApplyJson(text, kSource, &config);
  if (!status.ok()) {
    FUZZ_CHECK(absl::IsInvalidArgument(status) &&
                   absl::StrContains(status.message(), kSource),
               status);
    return;
  }
  // A file applied again changes nothing more.
  Config again = config;
  FUZZ_CHECK(ApplyJson(text, kSource, &again).ok(), text);
  FUZZ_CHECK(Show(again) == Show(config), text);
  // What it set is allowed: each option takes its own value.
  for (const ConfigOption& option : ConfigOptions()) {
    Config copy = config;
    const absl::Status set = std::visit(
        [&](auto member) { return SetOption(option, config.*member, &copy); },
        option.member);
    const std::string before = ShowOption(option, Config());
    FUZZ_CHECK(set.ok() || ShowOption(option, config) == before, set);
  }
}

template <typename T>
void RunFlag(absl::string_view text) {
  OptionFlag<T> flag;
  std::string error;
  if (!AbslParseFlag(text, &flag, &error)) return;
  FUZZ_CHECK(flag.is_given, text);
  const std::string shown = AbslUnparseFlag(flag);
  OptionFlag<T> again;
  FUZZ_CHECK(AbslParseFlag(shown, &again, &error), shown << ": " << error);
  FUZZ_CHECK(AbslUnparseFlag(again) == shown, shown);
}

void Run(std::string_view input) {
  const absl::string_view text(input.data(), input.size());
  RunFile(text);
  RunFlag<std::string>(text);
  RunFlag<int64_t>(text);
  RunFlag<bool>(text);
  RunFlag<absl::Duration>(text);
}

std::vector<Seed> Seeds() {
  return {
      {"limits",
       R"({"max_vms": 8, "max_guest_memory_bytes": 1073741824, "max_streams": 4})"},
      {"listen",
       R"({"listen": "unix:/run/mmud/mmud.sock", "listen_tcp": "127.0.0.1:0",
  "metrics_address": "[::1]:9464", "allow_remote_plaintext": false})"},
      {"times", R"({"drain_timeout": "1m30s", "min_drain": "0.5s"})"},
      {"choices",
       R"({"log_format": "json", "log_level": "debug", "nx_huge_pages": "off",
  "nx_huge_pages_recovery_period": "10m"})"},
      {"flag_number", "4096"},
      {"flag_duration", "2.5s"},
      {"flag_bool", "true"},
      {"flag_empty", "\"\""}};
}

}  // namespace

Target ThisTarget() { return {.run = Run, .seeds = Seeds}; }

}  // namespace mmud::fuzz
