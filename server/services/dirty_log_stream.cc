#include "server/services/dirty_log_stream.h"

#include <algorithm>
#include <bit>
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
#include "mmu_core/base/clock.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/vm/vm_config.h"
#include "server/base/errors.h"
#include "server/base/resource_names.h"
#include "server/services/convert.h"
#include "server/services/dirty_log_codec.h"

namespace mmud {
namespace {

constexpr uint64_t kWordPages = 64;

absl::Status BadResume(absl::string_view message) {
  return InvalidField("INVALID_RESUME_OFFSET", "start_gpa_bytes", message);
}

// The wanted range in pages from the slot's start.
absl::Status PlanRange(const v1::GetDirtyLogRequest& request,
                       mmu::GfnRange slot, DirtyLogPlan* plan) {
  plan->end_page = slot.pages();
  if (!request.has_range()) return absl::OkStatus();
  absl::StatusOr<mmu::GfnRange> range = ToRange(request.range(), "range");
  if (!range.ok()) return range.status();
  if (absl::Status status = CheckInsideSlots(*range, {slot}, "range");
      !status.ok()) {
    return status;
  }
  plan->first_page = range->start - slot.start;
  plan->end_page = range->end - slot.start;
  if (plan->first_page % kWordPages != 0 ||
      (plan->end_page % kWordPages != 0 && plan->end_page != slot.pages())) {
    return InvalidField(
        "INVALID_RANGE", "range",
        absl::StrCat("range is ", request.range().size_bytes(), " bytes from ",
                     request.range().gpa_bytes(),
                     "; it must begin and end on a multiple of 64 pages from "
                     "the slot's start, or at the slot's end"));
  }
  return absl::OkStatus();
}

absl::Status PlanResume(const v1::GetDirtyLogRequest& request,
                        mmu::GfnRange slot, DirtyLogPlan* plan) {
  if (request.start_gpa_bytes() == 0) return absl::OkStatus();
  if (plan->epoch == 0) {
    return BadResume(absl::StrCat("start_gpa_bytes is ",
                                  request.start_gpa_bytes(),
                                  ", which needs epoch: only a sealed epoch "
                                  "can be resumed"));
  }
  if (request.start_gpa_bytes() < 0 || request.start_gpa_bytes() % 4096 != 0) {
    return BadResume(absl::StrCat("start_gpa_bytes is ",
                                  request.start_gpa_bytes(),
                                  "; it must be a multiple of 64 pages from "
                                  "the slot's start"));
  }
  const mmu::Gfn start =
      mmu::ToGfn(mmu::Gpa(static_cast<uint64_t>(request.start_gpa_bytes())));
  // At the slot's end nothing is left to send but the trailer.
  if (start < slot.start + plan->first_page ||
      start > slot.start + plan->end_page ||
      ((start - slot.start) % kWordPages != 0 && start != slot.end)) {
    return BadResume(absl::StrCat(
        "start_gpa_bytes is ", request.start_gpa_bytes(),
        "; it must be within the range and a multiple of 64 pages from the "
        "slot's start, or the slot's end"));
  }
  plan->first_page = start - slot.start;
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<DirtyLogPlan> PlanDirtyLog(const v1::GetDirtyLogRequest& request,
                                          const ManagedVm& vm) {
  DirtyLogPlan plan;
  absl::StatusOr<uint32_t> slot = ToSlot(request.slot(), "slot");
  if (!slot.ok()) return slot.status();
  plan.slot = *slot;
  const absl::optional<mmu::MemslotInfo> info = vm.FindSlot(plan.slot);
  if (!info.has_value()) {
    return MemslotNotFound(MakeMemslotName(vm.name(), plan.slot));
  }
  plan.slot_start = info->config.gpa;
  if (request.mode() != v1::GET_DIRTY_LOG_MODE_PEEK &&
      request.mode() != v1::GET_DIRTY_LOG_MODE_SEAL) {
    return WrongValue("INVALID_DIRTY_LOG_MODE", "mode",
                      static_cast<int>(request.mode()), "PEEK or SEAL");
  }
  plan.mode = request.mode();
  if (request.epoch() < 0 ||
      (request.epoch() != 0 && plan.mode == v1::GET_DIRTY_LOG_MODE_PEEK)) {
    return WrongValue("INVALID_DIRTY_LOG_MODE", "epoch", request.epoch(),
                      "0 with PEEK, and 0 or a sealed epoch with SEAL");
  }
  plan.epoch = static_cast<uint64_t>(request.epoch());
  switch (request.encoding()) {
    case v1::DIRTY_LOG_ENCODING_UNSPECIFIED:
    case v1::DIRTY_LOG_ENCODING_AUTO:
      break;
    case v1::DIRTY_LOG_ENCODING_BITMAP:
    case v1::DIRTY_LOG_ENCODING_EXTENTS:
      plan.encoding = request.encoding();
      break;
    default:
      return WrongValue("INVALID_ENUM_VALUE", "encoding",
                        static_cast<int>(request.encoding()),
                        "AUTO, BITMAP or EXTENTS");
  }
  absl::StatusOr<int64_t> bytes = ToMessageBytes(request.max_message_bytes());
  if (!bytes.ok()) return bytes.status();
  plan.message_bytes = *bytes;
  const mmu::GfnRange range = mmu::GfnRange::Of(
      mmu::ToGfn(info->config.gpa), info->config.size_bytes >> mmu::kPageShift);
  if (absl::Status status = PlanRange(request, range, &plan); !status.ok()) {
    return status;
  }
  if (absl::Status status = PlanResume(request, range, &plan); !status.ok()) {
    return status;
  }
  return plan;
}

DirtyPageStream::DirtyPageStream(DirtyLogPlan plan, uint64_t epoch,
                                 v1::DirtyLogHeader header, VmUse vm,
                                 mmu::MmuCost cost)
    : plan_(plan),
      epoch_(epoch),
      header_(std::move(header)),
      vm_(std::move(vm)),
      cost_(cost),
      at_(plan.first_page) {}

absl::StatusOr<bool> DirtyPageStream::Next(
    const std::function<absl::Status()>& keep_going,
    v1::GetDirtyLogResponse* message) {
  switch (part_) {
    case Part::kHeader:
      *message->mutable_header() = header_;
      part_ = Part::kChunks;
      return true;
    case Part::kChunks: {
      if (chunks_.empty()) {
        if (absl::Status status = ReadPieces(keep_going); !status.ok()) {
          return status;
        }
      }
      if (!chunks_.empty()) {
        *message->mutable_chunk() = std::move(chunks_.front());
        chunks_.pop_front();
        return true;
      }
      totals_.set_crc32c(crc_);
      *totals_.mutable_cost() = ToProto(cost_);
      *message->mutable_trailer() = totals_;
      part_ = Part::kEnd;
      return true;
    }
    case Part::kEnd:
      break;
  }
  return false;
}

absl::Status DirtyPageStream::ReadPieces(
    const std::function<absl::Status()>& keep_going) {
  std::vector<uint64_t> words;
  const uint64_t step_pages = static_cast<uint64_t>(plan_.message_bytes) /
                              sizeof(uint64_t) * kWordPages;
  while (chunks_.empty() && at_ < plan_.end_page) {
    if (absl::Status status = keep_going(); !status.ok()) return status;
    const uint64_t end = std::min(at_ + step_pages, plan_.end_page);
    words.assign((end - at_ + kWordPages - 1) / kWordPages, 0);
    const mmu::MonotonicTime start = mmu::MonotonicTime::Now();
    absl::Status status =
        vm_->vm().ReadDirtyLog(plan_.slot, epoch_, at_, absl::MakeSpan(words));
    if (!status.ok()) return status;
    cost_.wall += mmu::MonotonicTime::Now() - start;
    for (v1::DirtyLogChunk& chunk : EncodeDirtyPages(
             plan_.slot_start + (at_ << mmu::kPageShift), words, end - at_,
             plan_.encoding, static_cast<size_t>(plan_.message_bytes))) {
      crc_ = PayloadCrc(chunk, crc_);
      totals_.set_chunk_count(totals_.chunk_count() + 1);
      chunks_.push_back(std::move(chunk));
    }
    int64_t dirty = 0;
    for (const uint64_t word : words) dirty += std::popcount(word);
    totals_.set_dirty_page_count(totals_.dirty_page_count() + dirty);
    vm_->TouchDirtyLog(mmu::MonotonicTime::Now());
    at_ = end;
  }
  return absl::OkStatus();
}

}  // namespace mmud
