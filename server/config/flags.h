// The flags of the command line; config.h explains how they work together.

#ifndef SERVER_CONFIG_FLAGS_H_
#define SERVER_CONFIG_FLAGS_H_

#include <cstdint>
#include <string>

#include "absl/flags/declare.h"
#include "absl/time/time.h"
#include "server/config/option_flag.h"

ABSL_DECLARE_FLAG(std::string, config);
ABSL_DECLARE_FLAG(mmud::OptionFlag<std::string>, listen);
ABSL_DECLARE_FLAG(mmud::OptionFlag<std::string>, listen_tcp);
ABSL_DECLARE_FLAG(mmud::OptionFlag<bool>, allow_remote_plaintext);
ABSL_DECLARE_FLAG(mmud::OptionFlag<std::string>, port_file);
ABSL_DECLARE_FLAG(mmud::OptionFlag<std::string>, metrics_address);
ABSL_DECLARE_FLAG(mmud::OptionFlag<std::string>, trace_dir);
ABSL_DECLARE_FLAG(mmud::OptionFlag<int64_t>, max_vms);
ABSL_DECLARE_FLAG(mmud::OptionFlag<int64_t>, max_guest_memory_bytes);
ABSL_DECLARE_FLAG(mmud::OptionFlag<int64_t>, max_page_tables);
ABSL_DECLARE_FLAG(mmud::OptionFlag<int64_t>, max_operations);
ABSL_DECLARE_FLAG(mmud::OptionFlag<int64_t>, metrics_max_vms);
ABSL_DECLARE_FLAG(mmud::OptionFlag<int64_t>, max_connections);
ABSL_DECLARE_FLAG(mmud::OptionFlag<int64_t>, max_rpc_threads);
ABSL_DECLARE_FLAG(mmud::OptionFlag<int64_t>, max_short_calls);
ABSL_DECLARE_FLAG(mmud::OptionFlag<int64_t>, max_long_calls);
ABSL_DECLARE_FLAG(mmud::OptionFlag<int64_t>, max_long_calls_per_vm);
ABSL_DECLARE_FLAG(mmud::OptionFlag<int64_t>, max_streams);
ABSL_DECLARE_FLAG(mmud::OptionFlag<int64_t>, max_streams_per_vm);
ABSL_DECLARE_FLAG(mmud::OptionFlag<int64_t>, max_waits);
ABSL_DECLARE_FLAG(mmud::OptionFlag<int64_t>, max_reflections);
ABSL_DECLARE_FLAG(mmud::OptionFlag<absl::Duration>, drain_timeout);
ABSL_DECLARE_FLAG(mmud::OptionFlag<absl::Duration>, min_drain);
ABSL_DECLARE_FLAG(mmud::OptionFlag<bool>, enable_debug_service);
ABSL_DECLARE_FLAG(mmud::OptionFlag<std::string>, nx_huge_pages);
ABSL_DECLARE_FLAG(mmud::OptionFlag<int64_t>, nx_huge_pages_recovery_ratio);
ABSL_DECLARE_FLAG(mmud::OptionFlag<absl::Duration>,
                  nx_huge_pages_recovery_period);
ABSL_DECLARE_FLAG(mmud::OptionFlag<bool>, allow_nx_huge_pages_opt_out);
ABSL_DECLARE_FLAG(mmud::OptionFlag<std::string>, log_format);
ABSL_DECLARE_FLAG(mmud::OptionFlag<std::string>, log_level);

#endif  // SERVER_CONFIG_FLAGS_H_
