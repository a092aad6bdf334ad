#include "client/mmu_client/harvester.h"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/mmu_client/dirty_log_stream.h"
#include "client/mmu_client/error_info.h"
#include "client/mmu_client/page_bitmap.h"
#include "client/mmu_client/request_id.h"
#include "google/protobuf/util/time_util.h"
#include "mmu_core/base/clock.h"
#include "mmud/v1/dirty_log_service.pb.h"

namespace mmud::client {
namespace {

using google::protobuf::util::TimeUtil;

constexpr int64_t kWordBytes = kPagesPerWord * kPageBytes;

// A stream that can be gone on with: the connection broke, or what came over
// it was not what the daemon sent.
bool IsBrokenStream(const absl::Status& status) {
  return IsRetryable(status) || absl::IsDataLoss(status);
}

// Someone else sealed after us.
bool IsOvertaken(const absl::Status& status) {
  if (!absl::IsAborted(status)) return false;
  const std::string reason = ReasonOf(status);
  return reason == "EPOCH_SUPERSEDED" || reason == "EPOCH_MISMATCH";
}

// Where to ask for the rest of an epoch after everything before `next` came.
// At the very end only the trailer is missing: the last 64 pages once more.
int64_t ResumeAt(const GpaRange& slot, int64_t next) {
  const int64_t offset =
      std::min(next - slot.gpa_bytes, slot.size_bytes - kPageBytes);
  return slot.gpa_bytes + offset / kWordBytes * kWordBytes;
}

}  // namespace

void AddCost(const v1::MmuCost& cost, v1::MmuCost* sum) {
  *sum->mutable_wall_time() = sum->wall_time() + cost.wall_time();
  *sum->mutable_lock_wait() = sum->lock_wait() + cost.lock_wait();
  // Set in any case: whoever shows the sum shows all of it.
  *sum->mutable_max_lock_hold() =
      std::max(sum->max_lock_hold(), cost.max_lock_hold());
  sum->set_tlb_flush_count(sum->tlb_flush_count() + cost.tlb_flush_count());
  sum->set_vcpus_kicked_count(sum->vcpus_kicked_count() +
                              cost.vcpus_kicked_count());
  sum->set_sptes_visited_count(sum->sptes_visited_count() +
                               cost.sptes_visited_count());
}

Harvester::Harvester(DirtyLogClient* client, std::string vm,
                     HarvesterOptions options)
    : client_(client), vm_(std::move(vm)), options_(std::move(options)) {}

absl::StatusOr<Harvest> Harvester::Run(int32_t slot) {
  Harvest harvest;
  while (true) {
    absl::Status status = Seal(slot, &harvest);
    if (status.ok()) {
      // From the first clear on these pages are ours to deliver.
      const PageBitmap received = harvest.pages;
      status = GiveBack(slot, received);
      if (!status.ok()) return status;
      status = Clear(slot, received, &harvest);
    }
    if (status.ok()) {
      harvest.pages = std::move(owed_.at(slot));
      owed_.erase(slot);
      return harvest;
    }
    if (!IsOvertaken(status) ||
        harvest.restart_count >= options_.max_restarts) {
      return status;
    }
    ++harvest.restart_count;
  }
}

absl::StatusOr<int64_t> Harvester::CountDirtyPages(int32_t slot) {
  v1::GetDirtyLogRequest request;
  request.set_vm(vm_);
  request.set_slot(slot);
  request.set_mode(v1::GET_DIRTY_LOG_MODE_PEEK);
  Backoff backoff(options_.retry);
  while (true) {
    std::optional<PageBitmap> pages;
    DirtyLogStream stream(&pages);
    absl::Status status = client_->GetDirtyLogOnce(
        request, [&stream](const v1::GetDirtyLogResponse& message) {
          return stream.OnMessage(message);
        });
    if (status.ok()) status = stream.OnEnd();
    if (status.ok()) return pages->page_count();
    if (!IsBrokenStream(status) || !backoff.MayRetry()) return status;
    client_->Sleep(backoff.NextDelay(status));
  }
}

absl::Status Harvester::GiveBack(int32_t slot, const PageBitmap& pages) {
  const auto [it, is_new] = owed_.try_emplace(slot, pages);
  if (is_new) return absl::OkStatus();
  if (absl::Status status = it->second.Merge(pages); !status.ok()) {
    return absl::FailedPreconditionError(status.message());
  }
  return absl::OkStatus();
}

absl::Status Harvester::Seal(int32_t slot, Harvest* harvest) {
  const mmu::MonotonicTime start = mmu::MonotonicTime::Now();
  v1::GetDirtyLogRequest request;
  request.set_vm(vm_);
  request.set_slot(slot);
  request.set_mode(v1::GET_DIRTY_LOG_MODE_SEAL);
  request.set_max_message_bytes(options_.max_message_bytes);
  // One id for all attempts until the epoch is known, so that an attempt whose
  // answer was lost has not sealed an epoch of its own.
  request.set_request_id(NewRequestId());

  std::optional<PageBitmap> pages;
  Backoff backoff(options_.retry);
  int64_t furthest = 0;  // how far any stream came
  while (true) {
    DirtyLogStream stream(&pages);
    absl::Status status = client_->GetDirtyLogOnce(
        request, [&stream](const v1::GetDirtyLogResponse& message) {
          return stream.OnMessage(message);
        });
    if (status.ok()) status = stream.OnEnd();
    harvest->chunk_count += stream.chunk_count();
    if (status.ok()) {
      harvest->epoch = stream.header()->epoch();
      AddCost(stream.trailer()->cost(), &harvest->cost);
      break;
    }
    if (!IsBrokenStream(status)) return status;
    if (stream.chunk_count() > 0 && stream.next_gpa_bytes() > furthest) {
      furthest = stream.next_gpa_bytes();
      backoff.Reset();
    }
    if (!backoff.MayRetry()) return status;
    if (stream.header()) {
      // The epoch is known: from now on name it, and go on where it broke.
      request.set_epoch(stream.header()->epoch());
      request.set_start_gpa_bytes(
          ResumeAt(pages->range(), stream.next_gpa_bytes()));
      request.clear_request_id();
      ++harvest->resume_count;
    }
    client_->Sleep(backoff.NextDelay(status));
  }
  harvest->pages = *std::move(pages);
  harvest->sealed_page_count = harvest->pages.page_count();
  harvest->seal_time += mmu::MonotonicTime::Now() - start;
  return absl::OkStatus();
}

absl::Status Harvester::Clear(int32_t slot, const PageBitmap& pages,
                              Harvest* harvest) {
  const mmu::MonotonicTime start = mmu::MonotonicTime::Now();
  const GpaRange& whole = pages.range();
  absl::Status status;
  for (int64_t offset = 0; status.ok() && offset < whole.size_bytes;
       offset += options_.clear_range_bytes) {
    status = ClearRange(
        slot, pages,
        {whole.gpa_bytes + offset,
         std::min(options_.clear_range_bytes, whole.size_bytes - offset)},
        harvest);
  }
  harvest->clear_time += mmu::MonotonicTime::Now() - start;
  return status;
}

absl::Status Harvester::ClearRange(int32_t slot, const PageBitmap& pages,
                                   GpaRange range, Harvest* harvest) {
  if (pages.CountIn(range) == 0) return absl::OkStatus();
  v1::ClearDirtyLogRequest request;
  request.set_vm(vm_);
  request.set_slot(slot);
  request.set_epoch(harvest->epoch);
  request.set_start_gpa_bytes(range.gpa_bytes);
  request.set_size_bytes(range.size_bytes);
  request.set_bitmap(pages.Bitmap(range));
  absl::StatusOr<v1::ClearDirtyLogResponse> response =
      client_->ClearDirtyLog(std::move(request));
  if (!response.ok()) return response.status();
  harvest->cleared_page_count += response->cleared_page_count();
  harvest->split_2m_count += response->splits().split_2m_count();
  harvest->split_1g_count += response->splits().split_1g_count();
  ++harvest->clear_call_count;
  AddCost(response->cost(), &harvest->cost);
  return absl::OkStatus();
}

}  // namespace mmud::client
