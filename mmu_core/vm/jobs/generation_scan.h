// A scan of all memory of a VM for young pages, which makes one generation of
// its working set (working_set/working_set.h).

#ifndef MMU_CORE_VM_JOBS_GENERATION_SCAN_H_
#define MMU_CORE_VM_JOBS_GENERATION_SCAN_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "mmu_core/aging/aging.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/vm/core/tracked_working_set.h"
#include "mmu_core/vm/jobs/generation_coverage.h"
#include "mmu_core/working_set/slot_maps.h"
#include "mmu_core/working_set/working_set_snapshot.h"

namespace mmu {

struct VmCore;

// Which pages a scan examines.
enum class ScanScope : uint8_t {
  kEveryPage,
  // In the manner of MGLRU (AGE-33, AGE-40): one page of each batch of
  // kLookAroundBatch, another one in each generation. The other pages are
  // examined if an MMU that ages fast found that one young, and then in such
  // MMUs alone. So a slow MMU is asked about few pages. Pages that were not
  // examined keep their Accessed bits and are young in a later generation.
  kLookAround,
};

// Pages; batches begin at multiples of it.
inline constexpr uint64_t kLookAroundBatch = 64;

// A value.
struct GenerationOptions {
  FastOnly fast_only = FastOnly::kYes;
  SlowMmus slow = SlowMmus::kSkip;
  ScanScope scope = ScanScope::kEveryPage;
};

// Externally synchronised. Holds the VM's turn to create a generation.
class GenerationScan {
 public:
  // Begins a generation of the memslots of address space 0. `vm` outlives the
  // scan.
  //   ABORTED             GENERATION_RUNNING      another scan lasts
  //   FAILED_PRECONDITION FAST_AGING_UNAVAILABLE  as AgeRange; nothing is begun
  //   RESOURCE_EXHAUSTED  RESOURCE_EXHAUSTED_MEMORY
  static absl::StatusOr<std::unique_ptr<GenerationScan>> Begin(
      VmCore& vm, const GenerationOptions& options);
  // If the scan is not done, its generation ends as incomplete: the rest of the
  // memory is old in it.
  ~GenerationScan();
  GenerationScan(const GenerationScan&) = delete;
  GenerationScan& operator=(const GenerationScan&) = delete;

  bool done() const { return ended_; }
  // Examines the next piece: at most 1 GiB. The last one ends the generation.
  // Memslots that are gone are left out. If the working set was forgotten, the
  // scan is done, and its generation incomplete. The same after errors:
  //   FAILED_PRECONDITION FAST_AGING_UNAVAILABLE     as Begin, if an MMU that
  //                                                  does not age fast has come
  //                                                  into use
  //   RESOURCE_EXHAUSTED  RESOURCE_EXHAUSTED_MEMORY  Accessed bits that were
  //                                                  cleared are lost
  // REQUIRES: !done().
  absl::Status Next();

  // Whether the VM's working set was forgotten since Begin.
  bool forgotten() const { return turn_->IsForgotten(); }

  uint64_t sequence() const { return sequence_; }
  uint64_t total_pages() const { return total_pages_; }
  uint64_t done_pages() const { return done_pages_; }
  // So far.
  const GenerationTotals& totals() const { return totals_; }
  const GenerationCoverage& coverage() const { return coverage_; }
  const MmuCost& cost() const { return cost_; }

 private:
  GenerationScan(VmCore& vm, const GenerationOptions& options,
                 std::unique_ptr<TrackedWorkingSet::Turn> turn,
                 std::vector<TrackedSlot> slots, std::vector<GfnRange> ranges);

  static absl::StatusOr<std::unique_ptr<GenerationScan>> Prepare(
      VmCore& vm, const GenerationOptions& options);

  // The next piece of the ranges, within one GiB.
  GfnRange NextPiece() const;
  absl::Status ExaminePiece(GfnRange piece);
  // Notes where the memslots of `piece` are not those of the beginning, without
  // those that are gone.
  void CompareSlots(GfnRange piece);
  absl::Status ExamineBatch(GfnRange batch);
  // Ages `range` and records the young pages. kYes: adds to the totals.
  enum class InTotals : uint8_t { kNo, kYes };
  absl::Status AgeAndRecord(GfnRange range, FastOnly fast_only,
                            InTotals in_totals);
  void End();

  VmCore& vm_;
  const GenerationOptions options_;
  const std::unique_ptr<TrackedWorkingSet::Turn> turn_;
  const std::vector<TrackedSlot> slots_;  // at the beginning; ascending
  const std::vector<GfnRange> ranges_;    // ascending; none touches another
  const uint64_t sequence_;
  uint64_t total_pages_ = 0;
  uint64_t done_pages_ = 0;
  size_t next_ = 0;  // the first range that is not finished
  Gfn at_;           // the position in it
  Gfn young_until_;  // of earlier pieces (aging/aging.h)
  GenerationTotals totals_;
  GenerationCoverage coverage_;
  MmuCost cost_;
  bool ended_ = false;
};

}  // namespace mmu

#endif  // MMU_CORE_VM_JOBS_GENERATION_SCAN_H_
