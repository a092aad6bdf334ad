// The parameters of the NX huge page mitigation, which KVM has once for its
// whole module: whether it is on, and how often huge pages are tried again.
//
//   value     meaning
//   off       huge pages may be executed
//   force     huge pages may not be executed, on any processor
//   auto      as force on processors with the iTLB multi-hit erratum, else off
//   never     off, and no VM will ever have it on; only while there is no VM
// Also 0, n, N, 1, y, Y, on.

#ifndef MMU_CORE_VM_CORE_NX_PARAMETERS_H_
#define MMU_CORE_VM_CORE_NX_PARAMETERS_H_

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "mmu_core/base/mutex.h"

namespace mmu {

enum class ItlbMultihit : uint8_t { kNo, kYes };

// The amount of recovery in a run, and the time between runs (SPTE-53).
struct NxRecoverySettings {
  // A run zaps one in `ratio` of the listed tables, rounded up; 0: none.
  uint32_t ratio = 60;
  // Between two runs; 0: chosen so that each table stays an hour, but at least
  // a second.
  absl::Duration period = absl::ZeroDuration();
};
// InfiniteDuration if there are no runs.
absl::Duration RecoveryPeriodOf(const NxRecoverySettings& settings);

// Thread-safe.
class NxParameters {
 public:
  // A VM's reactions to changes of the parameters. Called one after the other,
  // under this object's lock, which is outside of slots_lock.
  struct Listener {
    std::function<void(bool mitigated)> on_mitigation;  // new value: zap all
    std::function<void()> on_recovery;                  // look at the period
  };

  explicit NxParameters(ItlbMultihit cpu) : cpu_(cpu) {}
  NxParameters(const NxParameters&) = delete;
  NxParameters& operator=(const NxParameters&) = delete;

  // The parameters of this process: initially off, on a processor without the
  // erratum. Never destroyed.
  static NxParameters& Process();

  // INVALID_ARGUMENT INVALID_NX_HUGE_PAGES (EINVAL) for another spelling;
  // FAILED_PRECONDITION VM_EXISTS_ALREADY (EBUSY) for "never" while there is a
  // VM; PERMISSION_DENIED NX_HUGE_PAGES_NEVER (EPERM) for any value after
  // "never". Setting the current value again changes nothing (SPTE-50).
  absl::Status SetNxHugePages(std::string_view value);
  // "N", "Y" or "never".
  std::string_view nx_huge_pages() const;

  void SetRecovery(const NxRecoverySettings& settings);
  NxRecoverySettings recovery() const;

  // From Register to Unregister the VM's listener is called on each change.
  // Register calls on_mitigation if the mitigation is on.
  void Register(Listener* vm);
  void Unregister(Listener* vm);

 private:
  const ItlbMultihit cpu_;
  mutable Mutex mu_;  // "kvm_lock" of LOCKING.md
  bool mitigated_ ABSL_GUARDED_BY(mu_) = false;
  bool never_ ABSL_GUARDED_BY(mu_) = false;
  NxRecoverySettings recovery_ ABSL_GUARDED_BY(mu_);
  std::vector<Listener*> vms_ ABSL_GUARDED_BY(mu_);
};

}  // namespace mmu

#endif  // MMU_CORE_VM_CORE_NX_PARAMETERS_H_
