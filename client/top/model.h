// What the samples of a daemon say together: rates, their history, and whether
// the daemon answers.

#ifndef CLIENT_TOP_MODEL_H_
#define CLIENT_TOP_MODEL_H_

#include <cstddef>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "client/top/sample.h"
#include "mmu_core/base/clock.h"

namespace mmud::client {

// What a VM did between two samples. A value.
struct VmRates {
  absl::Duration interval;
  // Events per second. `dirty_pages` counts pages that were clean before.
  double dirty_pages = 0;
  double faults = 0;
  double accesses = 0;
  double writes = 0;
  double tlb_flushes = 0;
  // The share of the vCPUs' time, 0 to 1, for which they stood still, by cause
  // ("write_protect"). Every cause that the daemon knows is present.
  std::map<std::string, double> stalls;
  double stall_ratio = 0;  // of all causes together

  // The cause of most of the stalls; "" if no vCPU stood still.
  std::string worst_stall() const;
};

// The past of a number, one value for each sample, oldest first.
using History = std::deque<double>;

// A VM and its past. A value.
struct VmTrend {
  VmSample sample;
  // Unset until the VM was in two samples.
  std::optional<VmRates> rates;
  History dirty_pages;  // rates
  History faults;       // rates
  History stall_ratio;
};

// Thread-compatible.
class TopModel {
 public:
  // Keeps that many values of each history, which is enough for a screen of
  // this width.
  static constexpr size_t kHistory = 512;

  // The daemon has answered.
  void Add(TopSample sample);
  // The daemon did not answer at `time`. The VMs stay as they were.
  void AddFailure(const absl::Status& status, mmu::MonotonicTime time);

  // The newest sample without its VMs; unset before the first one.
  const std::optional<TopSample>& newest() const { return newest_; }
  // All VMs of the newest sample, ascending by id.
  const std::vector<VmTrend>& vms() const { return vms_; }
  const VmTrend* FindVm(const std::string& uid) const;

  // OK while the daemon answers, otherwise the newest error.
  const absl::Status& failure() const { return failure_; }
  // How long the daemon has not answered, from the first failed sample to the
  // newest one.
  absl::Duration failing_for() const { return failing_for_; }
  // The number of restarts of the daemon since the first sample.
  int restart_count() const { return restart_count_; }

 private:
  std::optional<TopSample> newest_;
  std::vector<VmTrend> vms_;
  absl::Status failure_;
  mmu::MonotonicTime failing_since_;
  absl::Duration failing_for_;
  int restart_count_ = 0;
};

}  // namespace mmud::client

#endif  // CLIENT_TOP_MODEL_H_
