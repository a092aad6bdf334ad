// One stream of dirty pages: what to send, then sending it.

#ifndef SERVER_CONTROL_DIRTY_LOG_STREAM_H_
#define SERVER_CONTROL_DIRTY_LOG_STREAM_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/optional.h"
#include "google/protobuf/repeated_field.h"
#include "mmu_core/base/address.h"
#include "mmu_core/dirty/dirty_log_state.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/vm/dirty_log_calls.h"
#include "mmud/v1/dirty_log_service.pb.h"
#include "server/control/managed_vm.h"
#include "server/convert/dirty_log_codec.h"

namespace mmud {

// The part of a memslot that a stream sends. Pages count from the slot's start.
struct SlotPlan {
  uint32_t slot = 0;
  mmu::Gpa slot_start;
  uint64_t slot_pages = 0;
  uint64_t first_page = 0;  // a multiple of 64
  uint64_t end_page = 0;
};

// What a stream sends: checked.
struct DirtyLogPlan {
  mmu::LogId log_id;
  uint64_t epoch = 0;           // 0: peek
  std::vector<SlotPlan> slots;  // ascending by id
  v1::DirtyLogEncoding encoding = v1::DIRTY_LOG_ENCODING_AUTO;
  int64_t message_bytes = 0;
};

// INVALID_ENUM_VALUE.
absl::StatusOr<v1::DirtyLogEncoding> ToEncoding(v1::DirtyLogEncoding encoding);

// Whole slots: those of `ids` that `epoch` of `log` has pages of (0: all that
// log), or all of these if it is empty. Of a slot that is named: DIRTY_LOG_OFF
// if it does not log, MEMSLOT_NOT_FOUND if it is gone; others that are gone are
// left out.
absl::StatusOr<std::vector<SlotPlan>> PlanSlots(
    const ManagedVm& vm, const mmu::DirtyLogView& log, uint64_t epoch,
    const std::vector<uint32_t>& ids);

// DIRTY_LOG_OFF, LOG_CHANGED, EPOCH_UNKNOWN and EPOCH_SUPERSEDED, and what is
// wrong with the request.
absl::StatusOr<DirtyLogPlan> PlanDirtyLog(
    const v1::ReadDirtyPagesRequest& request, const ManagedVm& vm);

v1::DirtyLogHeader HeaderOf(const DirtyLogPlan& plan);

// The chunks of one plan, and their totals. Between two calls it holds nothing
// of the VM, and one piece of the log: no more bytes of it than a message may
// have, so at most kMaxMessageBytes (convert.h), however many chunks they come
// to. These are made one by one, when they are asked for.
// Thread-compatible.
class DirtyPageChunks {
 public:
  explicit DirtyPageChunks(DirtyLogPlan plan);

  // The next chunk, or nothing behind the last one. `keep_going` is asked
  // before each piece and each chunk; its error is returned. LOG_CHANGED,
  // EPOCH_SUPERSEDED, DIRTY_LOG_OFF.
  absl::StatusOr<absl::optional<v1::DirtyLogChunk>> Next(
      const ManagedVm& vm, const std::function<absl::Status()>& keep_going);

  // Of the chunks so far.
  v1::DirtyLogTrailer Trailer() const;

 private:
  absl::Status ReadPiece(const ManagedVm& vm);

  const DirtyLogPlan plan_;
  size_t slot_ = 0;                         // index into plan_.slots
  uint64_t at_ = 0;                         // its first page that was not read
  absl::optional<DirtyPageEncoder> piece_;  // read and not all sent
  v1::DirtyLogTrailer totals_;
  mmu::MmuCost cost_;
};

}  // namespace mmud

#endif  // SERVER_CONTROL_DIRTY_LOG_STREAM_H_
