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
#include "mmu_core/memory/memslot.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/sync/spin.h"
#include "mmu_core/vm/core/missing_slots.h"
#include "mmu_core/vm/core/slot_ranges.h"
#include "mmu_core/vm/core/vm_core.h"
#include "mmu_core/vm/jobs/age_range.h"
#include "mmu_core/working_set/slot_maps.h"
#include "mmu_core/working_set/working_set.h"

namespace mmu {
namespace {

// Of GenerationCoverage::ToFlags: four bits for each MMU, and then the others.
constexpr uint32_t kAskedFlag = 1;
constexpr uint32_t kSkippedFlag = 2;
constexpr int kLockShift = 2;
constexpr uint32_t kLockMask = 3;
constexpr int kBitsPerMmu = 4;
constexpr uint32_t kLookAroundFlag = 1u << 29;
constexpr uint32_t kIncompleteFlag = 1u << 30;
constexpr uint32_t kOthersClearedFlag = 1u << 31;

std::vector<TrackedSlot> SlotsOf(const VmCore& vm) {
  std::vector<TrackedSlot> slots;
  RcuReadGuard rcu;
  for (const auto& slot : vm.slots.Active(/*as_id=*/0).slots()) {
    if (slot->invalid()) continue;
    slots.push_back({slot->id, slot->uid, slot->range()});
  }
  return slots;
}

std::vector<GfnRange> RangesOf(const std::vector<TrackedSlot>& slots) {
  std::vector<GfnRange> ranges;
  ranges.reserve(slots.size());
  for (const TrackedSlot& slot : slots) ranges.push_back(slot.range);
  return UnionOf(std::move(ranges));
}

// A page of the batch: another one in each of 64 generations.
Gfn ProbedPage(GfnRange batch, uint64_t sequence) {
  constexpr uint64_t kStep = 37;  // odd, so that all pages have their turn
  return batch.start + sequence * kStep % batch.pages();
}

}  // namespace

uint32_t GenerationCoverage::ToFlags() const {
  uint32_t flags = 0;
  for (size_t i = 0; i < reach.mmus.size(); ++i) {
    const AgeReach::Mmu& mmu = reach.mmus[i];
    const uint32_t bits = (mmu.asked ? kAskedFlag : 0) |
                          (mmu.skipped ? kSkippedFlag : 0) |
                          static_cast<uint32_t>(mmu.lock) << kLockShift;
    flags |= bits << (kBitsPerMmu * i);
  }
  if (look_around) flags |= kLookAroundFlag;
  if (incomplete) flags |= kIncompleteFlag;
  if (others_cleared) flags |= kOthersClearedFlag;
  return flags;
}

GenerationCoverage GenerationCoverage::FromFlags(uint32_t flags) {
  GenerationCoverage coverage;
  for (size_t i = 0; i < coverage.reach.mmus.size(); ++i) {
    const uint32_t bits = flags >> (kBitsPerMmu * i);
    coverage.reach.mmus[i] = {
        .asked = (bits & kAskedFlag) != 0,
        .skipped = (bits & kSkippedFlag) != 0,
        .lock = static_cast<AgingLock>(bits >> kLockShift & kLockMask)};
  }
  coverage.look_around = (flags & kLookAroundFlag) != 0;
  coverage.incomplete = (flags & kIncompleteFlag) != 0;
  coverage.others_cleared = (flags & kOthersClearedFlag) != 0;
  return coverage;
}

absl::StatusOr<std::unique_ptr<GenerationScan>> GenerationScan::Begin(
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
  const std::vector<TrackedSlot> slots = SlotsOf(vm);
  WorkingSet& working_set = turn->working_set();
  if (absl::Status status = working_set.SyncSlots(slots); !status.ok()) {
    return status;
  }
  const uint64_t sequence = working_set.Begin(MonotonicNanos());
  return absl::WrapUnique(new GenerationScan(vm, options, std::move(turn),
                                             RangesOf(slots), sequence));
}

GenerationScan::GenerationScan(VmCore& vm, const GenerationOptions& options,
                               std::unique_ptr<TrackedWorkingSet::Turn> turn,
                               std::vector<GfnRange> ranges, uint64_t sequence)
    : vm_(vm),
      options_(options),
      turn_(std::move(turn)),
      ranges_(std::move(ranges)),
      sequence_(sequence) {
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
  const GfnRange piece = NextPiece();
  if (absl::Status status = ExaminePiece(piece); !status.ok()) {
    coverage_.incomplete = true;
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
  if (options_.scope == ScanScope::kEveryPage) {
    return AgeAndRecord(piece, options_.fast_only, InTotals::kYes);
  }
  while (!piece.empty()) {
    const uint64_t in_batch = piece.start.value() % kLookAroundBatch;
    const Gfn end =
        std::min(piece.start + (kLookAroundBatch - in_batch), piece.end);
    if (absl::Status status = ExamineBatch({piece.start, end}); !status.ok()) {
      return status;
    }
    piece.start = end;
  }
  return absl::OkStatus();
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
