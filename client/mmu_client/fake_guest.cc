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
#include "client/mmu_client/crc32c.h"
#include "client/mmu_client/dirty_log_stream.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "grpcpp/server_builder.h"

namespace mmud::client {
namespace {

using Kind = StreamFault::Kind;

grpc::Status Aborted(const std::string& reason) {
  google::rpc::Status status;
  status.set_code(grpc::StatusCode::ABORTED);
  google::rpc::ErrorInfo info;
  info.set_reason(reason);
  info.set_domain("mmud");
  status.add_details()->PackFrom(info);
  return grpc::Status(grpc::StatusCode::ABORTED, reason,
                      status.SerializeAsString());
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

FakeGuest::FakeGuest(int64_t page_count, int64_t pages_per_chunk)
    : page_count_(page_count),
      pages_per_chunk_(pages_per_chunk),
      memory_(page_count * kPageBytes, '\0'),
      open_(page_count),
      sealed_(page_count) {
  grpc::ServerBuilder builder;
  builder.RegisterService(static_cast<v1::DirtyLogService::Service*>(this));
  builder.RegisterService(static_cast<v1::GuestMemoryService::Service*>(this));
  server_ = builder.BuildAndStart();
}

FakeGuest::~FakeGuest() { server_->Shutdown(); }

std::unique_ptr<Client> FakeGuest::NewClient() {
  ClientOptions options;
  options.sleep = [](absl::Duration) {};
  return std::make_unique<Client>(
      server_->InProcessChannel(grpc::ChannelArguments()), options);
}

void FakeGuest::Write(int64_t page) {
  WriteUnseen(page);
  absl::MutexLock lock(&mutex_);
  open_[page] = true;
}

void FakeGuest::WriteUnseen(int64_t page) {
  absl::MutexLock lock(&mutex_);
  ++stamp_;
  std::memcpy(&memory_[page * kPageBytes + 8 * (stamp_ % 512)], &stamp_,
              sizeof(stamp_));
}

void FakeGuest::BreakDirtyLog(std::vector<StreamFault> faults) {
  absl::MutexLock lock(&mutex_);
  log_faults_.assign(faults.begin(), faults.end());
}

void FakeGuest::BreakPages(std::vector<StreamFault> faults) {
  absl::MutexLock lock(&mutex_);
  page_faults_.assign(faults.begin(), faults.end());
}

void FakeGuest::BreakClears(std::vector<ClearFault> faults) {
  absl::MutexLock lock(&mutex_);
  clear_faults_.assign(faults.begin(), faults.end());
}

void FakeGuest::OnCall(std::function<void()> hook) {
  absl::MutexLock lock(&mutex_);
  hook_ = std::move(hook);
}

void FakeGuest::SealLocked() {
  ++epoch_;
  for (int64_t page = 0; page < page_count_; ++page) {
    sealed_[page] = sealed_[page] || open_[page];
    open_[page] = false;
  }
}

void FakeGuest::SealByOther() {
  absl::MutexLock lock(&mutex_);
  SealLocked();
}

std::string FakeGuest::MemoryCopy() const {
  absl::MutexLock lock(&mutex_);
  return memory_;
}

int64_t FakeGuest::dirty_page_count() const {
  absl::MutexLock lock(&mutex_);
  return std::count(open_.begin(), open_.end(), true);
}

int64_t FakeGuest::unacked_page_count() const {
  absl::MutexLock lock(&mutex_);
  return std::count(sealed_.begin(), sealed_.end(), true);
}

int64_t FakeGuest::sealed_epoch() const {
  absl::MutexLock lock(&mutex_);
  return epoch_;
}

std::vector<v1::ClearDirtyLogRequest> FakeGuest::clears() const {
  absl::MutexLock lock(&mutex_);
  return clears_;
}

std::vector<v1::GetDirtyLogRequest> FakeGuest::gets() const {
  absl::MutexLock lock(&mutex_);
  return gets_;
}

grpc::Status FakeGuest::GetDirtyLog(
    grpc::ServerContext*, const v1::GetDirtyLogRequest* request,
    grpc::ServerWriter<v1::GetDirtyLogResponse>* writer) {
  std::function<void()> hook;
  {
    absl::MutexLock lock(&mutex_);
    hook = hook_;
  }
  if (hook) hook();
  absl::MutexLock lock(&mutex_);
  gets_.push_back(*request);
  const StreamFault fault = Take(log_faults_);
  const bool peek = request->mode() == v1::GET_DIRTY_LOG_MODE_PEEK;
  if (peek) {
    // Neither seals nor needs an epoch.
  } else if (request->epoch() == 0) {
    if (request->request_id().empty() || request->request_id() != seal_id_) {
      SealLocked();
      seal_id_ = request->request_id();
      seal_id_epoch_ = epoch_;
    } else if (seal_id_epoch_ != epoch_) {
      return Aborted("EPOCH_SUPERSEDED");
    }
  } else if (request->epoch() != epoch_) {
    return Aborted("EPOCH_SUPERSEDED");
  }
  if (fault.kind == Kind::kBeforeHeader) return Broken();

  int64_t first = 0;
  if (request->start_gpa_bytes() != 0) {
    first = (request->start_gpa_bytes() - kGpa) / kPageBytes;
    if (first < 0 || first >= page_count_ || first % kPagesPerWord != 0) {
      return grpc::Status(grpc::StatusCode::INVALID_ARGUMENT,
                          "INVALID_RESUME_OFFSET");
    }
  }
  v1::GetDirtyLogResponse message;
  message.mutable_header()->set_epoch(epoch_);
  message.mutable_header()->mutable_coverage()->set_gpa_bytes(
      kGpa + first * kPageBytes);
  message.mutable_header()->mutable_coverage()->set_size_bytes(
      (page_count_ - first) * kPageBytes);
  writer->Write(message);

  v1::DirtyLogTrailer trailer;
  uint32_t crc = 0;
  for (; first < page_count_; first += pages_per_chunk_) {
    if (fault.kind == Kind::kUnavailableAfter &&
        trailer.chunk_count() == fault.chunks) {
      return Broken();
    }
    const int64_t count = std::min(pages_per_chunk_, page_count_ - first);
    v1::DirtyLogChunk& chunk = *message.mutable_chunk();
    chunk.set_gpa_bytes(kGpa + first * kPageBytes);
    chunk.set_size_bytes(count * kPageBytes);
    // Both encodings in turn.
    if (trailer.chunk_count() % 2 == 0) {
      chunk.mutable_bitmap()->assign((count + 7) / 8, '\0');
    } else {
      chunk.mutable_extents()->Clear();
    }
    for (int64_t i = 0; i < count; ++i) {
      if (!sealed_[first + i] && !(peek && open_[first + i])) continue;
      trailer.set_dirty_page_count(trailer.dirty_page_count() + 1);
      if (chunk.has_bitmap()) {
        (*chunk.mutable_bitmap())[i / 8] |= static_cast<char>(1 << (i % 8));
      } else {
        v1::Extent* extent = chunk.mutable_extents()->add_extents();
        extent->set_gpa_bytes(kGpa + (first + i) * kPageBytes);
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
  std::function<void()> hook;
  {
    absl::MutexLock lock(&mutex_);
    hook = hook_;
  }
  if (hook) hook();
  absl::MutexLock lock(&mutex_);
  clears_.push_back(*request);
  const ClearFault fault = Take(clear_faults_);
  if (!fault.status.ok() && !fault.done) return fault.status;
  if (request->epoch() != epoch_) return Aborted("EPOCH_MISMATCH");
  const int64_t first = (request->start_gpa_bytes() - kGpa) / kPageBytes;
  const int64_t count = request->size_bytes() / kPageBytes;
  if (first % kPagesPerWord != 0 ||
      (count % kPagesPerWord != 0 && first + count != page_count_)) {
    return grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "UNALIGNED_CLEAR");
  }
  for (int64_t i = 0; i < count; ++i) {
    if ((static_cast<uint8_t>(request->bitmap()[i / 8]) >> (i % 8) & 1) == 0) {
      continue;
    }
    if (sealed_[first + i]) {
      sealed_[first + i] = false;
      response->set_cleared_page_count(response->cleared_page_count() + 1);
    } else {
      response->set_already_clean_page_count(
          response->already_clean_page_count() + 1);
    }
  }
  response->mutable_cost()->set_tlb_flush_count(1);
  return fault.status;
}

grpc::Status FakeGuest::ReadPages(
    grpc::ServerContext*, const v1::ReadPagesRequest* request,
    grpc::ServerWriter<v1::ReadPagesResponse>* writer) {
  absl::MutexLock lock(&mutex_);
  const StreamFault fault = Take(page_faults_);
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
            absl::string_view(memory_).substr(page - kGpa, kPageBytes);
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
