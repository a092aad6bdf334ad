#include "server/control/dirty_log_stream.h"

#include <algorithm>
#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/optional.h"
#include "absl/types/span.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/bits.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/dirty/dirty_log.h"
#include "mmu_core/dirty/dirty_log_calls.h"
#include "mmu_core/dirty/dirty_log_state.h"
#include "mmu_core/dirty/log_range.h"
#include "mmu_core/vm/vm.h"
#include "server/base/errors.h"
#include "server/base/resource_names.h"
#include "server/control/dirty_log_calls.h"
#include "server/control/slot_ranges.h"

namespace mmud {
namespace {

mmu::GfnRange RangeOf(const SlotPlan& slot) {
  return mmu::GfnRange::Of(mmu::ToGfn(slot.slot_start), slot.slot_pages);
}

// Whether the epoch has pages of the slot; mmu_core decides.
absl::Status CheckReadable(const ManagedVm& vm, const mmu::LogId& log_id,
                           uint64_t epoch, uint32_t slot) {
  return vm.vm().ReadDirtyLog(log_id, slot, epoch, 0, absl::Span<uint64_t>());
}

// Narrows the only slot of the plan to the requested range.
absl::Status PlanRange(const DirtyPagesRequest& request, DirtyLogPlan* plan) {
  if (!request.range.has_value()) return absl::OkStatus();
  const mmu::GfnRange& range = *request.range;
  SlotPlan& slot = plan->slots[0];
  const mmu::GfnRange whole = RangeOf(slot);
  if (absl::Status status = CheckInsideSlots(range, {whole}, "range");
      !status.ok()) {
    return status;
  }
  slot.first_page = range.start - whole.start;
  slot.end_page = range.end - whole.start;
  if (!mmu::MayBeginLogRange(slot.first_page) ||
      !mmu::MayEndLogRange(slot.end_page, slot.slot_pages)) {
    return InvalidField(
        mmu::Reason::kInvalidRange, "range",
        absl::StrCat("range is ", range.bytes(), " bytes from ",
                     mmu::ToGpa(range.start).value(),
                     "; it must begin and end on a multiple of 64 pages from "
                     "the slot's start, or at the slot's end"));
  }
  return absl::OkStatus();
}

absl::Status BadResume(absl::string_view field, absl::string_view message) {
  return InvalidField(mmu::Reason::kInvalidResumeOffset, field, message);
}

// Leaves out the part before the position where the stream continues.
absl::Status PlanResume(const DirtyPagesRequest& request, DirtyLogPlan* plan) {
  if (!request.start.has_value()) return absl::OkStatus();
  if (plan->epoch == 0) {
    return BadResume("start",
                     "start is set and epoch is 0; only a sealed epoch can be "
                     "resumed");
  }
  const DirtyLogPosition& start = *request.start;
  const auto slot = std::find_if(
      plan->slots.begin(), plan->slots.end(), [&start](const SlotPlan& of) {
        return static_cast<int64_t>(of.slot) == start.slot;
      });
  if (slot == plan->slots.end()) {
    return BadResume("start.slot",
                     absl::StrCat("start.slot is ", start.slot,
                                  "; it must be a memslot that this stream "
                                  "sends"));
  }
  // If the position is the end of the slot's part, the next slot follows.
  const auto slot_start = static_cast<int64_t>(slot->slot_start.value());
  // Compared first, because the difference of arbitrary numbers may overflow.
  const bool is_before = start.gpa_bytes < slot_start;
  const uint64_t bytes =
      is_before ? 0 : static_cast<uint64_t>(start.gpa_bytes - slot_start);
  const uint64_t page = bytes >> mmu::kPageShift;
  if (is_before || bytes % mmu::kPageSize != 0 || page < slot->first_page ||
      page > slot->end_page || !mmu::MayEndLogRange(page, slot->slot_pages)) {
    return BadResume(
        "start.gpa_bytes",
        absl::StrCat("start.gpa_bytes is ", start.gpa_bytes,
                     "; it must be within the part of slot ", start.slot,
                     " that this stream sends, and a multiple of 64 pages from "
                     "the slot's start or "
                     "the slot's end"));
  }
  for (auto earlier = plan->slots.begin(); earlier != slot; ++earlier) {
    earlier->first_page = earlier->end_page;
  }
  slot->first_page = page;
  return absl::OkStatus();
}

absl::Status SlotOff(const ManagedVm& vm, uint32_t slot) {
  return WithResource(InFields(mmu::SlotNotInLog(slot), {{"slot", ""}}),
                      "mmud.v1.Memslot", MakeMemslotName(vm.name(), slot));
}

}  // namespace

absl::StatusOr<std::vector<SlotPlan>> PlanSlots(
    const ManagedVm& vm, const mmu::DirtyLogView& log, uint64_t epoch,
    const std::vector<uint32_t>& ids) {
  std::vector<SlotPlan> plans;
  auto wanted = ids.begin();
  for (const mmu::SlotLogState& slot : log.state.slots) {
    if (!ids.empty()) {
      if (wanted == ids.end() || *wanted > slot.slot) continue;
      if (*wanted < slot.slot) return SlotOff(vm, *wanted);
      ++wanted;
    } else if (epoch != 0 && slot.first_epoch > epoch) {
      continue;
    }
    const absl::optional<mmu::MemslotInfo> info = vm.FindSlot(slot.slot);
    if (!info.has_value()) {  // deleted since then
      if (ids.empty()) continue;
      return MemslotNotFound(MakeMemslotName(vm.name(), slot.slot));
    }
    SlotPlan plan;
    plan.slot = slot.slot;
    plan.slot_start = info->config.gpa;
    plan.slot_pages = info->config.size_bytes >> mmu::kPageShift;
    plan.end_page = plan.slot_pages;
    plans.push_back(plan);
  }
  if (wanted != ids.end()) return SlotOff(vm, *wanted);
  return plans;
}

absl::StatusOr<DirtyLogPlan> PlanDirtyLog(const DirtyPagesRequest& request,
                                          const ManagedVm& vm) {
  DirtyLogPlan plan;
  plan.epoch = request.epoch;
  const absl::StatusOr<mmu::DirtyLogView> log = GetLog(vm);
  if (!log.ok()) return log.status();
  plan.log_id = request.log_id.value_or(log->state.id);
  if (absl::Status status = vm.vm().CheckDirtyLogEpoch(plan.log_id, plan.epoch,
                                                       mmu::LogPages::kSealed);
      !status.ok()) {
    return AboutVm(std::move(status), vm.name());
  }
  absl::StatusOr<std::vector<SlotPlan>> slots =
      PlanSlots(vm, *log, plan.epoch, request.slots);
  if (!slots.ok()) return slots.status();
  plan.slots = *std::move(slots);
  // Called once for the stream: with page-modification logging all vCPUs exit
  // for it.
  if (plan.epoch == 0) {
    if (absl::Status status = vm.vm().TakeInNotedPages(); !status.ok()) {
      return AboutVm(std::move(status), vm.name());
    }
  }
  for (const SlotPlan& slot : plan.slots) {
    if (absl::Status status =
            CheckReadable(vm, plan.log_id, plan.epoch, slot.slot);
        !status.ok()) {
      return status;
    }
  }
  if (absl::Status status = PlanRange(request, &plan); !status.ok()) {
    return status;
  }
  if (absl::Status status = PlanResume(request, &plan); !status.ok()) {
    return status;
  }
  return plan;
}

DirtyLogReader::DirtyLogReader(DirtyLogPlan plan, uint64_t piece_pages)
    : plan_(std::move(plan)), piece_pages_(piece_pages) {
  if (!plan_.slots.empty()) at_ = plan_.slots[0].first_page;
}

absl::StatusOr<absl::optional<DirtyLogPiece>> DirtyLogReader::Next(
    const ManagedVm& vm, const std::function<absl::Status()>& keep_going) {
  while (slot_ < plan_.slots.size()) {
    if (absl::Status status = keep_going(); !status.ok()) return status;
    if (at_ < plan_.slots[slot_].end_page) {
      absl::StatusOr<absl::optional<DirtyLogPiece>> piece = ReadPiece(vm);
      if (!piece.ok() || piece->has_value()) return piece;
    } else if (++slot_ < plan_.slots.size()) {
      at_ = plan_.slots[slot_].first_page;
    }
  }
  return absl::optional<DirtyLogPiece>();
}

absl::StatusOr<absl::optional<DirtyLogPiece>> DirtyLogReader::ReadPiece(
    const ManagedVm& vm) {
  const SlotPlan& slot = plan_.slots[slot_];
  const uint64_t end = std::min(at_ + piece_pages_, slot.end_page);
  const uint64_t from = std::exchange(at_, end);
  const absl::optional<mmu::MemslotInfo> now = vm.FindSlot(slot.slot);
  const bool is_there =
      now.has_value() && now->config.gpa == slot.slot_start &&
      now->config.size_bytes >> mmu::kPageShift == slot.slot_pages;
  // A slot that has moved is no longer in the epoch; mmu_core reports that. A
  // peek skips it like a deleted slot.
  if (!now.has_value() || (!is_there && plan_.epoch == 0)) {
    at_ = slot.end_page;
    return absl::optional<DirtyLogPiece>();
  }
  DirtyLogPiece piece;
  piece.slot = slot.slot;
  piece.start = slot.slot_start + (from << mmu::kPageShift);
  piece.page_count = end - from;
  piece.words.resize(mmu::WordsFor(end - from));
  const mmu::MonotonicTime start = mmu::MonotonicTime::Now();
  absl::Status status = vm.vm().ReadDirtyLog(
      plan_.log_id, slot.slot, plan_.epoch, from, absl::MakeSpan(piece.words));
  cost_.wall += mmu::MonotonicTime::Now() - start;
  if (status.ok()) return piece;
  // Deleted since the look above.
  if (mmu::DetailOf(status).reason != mmu::Reason::kMemslotNotFound) {
    return status;
  }
  at_ = slot.end_page;
  return absl::optional<DirtyLogPiece>();
}

}  // namespace mmud
