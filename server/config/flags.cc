#include "server/config/flags.h"

#include <cstdint>
#include <string>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "proto/mmud/v1/default_address.h"
#include "server/config/config.h"
#include "server/config/option_flag.h"

ABSL_FLAG(std::string, config, "",
          "A JSON file with any of the options below as keys, for example "
          "{\"listen_tcp\": \"127.0.0.1:9443\", \"max_vms\": 8}. A flag given "
          "on the command line wins over the file.");
ABSL_FLAG(
    mmud::OptionFlag<std::string>, listen,
    mmud::OptionFlag(&mmud::Config::listen),
    absl::StrCat("Unix socket to serve gRPC on, unix:/path. Made with mode "
                 "0660. Without it and --listen_tcp: ",
                 mmud::v1::kDefaultAddress, ", whose folder is made."));
ABSL_FLAG(
    mmud::OptionFlag<std::string>, listen_tcp,
    mmud::OptionFlag(&mmud::Config::listen_tcp),
    "TCP address to serve gRPC on in plain text, HOST:PORT with HOST a "
    "numeric address of the loopback interface; port 0 takes a free one.");
ABSL_FLAG(mmud::OptionFlag<bool>, allow_remote_plaintext,
          mmud::OptionFlag(&mmud::Config::allow_remote_plaintext),
          "Lets --listen_tcp be an address that other machines reach. Every "
          "client that can connect controls every VM.");
ABSL_FLAG(mmud::OptionFlag<std::string>, port_file,
          mmud::OptionFlag(&mmud::Config::port_file),
          "File to write the chosen ports to once the daemon serves: lines "
          "grpc=PORT and metrics=PORT.");
ABSL_FLAG(mmud::OptionFlag<std::string>, metrics_address,
          mmud::OptionFlag(&mmud::Config::metrics_address),
          "HOST:PORT for HTTP: /metrics, /healthz and /readyz; port 0 takes a "
          "free one. Without it none of them is served.");
ABSL_FLAG(mmud::OptionFlag<std::string>, trace_dir,
          mmud::OptionFlag(&mmud::Config::trace_dir),
          "Directory of the trace files that workloads may name; without it "
          "workloads cannot run traces.");
ABSL_FLAG(mmud::OptionFlag<int64_t>, max_vms,
          mmud::OptionFlag(&mmud::Config::max_vms), "The most VMs at a time.");
ABSL_FLAG(mmud::OptionFlag<int64_t>, max_guest_memory_bytes,
          mmud::OptionFlag(&mmud::Config::max_guest_memory_bytes),
          "The most guest memory with contents, of all VMs together; 0 means "
          "no limit. The default is the memory of this host.");
ABSL_FLAG(mmud::OptionFlag<int64_t>, max_page_tables,
          mmud::OptionFlag(&mmud::Config::max_page_tables),
          "The most page tables, of 4 KiB each, of all VMs together. If a "
          "guest needs another one and none is free or in its grace period, "
          "its workload ends with MMU_PAGES_EXHAUSTED. 0 means no limit.");
ABSL_FLAG(mmud::OptionFlag<int64_t>, max_operations,
          mmud::OptionFlag(&mmud::Config::max_operations),
          "The most splits, recoveries and starts of dirty logs that run at a "
          "time. Workloads do not count: as many run as there are VMs.");
ABSL_FLAG(mmud::OptionFlag<int64_t>, metrics_max_vms,
          mmud::OptionFlag(&mmud::Config::metrics_max_vms),
          "How many VMs get a `vm` label of their own; the others share "
          "\"_other\".");
ABSL_FLAG(mmud::OptionFlag<int64_t>, max_connections,
          mmud::OptionFlag(&mmud::Config::max_connections),
          "The most connections of gRPC clients; less if the process may not "
          "have so many open files (ulimit -n), of which a quarter is kept "
          "for other use. Further connections wait until one is closed.");
ABSL_FLAG(mmud::OptionFlag<int64_t>, max_rpc_threads,
          mmud::OptionFlag(&mmud::Config::max_rpc_threads),
          "The most threads that short calls share: reads of state and "
          "changes that are made at once. More calls wait their turn.");
ABSL_FLAG(mmud::OptionFlag<int64_t>, max_short_calls,
          mmud::OptionFlag(&mmud::Config::max_short_calls),
          "The most short calls at a time. A call above this or another "
          "limit on calls or streams is refused with LIMIT_EXCEEDED.");
ABSL_FLAG(mmud::OptionFlag<int64_t>, max_long_calls,
          mmud::OptionFlag(&mmud::Config::max_long_calls),
          "The most long calls at a time: calls that change a VM. Each has a "
          "thread.");
ABSL_FLAG(mmud::OptionFlag<int64_t>, max_long_calls_per_vm,
          mmud::OptionFlag(&mmud::Config::max_long_calls_per_vm),
          "The most long calls at a time that work on one VM. DeleteVm does "
          "not count, so a VM can always be deleted.");
ABSL_FLAG(mmud::OptionFlag<int64_t>, max_streams,
          mmud::OptionFlag(&mmud::Config::max_streams),
          "The most streams that are open.");
ABSL_FLAG(mmud::OptionFlag<int64_t>, max_streams_per_vm,
          mmud::OptionFlag(&mmud::Config::max_streams_per_vm),
          "The most streams of one VM that are open.");
ABSL_FLAG(mmud::OptionFlag<int64_t>, max_waits,
          mmud::OptionFlag(&mmud::Config::max_waits),
          "The most WaitOperation calls that wait. They need no thread.");
ABSL_FLAG(mmud::OptionFlag<int64_t>, max_reflections,
          mmud::OptionFlag(&mmud::Config::max_reflections),
          "The most streams of server reflection that are open. They need no "
          "thread.");
ABSL_FLAG(mmud::OptionFlag<absl::Duration>, drain_timeout,
          mmud::OptionFlag(&mmud::Config::drain_timeout),
          "The time that SIGTERM leaves running calls to end.");
ABSL_FLAG(mmud::OptionFlag<absl::Duration>, min_drain,
          mmud::OptionFlag(&mmud::Config::min_drain),
          "The least time that a drain lasts, unless --drain_timeout is "
          "shorter: in this time callers receive the reason of a refusal, and "
          "observers of the daemon's health see the change.");
ABSL_FLAG(mmud::OptionFlag<bool>, enable_debug_service,
          mmud::OptionFlag(&mmud::Config::enable_debug_service),
          "Serves mmud.v1.DebugService.");
ABSL_FLAG(mmud::OptionFlag<std::string>, nx_huge_pages,
          mmud::OptionFlag(&mmud::Config::nx_huge_pages),
          "Whether guests may execute from huge mappings. off: yes. force: no. "
          "auto: not on processors with the iTLB multi-hit erratum. never: "
          "yes, and the setting cannot be changed. Where they may not, "
          "executed memory is mapped by small pages.");
ABSL_FLAG(mmud::OptionFlag<int64_t>, nx_huge_pages_recovery_ratio,
          mmud::OptionFlag(&mmud::Config::nx_huge_pages_recovery_ratio),
          "In each recovery run, one in this many of the mappings that are "
          "small because they were executed becomes huge again; 0: none.");
ABSL_FLAG(mmud::OptionFlag<absl::Duration>, nx_huge_pages_recovery_period,
          mmud::OptionFlag(&mmud::Config::nx_huge_pages_recovery_period),
          "Time between two recovery runs; 0: an hour divided by "
          "--nx_huge_pages_recovery_ratio, at least a second.");
ABSL_FLAG(mmud::OptionFlag<bool>, allow_nx_huge_pages_opt_out,
          mmud::OptionFlag(&mmud::Config::allow_nx_huge_pages_opt_out),
          "Allows VMs to opt out of --nx_huge_pages. A guest that has opted "
          "out can halt a host with the iTLB multi-hit erratum.");
ABSL_FLAG(mmud::OptionFlag<std::string>, log_format,
          mmud::OptionFlag(&mmud::Config::log_format),
          "Form of the lines on stderr: text or json.");
ABSL_FLAG(mmud::OptionFlag<std::string>, log_level,
          mmud::OptionFlag(&mmud::Config::log_level),
          "The least level to log: debug, info, warning or error.");
