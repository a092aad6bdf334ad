// Harvesting a dirty log on one stream: seals, reads, clears and acknowledges.

#ifndef SERVER_SERVICES_HARVEST_STREAM_H_
#define SERVER_SERVICES_HARVEST_STREAM_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/optional.h"
#include "mmu_core/dirty/dirty_log_state.h"
#include "mmud/v1/dirty_log_service.pb.h"
#include "server/control/dirty_log_stream.h"
#include "server/control/vm_registry.h"
#include "server/convert/dirty_log_stream_convert.h"
#include "server/convert/harvest_convert.h"
#include "server/rpc/call_context.h"
#include "server/rpc/rpc_service.h"
#include "server/services/daemon_state.h"

namespace mmud {

// Of chunks that were sent it keeps where they are and not what they say, so
// that a stream costs little however wide its window is. What is sealed of an
// epoch only ever shrinks by clears: so the pages of a chunk are those that are
// sealed in its range, until a clear of another call takes some, a seal ends
// the epoch, or the slot moves; both of the latter are EPOCH_MISMATCH. A
// takeover seals pages again, in the same epoch: it fences the stream's owner,
// and so the stream.
class HarvestStream final : public Conversation<v1::HarvestDirtyLogRequest,
                                                v1::HarvestDirtyLogResponse> {
 public:
  HarvestStream(DaemonState& state, CallContext& context, TakeStreamPlace take)
      : state_(state), context_(context), take_(std::move(take)) {}

  absl::Status Take(const v1::HarvestDirtyLogRequest& request) override;
  absl::StatusOr<bool> Next(v1::HarvestDirtyLogResponse* response) override;

 private:
  // A chunk that was sent and not cleared.
  struct SentChunk {
    uint32_t slot = 0;
    uint64_t slot_pages = 0;
    uint64_t first_page = 0;  // of its range, from the slot's start
    uint64_t page_count = 0;
    uint64_t dirty_count = 0;
  };

  absl::Status KeepGoing() const;
  // EPOCH_MISMATCH, MEMSLOT_NOT_FOUND.
  absl::StatusOr<SentChunk> FindChunk(int64_t number) const;
  // What it keeps of a chunk of sealed_slots_.
  SentChunk Remember(const v1::DirtyLogChunk& chunk) const;
  // Of the owner, now.
  mmu::LogCall Call() const;
  absl::Status Open(const v1::HarvestOpen& open);
  absl::Status SealLog(const v1::HarvestSeal& seal);
  absl::Status ClearChunk(const v1::HarvestClear& clear);
  absl::Status AcknowledgeEpoch(const v1::HarvestAcknowledge& acknowledge);

  DaemonState& state_;
  CallContext& context_;
  const TakeStreamPlace take_;

  // Once it is open.
  VmUse vm_;
  HarvestCall harvest_;

  std::deque<v1::HarvestDirtyLogResponse> answers_;  // to be sent first
  std::vector<SlotPlan> sealed_slots_;  // as the newest seal found them
  // Since the newest seal, until its trailer was sent.
  std::unique_ptr<DirtyPageChunks> chunks_;
  absl::optional<v1::DirtyLogChunk> ahead_;  // read, and waits for its turn
  uint64_t epoch_ = 0;  // the one sealed last here; 0: none
  int64_t last_number_ = 0;
  std::map<int64_t, SentChunk> sent_;  // by number; at most the window
};

}  // namespace mmud

#endif  // SERVER_SERVICES_HARVEST_STREAM_H_
