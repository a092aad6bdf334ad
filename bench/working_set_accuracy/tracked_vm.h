// A VM whose working set is tracked, with one vCPU that the caller drives
// access by access. Nothing in it depends on a clock or on other threads.

#ifndef BENCH_WORKING_SET_ACCURACY_TRACKED_VM_H_
#define BENCH_WORKING_SET_ACCURACY_TRACKED_VM_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "bench/working_set_accuracy/limited_tlb.h"
#include "mmu_core/guest/guest_access.h"
#include "mmu_core/vm/jobs/generation_scan.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/working_set/generation_age.h"
#include "mmu_core/working_set/working_set_snapshot.h"

namespace mmu::bench {

// What makes the TLB of a vCPU forget a translation. Until then, accesses that
// use the translation do not set an Accessed bit that a scan has cleared. A
// value.
struct TlbStaleness {
  enum class Size : uint8_t {
    kUnlimited,
    kLimited,  // `entries` and `ways` (limited_tlb.h)
    kDaemon,   // that of the daemon's vCPUs (TlbOptions::Flushes::kWhole)
  };

  std::string name = {};  // for tables
  Size size = Size::kUnlimited;
  size_t entries = 0;
  size_t ways = 0;
  // The TLB is flushed after so many accesses, again and again; 0 means never.
  uint64_t flush_accesses = 0;
  enum class AtGenerations : uint8_t {
    kKeep,
    kFlush
  } at_generations = AtGenerations::kKeep;
};

// Thread-compatible.
class TrackedVm {
 public:
  // `pages` pages of 4 KiB from gpa 0 on, without contents, on the TDP MMU. All
  // of them are mapped and, as a first generation found them young, none is
  // young. The TLB is empty.
  TrackedVm(const TlbStaleness& staleness, uint64_t pages);
  ~TrackedVm();

  // The vCPU makes this access. REQUIRES: it is inside of the pages.
  void Access(const GuestAccess& access);

  // Makes one generation.
  void MakeGeneration(ScanScope scope);

  // By page.
  std::vector<GenerationAge> Ages() const;
  // For each of `windows`, the estimate of the working set: the number of pages
  // that one of so many newest generations found young.
  std::vector<uint64_t> WorkingSetPages(
      absl::Span<const uint32_t> windows) const;
  // What the newest generation found.
  const GenerationTotals& totals() const { return totals_; }

  Vm& vm() { return *vm_; }

 private:
  Vcpu& vcpu() const;
  void FlushTlb();

  const TlbStaleness staleness_;
  const uint64_t pages_;
  const std::unique_ptr<Vm> vm_;
  std::optional<LimitedTlb> limit_;
  uint64_t accesses_since_flush_ = 0;
  GenerationTotals totals_;
};

}  // namespace mmu::bench

#endif  // BENCH_WORKING_SET_ACCURACY_TRACKED_VM_H_
