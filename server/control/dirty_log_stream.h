// One stream of dirty pages: first plans the memslots and pages to send, then
// reads them.

#ifndef SERVER_CONTROL_DIRTY_LOG_STREAM_H_
#define SERVER_CONTROL_DIRTY_LOG_STREAM_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/optional.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/dirty/dirty_log_calls.h"
#include "mmu_core/dirty/dirty_log_state.h"
#include "mmu_core/stats/mmu_cost.h"
#include "server/control/managed_vm.h"

namespace mmud {

// A position in a log as the caller gives it; it may be invalid.
struct DirtyLogPosition {
  int64_t slot = 0;
  int64_t gpa_bytes = 0;
};

// A request for dirty pages.
struct DirtyPagesRequest {
  absl::optional<mmu::LogId> log_id;       // unset: the log that is on
  uint64_t epoch = 0;                      // 0: peek; else log_id is set
  std::vector<uint32_t> slots;             // ascending; empty: all
  absl::optional<mmu::GfnRange> range;     // inside the only entry of slots
  absl::optional<DirtyLogPosition> start;  // where the stream continues
};

// The part of a memslot that a stream sends. Pages count from the slot's start.
struct SlotPlan {
  uint32_t slot = 0;
  mmu::Gpa slot_start;
  uint64_t slot_pages = 0;
  uint64_t first_page = 0;  // a multiple of 64
  uint64_t end_page = 0;
};

// The checked plan of a stream.
struct DirtyLogPlan {
  mmu::LogId log_id;
  uint64_t epoch = 0;           // 0: peek
  std::vector<SlotPlan> slots;  // ascending by id
};

// Plans whole slots: those of `ids` that `epoch` of `log` has pages of (0: all
// slots that log), or all such slots if `ids` is empty. Errors of a named slot:
// DIRTY_LOG_OFF if it does not log, MEMSLOT_NOT_FOUND if it is gone. Other
// slots that are gone are left out.
absl::StatusOr<std::vector<SlotPlan>> PlanSlots(
    const ManagedVm& vm, const mmu::DirtyLogView& log, uint64_t epoch,
    const std::vector<uint32_t>& ids);

// Errors: DIRTY_LOG_OFF, LOG_CHANGED, EPOCH_UNKNOWN and EPOCH_SUPERSEDED; for
// the slots those of PlanSlots; for the range GPA_OUT_OF_RANGE, INVALID_RANGE;
// for the start INVALID_RESUME_OFFSET. REQUIRES: a range comes with one slot.
absl::StatusOr<DirtyLogPlan> PlanDirtyLog(const DirtyPagesRequest& request,
                                          const ManagedVm& vm);

// A part of a memslot's log as it was read.
struct DirtyLogPiece {
  uint32_t slot = 0;
  mmu::Gpa start;
  uint64_t page_count = 0;
  std::vector<uint64_t> words;  // bit 0 is the page at `start`
};

// Reads one plan piece by piece. Holds nothing of the VM between two calls.
// Thread-compatible.
class DirtyLogReader {
 public:
  // `piece_pages`: maximum number of pages of a piece, a multiple of 64.
  DirtyLogReader(DirtyLogPlan plan, uint64_t piece_pages);

  // The next piece; nullopt after the last one. `keep_going` is called before
  // each piece; its error is returned. LOG_CHANGED, EPOCH_SUPERSEDED,
  // DIRTY_LOG_OFF.
  absl::StatusOr<absl::optional<DirtyLogPiece>> Next(
      const ManagedVm& vm, const std::function<absl::Status()>& keep_going);

  // The cost of all pieces so far.
  const mmu::MmuCost& cost() const { return cost_; }

 private:
  // Nullopt if the slot is gone.
  absl::StatusOr<absl::optional<DirtyLogPiece>> ReadPiece(const ManagedVm& vm);

  const DirtyLogPlan plan_;
  const uint64_t piece_pages_;
  size_t slot_ = 0;  // index into plan_.slots
  uint64_t at_ = 0;  // first page of that slot that was not read
  mmu::MmuCost cost_;
};

}  // namespace mmud

#endif  // SERVER_CONTROL_DIRTY_LOG_STREAM_H_
