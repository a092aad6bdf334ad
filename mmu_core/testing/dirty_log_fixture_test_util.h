// A dirty log without a VM, for tests: its slots, its owner and its time.

#ifndef MMU_CORE_TESTING_DIRTY_LOG_FIXTURE_TEST_UTIL_H_
#define MMU_CORE_TESTING_DIRTY_LOG_FIXTURE_TEST_UTIL_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/optional.h"
#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "mmu_core/base/bits.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/dirty/dirty_bitmap.h"
#include "mmu_core/dirty/dirty_log.h"
#include "mmu_core/dirty/dirty_log_state.h"
#include "mmu_core/dirty/dirty_log_types.h"
#include "mmu_core/dirty/log_owner.h"
#include "mmu_core/dirty/slot_log.h"

namespace mmu::testing {

using Pages = std::vector<uint64_t>;
using Force = LogOwner::Force;

inline constexpr LogId kId = {.high = 0xab, .low = 0xcd};
inline constexpr LogId kOtherId = {.high = 1, .low = 2};
inline constexpr uint64_t kSlotPages = 200;
inline constexpr UndeliveredCounts kNothing;

inline MonotonicTime At(int64_t seconds) {
  return MonotonicTime::FromNanos(seconds * 1'000'000'000);
}

inline OwnerKey Key(uint32_t n) {
  return {.bytes = {static_cast<uint8_t>(n), static_cast<uint8_t>(n >> 8)}};
}

inline LogClaim Claim(uint32_t n, std::string owner) {
  return {.key = Key(n), .owner = std::move(owner)};
}

inline Reason ReasonOf(const absl::Status& status) {
  return DetailOf(status).reason;
}

// A log of the slots 0 and 3. Its owner is alice, with key 1.
class DirtyLogFixture : public ::testing::Test {
 protected:
  std::shared_ptr<SlotLog> NewSlot(uint32_t slot,
                                   InitiallySet set = InitiallySet::kNo) {
    open_[slot] = std::make_shared<DirtyBitmap>(kSlotPages, set);
    return SlotLog::TryCreate(slot, open_[slot]);
  }
  DirtyLog::Slots NewSlots() {
    DirtyLog::Slots slots;
    for (const uint32_t slot : {0, 3}) slots.emplace(slot, NewSlot(slot));
    return slots;
  }

  // A call with key `n`.
  LogCall By(uint32_t n) const { return {.key = Key(n), .now = now_}; }

  static std::vector<uint64_t> Mask(const Pages& pages) {
    std::vector<uint64_t> mask(WordsFor(kSlotPages));
    for (const uint64_t page : pages) mask[page / 64] |= BitOf(page);
    return mask;
  }

  void Mark(uint32_t slot, const Pages& pages) {
    for (const uint64_t page : pages) open_.at(slot)->Mark(page);
  }
  SealOutcome Seal(uint64_t acknowledged = 0, uint32_t by = 1) {
    const absl::StatusOr<SealOutcome> outcome = log_.Seal(By(by), acknowledged);
    EXPECT_TRUE(outcome.ok()) << outcome.status();
    return outcome.value_or(SealOutcome());
  }
  absl::StatusOr<DirtyLog::Flight> Clear(uint32_t slot, uint64_t epoch,
                                         const Pages& pages, uint32_t by = 1) {
    return log_.TakeIntoFlight(By(by), slot, epoch, 0, Mask(pages));
  }
  absl::StatusOr<AcknowledgeResult> Acknowledge(uint64_t epoch,
                                                uint32_t by = 1) {
    return log_.Acknowledge(By(by), epoch);
  }
  absl::StatusOr<AcknowledgeResult> AcknowledgePages(uint64_t epoch,
                                                     uint32_t slot,
                                                     const Pages& pages) {
    return log_.AcknowledgePages(By(1), epoch, slot, 0, Mask(pages));
  }
  absl::Status TryRead(uint32_t slot, uint64_t epoch) {
    std::vector<uint64_t> words(WordsFor(kSlotPages));
    return log_.Read(absl::nullopt, slot, epoch, 0, absl::MakeSpan(words));
  }
  Pages Read(uint32_t slot, uint64_t epoch) {
    std::vector<uint64_t> words(WordsFor(kSlotPages), ~uint64_t{0});
    const absl::Status status =
        log_.Read(kId, slot, epoch, 0, absl::MakeSpan(words));
    EXPECT_TRUE(status.ok()) << status;
    return PagesOf(words);
  }
  Pages ReadInFlight(uint32_t slot, uint64_t epoch) {
    std::vector<uint64_t> words(WordsFor(kSlotPages), ~uint64_t{0});
    const absl::Status status =
        log_.ReadInFlight(kId, slot, epoch, 0, absl::MakeSpan(words));
    EXPECT_TRUE(status.ok()) << status;
    return PagesOf(words);
  }
  static Pages PagesOf(const std::vector<uint64_t>& words) {
    Pages pages;
    for (uint64_t i = 0; i < words.size(); ++i) {
      for (const uint64_t bit : SetBitsOf(words[i])) {
        pages.push_back(64 * i + bit);
      }
    }
    return pages;
  }
  absl::Status Acquire(uint32_t n, std::string owner, Force force) {
    return log_.Acquire(Claim(n, std::move(owner)), kId, force, now_).status();
  }

  MonotonicTime now_ = At(100);
  std::map<uint32_t, std::shared_ptr<DirtyBitmap>> open_;
  DirtyLog log_{kId, /*first_epoch=*/5, Claim(1, "alice"), NewSlots(), now_};
};

}  // namespace mmu::testing

#endif  // MMU_CORE_TESTING_DIRTY_LOG_FIXTURE_TEST_UTIL_H_
