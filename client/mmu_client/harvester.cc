#include "client/mmu_client/harvester.h"

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "client/mmu_client/dirty_log_stream.h"
#include "client/mmu_client/error_info.h"
#include "client/mmu_client/page_bitmap.h"
#include "client/mmu_client/request_id.h"
#include "google/protobuf/util/time_util.h"
#include "mmu_core/base/clock.h"
#include "mmud/v1/dirty_log_service.pb.h"
#include "mmud/v1/error_reasons.pb.h"

namespace mmud::client {
namespace {

using google::protobuf::util::TimeUtil;

constexpr int64_t kWordBytes = kPagesPerWord * kPageBytes;

// True if the stream can be resumed: the connection broke, or the received data
// differs from the sent data.
bool IsBrokenStream(const absl::Status& status) {
  return IsRetryable(status) || absl::IsDataLoss(status);
}

// True if a slot was moved, deleted or made since the seal. The pages of a
// moved or new slot are in the next epoch. INVALID_RESUME_OFFSET means this for
// the slot in which a stream broke.
bool IsOvertaken(const absl::Status& status) {
  const v1::ErrorReason reason = ReasonOf(status);
  return reason == v1::EPOCH_SUPERSEDED || reason == v1::EPOCH_MISMATCH ||
         reason == v1::MEMSLOT_NOT_FOUND || reason == v1::DIRTY_LOG_OFF ||
         reason == v1::INVALID_RESUME_OFFSET;
}

// True if the maximum number of epochs has pages in flight. Nothing was
// cleared.
bool NeedsAcknowledgement(const absl::Status& status) {
  const ErrorInfo info = ErrorInfoOf(status);
  const auto limit = info.metadata.find("limit");
  return ReasonOf(info) == v1::LIMIT_EXCEEDED && limit != info.metadata.end() &&
         limit->second == "epochs_in_flight";
}

// True if `a` is further on in the stream than `b`.
bool IsBehind(const v1::DirtyLogPosition& a, const v1::DirtyLogPosition& b) {
  return a.slot() != b.slot() ? a.slot() > b.slot()
                              : a.gpa_bytes() > b.gpa_bytes();
}

// Where to resume an epoch after all pages before `next` have arrived: a
// multiple of 64 pages, or the slot's end.
v1::DirtyLogPosition ResumeAt(const GpaRange& slot, v1::DirtyLogPosition next) {
  const int64_t offset = next.gpa_bytes() - slot.gpa_bytes;
  if (offset < slot.size_bytes) {
    next.set_gpa_bytes(slot.gpa_bytes + offset / kWordBytes * kWordBytes);
  }
  return next;
}

// The pages of all slots, ascending by address.
std::vector<GpaRange> RangesOf(const SlotBitmaps& pages) {
  std::vector<GpaRange> ranges;
  for (const auto& [slot, bitmap] : pages) {
    const std::vector<GpaRange> more = bitmap.Ranges();
    ranges.insert(ranges.end(), more.begin(), more.end());
  }
  std::sort(ranges.begin(), ranges.end(),
            [](const GpaRange& a, const GpaRange& b) {
              return a.gpa_bytes < b.gpa_bytes;
            });
  return ranges;
}

bool IsEmpty(const SlotBitmaps& pages) {
  for (const auto& [slot, bitmap] : pages) {
    if (!bitmap.empty()) return false;
  }
  return true;
}

// The pages of `piece`, all of which are in slots of `left`.
absl::StatusOr<SlotBitmaps> BitmapsOf(const HarvestPiece& piece,
                                      const SlotBitmaps& left) {
  SlotBitmaps pages;
  for (const auto& [slot, ranges] : piece) {
    PageBitmap& bitmap =
        pages.try_emplace(slot, left.at(slot).range()).first->second;
    for (const GpaRange& range : ranges) {
      if (absl::Status status = bitmap.Add(range); !status.ok()) return status;
    }
  }
  return pages;
}

}  // namespace

void AddCost(const v1::MmuCost& cost, v1::MmuCost* sum) {
  *sum->mutable_wall_time() = sum->wall_time() + cost.wall_time();
  *sum->mutable_lock_wait() = sum->lock_wait() + cost.lock_wait();
  // Set the field even if it is zero, so that the sum has all its fields.
  *sum->mutable_max_lock_hold() =
      std::max(sum->max_lock_hold(), cost.max_lock_hold());
  sum->set_tlb_flush_count(sum->tlb_flush_count() + cost.tlb_flush_count());
  sum->set_vcpus_kicked_count(sum->vcpus_kicked_count() +
                              cost.vcpus_kicked_count());
  sum->set_sptes_visited_count(sum->sptes_visited_count() +
                               cost.sptes_visited_count());
}

int64_t Harvest::page_count() const {
  int64_t count = 0;
  for (const auto& [slot, bitmap] : pages) count += bitmap.page_count();
  return count;
}

std::vector<GpaRange> Harvest::Ranges() const { return RangesOf(pages); }

HarvestPiece WholeHarvest(const SlotBitmaps& pages) {
  HarvestPiece all;
  for (const auto& [slot, bitmap] : pages) all[slot] = bitmap.Ranges();
  return all;
}

Harvester::Harvester(DirtyLogClient* client, std::string vm,
                     std::string owner_token, HarvesterOptions options)
    : client_(client),
      vm_(std::move(vm)),
      owner_token_(std::move(owner_token)),
      options_(std::move(options)),
      log_id_(options_.log_id) {}

absl::StatusOr<Harvest> Harvester::Run() {
  return RunInPieces(
      [](int64_t, const SlotBitmaps& left) { return WholeHarvest(left); },
      [](const std::vector<GpaRange>&) { return absl::OkStatus(); });
}

absl::StatusOr<Harvest> Harvester::RunInPieces(const NextPiece& next,
                                               const CopyPiece& copy) {
  Harvest harvest;
  harvest.oldest_epoch = kNone;
  // An error of `copy` is not one of this log, whatever its code is.
  absl::Status copied;
  const CopyPiece copy_once = [&](const std::vector<GpaRange>& ranges) {
    copied = copy(ranges);
    return copied;
  };
  if (absl::Status status = RepeatClear(&harvest); !status.ok()) return status;
  while (true) {
    absl::Status status = Seal(&harvest);
    if (!status.ok()) return status;
    SlotBitmaps received;
    status = Receive(&harvest, &received);
    if (status.ok()) {
      status = TakePieces(received, next, copy_once, &harvest);
      if (!copied.ok()) return copied;
    }
    if (status.ok()) {
      Finish(&harvest);
      return harvest;
    }
    if (!IsOvertaken(status) ||
        harvest.restart_count >= options_.max_restarts) {
      return status;
    }
    ++harvest.restart_count;
  }
}

absl::Status Harvester::TakePieces(const SlotBitmaps& received,
                                   const NextPiece& next, const CopyPiece& copy,
                                   Harvest* harvest) {
  for (const auto& [slot, pages] : received) {
    harvest->pages.try_emplace(slot, pages.range());
  }
  SlotBitmaps left = received;
  bool is_first = true;
  while (true) {
    SlotBitmaps pages;
    if (!IsEmpty(left)) {
      const absl::StatusOr<SlotBitmaps> piece =
          BitmapsOf(next(harvest->epoch, left), left);
      if (!piece.ok()) return piece.status();
      pages = *piece;
    }
    // Owed pages are copied even if none is sealed.
    if (IsEmpty(pages) && !is_first) return absl::OkStatus();
    is_first = false;
    absl::Status status = Clear(pages, harvest);
    // With too many epochs in flight no page can be cleared, so their pages
    // that were not yet returned are copied and acknowledged first.
    const bool is_full = NeedsAcknowledgement(status) && !owed_.empty();
    if (!status.ok() && !is_full) return status;
    status = HandOutAndCopy(received, copy, harvest);
    if (!status.ok() || is_full) return status;
    for (const auto& [slot, bitmap] : pages) {
      status = left.at(slot).Subtract(bitmap);
      if (!status.ok()) return status;
    }
  }
}

absl::Status Harvester::HandOutAndCopy(const SlotBitmaps& received,
                                       const CopyPiece& copy,
                                       Harvest* harvest) {
  const int64_t owed_from = owed_from_;
  const SlotBitmaps pages = TakeOwed(received);
  if (absl::Status status = copy(RangesOf(pages)); !status.ok()) {
    for (const auto& [slot, bitmap] : pages) {
      if (!bitmap.empty()) Owe(slot, bitmap, owed_from);
    }
    return status;
  }
  harvest->oldest_epoch = std::min(harvest->oldest_epoch, owed_from);
  for (const auto& [slot, bitmap] : pages) {
    PageBitmap& all = harvest->pages.try_emplace(slot, bitmap).first->second;
    // A slot with another range was moved since: its earlier pages are not in
    // flight any more.
    if (!all.Merge(bitmap).ok()) all = bitmap;
  }
  return absl::OkStatus();
}

SlotBitmaps Harvester::TakeOwed(const SlotBitmaps& received) {
  SlotBitmaps taken;
  for (auto& [slot, pages] : owed_) {
    const auto it = received.find(slot);
    // A slot with another range, or one that is not in the epoch, has no pages
    // in flight any more: it was moved or deleted.
    if (it != received.end() && it->second.range() == pages.range()) {
      taken.emplace(slot, std::move(pages));
    }
  }
  owed_.clear();
  owed_from_ = kNone;
  return taken;
}

void Harvester::Finish(Harvest* harvest) {
  harvest->oldest_epoch = std::min(harvest->oldest_epoch, harvest->epoch);
  if (harvest->oldest_epoch < harvest->epoch) {
    split_from_ = std::min(split_from_, harvest->oldest_epoch);
    split_until_ = harvest->epoch;
  }
  handed_out_epoch_ = harvest->epoch;
}

absl::Status Harvester::Delivered(int64_t epoch) {
  if (epoch <= 0 || epoch > handed_out_epoch_) {
    return absl::FailedPreconditionError(absl::StrFormat(
        "no harvest of epoch %d was returned; the last one is of epoch %d",
        epoch, handed_out_epoch_));
  }
  if (epoch >= owed_from_ || (epoch >= split_from_ && epoch < split_until_)) {
    return absl::FailedPreconditionError(absl::StrFormat(
        "pages of epoch %d, or of an earlier epoch, are part of a later "
        "harvest; copy the pages of that harvest and acknowledge its epoch",
        epoch));
  }
  if (epoch >= split_until_) {
    split_from_ = kNone;
    split_until_ = 0;
  }
  delivered_epoch_ = std::max(delivered_epoch_, epoch);
  return absl::OkStatus();
}

absl::Status Harvester::Acknowledge() {
  if (delivered_epoch_ == 0) return absl::OkStatus();
  v1::AcknowledgePagesRequest request;
  request.set_vm(vm_);
  request.set_owner_token(owner_token_);
  request.set_log_id(log_id_);
  request.set_epoch(delivered_epoch_);
  const auto response = client_->AcknowledgePages(std::move(request));
  if (!response.ok()) return response.status();
  delivered_epoch_ = 0;
  return absl::OkStatus();
}

void Harvester::GiveBack(const Harvest& harvest) {
  for (const auto& [slot, pages] : harvest.pages) {
    if (!pages.empty()) Owe(slot, pages, harvest.oldest_epoch);
  }
}

absl::StatusOr<v1::UndeliveredPages> Harvester::CountUndelivered() {
  v1::GetDirtyLogRequest request;
  request.set_vm(vm_);
  request.set_count_open_pages(true);
  const auto response = client_->GetDirtyLog(std::move(request));
  if (!response.ok()) return response.status();
  const std::vector<int32_t>& slots = options_.slots;
  v1::UndeliveredPages sum;
  for (const v1::SlotDirtyLog& slot : response->dirty_log().slots()) {
    if (!slots.empty() &&
        std::find(slots.begin(), slots.end(), slot.slot()) == slots.end()) {
      continue;
    }
    sum.set_open_page_count(sum.open_page_count() + slot.open_page_count());
    sum.set_sealed_page_count(sum.sealed_page_count() +
                              slot.sealed_page_count());
    sum.set_in_flight_page_count(sum.in_flight_page_count() +
                                 slot.in_flight_page_count());
  }
  return sum;
}

void Harvester::Owe(int32_t slot, const PageBitmap& pages, int64_t epoch) {
  owed_from_ = std::min(owed_from_, epoch);
  const auto [it, is_new] = owed_.try_emplace(slot, pages);
  // A slot with another range was moved since its earlier clear, see TakeOwed.
  if (!is_new && !it->second.Merge(pages).ok()) it->second = pages;
}

absl::Status Harvester::RepeatClear(Harvest* harvest) {
  if (unanswered_.vm().empty()) return absl::OkStatus();
  const absl::Status status = SendClear(harvest);
  return status.ok() ? status : ForgetRefusedClear(status);
}

absl::Status Harvester::ForgetRefusedClear(const absl::Status& refusal) {
  if (NeedsAcknowledgement(refusal)) {
    // No page of the clear's epoch is in flight, so no attempt took pages.
    unanswered_.Clear();
    return absl::OkStatus();
  }
  if (!IsOvertaken(refusal)) return refusal;
  // If the clear's epoch is still the newest, its slot was moved or deleted.
  // Then no page of the slot is in flight any more, even if an attempt without
  // an answer took some. If another epoch is the newest, other code sealed, and
  // the outcome of the clear cannot be known.
  v1::GetDirtyLogRequest request;
  request.set_vm(vm_);
  const auto log = client_->GetDirtyLog(std::move(request));
  if (!log.ok()) return log.status();
  if (log->dirty_log().log_id() == log_id_ &&
      log->dirty_log().sealed_epoch() != unanswered_.epoch()) {
    return absl::AbortedError(absl::StrFormat(
        "epoch %d was sealed with this owner's token while a clear of epoch %d "
        "was not answered: its pages may be in flight and writable; acquire "
        "the log with a new token",
        log->dirty_log().sealed_epoch(), unanswered_.epoch()));
  }
  unanswered_.Clear();
  return absl::OkStatus();
}

absl::Status Harvester::Seal(Harvest* harvest) {
  const mmu::MonotonicTime start = mmu::MonotonicTime::Now();
  v1::SealDirtyLogRequest request;
  request.set_vm(vm_);
  request.set_owner_token(owner_token_);
  request.set_log_id(log_id_);
  request.set_acknowledged_epoch(delivered_epoch_);
  const auto response = client_->SealDirtyLog(std::move(request));
  harvest->seal_time += mmu::MonotonicTime::Now() - start;
  if (!response.ok()) return response.status();
  delivered_epoch_ = 0;
  log_id_ = response->log_id();
  harvest->log_id = log_id_;
  harvest->epoch = response->epoch();
  harvest->acknowledged_page_count += response->acknowledged_page_count();
  harvest->fresh_page_count = 0;
  harvest->merged_page_count = 0;
  for (const v1::SealedSlot& slot : response->slots()) {
    harvest->fresh_page_count += slot.fresh_page_count();
    harvest->merged_page_count += slot.merged_page_count();
  }
  AddCost(response->cost(), &harvest->cost);
  return absl::OkStatus();
}

absl::Status Harvester::MayGoOn() const {
  return options_.may_go_on ? options_.may_go_on() : absl::OkStatus();
}

absl::Status Harvester::Receive(Harvest* harvest, SlotBitmaps* pages) {
  const mmu::MonotonicTime start = mmu::MonotonicTime::Now();
  v1::ReadDirtyPagesRequest request;
  request.set_vm(vm_);
  request.set_log_id(log_id_);
  request.set_epoch(harvest->epoch);
  request.mutable_slots()->Assign(options_.slots.begin(), options_.slots.end());
  request.set_max_message_bytes(options_.max_message_bytes);

  Backoff backoff(options_.retry);
  v1::DirtyLogPosition furthest;  // the last position of all streams so far
  furthest.set_slot(-1);
  while (true) {
    DirtyLogStream stream(pages);
    absl::Status status = client_->ReadDirtyPagesOnce(
        request, [&](const v1::ReadDirtyPagesResponse& message) {
          const absl::Status may = MayGoOn();
          return may.ok() ? stream.OnMessage(message) : may;
        });
    if (status.ok()) status = stream.OnEnd();
    harvest->chunk_count += stream.chunk_count();
    if (status.ok()) {
      AddCost(stream.trailer()->cost(), &harvest->cost);
      harvest->seal_time += mmu::MonotonicTime::Now() - start;
      return absl::OkStatus();
    }
    if (!IsBrokenStream(status)) return status;
    if (stream.chunk_count() > 0 && IsBehind(*stream.next(), furthest)) {
      furthest = *stream.next();
      backoff.Reset();
    }
    if (!backoff.MayRetry()) return status;
    if (stream.next()) {
      *request.mutable_start() =
          ResumeAt(pages->at(stream.next()->slot()).range(), *stream.next());
      ++harvest->resume_count;
    }
    client_->Sleep(backoff.NextDelay(status));
  }
}

absl::Status Harvester::Clear(const SlotBitmaps& pages, Harvest* harvest) {
  const mmu::MonotonicTime start = mmu::MonotonicTime::Now();
  absl::Status status;
  for (const auto& [slot, bitmap] : pages) {
    const GpaRange& whole = bitmap.range();
    for (int64_t offset = 0; status.ok() && offset < whole.size_bytes;
         offset += options_.clear_range_bytes) {
      const GpaRange range = {
          whole.gpa_bytes + offset,
          std::min(options_.clear_range_bytes, whole.size_bytes - offset)};
      if (bitmap.CountIn(range) == 0) continue;
      status = MayGoOn();
      if (!status.ok()) break;
      unanswered_.set_vm(vm_);
      unanswered_.set_owner_token(owner_token_);
      unanswered_.set_log_id(log_id_);
      unanswered_.set_epoch(harvest->epoch);
      unanswered_.mutable_pages()->set_slot(slot);
      unanswered_.mutable_pages()->set_start_gpa_bytes(range.gpa_bytes);
      unanswered_.mutable_pages()->set_size_bytes(range.size_bytes);
      unanswered_.mutable_pages()->set_bitmap(bitmap.Bitmap(range));
      unanswered_.set_request_id(NewRequestId());
      unanswered_slot_ = whole;
      status = SendClear(harvest);
    }
  }
  harvest->clear_time += mmu::MonotonicTime::Now() - start;
  if (status.ok()) return status;
  const absl::Status unforgotten = ForgetRefusedClear(status);
  return unforgotten.ok() ? status : unforgotten;
}

absl::Status Harvester::SendClear(Harvest* harvest) {
  const absl::StatusOr<v1::ClearDirtyLogResponse> response =
      client_->ClearDirtyLog(unanswered_);
  if (!response.ok()) return response.status();
  // From now on this owner must deliver these pages.
  const v1::SlotPages& sent = unanswered_.pages();
  PageBitmap cleared(unanswered_slot_);
  if (absl::Status status = cleared.AddBitmap(
          {sent.start_gpa_bytes(), sent.size_bytes()}, sent.bitmap());
      !status.ok()) {
    return absl::InternalError(status.message());
  }
  Owe(sent.slot(), cleared, unanswered_.epoch());
  unanswered_.Clear();
  harvest->cleared_page_count += response->cleared_page_count();
  harvest->split_2m_count += response->splits().split_2m_count();
  harvest->split_1g_count += response->splits().split_1g_count();
  ++harvest->clear_call_count;
  AddCost(response->cost(), &harvest->cost);
  return absl::OkStatus();
}

}  // namespace mmud::client
