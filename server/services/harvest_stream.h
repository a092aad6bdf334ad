// Harvests a dirty log on one stream: seals, reads, clears and acknowledges.

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
#include "server/convert/harvest_convert.h"
#include "server/rpc/call_context.h"
#include "server/rpc/rpc_service.h"
#include "server/services/daemon_state.h"
#include "server/services/dirty_page_chunks.h"

namespace mmud {

// Of a sent chunk it keeps the range, not the pages, so that a stream costs
// little however wide its window is. This works because only clears shrink the
// sealed pages of an epoch, and nothing adds to them. So the pages of a chunk
// are the sealed pages in its range until another call clears some of them, a
// seal ends the epoch, or the slot moves; the last two are EPOCH_MISMATCH. A
// takeover seals pages again in the same epoch, but it fences the stream's
// owner, and so the stream.
class HarvestStream final : public Conversation<v1::HarvestDirtyLogRequest,
                                                v1::HarvestDirtyLogResponse> {
 public:
  HarvestStream(DaemonState& state, CallContext& context, TakeStreamPlace take)
      : state_(state), context_(context), take_(std::move(take)) {}

  absl::Status Take(const v1::HarvestDirtyLogRequest& request) override;
  absl::StatusOr<bool> Next(v1::HarvestDirtyLogResponse* response) override;

 private:
  // A chunk that was sent and not cleared yet.
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
  // The SentChunk for a chunk of sealed_slots_.
  SentChunk Remember(const v1::DirtyLogChunk& chunk) const;
  // A call of the owner at the current time.
  mmu::LogCall Call() const;
  absl::Status Open(const v1::HarvestOpen& open);
  absl::Status SealLog(const v1::HarvestSeal& seal);
  absl::Status ClearChunk(const v1::HarvestClear& clear);
  absl::Status AcknowledgeEpoch(const v1::HarvestAcknowledge& acknowledge);

  DaemonState& state_;
  CallContext& context_;
  const TakeStreamPlace take_;

  // Set once the stream is open.
  VmUse vm_;
  HarvestCall harvest_;

  std::deque<v1::HarvestDirtyLogResponse> answers_;  // to be sent first
  std::vector<SlotPlan> sealed_slots_;               // at the newest seal
  // Set from the newest seal until its trailer was sent.
  std::unique_ptr<DirtyPageChunks> chunks_;
  absl::optional<v1::DirtyLogChunk> ahead_;  // read, but waits for its turn
  uint64_t epoch_ = 0;  // last sealed on this stream; 0: none
  int64_t last_number_ = 0;
  std::map<int64_t, SentChunk> sent_;  // by number; at most the window's size
};

}  // namespace mmud

#endif  // SERVER_SERVICES_HARVEST_STREAM_H_
