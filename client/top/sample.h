// What `mmuctl top` knows about a daemon at one moment: plain values, taken
// from answers of the API.

#ifndef CLIENT_TOP_SAMPLE_H_
#define CLIENT_TOP_SAMPLE_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "mmu_core/base/clock.h"
#include "server/base/wall_time.h"

namespace mmud::client {

// The daemon itself. A value.
struct DaemonSample {
  std::string version;
  absl::Duration uptime;
  // Every start of the daemon has another one.
  std::string boot_id;
};

// The dirty log of a VM. Counts are pages of 4 KiB. A value.
struct LogSample {
  std::string log_id;
  std::string owner;
  absl::Duration lease;
  WallTime lease_expire_time = WallTime::FromUnixNanos(0);
  int64_t open_epoch = 0;
  int64_t sealed_epoch = 0;
  int64_t open_page_count = 0;
  int64_t sealed_page_count = 0;
  int64_t in_flight_page_count = 0;

  // Pages that are still to be sent: written since the last seal, or sealed
  // and not yet cleared.
  int64_t left_page_count() const {
    return open_page_count + sealed_page_count;
  }
};

// A condition that hinders a VM, in the daemon's words. A value.
struct ConditionSample {
  std::string type;  // "paused"
  WallTime since = WallTime::FromUnixNanos(0);
  std::string message;
};

// A running operation of a VM. A value.
struct WorkSample {
  std::string name;   // "operations/..."
  std::string kind;   // "split", "recover", "dirty-log", "generation"
  std::string state;  // "running", "paused"
  std::optional<double> share;
  std::string words;  // progress in words
  absl::Duration running_time;
  std::optional<absl::Duration> remaining_time;
  // Of mmu_lock: the sum of the waits and the longest hold.
  absl::Duration lock_wait;
  absl::Duration max_lock_hold;
};

// One VM. A value.
struct VmSample {
  std::string id;  // "alpha" for vms/alpha
  std::string uid;
  std::string mmu;  // "tdp"
  int vcpu_count = 0;
  int64_t memory_size_bytes = 0;
  bool is_deleting = false;
  std::string vcpu_state;  // "running"
  // When the vCPUs came to a standstill, and when they go on by themselves.
  std::optional<WallTime> paused_since;
  std::optional<WallTime> pause_expire_time;
  std::vector<ConditionSample> conditions;
  // The statistics of the VM by name, each in its unit.
  std::map<std::string, int64_t> statistics;
  std::optional<LogSample> log;
  std::vector<WorkSample> work;

  // The statistic; 0 if the VM does not have it.
  int64_t statistic(const std::string& name) const {
    const auto found = statistics.find(name);
    return found == statistics.end() ? 0 : found->second;
  }
};

// A value.
struct TopSample {
  // When the statistics were read, by this program's clock: rates are measured
  // between two of these.
  mmu::MonotonicTime time;
  // The same for people.
  WallTime wall_time = WallTime::FromUnixNanos(0);
  DaemonSample daemon;
  std::vector<VmSample> vms;  // ascending by id
  // What the sample has cost: calls of the API, and the time until the last
  // answer.
  int call_count = 0;
  absl::Duration call_time;
};

}  // namespace mmud::client

#endif  // CLIENT_TOP_SAMPLE_H_
