// An in-process daemon with one VM, for tests of the client: real gRPC, a dirty
// log with an owner, epochs and pages in flight, and streams and calls that
// break where a test wants them to.
//
// The guest writes as with an MMU: the first write to a page after a clear
// marks the page and makes it writable; further writes do not mark it. So a
// client that copies before it clears, or acknowledges pages that it did not
// copy, ends with a different copy.

#ifndef CLIENT_MMU_CLIENT_FAKE_GUEST_H_
#define CLIENT_MMU_CLIENT_FAKE_GUEST_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "client/mmu_client/client.h"
#include "client/mmu_client/fake_dirty_log.h"
#include "client/mmu_client/fake_refusal.h"
#include "client/mmu_client/page_bitmap.h"
#include "grpcpp/server.h"
#include "grpcpp/support/status.h"
#include "mmud/v1/aging_service.grpc.pb.h"
#include "mmud/v1/dirty_log_service.grpc.pb.h"
#include "mmud/v1/dirty_log_service.pb.h"
#include "mmud/v1/guest_memory_service.grpc.pb.h"
#include "mmud/v1/vm_service.grpc.pb.h"

namespace mmud::client {

// A fault of one stream.
struct StreamFault {
  enum class Kind {
    kNone,
    kUnavailableAfter,  // UNAVAILABLE after `chunks` chunks
    kBeforeHeader,      // UNAVAILABLE at once
    kCorruptChunk,      // chunk number `chunks` has a wrong checksum
    kNoTrailer,         // ends OK without its trailer
    kWrongTrailer,      // its totals are wrong
  };
  Kind kind = Kind::kNone;
  int chunks = 0;
};

// Unary calls that can have faults.
enum class FakeCall { kAcquire, kSeal, kClear, kAcknowledge, kStop };

// A fault of one unary call. OK: no fault. With `done`, the error is returned
// after the work, otherwise without doing the work. With `ended_early`, no
// answer is stored for a retry, as if the call had ended before all its work.
struct CallFault {
  grpc::Status status;
  bool done = false;
  bool ended_early = false;
};

// Thread-safe.
class FakeGuest final : public v1::DirtyLogService::Service,
                        public v1::GuestMemoryService::Service,
                        public v1::VmService::Service,
                        public v1::AgingService::Service {
 public:
  static constexpr const char* kVm = kFakeVm;
  static constexpr int32_t kSlot = 3;
  static constexpr int32_t kOtherSlot = 5;
  static constexpr int64_t kGpa = FakeDirtyLog::kGpa;
  // The owner of the log that exists from the start.
  static constexpr char kOwner[] = "first owner";
  static constexpr char kToken[] = "the first owner's secret";

  // Memory of zeros; all pages are logged and clean. Streams send
  // `pages_per_chunk` pages in a chunk, a multiple of 64. Pages are counted
  // from kGpa on. The pages of the other slot, if there is one, follow.
  FakeGuest(int64_t page_count, int64_t pages_per_chunk,
            int64_t other_page_count = 0);
  ~FakeGuest() override;

  // Address at which the guest listens, for programs.
  const std::string& address() const { return address_; }
  // A client of this guest whose waits take no time.
  std::unique_ptr<Client> NewClient();

  // The guest writes to a page: changes its bytes, and marks it dirty if it is
  // not writable yet. Does nothing while the vCPUs are paused.
  void Write(int64_t page);
  // The guest writes, but the dirty log misses it.
  void WriteUnseen(int64_t page);

  // Faults of the next streams and calls, in order; later ones have no fault.
  void BreakDirtyLog(std::vector<StreamFault> faults);
  void BreakPages(std::vector<StreamFault> faults);
  void BreakCalls(FakeCall call, std::vector<CallFault> faults);
  // Sets a function that is called at the beginning of each call that moves or
  // reads pages or pauses the vCPUs. It is called without a lock.
  void OnCall(std::function<void()> hook);

  // Ends the owner's lease.
  void ExpireLease();
  // Moves the first slot to its present address: its pages in flight are sealed
  // again, and epochs sealed before can no longer be cleared for it.
  void MoveSlot();
  // Seals with the owner's token, as another client with this token would.
  void SealByOther();
  // Switches logging off.
  void StopLog();
  // A start of the log is running; other starts are refused until it is
  // finished.
  void BeginStart(const std::string& owner, const std::string& token);
  // That start has finished: the log exists, with every page dirty.
  void FinishStart();
  // Removes the VM and its log, as a restart of the daemon does.
  void RemoveVm();
  // Ends the pause of the vCPUs.
  void Resume();
  // From now on the working set has one generation, which found these pages
  // young.
  void SetHot(GpaRange pages);
  // Calls of AgingService fail with this error; OK: they do not.
  void BreakAging(grpc::Status status);
  // The settings of the ager.
  v1::AgerSettings ager() const;

  std::string MemoryCopy() const;
  int64_t open_page_count() const;
  int64_t sealed_page_count() const;
  int64_t in_flight_page_count() const;
  int64_t sealed_epoch() const;
  std::string log_id() const;
  std::string owner() const;
  std::vector<v1::ClearDirtyLogRequest> clears() const;
  std::vector<v1::ReadDirtyPagesRequest> reads() const;
  std::vector<v1::SealDirtyLogRequest> seals() const;
  // The largest number of chunks that any harvest had sent but not cleared.
  int64_t widest_window() const;

  grpc::Status StartDirtyLog(grpc::ServerContext* context,
                             const v1::StartDirtyLogRequest* request,
                             google::longrunning::Operation* response) override;
  grpc::Status GetDirtyLog(grpc::ServerContext* context,
                           const v1::GetDirtyLogRequest* request,
                           v1::GetDirtyLogResponse* response) override;
  grpc::Status AcquireDirtyLog(grpc::ServerContext* context,
                               const v1::AcquireDirtyLogRequest* request,
                               v1::AcquireDirtyLogResponse* response) override;
  grpc::Status SealDirtyLog(grpc::ServerContext* context,
                            const v1::SealDirtyLogRequest* request,
                            v1::SealDirtyLogResponse* response) override;
  grpc::Status ReadDirtyPages(
      grpc::ServerContext* context, const v1::ReadDirtyPagesRequest* request,
      grpc::ServerWriter<v1::ReadDirtyPagesResponse>* writer) override;
  grpc::Status ClearDirtyLog(grpc::ServerContext* context,
                             const v1::ClearDirtyLogRequest* request,
                             v1::ClearDirtyLogResponse* response) override;
  grpc::Status HarvestDirtyLog(
      grpc::ServerContext* context,
      grpc::ServerReaderWriter<v1::HarvestDirtyLogResponse,
                               v1::HarvestDirtyLogRequest>* stream) override;
  grpc::Status AcknowledgePages(
      grpc::ServerContext* context, const v1::AcknowledgePagesRequest* request,
      v1::AcknowledgePagesResponse* response) override;
  grpc::Status StopDirtyLog(grpc::ServerContext* context,
                            const v1::StopDirtyLogRequest* request,
                            v1::StopDirtyLogResponse* response) override;
  grpc::Status GetVm(grpc::ServerContext* context,
                     const v1::GetVmRequest* request,
                     v1::GetVmResponse* response) override;
  grpc::Status DeleteVm(grpc::ServerContext* context,
                        const v1::DeleteVmRequest* request,
                        v1::DeleteVmResponse* response) override;
  grpc::Status PauseVcpus(grpc::ServerContext* context,
                          const v1::PauseVcpusRequest* request,
                          v1::PauseVcpusResponse* response) override;
  grpc::Status AgeRange(grpc::ServerContext* context,
                        const v1::AgeRangeRequest* request,
                        v1::AgeRangeResponse* response) override;
  grpc::Status GetAger(grpc::ServerContext* context,
                       const v1::GetAgerRequest* request,
                       v1::GetAgerResponse* response) override;
  grpc::Status UpdateAger(grpc::ServerContext* context,
                          const v1::UpdateAgerRequest* request,
                          v1::UpdateAgerResponse* response) override;
  grpc::Status GetWorkingSet(grpc::ServerContext* context,
                             const v1::GetWorkingSetRequest* request,
                             v1::GetWorkingSetResponse* response) override;
  // One page of 4 KiB in each answer.
  grpc::Status ListHotRanges(grpc::ServerContext* context,
                             const v1::ListHotRangesRequest* request,
                             v1::ListHotRangesResponse* response) override;
  grpc::Status ReadPages(
      grpc::ServerContext* context, const v1::ReadPagesRequest* request,
      grpc::ServerWriter<v1::ReadPagesResponse>* writer) override;

 private:
  void CallHook() ABSL_LOCKS_EXCLUDED(mutex_);
  void WriteLocked(int64_t page) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Carries out a call once per request id, with the next fault of its kind.
  template <typename Request, typename Response, typename Work>
  grpc::Status Once(FakeCall call, const Request& request, Response* response,
                    Work work) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const int64_t pages_per_chunk_;
  const std::string address_;

  mutable absl::Mutex mutex_;
  std::string memory_ ABSL_GUARDED_BY(mutex_);
  FakeDirtyLog log_ ABSL_GUARDED_BY(mutex_);
  bool is_paused_ ABSL_GUARDED_BY(mutex_) = false;
  uint64_t stamp_ ABSL_GUARDED_BY(mutex_) = 0;
  GpaRange hot_ ABSL_GUARDED_BY(mutex_);
  grpc::Status aging_status_ ABSL_GUARDED_BY(mutex_);
  v1::AgerSettings ager_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, std::string> answers_ ABSL_GUARDED_BY(mutex_);
  std::deque<StreamFault> log_faults_ ABSL_GUARDED_BY(mutex_);
  std::deque<StreamFault> page_faults_ ABSL_GUARDED_BY(mutex_);
  std::map<FakeCall, std::deque<CallFault>> call_faults_
      ABSL_GUARDED_BY(mutex_);
  std::function<void()> hook_ ABSL_GUARDED_BY(mutex_);
  std::vector<v1::ClearDirtyLogRequest> clears_ ABSL_GUARDED_BY(mutex_);
  std::vector<v1::ReadDirtyPagesRequest> reads_ ABSL_GUARDED_BY(mutex_);
  std::vector<v1::SealDirtyLogRequest> seals_ ABSL_GUARDED_BY(mutex_);
  int64_t widest_window_ ABSL_GUARDED_BY(mutex_) = 0;

  std::unique_ptr<grpc::Server> server_;
};

}  // namespace mmud::client

#endif  // CLIENT_MMU_CLIENT_FAKE_GUEST_H_
