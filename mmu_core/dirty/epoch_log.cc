#include "mmu_core/dirty/epoch_log.h"

#include <algorithm>
#include <bit>
#include <memory>
#include <utility>

#include "mmu_core/base/error.h"
#include "mmu_core/base/format.h"
#include "mmu_core/base/hooks.h"

namespace mmu {

std::shared_ptr<EpochLog> EpochLog::TryCreate(uint32_t slot,
                                              std::shared_ptr<DirtyBitmap> open,
                                              const SlotLogConfig& config) {
  if (open == nullptr) return nullptr;
  std::shared_ptr<DirtyBitmap> sealed =
      DirtyBitmap::TryCreate(open->npages(), InitiallySet::kNo);
  if (sealed == nullptr) return nullptr;
  return std::make_shared<EpochLog>(slot, std::move(open), std::move(sealed),
                                    config);
}

EpochLog::EpochLog(uint32_t slot, std::shared_ptr<DirtyBitmap> open,
                   std::shared_ptr<DirtyBitmap> sealed,
                   const SlotLogConfig& config)
    : slot_(slot),
      config_(config),
      open_(std::move(open)),
      sealed_(std::move(sealed)) {
  MutexLock lock(mu_);
  Tell();
}

void EpochLog::NumberFrom(uint64_t epoch) {
  MutexLock lock(mu_);
  first_epoch_ = epoch;
  open_epoch_ = epoch;
  Tell();
}

SealResult EpochLog::Seal(MonotonicTime now) {
  MutexLock lock(mu_);
  SealResult result;
  result.merged_page_count = unacked_;
  uint64_t fresh = 0;
  open_->TakeAll(0, open_->word_count(), [&](uint64_t i, uint64_t taken) {
    // Between the two bitmaps the pages are in neither; whoever looks at both
    // holds mu_.
    mu_.AssertHeld();
    AtHook(HookPoint::kTakeToSealed);
    fresh += std::popcount(taken & ~sealed_->Word(i));
    sealed_->MarkWord(i, taken);
  });
  unacked_ += fresh;
  result.epoch = open_epoch_++;
  result.dirty_page_count = unacked_;
  if (unacked_ != 0 && oldest_unacked_ == MonotonicTime::InfiniteFuture()) {
    oldest_unacked_ = now;
  }
  Tell();
  return result;
}

absl::Status EpochLog::Read(uint64_t epoch, uint64_t first_page,
                            absl::Span<uint64_t> words) const {
  const uint64_t word_count = open_->word_count();
  if (first_page % 64 != 0 || first_page / 64 > word_count ||
      words.size() > word_count - first_page / 64) {
    return MakeError(
        absl::StatusCode::kOutOfRange, {"INVALID_RANGE", "range", 0},
        Format("pages %d to %d: slot %d has %d pages, and a range "
               "begins at a multiple of 64; ask within the slot",
               first_page, first_page + 64 * words.size(), slot_, npages()));
  }
  MutexLock lock(mu_);
  if (epoch != 0 && epoch != SealedEpoch()) {
    if (epoch >= open_epoch_ || SealedEpoch() == 0) {
      return MakeError(
          absl::StatusCode::kNotFound, {"EPOCH_UNKNOWN", "epoch", 0},
          Format("epoch %d of slot %d was never sealed: the open one "
                 "is %d; seal first",
                 epoch, slot_, open_epoch_));
    }
    return MakeError(
        absl::StatusCode::kAborted, {"EPOCH_SUPERSEDED", "epoch", 0},
        Format("epoch %d of slot %d was sealed again and is part of "
               "epoch %d now; read that one",
               epoch, slot_, open_epoch_ - 1));
  }
  std::fill(words.begin(), words.end(), 0);
  sealed_->OrInto(first_page / 64, words);
  if (epoch == 0) open_->OrInto(first_page / 64, words);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<BitmapWord>> EpochLog::Acknowledge(
    uint64_t epoch, uint64_t first_page, absl::Span<const uint64_t> mask) {
  std::vector<BitmapWord> taken;
  MutexLock lock(mu_);
  if (SealedEpoch() == 0) {
    return MakeError(
        absl::StatusCode::kAborted, {"EPOCH_MISMATCH", "epoch", 0},
        Format("epoch %d of slot %d cannot be cleared: none was sealed "
               "since its log was started; seal first",
               epoch, slot_));
  }
  if (epoch != SealedEpoch()) {
    return MakeError(
        absl::StatusCode::kAborted, {"EPOCH_MISMATCH", "epoch", 0},
        Format("epoch %d of slot %d cannot be cleared: the last "
               "sealed epoch is %d; read that one and clear what it "
               "lists",
               epoch, slot_, SealedEpoch()));
  }
  for (size_t i = 0; i < mask.size(); ++i) {
    if (mask[i] == 0) continue;
    const uint64_t index = first_page / 64 + i;
    const uint64_t bits = sealed_->ClearBits(index, mask[i]);
    if (bits == 0) continue;
    unacked_ -= std::popcount(bits);
    taken.push_back({index, bits});
  }
  if (unacked_ == 0) oldest_unacked_ = MonotonicTime::InfiniteFuture();
  Tell();
  return taken;
}

void EpochLog::Tell() {
  DirtyLogInfo info;
  info.slot = slot_;
  info.open_epoch = open_epoch_;
  info.sealed_epoch = SealedEpoch();
  info.unacked_page_count = unacked_;
  info.sealed_at = oldest_unacked_;
  info.config = config_;
  MutexLock lock(told_mu_);
  told_ = info;
}

DirtyLogInfo EpochLog::Info() const {
  MutexLock lock(told_mu_);
  return told_;
}

uint64_t EpochLog::open_epoch() const {
  MutexLock lock(mu_);
  return open_epoch_;
}

uint64_t EpochLog::unacked_page_count() const {
  MutexLock lock(mu_);
  return unacked_;
}

uint64_t EpochLog::dirty_page_count() const {
  MutexLock lock(mu_);
  uint64_t count = unacked_;
  open_->ForEachNonZeroWord(0, open_->word_count(),
                            [&](uint64_t i, uint64_t value) {
                              mu_.AssertHeld();
                              count += std::popcount(value & ~sealed_->Word(i));
                            });
  return count;
}

}  // namespace mmu
