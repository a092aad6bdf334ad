#include "client/mmu_client/fake_guest.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "client/mmu_client/client_options.h"
#include "client/mmu_client/dirty_log_stream.h"
#include "client/mmu_client/test_socket.h"
#include "google/longrunning/operations.pb.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server_builder.h"
#include "mmud/v1/error_reasons.pb.h"
#include "wire/crc32c.h"

namespace mmud::client {
namespace {

using Kind = StreamFault::Kind;

grpc::Status Refused(grpc::StatusCode code, v1::ErrorReason reason,
                     const std::map<std::string, std::string>& facts = {}) {
  google::rpc::Status status;
  status.set_code(code);
  google::rpc::ErrorInfo info;
  info.set_reason(v1::ErrorReason_Name(reason));
  info.set_domain("mmud");
  info.mutable_metadata()->insert(facts.begin(), facts.end());
  status.add_details()->PackFrom(info);
  google::rpc::ResourceInfo resource;
  resource.set_resource_name(FakeGuest::kVm);
  status.add_details()->PackFrom(resource);
  return grpc::Status(code, v1::ErrorReason_Name(reason),
                      status.SerializeAsString());
}

grpc::Status Aborted(v1::ErrorReason reason) {
  return Refused(grpc::StatusCode::ABORTED, reason);
}

grpc::Status Broken() {
  return grpc::Status(grpc::StatusCode::UNAVAILABLE, "the stream broke");
}

template <typename Fault>
Fault Take(std::deque<Fault>& faults) {
  if (faults.empty()) return Fault();
  Fault fault = faults.front();
  faults.pop_front();
  return fault;
}

}  // namespace

FakeGuest::FakeGuest(int64_t page_count, int64_t pages_per_chunk,
                     int64_t other_page_count)
    : pages_per_chunk_(pages_per_chunk),
      address_(NewTestAddress()),
      memory_((page_count + other_page_count) * kPageBytes, '\0'),
      slots_({{kSlot, 0, page_count}}),
      pages_(page_count + other_page_count) {
  {
    absl::MutexLock lock(&mutex_);
    if (other_page_count > 0) {
      slots_.push_back({kOtherSlot, page_count, other_page_count});
    }
    StartLocked(kOwner, kToken, Page());
  }
  grpc::ServerBuilder builder;
  builder.AddListeningPort(address_, grpc::InsecureServerCredentials());
  builder.RegisterService(static_cast<v1::DirtyLogService::Service*>(this));
  builder.RegisterService(static_cast<v1::GuestMemoryService::Service*>(this));
  builder.RegisterService(static_cast<v1::VmService::Service*>(this));
  builder.RegisterService(static_cast<v1::AgingService::Service*>(this));
  server_ = builder.BuildAndStart();
}

FakeGuest::~FakeGuest() { server_->Shutdown(); }

std::unique_ptr<Client> FakeGuest::NewClient() {
  ClientOptions options;
  options.sleep = [](absl::Duration) {};
  return std::make_unique<Client>(
      server_->InProcessChannel(grpc::ChannelArguments()), options);
}

void FakeGuest::WriteLocked(int64_t page) {
  ++stamp_;
  std::memcpy(&memory_[page * kPageBytes + 8 * (stamp_ % 512)], &stamp_,
              sizeof(stamp_));
}

void FakeGuest::Write(int64_t page) {
  absl::MutexLock lock(&mutex_);
  if (is_paused_) return;
  WriteLocked(page);
  if (!pages_[page].writable) pages_[page].open = true;
  pages_[page].writable = true;
}

void FakeGuest::WriteUnseen(int64_t page) {
  absl::MutexLock lock(&mutex_);
  WriteLocked(page);
}

void FakeGuest::BreakDirtyLog(std::vector<StreamFault> faults) {
  absl::MutexLock lock(&mutex_);
  log_faults_.assign(faults.begin(), faults.end());
}

void FakeGuest::BreakPages(std::vector<StreamFault> faults) {
  absl::MutexLock lock(&mutex_);
  page_faults_.assign(faults.begin(), faults.end());
}

void FakeGuest::BreakCalls(FakeCall call, std::vector<CallFault> faults) {
  absl::MutexLock lock(&mutex_);
  call_faults_[call].assign(faults.begin(), faults.end());
}

void FakeGuest::OnCall(std::function<void()> hook) {
  absl::MutexLock lock(&mutex_);
  hook_ = std::move(hook);
}

void FakeGuest::CallHook() {
  std::function<void()> hook;
  {
    absl::MutexLock lock(&mutex_);
    hook = hook_;
  }
  if (hook) hook();
}

void FakeGuest::StartLocked(const std::string& owner, const std::string& token,
                            Page fresh) {
  log_is_on_ = true;
  ++log_count_;
  owner_ = owner;
  token_ = token;
  former_tokens_.clear();
  lease_lasts_ = true;
  for (Slot& slot : slots_) slot.first_epoch = epoch_ + 1;
  std::fill(pages_.begin(), pages_.end(), fresh);
}

void FakeGuest::ExpireLease() {
  absl::MutexLock lock(&mutex_);
  lease_lasts_ = false;
}

void FakeGuest::MoveSlot() {
  absl::MutexLock lock(&mutex_);
  Slot& slot = slots_.front();
  slot.first_epoch = epoch_ + 1;
  for (int64_t i = 0; i < slot.page_count; ++i) {
    Page& page = pages_[slot.first_page + i];
    page.sealed = page.sealed || page.in_flight != 0;
    page.in_flight = 0;
  }
}

void FakeGuest::SealLocked(v1::SealDirtyLogResponse* response) {
  ++epoch_;
  response->set_log_id(absl::StrFormat("%032x", log_count_));
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

void FakeGuest::SealByOther() {
  absl::MutexLock lock(&mutex_);
  v1::SealDirtyLogResponse response;
  SealLocked(&response);
}

void FakeGuest::StopLog() {
  absl::MutexLock lock(&mutex_);
  log_is_on_ = false;
}

void FakeGuest::BeginStart(const std::string& owner, const std::string& token) {
  absl::MutexLock lock(&mutex_);
  log_is_on_ = false;
  starting_.set_owner(owner);
  starting_.set_owner_token(token);
}

void FakeGuest::FinishStart() {
  absl::MutexLock lock(&mutex_);
  Page fresh;
  fresh.writable = true;
  fresh.open = true;
  StartLocked(starting_.owner(), starting_.owner_token(), fresh);
  starting_.Clear();
}

void FakeGuest::RemoveVm() {
  absl::MutexLock lock(&mutex_);
  has_vm_ = false;
}

void FakeGuest::Resume() {
  absl::MutexLock lock(&mutex_);
  is_paused_ = false;
}

std::string FakeGuest::MemoryCopy() const {
  absl::MutexLock lock(&mutex_);
  return memory_;
}

int64_t FakeGuest::open_page_count() const {
  absl::MutexLock lock(&mutex_);
  return std::count_if(pages_.begin(), pages_.end(),
                       [](const Page& page) { return page.open; });
}

int64_t FakeGuest::sealed_page_count() const {
  absl::MutexLock lock(&mutex_);
  return std::count_if(pages_.begin(), pages_.end(),
                       [](const Page& page) { return page.sealed; });
}

int64_t FakeGuest::in_flight_page_count() const {
  absl::MutexLock lock(&mutex_);
  return std::count_if(pages_.begin(), pages_.end(),
                       [](const Page& page) { return page.in_flight != 0; });
}

int64_t FakeGuest::sealed_epoch() const {
  absl::MutexLock lock(&mutex_);
  return epoch_;
}

std::string FakeGuest::log_id() const {
  absl::MutexLock lock(&mutex_);
  return absl::StrFormat("%032x", log_count_);
}

std::string FakeGuest::owner() const {
  absl::MutexLock lock(&mutex_);
  return owner_;
}

std::vector<v1::ClearDirtyLogRequest> FakeGuest::clears() const {
  absl::MutexLock lock(&mutex_);
  return clears_;
}

std::vector<v1::ReadDirtyPagesRequest> FakeGuest::reads() const {
  absl::MutexLock lock(&mutex_);
  return reads_;
}

std::vector<v1::SealDirtyLogRequest> FakeGuest::seals() const {
  absl::MutexLock lock(&mutex_);
  return seals_;
}

int64_t FakeGuest::widest_window() const {
  absl::MutexLock lock(&mutex_);
  return widest_window_;
}

grpc::Status FakeGuest::RefuseLocked(v1::ErrorReason reason) const {
  return Refused(grpc::StatusCode::FAILED_PRECONDITION, reason,
                 {{"owner", owner_},
                  {"owned_for_seconds", "60"},
                  {"lease_remaining_seconds", lease_lasts_ ? "20" : "0"}});
}

grpc::Status FakeGuest::CheckLocked(const std::string& log_id) const {
  if (!has_vm_) return Refused(grpc::StatusCode::NOT_FOUND, v1::VM_NOT_FOUND);
  if (!log_is_on_) {
    return Refused(grpc::StatusCode::FAILED_PRECONDITION, v1::DIRTY_LOG_OFF);
  }
  if (!log_id.empty() && log_id != absl::StrFormat("%032x", log_count_)) {
    return Aborted(v1::LOG_CHANGED);
  }
  return grpc::Status::OK;
}

grpc::Status FakeGuest::AdmitLocked(const std::string& token,
                                    const std::string& log_id) {
  if (grpc::Status status = CheckLocked(log_id); !status.ok()) return status;
  if (former_tokens_.count(token) > 0) return RefuseLocked(v1::LOG_FENCED);
  if (token != token_) return RefuseLocked(v1::LOG_OWNED);
  lease_lasts_ = true;
  return grpc::Status::OK;
}

template <typename Request, typename Response, typename Work>
grpc::Status FakeGuest::Once(FakeCall call, const Request& request,
                             Response* response, Work work) {
  const CallFault fault = Take(call_faults_[call]);
  if (!fault.status.ok() && !fault.done) return fault.status;
  const std::string id = request.request_id();
  if (const auto known = answers_.find(id);
      known != answers_.end() && !id.empty()) {
    response->ParseFromString(known->second);
    return fault.status;
  }
  if (grpc::Status status = work(); !status.ok()) return status;
  if (!fault.ended_early) answers_[id] = response->SerializeAsString();
  return fault.status;
}

FakeGuest::Slot* FakeGuest::FindLocked(int32_t id) {
  for (Slot& slot : slots_) {
    if (slot.id == id) return &slot;
  }
  return nullptr;
}

void FakeGuest::FillLocked(bool count_open, v1::DirtyLog* log) const {
  log->set_vm(kVm);
  log->set_log_id(absl::StrFormat("%032x", log_count_));
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

grpc::Status FakeGuest::StartDirtyLog(
    grpc::ServerContext*, const v1::StartDirtyLogRequest* request,
    google::longrunning::Operation* operation) {
  absl::MutexLock lock(&mutex_);
  if (!has_vm_) return Refused(grpc::StatusCode::NOT_FOUND, v1::VM_NOT_FOUND);
  if (!starting_.owner_token().empty()) return Aborted(v1::DIRTY_LOG_STARTING);
  if (log_is_on_ && request->owner_token() != token_) {
    return Refused(grpc::StatusCode::ALREADY_EXISTS, v1::DIRTY_LOG_ACTIVE,
                   {{"owner", owner_}});
  }
  // The owner's start, made again, gets the log there is.
  if (!log_is_on_) {
    Page fresh;
    fresh.writable = request->initially_set();
    fresh.open = request->initially_set();
    StartLocked(request->owner(), request->owner_token(), fresh);
  }
  v1::StartDirtyLogResponse response;
  FillLocked(false, response.mutable_dirty_log());
  operation->set_name("operations/start");
  operation->set_done(true);
  operation->mutable_response()->PackFrom(response);
  return grpc::Status::OK;
}

grpc::Status FakeGuest::GetDirtyLog(grpc::ServerContext*,
                                    const v1::GetDirtyLogRequest* request,
                                    v1::GetDirtyLogResponse* response) {
  absl::MutexLock lock(&mutex_);
  if (grpc::Status status = CheckLocked(""); !status.ok()) return status;
  FillLocked(request->count_open_pages(), response->mutable_dirty_log());
  return grpc::Status::OK;
}

grpc::Status FakeGuest::AcquireDirtyLog(
    grpc::ServerContext*, const v1::AcquireDirtyLogRequest* request,
    v1::AcquireDirtyLogResponse* response) {
  CallHook();
  absl::MutexLock lock(&mutex_);
  return Once(FakeCall::kAcquire, *request, response, [&]() {
    mutex_.AssertHeld();
    if (grpc::Status status = CheckLocked(request->log_id()); !status.ok()) {
      return status;
    }
    if (former_tokens_.count(request->owner_token()) > 0) {
      return RefuseLocked(v1::LOG_FENCED);
    }
    response->set_already_owned(request->owner_token() == token_);
    if (!response->already_owned()) {
      if (lease_lasts_ && !request->force()) return RefuseLocked(v1::LOG_OWNED);
      former_tokens_.insert(token_);
      token_ = request->owner_token();
      owner_ = request->owner();
      for (Page& page : pages_) {
        page.sealed = page.sealed || page.in_flight != 0;
        page.in_flight = 0;
      }
    }
    lease_lasts_ = true;
    FillLocked(false, response->mutable_dirty_log());
    return grpc::Status::OK;
  });
}

int64_t FakeGuest::AcknowledgeLocked(int64_t epoch) {
  int64_t count = 0;
  for (Page& page : pages_) {
    if (page.in_flight == 0 || page.in_flight > epoch) continue;
    page.in_flight = 0;
    ++count;
  }
  return count;
}

grpc::Status FakeGuest::SealDirtyLog(grpc::ServerContext*,
                                     const v1::SealDirtyLogRequest* request,
                                     v1::SealDirtyLogResponse* response) {
  CallHook();
  absl::MutexLock lock(&mutex_);
  seals_.push_back(*request);
  return Once(FakeCall::kSeal, *request, response, [&]() {
    mutex_.AssertHeld();
    if (grpc::Status status =
            AdmitLocked(request->owner_token(), request->log_id());
        !status.ok()) {
      return status;
    }
    if (request->acknowledged_epoch() > epoch_) {
      return Refused(grpc::StatusCode::NOT_FOUND, v1::EPOCH_UNKNOWN);
    }
    response->set_acknowledged_page_count(
        AcknowledgeLocked(request->acknowledged_epoch()));
    SealLocked(response);
    return grpc::Status::OK;
  });
}

grpc::Status FakeGuest::ReadDirtyPages(
    grpc::ServerContext*, const v1::ReadDirtyPagesRequest* request,
    grpc::ServerWriter<v1::ReadDirtyPagesResponse>* writer) {
  CallHook();
  absl::MutexLock lock(&mutex_);
  reads_.push_back(*request);
  const StreamFault fault = Take(log_faults_);
  if (grpc::Status status = CheckLocked(request->log_id()); !status.ok()) {
    return status;
  }
  const bool peek = request->epoch() == 0;
  if (!peek && request->epoch() != epoch_) return Aborted(v1::EPOCH_SUPERSEDED);
  if (fault.kind == Kind::kBeforeHeader) return Broken();

  v1::ReadDirtyPagesResponse message;
  message.mutable_header()->set_log_id(absl::StrFormat("%032x", log_count_));
  message.mutable_header()->set_epoch(request->epoch());
  bool has_start_slot = !request->has_start();
  for (const Slot& slot : slots_) {
    const bool is_named = std::count(request->slots().begin(),
                                     request->slots().end(), slot.id) > 0;
    if (!request->slots().empty() && !is_named) continue;
    if (!peek && request->epoch() < slot.first_epoch) {
      if (is_named) return Aborted(v1::EPOCH_SUPERSEDED);
      continue;
    }
    v1::SlotCoverage* part = message.mutable_header()->add_coverage();
    part->set_slot(slot.id);
    part->set_gpa_bytes(slot.gpa_bytes());
    part->set_size_bytes(slot.page_count * kPageBytes);
    if (!request->has_start()) continue;
    const int64_t end = part->gpa_bytes() + part->size_bytes();
    if (slot.id < request->start().slot()) {
      part->set_gpa_bytes(end);
    } else if (slot.id == request->start().slot()) {
      has_start_slot = true;
      part->set_gpa_bytes(request->start().gpa_bytes());
      const int64_t offset = part->gpa_bytes() - slot.gpa_bytes();
      if (offset < 0 || part->gpa_bytes() > end ||
          (offset % (kPagesPerWord * kPageBytes) != 0 &&
           part->gpa_bytes() != end)) {
        return Refused(grpc::StatusCode::INVALID_ARGUMENT,
                       v1::INVALID_RESUME_OFFSET);
      }
    }
    part->set_size_bytes(end - part->gpa_bytes());
  }
  if (!has_start_slot) {
    return Refused(grpc::StatusCode::INVALID_ARGUMENT,
                   v1::INVALID_RESUME_OFFSET);
  }
  const v1::DirtyLogHeader header = message.header();
  writer->Write(message);

  v1::DirtyLogTrailer trailer;
  uint32_t crc = 0;
  for (const v1::SlotCoverage& part : header.coverage()) {
    const int64_t end = part.gpa_bytes() + part.size_bytes();
    for (int64_t gpa = part.gpa_bytes(); gpa < end;
         gpa += pages_per_chunk_ * kPageBytes) {
      if (fault.kind == Kind::kUnavailableAfter &&
          trailer.chunk_count() == fault.chunks) {
        return Broken();
      }
      const int64_t first = (gpa - kGpa) / kPageBytes;
      const int64_t count =
          std::min(pages_per_chunk_, (end - gpa) / kPageBytes);
      v1::DirtyLogChunk& chunk = *message.mutable_chunk();
      chunk.set_slot(part.slot());
      chunk.set_gpa_bytes(gpa);
      chunk.set_size_bytes(count * kPageBytes);
      // Both encodings in turn.
      if (trailer.chunk_count() % 2 == 0) {
        chunk.mutable_bitmap()->assign((count + 7) / 8, '\0');
      } else {
        chunk.mutable_extents()->Clear();
      }
      for (int64_t i = 0; i < count; ++i) {
        const Page& page = pages_[first + i];
        if (!page.sealed && !(peek && (page.open || page.in_flight != 0))) {
          continue;
        }
        trailer.set_dirty_page_count(trailer.dirty_page_count() + 1);
        if (chunk.has_bitmap()) {
          (*chunk.mutable_bitmap())[i / 8] |= static_cast<char>(1 << (i % 8));
        } else {
          v1::Extent* extent = chunk.mutable_extents()->add_extents();
          extent->set_gpa_bytes(gpa + i * kPageBytes);
          extent->set_size_bytes(kPageBytes);
        }
      }
      const std::string payload = ChunkPayload(chunk);
      crc = ExtendCrc32c(crc, payload);
      chunk.set_crc32c(Crc32c(payload));
      if (fault.kind == Kind::kCorruptChunk &&
          trailer.chunk_count() == fault.chunks) {
        chunk.set_crc32c(chunk.crc32c() ^ 1);
      }
      trailer.set_chunk_count(trailer.chunk_count() + 1);
      if (!writer->Write(message)) return Broken();
    }
  }
  if (fault.kind == Kind::kUnavailableAfter) return Broken();
  if (fault.kind == Kind::kNoTrailer) return grpc::Status::OK;
  trailer.set_crc32c(crc);
  if (fault.kind == Kind::kWrongTrailer) {
    trailer.set_chunk_count(trailer.chunk_count() + 1);
  }
  *message.mutable_trailer() = trailer;
  writer->Write(message);
  return grpc::Status::OK;
}

grpc::Status FakeGuest::PagesLocked(const v1::SlotPages& named,
                                    std::vector<int64_t>* pages) {
  const Slot* slot = FindLocked(named.slot());
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

grpc::Status FakeGuest::ClearLocked(int64_t epoch, const v1::SlotPages& pages,
                                    v1::ClearDirtyLogResponse* response) {
  std::vector<int64_t> named;
  if (grpc::Status status = PagesLocked(pages, &named); !status.ok()) {
    return status;
  }
  if (epoch != epoch_ || epoch < FindLocked(pages.slot())->first_epoch) {
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

grpc::Status FakeGuest::ClearDirtyLog(grpc::ServerContext*,
                                      const v1::ClearDirtyLogRequest* request,
                                      v1::ClearDirtyLogResponse* response) {
  CallHook();
  absl::MutexLock lock(&mutex_);
  clears_.push_back(*request);
  return Once(FakeCall::kClear, *request, response, [&]() {
    mutex_.AssertHeld();
    if (grpc::Status status =
            AdmitLocked(request->owner_token(), request->log_id());
        !status.ok()) {
      return status;
    }
    return ClearLocked(request->epoch(), request->pages(), response);
  });
}

std::deque<v1::DirtyLogChunk> FakeGuest::ChunksLocked() {
  std::deque<v1::DirtyLogChunk> chunks;
  for (const Slot& slot : slots_) {
    for (int64_t first = 0; first < slot.page_count;
         first += pages_per_chunk_) {
      const int64_t count = std::min(pages_per_chunk_, slot.page_count - first);
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

grpc::Status FakeGuest::HarvestDirtyLog(
    grpc::ServerContext*,
    grpc::ServerReaderWriter<v1::HarvestDirtyLogResponse,
                             v1::HarvestDirtyLogRequest>* stream) {
  v1::HarvestDirtyLogRequest request;
  if (!stream->Read(&request) || !request.has_open()) {
    return Refused(grpc::StatusCode::INVALID_ARGUMENT, v1::INVALID_REQUEST);
  }
  const v1::HarvestOpen open = request.open();
  int64_t epoch = 0;
  int64_t number = 0;
  std::deque<v1::DirtyLogChunk> pending;
  std::map<int64_t, v1::DirtyLogChunk> sent;
  v1::DirtyLogTrailer trailer;
  bool owes_trailer = false;
  do {
    CallHook();
    absl::MutexLock lock(&mutex_);
    if (grpc::Status status = AdmitLocked(open.owner_token(), open.log_id());
        !status.ok()) {
      return status;
    }
    v1::HarvestDirtyLogResponse response;
    if (request.has_open()) {
      FillLocked(false, response.mutable_opened());
    } else if (request.has_seal()) {
      response.mutable_sealed()->set_acknowledged_page_count(
          AcknowledgeLocked(request.seal().acknowledged_epoch()));
      SealLocked(response.mutable_sealed());
      epoch = epoch_;
      pending = ChunksLocked();
      sent.clear();
      trailer.Clear();
      owes_trailer = true;
    } else if (request.has_clear()) {
      const auto chunk = sent.extract(request.clear().number());
      if (chunk.empty()) return Aborted(v1::EPOCH_MISMATCH);
      v1::SlotPages pages;
      pages.set_slot(chunk.mapped().slot());
      pages.set_start_gpa_bytes(chunk.mapped().gpa_bytes());
      pages.set_size_bytes(chunk.mapped().size_bytes());
      pages.set_bitmap(chunk.mapped().bitmap());
      response.mutable_cleared()->set_number(request.clear().number());
      if (grpc::Status status = ClearLocked(
              epoch, pages, response.mutable_cleared()->mutable_result());
          !status.ok()) {
        return status;
      }
    } else {
      response.mutable_acknowledged()->set_acknowledged_page_count(
          AcknowledgeLocked(request.acknowledge().epoch()));
    }
    if (!stream->Write(response)) return Broken();
    const int64_t window =
        open.window_chunk_count() > 0 ? open.window_chunk_count() : 8;
    while (!pending.empty() && static_cast<int64_t>(sent.size()) < window) {
      v1::HarvestChunk& chunk = *response.mutable_chunk();
      chunk.set_number(++number);
      *chunk.mutable_pages() = pending.front();
      pending.pop_front();
      trailer.set_chunk_count(trailer.chunk_count() + 1);
      trailer.set_crc32c(
          ExtendCrc32c(trailer.crc32c(), chunk.pages().bitmap()));
      sent[number] = chunk.pages();
      widest_window_ =
          std::max(widest_window_, static_cast<int64_t>(sent.size()));
      if (!stream->Write(response)) return Broken();
    }
    if (owes_trailer && pending.empty()) {
      owes_trailer = false;
      *response.mutable_trailer() = trailer;
      if (!stream->Write(response)) return Broken();
    }
  } while (stream->Read(&request));
  return grpc::Status::OK;
}

grpc::Status FakeGuest::AcknowledgePages(
    grpc::ServerContext*, const v1::AcknowledgePagesRequest* request,
    v1::AcknowledgePagesResponse* response) {
  CallHook();
  absl::MutexLock lock(&mutex_);
  return Once(FakeCall::kAcknowledge, *request, response, [&]() {
    mutex_.AssertHeld();
    if (grpc::Status status =
            AdmitLocked(request->owner_token(), request->log_id());
        !status.ok()) {
      return status;
    }
    if (request->epoch() <= 0 || request->epoch() > epoch_) {
      return Refused(grpc::StatusCode::NOT_FOUND, v1::EPOCH_UNKNOWN);
    }
    if (!request->has_pages()) {
      response->set_acknowledged_page_count(
          AcknowledgeLocked(request->epoch()));
    } else {
      std::vector<int64_t> named;
      if (grpc::Status status = PagesLocked(request->pages(), &named);
          !status.ok()) {
        return status;
      }
      for (const int64_t number : named) {
        Page& page = pages_[number];
        if (page.in_flight == 0) {
          response->set_not_in_flight_page_count(
              response->not_in_flight_page_count() + 1);
        } else if (page.in_flight > request->epoch()) {
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
  });
}

grpc::Status FakeGuest::StopDirtyLog(grpc::ServerContext*,
                                     const v1::StopDirtyLogRequest* request,
                                     v1::StopDirtyLogResponse* response) {
  absl::MutexLock lock(&mutex_);
  return Once(FakeCall::kStop, *request, response, [&]() {
    mutex_.AssertHeld();
    grpc::Status status = request->force() ? CheckLocked(request->log_id())
                                           : AdmitLocked(request->owner_token(),
                                                         request->log_id());
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
    if (count > 0 && !request->discard_undelivered()) {
      return Refused(
          grpc::StatusCode::FAILED_PRECONDITION, v1::UNDELIVERED_PAGES,
          {{"open_page_count", absl::StrCat(left.open_page_count())},
           {"sealed_page_count", absl::StrCat(left.sealed_page_count())},
           {"in_flight_page_count",
            absl::StrCat(left.in_flight_page_count())}});
    }
    log_is_on_ = false;
    return grpc::Status::OK;
  });
}

grpc::Status FakeGuest::GetVm(grpc::ServerContext*, const v1::GetVmRequest*,
                              v1::GetVmResponse* response) {
  absl::MutexLock lock(&mutex_);
  response->mutable_vm()->set_name(kVm);
  response->mutable_vm()->mutable_tdp();
  response->mutable_vm()->set_vcpu_count(1);
  for (const Slot& slot : slots_) {
    v1::Memslot* memslot = response->mutable_vm()->add_memslots();
    memslot->set_slot(slot.id);
    memslot->set_gpa_bytes(slot.gpa_bytes());
    memslot->set_size_bytes(slot.page_count * kPageBytes);
  }
  return grpc::Status::OK;
}

grpc::Status FakeGuest::DeleteVm(grpc::ServerContext*,
                                 const v1::DeleteVmRequest*,
                                 v1::DeleteVmResponse*) {
  absl::MutexLock lock(&mutex_);
  if (!has_vm_) return Refused(grpc::StatusCode::NOT_FOUND, v1::VM_NOT_FOUND);
  has_vm_ = false;
  return grpc::Status::OK;
}

grpc::Status FakeGuest::PauseVcpus(grpc::ServerContext*,
                                   const v1::PauseVcpusRequest*,
                                   v1::PauseVcpusResponse*) {
  CallHook();
  absl::MutexLock lock(&mutex_);
  is_paused_ = true;
  return grpc::Status::OK;
}

grpc::Status FakeGuest::AgeRange(grpc::ServerContext*,
                                 const v1::AgeRangeRequest*,
                                 v1::AgeRangeResponse*) {
  return grpc::Status::OK;
}

grpc::Status FakeGuest::ReadPages(
    grpc::ServerContext*, const v1::ReadPagesRequest* request,
    grpc::ServerWriter<v1::ReadPagesResponse>* writer) {
  CallHook();
  StreamFault fault;
  std::string memory;
  {
    // Not held while the stream writes: its reader may make other calls.
    absl::MutexLock lock(&mutex_);
    fault = Take(page_faults_);
    memory = memory_;
  }
  if (fault.kind == Kind::kBeforeHeader) return Broken();
  v1::ReadPagesResponse message;
  v1::ReadPagesTrailer trailer;
  uint32_t crc = 0;
  for (const v1::Extent& extent : request->extents()) {
    const int64_t end = extent.gpa_bytes() + extent.size_bytes();
    for (int64_t gpa = extent.gpa_bytes(); gpa < end;
         gpa += pages_per_chunk_ * kPageBytes) {
      if (fault.kind == Kind::kUnavailableAfter &&
          trailer.chunk_count() == fault.chunks) {
        return Broken();
      }
      v1::PageChunk& chunk = *message.mutable_chunk();
      chunk.Clear();
      const int64_t chunk_end =
          std::min(end, gpa + pages_per_chunk_ * kPageBytes);
      for (int64_t page = gpa; page < chunk_end; page += kPageBytes) {
        const absl::string_view bytes =
            absl::string_view(memory).substr(page - kGpa, kPageBytes);
        const bool zero = bytes.find_first_not_of('\0') == bytes.npos;
        v1::Extent* part =
            zero ? chunk.add_zero_extents() : chunk.add_data_extents();
        part->set_gpa_bytes(page);
        part->set_size_bytes(kPageBytes);
        if (!zero) chunk.mutable_data()->append(bytes.data(), bytes.size());
        trailer.set_page_count(trailer.page_count() + 1);
      }
      crc = ExtendCrc32c(crc, chunk.data());
      chunk.set_crc32c(Crc32c(chunk.data()));
      if (fault.kind == Kind::kCorruptChunk &&
          trailer.chunk_count() == fault.chunks) {
        chunk.set_crc32c(chunk.crc32c() ^ 1);
      }
      trailer.set_chunk_count(trailer.chunk_count() + 1);
      if (!writer->Write(message)) return Broken();
    }
  }
  if (fault.kind == Kind::kUnavailableAfter) return Broken();
  if (fault.kind == Kind::kNoTrailer) return grpc::Status::OK;
  trailer.set_crc32c(crc);
  if (fault.kind == Kind::kWrongTrailer) trailer.set_page_count(-1);
  *message.mutable_trailer() = trailer;
  writer->Write(message);
  return grpc::Status::OK;
}

}  // namespace mmud::client
