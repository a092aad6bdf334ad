#include "client/mmu_client/fake_dirty_log.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/mmu_client/fake_refusal.h"
#include "wire/crc32c.h"

namespace mmud::client {

FakeDirtyLog::FakeDirtyLog(std::vector<Slot> slots)
    : slots_(std::move(slots)),
      pages_(slots_.back().first_page + slots_.back().page_count) {}

std::string FakeDirtyLog::id() const {
  return absl::StrFormat("%032x", log_count_);
}

void FakeDirtyLog::Mark(int64_t page) {
  if (!pages_[page].writable) pages_[page].open = true;
  pages_[page].writable = true;
}

void FakeDirtyLog::Start(const std::string& owner, const std::string& token,
                         Page fresh) {
  is_on_ = true;
  ++log_count_;
  owner_ = owner;
  token_ = token;
  former_tokens_.clear();
  lease_lasts_ = true;
  for (Slot& slot : slots_) slot.first_epoch = epoch_ + 1;
  std::fill(pages_.begin(), pages_.end(), fresh);
}

void FakeDirtyLog::BeginStart(const std::string& owner,
                              const std::string& token) {
  is_on_ = false;
  starting_.set_owner(owner);
  starting_.set_owner_token(token);
}

void FakeDirtyLog::FinishStart() {
  Page fresh;
  fresh.writable = true;
  fresh.open = true;
  Start(starting_.owner(), starting_.owner_token(), fresh);
  starting_.Clear();
}

void FakeDirtyLog::Return(Page& page) {
  page.sealed = page.sealed || page.in_flight != 0;
  page.in_flight = 0;
}

void FakeDirtyLog::MoveFirstSlot() {
  Slot& slot = slots_.front();
  slot.first_epoch = epoch_ + 1;
  for (int64_t i = 0; i < slot.page_count; ++i) {
    Return(pages_[slot.first_page + i]);
  }
}

grpc::Status FakeDirtyLog::Refuse(v1::ErrorReason reason) const {
  return Refused(grpc::StatusCode::FAILED_PRECONDITION, reason,
                 {{"owner", owner_},
                  {"owned_for_seconds", "60"},
                  {"lease_remaining_seconds", lease_lasts_ ? "20" : "0"}});
}

grpc::Status FakeDirtyLog::Check(const std::string& log_id) const {
  if (!has_vm_) return Refused(grpc::StatusCode::NOT_FOUND, v1::VM_NOT_FOUND);
  if (!is_on_) {
    return Refused(grpc::StatusCode::FAILED_PRECONDITION, v1::DIRTY_LOG_OFF);
  }
  if (!log_id.empty() && log_id != id()) {
    return Aborted(v1::LOG_CHANGED);
  }
  return grpc::Status::OK;
}

grpc::Status FakeDirtyLog::Admit(const std::string& token,
                                 const std::string& log_id) {
  if (grpc::Status status = Check(log_id); !status.ok()) return status;
  if (former_tokens_.count(token) > 0) return Refuse(v1::LOG_FENCED);
  if (token != token_) return Refuse(v1::LOG_OWNED);
  lease_lasts_ = true;
  return grpc::Status::OK;
}

const FakeDirtyLog::Slot* FakeDirtyLog::Find(int32_t id) const {
  for (const Slot& slot : slots_) {
    if (slot.id == id) return &slot;
  }
  return nullptr;
}

void FakeDirtyLog::Fill(bool count_open, v1::DirtyLog* log) const {
  log->set_vm(kFakeVm);
  log->set_log_id(id());
  log->set_owner(owner_);
  log->mutable_owner_since_time()->set_seconds(1'795'000'000);
  log->mutable_lease()->set_seconds(30);
  log->mutable_lease_expire_time()->set_seconds(1'795'000'030);
  log->set_open_epoch(epoch_ + 1);
  log->set_sealed_epoch(epoch_);
  std::set<int64_t> epochs;
  for (const Slot& slot : slots_) {
    v1::SlotDirtyLog* of = log->add_slots();
    of->set_slot(slot.id);
    of->set_state(v1::DIRTY_LOG_STATE_ACTIVE);
    of->set_first_epoch(slot.first_epoch);
    int64_t open = 0;
    for (int64_t i = 0; i < slot.page_count; ++i) {
      const Page& page = pages_[slot.first_page + i];
      if (page.open) ++open;
      if (page.sealed) of->set_sealed_page_count(of->sealed_page_count() + 1);
      if (page.in_flight == 0) continue;
      of->set_in_flight_page_count(of->in_flight_page_count() + 1);
      epochs.insert(page.in_flight);
    }
    if (count_open) of->set_open_page_count(open);
  }
  log->mutable_epochs_in_flight()->Assign(epochs.begin(), epochs.end());
}

void FakeDirtyLog::Seal(v1::SealDirtyLogResponse* response) {
  ++epoch_;
  response->set_log_id(id());
  response->set_epoch(epoch_);
  for (const Slot& slot : slots_) {
    v1::SealedSlot* sealed = response->add_slots();
    sealed->set_slot(slot.id);
    for (int64_t i = 0; i < slot.page_count; ++i) {
      Page& page = pages_[slot.first_page + i];
      if (page.sealed) {
        sealed->set_merged_page_count(sealed->merged_page_count() + 1);
      } else if (page.open) {
        sealed->set_fresh_page_count(sealed->fresh_page_count() + 1);
        page.sealed = true;
      }
      page.open = false;
    }
  }
}

int64_t FakeDirtyLog::Acknowledge(int64_t epoch) {
  int64_t count = 0;
  for (Page& page : pages_) {
    if (page.in_flight == 0 || page.in_flight > epoch) continue;
    page.in_flight = 0;
    ++count;
  }
  return count;
}

grpc::Status FakeDirtyLog::PagesOf(const v1::SlotPages& named,
                                   std::vector<int64_t>* pages) const {
  const Slot* slot = Find(named.slot());
  if (slot == nullptr) {
    return Refused(grpc::StatusCode::NOT_FOUND, v1::MEMSLOT_NOT_FOUND);
  }
  const int64_t first =
      (named.start_gpa_bytes() - slot->gpa_bytes()) / kPageBytes;
  const int64_t count = named.size_bytes() / kPageBytes;
  if (first < 0 || first + count > slot->page_count ||
      first % kPagesPerWord != 0 ||
      (count % kPagesPerWord != 0 && first + count != slot->page_count)) {
    return Refused(grpc::StatusCode::INVALID_ARGUMENT, v1::UNALIGNED_CLEAR);
  }
  for (const v1::Extent& extent : named.extents().extents()) {
    for (int64_t at = 0; at < extent.size_bytes(); at += kPageBytes) {
      pages->push_back((extent.gpa_bytes() + at - kGpa) / kPageBytes);
    }
  }
  if (!named.has_bitmap()) return grpc::Status::OK;
  if (static_cast<int64_t>(named.bitmap().size()) != (count + 7) / 8) {
    return Refused(grpc::StatusCode::INVALID_ARGUMENT, v1::INVALID_BITMAP);
  }
  for (int64_t i = 0; i < count; ++i) {
    if ((static_cast<uint8_t>(named.bitmap()[i / 8]) >> (i % 8) & 1) != 0) {
      pages->push_back(slot->first_page + first + i);
    }
  }
  return grpc::Status::OK;
}

grpc::Status FakeDirtyLog::Clear(int64_t epoch, const v1::SlotPages& pages,
                                 v1::ClearDirtyLogResponse* response) {
  std::vector<int64_t> named;
  if (grpc::Status status = PagesOf(pages, &named); !status.ok()) {
    return status;
  }
  if (epoch != epoch_ || epoch < Find(pages.slot())->first_epoch) {
    return Aborted(v1::EPOCH_MISMATCH);
  }
  std::set<int64_t> epochs = {epoch};
  for (const Page& page : pages_) {
    if (page.in_flight != 0) epochs.insert(page.in_flight);
  }
  if (epochs.size() > 4) {
    return Refused(grpc::StatusCode::RESOURCE_EXHAUSTED, v1::LIMIT_EXCEEDED,
                   {{"limit", "epochs_in_flight"}});
  }
  for (const int64_t number : named) {
    Page& page = pages_[number];
    if (page.sealed) {
      page.in_flight = epoch;
      page.sealed = false;
      page.writable = false;
      response->set_cleared_page_count(response->cleared_page_count() + 1);
    } else if (page.in_flight == epoch) {
      response->set_already_in_flight_page_count(
          response->already_in_flight_page_count() + 1);
    } else {
      response->set_already_clean_page_count(
          response->already_clean_page_count() + 1);
    }
  }
  response->mutable_cost()->set_tlb_flush_count(1);
  return grpc::Status::OK;
}

std::deque<v1::DirtyLogChunk> FakeDirtyLog::Chunks(
    int64_t pages_per_chunk) const {
  std::deque<v1::DirtyLogChunk> chunks;
  for (const Slot& slot : slots_) {
    for (int64_t first = 0; first < slot.page_count; first += pages_per_chunk) {
      const int64_t count = std::min(pages_per_chunk, slot.page_count - first);
      v1::DirtyLogChunk chunk;
      chunk.set_slot(slot.id);
      chunk.set_gpa_bytes(slot.gpa_bytes() + first * kPageBytes);
      chunk.set_size_bytes(count * kPageBytes);
      chunk.mutable_bitmap()->assign((count + 7) / 8, '\0');
      for (int64_t i = 0; i < count; ++i) {
        if (!pages_[slot.first_page + first + i].sealed) continue;
        (*chunk.mutable_bitmap())[i / 8] |= static_cast<char>(1 << (i % 8));
      }
      if (chunk.bitmap().find_first_not_of('\0') == std::string::npos) continue;
      chunk.set_crc32c(Crc32c(chunk.bitmap()));
      chunks.push_back(std::move(chunk));
    }
  }
  return chunks;
}

grpc::Status FakeDirtyLog::Start(const v1::StartDirtyLogRequest& request,
                                 v1::StartDirtyLogResponse* response) {
  if (!has_vm_) return Refused(grpc::StatusCode::NOT_FOUND, v1::VM_NOT_FOUND);
  if (!starting_.owner_token().empty()) return Aborted(v1::DIRTY_LOG_STARTING);
  if (is_on_ && request.owner_token() != token_) {
    return Refused(grpc::StatusCode::ALREADY_EXISTS, v1::DIRTY_LOG_ACTIVE,
                   {{"owner", owner_}});
  }
  // A repeated start of the owner returns the existing log.
  if (!is_on_) {
    Page fresh;
    fresh.writable = request.initially_set();
    fresh.open = request.initially_set();
    Start(request.owner(), request.owner_token(), fresh);
  }
  Fill(false, response->mutable_dirty_log());
  return grpc::Status::OK;
}

grpc::Status FakeDirtyLog::Acquire(const v1::AcquireDirtyLogRequest& request,
                                   v1::AcquireDirtyLogResponse* response) {
  if (grpc::Status status = Check(request.log_id()); !status.ok()) {
    return status;
  }
  if (former_tokens_.count(request.owner_token()) > 0) {
    return Refuse(v1::LOG_FENCED);
  }
  response->set_already_owned(request.owner_token() == token_);
  if (!response->already_owned()) {
    if (lease_lasts_ && !request.force()) return Refuse(v1::LOG_OWNED);
    former_tokens_.insert(token_);
    token_ = request.owner_token();
    owner_ = request.owner();
    for (Page& page : pages_) Return(page);
  }
  lease_lasts_ = true;
  Fill(false, response->mutable_dirty_log());
  return grpc::Status::OK;
}

grpc::Status FakeDirtyLog::Seal(const v1::SealDirtyLogRequest& request,
                                v1::SealDirtyLogResponse* response) {
  if (grpc::Status status = Admit(request.owner_token(), request.log_id());
      !status.ok()) {
    return status;
  }
  if (request.acknowledged_epoch() > epoch_) {
    return Refused(grpc::StatusCode::NOT_FOUND, v1::EPOCH_UNKNOWN);
  }
  response->set_acknowledged_page_count(
      Acknowledge(request.acknowledged_epoch()));
  Seal(response);
  return grpc::Status::OK;
}

grpc::Status FakeDirtyLog::Clear(const v1::ClearDirtyLogRequest& request,
                                 v1::ClearDirtyLogResponse* response) {
  if (grpc::Status status = Admit(request.owner_token(), request.log_id());
      !status.ok()) {
    return status;
  }
  return Clear(request.epoch(), request.pages(), response);
}

grpc::Status FakeDirtyLog::Acknowledge(
    const v1::AcknowledgePagesRequest& request,
    v1::AcknowledgePagesResponse* response) {
  if (grpc::Status status = Admit(request.owner_token(), request.log_id());
      !status.ok()) {
    return status;
  }
  if (request.epoch() <= 0 || request.epoch() > epoch_) {
    return Refused(grpc::StatusCode::NOT_FOUND, v1::EPOCH_UNKNOWN);
  }
  if (!request.has_pages()) {
    response->set_acknowledged_page_count(Acknowledge(request.epoch()));
  } else {
    std::vector<int64_t> named;
    if (grpc::Status status = PagesOf(request.pages(), &named); !status.ok()) {
      return status;
    }
    for (const int64_t number : named) {
      Page& page = pages_[number];
      if (page.in_flight == 0) {
        response->set_not_in_flight_page_count(
            response->not_in_flight_page_count() + 1);
      } else if (page.in_flight > request.epoch()) {
        response->set_later_page_count(response->later_page_count() + 1);
      } else {
        page.in_flight = 0;
        response->set_acknowledged_page_count(
            response->acknowledged_page_count() + 1);
      }
    }
  }
  response->set_still_in_flight_page_count(
      std::count_if(pages_.begin(), pages_.end(),
                    [](const Page& page) { return page.in_flight != 0; }));
  return grpc::Status::OK;
}

grpc::Status FakeDirtyLog::Stop(const v1::StopDirtyLogRequest& request,
                                v1::StopDirtyLogResponse* response) {
  grpc::Status status = request.force()
                            ? Check(request.log_id())
                            : Admit(request.owner_token(), request.log_id());
  if (!status.ok()) return status;
  v1::UndeliveredPages& left = *response->mutable_discarded();
  for (const Page& page : pages_) {
    if (page.open) left.set_open_page_count(left.open_page_count() + 1);
    if (page.sealed) left.set_sealed_page_count(left.sealed_page_count() + 1);
    if (page.in_flight != 0) {
      left.set_in_flight_page_count(left.in_flight_page_count() + 1);
    }
  }
  const int64_t count = left.open_page_count() + left.sealed_page_count() +
                        left.in_flight_page_count();
  if (count > 0 && !request.discard_undelivered()) {
    return Refused(
        grpc::StatusCode::FAILED_PRECONDITION, v1::UNDELIVERED_PAGES,
        {{"open_page_count", absl::StrCat(left.open_page_count())},
         {"sealed_page_count", absl::StrCat(left.sealed_page_count())},
         {"in_flight_page_count", absl::StrCat(left.in_flight_page_count())}});
  }
  is_on_ = false;
  return grpc::Status::OK;
}

}  // namespace mmud::client
