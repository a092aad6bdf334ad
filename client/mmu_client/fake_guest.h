// An in-process daemon with one VM of one memslot, for tests of the client:
// real gRPC, a real dirty log with epochs, and streams that break where a test
// wants them to.

#ifndef CLIENT_MMU_CLIENT_FAKE_GUEST_H_
#define CLIENT_MMU_CLIENT_FAKE_GUEST_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "client/mmu_client/client.h"
#include "client/mmu_client/page_bitmap.h"
#include "grpcpp/server.h"
#include "grpcpp/support/status.h"
#include "mmud/v1/dirty_log_service.grpc.pb.h"
#include "mmud/v1/guest_memory_service.grpc.pb.h"

namespace mmud::client {

// How one stream goes wrong.
struct StreamFault {
  enum class Kind {
    kNone,
    kUnavailableAfter,  // UNAVAILABLE after `chunks` chunks
    kBeforeHeader,      // UNAVAILABLE at once, though the call did its work
    kCorruptChunk,      // chunk number `chunks` has a wrong checksum
    kNoTrailer,         // ends OK without its trailer
    kWrongTrailer,      // its totals are wrong
  };
  Kind kind = Kind::kNone;
  int chunks = 0;
};

// Thread-safe.
class FakeGuest final : public v1::DirtyLogService::Service,
                        public v1::GuestMemoryService::Service {
 public:
  static constexpr char kVm[] = "vms/fake";
  static constexpr int32_t kSlot = 3;
  static constexpr int64_t kGpa = 0x100000000;

  // Memory of zeros, clean. Streams send `pages_per_chunk` pages in a chunk, a
  // multiple of 64.
  FakeGuest(int64_t page_count, int64_t pages_per_chunk);
  ~FakeGuest() override;

  // A client that talks to this guest and never really waits.
  std::unique_ptr<Client> NewClient();

  // The guest writes to a page: changes its bytes and marks it dirty.
  void Write(int64_t page);
  // The guest writes, but the dirty log misses it.
  void WriteUnseen(int64_t page);

  // Faults of the next streams, in order; then all goes well.
  void BreakDirtyLog(std::vector<StreamFault> faults);
  void BreakPages(std::vector<StreamFault> faults);
  // Statuses of the next clears: OK does nothing special; an error is returned
  // after the work was done if `done`, else without doing it.
  struct ClearFault {
    grpc::Status status;
    bool done = false;
  };
  void BreakClears(std::vector<ClearFault> faults);
  // Called by GetDirtyLog and ClearDirtyLog when they begin, without a lock.
  void OnCall(std::function<void()> hook);

  // Seals as another client would.
  void SealByOther();

  std::string MemoryCopy() const;
  int64_t dirty_page_count() const;
  int64_t unacked_page_count() const;
  int64_t sealed_epoch() const;
  std::vector<v1::ClearDirtyLogRequest> clears() const;
  std::vector<v1::GetDirtyLogRequest> gets() const;

  grpc::Status GetDirtyLog(
      grpc::ServerContext* context, const v1::GetDirtyLogRequest* request,
      grpc::ServerWriter<v1::GetDirtyLogResponse>* writer) override;
  grpc::Status ClearDirtyLog(grpc::ServerContext* context,
                             const v1::ClearDirtyLogRequest* request,
                             v1::ClearDirtyLogResponse* response) override;
  grpc::Status ReadPages(
      grpc::ServerContext* context, const v1::ReadPagesRequest* request,
      grpc::ServerWriter<v1::ReadPagesResponse>* writer) override;

 private:
  void SealLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const int64_t page_count_;
  const int64_t pages_per_chunk_;

  mutable absl::Mutex mutex_;
  std::string memory_ ABSL_GUARDED_BY(mutex_);
  std::vector<bool> open_ ABSL_GUARDED_BY(mutex_);
  std::vector<bool> sealed_ ABSL_GUARDED_BY(mutex_);
  int64_t epoch_ ABSL_GUARDED_BY(mutex_) = 0;  // newest sealed
  uint64_t stamp_ ABSL_GUARDED_BY(mutex_) = 0;
  std::string seal_id_ ABSL_GUARDED_BY(mutex_);
  int64_t seal_id_epoch_ ABSL_GUARDED_BY(mutex_) = 0;
  std::deque<StreamFault> log_faults_ ABSL_GUARDED_BY(mutex_);
  std::deque<StreamFault> page_faults_ ABSL_GUARDED_BY(mutex_);
  std::deque<ClearFault> clear_faults_ ABSL_GUARDED_BY(mutex_);
  std::function<void()> hook_ ABSL_GUARDED_BY(mutex_);
  std::vector<v1::ClearDirtyLogRequest> clears_ ABSL_GUARDED_BY(mutex_);
  std::vector<v1::GetDirtyLogRequest> gets_ ABSL_GUARDED_BY(mutex_);

  std::unique_ptr<grpc::Server> server_;
};

}  // namespace mmud::client

#endif  // CLIENT_MMU_CLIENT_FAKE_GUEST_H_
