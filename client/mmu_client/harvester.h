// Takes the dirty pages of a VM out of its log with nothing lost.
//
// For every page the order is seal, read, clear, copy, acknowledge. Harvester
// does the first three, the caller copies what it is given and says so:
//
//   Harvester harvester(&client.dirty_log(), "vms/alpha", token, {});
//   absl::StatusOr<Harvest> harvest = harvester.Run();
//   PageReader reader(&client.memory(), "vms/alpha", {});
//   reader.Read(harvest->Ranges(), &destination);
//   harvester.Delivered(harvest->epoch);   // goes with the next seal
//   ...
//   harvester.Acknowledge();               // after the last one
//
// Why nothing is lost, wherever it stops:
//  - The stream breaks. A seal forgets nothing; the rest of the epoch is asked
//    for again from where the stream broke.
//  - The daemon's answer to the seal is lost. The same request id returns the
//    same epoch; with another one, what the lost seal closed is merged in.
//  - A clear fails, or its answer is lost for good. It is repeated before
//    anything else is done: until it is answered, the daemon may still be about
//    to protect its pages. Those that it took into flight are part of the next
//    harvest.
//  - Clears fail again and again. Before more epochs are in flight than may be,
//    a harvest has only the pages that earlier ones took and did not hand out.
//  - A slot is moved, or joins the log, in between. What was not cleared is in
//    the next epoch: it is sealed and read anew.
//  - A clear is refused since its epoch is not the newest any more. An attempt
//    before it, without an answer, may have taken pages: this owner gives up,
//    and the next one gets them.
//  - A copy fails. GiveBack makes its pages part of the next harvest, and
//    nothing up to then can be acknowledged.
//  - This process dies. What it did not acknowledge is in the log, sealed or in
//    flight. The next owner acquires the log, which seals it all again.

#ifndef CLIENT_MMU_CLIENT_HARVESTER_H_
#define CLIENT_MMU_CLIENT_HARVESTER_H_

#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/mmu_client/dirty_log_client.h"
#include "client/mmu_client/dirty_log_stream.h"
#include "client/mmu_client/page_bitmap.h"
#include "client/mmu_client/retry_policy.h"
#include "mmud/v1/common.pb.h"
#include "mmud/v1/dirty_log_service.pb.h"

namespace mmud::client {

// A value.
struct HarvesterOptions {
  // Only these memslots, ascending; empty: all that log. A seal closes the
  // epoch of all of them nevertheless.
  std::vector<int32_t> slots;

  // The log that is meant; empty: the one that the token owns.
  std::string log_id;

  // Guest memory that one ClearDirtyLog covers, which bounds how long the MMU
  // is busy with it. A positive multiple of 64 pages.
  int64_t clear_range_bytes = 256 << 20;

  // The largest chunk of a stream; 0: the daemon's default.
  int64_t max_message_bytes = 0;

  // How often a stream may break in a row without progress.
  RetryPolicy retry;

  // How often to start over because a slot was moved or joined.
  int max_restarts = 4;

  // Asked while a stream is read and before each clear, never while one is
  // made: an error ends the harvest with it. Pages that it took by then are in
  // flight.
  std::function<absl::Status()> may_go_on = nullptr;
};

// What one harvest took out of the log. A value.
struct Harvest {
  std::string log_id;
  int64_t epoch = 0;
  int64_t oldest_epoch = 0;  // in which some of the pages may have been cleared
  // In flight: to be copied now, after this harvest, and to be acknowledged
  // once the copies have arrived.
  SlotBitmaps pages;

  int64_t fresh_page_count = 0;         // written since the seal before
  int64_t merged_page_count = 0;        // sealed before, and not cleared then
  int64_t cleared_page_count = 0;       // taken into flight by this harvest
  int64_t acknowledged_page_count = 0;  // by what its seal carried
  int64_t split_2m_count = 0;           // huge mappings split by clearing
  int64_t split_1g_count = 0;
  int64_t chunk_count = 0;
  int64_t clear_call_count = 0;
  int64_t resume_count = 0;   // times that a broken stream was gone on with
  int64_t restart_count = 0;  // times that a slot was moved or joined
  absl::Duration seal_time;   // sealing and reading, seen from here
  absl::Duration clear_time;
  v1::MmuCost cost;  // of all calls together; max_lock_hold is the longest

  int64_t page_count() const;
  // The pages of all slots, ascending by address.
  std::vector<GpaRange> Ranges() const;
};

// Adds the cost of one call to a sum.
void AddCost(const v1::MmuCost& cost, v1::MmuCost* sum);

// Thread-compatible.
class Harvester {
 public:
  // `client` outlives this object. `vm` is its name, `vms/{vm}`; `owner_token`
  // is that of the log's owner. Nobody else seals or clears with it meanwhile.
  Harvester(DirtyLogClient* client, std::string vm, std::string owner_token,
            HarvesterOptions options);

  // Acknowledges what Delivered said, seals, receives the epoch, clears what
  // was received and returns the pages to copy. On error nothing is lost: call
  // it again. Besides the errors of the calls, above all LOG_FENCED once
  // somebody else has the log: DATA_LOSS when the streams keep breaking their
  // checksums, ABORTED when somebody else sealed with this token.
  absl::StatusOr<Harvest> Run();

  // The pages of all harvests up to `epoch` are at the destination: the next
  // seal, or Acknowledge, says so to the daemon. FAILED_PRECONDITION, and
  // nothing noted, if pages that it would acknowledge were not handed out, or
  // only with a later harvest.
  absl::Status Delivered(int64_t epoch);

  // Says now what Delivered noted, if there is something.
  absl::Status Acknowledge();

  // Takes a harvest back whose pages were not all copied: they are part of the
  // next one.
  void GiveBack(const Harvest& harvest);

  // How many pages are where now, of the slots that this harvests: those that
  // are open or sealed are left for the next harvest. Changes nothing.
  absl::StatusOr<v1::UndeliveredPages> CountUndelivered();

 private:
  // Repeats the clear whose outcome is not known, if there is one.
  absl::Status RepeatClear(Harvest* harvest);
  // After SendClear failed with `refusal`: OK and unanswered_ forgotten if none
  // of its pages is in flight by any of its attempts. Otherwise, or if that
  // cannot be known, an error.
  absl::Status ForgetRefusedClear(const absl::Status& refusal);
  absl::Status Seal(Harvest* harvest);
  // What `may_go_on` of the options says.
  absl::Status MayGoOn() const;
  // Receives the harvest's epoch into `pages`.
  absl::Status Receive(Harvest* harvest, SlotBitmaps* pages);
  // Clears `pages`, which are all of the harvest's epoch.
  absl::Status Clear(const SlotBitmaps& pages, Harvest* harvest);
  // Sends `unanswered_`.
  absl::Status SendClear(Harvest* harvest);
  // Moves what is owed of the slots in `received` into the harvest.
  // `owed_before` is owed_from_ before its seal.
  void HandOut(const SlotBitmaps& received, int64_t owed_before,
               Harvest* harvest);
  // Adds pages that were cleared in `epoch` or later to owed_.
  void Owe(int32_t slot, const PageBitmap& pages, int64_t epoch);

  static constexpr int64_t kNone = std::numeric_limits<int64_t>::max();

  DirtyLogClient* const client_;
  const std::string vm_;
  const std::string owner_token_;
  const HarvesterOptions options_;

  std::string log_id_;  // of the log, once it is known
  // Pages in flight that are not handed out, by slot, and the first epoch in
  // which some of them may have been cleared.
  SlotBitmaps owed_;
  int64_t owed_from_ = kNone;
  // The clear whose answer did not come, and the range of its slot; no vm if
  // there is none.
  v1::ClearDirtyLogRequest unanswered_;
  GpaRange unanswered_slot_;
  int64_t handed_out_epoch_ = 0;  // the last one
  // Pages of the epochs from the first on were handed out with the harvest of
  // the second: only that one can be acknowledged.
  int64_t split_from_ = kNone;
  int64_t split_until_ = 0;
  int64_t delivered_epoch_ = 0;  // to be acknowledged; 0: nothing
};

}  // namespace mmud::client

#endif  // CLIENT_MMU_CLIENT_HARVESTER_H_
