// The VM of a FakeGuest and its dirty log: slots, pages, an owner, epochs and
// pages in flight. Each call does all of its work or refuses it.

#ifndef CLIENT_MMU_CLIENT_FAKE_DIRTY_LOG_H_
#define CLIENT_MMU_CLIENT_FAKE_DIRTY_LOG_H_

#include <cstdint>
#include <deque>
#include <set>
#include <string>
#include <vector>

#include "client/mmu_client/page_bitmap.h"
#include "grpcpp/support/status.h"
#include "mmud/v1/dirty_log_service.pb.h"
#include "mmud/v1/error_reasons.pb.h"

namespace mmud::client {

// Externally synchronised.
class FakeDirtyLog {
 public:
  // Address of the first page of the first slot.
  static constexpr int64_t kGpa = 0x100000000;

  struct Slot {
    int32_t id = 0;
    int64_t first_page = 0;
    int64_t page_count = 0;
    int64_t first_epoch = 1;  // older ones cannot be cleared here
    int64_t gpa_bytes() const { return kGpa + first_page * kPageBytes; }
  };
  struct Page {
    bool writable = false;
    bool open = false;
    bool sealed = false;
    int64_t in_flight = 0;  // the epoch of its clear; 0: not in flight
  };

  // The slots follow each other. The log is off.
  explicit FakeDirtyLog(std::vector<Slot> slots);

  const std::vector<Slot>& slots() const { return slots_; }
  const std::vector<Page>& pages() const { return pages_; }
  bool has_vm() const { return has_vm_; }
  std::string id() const;
  const std::string& owner() const { return owner_; }
  int64_t sealed_epoch() const { return epoch_; }

  // The guest writes to a page.
  void Mark(int64_t page);

  // A new log, in which each page is `fresh`.
  void Start(const std::string& owner, const std::string& token, Page fresh);
  // Begins a start of the log, which lasts until FinishStart. Other starts are
  // refused meanwhile.
  void BeginStart(const std::string& owner, const std::string& token);
  void FinishStart();
  void Stop() { is_on_ = false; }
  void RemoveVm() { has_vm_ = false; }
  void ExpireLease() { lease_lasts_ = false; }
  void MoveFirstSlot();

  // Whether there is a log, of this id if it is not empty.
  grpc::Status Check(const std::string& log_id) const;
  // As Check, and refuses a `token` that is not the owner's. Otherwise renews
  // the owner's lease.
  grpc::Status Admit(const std::string& token, const std::string& log_id);

  // These do not check the owner, except that Clear refuses wrong pages and
  // epochs. Acknowledge returns the number of pages.
  void Fill(bool count_open, v1::DirtyLog* log) const;
  void Seal(v1::SealDirtyLogResponse* response);
  int64_t Acknowledge(int64_t epoch);
  grpc::Status Clear(int64_t epoch, const v1::SlotPages& pages,
                     v1::ClearDirtyLogResponse* response);
  // The sealed pages: one chunk for each part of a slot that has sealed pages.
  std::deque<v1::DirtyLogChunk> Chunks(int64_t pages_per_chunk) const;

  // Calls of a client.
  grpc::Status Start(const v1::StartDirtyLogRequest& request,
                     v1::StartDirtyLogResponse* response);
  grpc::Status Acquire(const v1::AcquireDirtyLogRequest& request,
                       v1::AcquireDirtyLogResponse* response);
  grpc::Status Seal(const v1::SealDirtyLogRequest& request,
                    v1::SealDirtyLogResponse* response);
  grpc::Status Clear(const v1::ClearDirtyLogRequest& request,
                     v1::ClearDirtyLogResponse* response);
  grpc::Status Acknowledge(const v1::AcknowledgePagesRequest& request,
                           v1::AcknowledgePagesResponse* response);
  grpc::Status Stop(const v1::StopDirtyLogRequest& request,
                    v1::StopDirtyLogResponse* response);

 private:
  grpc::Status Refuse(v1::ErrorReason reason) const;
  const Slot* Find(int32_t slot) const;
  // Seals a page again if it is in flight.
  static void Return(Page& page);
  // Sets `pages` to the named pages. An error if `named` is malformed.
  grpc::Status PagesOf(const v1::SlotPages& named,
                       std::vector<int64_t>* pages) const;

  std::vector<Slot> slots_;
  std::vector<Page> pages_;
  bool has_vm_ = true;
  bool is_on_ = false;
  // The start in progress; there is none if the token is empty.
  v1::StartDirtyLogRequest starting_;
  int64_t log_count_ = 0;  // the log's number
  std::string owner_;
  std::string token_;
  std::set<std::string> former_tokens_;
  bool lease_lasts_ = true;
  int64_t epoch_ = 0;  // newest sealed
};

}  // namespace mmud::client

#endif  // CLIENT_MMU_CLIENT_FAKE_DIRTY_LOG_H_
