// One GetDirtyLog call: what to send, then sending it.

#ifndef SERVER_SERVICES_DIRTY_LOG_STREAM_H_
#define SERVER_SERVICES_DIRTY_LOG_STREAM_H_

#include <cstdint>
#include <deque>
#include <functional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "mmu_core/base/address.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmud/v1/dirty_log_service.pb.h"
#include "server/managed_vm.h"
#include "server/vm_registry.h"

namespace mmud {

// The checked request. Pages count from the slot's start.
struct DirtyLogPlan {
  uint32_t slot = 0;
  mmu::Gpa slot_start;
  uint64_t first_page = 0;  // a multiple of 64
  uint64_t end_page = 0;
  v1::GetDirtyLogMode mode = v1::GET_DIRTY_LOG_MODE_PEEK;
  uint64_t epoch = 0;  // to send once more; 0: seal or peek
  v1::DirtyLogEncoding encoding = v1::DIRTY_LOG_ENCODING_AUTO;
  int64_t message_bytes = 0;
};

absl::StatusOr<DirtyLogPlan> PlanDirtyLog(const v1::GetDirtyLogRequest& request,
                                          const ManagedVm& vm);

// The messages of one call: the header, the chunks and the trailer of an epoch
// (0: peek). Reads a bounded piece of the log when the chunks of the one before
// are taken; between two calls of Next it holds a use of the VM and no more.
// Thread-compatible.
class DirtyPageStream {
 public:
  // `cost` is what the call cost so far.
  DirtyPageStream(DirtyLogPlan plan, uint64_t epoch, v1::DirtyLogHeader header,
                  VmUse vm, mmu::MmuCost cost);

  const ManagedVm& vm() const { return *vm_; }

  // The next message, or false after the trailer. `keep_going` is asked before
  // each piece; its error is returned.
  absl::StatusOr<bool> Next(const std::function<absl::Status()>& keep_going,
                            v1::GetDirtyLogResponse* message);

 private:
  enum class Part : uint8_t { kHeader, kChunks, kEnd };

  // Reads pieces until one has dirty pages or all are read.
  absl::Status ReadPieces(const std::function<absl::Status()>& keep_going);

  const DirtyLogPlan plan_;
  const uint64_t epoch_;
  const v1::DirtyLogHeader header_;
  const VmUse vm_;
  mmu::MmuCost cost_;
  Part part_ = Part::kHeader;
  uint64_t at_;                           // the first page that was not read
  std::deque<v1::DirtyLogChunk> chunks_;  // read and not sent
  v1::DirtyLogTrailer totals_;
  uint32_t crc_ = 0;
};

}  // namespace mmud

#endif  // SERVER_SERVICES_DIRTY_LOG_STREAM_H_
