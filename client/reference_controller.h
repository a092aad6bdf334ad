// A migration controller that uses only the public API.
//
// It performs the source's part of a live migration. The destination is a
// buffer or a file:
//
//   1. make the guest, let it write to all its memory, run a real program in it
//   2. switch the VM's ager on, to learn which memory is hot
//   3. split huge mappings, throttled, so that single pages can be logged
//   4. switch the dirty log on, with every page dirty, as its owner
//   5. baseline: the first harvest, which is all of memory
//   6. rounds: seal, read, clear, copy, acknowledge, until the dirty pages can
//      be copied within the downtime. Within a round cold memory is cleared and
//      copied first, since a page that is written after its clear is sent again
//   7. stop the guest, last round, switch the log off
//   8. compare all of guest memory with the copy, byte by byte
//
// No page is lost. A page is copied after it was cleared, so a write that the
// copy missed makes the page dirty again. A page is acknowledged after its copy
// has arrived, so until then it is in the log.
//
// The only state it needs is the token of the log's owner, which is stored with
// the destination. If a controller dies, the log has all pages that are not at
// the destination, since the log starts with all pages dirty. TakeOver
// continues with the same destination:
//
//   1. open the destination, which the dead controller no longer holds open
//   2. acquire the log, if a token at the destination owns it. The takeover
//      seals the in-flight pages again
//   3. rounds, and so on as above. They do not wait until the ager has learnt
//      something; the dead controller has left it on

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
#include "client/heat_watch.h"
#include "client/migration_report.h"
#include "client/mmu_client/client.h"
#include "client/mmu_client/harvester.h"
#include "client/mmu_client/page_bitmap.h"
#include "client/mmu_client/page_reader.h"
#include "client/page_queue.h"
#include "client/send_order.h"
#include "client/sent_pages.h"
#include "google/protobuf/timestamp.pb.h"
#include "mmu_core/base/clock.h"
#include "mmud/lab/v1/workload_service.pb.h"
#include "mmud/v1/aging_service.pb.h"
#include "mmud/v1/dirty_log_service.pb.h"
#include "mmud/v1/vm_service.pb.h"

namespace mmud::client {

// Whether copying is slowed down to the speed of the link.
enum class Pacing { kLink, kNone };

// When huge mappings are split: before the log begins, or by the clears that
// reach them, and where these do not split, by the guest's writes.
enum class SplitWhen { kAhead, kByClear };

// A value.
struct ControllerOptions {
  std::string vm_id = "quickstart";
  // Name of the dirty log's owner, for people.
  std::string owner = "reference controller";
  // Length of the lease, counted from the controller's last call. The
  // controller makes its next call before the lease ends.
  absl::Duration lease = absl::Seconds(30);
  // File of the destination; empty: memory of this process. The tokens of its
  // log are beside it, in `destination`.token.
  std::string destination;
  v1::Vm vm;  // its MMU: `mmu`, `guest_paging`; the rest is set from below
  std::vector<v1::Memslot> memslots;  // the guest's memory
  int32_t vcpu_count = 2;

  // The guest's workload: a trace in the daemon's trace directory, which is
  // repeated, and its rate. Rate 0: no limit.
  std::string trace_name;
  int64_t accesses_per_second_per_vcpu = 0;
  int64_t seed = 1;
  // If set, the guest runs this instead, and `trace_name` is its name in the
  // report. Its rate and its seed are as above.
  absl::optional<lab::v1::Workload> program;

  // Distance between the writes that fill the memory beforehand.
  int64_t populate_stride_bytes = 64 << 10;

  // The order of the pages in each round but the last one, in which the guest
  // is stopped.
  SendOrder order = SendOrder::kColdestFirst;
  PieceSizes pieces;

  SplitWhen split = SplitWhen::kAhead;
  v1::Throttle split_throttle;
  int64_t bandwidth_bytes_per_second = 1'250'000'000;
  Pacing pacing = Pacing::kLink;
  absl::Duration downtime_target = absl::Milliseconds(300);
  // Minimum and maximum number of rounds before the guest is paused.
  int min_rounds = 3;
  int max_rounds = 10;
};

// Receives the progress of the controller. Called from the thread of Run.
class ControllerObserver {
 public:
  virtual ~ControllerObserver() = default;
  // A step begins; `step` is a short description.
  virtual void OnStep(const std::string& /*step*/) {}
  // Progress of the step, 0 to 1.
  virtual void OnProgress(double /*share*/, const std::string& /*words*/) {}
  virtual void OnRound(const MigrationRound& /*round*/) {}
  // The pages of a piece of the running round reach the next state.
  enum class Pages {
    kInFlight,  // cleared, not read yet
    kRead,      // read, not at the destination yet
    kArrived,   // at the destination, not acknowledged
  };
  virtual void OnPages(Pages /*pages*/) {}
};

// Can be used for one run. Thread-compatible.
class ReferenceController {
 public:
  // `client` and `observer` outlive this object.
  ReferenceController(Client* client, ControllerOptions options,
                      ControllerObserver* observer);

  // Performs all steps. Different memory is not an error: see
  // MigrationReport.equal. The guest stays paused for ten minutes after the end
  // of the comparison, and then continues by itself. A guest whose controller
  // failed or died also continues.
  absl::StatusOr<MigrationReport> Run();

  // Continues the migration of another controller that ended at any step. Takes
  // the log over if its token is stored with the destination, or starts a log
  // if there is none. Any other log is left alone, since its delivered pages
  // are at another destination: FAILED_PRECONDITION names its owner. The former
  // owner must not write to the destination any more; the lock on a file
  // guarantees this.
  absl::StatusOr<MigrationReport> TakeOver();

  // Ends the guest's pause.
  absl::Status Resume();

  // Stops the guest's workload and deletes the guest. OK if there is no guest.
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
  // Pauses the guest, or extends its pause. ABORTED if the guest ran in
  // between.
  absl::Status KeepPaused();
  absl::Status StopLog();
  absl::Status Compare();
  // From StartAging to FinishAging the report's young pages are counted.
  absl::Status StartAging();
  absl::Status FinishAging();
  // Ages all memory. `mode` as in AgeRangeRequest.
  absl::StatusOr<v1::AgeRangeResponse> Age(v1::AgingMode mode);
  // Switches the ager on. Without the ager the order is not known, but a
  // migration does not fail because of this; the report says so.
  void StartHeatWatch();
  void NoteHeatProblem(const absl::Status& status);

  // Opens the destination for a guest.
  absl::Status SetGuest(const v1::Vm& guest);
  // Stores the log, which this controller owns with `owner_token`.
  void SetLog(const v1::DirtyLog& log, std::string owner_token);
  // Renews the lease if the last renewal was a while ago. To be called at least
  // twice per lease. LOG_FENCED if another owner has the log.
  absl::Status RenewLease();
  // Waits and renews the lease during the wait.
  absl::Status Wait(absl::Duration duration);

  // Seals, clears and copies every slot once.
  absl::Status HarvestRound(SendOrder order, MigrationRound* round);
  HarvestPiece NextPieceOf(SendOrder order, int64_t epoch,
                           const SlotBitmaps& left);
  // Waits, in the first round, until the ager has learnt which memory is hot.
  void LearnHeat();
  void ReadHeat();
  // Copies a piece that was cleared.
  absl::Status CopyPiece(std::vector<GpaRange> ranges, MigrationRound* round);
  // Copies `ranges`, counts them and waits as long as the link would take.
  // Afterwards they are at the destination.
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
  std::unique_ptr<Harvester>
      harvester_;  // set once this controller owns the log
  mmu::MonotonicTime renewed_;
  PageReader reader_;
  HeatWatch heat_watch_;
  std::vector<MemoryHeat> heat_;  // as it was read last
  mmu::MonotonicTime heat_read_;
  absl::Duration heat_lifetime_;
  bool may_learn_ = false;
  std::vector<HarvestPiece> plan_;  // pieces of plan_epoch_, the next one last
  int64_t plan_epoch_ = 0;
  absl::optional<SentPages> sent_;
  int64_t round_bytes_ = 0;       // memory that the running round copies
  int64_t round_done_bytes_ = 0;  // of it, by earlier pieces
  std::string workload_;          // name; "" before the workload is started
  absl::Duration last_stall_;
  absl::optional<google::protobuf::Timestamp> paused_since_;
  mmu::MonotonicTime aged_;
  mmu::MonotonicTime log_started_;
  bool created_ = false;
  MigrationReport report_;
};

}  // namespace mmud::client

#endif  // CLIENT_REFERENCE_CONTROLLER_H_
