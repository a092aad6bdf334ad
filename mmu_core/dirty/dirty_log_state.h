// The values that a dirty log (dirty_log.h) and its callers exchange.

#ifndef MMU_CORE_DIRTY_DIRTY_LOG_STATE_H_
#define MMU_CORE_DIRTY_DIRTY_LOG_STATE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/format.h"
#include "mmu_core/dirty/log_owner.h"

namespace mmu {

// Which log: no two logs have the same, in any VM at any time. Whoever starts a
// log makes its id up (128 random bits, or a UUID). A value.
struct LogId {
  uint64_t high = 0;
  uint64_t low = 0;

  // 32 hexadecimal digits, for messages.
  std::string ToString() const { return Format("%016x%016x", high, low); }
  friend bool operator==(const LogId&, const LogId&) = default;
};

// Who makes a call that only the owner may make, and when.
struct LogCall {
  OwnerKey key;
  MonotonicTime now;
  // The log that the caller means; without it, whatever log its key owns.
  absl::optional<LogId> log_id = absl::nullopt;
};

// What a reader asks an epoch for: what is sealed in it, or of epoch 0 all that
// is undelivered, or what is in flight.
enum class LogPages : uint8_t { kSealed, kInFlight };

// Pages in the sets of a log. A page that was written again after its clear is
// open and in flight, and counts in both.
struct UndeliveredCounts {
  uint64_t open = 0;
  uint64_t sealed = 0;
  uint64_t in_flight = 0;

  bool none() const { return open == 0 && sealed == 0 && in_flight == 0; }
  UndeliveredCounts& operator+=(const UndeliveredCounts& more) {
    open += more.open;
    sealed += more.sealed;
    in_flight += more.in_flight;
    return *this;
  }
  friend bool operator==(const UndeliveredCounts&,
                         const UndeliveredCounts&) = default;
};

// The same of one slot.
struct SlotUndelivered {
  uint32_t slot = 0;
  UndeliveredCounts counts;

  friend bool operator==(const SlotUndelivered&,
                         const SlotUndelivered&) = default;
};

// What a log says of one slot. The open set is not counted: it changes with
// every write of the guest.
struct SlotLogState {
  uint32_t slot = 0;
  // Epochs from before the slot joined or was moved cannot be cleared of it.
  uint64_t first_epoch = 0;
  uint64_t sealed_page_count = 0;
  uint64_t in_flight_page_count = 0;
  // It joined after the log had begun, with all of its pages open.
  bool joined = false;

  friend bool operator==(const SlotLogState&, const SlotLogState&) = default;
};

struct DirtyLogState {
  LogId id;
  MonotonicTime start;
  std::string owner;
  absl::Duration lease;
  MonotonicTime owner_since;
  MonotonicTime last_owner_call;
  MonotonicTime lease_end;    // last_owner_call + lease; may be over
  uint64_t open_epoch = 0;    // new dirty pages belong to it
  uint64_t sealed_epoch = 0;  // the last one; 0 if none was sealed yet
  std::vector<uint64_t> epochs_in_flight;  // ascending
  // When the oldest of what is sealed or in flight was sealed; InfiniteFuture
  // if nothing is. A page that was cleared again before it was acknowledged
  // counts from its first seal, until the epoch of that is acknowledged. As
  // long as something sealed is left uncleared all the time it may be earlier,
  // when that began: pages have no times of their own.
  MonotonicTime undelivered_since;
  std::vector<SlotLogState> slots;  // in the order of their ids
};

struct SlotSeal {
  uint32_t slot = 0;
  uint64_t fresh_page_count = 0;  // of the epoch just sealed
  // Sealed before and not cleared since; one of these that was written again
  // counts here only.
  uint64_t merged_page_count = 0;

  friend bool operator==(const SlotSeal&, const SlotSeal&) = default;
};

struct SealOutcome {
  uint64_t epoch = 0;           // the epoch just sealed
  std::vector<SlotSeal> slots;  // in the order of their ids
  uint64_t acknowledged_page_count = 0;
  LogId log_id;  // the log that was sealed
};

struct AcknowledgeResult {
  uint64_t acknowledged_page_count = 0;
  // Of the pages named: cleared again in a later epoch, so still in flight; and
  // not in flight at all: acknowledged before, or never cleared. 0 if none was
  // named.
  uint64_t later_page_count = 0;
  uint64_t not_in_flight_page_count = 0;
  // Of the whole log, after the call.
  uint64_t still_in_flight_page_count = 0;
};

}  // namespace mmu

#endif  // MMU_CORE_DIRTY_DIRTY_LOG_STATE_H_
