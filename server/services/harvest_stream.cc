#include "server/services/harvest_stream.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/optional.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/dirty/dirty_log_calls.h"
#include "mmu_core/dirty/dirty_log_state.h"
#include "mmu_core/vm/core/vm_config.h"
#include "mmu_core/vm/vm.h"
#include "server/base/errors.h"
#include "server/base/resource_names.h"
#include "server/control/dirty_log_calls.h"
#include "server/control/named_pages.h"
#include "server/control/shown_vm.h"
#include "server/convert/dirty_log_calls_convert.h"
#include "server/convert/dirty_log_codec.h"
#include "server/convert/dirty_log_convert.h"
#include "server/convert/harvest_convert.h"
#include "server/services/call.h"

namespace mmud {
namespace {

// Maps the error of a call to the stream's message. The caller and the log come
// from `open`; any other field becomes `rest`, the message's own field.
absl::Status InMessage(const absl::Status& status, absl::string_view rest) {
  const std::string field = mmu::DetailOf(status).field;
  if (field.empty()) return status;
  if (field == "vm" || field == "owner_token" || field == "log_id") {
    return InField(status, "open.");
  }
  return OfField(status, rest);
}

// Reduces the counts of a clear of a chunk's whole range to the chunk's
// `dirty_count` pages. Pages of the chunk that this call did not clear were
// cleared by another call, and are in flight unless they were acknowledged
// since. The range may have more pages of both kinds.
void CountWithin(uint64_t dirty_count, mmu::ClearResult* result) {
  const uint64_t others = dirty_count - result->cleared_page_count;
  result->already_in_flight_page_count =
      std::min(others, result->already_in_flight_page_count);
  result->already_clean_page_count =
      others - result->already_in_flight_page_count;
}

}  // namespace

absl::Status HarvestStream::KeepGoing() const {
  return CheckStream(context_, state_, *vm_);
}

mmu::LogCall HarvestStream::Call() const {
  mmu::LogCall call = harvest_.call;
  call.now = mmu::MonotonicTime::Now();
  return call;
}

absl::Status HarvestStream::Take(const v1::HarvestDirtyLogRequest& request) {
  using Part = v1::HarvestDirtyLogRequest;
  if (static_cast<bool>(vm_) != (request.part_case() != Part::kOpen)) {
    return InvalidField(mmu::Reason::kInvalidRequest, "open",
                        vm_ ? "open is set a second time; a stream harvests "
                              "one log: open another stream"
                            : "the first message is not open; send open first, "
                              "with the VM and the log");
  }
  if (vm_) {
    if (absl::Status status = KeepGoing(); !status.ok()) return status;
  }
  switch (request.part_case()) {
    case Part::kOpen:
      return Open(request.open());
    case Part::kSeal:
      return SealLog(request.seal());
    case Part::kClear:
      return ClearChunk(request.clear());
    case Part::kAcknowledge:
      return AcknowledgeEpoch(request.acknowledge());
    case Part::PART_NOT_SET:
      break;
  }
  return InvalidField(mmu::Reason::kInvalidRequest, "seal",
                      "the message is empty; set seal, clear or acknowledge");
}

absl::Status HarvestStream::Open(const v1::HarvestOpen& open) {
  state_.call_log.NoteRequest(context_.id(), open);
  if (absl::Status status = take_(open.vm()); !status.ok()) return status;
  absl::StatusOr<VmUse> vm = FindVm(state_, open.vm(), "open.vm");
  if (!vm.ok()) return vm.status();
  if (absl::Status status = CheckStream(context_, state_, **vm); !status.ok()) {
    return status;
  }
  absl::StatusOr<HarvestCall> call = ToHarvestCall(open);
  if (!call.ok()) return call.status();
  if (absl::Status status = CheckSlots(**vm, call->slots); !status.ok()) {
    return InField(status, "open.");
  }
  const absl::StatusOr<mmu::DirtyLogView> log =
      (*vm)->vm().RenewDirtyLogLease(call->call);
  if (!log.ok()) {
    return InField(AboutLog(log.status(), open.vm()), "open.");
  }
  if (absl::Status status = PlanSlots(**vm, *log, 0, call->slots).status();
      !status.ok()) {
    return status;
  }
  harvest_ = *std::move(call);
  // Another log of the same owner is another harvest.
  harvest_.call.log_id = log->state.id;
  *answers_.emplace_back().mutable_opened() = ToProto(FactsOf(**vm), *log);
  vm_ = *std::move(vm);
  return absl::OkStatus();
}

absl::Status HarvestStream::SealLog(const v1::HarvestSeal& seal) {
  const absl::StatusOr<SealedLog> sealed =
      Seal(*vm_, Call(), ToEpoch(seal.acknowledged_epoch()));
  if (!sealed.ok()) {
    return InMessage(sealed.status(), "seal.acknowledged_epoch");
  }
  state_.call_log.NotePartDone(context_.id());
  epoch_ = sealed->outcome.epoch;
  sent_.clear();
  ahead_.reset();
  *answers_.emplace_back().mutable_sealed() = ToResponse(*sealed);
  const absl::StatusOr<mmu::DirtyLogView> log = GetLog(*vm_);
  if (!log.ok()) return log.status();
  DirtyLogPlan plan;
  plan.log_id = *harvest_.call.log_id;
  plan.epoch = epoch_;
  absl::StatusOr<std::vector<SlotPlan>> slots =
      PlanSlots(*vm_, *log, plan.epoch, harvest_.slots);
  if (!slots.ok()) return slots.status();
  plan.slots = *std::move(slots);
  sealed_slots_ = plan.slots;
  chunks_ = std::make_unique<DirtyPageChunks>(std::move(plan), harvest_.form);
  return absl::OkStatus();
}

absl::StatusOr<HarvestStream::SentChunk> HarvestStream::FindChunk(
    int64_t number) const {
  const auto chunk = sent_.find(number);
  if (chunk == sent_.end()) {
    return mmu::MakeError(
        absl::StatusCode::kAborted,
        {mmu::Reason::kEpochMismatch, "clear.number"},
        absl::StrCat("clear.number is ", number,
                     "; it must be the number of a chunk of this stream's "
                     "newest seal that is not cleared yet"));
  }
  const SentChunk& sent = chunk->second;
  const absl::optional<mmu::MemslotInfo> slot = vm_->FindSlot(sent.slot);
  if (!slot.has_value()) {
    return MemslotNotFound(MakeMemslotName(vm_->name(), sent.slot));
  }
  // A slot that has only moved has no pages in the epoch; mmu_core reports
  // that.
  if (slot->config.size_bytes >> mmu::kPageShift != sent.slot_pages) {
    return mmu::MakeError(
        absl::StatusCode::kAborted,
        {mmu::Reason::kEpochMismatch, "clear.number"},
        absl::StrCat("clear.number is ", number, ", and memslot ", sent.slot,
                     " was deleted and created again after that chunk was "
                     "sent; seal again"));
  }
  return sent;
}

absl::Status HarvestStream::ClearChunk(const v1::HarvestClear& clear) {
  const absl::StatusOr<SentChunk> sent = FindChunk(clear.number());
  if (!sent.ok()) return sent.status();
  NamedPages pages;
  pages.slot = sent->slot;
  pages.first_page = sent->first_page;
  pages.page_count = sent->page_count;
  pages.mask.assign((sent->page_count + 63) / 64, ~uint64_t{0});
  absl::StatusOr<ClearedPages> cleared = Clear(
      *vm_, Call(), epoch_, pages,
      {.keep_going = [this] { return KeepGoing(); },
       .part_done = [this] { state_.call_log.NotePartDone(context_.id()); }});
  if (!cleared.ok()) return InMessage(cleared.status(), "clear.number");
  CountWithin(sent->dirty_count, &cleared->result);
  sent_.erase(clear.number());
  v1::HarvestCleared* answer = answers_.emplace_back().mutable_cleared();
  answer->set_number(clear.number());
  *answer->mutable_result() = ToResponse(*cleared);
  return absl::OkStatus();
}

absl::Status HarvestStream::AcknowledgeEpoch(
    const v1::HarvestAcknowledge& acknowledge) {
  const absl::StatusOr<mmu::AcknowledgeResult> result =
      Acknowledge(*vm_, Call(), ToEpoch(acknowledge.epoch()), nullptr);
  if (!result.ok()) return InMessage(result.status(), "acknowledge.epoch");
  state_.call_log.NotePartDone(context_.id());
  *answers_.emplace_back().mutable_acknowledged() = ToResponse(*result);
  return absl::OkStatus();
}

absl::StatusOr<bool> HarvestStream::Next(
    v1::HarvestDirtyLogResponse* response) {
  if (!answers_.empty()) {
    *response = std::move(answers_.front());
    answers_.pop_front();
    return true;
  }
  if (chunks_ == nullptr) return false;
  // Done even if the window is full, so that the trailer after the last chunk
  // does not wait for a clear.
  if (!ahead_.has_value()) {
    absl::StatusOr<absl::optional<v1::DirtyLogChunk>> chunk =
        chunks_->Next(*vm_, [this] { return KeepGoing(); });
    if (!chunk.ok()) return chunk.status();
    ahead_ = *std::move(chunk);
  }
  if (!ahead_.has_value()) {
    *response->mutable_trailer() = chunks_->Trailer();
    chunks_ = nullptr;
    return true;
  }
  if (sent_.size() >= harvest_.window) return false;
  sent_[++last_number_] = Remember(*ahead_);
  response->mutable_chunk()->set_number(last_number_);
  *response->mutable_chunk()->mutable_pages() = *std::move(ahead_);
  ahead_.reset();
  return true;
}

HarvestStream::SentChunk HarvestStream::Remember(
    const v1::DirtyLogChunk& chunk) const {
  SentChunk sent;
  sent.slot = static_cast<uint32_t>(chunk.slot());
  const auto slot = std::find_if(
      sealed_slots_.begin(), sealed_slots_.end(),
      [&sent](const SlotPlan& of) { return of.slot == sent.slot; });
  MMU_CHECK(slot != sealed_slots_.end());
  sent.slot_pages = slot->slot_pages;
  sent.first_page =
      (mmu::Gpa(static_cast<uint64_t>(chunk.gpa_bytes())) - slot->slot_start) >>
      mmu::kPageShift;
  sent.page_count =
      static_cast<uint64_t>(chunk.size_bytes()) >> mmu::kPageShift;
  sent.dirty_count = static_cast<uint64_t>(CountPages(chunk));
  return sent;
}

}  // namespace mmud
