// A migration controller that uses nothing but the public API.
//
// It does what a live migration does on the source, with a buffer of its own as
// the destination:
//
//   1. make the guest, let it write to all its memory, run a real program in it
//   2. split huge mappings, throttled, so that single pages can be logged
//   3. switch the dirty log on
//   4. baseline: copy all of memory
//   5. rounds: seal, clear, copy, until what is dirty fits the downtime
//   6. stop the guest, last round, switch the log off
//   7. compare all of guest memory with the copy, byte by byte
//
// Why this order loses nothing: a page that is written after step 3 is in some
// epoch; one written before it is in the baseline, which begins later. A page
// written while the baseline or a round copies it may arrive half old, half
// new, but it was clean in the log when it was copied (not logged yet, or
// cleared just before), so that write makes it dirty again and a later round
// copies it. The log must be on before the baseline begins: the other way
// round, writes between the two would be in neither.

#ifndef CLIENT_REFERENCE_CONTROLLER_H_
#define CLIENT_REFERENCE_CONTROLLER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/guest_copy.h"
#include "client/migration_report.h"
#include "client/mmu_client/client.h"
#include "client/mmu_client/harvester.h"
#include "client/mmu_client/page_bitmap.h"
#include "client/mmu_client/page_reader.h"
#include "mmu_core/base/clock.h"
#include "mmud/v1/aging_service.pb.h"
#include "mmud/v1/vm_service.pb.h"
#include "mmud/v1/workload_service.pb.h"

namespace mmud::client {

// Whether copying takes as long as the link would.
enum class Pacing { kLink, kNone };

// A value.
struct ControllerOptions {
  std::string vm_id = "quickstart";
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
};

// Thread-compatible. To be used for one run.
class ReferenceController {
 public:
  // `client` and `observer` outlive this object.
  ReferenceController(Client* client, ControllerOptions options,
                      ControllerObserver* observer);

  // All steps. Memory that differs is no error: see MigrationReport.equal. The
  // guest is left paused.
  absl::StatusOr<MigrationReport> Run();

  // Lets the guest go on.
  absl::Status Resume();

  // Ends the guest's work and deletes it. OK if there is none.
  absl::Status Delete();

 private:
  absl::Status CreateGuest();
  absl::Status Populate();
  absl::Status StartProgram();
  absl::Status Split();
  absl::Status StartLog();
  absl::Status CopyBaseline();
  absl::Status RunRounds();
  absl::Status StopAndCopyRest();
  absl::Status StopLog();
  absl::Status Compare();
  // Ages all memory. `mode` as in AgeRangeRequest.
  absl::Status Age(v1::AgingMode mode);

  // Seals, clears and copies every slot once.
  absl::Status HarvestRound(MigrationRound* round);
  // Copies `ranges`, counts them and waits as long as the link would take.
  absl::Status Copy(const std::vector<GpaRange>& ranges, MigrationRound* round);
  absl::Status FinishRound(mmu::MonotonicTime start, MigrationRound* round);

  absl::StatusOr<v1::Vm> GetGuest();
  absl::StatusOr<v1::WorkloadStatistics> Statistics();
  absl::Duration TransferTime(int64_t bytes) const;

  Client* const client_;
  const ControllerOptions options_;
  ControllerObserver* const observer_;
  const std::string vm_;

  std::unique_ptr<GuestCopy> copy_;
  std::vector<SlotRange> slots_;
  Harvester harvester_;
  PageReader reader_;
  std::string workload_;  // name of the operation; "" while none runs
  absl::Duration last_stall_;
  mmu::MonotonicTime aged_;
  bool created_ = false;
  MigrationReport report_;
};

}  // namespace mmud::client

#endif  // CLIENT_REFERENCE_CONTROLLER_H_
