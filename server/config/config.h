// The daemon's configuration. config_loader.h fills it in.

#ifndef SERVER_CONFIG_CONFIG_H_
#define SERVER_CONFIG_CONFIG_H_

#include <cstdint>
#include <string>

#include "absl/time/time.h"

namespace mmud {

// The size of this host's memory.
int64_t PhysicalMemoryBytes();

// A value. Each field corresponds to the flag, and to the key of the file, of
// the same name; config_options.cc has the rule and the help text of each.
struct Config {
  std::string listen;
  std::string listen_tcp;
  bool allow_remote_plaintext = false;
  std::string port_file;
  std::string metrics_address;
  std::string trace_dir;
  int64_t max_vms = 64;
  int64_t max_guest_memory_bytes = PhysicalMemoryBytes();
  int64_t max_page_tables = 0;
  int64_t max_operations = 64;
  int64_t metrics_max_vms = 32;
  int64_t max_connections = 4096;
  int64_t max_rpc_threads = 64;
  int64_t max_short_calls = 2048;
  int64_t max_long_calls = 256;
  int64_t max_long_calls_per_vm = 32;
  int64_t max_streams = 256;
  int64_t max_streams_per_vm = 32;
  int64_t max_waits = 1024;
  int64_t max_reflections = 64;
  absl::Duration drain_timeout = absl::Seconds(10);
  absl::Duration min_drain = absl::Milliseconds(500);
  bool enable_debug_service = false;
  std::string nx_huge_pages = "auto";
  int64_t nx_huge_pages_recovery_ratio = 60;
  absl::Duration nx_huge_pages_recovery_period = absl::ZeroDuration();
  bool allow_nx_huge_pages_opt_out = false;
  std::string log_format = "text";
  std::string log_level = "info";
};

}  // namespace mmud

#endif  // SERVER_CONFIG_CONFIG_H_
