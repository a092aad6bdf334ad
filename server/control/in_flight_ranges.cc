#include "server/control/in_flight_ranges.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/optional.h"
#include "absl/types/span.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/dirty/dirty_log_calls.h"
#include "mmu_core/dirty/dirty_log_state.h"
#include "mmu_core/vm/core/vm_config.h"
#include "mmu_core/vm/vm.h"
#include "server/base/errors.h"
#include "server/control/dirty_log_calls.h"
#include "server/control/slot_ranges.h"

namespace mmud {
namespace {

constexpr uint64_t kWordPages = 64;
// Pages examined in one step: 2 GiB of guest memory, 64 KiB of bits.
constexpr uint64_t kPiecePages = 1 << 19;

}  // namespace

absl::StatusOr<InFlightRanges> InFlightRanges::Create(
    const PagesInFlight& pages, const ManagedVm& vm) {
  if (pages.range.has_value()) {
    if (absl::Status status = CheckInsideSlots(
            *pages.range, SlotRanges(vm.SortedSlots()), "in_flight.range");
        !status.ok()) {
      return status;
    }
  }
  const absl::StatusOr<mmu::DirtyLogView> log = GetLog(vm);
  if (!log.ok()) return log.status();
  if (absl::Status status = vm.vm().CheckDirtyLogEpoch(
          pages.log_id, pages.epoch, mmu::LogPages::kInFlight);
      !status.ok()) {
    return InField(AboutVm(std::move(status), vm.name()), "in_flight.");
  }
  InFlightRanges ranges;
  ranges.log_id_ = pages.log_id;
  ranges.epoch_ = pages.epoch;
  for (const mmu::SlotLogState& state : log->state.slots) {
    // Whether the slot is logged; mmu_core decides.
    absl::Status readable = vm.vm().ReadInFlight(
        pages.log_id, state.slot, pages.epoch, 0, absl::Span<uint64_t>());
    if (mmu::DetailOf(readable).reason == mmu::Reason::kMemslotNotFound) {
      continue;
    }
    if (!readable.ok()) {
      return InField(AboutVm(readable, vm.name()), "in_flight.");
    }
    const absl::optional<mmu::MemslotInfo> slot = vm.FindSlot(state.slot);
    if (!slot.has_value()) continue;  // deleted since then
    const mmu::GfnRange whole =
        mmu::GfnRange::Of(mmu::ToGfn(slot->config.gpa),
                          slot->config.size_bytes >> mmu::kPageShift);
    const mmu::GfnRange wanted =
        pages.range.has_value() ? pages.range->Intersect(whole) : whole;
    if (wanted.empty()) continue;
    ranges.parts_.push_back({.slot = state.slot,
                             .slot_start = whole.start,
                             .first_page = wanted.start - whole.start,
                             .end_page = wanted.end - whole.start});
  }
  if (!ranges.parts_.empty()) ranges.at_ = ranges.parts_[0].first_page;
  return ranges;
}

std::vector<mmu::GfnRange> InFlightRanges::Within() const {
  std::vector<mmu::GfnRange> ranges;
  for (const Part& part : parts_) {
    ranges.push_back(mmu::GfnRange::Of(part.slot_start + part.first_page,
                                       part.end_page - part.first_page));
  }
  return ranges;
}

absl::StatusOr<std::vector<mmu::GfnRange>> InFlightRanges::Next(
    const ManagedVm& vm) {
  while (part_ < parts_.size()) {
    const Part& part = parts_[part_];
    if (at_ >= part.end_page) {
      if (++part_ < parts_.size()) at_ = parts_[part_].first_page;
      continue;
    }
    const uint64_t from = at_;
    at_ =
        std::min(from / kPiecePages * kPiecePages + kPiecePages, part.end_page);
    absl::StatusOr<std::vector<mmu::GfnRange>> ranges =
        ReadPiece(vm, part, from, at_);
    if (!ranges.ok() || !ranges->empty()) return ranges;
  }
  return std::vector<mmu::GfnRange>();
}

absl::StatusOr<std::vector<mmu::GfnRange>> InFlightRanges::ReadPiece(
    const ManagedVm& vm, const Part& part, uint64_t from, uint64_t end) const {
  std::vector<mmu::GfnRange> ranges;
  const absl::optional<mmu::MemslotInfo> slot = vm.FindSlot(part.slot);
  // A slot that is gone or has moved has no earlier pages in flight.
  if (!slot.has_value() || mmu::ToGfn(slot->config.gpa) != part.slot_start) {
    return ranges;
  }
  const uint64_t first = from / kWordPages * kWordPages;
  std::vector<uint64_t> words((end - first + kWordPages - 1) / kWordPages);
  absl::Status status = vm.vm().ReadInFlight(log_id_, part.slot, epoch_, first,
                                             absl::MakeSpan(words));
  if (!status.ok()) {
    if (mmu::DetailOf(status).reason == mmu::Reason::kMemslotNotFound) {
      return ranges;
    }
    return status;
  }
  for (uint64_t page = from; page < end; ++page) {
    const uint64_t i = page - first;
    if ((words[i / kWordPages] >> i % kWordPages & 1) == 0) continue;
    const mmu::Gfn gfn = part.slot_start + page;
    if (!ranges.empty() && ranges.back().end == gfn) {
      ranges.back().end = gfn + 1;
    } else {
      ranges.push_back(mmu::GfnRange::Of(gfn, 1));
    }
  }
  return ranges;
}

}  // namespace mmud
