// Takes the dirty pages of a memslot out of the log with nothing lost.
//
// For every page the order is seal, clear, copy. Harvester does the first two,
// the caller copies what it is given:
//
//   Harvester harvester(&client.dirty_log(), "vms/alpha", {});
//   absl::StatusOr<Harvest> harvest = harvester.Run(slot);
//   PageReader reader(&client.memory(), "vms/alpha", {});
//   reader.Read(harvest->pages.Ranges(), &copy);
//
// Why nothing is lost, wherever it stops:
//  - The stream breaks. A seal forgets nothing; the rest of the epoch is asked
//    for again from the address where the stream broke.
//  - The daemon's answer to the seal is lost. The same request id returns the
//    same epoch.
//  - Someone else sealed in between. What was not cleared is in the newer
//    epoch: it is sealed and read anew.
//  - A clear fails half-way. Only pages that were received are named in a
//    clear. Those that may have left the log stay with this object and are part
//    of the next Run's pages, whatever the log says then; the others are still
//    in the log.
//  - This process dies. Pages that it did not clear are still in the log. Its
//    copy died with it, so the next controller begins with a new baseline.

#ifndef CLIENT_MMU_CLIENT_HARVESTER_H_
#define CLIENT_MMU_CLIENT_HARVESTER_H_

#include <cstdint>
#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/mmu_client/dirty_log_client.h"
#include "client/mmu_client/page_bitmap.h"
#include "client/mmu_client/retry_policy.h"
#include "mmud/v1/common.pb.h"

namespace mmud::client {

// A value.
struct HarvesterOptions {
  // Guest memory that one ClearDirtyLog covers, which bounds how long the MMU
  // is busy with it. A positive multiple of 64 pages.
  int64_t clear_range_bytes = 256 << 20;

  // The largest chunk of a stream; 0: the daemon's default.
  int64_t max_message_bytes = 0;

  // How often a stream may break in a row without progress.
  RetryPolicy retry;

  // How often to start over because someone else sealed.
  int max_restarts = 4;
};

// What one harvest took out of the log. A value.
struct Harvest {
  int64_t epoch = 0;
  // To be copied now, after this harvest.
  PageBitmap pages;

  int64_t sealed_page_count = 0;   // pages in the sealed epoch
  int64_t cleared_page_count = 0;  // pages that left the log
  int64_t split_2m_count = 0;      // huge mappings split by clearing
  int64_t split_1g_count = 0;
  int64_t chunk_count = 0;
  int64_t clear_call_count = 0;
  int64_t resume_count = 0;   // times that a broken stream was gone on with
  int64_t restart_count = 0;  // times that someone else sealed in between
  absl::Duration seal_time;   // sealing and reading, seen from here
  absl::Duration clear_time;
  v1::MmuCost cost;  // of all calls together; max_lock_hold is the longest
};

// Adds the cost of one call to a sum.
void AddCost(const v1::MmuCost& cost, v1::MmuCost* sum);

// Thread-compatible.
class Harvester {
 public:
  // `client` outlives this object. `vm` is its name, `vms/{vm}`.
  Harvester(DirtyLogClient* client, std::string vm, HarvesterOptions options);

  // Seals the open epoch of a slot, receives it, clears what was received and
  // returns the pages to copy. On error nothing is lost: call it again.
  // Besides the errors of the calls: DATA_LOSS when the streams keep breaking
  // their checksums, FAILED_PRECONDITION when the slot moved meanwhile.
  absl::StatusOr<Harvest> Run(int32_t slot);

  // Pages that are dirty now, sealed ones included. Changes nothing.
  absl::StatusOr<int64_t> CountDirtyPages(int32_t slot);

  // Takes pages back that were not copied after all: they will be part of the
  // next Run of the slot.
  absl::Status GiveBack(int32_t slot, const PageBitmap& pages);

  // Pages that may have left the log and that no Run has returned yet, by slot:
  // for a caller that will not call Run again.
  const std::map<int32_t, PageBitmap>& owed() const { return owed_; }

 private:
  // Seals and receives; sets epoch and pages of `harvest`.
  absl::Status Seal(int32_t slot, Harvest* harvest);
  // Clears `pages`, which are all of the harvest's epoch.
  absl::Status Clear(int32_t slot, const PageBitmap& pages, Harvest* harvest);
  absl::Status ClearRange(int32_t slot, const PageBitmap& pages, GpaRange range,
                          Harvest* harvest);

  DirtyLogClient* const client_;
  const std::string vm_;
  const HarvesterOptions options_;

  // Pages that may have left the log and were not handed out yet, by slot.
  std::map<int32_t, PageBitmap> owed_;
};

}  // namespace mmud::client

#endif  // CLIENT_MMU_CLIENT_HARVESTER_H_
