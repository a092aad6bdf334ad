// Fills in the configuration: defaults, then the file named by --config, then
// the flags of the command line, which win.

#ifndef SERVER_CONFIG_CONFIG_LOADER_H_
#define SERVER_CONFIG_CONFIG_LOADER_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/config/config.h"

namespace mmud {

// Takes the values of a JSON object's keys. `source` names the text in errors.
// INVALID_ARGUMENT naming key, value and rule; `config` is then in an
// unspecified state.
absl::Status ApplyJson(absl::string_view text, absl::string_view source,
                       Config* config);

// Reads a file and applies it. NOT_FOUND or PERMISSION_DENIED with the path.
absl::Status ApplyFile(const std::string& path, Config* config);

// Takes the values of the flags that were given. REQUIRES: flags are parsed.
absl::Status ApplyFlags(Config* config);

// Checks the rules that involve more than one option, or the file system.
absl::Status ValidateConfig(const Config& config);

// Applies defaults, the file of --config if given, and flags, then validates.
// If none of them names a socket or a TCP address, `listen` is kDefaultAddress,
// which is also the clients' default.
absl::StatusOr<Config> LoadConfig();

}  // namespace mmud

#endif  // SERVER_CONFIG_CONFIG_LOADER_H_
