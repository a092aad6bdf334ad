// A guest that writes, owners that die at any step and are taken over from, and
// a destination: at random, with the contents of pages as the judge.
//
// The guest writes through a W bit for each page, as with a real MMU: a write
// to a protected page makes it writable and marks it. After every step each
// page must be in a set of the log, or be at the destination as the guest has
// it, or as it was when a copy of it began that was acknowledged since
// (INV-10).

#include <bit>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/dirty/dirty_bitmap.h"
#include "mmu_core/dirty/dirty_log.h"
#include "mmu_core/dirty/dirty_log_state.h"
#include "mmu_core/dirty/dirty_log_types.h"
#include "mmu_core/dirty/log_owner.h"
#include "mmu_core/dirty/slot_log.h"

namespace mmu {
namespace {

constexpr uint64_t kPages = 150;
constexpr uint64_t kWords = (kPages + 63) / 64;
constexpr LogId kId = {.high = 7, .low = 7};

using Mask = std::vector<uint64_t>;

bool Has(const Mask& mask, uint64_t page) {
  return (mask[page / 64] >> page % 64 & 1) != 0;
}

// Each is a mistake that the judge must find.
enum class Mistake {
  kNone,
  kCopyBeforeClear,
  kAcknowledgeBeforeArrival,
  kNoProtection,
  kLateCopiesOfFormerOwners,
};

class World {
 public:
  World(uint32_t seed, Mistake mistake) : random_(seed), mistake_(mistake) {
    DirtyLog::Slots slots;
    slots.emplace(0, SlotLog::TryCreate(0, open_));
    log_ =
        std::make_unique<DirtyLog>(kId, 1, NewClaim(), std::move(slots), now_);
    owner_.key = keys_;
  }

  // What went wrong, or nothing.
  std::string Run(int steps) {
    for (int step = 0; step < steps; ++step) {
      OneStep();
      if (std::string lost = Lost(); !lost.empty()) return lost;
    }
    // The last owner finishes; the guest stands still.
    TakeOver();
    guest_stands_ = true;
    for (int round = 0; round < 100 && !log_->CountUndelivered().none();
         ++round) {
      Seal();
      Clear(/*some=*/false);
      Copy();
      Arrive();
      Acknowledge();
    }
    for (uint64_t page = 0; page < kPages; ++page) {
      if (memory_[page] != destination_[page]) {
        return "page " + std::to_string(page) + " differs at the end";
      }
    }
    if (!log_->CountUndelivered().none()) return "something is undelivered";
    return "";
  }

  int takeovers() const { return takeovers_; }
  int acknowledged() const { return acknowledged_; }

 private:
  // A copy of a page on its way to the destination.
  struct Sent {
    uint64_t page;
    uint64_t contents;
  };
  // What a client knows. Its death forgets all of it but what is on its way.
  struct Owner {
    uint8_t key = 0;
    uint64_t epoch = 0;           // the last that it sealed
    Mask cleared = Mask(kWords);  // and not copied yet
    std::vector<Sent> on_its_way;
  };

  uint32_t Below(uint32_t n) {
    return std::uniform_int_distribution<uint32_t>(0, n - 1)(random_);
  }
  LogClaim NewClaim() {
    ++keys_;
    return {.key = {.bytes = {keys_}}, .owner = std::to_string(keys_)};
  }
  LogCall Call() const { return {.key = {.bytes = {owner_.key}}, .now = now_}; }

  void OneStep() {
    now_ += absl::Milliseconds(10);
    switch (Below(20)) {
      case 0:
        return Seal();
      case 1:
      case 2:
        return Clear(Below(2) == 0);
      case 3:
      case 4:
        return Copy();
      case 5:
        return Arrive();
      case 6:
        return Acknowledge();
      case 7:
        if (Below(8) == 0) TakeOver();
        return;
      case 8:
        if (mistake_ == Mistake::kLateCopiesOfFormerOwners) ArriveLate();
        return FormerOwnerTries();
      case 9:
        if (Below(10) == 0) log_->Moved(0);
        return;
      default:
        return Write(Below(kPages));
    }
  }

  void Write(uint64_t page) {
    if (guest_stands_) return;
    if (!writable_[page]) {
      writable_[page] = true;
      open_->Mark(page);
    }
    ++memory_[page];
  }

  void Seal() {
    const uint64_t carried =
        NothingToArrive() && Below(2) == 0 ? owner_.epoch : 0;
    const absl::StatusOr<SealOutcome> seal = log_->Seal(Call(), carried);
    ASSERT_TRUE(seal.ok()) << seal.status();
    // A lost answer: the client seals again later.
    if (Below(8) != 0) owner_.epoch = seal->epoch;
  }

  void Clear(bool some) {
    if (owner_.epoch == 0) return;
    Mask mask(kWords);
    if (!log_->Read(kId, 0, owner_.epoch, 0, absl::MakeSpan(mask)).ok()) return;
    if (some) {
      for (uint64_t& word : mask) word &= uint64_t{random_()} << 32 | random_();
    }
    if (mistake_ == Mistake::kCopyBeforeClear) {
      CopyPages(mask);
      while (Below(3) != 0) Write(Below(kPages));
    }
    absl::StatusOr<DirtyLog::Flight> flight;
    do {  // until an answer comes
      flight = log_->TakeIntoFlight(Call(), 0, owner_.epoch, 0, mask);
      if (!flight.ok()) return;  // too many epochs in flight, or moved
      for (const BitmapWord& word : flight->moved) {
        if (mistake_ == Mistake::kNoProtection) continue;
        for (uint64_t bits = word.bits; bits != 0; bits &= bits - 1) {
          writable_[64 * word.index +
                    static_cast<uint64_t>(std::countr_zero(bits))] = false;
        }
      }
      // Pages that the guest writes before the answer is there, or its repeat.
      while (Below(3) == 0) Write(Below(kPages));
    } while (Below(4) == 0);
    if (mistake_ == Mistake::kCopyBeforeClear) return;
    for (uint64_t i = 0; i < kWords; ++i) owner_.cleared[i] |= mask[i];
  }

  void CopyPages(const Mask& mask) {
    for (uint64_t page = 0; page < kPages; ++page) {
      if (Has(mask, page)) owner_.on_its_way.push_back({page, memory_[page]});
    }
  }
  void Copy() {
    CopyPages(owner_.cleared);
    owner_.cleared.assign(kWords, 0);
  }

  void Arrive() {
    for (const Sent& sent : owner_.on_its_way) {
      destination_[sent.page] = sent.contents;
    }
    owner_.on_its_way.clear();
  }
  void ArriveLate() {
    for (const Sent& sent : late_) destination_[sent.page] = sent.contents;
    late_.clear();
  }

  bool NothingToArrive() const {
    return owner_.on_its_way.empty() && owner_.cleared == Mask(kWords);
  }
  void Acknowledge() {
    if (owner_.epoch == 0) return;
    if (!NothingToArrive() && mistake_ != Mistake::kAcknowledgeBeforeArrival) {
      return;
    }
    const absl::StatusOr<AcknowledgeResult> result =
        log_->Acknowledge(Call(), owner_.epoch);
    ASSERT_TRUE(result.ok()) << result.status();
    acknowledged_ += static_cast<int>(result->acknowledged_page_count);
  }

  // The owner dies; some of what it sent arrives, and the destination refuses
  // the rest once the next one has told it to.
  void TakeOver() {
    if (Below(2) == 0 && !owner_.on_its_way.empty()) {
      owner_.on_its_way.resize(
          Below(static_cast<uint32_t>(owner_.on_its_way.size())) + 1);
      late_ = owner_.on_its_way;
      if (mistake_ != Mistake::kLateCopiesOfFormerOwners) ArriveLate();
    }
    former_key_ = owner_.key;
    const LogClaim claim = NewClaim();
    const bool force = Below(2) == 0;
    if (!force) now_ += absl::Seconds(31);
    const auto acquired = log_->Acquire(
        claim, kId, force ? LogOwner::Force::kYes : LogOwner::Force::kNo, now_);
    ASSERT_TRUE(acquired.ok()) << acquired.status();
    owner_ = Owner();
    owner_.key = keys_;
    ++takeovers_;
  }

  void FormerOwnerTries() {
    if (former_key_ == 0) return;
    const LogCall call = {.key = {.bytes = {former_key_}}, .now = now_};
    const uint64_t epoch = log_->open_epoch() - 1;
    if (epoch == 0) return;
    ASSERT_FALSE(log_->Acknowledge(call, epoch).ok());
    ASSERT_FALSE(
        log_->TakeIntoFlight(call, 0, epoch, 0, Mask(kWords, ~uint64_t{0}))
            .ok());
    ASSERT_FALSE(log_->Seal(call, epoch).ok());
  }

  std::string Lost() const {
    for (uint64_t page = 0; page < kPages; ++page) {
      if (memory_[page] == destination_[page]) continue;
      if (log_->IsUndelivered(0, page)) continue;
      return "page " + std::to_string(page) + " is in no set, and differs";
    }
    return "";
  }

  std::mt19937 random_;
  const Mistake mistake_;
  MonotonicTime now_ = MonotonicTime::FromNanos(1'000'000'000);
  uint8_t keys_ = 0;
  uint8_t former_key_ = 0;
  bool guest_stands_ = false;
  int takeovers_ = 0;
  int acknowledged_ = 0;

  std::vector<uint64_t> memory_ = std::vector<uint64_t>(kPages);
  std::vector<bool> writable_ = std::vector<bool>(kPages);
  std::vector<uint64_t> destination_ = std::vector<uint64_t>(kPages);
  const std::shared_ptr<DirtyBitmap> open_ =
      std::make_shared<DirtyBitmap>(kPages, InitiallySet::kNo);
  std::unique_ptr<DirtyLog> log_;
  Owner owner_;
  std::vector<Sent> late_;
};

TEST(DirtyLogModelTest, OwnersThatDieAndTakeOverLoseNoWrite) {
  int takeovers = 0;
  int acknowledged = 0;
  for (uint32_t seed = 1; seed <= 200; ++seed) {
    World world(seed, Mistake::kNone);
    ASSERT_EQ(world.Run(1000), "") << "seed " << seed;
    takeovers += world.takeovers();
    acknowledged += world.acknowledged();
  }
  EXPECT_GT(takeovers, 500) << "the test is about them";
  EXPECT_GT(acknowledged, 10'000);
}

class MistakeTest : public ::testing::TestWithParam<Mistake> {};

// The judge is worth something: it finds each of these.
TEST_P(MistakeTest, IsFound) {
  for (uint32_t seed = 1; seed <= 50; ++seed) {
    if (!World(seed, GetParam()).Run(1000).empty()) return;
  }
  ADD_FAILURE() << "50 runs with the mistake lost nothing";
}

INSTANTIATE_TEST_SUITE_P(AllOfThem, MistakeTest,
                         ::testing::Values(Mistake::kCopyBeforeClear,
                                           Mistake::kAcknowledgeBeforeArrival,
                                           Mistake::kNoProtection,
                                           Mistake::kLateCopiesOfFormerOwners));

}  // namespace
}  // namespace mmu
