#include "mmu_core/dirty/dirty_log.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "mmu_core/base/bits.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/format.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/dirty/log_range.h"

namespace mmu {
namespace {

// Epochs are counted from 1 and stay far below 2^63. A larger one was a
// negative number in the caller's request, so messages show it as negative.
int64_t Shown(uint64_t epoch) { return static_cast<int64_t>(epoch); }

absl::Status EpochUnknown(uint64_t epoch, const char* field,
                          std::string problem) {
  return MakeError(absl::StatusCode::kNotFound,
                   {Reason::kEpochUnknown, field, 0},
                   Format("%s is %d: %s", field, Shown(epoch), problem));
}

absl::Status EpochMismatch(uint64_t epoch, std::string problem) {
  return MakeError(
      absl::StatusCode::kAborted, {Reason::kEpochMismatch, "epoch", 0},
      Format("epoch %d cannot be cleared: %s", Shown(epoch), problem));
}

// OUT_OF_RANGE INVALID_RANGE unless the range of `words` words lies within the
// slot.
absl::Status CheckInside(const SlotLog& log, uint64_t first_page,
                         size_t words) {
  if (MayBeginLogRange(first_page) && first_page / 64 <= log.word_count() &&
      words <= log.word_count() - first_page / 64) {
    return absl::OkStatus();
  }
  return MakeError(
      absl::StatusCode::kOutOfRange, {Reason::kInvalidRange, "range", 0},
      Format("pages %d to %d: slot %d has %d pages, and a range "
             "begins at a multiple of 64; ask within the slot",
             first_page, first_page + 64 * words, log.slot(), log.npages()));
}

}  // namespace

absl::Status DirtyLogOff() {
  return MakeError(
      absl::StatusCode::kFailedPrecondition,
      {Reason::kDirtyLogOff, "vm", ENOENT},
      "this VM does not log dirty pages; start its dirty log first");
}

absl::Status SlotNotInLog(uint32_t slot) {
  return MakeError(
      absl::StatusCode::kFailedPrecondition,
      {Reason::kDirtyLogOff, "slot", ENOENT},
      Format("slot %d is not in this VM's dirty log; list the slots of the "
             "log, or stop the log and start it with this slot",
             slot));
}

absl::Status UndeliveredPages(const UndeliveredCounts& counts,
                              const std::string& what) {
  return MakeError(
      absl::StatusCode::kFailedPrecondition,
      {Reason::kUndeliveredPages,
       "undelivered",
       EBUSY,
       {{"open_page_count", absl::StrCat(counts.open)},
        {"sealed_page_count", absl::StrCat(counts.sealed)},
        {"in_flight_page_count", absl::StrCat(counts.in_flight)}}},
      absl::StrCat(what,
                   " has dirty pages that were not acknowledged: ", counts.open,
                   " open, ", counts.sealed, " sealed, ", counts.in_flight,
                   " in flight, and its log cannot end without losing them; "
                   "seal, clear, copy and acknowledge them, or request that "
                   "they are discarded"));
}

DirtyLog::DirtyLog(LogId id, uint64_t first_epoch, const LogClaim& claim,
                   Slots slots, MonotonicTime now, Begin begin)
    : id_(id),
      first_epoch_(first_epoch),
      owner_(claim, now),
      on_(begin == Begin::kOpen),
      open_epoch_(first_epoch) {
  MMU_CHECK(first_epoch >= 1);
  MutexLock lock(mu_);
  {
    MutexLock look(look_mu_);
    // Ending a log or removing a slot must not need memory.
    told_.epochs_in_flight.reserve(kMaxEpochsInFlight);
    told_.start = now;
    told_.owner = claim.owner;
    for (auto& [slot, log] : slots) {
      log->set_first_epoch(first_epoch);
      slots_.emplace(slot, Entry{std::move(log)});
    }
  }
  TellAll();
}

void DirtyLog::Open(MonotonicTime now) {
  MutexLock lock(mu_);
  owner_.Renew(now);
  {
    MutexLock look(look_mu_);
    TellLog();
  }
  on_.store(true, std::memory_order_release);
}

void DirtyLog::Close() {
  MutexLock lock(mu_);
  on_.store(false, std::memory_order_release);
}

absl::Status DirtyLog::CheckOn() const {
  return is_on() ? absl::OkStatus() : DirtyLogOff();
}

std::shared_ptr<SlotLog> DirtyLog::Find(uint32_t slot) const {
  MutexLock look(look_mu_);
  const auto it = slots_.find(slot);
  return it == slots_.end() ? nullptr : it->second.log;
}

std::vector<std::shared_ptr<SlotLog>> DirtyLog::AllSlots() const {
  MutexLock look(look_mu_);
  std::vector<std::shared_ptr<SlotLog>> all;
  all.reserve(slots_.size());
  for (const auto& [slot, entry] : slots_) all.push_back(entry.log);
  return all;
}

DirtyLog::JoiningSlot::JoiningSlot(std::shared_ptr<SlotLog> log) {
  const uint32_t slot = log->slot();
  node_.emplace(slot, Entry{std::move(log), {.joined = true}});
}

void DirtyLog::Join(JoiningSlot slot) {
  MutexLock lock(mu_);
  const std::shared_ptr<SlotLog> log = slot.node_.begin()->second.log;
  log->set_first_epoch(open_epoch_);
  {
    MutexLock look(look_mu_);
    slots_.merge(slot.node_);
  }
  MMU_CHECK(slot.node_.empty());  // the slot's id was new
  Tell(*log);
}

UndeliveredCounts DirtyLog::Leave(uint32_t slot) {
  MutexLock lock(mu_);
  const std::shared_ptr<SlotLog> log = Find(slot);
  if (log == nullptr) return {};
  const UndeliveredCounts counts = CountOf(*log);
  sealed_pages_ -= counts.sealed;
  for (size_t flight = 0; flight < kMaxEpochsInFlight; ++flight) {
    TakeOut(flights_[flight], log->in_flight_count(flight));
  }
  NoteWhatWaits();
  MutexLock look(look_mu_);
  slots_.erase(slot);
  TellLog();
  return counts;
}

void DirtyLog::Moved(uint32_t slot) {
  MutexLock lock(mu_);
  const std::shared_ptr<SlotLog> log = Find(slot);
  if (log == nullptr) return;
  ReturnLocked(*log);
  NoteWhatWaits();
  log->set_first_epoch(open_epoch_);
  Tell(*log);
}

absl::Status DirtyLog::CheckId(const absl::optional<LogId>& log_id) const {
  if (!log_id.has_value() || *log_id == id_) return absl::OkStatus();
  return MakeError(
      absl::StatusCode::kAborted, {Reason::kLogChanged, "log_id", 0},
      Format("log_id is %s: this VM's dirty log is %s now, and has epochs of "
             "its own; read its state and begin anew",
             log_id->ToString(), id_.ToString()));
}

absl::Status DirtyLog::AdmitLocked(const LogCall& call) {
  if (absl::Status s = CheckOn(); !s.ok()) return s;
  if (absl::Status s = CheckId(call.log_id); !s.ok()) return s;
  if (absl::Status s = owner_.Admit(call.key, call.now); !s.ok()) return s;
  MutexLock look(look_mu_);
  told_.last_owner_call = owner_.last_call();
  told_.lease_end = owner_.lease_end();
  return absl::OkStatus();
}

absl::Status DirtyLog::Admit(const LogCall& call) {
  MutexLock lock(mu_);
  return AdmitLocked(call);
}

absl::StatusOr<LogOwner::Acquired> DirtyLog::Acquire(
    const LogClaim& claim, absl::optional<LogId> log_id, LogOwner::Force force,
    MonotonicTime now, DirtyLogState* state) {
  MutexLock lock(mu_);
  if (absl::Status s = CheckOn(); !s.ok()) return s;
  if (absl::Status s = CheckId(log_id); !s.ok()) return s;
  // Allocates all memory up front: a completed takeover cannot fail.
  const std::vector<std::shared_ptr<SlotLog>> slots = AllSlots();
  std::string name = claim.owner;
  DirtyLogState room;
  if (state != nullptr) room = RoomForState(claim.owner);
  absl::StatusOr<LogOwner::Acquired> acquired =
      owner_.Acquire(claim, force, now);
  if (!acquired.ok()) return acquired;
  if (*acquired == LogOwner::Acquired::kNewly) {
    // UndeliveredSince also counts the kept times of pages that were cleared
    // again in a later epoch (FlightEpoch::since).
    if (InFlightLocked() != 0) sealed_since_ = UndeliveredSince();
    for (const std::shared_ptr<SlotLog>& log : slots) ReturnLocked(*log);
    NoteWhatWaits();
  }
  {
    MutexLock look(look_mu_);
    told_.owner.swap(name);
  }
  TellAll();
  if (state != nullptr) {
    StateInto(room);
    std::swap(*state, room);
  }
  return acquired;
}

absl::StatusOr<std::shared_ptr<SlotLog>> DirtyLog::LogOf(uint32_t slot) const {
  std::shared_ptr<SlotLog> log = Find(slot);
  if (log != nullptr) return log;
  return SlotNotInLog(slot);
}

absl::Status DirtyLog::CheckSealed(uint64_t epoch, const char* field) const {
  if (epoch == 0) {
    return EpochUnknown(epoch, field,
                        "name the epoch that a seal returned; the state of the "
                        "log has the last");
  }
  if (epoch >= open_epoch_) {
    return EpochUnknown(
        epoch, field,
        Format("it was not sealed yet, and epoch %d is open; seal "
               "first",
               open_epoch_));
  }
  if (epoch < first_epoch_) {
    return EpochUnknown(
        epoch, field,
        Format("it is of an earlier log of this VM; this one began "
               "with epoch %d",
               first_epoch_));
  }
  return absl::OkStatus();
}

absl::StatusOr<SealOutcome> DirtyLog::Seal(const LogCall& call,
                                           uint64_t acknowledged_epoch) {
  MutexLock lock(mu_);
  if (absl::Status s = AdmitLocked(call); !s.ok()) return s;
  if (acknowledged_epoch != 0) {
    if (absl::Status s = CheckSealed(acknowledged_epoch, "acknowledged_epoch");
        !s.ok()) {
      return s;
    }
  }
  const std::vector<std::shared_ptr<SlotLog>> slots = AllSlots();
  SealOutcome outcome;
  outcome.log_id = id_;
  outcome.slots.reserve(slots.size());
  if (acknowledged_epoch != 0) {
    outcome.acknowledged_page_count =
        AcknowledgeLocked(acknowledged_epoch, slots);
  }
  for (const std::shared_ptr<SlotLog>& log : slots) {
    SlotSeal seal{.slot = log->slot(),
                  .merged_page_count = log->sealed_count()};
    seal.fresh_page_count = log->Seal();
    sealed_pages_ += seal.fresh_page_count;
    outcome.slots.push_back(seal);
  }
  outcome.epoch = open_epoch_++;
  // Pages that were already sealed keep their older time.
  sealed_since_ = std::min(sealed_since_, call.now);
  NoteWhatWaits();
  TellAll();
  return outcome;
}

absl::Status DirtyLog::Read(absl::optional<LogId> log_id, uint32_t slot,
                            uint64_t epoch, uint64_t first_page,
                            absl::Span<uint64_t> words) const {
  if (absl::Status s = CheckId(log_id); !s.ok()) return s;
  const absl::StatusOr<std::shared_ptr<SlotLog>> found = LogOf(slot);
  if (!found.ok()) return found.status();
  const SlotLog& log = **found;
  if (absl::Status s = CheckInside(log, first_page, words.size()); !s.ok()) {
    return s;
  }
  MutexLock lock(mu_);
  if (absl::Status s = CheckOn(); !s.ok()) return s;
  if (absl::Status s = CheckReadable(epoch, LogPages::kSealed); !s.ok())
    return s;
  if (epoch != 0 && epoch < log.first_epoch()) {
    return MakeError(
        absl::StatusCode::kAborted, {Reason::kEpochSuperseded, "epoch", 0},
        Format("slot %d was moved or made after epoch %d was sealed: "
               "its pages are part of epoch %d; seal that one",
               slot, epoch, open_epoch_));
  }
  std::fill(words.begin(), words.end(), 0);
  log.OrSealedInto(first_page / 64, words);
  if (epoch == 0) {
    log.OrOpenInto(first_page / 64, words);
    log.OrInFlightInto(first_page / 64, words);
  }
  return absl::OkStatus();
}

absl::Status DirtyLog::ReadInFlight(absl::optional<LogId> log_id, uint32_t slot,
                                    uint64_t epoch, uint64_t first_page,
                                    absl::Span<uint64_t> words) const {
  if (absl::Status s = CheckId(log_id); !s.ok()) return s;
  const absl::StatusOr<std::shared_ptr<SlotLog>> log = LogOf(slot);
  if (!log.ok()) return log.status();
  if (absl::Status s = CheckInside(**log, first_page, words.size()); !s.ok()) {
    return s;
  }
  MutexLock lock(mu_);
  if (absl::Status s = CheckOn(); !s.ok()) return s;
  if (absl::Status s = CheckReadable(epoch, LogPages::kInFlight); !s.ok()) {
    return s;
  }
  std::fill(words.begin(), words.end(), 0);
  for (size_t flight = 0; flight < kMaxEpochsInFlight; ++flight) {
    if (flights_[flight].page_count == 0 || flights_[flight].epoch != epoch) {
      continue;
    }
    (*log)->OrInFlightInto(flight, first_page / 64, words);
  }
  return absl::OkStatus();
}

absl::Status DirtyLog::CheckEpoch(absl::optional<LogId> log_id, uint64_t epoch,
                                  LogPages pages) const {
  if (absl::Status s = CheckId(log_id); !s.ok()) return s;
  MutexLock lock(mu_);
  if (absl::Status s = CheckOn(); !s.ok()) return s;
  return CheckReadable(epoch, pages);
}

absl::Status DirtyLog::CheckReadable(uint64_t epoch, LogPages pages) const {
  // Epoch 0 means a peek for sealed pages; in-flight pages have no peek.
  if (epoch == 0 && pages == LogPages::kSealed) return absl::OkStatus();
  if (absl::Status s = CheckSealed(epoch, "epoch"); !s.ok()) return s;
  if (pages == LogPages::kInFlight || epoch == SealedEpoch()) {
    return absl::OkStatus();
  }
  return MakeError(absl::StatusCode::kAborted,
                   {Reason::kEpochSuperseded, "epoch", 0},
                   Format("epoch %d was sealed again and is part of epoch %d "
                          "now; read that one",
                          epoch, SealedEpoch()));
}

absl::Status DirtyLog::CheckClearable(const SlotLog& log,
                                      uint64_t epoch) const {
  if (SealedEpoch() == 0) {
    return EpochMismatch(
        epoch, "no epoch was sealed since this log was started; seal first");
  }
  if (epoch != SealedEpoch()) {
    return EpochMismatch(epoch,
                         Format("the last sealed epoch is %d; read that epoch "
                                "and clear the pages that it lists",
                                SealedEpoch()));
  }
  if (epoch < log.first_epoch()) {
    return EpochMismatch(
        epoch, Format("slot %d was moved or made after it was sealed; seal "
                      "epoch %d and read that one",
                      log.slot(), open_epoch_));
  }
  return absl::OkStatus();
}

absl::StatusOr<size_t> DirtyLog::FlightOf(uint64_t epoch) const {
  size_t free = kMaxEpochsInFlight;
  uint64_t oldest = epoch;
  for (size_t flight = 0; flight < kMaxEpochsInFlight; ++flight) {
    if (flights_[flight].page_count == 0) {
      // If every free slot still has a time to keep, overwriting the latest
      // time loses the least accuracy.
      if (free == kMaxEpochsInFlight ||
          flights_[free].since < flights_[flight].since) {
        free = flight;
      }
    } else if (flights_[flight].epoch == epoch) {
      return flight;
    } else {
      oldest = std::min(oldest, flights_[flight].epoch);
    }
  }
  if (free != kMaxEpochsInFlight) return free;
  return MakeError(
      absl::StatusCode::kResourceExhausted,
      {Reason::kLimitExceeded, "epoch", 0, {{"limit", "epochs_in_flight"}}},
      Format("epoch %d cannot be cleared: pages of %d epochs are in "
             "flight, and no more may be; acknowledge epoch %d first",
             epoch, kMaxEpochsInFlight, oldest));
}

absl::StatusOr<DirtyLog::Flight> DirtyLog::TakeIntoFlight(
    const LogCall& call, uint32_t slot, uint64_t epoch, uint64_t first_page,
    absl::Span<const uint64_t> mask) {
  MMU_CHECK(MayBeginLogRange(first_page));
  MutexLock lock(mu_);
  if (absl::Status s = AdmitLocked(call); !s.ok()) return s;
  const absl::StatusOr<std::shared_ptr<SlotLog>> log = LogOf(slot);
  if (!log.ok()) return log.status();
  if (absl::Status s = CheckClearable(**log, epoch); !s.ok()) return s;
  const absl::StatusOr<size_t> flight = FlightOf(epoch);
  if (!flight.ok()) return flight.status();
  SlotLog::Cleared cleared = (*log)->Clear(*flight, first_page / 64, mask);
  if (cleared.moved_page_count != 0) {
    FlightEpoch& of = flights_[*flight];
    of.epoch = epoch;
    of.page_count += cleared.moved_page_count;
    of.since = std::min(of.since, sealed_since_);
  }
  for (size_t other = 0; other < kMaxEpochsInFlight; ++other) {
    flights_[other].page_count -= cleared.moved_from[other];
  }
  sealed_pages_ -= cleared.moved_page_count;
  NoteWhatWaits();
  Tell(**log);
  Flight result;
  result.moved = std::move(cleared.moved);
  result.moved_page_count = cleared.moved_page_count;
  result.already_in_flight_page_count = cleared.already_in_flight_page_count;
  result.already_clean_page_count = cleared.already_clean_page_count;
  result.still_sealed_page_count = (*log)->sealed_count();
  return result;
}

uint64_t DirtyLog::InFlightLocked() const {
  uint64_t count = 0;
  for (const FlightEpoch& flight : flights_) count += flight.page_count;
  return count;
}

void DirtyLog::ForgetClearedAgain(uint64_t epoch) {
  for (FlightEpoch& flight : flights_) {
    if (flight.page_count != 0 || flight.epoch >= epoch) continue;
    flight.since = MonotonicTime::InfiniteFuture();
  }
}

void DirtyLog::TakeOut(FlightEpoch& flight, uint64_t count) {
  if (count == 0) return;
  flight.page_count -= count;
  if (flight.page_count == 0) flight.since = MonotonicTime::InfiniteFuture();
}

void DirtyLog::NoteWhatWaits() {
  if (sealed_pages_ == 0) sealed_since_ = MonotonicTime::InfiniteFuture();
  if (InFlightLocked() != 0) return;
  for (FlightEpoch& flight : flights_) {
    flight.since = MonotonicTime::InfiniteFuture();
  }
}

MonotonicTime DirtyLog::UndeliveredSince() const {
  MonotonicTime since = sealed_since_;
  for (const FlightEpoch& flight : flights_) {
    since = std::min(since, flight.since);
  }
  return since;
}

uint64_t DirtyLog::AcknowledgeLocked(
    uint64_t epoch, const std::vector<std::shared_ptr<SlotLog>>& slots) {
  uint64_t delivered = 0;
  for (size_t flight = 0; flight < kMaxEpochsInFlight; ++flight) {
    FlightEpoch& of = flights_[flight];
    if (of.epoch > epoch) continue;
    of.since = MonotonicTime::InfiniteFuture();
    if (of.page_count == 0) continue;
    for (const std::shared_ptr<SlotLog>& log : slots) {
      delivered += log->Acknowledge(flight);
    }
    of.page_count = 0;
  }
  return delivered;
}

absl::StatusOr<AcknowledgeResult> DirtyLog::Acknowledge(const LogCall& call,
                                                        uint64_t epoch) {
  MutexLock lock(mu_);
  if (absl::Status s = AdmitLocked(call); !s.ok()) return s;
  if (absl::Status s = CheckSealed(epoch, "epoch"); !s.ok()) return s;
  AcknowledgeResult result;
  result.acknowledged_page_count = AcknowledgeLocked(epoch, AllSlots());
  result.still_in_flight_page_count = InFlightLocked();
  NoteWhatWaits();
  TellAll();
  return result;
}

absl::StatusOr<AcknowledgeResult> DirtyLog::AcknowledgePages(
    const LogCall& call, uint64_t epoch, uint32_t slot, uint64_t first_page,
    absl::Span<const uint64_t> mask) {
  MMU_CHECK(MayBeginLogRange(first_page));
  MutexLock lock(mu_);
  if (absl::Status s = AdmitLocked(call); !s.ok()) return s;
  const absl::StatusOr<std::shared_ptr<SlotLog>> found = LogOf(slot);
  if (!found.ok()) return found.status();
  if (absl::Status s = CheckSealed(epoch, "epoch"); !s.ok()) return s;
  SlotLog& log = **found;
  const uint64_t first_word = first_page / 64;
  MMU_CHECK(first_word <= log.word_count() &&
            mask.size() <= log.word_count() - first_word);
  AcknowledgeResult result;
  for (size_t flight = 0; flight < kMaxEpochsInFlight; ++flight) {
    FlightEpoch& of = flights_[flight];
    if (of.page_count == 0) continue;
    if (of.epoch > epoch) {
      result.later_page_count += log.CountInFlight(flight, first_word, mask);
      continue;
    }
    const uint64_t delivered = log.Acknowledge(flight, first_word, mask);
    TakeOut(of, delivered);
    if (delivered != 0 && of.page_count == 0) ForgetClearedAgain(of.epoch);
    result.acknowledged_page_count += delivered;
  }
  uint64_t named = 0;
  for (size_t i = 0; i < mask.size(); ++i) {
    named += CountBits(mask[i] & log.PagesOfWord(first_word + i));
  }
  result.not_in_flight_page_count =
      named - result.acknowledged_page_count - result.later_page_count;
  result.still_in_flight_page_count = InFlightLocked();
  NoteWhatWaits();
  if (result.acknowledged_page_count != 0) Tell(log);
  return result;
}

void DirtyLog::ReturnLocked(SlotLog& log) {
  for (size_t flight = 0; flight < kMaxEpochsInFlight; ++flight) {
    FlightEpoch& of = flights_[flight];
    const uint64_t count = log.in_flight_count(flight);
    if (count != 0) sealed_since_ = std::min(sealed_since_, of.since);
    TakeOut(of, count);
  }
  const uint64_t before = log.sealed_count();
  log.Return();
  sealed_pages_ += log.sealed_count() - before;
}

DirtyLogState DirtyLog::State() const {
  DirtyLogState state;
  StateInto(state);
  return state;
}

DirtyLogState DirtyLog::RoomForState(const std::string& owner) const {
  DirtyLogState room;
  room.owner.reserve(owner.size());
  room.epochs_in_flight.reserve(kMaxEpochsInFlight);
  MutexLock look(look_mu_);
  room.slots.reserve(slots_.size());
  return room;
}

void DirtyLog::StateInto(DirtyLogState& state) const {
  MutexLock look(look_mu_);
  // told_ has no slots, so this copy keeps the room reserved for them.
  state = told_;
  state.slots.reserve(slots_.size());
  for (const auto& [slot, entry] : slots_) state.slots.push_back(entry.told);
}

DirtyLogState DirtyLog::Summary() const {
  MutexLock look(look_mu_);
  return told_;
}

absl::optional<SlotLogState> DirtyLog::FindSlotState(uint32_t slot) const {
  MutexLock look(look_mu_);
  const auto it = slots_.find(slot);
  if (it == slots_.end()) return absl::nullopt;
  return it->second.told;
}

MonotonicTime DirtyLog::last_owner_call() const {
  MutexLock look(look_mu_);
  return told_.last_owner_call;
}

UndeliveredCounts DirtyLog::CountOf(const SlotLog& log) {
  return {.open = log.CountOpen(),
          .sealed = log.sealed_count(),
          .in_flight = log.in_flight_count()};
}

UndeliveredCounts DirtyLog::CountUndelivered() const {
  MutexLock lock(mu_);
  UndeliveredCounts counts;
  for (const std::shared_ptr<SlotLog>& log : AllSlots()) {
    counts += CountOf(*log);
  }
  return counts;
}

UndeliveredCounts DirtyLog::CountUndelivered(uint32_t slot) const {
  MutexLock lock(mu_);
  const std::shared_ptr<SlotLog> log = Find(slot);
  return log == nullptr ? UndeliveredCounts{} : CountOf(*log);
}

std::vector<SlotUndelivered> DirtyLog::CountUndeliveredBySlot() const {
  MutexLock lock(mu_);
  std::vector<SlotUndelivered> slots;
  for (const std::shared_ptr<SlotLog>& log : AllSlots()) {
    slots.push_back({log->slot(), CountOf(*log)});
  }
  return slots;
}

bool DirtyLog::IsUndelivered(uint32_t slot, uint64_t page) const {
  MutexLock lock(mu_);
  const std::shared_ptr<SlotLog> log = Find(slot);
  return log != nullptr && log->IsUndelivered(page);
}

bool DirtyLog::IsToBeCleared(uint32_t slot, uint64_t page) const {
  MutexLock lock(mu_);
  const std::shared_ptr<SlotLog> log = Find(slot);
  return log != nullptr && (log->IsOpen(page) || log->IsSealed(page));
}

uint64_t DirtyLog::open_epoch() const {
  MutexLock lock(mu_);
  return open_epoch_;
}

void DirtyLog::TellSlot(const SlotLog& log, SlotLogState& told) {
  told.slot = log.slot();
  told.first_epoch = log.first_epoch();
  told.sealed_page_count = log.sealed_count();
  told.in_flight_page_count = log.in_flight_count();
}

void DirtyLog::TellLog() {
  told_.id = id_;
  told_.lease = owner_.lease();
  told_.owner_since = owner_.since();
  told_.last_owner_call = owner_.last_call();
  told_.lease_end = owner_.lease_end();
  told_.open_epoch = open_epoch_;
  told_.sealed_epoch = SealedEpoch();
  told_.undelivered_since = UndeliveredSince();
  told_.epochs_in_flight.clear();
  for (const FlightEpoch& flight : flights_) {
    if (flight.page_count == 0) continue;
    told_.epochs_in_flight.push_back(flight.epoch);
  }
  std::sort(told_.epochs_in_flight.begin(), told_.epochs_in_flight.end());
}

void DirtyLog::Tell(const SlotLog& log) {
  MutexLock look(look_mu_);
  TellLog();
  TellSlot(log, slots_.at(log.slot()).told);
}

void DirtyLog::TellAll() {
  MutexLock look(look_mu_);
  TellLog();
  for (auto& [slot, entry] : slots_) TellSlot(*entry.log, entry.told);
}

}  // namespace mmu
