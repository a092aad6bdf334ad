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

// Identifies a log: no two logs have the same id, in any VM at any time. The
// caller that starts a log chooses the id (128 random bits, or a UUID). A
// value.
struct LogId {
  uint64_t high = 0;
  uint64_t low = 0;

  // 32 hexadecimal digits, for messages.
  std::string ToString() const { return Format("%016x%016x", high, low); }
  friend bool operator==(const LogId&, const LogId&) = default;
};

// The caller and the time of a call that only the owner may make.
struct LogCall {
  OwnerKey key;
  MonotonicTime now;
  // The log that the caller means; without it, whichever log its key owns.
  absl::optional<LogId> log_id = absl::nullopt;
};

// Which pages of an epoch to read: the sealed ones (epoch 0: all undelivered
// ones), or those in flight.
enum class LogPages : uint8_t { kSealed, kInFlight };

// The numbers of pages in the sets of a log. A page that was written again
// after its clear is both open and in flight, and counts in both.
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

// The log's state of one slot. Open pages are not counted: their number changes
// with every write of the guest.
struct SlotLogState {
  uint32_t slot = 0;
  // The slot's pages cannot be cleared in epochs before this one: it joined or
  // moved later.
  uint64_t first_epoch = 0;
  uint64_t sealed_page_count = 0;
  uint64_t in_flight_page_count = 0;
  // The slot joined after the log had begun, with all of its pages open.
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
  MonotonicTime lease_end;    // last_owner_call + lease; may be past
  uint64_t open_epoch = 0;    // new dirty pages belong to it
  uint64_t sealed_epoch = 0;  // the last one; 0 if none was sealed yet
  std::vector<uint64_t> epochs_in_flight;  // ascending
  // The time of the oldest seal whose pages are still sealed or in flight;
  // InfiniteFuture if there are none. A page that was cleared again before it
  // was acknowledged counts from its first seal, until the epoch of that seal
  // is acknowledged. While sealed pages remain without interruption the time
  // may be too early: it is then the start of that period, since pages have no
  // times of their own.
  MonotonicTime undelivered_since;
  std::vector<SlotLogState> slots;  // in the order of their ids
};

struct SlotSeal {
  uint32_t slot = 0;
  uint64_t fresh_page_count = 0;  // of the epoch just sealed
  // Pages sealed before and not cleared since. Those among them that were
  // written again count only here.
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
  // Of the named pages: those cleared again in a later epoch, which are still
  // in flight; and those not in flight, which were acknowledged before or never
  // cleared. 0 if no pages were named.
  uint64_t later_page_count = 0;
  uint64_t not_in_flight_page_count = 0;
  // Of the whole log, after the call.
  uint64_t still_in_flight_page_count = 0;
};

}  // namespace mmu

#endif  // MMU_CORE_DIRTY_DIRTY_LOG_STATE_H_
