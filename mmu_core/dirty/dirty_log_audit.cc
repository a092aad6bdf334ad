// What the auditor checks of a dirty log.

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/functional/function_ref.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/format.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/dirty/dirty_log.h"
#include "mmu_core/dirty/slot_log.h"

namespace mmu {

void DirtyLog::AuditSets(
    absl::FunctionRef<void(const std::string&)> fault) const {
  MutexLock lock(mu_);
  uint64_t sealed = 0;
  std::array<uint64_t, kMaxEpochsInFlight> in_flight = {};
  for (const std::shared_ptr<SlotLog>& log : AllSlots()) {
    log->AuditSets(fault);
    sealed += log->sealed_count();
    for (size_t flight = 0; flight < kMaxEpochsInFlight; ++flight) {
      in_flight[flight] += log->in_flight_count(flight);
    }
  }
  for (size_t flight = 0; flight < kMaxEpochsInFlight; ++flight) {
    if (in_flight[flight] == flights_[flight].page_count) continue;
    fault(
        Format("the slots have %d pages in flight in set %d, the log counts "
               "%d",
               in_flight[flight], flight, flights_[flight].page_count));
  }
  if (sealed != sealed_pages_) {
    fault(Format("the slots have %d sealed pages, the log counts %d", sealed,
                 sealed_pages_));
  }
}

void DirtyLog::AuditEpochs(
    absl::FunctionRef<void(const std::string&)> fault) const {
  MutexLock lock(mu_);
  if (first_epoch_ == 0 || open_epoch_ < first_epoch_) {
    fault(Format("epoch %d is open, but the log began with epoch %d",
                 open_epoch_, first_epoch_));
  }
  for (size_t i = 0; i < flights_.size(); ++i) {
    const FlightEpoch& flight = flights_[i];
    if (flight.page_count == 0) continue;
    if (flight.epoch < first_epoch_ || flight.epoch >= open_epoch_) {
      fault(Format("pages are in flight in epoch %d, which was not sealed",
                   flight.epoch));
    }
    if (flight.since == MonotonicTime::InfiniteFuture()) {
      fault(
          Format("pages of epoch %d are in flight since never", flight.epoch));
    }
    for (size_t other = 0; other < i; ++other) {
      if (flights_[other].page_count != 0 &&
          flights_[other].epoch == flight.epoch) {
        fault(Format("epoch %d has two sets in flight", flight.epoch));
      }
    }
  }
  if (sealed_pages_ != 0 && SealedEpoch() == 0) {
    fault(Format("%d pages are sealed, but no epoch was", sealed_pages_));
  }
  if ((sealed_pages_ == 0) !=
      (sealed_since_ == MonotonicTime::InfiniteFuture())) {
    fault(
        Format("%d pages are sealed, which does not fit the time since which "
               "there are sealed pages",
               sealed_pages_));
  }
  if (!owner_.IsConsistent()) {
    fault("the owner's key is a former one, or its times are in disorder");
  }

  MutexLock look(look_mu_);
  for (const auto& [slot, entry] : slots_) {
    const SlotLog& log = *entry.log;
    if (log.slot() != slot) {
      fault(Format("slot %d has the sets of slot %d", slot, log.slot()));
    }
    if (log.first_epoch() < first_epoch_ || log.first_epoch() > open_epoch_) {
      fault(
          Format("slot %d can be cleared from epoch %d on, but epoch %d is "
                 "open",
                 slot, log.first_epoch(), open_epoch_));
    }
    for (size_t i = 0; i < flights_.size(); ++i) {
      if (log.in_flight_count(i) != 0 &&
          flights_[i].epoch < log.first_epoch()) {
        fault(
            Format("slot %d has pages in flight in epoch %d, but can be "
                   "cleared from epoch %d on",
                   slot, flights_[i].epoch, log.first_epoch()));
      }
    }
    SlotLogState truth = entry.told;
    TellSlot(log, truth);
    if (truth != entry.told) {
      fault(Format(
          "slot %d is told to have %d pages sealed and %d in flight, "
          "but has %d and %d",
          slot, entry.told.sealed_page_count, entry.told.in_flight_page_count,
          truth.sealed_page_count, truth.in_flight_page_count));
    }
  }
  uint64_t in_flight = 0;
  for (const FlightEpoch& flight : flights_)
    in_flight += flight.page_count != 0;
  uint64_t last = 0;
  bool ascending = true;
  for (const uint64_t epoch : told_.epochs_in_flight) {
    ascending = ascending && epoch > last;
    last = epoch;
  }
  if (told_.open_epoch != open_epoch_ || told_.sealed_epoch != SealedEpoch() ||
      told_.epochs_in_flight.size() != in_flight || !ascending ||
      told_.last_owner_call != owner_.last_call()) {
    fault(
        Format("the log is told to have epoch %d open and %d epochs in "
               "flight, but has %d and %d",
               told_.open_epoch, told_.epochs_in_flight.size(), open_epoch_,
               in_flight));
  }
}

}  // namespace mmu
