// Takes the dirty pages of a VM out of its log without losing any.
//
// For every page the order is seal, read, clear, copy, acknowledge. Harvester
// does the first three. The caller copies the pages and reports this:
//
//   Harvester harvester(&client.dirty_log(), "vms/alpha", token, {});
//   absl::StatusOr<Harvest> harvest = harvester.Run();
//   PageReader reader(&client.memory(), "vms/alpha", {});
//   reader.Read(harvest->Ranges(), &destination);
//   harvester.Delivered(harvest->epoch);   // goes with the next seal
//   ...
//   harvester.Acknowledge();               // after the last one
//
// No page is lost in any of these cases:
//  - The stream breaks. A seal discards nothing; the rest of the epoch is read
//    again from where the stream broke.
//  - The daemon's answer to the seal is lost. A call with the same request id
//    returns the same epoch; a new seal merges the lost epoch into its own.
//  - A clear fails, or its answer is lost for good. The clear is repeated
//    before any other call: until it is answered, the daemon may still be
//    protecting its pages. Pages that it took into flight are part of the next
//    harvest.
//  - Clears fail again and again. Before too many epochs are in flight, a
//    harvest returns only the pages that earlier ones took and did not return.
//  - A slot is moved, or joins the log, in between. Pages that were not cleared
//    are in the next epoch, which is sealed and read.
//  - A clear is refused since its epoch is no longer the newest. An earlier
//    attempt without an answer may have taken pages: this owner gives up, and
//    the next owner gets these pages.
//  - A copy fails. GiveBack makes its pages part of the next harvest. No
//    earlier harvest can be acknowledged then. If the copy of a piece fails,
//    see RunInPieces, its pages are given back, and those of later pieces stay
//    sealed.
//  - This process dies. Pages that it did not acknowledge are in the log,
//    sealed or in flight. The next owner acquires the log, which seals all of
//    them again.

#ifndef CLIENT_MMU_CLIENT_HARVESTER_H_
#define CLIENT_MMU_CLIENT_HARVESTER_H_

#include <cstdint>
#include <functional>
#include <limits>
#include <map>
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
  // Ids of the memslots to harvest, ascending; empty: all logged ones. A seal
  // closes the epoch of all slots of the log in any case.
  std::vector<int32_t> slots;

  // Id of the log; empty: the log that the token owns.
  std::string log_id;

  // Guest memory that one ClearDirtyLog covers; limits the time that the MMU
  // needs for one call. A positive multiple of 64 pages.
  int64_t clear_range_bytes = 256 << 20;

  // Maximum size of a stream's chunk; 0: the daemon's default.
  int64_t max_message_bytes = 0;

  // Maximum number of times in a row that a stream breaks without progress.
  RetryPolicy retry;

  // Maximum number of restarts because a slot was moved or joined the log.
  int max_restarts = 4;

  // Called while a stream is read and before each clear, never during one. An
  // error ends the harvest and is returned. Pages that the harvest took before
  // that are in flight.
  std::function<absl::Status()> may_go_on = nullptr;
};

// Result of one harvest. A value.
struct Harvest {
  std::string log_id;
  int64_t epoch = 0;
  int64_t oldest_epoch = 0;  // in which some of the pages may have been cleared
  // Pages in flight. They must be copied now, after this harvest, and
  // acknowledged when the copies have arrived.
  SlotBitmaps pages;

  int64_t fresh_page_count = 0;         // written since the previous seal
  int64_t merged_page_count = 0;        // sealed before, but not cleared
  int64_t cleared_page_count = 0;       // taken into flight by this harvest
  int64_t acknowledged_page_count = 0;  // by the harvest's seal
  int64_t split_2m_count = 0;           // huge mappings split by clearing
  int64_t split_1g_count = 0;
  int64_t chunk_count = 0;
  int64_t clear_call_count = 0;
  int64_t resume_count = 0;   // times that a broken stream was gone on with
  int64_t restart_count = 0;  // times that a slot was moved or joined the log
  absl::Duration seal_time;   // sealing and reading, seen from here
  absl::Duration clear_time;
  v1::MmuCost cost;  // of all calls together; max_lock_hold is the longest

  int64_t page_count() const;
  // The pages of all slots, ascending by address.
  std::vector<GpaRange> Ranges() const;
};

// Pages of a harvest that are cleared together, by the id of their memslot. In
// any order.
using HarvestPiece = std::map<int32_t, std::vector<GpaRange>>;

// All pages as one piece.
HarvestPiece WholeHarvest(const SlotBitmaps& pages);

// Chooses the next piece among the pages of `epoch` that are left. Called after
// the seal of the epoch, while there are any. An empty piece ends the harvest;
// the pages that are left stay sealed.
using NextPiece =
    std::function<HarvestPiece(int64_t epoch, const SlotBitmaps& left)>;

// Copies pages that were cleared: ranges of all slots, ascending by address. OK
// only if they are at the destination.
using CopyPiece =
    std::function<absl::Status(const std::vector<GpaRange>& ranges)>;

// Adds the cost of one call to a sum.
void AddCost(const v1::MmuCost& cost, v1::MmuCost* sum);

// Thread-compatible.
class Harvester {
 public:
  // `client` must outlive this object. `vm` is the VM's name, `vms/{vm}`, and
  // `owner_token` the token of the log's owner. No other code may seal or clear
  // with this token meanwhile.
  Harvester(DirtyLogClient* client, std::string vm, std::string owner_token,
            HarvesterOptions options);

  // Acknowledges the epochs that Delivered reported, seals, receives the epoch,
  // clears the received pages and returns the pages to copy. On error no page
  // is lost: call Run again. Errors are those of the calls, above all
  // LOG_FENCED if another owner has the log. DATA_LOSS if checksums of the
  // streams are wrong again and again. ABORTED if other code sealed with this
  // token.
  absl::StatusOr<Harvest> Run();

  // The same in pieces: after the seal, clears one piece of the epoch after the
  // other and copies each before the next one is cleared. So pages of a later
  // piece are cleared later, and have less time to become dirty again before
  // the next seal. The first piece also has the pages that earlier harvests
  // took and did not return; `copy` is called at least once, perhaps with no
  // pages. An error of `copy` ends the harvest and is returned. The pages of
  // the harvest have all been copied.
  absl::StatusOr<Harvest> RunInPieces(const NextPiece& next,
                                      const CopyPiece& copy);

  // Reports that the pages of all harvests up to `epoch` are at the
  // destination. The next seal, or Acknowledge, acknowledges them.
  // FAILED_PRECONDITION, without effect, if this would acknowledge pages that
  // no harvest returned, or only a later one.
  absl::Status Delivered(int64_t epoch);

  // Sends the acknowledgement that Delivered reported, if any.
  absl::Status Acknowledge();

  // Gives back a harvest whose pages were not all copied. They are part of the
  // next harvest.
  void GiveBack(const Harvest& harvest);

  // Present page counts of the harvested slots. Open and sealed pages are left
  // for the next harvest. Changes nothing.
  absl::StatusOr<v1::UndeliveredPages> CountUndelivered();

 private:
  // Repeats the clear whose outcome is not known, if there is one.
  absl::Status RepeatClear(Harvest* harvest);
  // To be called after SendClear failed with `refusal`. If no attempt of the
  // clear took pages into flight, forgets unanswered_ and returns OK. Returns
  // an error otherwise, or if this cannot be known.
  absl::Status ForgetRefusedClear(const absl::Status& refusal);
  absl::Status Seal(Harvest* harvest);
  // Calls `may_go_on` of the options.
  absl::Status MayGoOn() const;
  // Receives the harvest's epoch into `pages`.
  absl::Status Receive(Harvest* harvest, SlotBitmaps* pages);
  // Clears `pages` of the harvest's epoch.
  absl::Status Clear(const SlotBitmaps& pages, Harvest* harvest);
  // Clears and copies the pieces of an epoch with the pages `received`.
  absl::Status TakePieces(const SlotBitmaps& received, const NextPiece& next,
                          const CopyPiece& copy, Harvest* harvest);
  // Hands out the owed pages and copies them.
  absl::Status HandOutAndCopy(const SlotBitmaps& received,
                              const CopyPiece& copy, Harvest* harvest);
  // Sends `unanswered_`.
  absl::Status SendClear(Harvest* harvest);
  // Takes the owed pages of the slots in `received`. No page is owed then.
  SlotBitmaps TakeOwed(const SlotBitmaps& received);
  // Makes a harvest that ended well one that can be acknowledged.
  void Finish(Harvest* harvest);
  // Adds pages that were cleared in `epoch` or later to owed_.
  void Owe(int32_t slot, const PageBitmap& pages, int64_t epoch);

  static constexpr int64_t kNone = std::numeric_limits<int64_t>::max();

  DirtyLogClient* const client_;
  const std::string vm_;
  const std::string owner_token_;
  const HarvesterOptions options_;

  std::string log_id_;  // "" until it is known
  // Owed pages: they are in flight and were not handed out. Also the first
  // epoch in which some of them may have been cleared.
  SlotBitmaps owed_;
  int64_t owed_from_ = kNone;
  // The clear without an answer, and the range of its slot. There is none if
  // its vm is "".
  v1::ClearDirtyLogRequest unanswered_;
  GpaRange unanswered_slot_;
  int64_t handed_out_epoch_ = 0;  // of the last harvest that was handed out
  // Pages of the epochs from split_from_ on were handed out with the harvest of
  // split_until_, so only the latter epoch can be acknowledged.
  int64_t split_from_ = kNone;
  int64_t split_until_ = 0;
  int64_t delivered_epoch_ = 0;  // to be acknowledged; 0: none
};

}  // namespace mmud::client

#endif  // CLIENT_MMU_CLIENT_HARVESTER_H_
