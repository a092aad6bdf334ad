#include "server/services/harvest_stream.h"

#include <bit>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/optional.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/error.h"
#include "mmu_core/dirty/dirty_log_state.h"
#include "mmu_core/vm/dirty_log_calls.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/vm/vm_config.h"
#include "server/base/errors.h"
#include "server/base/resource_names.h"
#include "server/services/call.h"
#include "server/services/convert.h"
#include "server/services/dirty_log_calls.h"
#include "server/services/dirty_log_codec.h"
#include "server/services/dirty_log_convert.h"

namespace mmud {
namespace {

constexpr int64_t kDefaultWindow = 8;
constexpr int64_t kMaxWindow = 64;

int64_t CountPages(const v1::DirtyLogChunk& chunk) {
  int64_t count = 0;
  for (const char byte : chunk.bitmap()) {
    count += std::popcount(static_cast<unsigned char>(byte));
  }
  for (const v1::Extent& extent : chunk.extents().extents()) {
    count += extent.size_bytes() >> mmu::kPageShift;
  }
  return count;
}

}  // namespace

absl::Status HarvestStream::KeepGoing() const {
  return CheckStream(context_, state_, *vm_);
}

mmu::LogCall HarvestStream::Call() const {
  mmu::LogCall call = call_;
  call.now = mmu::MonotonicTime::Now();
  return call;
}

absl::Status HarvestStream::Take(const v1::HarvestDirtyLogRequest& request) {
  using Part = v1::HarvestDirtyLogRequest;
  if (static_cast<bool>(vm_) != (request.part_case() != Part::kOpen)) {
    return InvalidField("INVALID_REQUEST", "open",
                        vm_ ? "open is set a second time; a stream harvests "
                              "one log: open another stream"
                            : "the first message is not open; it says which "
                              "log is to be harvested");
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
  return InvalidField("INVALID_REQUEST", "part",
                      "the message says nothing; set seal, clear or "
                      "acknowledge");
}

absl::Status HarvestStream::Open(const v1::HarvestOpen& open) {
  state_.call_log.NoteRequest(context_.id(), open);
  if (absl::Status status = take_(open.vm()); !status.ok()) return status;
  absl::StatusOr<VmUse> vm = FindVm(state_, open.vm(), "open.vm");
  if (!vm.ok()) return vm.status();
  if (absl::Status status = CheckStream(context_, state_, **vm); !status.ok()) {
    return status;
  }
  const absl::StatusOr<mmu::LogCall> call = ToLogCall(open);
  if (!call.ok()) return InField(call.status(), "open.");
  const absl::StatusOr<v1::DirtyLogEncoding> encoding =
      ToEncoding(open.encoding());
  if (!encoding.ok()) return InField(encoding.status(), "open.");
  const absl::StatusOr<int64_t> bytes =
      ToMessageBytes(open.max_message_bytes());
  if (!bytes.ok()) return InField(bytes.status(), "open.");
  if (open.window_chunk_count() < 0 || open.window_chunk_count() > kMaxWindow) {
    return WrongValue("INVALID_RANGE", "open.window_chunk_count",
                      open.window_chunk_count(),
                      absl::StrCat("from 1 to ", kMaxWindow,
                                   ", or 0, which is ", kDefaultWindow));
  }
  absl::StatusOr<std::vector<uint32_t>> slots = ToSlotIds(open.slots(), **vm);
  if (!slots.ok()) return InField(slots.status(), "open.");
  const absl::StatusOr<mmu::DirtyLogView> log =
      (*vm)->vm().RenewDirtyLogLease(*call);
  if (!log.ok()) {
    return InField(WithResource(log.status(), "mmud.v1.Vm", open.vm()),
                   "open.");
  }
  if (absl::Status status = PlanSlots(**vm, *log, 0, *slots).status();
      !status.ok()) {
    return status;
  }
  call_ = *call;
  // Another log of the same owner's is another harvest.
  call_.log_id = log->state.id;
  slots_ = *std::move(slots);
  encoding_ = *encoding;
  message_bytes_ = *bytes;
  window_ = static_cast<size_t>(open.window_chunk_count() == 0
                                    ? kDefaultWindow
                                    : open.window_chunk_count());
  *answers_.emplace_back().mutable_opened() = ToProto(**vm, *log);
  vm_ = *std::move(vm);
  return absl::OkStatus();
}

absl::Status HarvestStream::SealLog(const v1::HarvestSeal& seal) {
  absl::StatusOr<v1::SealDirtyLogResponse> sealed =
      Seal(*vm_, Call(), seal.acknowledged_epoch());
  if (!sealed.ok()) return InField(sealed.status(), "seal.");
  state_.call_log.NotePartDone(context_.id());
  epoch_ = sealed->epoch();
  sent_.clear();
  ahead_.reset();
  *answers_.emplace_back().mutable_sealed() = *std::move(sealed);
  const absl::optional<mmu::DirtyLogView> log = vm_->vm().FindDirtyLog();
  if (!log.has_value()) return DirtyLogOff(*vm_);
  DirtyLogPlan plan;
  plan.log_id = *call_.log_id;
  plan.epoch = static_cast<uint64_t>(epoch_);
  plan.encoding = encoding_;
  plan.message_bytes = message_bytes_;
  absl::StatusOr<std::vector<SlotPlan>> slots =
      PlanSlots(*vm_, *log, plan.epoch, slots_);
  if (!slots.ok()) return slots.status();
  plan.slots = *std::move(slots);
  chunks_ = std::make_unique<DirtyPageChunks>(std::move(plan));
  return absl::OkStatus();
}

absl::Status HarvestStream::ClearChunk(const v1::HarvestClear& clear) {
  const auto chunk = sent_.find(clear.number());
  if (chunk == sent_.end()) {
    return mmu::MakeError(
        absl::StatusCode::kAborted, {"EPOCH_MISMATCH", "clear.number"},
        absl::StrCat("clear.number is ", clear.number(),
                     "; it must be a chunk of this stream's newest seal, which "
                     "is cleared once"));
  }
  const SentChunk sent = chunk->second;
  const absl::optional<mmu::MemslotInfo> slot = vm_->FindSlot(sent.slot);
  if (!slot.has_value()) {
    return MemslotNotFound(MakeMemslotName(vm_->name(), sent.slot));
  }
  if (sent.gpa < slot->config.gpa) {
    return mmu::MakeError(
        absl::StatusCode::kAborted, {"EPOCH_MISMATCH", "clear.number"},
        absl::StrCat("memslot ", sent.slot, " was moved since chunk ",
                     clear.number(), " was sent; seal again"));
  }
  NamedPages pages;
  pages.slot = sent.slot;
  pages.first_page = (sent.gpa - slot->config.gpa) >> mmu::kPageShift;
  pages.page_count = sent.page_count;
  pages.mask.assign((sent.page_count + 63) / 64, ~uint64_t{0});
  absl::StatusOr<v1::ClearDirtyLogResponse> cleared = Clear(
      *vm_, Call(), epoch_, pages,
      {.keep_going = [this] { return KeepGoing(); },
       .part_done = [this] { state_.call_log.NotePartDone(context_.id()); }});
  if (!cleared.ok()) return InField(cleared.status(), "clear.");
  // The mask has the clean pages of the range, too; of the chunk's own count.
  cleared->set_already_clean_page_count(
      sent.dirty_count - cleared->cleared_page_count() -
      cleared->already_in_flight_page_count());
  sent_.erase(chunk);
  v1::HarvestCleared* answer = answers_.emplace_back().mutable_cleared();
  answer->set_number(clear.number());
  *answer->mutable_result() = *std::move(cleared);
  return absl::OkStatus();
}

absl::Status HarvestStream::AcknowledgeEpoch(
    const v1::HarvestAcknowledge& acknowledge) {
  absl::StatusOr<v1::AcknowledgePagesResponse> result =
      Acknowledge(*vm_, Call(), acknowledge.epoch(), nullptr);
  if (!result.ok()) return InField(result.status(), "acknowledge.");
  state_.call_log.NotePartDone(context_.id());
  *answers_.emplace_back().mutable_acknowledged() = *std::move(result);
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
  // Looked at though the window may be full: behind the last chunk the trailer
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
  if (sent_.size() >= window_) return false;
  SentChunk sent;
  sent.slot = static_cast<uint32_t>(ahead_->slot());
  sent.gpa = mmu::Gpa(static_cast<uint64_t>(ahead_->gpa_bytes()));
  sent.page_count =
      static_cast<uint64_t>(ahead_->size_bytes()) >> mmu::kPageShift;
  sent.dirty_count = CountPages(*ahead_);
  sent_[++last_number_] = sent;
  response->mutable_chunk()->set_number(last_number_);
  *response->mutable_chunk()->mutable_pages() = *std::move(ahead_);
  ahead_.reset();
  return true;
}

}  // namespace mmud
