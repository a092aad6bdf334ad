#include "client/mmu_client/fake_guest.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "client/mmu_client/client_options.h"
#include "client/mmu_client/dirty_log_stream.h"
#include "client/mmu_client/fake_dirty_log.h"
#include "client/mmu_client/fake_refusal.h"
#include "client/mmu_client/page_bitmap.h"
#include "client/mmu_client/test_socket.h"
#include "google/longrunning/operations.pb.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server_builder.h"
#include "mmud/v1/error_reasons.pb.h"
#include "wire/crc32c.h"

namespace mmud::client {
namespace {

using Kind = StreamFault::Kind;

grpc::Status Broken() {
  return grpc::Status(grpc::StatusCode::UNAVAILABLE, "the stream broke");
}

std::vector<FakeDirtyLog::Slot> SlotsOf(int64_t page_count,
                                        int64_t other_page_count) {
  std::vector<FakeDirtyLog::Slot> slots = {{FakeGuest::kSlot, 0, page_count}};
  if (other_page_count > 0) {
    slots.push_back({FakeGuest::kOtherSlot, page_count, other_page_count});
  }
  return slots;
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
      log_(SlotsOf(page_count, other_page_count)) {
  {
    absl::MutexLock lock(&mutex_);
    log_.Start(kOwner, kToken, FakeDirtyLog::Page());
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
  log_.Mark(page);
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

void FakeGuest::ExpireLease() {
  absl::MutexLock lock(&mutex_);
  log_.ExpireLease();
}

void FakeGuest::MoveSlot() {
  absl::MutexLock lock(&mutex_);
  log_.MoveFirstSlot();
}

void FakeGuest::SealByOther() {
  absl::MutexLock lock(&mutex_);
  v1::SealDirtyLogResponse response;
  log_.Seal(&response);
}

void FakeGuest::StopLog() {
  absl::MutexLock lock(&mutex_);
  log_.Stop();
}

void FakeGuest::BeginStart(const std::string& owner, const std::string& token) {
  absl::MutexLock lock(&mutex_);
  log_.BeginStart(owner, token);
}

void FakeGuest::FinishStart() {
  absl::MutexLock lock(&mutex_);
  log_.FinishStart();
}

void FakeGuest::RemoveVm() {
  absl::MutexLock lock(&mutex_);
  log_.RemoveVm();
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
  return std::count_if(
      log_.pages().begin(), log_.pages().end(),
      [](const FakeDirtyLog::Page& page) { return page.open; });
}

int64_t FakeGuest::sealed_page_count() const {
  absl::MutexLock lock(&mutex_);
  return std::count_if(
      log_.pages().begin(), log_.pages().end(),
      [](const FakeDirtyLog::Page& page) { return page.sealed; });
}

int64_t FakeGuest::in_flight_page_count() const {
  absl::MutexLock lock(&mutex_);
  return std::count_if(
      log_.pages().begin(), log_.pages().end(),
      [](const FakeDirtyLog::Page& page) { return page.in_flight != 0; });
}

int64_t FakeGuest::sealed_epoch() const {
  absl::MutexLock lock(&mutex_);
  return log_.sealed_epoch();
}

std::string FakeGuest::log_id() const {
  absl::MutexLock lock(&mutex_);
  return log_.id();
}

std::string FakeGuest::owner() const {
  absl::MutexLock lock(&mutex_);
  return log_.owner();
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

grpc::Status FakeGuest::StartDirtyLog(
    grpc::ServerContext*, const v1::StartDirtyLogRequest* request,
    google::longrunning::Operation* operation) {
  absl::MutexLock lock(&mutex_);
  v1::StartDirtyLogResponse response;
  if (grpc::Status status = log_.Start(*request, &response); !status.ok()) {
    return status;
  }
  operation->set_name("operations/start");
  operation->set_done(true);
  operation->mutable_response()->PackFrom(response);
  return grpc::Status::OK;
}

grpc::Status FakeGuest::GetDirtyLog(grpc::ServerContext*,
                                    const v1::GetDirtyLogRequest* request,
                                    v1::GetDirtyLogResponse* response) {
  absl::MutexLock lock(&mutex_);
  if (grpc::Status status = log_.Check(""); !status.ok()) return status;
  log_.Fill(request->count_open_pages(), response->mutable_dirty_log());
  return grpc::Status::OK;
}

grpc::Status FakeGuest::AcquireDirtyLog(
    grpc::ServerContext*, const v1::AcquireDirtyLogRequest* request,
    v1::AcquireDirtyLogResponse* response) {
  CallHook();
  absl::MutexLock lock(&mutex_);
  return Once(FakeCall::kAcquire, *request, response, [&]() {
    mutex_.AssertHeld();
    return log_.Acquire(*request, response);
  });
}

grpc::Status FakeGuest::SealDirtyLog(grpc::ServerContext*,
                                     const v1::SealDirtyLogRequest* request,
                                     v1::SealDirtyLogResponse* response) {
  CallHook();
  absl::MutexLock lock(&mutex_);
  seals_.push_back(*request);
  return Once(FakeCall::kSeal, *request, response, [&]() {
    mutex_.AssertHeld();
    return log_.Seal(*request, response);
  });
}

grpc::Status FakeGuest::ReadDirtyPages(
    grpc::ServerContext*, const v1::ReadDirtyPagesRequest* request,
    grpc::ServerWriter<v1::ReadDirtyPagesResponse>* writer) {
  CallHook();
  absl::MutexLock lock(&mutex_);
  reads_.push_back(*request);
  const StreamFault fault = Take(log_faults_);
  if (grpc::Status status = log_.Check(request->log_id()); !status.ok()) {
    return status;
  }
  const bool peek = request->epoch() == 0;
  if (!peek && request->epoch() != log_.sealed_epoch()) {
    return Aborted(v1::EPOCH_SUPERSEDED);
  }
  if (fault.kind == Kind::kBeforeHeader) return Broken();

  v1::ReadDirtyPagesResponse message;
  message.mutable_header()->set_log_id(log_.id());
  message.mutable_header()->set_epoch(request->epoch());
  bool has_start_slot = !request->has_start();
  for (const FakeDirtyLog::Slot& slot : log_.slots()) {
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
      // Use both encodings in turn.
      if (trailer.chunk_count() % 2 == 0) {
        chunk.mutable_bitmap()->assign((count + 7) / 8, '\0');
      } else {
        chunk.mutable_extents()->Clear();
      }
      for (int64_t i = 0; i < count; ++i) {
        const FakeDirtyLog::Page& page = log_.pages()[first + i];
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

grpc::Status FakeGuest::ClearDirtyLog(grpc::ServerContext*,
                                      const v1::ClearDirtyLogRequest* request,
                                      v1::ClearDirtyLogResponse* response) {
  CallHook();
  absl::MutexLock lock(&mutex_);
  clears_.push_back(*request);
  return Once(FakeCall::kClear, *request, response, [&]() {
    mutex_.AssertHeld();
    return log_.Clear(*request, response);
  });
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
    if (grpc::Status status = log_.Admit(open.owner_token(), open.log_id());
        !status.ok()) {
      return status;
    }
    v1::HarvestDirtyLogResponse response;
    if (request.has_open()) {
      log_.Fill(false, response.mutable_opened());
    } else if (request.has_seal()) {
      response.mutable_sealed()->set_acknowledged_page_count(
          log_.Acknowledge(request.seal().acknowledged_epoch()));
      log_.Seal(response.mutable_sealed());
      epoch = log_.sealed_epoch();
      pending = log_.Chunks(pages_per_chunk_);
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
      if (grpc::Status status = log_.Clear(
              epoch, pages, response.mutable_cleared()->mutable_result());
          !status.ok()) {
        return status;
      }
    } else {
      response.mutable_acknowledged()->set_acknowledged_page_count(
          log_.Acknowledge(request.acknowledge().epoch()));
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
    return log_.Acknowledge(*request, response);
  });
}

grpc::Status FakeGuest::StopDirtyLog(grpc::ServerContext*,
                                     const v1::StopDirtyLogRequest* request,
                                     v1::StopDirtyLogResponse* response) {
  absl::MutexLock lock(&mutex_);
  return Once(FakeCall::kStop, *request, response, [&]() {
    mutex_.AssertHeld();
    return log_.Stop(*request, response);
  });
}

grpc::Status FakeGuest::GetVm(grpc::ServerContext*, const v1::GetVmRequest*,
                              v1::GetVmResponse* response) {
  absl::MutexLock lock(&mutex_);
  response->mutable_vm()->set_name(kVm);
  response->mutable_vm()->mutable_tdp();
  response->mutable_vm()->set_vcpu_count(1);
  for (const FakeDirtyLog::Slot& slot : log_.slots()) {
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
  if (!log_.has_vm()) {
    return Refused(grpc::StatusCode::NOT_FOUND, v1::VM_NOT_FOUND);
  }
  log_.RemoveVm();
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

void FakeGuest::SetHot(GpaRange pages) {
  absl::MutexLock lock(&mutex_);
  hot_ = pages;
}

void FakeGuest::BreakAging(grpc::Status status) {
  absl::MutexLock lock(&mutex_);
  aging_status_ = std::move(status);
}

v1::AgerSettings FakeGuest::ager() const {
  absl::MutexLock lock(&mutex_);
  return ager_;
}

grpc::Status FakeGuest::GetAger(grpc::ServerContext*, const v1::GetAgerRequest*,
                                v1::GetAgerResponse* response) {
  absl::MutexLock lock(&mutex_);
  *response->mutable_ager()->mutable_settings() = ager_;
  return aging_status_;
}

grpc::Status FakeGuest::UpdateAger(grpc::ServerContext*,
                                   const v1::UpdateAgerRequest* request,
                                   v1::UpdateAgerResponse* response) {
  absl::MutexLock lock(&mutex_);
  if (aging_status_.ok()) ager_.MergeFrom(request->settings());
  *response->mutable_ager()->mutable_settings() = ager_;
  return aging_status_;
}

grpc::Status FakeGuest::GetWorkingSet(grpc::ServerContext*,
                                      const v1::GetWorkingSetRequest*,
                                      v1::GetWorkingSetResponse* response) {
  absl::MutexLock lock(&mutex_);
  if (!aging_status_.ok()) return aging_status_;
  if (hot_.size_bytes == 0)
    return Refused(grpc::StatusCode::FAILED_PRECONDITION, v1::NO_GENERATION);
  v1::WorkingSet& working_set = *response->mutable_working_set();
  working_set.add_generations()->set_sequence(1);
  working_set.add_bins()->set_page_count(hot_.size_bytes / kPageBytes);
  working_set.add_windows()->set_size_bytes(hot_.size_bytes);
  return grpc::Status::OK;
}

grpc::Status FakeGuest::ListHotRanges(grpc::ServerContext*,
                                      const v1::ListHotRangesRequest* request,
                                      v1::ListHotRangesResponse* response) {
  absl::MutexLock lock(&mutex_);
  if (!aging_status_.ok()) return aging_status_;
  if (hot_.size_bytes == 0)
    return Refused(grpc::StatusCode::FAILED_PRECONDITION, v1::NO_GENERATION);
  // The token's length is the number of the page.
  const auto number = static_cast<int64_t>(request->page_token().size());
  v1::HotRange& range = *response->add_ranges();
  range.mutable_extent()->set_gpa_bytes(hot_.gpa_bytes + number * kPageBytes);
  range.mutable_extent()->set_size_bytes(kPageBytes);
  range.set_generation(1);
  if ((number + 1) * kPageBytes < hot_.size_bytes) {
    response->set_next_page_token(std::string(number + 1, 'x'));
  }
  return grpc::Status::OK;
}

grpc::Status FakeGuest::ReadPages(
    grpc::ServerContext*, const v1::ReadPagesRequest* request,
    grpc::ServerWriter<v1::ReadPagesResponse>* writer) {
  CallHook();
  StreamFault fault;
  std::string memory;
  {
    // The lock is not held while the stream writes, since its reader may make
    // other calls.
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
