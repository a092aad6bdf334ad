// A migration controller that uses nothing but the public API.
//
// It does what a live migration does on the source, with a buffer or a file of
// its own as the destination:
//
//   1. make the guest, let it write to all its memory, run a real program in it
//   2. split huge mappings, throttled, so that single pages can be logged
//   3. switch the dirty log on, with every page dirty, as its owner
//   4. baseline: the first harvest, which is all of memory
//   5. rounds: seal, read, clear, copy, acknowledge, until what is dirty fits
//      the downtime
//   6. stop the guest, last round, switch the log off
//   7. compare all of guest memory with the copy, byte by byte
//
// Why this loses nothing: a page is copied after it was cleared, so a write
// that the copy missed makes it dirty again; and it is acknowledged after its
// copy has arrived, so until then the log has it.
//
// It keeps no state that matters but the token of the log's owner, which is
// left with the destination. One that dies leaves in the log all that is not at
// the destination, from the first page on, since the log begins with all of
// them. TakeOver goes on from there with the destination as it is:
//
//   1. open the destination, which the dead one has let go of
//   2. acquire the log, if a token at the destination owns it: that seals again
//      what was in flight
//   3. rounds, and so on as above

#ifndef CLIENT_REFERENCE_CONTROLLER_H_
#define CLIENT_REFERENCE_CONTROLLER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "client/guest_copy.h"
#include "client/migration_report.h"
#include "client/mmu_client/client.h"
#include "client/mmu_client/harvester.h"
#include "client/mmu_client/page_bitmap.h"
#include "client/mmu_client/page_reader.h"
#include "client/page_queue.h"
#include "google/protobuf/timestamp.pb.h"
#include "mmu_core/base/clock.h"
#include "mmud/lab/v1/workload_service.pb.h"
#include "mmud/v1/aging_service.pb.h"
#include "mmud/v1/dirty_log_service.pb.h"
#include "mmud/v1/vm_service.pb.h"

namespace mmud::client {

// Whether copying takes as long as the link would.
enum class Pacing { kLink, kNone };

// A value.
struct ControllerOptions {
  std::string vm_id = "quickstart";
  // Who owns the dirty log, for people.
  std::string owner = "reference controller";
  // How long the log is the controller's alone after its last call. It calls
  // again before that.
  absl::Duration lease = absl::Seconds(30);
  // The file that is the destination; empty: memory of this process. The tokens
  // by which its log is known are beside it, in `destination`.token.
  std::string destination;
  v1::Vm vm;  // its MMU: `mmu`, `guest_paging`; the rest is set from below
  std::vector<v1::Memslot> memslots;  // the guest's memory
  int32_t vcpu_count = 2;

  // The guest's work: a trace of the daemon's trace directory, run again and
  // again, and how quickly. 0: as quickly as it goes.
  std::string trace_name;
  int64_t accesses_per_second_per_vcpu = 0;
  int64_t seed = 1;

  // Distance of the writes that fill the memory beforehand.
  int64_t populate_stride_bytes = 64 << 10;

  v1::Throttle split_throttle;
  int64_t bandwidth_bytes_per_second = 1'250'000'000;
  Pacing pacing = Pacing::kLink;
  absl::Duration downtime_target = absl::Milliseconds(300);
  // Rounds before the guest is stopped: at least, and at most.
  int min_rounds = 3;
  int max_rounds = 10;
};

// Is told what the controller does. Called from the thread of Run.
class ControllerObserver {
 public:
  virtual ~ControllerObserver() = default;
  // A step begins; it is a short sentence.
  virtual void OnStep(const std::string& /*step*/) {}
  // How far the step is, 0 to 1.
  virtual void OnProgress(double /*share*/, const std::string& /*words*/) {}
  virtual void OnRound(const MigrationRound& /*round*/) {}
  // Where the pages of the round under way are now.
  enum class Pages {
    kInFlight,  // cleared, and not read yet
    kRead,      // read, and not at the destination yet
    kArrived,   // there, and not acknowledged yet
  };
  virtual void OnPages(Pages /*pages*/) {}
};

// Thread-compatible. To be used for one run.
class ReferenceController {
 public:
  // `client` and `observer` outlive this object.
  ReferenceController(Client* client, ControllerOptions options,
                      ControllerObserver* observer);

  // All steps. Memory that differs is no error: see MigrationReport.equal. The
  // guest is left paused, for ten minutes from the end of the comparison: then
  // it goes on by itself. So does one whose controller failed or died.
  absl::StatusOr<MigrationReport> Run();

  // The same for a guest that another controller has begun to move and given
  // up, wherever that was. Takes the log over from one that has left its token
  // with the destination, and starts it if there is none. Any other log is left
  // alone, since what it has delivered is somewhere else: FAILED_PRECONDITION
  // names its owner. The former owner writes to the destination no more: with a
  // file, the lock on it sees to that.
  absl::StatusOr<MigrationReport> TakeOver();

  // Lets the guest go on.
  absl::Status Resume();

  // Ends the guest's work and deletes it. OK if there is none.
  absl::Status Delete();

 private:
  using Step = absl::Status (ReferenceController::*)();
  absl::StatusOr<MigrationReport> RunSteps(const std::vector<Step>& steps);

  absl::Status CreateGuest();
  absl::Status FindGuest();
  absl::Status Populate();
  absl::Status StartProgram();
  absl::Status Split();
  absl::Status StartLog();
  absl::Status TakeLog();
  absl::Status AcquireLog(const std::string& log_id, const std::string& former);
  absl::Status CopyBaseline();
  absl::Status RunRounds();
  absl::Status StopAndCopyRest();
  // Pauses the guest, or extends its pause. ABORTED if it went on meanwhile.
  absl::Status KeepPaused();
  absl::Status StopLog();
  absl::Status Compare();
  // Ages all memory. `mode` as in AgeRangeRequest.
  absl::Status Age(v1::AgingMode mode);

  // Opens the destination for a guest.
  absl::Status SetGuest(const v1::Vm& guest);
  // The log is ours, by this token.
  void SetLog(const v1::DirtyLog& log, std::string owner_token);
  // Keeps the log ours if it was not for a while: to be called at least twice
  // in a lease. LOG_FENCED once it is somebody else's.
  absl::Status RenewLease();
  // Waits, and renews the lease meanwhile.
  absl::Status Wait(absl::Duration duration);

  // Seals, clears and copies every slot once.
  absl::Status HarvestRound(MigrationRound* round);
  // Copies `ranges`, counts them and waits as long as the link would take. They
  // are at the destination then.
  absl::Status Copy(const std::vector<GpaRange>& ranges, MigrationRound* round);
  absl::Status FinishRound(mmu::MonotonicTime start, MigrationRound* round);

  absl::StatusOr<v1::Vm> GetGuest();
  absl::StatusOr<lab::v1::WorkloadStatistics> Statistics();
  absl::Duration TransferTime(int64_t bytes) const;

  Client* const client_;
  const ControllerOptions options_;
  ControllerObserver* const observer_;
  const std::string vm_;

  std::unique_ptr<GuestCopy> copy_;
  std::unique_ptr<PageQueue> link_;  // to copy_
  std::vector<SlotRange> slots_;
  std::vector<GpaRange> unlogged_;  // read-only memory, while it is not copied
  std::string owner_token_;
  std::unique_ptr<Harvester> harvester_;  // once the log is ours
  mmu::MonotonicTime renewed_;
  PageReader reader_;
  std::string workload_;  // its name; "" before the guest's program is started
  absl::Duration last_stall_;
  absl::optional<google::protobuf::Timestamp> paused_since_;
  mmu::MonotonicTime aged_;
  bool created_ = false;
  MigrationReport report_;
};

}  // namespace mmud::client

#endif  // CLIENT_REFERENCE_CONTROLLER_H_
