#include "server/config/config_loader.h"

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <system_error>

#include "absl/flags/flag.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "mmu_core/base/check.h"
#include "nlohmann/json.hpp"
#include "proto/mmud/v1/default_address.h"
#include "server/base/errors.h"
#include "server/config/config.h"
#include "server/config/config_options.h"
#include "server/config/flags.h"

namespace mmud {
namespace {

const ConfigOption* FindOption(const std::string& name) {
  for (const ConfigOption& option : ConfigOptions()) {
    if (option.name == name) return &option;
  }
  return nullptr;
}

std::string KnownKeys() {
  return absl::StrJoin(ConfigOptions(), ", ",
                       [](std::string* out, const ConfigOption& option) {
                         absl::StrAppend(out, option.name);
                       });
}

absl::Status ApplyValue(const ConfigOption& option, const nlohmann::json& value,
                        Config* config) {
  if (value.is_boolean()) return SetOption(option, value.get<bool>(), config);
  if (value.is_number_unsigned() &&
      value.get<uint64_t>() > uint64_t{INT64_MAX}) {
    return absl::InvalidArgumentError(absl::StrCat(
        option.name, " is ", value.dump(), "; it must be at most ", INT64_MAX));
  }
  if (value.is_number_integer()) {
    return SetOption(option, value.get<int64_t>(), config);
  }
  if (value.is_string()) {
    return SetOption(option, value.get<std::string>(), config);
  }
  return absl::InvalidArgumentError(
      absl::StrCat(option.name, " is ", Quote(value.dump()),
                   "; it must be a string, a whole number, or true or false"));
}

template <typename Flag>
absl::Status ApplyFlag(const char* name, const Flag& flag, Config* config) {
  const auto value = absl::GetFlag(flag);
  if (!value.is_given) return absl::OkStatus();
  return SetOption(*FindOption(name), value.value, config);
}

bool IsUnixAddress(absl::string_view address) {
  return absl::StartsWith(address, "unix:/");
}

}  // namespace

absl::Status ApplyJson(absl::string_view text, absl::string_view source,
                       Config* config) {
  nlohmann::json json;
  try {
    json = nlohmann::json::parse(text.begin(), text.end());
  } catch (const nlohmann::json::exception& error) {
    return absl::InvalidArgumentError(
        absl::StrCat(source, " is not JSON: ", error.what()));
  }
  if (!json.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(
        source, " must hold one JSON object, for example {\"max_vms\": 8}"));
  }
  for (const auto& [key, value] : json.items()) {
    const ConfigOption* option = FindOption(key);
    if (option == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat(source, ": unknown key ", Quote(key), "; the keys are ",
                       KnownKeys()));
    }
    if (absl::Status status = ApplyValue(*option, value, config);
        !status.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat(source, ": ", status.message()));
    }
  }
  return absl::OkStatus();
}

absl::Status ApplyFile(const std::string& path, Config* config) {
  errno = 0;
  std::ifstream file(path);
  std::stringstream text;
  if (file) text << file.rdbuf();
  if (!file || (text.fail() && errno != 0)) {
    return absl::NotFoundError(absl::StrCat("cannot read the config file ",
                                            Quote(path), ": ",
                                            std::strerror(errno)));
  }
  return ApplyJson(text.str(), path, config);
}

absl::Status ApplyFlags(Config* config) {
  absl::Status status;
  size_t applied = 0;
  const auto apply = [&](const char* name, const auto& flag) {
    ++applied;
    if (status.ok()) status = ApplyFlag(name, flag, config);
  };
  apply("listen", FLAGS_listen);
  apply("listen_tcp", FLAGS_listen_tcp);
  apply("allow_remote_plaintext", FLAGS_allow_remote_plaintext);
  apply("port_file", FLAGS_port_file);
  apply("metrics_address", FLAGS_metrics_address);
  apply("trace_dir", FLAGS_trace_dir);
  apply("max_vms", FLAGS_max_vms);
  apply("max_guest_memory_bytes", FLAGS_max_guest_memory_bytes);
  apply("max_page_tables", FLAGS_max_page_tables);
  apply("max_operations", FLAGS_max_operations);
  apply("metrics_max_vms", FLAGS_metrics_max_vms);
  apply("max_connections", FLAGS_max_connections);
  apply("max_rpc_threads", FLAGS_max_rpc_threads);
  apply("max_short_calls", FLAGS_max_short_calls);
  apply("max_long_calls", FLAGS_max_long_calls);
  apply("max_long_calls_per_vm", FLAGS_max_long_calls_per_vm);
  apply("max_streams", FLAGS_max_streams);
  apply("max_streams_per_vm", FLAGS_max_streams_per_vm);
  apply("max_waits", FLAGS_max_waits);
  apply("max_reflections", FLAGS_max_reflections);
  apply("drain_timeout", FLAGS_drain_timeout);
  apply("min_drain", FLAGS_min_drain);
  apply("enable_debug_service", FLAGS_enable_debug_service);
  apply("nx_huge_pages", FLAGS_nx_huge_pages);
  apply("nx_huge_pages_recovery_ratio", FLAGS_nx_huge_pages_recovery_ratio);
  apply("nx_huge_pages_recovery_period", FLAGS_nx_huge_pages_recovery_period);
  apply("allow_nx_huge_pages_opt_out", FLAGS_allow_nx_huge_pages_opt_out);
  apply("log_format", FLAGS_log_format);
  apply("log_level", FLAGS_log_level);
  // A flag that is missing in the list above would be accepted and ignored.
  MMU_CHECK(applied == ConfigOptions().size());
  if (status.ok()) return status;
  return absl::InvalidArgumentError(absl::StrCat("--", status.message()));
}

absl::Status ValidateConfig(const Config& config) {
  if (!config.listen.empty() && !IsUnixAddress(config.listen)) {
    return absl::InvalidArgumentError(
        absl::StrCat("listen is ", Quote(config.listen),
                     "; it must be unix: and an absolute path, for example "
                     "unix:/run/mmud.sock; TCP addresses belong to "
                     "--listen_tcp"));
  }
  if (config.trace_dir.empty()) return absl::OkStatus();
  std::error_code error;
  std::filesystem::directory_iterator(config.trace_dir, error);
  if (!error) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "trace_dir is ", Quote(config.trace_dir),
      "; it must be a directory that can be read: ", error.message()));
}

absl::StatusOr<Config> LoadConfig() {
  Config config;
  const std::string path = absl::GetFlag(FLAGS_config);
  if (!path.empty()) {
    if (absl::Status status = ApplyFile(path, &config); !status.ok()) {
      return status;
    }
  }
  if (absl::Status status = ApplyFlags(&config); !status.ok()) return status;
  // Add the default listener only if none is configured: a configuration with
  // only TCP must not get a Unix socket.
  if (config.listen.empty() && config.listen_tcp.empty()) {
    config.listen = v1::kDefaultAddress;
  }
  if (absl::Status status = ValidateConfig(config); !status.ok()) {
    return status;
  }
  return config;
}

}  // namespace mmud
