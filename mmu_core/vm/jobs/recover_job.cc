#include "mmu_core/vm/jobs/recover_job.h"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/memory/backing.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/sync/timed_wait.h"
#include "mmu_core/vm/core/huge_page_sizes.h"
#include "mmu_core/vm/core/slot_ranges.h"
#include "mmu_core/vm/core/vm_core.h"
#include "mmu_core/vm/jobs/recover_huge_pages.h"
#include "mmu_core/vm/jobs/throttle.h"
#include "mmu_core/vm/jobs/throttle_pause.h"

namespace mmu {
namespace {

// Whether the throttle may ask for pauses.
bool Paces(const Throttle& throttle) {
  return throttle.max_pages_per_second > 0 ||
         throttle.min_pause > absl::ZeroDuration() ||
         throttle.max_flushes_per_second > 0 ||
         throttle.max_vcpu_stall_ratio > 0;
}

// What a GiB can become, from the sum of its pieces: one page if any piece said
// so. Then its 2 MiB pages do not count.
RecoverOutcome OfGib(const RecoverOutcome& of_pieces) {
  if (of_pieces.to_1g_count == 0) return of_pieces;
  RecoverOutcome one;
  one.to_1g_count = 1;
  return one;
}

}  // namespace

void RecoverJob::AddPieces(const GfnRange& range, uint64_t pages,
                           Piece::Part part, std::vector<Piece>* pieces) {
  for (const GfnRange& piece : CutAt({range}, pages)) {
    pieces->push_back({piece, static_cast<int64_t>(piece.bytes()), part});
  }
}

std::vector<RecoverJob::Piece> RecoverJob::PiecesOf(
    const VmCore& vm, const std::vector<GfnRange>& ranges,
    const Throttle& throttle) {
  const uint64_t gib = PagesPer(Level::k1G);
  const HugePageSizes sizes = HugePageSizesOf(vm.config);
  // A whole number of the smallest huge pages, so that none lies in two pieces.
  const uint64_t smallest = sizes.smallest >> kPageShift;
  const uint64_t small =
      std::max(static_cast<uint64_t>(throttle.chunk_bytes) >> kPageShift,
               smallest) /
      smallest * smallest;
  std::vector<Piece> pieces;
  const std::vector<GfnRange> merged = UnionOf(ranges);
  auto range = merged.begin();
  RcuReadGuard rcu;
  for (const Memslot* slot : vm.slots.Active(0).slots()) {
    const GfnRange of_slot = slot->range();
    const bool may_be_1g = sizes.has_1g && slot->backing != nullptr &&
                           std::min(slot->backing->host_page_level(),
                                    vm.config.max_page_level) >= Level::k1G;
    // Without pauses, smaller chunks would only cost more flushes.
    const uint64_t chunk = may_be_1g && !Paces(throttle) ? gib : small;
    while (range != merged.end() && range->end <= of_slot.start) ++range;
    // The last range may continue in the next slot.
    for (auto in_slot = range;
         in_slot != merged.end() && in_slot->start < of_slot.end; ++in_slot) {
      const GfnRange part = in_slot->Intersect(of_slot);
      if (!may_be_1g) {
        AddPieces(part, chunk, Piece::Part::kAlone, &pieces);
        continue;
      }
      for (const GfnRange& block : CutAt({part}, gib)) {
        const bool in_parts = block.pages() == gib && chunk < gib;
        AddPieces(block, chunk,
                  in_parts ? Piece::Part::kOfGib : Piece::Part::kAlone,
                  &pieces);
        // 0 bytes: the block's parts have already counted the memory.
        if (in_parts) pieces.push_back({block, 0, Piece::Part::kGib});
      }
    }
  }
  return pieces;
}

RecoverJob::RecoverJob(VmCore& vm, const std::vector<GfnRange>& ranges,
                       const Throttle& throttle)
    : vm_(vm), throttle_(throttle), pieces_(PiecesOf(vm, ranges, throttle)) {
  for (const Piece& piece : pieces_) progress_.total_bytes += piece.bytes;
}

absl::Status RecoverJob::Run() {
  RecoverOutcome of_pieces;  // of the current GiB
  for (size_t i = 0; i < pieces_.size(); ++i) {
    const Piece& piece = pieces_[i];
    {
      MutexLock lock(mu_);
      if (stop_) {
        progress_.cancelled = true;
        progress_.recovered += OfGib(of_pieces);
        return absl::OkStatus();
      }
    }
    MmuCost cost;
    const int64_t stalled = StallNanos();
    const absl::StatusOr<RecoverOutcome> recovered =
        RecoverHugePages(vm_, {piece.range}, &cost, throttle_.max_lock_hold);
    if (!recovered.ok()) {
      MutexLock lock(mu_);
      progress_.recovered += OfGib(of_pieces);
      return recovered.status();
    }
    const ThrottlePause pause =
        PauseAfter({.bytes = piece.bytes,
                    .tlb_flushes = cost.tlb_flush_count,
                    .wall = cost.wall,
                    .stalled = absl::Nanoseconds(StallNanos() - stalled) /
                               vm_.config.vcpu_count},
                   throttle_);
    {
      MutexLock lock(mu_);
      progress_.done_bytes += piece.bytes;
      progress_.cost.Add(cost);
      if (piece.part == Piece::Part::kAlone) {
        progress_.recovered += *recovered;
      } else {
        of_pieces += *recovered;
        if (piece.part == Piece::Part::kGib) {
          progress_.recovered += OfGib(of_pieces);
          of_pieces = {};
        }
      }
    }
    // No pause after the last piece.
    if (i + 1 < pieces_.size()) Sleep(pause);
  }
  return absl::OkStatus();
}

int64_t RecoverJob::StallNanos() const {
  // Computed only if the throttle needs it, since it visits every vCPU.
  return throttle_.max_vcpu_stall_ratio == 0 ? 0 : vm_.StallNanos();
}

void RecoverJob::Sleep(const ThrottlePause& pause) {
  if (pause.length <= absl::ZeroDuration()) return;
  const MonotonicTime begin = MonotonicTime::Now();
  MutexLock lock(mu_);
  while (!stop_ && WaitUntil(stopped_, mu_, begin + pause.length)) {
  }
  progress_.throttled[static_cast<size_t>(pause.limit)] +=
      MonotonicTime::Now() - begin;
}

void RecoverJob::Cancel() {
  MutexLock lock(mu_);
  stop_ = true;
  stopped_.NotifyAll();
}

RecoverJob::Progress RecoverJob::progress() const {
  MutexLock lock(mu_);
  return progress_;
}

std::vector<GfnRange> CutAt(const std::vector<GfnRange>& ranges,
                            uint64_t pages) {
  std::vector<GfnRange> pieces;
  for (const GfnRange& range : ranges) {
    for (Gfn at = range.start; at < range.end;) {
      const Gfn next((at.value() / pages + 1) * pages);
      pieces.push_back({at, std::min(next, range.end)});
      at = next;
    }
  }
  return pieces;
}

}  // namespace mmu
