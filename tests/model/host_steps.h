// The operations of a VM's host, and the guest's accesses by guest-physical
// address, each compared with the model: memslots, the dirty log and its
// owners, splits, recovery, aging, the host's own changes.

#ifndef TESTS_MODEL_HOST_STEPS_H_
#define TESTS_MODEL_HOST_STEPS_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/level.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/dirty/dirty_log_calls.h"
#include "mmu_core/dirty/dirty_log_state.h"
#include "mmu_core/dirty/dirty_log_types.h"
#include "mmu_core/dirty/log_owner.h"
#include "mmu_core/vm/core/nx_parameters.h"
#include "mmu_core/vm/vm.h"
#include "tests/model/guest_port.h"
#include "tests/model/model_config.h"
#include "tests/model/model_memory.h"
#include "tests/model/operation.h"
#include "tests/model/page_set.h"
#include "tests/model/reference_model.h"

namespace mmu::testing {

// A mistake of the owner of the log, for tests that show that it is noticed.
enum class OwnerMistake : uint8_t { kNone, kAcknowledgesBeforeItCopies };

// Thread-compatible.
class HostSteps {
 public:
  // `nx` are the parameters that `vm` follows.
  HostSteps(Vm& vm, const ModelConfig& config, NxParameters& nx,
            GuestPort& port, ReferenceModel& model, ModelMemory& memory,
            OwnerMistake mistake);

  // Makes the slot with the tables of a guest that has some.
  void MakeGuestSlot();
  // Performs one operation that is not one of the guest's tables. problem() is
  // "", or the difference from the model.
  void Step(const Operation& op);
  const std::string& problem() const { return problem_; }
  // Compares all tables and counts, the auditor's findings, and the copy of the
  // log's owners with the guest's memory.
  void CheckAll();

 private:
  struct Shape {
    uint64_t pages;
    uint64_t offset;  // from the place, in pages
    Level host_level;
    bool readonly;
  };

  template <typename... Args>
  void Differs(const absl::FormatSpec<Args...>& format, const Args&... args) {
    if (problem_.empty()) problem_ = absl::StrFormat(format, args...);
  }
  void Expect(const absl::Status& status, Reason reason);

  // --- Accesses. ---
  uint64_t PageOf(uint32_t a) const;
  void Access(uint64_t page, AccessKind kind, uint32_t vcpu);
  void HostWrite(uint64_t page);
  void HostUnmap(uint64_t page, uint64_t pages);

  // --- Memslots. ---
  bool Overlaps(uint32_t id, uint64_t base, uint64_t pages) const;
  MemslotConfig ConfigOf(uint32_t id, const ModelSlot& slot) const;
  void MakeSlot(uint32_t id, uint64_t base, const Shape& shape);
  void Create(uint32_t id, uint64_t place, uint32_t shape);
  void Delete(uint32_t id);
  void Move(uint32_t id, uint64_t place, uint32_t c);

  // --- The dirty log. ---
  void Start(uint32_t id, uint32_t mode);
  void Stop(bool recover, bool discard);
  bool SomethingIsDirty();
  ModelLog* LogOf(uint32_t id);
  PageSet Listed(uint32_t id, uint64_t epoch);
  // The newest epoch that was sealed in this log; 0 if there is none.
  uint64_t SealedEpoch() const;
  // The epoch that is `before` epochs older than that; 0 if there is none.
  uint64_t EpochBefore(uint32_t before) const;
  void Seal(bool acknowledges);
  void CheckSealed(uint32_t id, const SlotSeal& seal, ModelLog& log);
  void CheckBounds(const PageSet& got, const PageSet& must, const PageSet& may);
  void Peek(uint32_t id);
  void Clear(uint32_t id, uint32_t first, uint32_t selector);
  // Copies all pages that the owner has cleared to the destination.
  void Copy(uint32_t id);
  void CopyPoolPage(ModelSlot& slot, uint64_t page);
  void Acknowledge(uint32_t before);
  // Acknowledges all copied pages, or every second, every third, ... of them.
  // Some of these were cleared in a later epoch or not at all, which the log
  // must detect.
  void AcknowledgePages(uint32_t before, uint32_t id, uint32_t selector);
  // The next owner has another key and does not know which pages the dead owner
  // copied.
  void TakeOver(bool by_force);
  LogClaim Claim() const;
  LogCall Call() const { return {.key = Claim().key, .now = now_}; }

  // --- The tables. ---
  void Split(uint64_t page, uint32_t b, uint32_t c);
  void Recover(uint32_t id);
  void Age(uint32_t a, bool clear);
  void SetNxHuge(bool on);

  // --- Checks. ---
  // Verifies that each page whose copy differs from the guest's page is in the
  // log.
  void CheckCopies();
  void CheckProtected(uint64_t page);
  // Verifies that every leaf maps the page of its slot and is not larger than
  // allowed, and that the page counts are right. The auditor verifies this and
  // more by other means.
  void CheckTables();

  Vm& vm_;
  const ModelConfig config_;
  NxParameters& nx_;
  GuestPort& port_;
  ReferenceModel& model_;
  ModelMemory& memory_;
  const OwnerMistake mistake_;
  const uint64_t granule_;  // PagesPerGranule
  const uint64_t scale_;    // ScaleOf
  uint32_t owner_ = 1;
  MonotonicTime now_ = MonotonicTime::Now();
  std::string problem_;
};

}  // namespace mmu::testing

#endif  // TESTS_MODEL_HOST_STEPS_H_
