// The expected state of a VM in the simplest form: maps of page numbers.
//
// The model knows the rules of dirty logging and of contents, but not the MMU's
// implementation. Where the rules leave the MMU a choice (a page may be
// reported once more than it was written) the model keeps a lower and an upper
// bound.

#ifndef TESTS_MODEL_REFERENCE_MODEL_H_
#define TESTS_MODEL_REFERENCE_MODEL_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "mmu_core/dirty/dirty_log_types.h"

namespace mmu::testing {

// The log of one slot. Pages are numbered within the slot.
struct ModelLog {
  // The first epoch in which pages can be cleared: nothing is sealed before it.
  uint64_t first_epoch = 1;
  // Pages that must be reported: written since the last seal (open), or before
  // it and not cleared (sealed).
  std::set<uint64_t> must_open, must_sealed;
  // Pages that may be reported: those above, and possibly others.
  std::set<uint64_t> may_open, may_sealed;
  // Pages cleared and not acknowledged, with the epoch of the clear. Exact.
  std::map<uint64_t, uint64_t> in_flight;
  // The pages in flight that the owner has not copied yet.
  std::set<uint64_t> uncopied;
};

// The log of the VM.
struct ModelVmLog {
  DirtyLogConfig config;
  uint64_t first_epoch = 1;
  uint64_t epoch = 1;  // the open one
};

struct ModelSlot {
  uint64_t base_page = 0;  // guest-physical page number
  uint64_t pages = 0;
  int host_level = 1;
  bool readonly = false;
  std::map<uint64_t, uint64_t> contents;  // first word of a page, if not 0
  std::map<uint64_t, uint64_t> copy;      // the same, at the destination
  std::optional<ModelLog> log;

  uint64_t WordOf(uint64_t page) const {
    const auto found = contents.find(page);
    return found == contents.end() ? 0 : found->second;
  }
};

// Thread-compatible.
class ReferenceModel {
 public:
  std::map<uint32_t, ModelSlot>& slots() { return slots_; }
  const std::map<uint32_t, ModelSlot>& slots() const { return slots_; }

  // The slot that has guest page `page`, or null.
  ModelSlot* SlotAt(uint64_t page) {
    for (auto& [id, slot] : slots_) {
      if (page >= slot.base_page && page < slot.base_page + slot.pages) {
        return &slot;
      }
    }
    return nullptr;
  }

  // An access of the guest. A read may be reported, too: mapping a writable
  // page marks it (DL-18).
  static void Touched(ModelSlot& slot, uint64_t page) {
    if (slot.log.has_value()) slot.log->may_open.insert(page);
  }
  static void Written(ModelSlot& slot, uint64_t page, uint64_t value) {
    slot.contents[page] = value;
    if (!slot.log.has_value()) return;
    // A page that is sealed and not cleared needs no second report, because it
    // is copied after the clear. After a seal, may_sealed is the set of sealed
    // pages.
    if (slot.log->may_sealed.count(page) != 0) {
      slot.log->must_sealed.insert(page);
    } else {
      slot.log->must_open.insert(page);
    }
    slot.log->may_open.insert(page);
  }

  const std::optional<ModelVmLog>& log() const { return log_; }

  void StartLog(const std::vector<ModelSlot*>& slots,
                const DirtyLogConfig& config) {
    log_ = {config, next_epoch_, next_epoch_};
    for (ModelSlot* slot : slots) {
      Log(*slot, config.initially_set == InitiallySet::kYes);
    }
  }
  // Adds a slot that was created just now to the log, if the log is on.
  void JoinLog(ModelSlot& slot) {
    if (log_.has_value()) Log(slot, /*all_dirty=*/true);
  }
  // An epoch's number is used only once, even if the epoch was never sealed.
  void StopLog() {
    next_epoch_ = log_->epoch + 1;
    log_.reset();
    for (auto& [id, slot] : slots_) slot.log.reset();
  }
  void Seal() {
    ++log_->epoch;
    for (auto& [id, slot] : slots_) {
      if (!slot.log.has_value()) continue;
      ModelLog& log = *slot.log;
      log.must_sealed.merge(log.must_open);
      log.must_open.clear();
      log.may_sealed.merge(log.may_open);
      log.may_open.clear();
    }
  }
  // `pages` were reported as cleared in `epoch`.
  static void Cleared(ModelLog& log, const std::vector<uint64_t>& pages,
                      uint64_t epoch) {
    for (const uint64_t page : pages) {
      log.must_sealed.erase(page);
      log.may_sealed.erase(page);
      log.in_flight[page] = epoch;
      log.uncopied.insert(page);
    }
  }
  // Delivers all pages cleared up to `epoch`. Returns the number of pages that
  // were in flight.
  uint64_t Acknowledge(uint64_t epoch) {
    uint64_t delivered = 0;
    for (auto& [id, slot] : slots_) {
      if (!slot.log.has_value()) continue;
      delivered += std::erase_if(
          slot.log->in_flight,
          [epoch](const auto& page) { return page.second <= epoch; });
    }
    return delivered;
  }
  // Delivers `page` of one slot if it was cleared up to `epoch`. Returns
  // whether it was.
  static bool AcknowledgePage(ModelLog& log, uint64_t page, uint64_t epoch) {
    const auto found = log.in_flight.find(page);
    if (found == log.in_flight.end() || found->second > epoch) return false;
    log.in_flight.erase(found);
    return true;
  }
  // Whether the owner has copied all pages that it would acknowledge.
  bool MayAcknowledge(uint64_t epoch) const {
    for (const auto& [id, slot] : slots_) {
      if (!slot.log.has_value()) continue;
      for (const auto& [page, cleared] : slot.log->in_flight) {
        if (cleared <= epoch && slot.log->uncopied.count(page) != 0) {
          return false;
        }
      }
    }
    return true;
  }
  // The pages in flight are sealed again, and their owner forgets them.
  static void Return(ModelLog& log) {
    for (const auto& [page, epoch] : log.in_flight) {
      log.must_sealed.insert(page);
      log.may_sealed.insert(page);
    }
    log.in_flight.clear();
    log.uncopied.clear();
  }
  // Number of epochs with pages in flight, not counting `epoch`.
  size_t OtherEpochsInFlight(uint64_t epoch) const {
    std::set<uint64_t> epochs;
    for (const auto& [id, slot] : slots_) {
      if (!slot.log.has_value()) continue;
      for (const auto& [page, cleared] : slot.log->in_flight) {
        if (cleared != epoch) epochs.insert(cleared);
      }
    }
    return epochs.size();
  }

 private:
  void Log(ModelSlot& slot, bool all_dirty) {
    // Contents written before the log are copied beforehand.
    slot.copy = slot.contents;
    slot.log.emplace();
    slot.log->first_epoch = log_->epoch;
    if (!all_dirty) return;
    for (uint64_t page = 0; page < slot.pages; ++page) {
      slot.log->must_open.insert(page);
      slot.log->may_open.insert(page);
    }
  }

  std::map<uint32_t, ModelSlot> slots_;
  std::optional<ModelVmLog> log_;
  uint64_t next_epoch_ = 1;  // first epoch of the next log
};

}  // namespace mmu::testing

#endif  // TESTS_MODEL_REFERENCE_MODEL_H_
