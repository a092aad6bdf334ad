// The expected state of a VM's memory and of its dirty log in the simplest
// form: one word per page, and sets of page numbers.
//
// The model knows the rules of dirty logging and of contents, but not the MMU's
// implementation. Where the rules leave the MMU a choice (a page may be
// reported once more than it was written) the model keeps a lower and an upper
// bound.

#ifndef TESTS_MODEL_REFERENCE_MODEL_H_
#define TESTS_MODEL_REFERENCE_MODEL_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <set>
#include <vector>

#include "mmu_core/dirty/dirty_log_types.h"
#include "tests/model/page_set.h"

namespace mmu::testing {

// The log of one slot. Pages are numbered within the slot.
struct ModelLog {
  explicit ModelLog(uint64_t pages)
      : must_open(pages),
        must_sealed(pages),
        may_open(pages),
        may_sealed(pages),
        uncopied(pages),
        in_flight(pages) {}

  // The first epoch in which pages can be cleared: nothing is sealed before it.
  uint64_t first_epoch = 1;
  // Pages that must be reported: written since the last seal (open), or before
  // it and not cleared (sealed).
  PageSet must_open, must_sealed;
  // Pages that may be reported: those above, and possibly others.
  PageSet may_open, may_sealed;
  // The pages in flight that the owner has not copied yet.
  PageSet uncopied;
  // By page, the epoch in which it was cleared, if it is not acknowledged; 0
  // if it is not in flight. Exact.
  std::vector<uint64_t> in_flight;
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
  // By page of the slot: the first word of its contents. Of a page that holds
  // a table of the guest, the number of its last change instead.
  std::vector<uint64_t> contents;
  std::vector<uint64_t> copy;  // the same, at the destination
  std::optional<ModelLog> log;

  bool Contains(uint64_t page) const { return page - base_page < pages; }
};

// Thread-compatible.
class ReferenceModel {
 public:
  // Slots 0 to 2 come and go; slot 3 has the guest's page tables and stays.
  static constexpr uint32_t kSlots = 4;

  std::optional<ModelSlot>& slot(uint32_t id) { return slots_[id]; }
  const std::optional<ModelSlot>& slot(uint32_t id) const { return slots_[id]; }
  // Calls fn(id, slot) for each slot, in the order of the ids.
  template <typename Fn>
  void ForEachSlot(Fn fn) {
    for (uint32_t id = 0; id < kSlots; ++id) {
      if (slots_[id].has_value()) fn(id, *slots_[id]);
    }
  }
  template <typename Fn>
  void ForEachSlot(Fn fn) const {
    for (uint32_t id = 0; id < kSlots; ++id) {
      if (slots_[id].has_value()) fn(id, *slots_[id]);
    }
  }

  // The slot that has guest page `page`, or null.
  ModelSlot* SlotAt(uint64_t page) {
    for (std::optional<ModelSlot>& slot : slots_) {
      if (slot.has_value() && slot->Contains(page)) return &*slot;
    }
    return nullptr;
  }

  // An access of the guest. A read may be reported, too: mapping a writable
  // page marks it (DL-18).
  static void Touched(ModelSlot& slot, uint64_t page) {
    if (slot.log.has_value()) slot.log->may_open.Insert(page);
  }
  static void Written(ModelSlot& slot, uint64_t page, uint64_t value) {
    slot.contents[page] = value;
    if (!slot.log.has_value()) return;
    // A page that is sealed and not cleared needs no second report, because it
    // is copied after the clear. After a seal, may_sealed is the set of sealed
    // pages.
    if (slot.log->may_sealed.Contains(page)) {
      slot.log->must_sealed.Insert(page);
    } else {
      slot.log->must_open.Insert(page);
    }
    slot.log->may_open.Insert(page);
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
    ForEachSlot([](uint32_t, ModelSlot& slot) { slot.log.reset(); });
  }
  void Seal() {
    ++log_->epoch;
    ForEachSlot([](uint32_t, ModelSlot& slot) {
      if (!slot.log.has_value()) return;
      ModelLog& log = *slot.log;
      log.must_sealed.Merge(log.must_open);
      log.must_open.Clear();
      log.may_sealed.Merge(log.may_open);
      log.may_open.Clear();
    });
  }
  // `pages` were reported as cleared in `epoch`.
  static void Cleared(ModelLog& log, const std::vector<uint64_t>& pages,
                      uint64_t epoch) {
    for (const uint64_t page : pages) {
      log.must_sealed.Erase(page);
      log.may_sealed.Erase(page);
      log.in_flight[page] = epoch;
      log.uncopied.Insert(page);
    }
  }
  // Delivers all pages cleared up to `epoch`. Returns the number of pages that
  // were in flight.
  uint64_t Acknowledge(uint64_t epoch) {
    uint64_t delivered = 0;
    ForEachSlot([&](uint32_t, ModelSlot& slot) {
      if (!slot.log.has_value()) return;
      for (uint64_t& cleared : slot.log->in_flight) {
        if (cleared == 0 || cleared > epoch) continue;
        cleared = 0;
        ++delivered;
      }
    });
    return delivered;
  }
  // Delivers `page` of one slot if it was cleared up to `epoch`. Returns
  // whether it was.
  static bool AcknowledgePage(ModelLog& log, uint64_t page, uint64_t epoch) {
    if (log.in_flight[page] == 0 || log.in_flight[page] > epoch) return false;
    log.in_flight[page] = 0;
    return true;
  }
  // Whether the owner has copied all pages that it would acknowledge.
  bool MayAcknowledge(uint64_t epoch) const {
    bool may = true;
    ForEachSlot([&](uint32_t, const ModelSlot& slot) {
      if (!slot.log.has_value()) return;
      slot.log->uncopied.ForEach([&](uint64_t page) {
        const uint64_t cleared = slot.log->in_flight[page];
        if (cleared != 0 && cleared <= epoch) may = false;
      });
    });
    return may;
  }
  // The pages in flight are sealed again, and their owner forgets them.
  static void Return(ModelLog& log) {
    for (uint64_t page = 0; page < log.in_flight.size(); ++page) {
      if (log.in_flight[page] == 0) continue;
      log.must_sealed.Insert(page);
      log.may_sealed.Insert(page);
      // As in Written: no second report of what was written since its clear.
      log.must_open.Erase(page);
      log.in_flight[page] = 0;
    }
    log.uncopied.Clear();
  }
  // Number of epochs with pages in flight, not counting `epoch`.
  size_t OtherEpochsInFlight(uint64_t epoch) const {
    std::set<uint64_t> epochs;
    ForEachSlot([&](uint32_t, const ModelSlot& slot) {
      if (!slot.log.has_value()) return;
      uint64_t last = 0;
      for (const uint64_t cleared : slot.log->in_flight) {
        if (cleared != last && cleared != 0) epochs.insert(cleared);
        last = cleared;
      }
    });
    epochs.erase(epoch);
    return epochs.size();
  }

 private:
  void Log(ModelSlot& slot, bool all_dirty) {
    // Contents written before the log are copied beforehand.
    slot.copy = slot.contents;
    slot.log.emplace(slot.pages);
    slot.log->first_epoch = log_->epoch;
    if (!all_dirty) return;
    slot.log->must_open.InsertAll();
    slot.log->may_open.InsertAll();
  }

  std::array<std::optional<ModelSlot>, kSlots> slots_;
  std::optional<ModelVmLog> log_;
  uint64_t next_epoch_ = 1;  // first epoch of the next log
};

}  // namespace mmu::testing

#endif  // TESTS_MODEL_REFERENCE_MODEL_H_
