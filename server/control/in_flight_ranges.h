// The pages that an epoch of a dirty log has in flight, as ranges of memory.

#ifndef SERVER_CONTROL_IN_FLIGHT_RANGES_H_
#define SERVER_CONTROL_IN_FLIGHT_RANGES_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/optional.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/dirty/dirty_log_state.h"
#include "server/control/managed_vm.h"

namespace mmud {

// Selects pages in flight.
struct PagesInFlight {
  mmu::LogId log_id;
  uint64_t epoch = 0;
  absl::optional<mmu::GfnRange> range;  // unset: all memslots
};

// Reads a bounded piece of the log at a time, so that it needs little memory
// however many pages there are. Holds nothing of the VM between two calls.
// Thread-compatible.
class InFlightRanges {
 public:
  // Errors of the fields of a request's `in_flight`: GPA_OUT_OF_RANGE,
  // DIRTY_LOG_OFF, LOG_CHANGED, EPOCH_UNKNOWN.
  static absl::StatusOr<InFlightRanges> Create(const PagesInFlight& pages,
                                               const ManagedVm& vm);

  // The parts of memslots that are searched.
  std::vector<mmu::GfnRange> Within() const;

  // The next ranges, ascending within their memslot; empty at the end. `vm` is
  // the VM that was passed to Create. LOG_CHANGED, DIRTY_LOG_OFF.
  absl::StatusOr<std::vector<mmu::GfnRange>> Next(const ManagedVm& vm);

 private:
  // A part of a memslot. Pages count from the slot's start.
  struct Part {
    uint32_t slot = 0;
    mmu::Gfn slot_start;
    uint64_t first_page = 0;
    uint64_t end_page = 0;
  };

  absl::StatusOr<std::vector<mmu::GfnRange>> ReadPiece(const ManagedVm& vm,
                                                       const Part& part,
                                                       uint64_t from,
                                                       uint64_t end) const;

  mmu::LogId log_id_;
  uint64_t epoch_ = 0;
  std::vector<Part> parts_;
  size_t part_ = 0;  // the part to read next,
  uint64_t at_ = 0;  // and its next page
};

}  // namespace mmud

#endif  // SERVER_CONTROL_IN_FLIGHT_RANGES_H_
