// L2 guests on all vCPUs of a VM, for the scenarios. L1's EPT maps each page of
// L2 at the same address of L1, with pages of 1 GiB, as in KVM's tests.

#ifndef BENCH_L2_GUESTS_H_
#define BENCH_L2_GUESTS_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/vm/run/l1_processor.h"
#include "mmu_core/vm/vcpu/vcpu.h"
#include "mmu_core/vm/vm.h"

namespace mmu::bench {

class L2Guests {
 public:
  // L1's tables are in [0, kTableBytes) of L1's memory.
  static constexpr uint64_t kTableBytes = uint64_t{1} << 20;

  // L1 maps all pages of 1 GiB that overlap `range`, and all vCPUs enter L2
  // with these tables. Returns the errors of L1's accesses. REQUIRES: `vm` is
  // nested, and has memory for the tables; no vCPU runs.
  static absl::StatusOr<std::unique_ptr<L2Guests>> Enter(Vm& vm,
                                                         GfnRange range);

  // Makes one access by the vCPU's L2 guest. Returns an error if the access
  // fails. To be called on the vCPU's thread.
  absl::Status Access(const Vcpu& vcpu, Gpa gpa, AccessKind kind,
                      uint64_t* word);

 private:
  explicit L2Guests(Vm& vm);

  std::vector<std::unique_ptr<L1Processor>> cpus_;  // one per vCPU
};

}  // namespace mmu::bench

#endif  // BENCH_L2_GUESTS_H_
