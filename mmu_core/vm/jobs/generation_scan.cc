#include "mmu_core/vm/jobs/generation_scan.h"

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/memory/memory.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/level.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/base/with_memory.h"
#include "mmu_core/sync/spin.h"
#include "mmu_core/tlb/tlb_flush.h"
#include "mmu_core/vm/core/missing_slots.h"
#include "mmu_core/vm/core/slot_ranges.h"
#include "mmu_core/vm/core/tracked_slots.h"
#include "mmu_core/vm/core/tracked_working_set.h"
#include "mmu_core/vm/core/vm_core.h"
#include "mmu_core/vm/jobs/age_range.h"
#include "mmu_core/working_set/slot_maps.h"
#include "mmu_core/working_set/working_set.h"

namespace mmu {
namespace {

std::vector<GfnRange> RangesOf(const std::vector<TrackedSlot>& slots) {
  std::vector<GfnRange> ranges;
  ranges.reserve(slots.size());
  for (const TrackedSlot& slot : slots) ranges.push_back(slot.range);
  return UnionOf(std::move(ranges));
}

// A page of the batch. In 64 generations each page has its turn.
Gfn ProbedPage(GfnRange batch, uint64_t sequence) {
  constexpr uint64_t kStep = 37;  // odd, so that all pages have their turn
  // A batch is shorter than kLookAroundBatch at the ends of a slot.
  return batch.start + sequence * kStep % kLookAroundBatch % batch.pages();
}

}  // namespace

absl::StatusOr<std::unique_ptr<GenerationScan>> GenerationScan::Begin(
    VmCore& vm, const GenerationOptions& options) {
  return WithMemory("vm", "examine the VM's memory",
                    [&] { return Prepare(vm, options); });
}

// Allocates everything before the constructor begins the generation, so that no
// generation stays open that has no scan.
absl::StatusOr<std::unique_ptr<GenerationScan>> GenerationScan::Prepare(
    VmCore& vm, const GenerationOptions& options) {
  if (absl::Status status = CheckSlowMmus(
          vm, {.fast_only = options.fast_only, .slow = options.slow});
      !status.ok()) {
    return status;
  }
  std::unique_ptr<TrackedWorkingSet::Turn> turn = vm.working_set.TryTakeTurn();
  if (turn == nullptr) {
    return MakeError(absl::StatusCode::kAborted,
                     {Reason::kGenerationRunning, "", EBUSY},
                     "a generation of the VM is being created already; wait "
                     "for it, or cancel it");
  }
  std::vector<TrackedSlot> slots = TrackedSlotsIn(vm, kAllGfns);
  std::vector<GfnRange> ranges = RangesOf(slots);
  if (absl::Status status = turn->working_set().SyncSlots(slots);
      !status.ok()) {
    return status;
  }
  return absl::WrapUnique(new GenerationScan(
      vm, options, std::move(turn), std::move(slots), std::move(ranges)));
}

GenerationScan::GenerationScan(VmCore& vm, const GenerationOptions& options,
                               std::unique_ptr<TrackedWorkingSet::Turn> turn,
                               std::vector<TrackedSlot> slots,
                               std::vector<GfnRange> ranges)
    : vm_(vm),
      options_(options),
      turn_(std::move(turn)),
      slots_(std::move(slots)),
      ranges_(std::move(ranges)),
      sequence_(turn_->BeginGeneration(MonotonicNanos())) {
  coverage_.look_around = options.scope == ScanScope::kLookAround;
  for (const GfnRange& range : ranges_) total_pages_ += range.pages();
  if (ranges_.empty()) {
    End();
  } else {
    at_ = ranges_[0].start;
  }
}

GenerationScan::~GenerationScan() {
  if (ended_) return;
  coverage_.incomplete = true;
  End();
}

absl::Status GenerationScan::Next() {
  MMU_CHECK(!done());
  if (forgotten()) {
    coverage_.incomplete = true;
    End();
    return absl::OkStatus();
  }
  const GfnRange piece = NextPiece();
  const auto examine = [&] {
    absl::Status status = ExaminePiece(piece);
    if (status.ok()) CompareSlots(piece);
    return status;
  };
  if (absl::Status status =
          WithMemory("vm", "examine the VM's memory", examine);
      !status.ok()) {
    coverage_.incomplete = true;
    coverage_.lost = true;
    End();
    return status;
  }
  done_pages_ += piece.pages();
  at_ = piece.end;
  if (at_ != ranges_[next_].end) return absl::OkStatus();
  if (++next_ < ranges_.size()) {
    at_ = ranges_[next_].start;
  } else {
    End();
  }
  return absl::OkStatus();
}

GfnRange GenerationScan::NextPiece() const {
  const Gfn block_end = RoundDown(at_, Level::k1G) + PagesPer(Level::k1G);
  return {at_, std::min(block_end, ranges_[next_].end)};
}

absl::Status GenerationScan::ExaminePiece(GfnRange piece) {
  if (options_.scope != ScanScope::kLookAround) {
    return AgeAndRecord(piece, options_.fast_only, InTotals::kYes);
  }
  for (GfnRange left = piece; !left.empty();) {
    const uint64_t in_batch = left.start.value() % kLookAroundBatch;
    const GfnRange batch = {
        left.start,
        std::min(left.start + (kLookAroundBatch - in_batch), left.end)};
    if (absl::Status status = ExamineBatch(batch); !status.ok()) return status;
    left.start = batch.end;
  }
  return absl::OkStatus();
}

void GenerationScan::CompareSlots(GfnRange piece) {
  const std::vector<TrackedSlot> now = TrackedSlotsIn(vm_, piece);
  for (const TrackedSlot& slot : now) {
    if (ContainsSlot(slots_, slot)) continue;
    // What was found in it went to the map of a slot that was there before.
    coverage_.incomplete = true;
    coverage_.lost = true;
  }
  auto former = std::partition_point(slots_.begin(), slots_.end(),
                                     [piece](const TrackedSlot& slot) {
                                       return slot.range.end <= piece.start;
                                     });
  for (; former != slots_.end() && former->range.start < piece.end; ++former) {
    if (!ContainsSlot(now, *former) && StillHasSlot(vm_, *former)) {
      coverage_.incomplete = true;  // it has moved, and was not examined
    }
  }
}

absl::Status GenerationScan::ExamineBatch(GfnRange batch) {
  const GfnRange probed =
      GfnRange::Of(ProbedPage(batch, sequence_), /*pages=*/1);
  // The test leaves the Accessed bits to the calls that clear: a huge leaf has
  // one bit for all of its pages.
  const absl::StatusOr<AgeResult> probe = AgeRange(
      vm_, probed, AgeMode::kTest, &cost_, young_until_, MissingSlots::kSkip,
      {.fast_only = options_.fast_only, .slow = options_.slow});
  if (!probe.ok()) return probe.status();
  coverage_.reach.Add(probe->reach);
  const bool young = probe->young_page_count != 0;
  const bool around = probe->reach.was_fast || young_until_ > batch.start;
  if (around) {
    if (absl::Status status =
            AgeAndRecord(batch, FastOnly::kYes, InTotals::kYes);
        !status.ok()) {
      return status;
    }
  } else if (!young) {
    totals_.mapped_pages += probe->old_page_count;
  }
  if (!young || options_.fast_only == FastOnly::kYes) return absl::OkStatus();
  // The slow MMUs are asked about this page alone. If it is young in a fast one
  // as well, it was counted with the batch.
  return AgeAndRecord(probed, FastOnly::kNo,
                      around ? InTotals::kNo : InTotals::kYes);
}

absl::Status GenerationScan::AgeAndRecord(GfnRange range, FastOnly fast_only,
                                          InTotals in_totals) {
  // Only a request that is fast-only itself refuses slow MMUs.
  const SlowMmus slow =
      options_.fast_only == FastOnly::kYes ? options_.slow : SlowMmus::kSkip;
  const absl::StatusOr<AgeResult> aged =
      AgeRange(vm_, range, AgeMode::kTestAndClear, &cost_, young_until_,
               MissingSlots::kSkip, {.fast_only = fast_only, .slow = slow},
               AgedFor::kGeneration);
  if (!aged.ok()) return aged.status();
  young_until_ = aged->young_until;
  coverage_.reach.Add(aged->reach);
  turn_->working_set().Record(range, aged->young, range.start);
  if (in_totals == InTotals::kNo) return absl::OkStatus();
  totals_.young_pages += aged->young_page_count;
  totals_.mapped_pages += aged->young_page_count + aged->old_page_count;
  return absl::OkStatus();
}

void GenerationScan::End() {
  coverage_.others_cleared = turn_->OthersCleared();
  totals_.coverage = coverage_.ToFlags();
  turn_->working_set().End(MonotonicNanos(), totals_);
  ended_ = true;
}

}  // namespace mmu
