#include "server/flags.h"

#include <cstdint>
#include <string>

#include "absl/flags/flag.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"

ABSL_FLAG(std::string, config, "",
          "A JSON file with any of the options below as keys, for example "
          "{\"listen_tcp\": \"127.0.0.1:9443\", \"max_vms\": 8}. A flag given "
          "on the command line wins over the file.");
ABSL_FLAG(absl::optional<std::string>, listen, absl::nullopt,
          "Unix socket to serve gRPC on, unix:/path. Made with mode 0660.");
ABSL_FLAG(
    absl::optional<std::string>, listen_tcp, absl::nullopt,
    "TCP address to serve gRPC on in plain text, HOST:PORT with HOST a "
    "numeric address of the loopback interface; port 0 takes a free one.");
ABSL_FLAG(absl::optional<bool>, allow_remote_plaintext, absl::nullopt,
          "Lets --listen_tcp be an address that other machines reach. Whoever "
          "can connect controls every VM. Default: false.");
ABSL_FLAG(absl::optional<std::string>, port_file, absl::nullopt,
          "File to write the chosen ports to once the daemon serves: lines "
          "grpc=PORT and metrics=PORT.");
ABSL_FLAG(absl::optional<std::string>, metrics_address, absl::nullopt,
          "HOST:PORT for HTTP: /metrics, /healthz and /readyz; port 0 takes a "
          "free one. Default: none of them is served.");
ABSL_FLAG(absl::optional<std::string>, trace_dir, absl::nullopt,
          "Directory of trace files that workloads may name. Default: none.");
ABSL_FLAG(absl::optional<int64_t>, max_vms, absl::nullopt,
          "The most VMs at a time. Default: 64.");
ABSL_FLAG(absl::optional<int64_t>, max_guest_memory_bytes, absl::nullopt,
          "The most guest memory with contents, of all VMs together. 0 means "
          "no limit. Default: 0.");
ABSL_FLAG(absl::optional<int64_t>, max_operations, absl::nullopt,
          "The most operations that run at a time. Default: 64.");
ABSL_FLAG(absl::optional<int64_t>, metrics_max_vms, absl::nullopt,
          "How many VMs get a `vm` label of their own; the others share "
          "\"_other\". Default: 32.");
ABSL_FLAG(absl::optional<int64_t>, max_rpc_threads, absl::nullopt,
          "The most threads that serve calls. Default: 64.");
ABSL_FLAG(absl::optional<absl::Duration>, drain_timeout, absl::nullopt,
          "How long SIGTERM lets calls in hand take to end. Default: 10s.");
ABSL_FLAG(absl::optional<bool>, enable_debug_service, absl::nullopt,
          "Serves mmud.v1.DebugService. Default: false.");
ABSL_FLAG(absl::optional<std::string>, log_format, absl::nullopt,
          "Form of the lines on stderr: text or json. Default: text.");
ABSL_FLAG(absl::optional<std::string>, log_level, absl::nullopt,
          "The least level to log: debug, info, warning or error. Default: "
          "info.");
