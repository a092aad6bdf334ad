// Random runs of a migration: a guest that writes, owners of the log that die
// at any step and are replaced, and a destination. The contents of the pages
// decide whether a write was lost.
//
// The guest writes through a W bit for each page, as with a real MMU: a write
// to a protected page makes the page writable and marks it dirty. After every
// step, each page must be in a set of the log or have the guest's contents at
// the destination (INV-10). The second of two slots leaves the log and joins it
// again.

#include <array>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "mmu_core/base/bits.h"
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
constexpr uint32_t kSlots = 2;
constexpr LogId kId = {.high = 7, .low = 7};

using Mask = std::vector<uint64_t>;

bool Has(const Mask& mask, uint64_t page) {
  return (mask[page / 64] >> page % 64 & 1) != 0;
}

// The mistakes of a client or an MMU that the model must detect.
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
    for (uint32_t slot = 0; slot < kSlots; ++slot) {
      slots.emplace(slot, NewLog(slot, InitiallySet::kNo));
    }
    log_ =
        std::make_unique<DirtyLog>(kId, 1, NewClaim(), std::move(slots), now_);
    owner_.key = keys_;
  }

  // Returns a description of the first error, or "" if there is none.
  std::string Run(int steps) {
    for (int step = 0; step < steps; ++step) {
      OneStep();
      if (std::string lost = Lost(); !lost.empty()) return lost;
    }
    // The last owner delivers all pages while the guest writes nothing.
    TakeOver();
    guest_stands_ = true;
    for (int round = 0; round < 100 && !log_->CountUndelivered().none();
         ++round) {
      Seal();
      for (uint32_t slot = 0; slot < kSlots; ++slot) {
        Clear(slot, /*some=*/false);
      }
      Copy();
      Arrive();
      Acknowledge();
    }
    for (uint32_t slot = 0; slot < kSlots; ++slot) {
      for (uint64_t page = 0; page < kPages; ++page) {
        if (slots_[slot].memory[page] == slots_[slot].destination[page]) {
          continue;
        }
        return NameOf(slot, page) + " differs at the end";
      }
    }
    if (!log_->CountUndelivered().none()) return "something is undelivered";
    return "";
  }

  int takeovers() const { return takeovers_; }
  int acknowledged() const { return acknowledged_; }
  int acknowledged_by_name() const { return acknowledged_by_name_; }
  int joins() const { return joins_; }

 private:
  struct Slot {
    std::vector<uint64_t> memory = std::vector<uint64_t>(kPages);
    std::vector<bool> writable = std::vector<bool>(kPages);
    std::vector<uint64_t> destination = std::vector<uint64_t>(kPages);
    std::shared_ptr<DirtyBitmap> open;  // null: the slot is not in the log
  };
  // A copy of a page on its way to the destination.
  struct Sent {
    uint32_t slot;
    uint64_t page;
    uint64_t contents;
  };
  using Masks = std::array<Mask, kSlots>;
  static Masks NoPages() {
    Masks none;
    none.fill(Mask(kWords));
    return none;
  }
  // A client and its knowledge. Only the copies on their way survive its death.
  struct Owner {
    uint8_t key = 0;
    uint64_t epoch = 0;         // the last epoch that it sealed
    Masks cleared = NoPages();  // not copied yet
    std::vector<Sent> on_its_way;
  };

  static std::string NameOf(uint32_t slot, uint64_t page) {
    return "page " + std::to_string(page) + " of slot " + std::to_string(slot);
  }
  std::shared_ptr<SlotLog> NewLog(uint32_t slot, InitiallySet open) {
    slots_[slot].open = std::make_shared<DirtyBitmap>(kPages, open);
    return SlotLog::TryCreate(slot, slots_[slot].open);
  }

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
    switch (Below(22)) {
      case 0:
        return Seal();
      case 1:
      case 2:
        return Clear(Below(kSlots), Below(2) == 0);
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
        if (Below(10) == 0) log_->Moved(Below(kSlots));
        return;
      case 10:
        return AcknowledgePages(Below(kSlots));
      case 11:
        if (Below(10) == 0) JoinOrLeave();
        return;
      default:
        return Write(Below(kSlots), Below(kPages));
    }
  }

  void Write(uint32_t id, uint64_t page) {
    Slot& slot = slots_[id];
    if (guest_stands_ || slot.open == nullptr) return;
    if (!slot.writable[page]) {
      slot.writable[page] = true;
      slot.open->Mark(page);
    }
    ++slot.memory[page];
  }

  // The second slot leaves the log, or joins it with all pages dirty. A slot
  // that leaves takes with it the owner's cleared pages and the copies on their
  // way.
  void JoinOrLeave() {
    const uint32_t id = 1;
    Slot& slot = slots_[id];
    if (slot.open != nullptr) {
      const UndeliveredCounts before = log_->CountUndelivered(id);
      ASSERT_EQ(log_->Leave(id), before);
      slot = Slot();
      owner_.cleared[id].assign(kWords, 0);
      std::erase_if(owner_.on_its_way,
                    [](const Sent& sent) { return sent.slot == id; });
      std::erase_if(late_, [](const Sent& sent) { return sent.slot == id; });
      return;
    }
    log_->Join(DirtyLog::JoiningSlot(NewLog(id, InitiallySet::kYes)));
    // The contents of the new slot differ from those at the destination.
    slot.memory.assign(kPages, 1);
    ++joins_;
  }

  void Seal() {
    const uint64_t carried =
        NothingToArrive() && Below(2) == 0 ? owner_.epoch : 0;
    const absl::StatusOr<SealOutcome> seal = log_->Seal(Call(), carried);
    ASSERT_TRUE(seal.ok()) << seal.status();
    // One answer in eight is lost; the client seals again later.
    if (Below(8) != 0) owner_.epoch = seal->epoch;
  }

  void Clear(uint32_t slot, bool some) {
    if (owner_.epoch == 0) return;
    Mask mask(kWords);
    if (!log_->Read(kId, slot, owner_.epoch, 0, absl::MakeSpan(mask)).ok())
      return;
    if (some) {
      for (uint64_t& word : mask) word &= uint64_t{random_()} << 32 | random_();
    }
    if (mistake_ == Mistake::kCopyBeforeClear) {
      CopyPages(slot, mask);
      while (Below(3) != 0) Write(slot, Below(kPages));
    }
    absl::StatusOr<DirtyLog::Flight> flight;
    do {  // until an answer arrives
      flight = log_->TakeIntoFlight(Call(), slot, owner_.epoch, 0, mask);
      if (!flight.ok()) return;  // too many epochs in flight, or moved
      for (const BitmapWord& word : flight->moved) {
        if (mistake_ == Mistake::kNoProtection) continue;
        for (const uint64_t bit : SetBitsOf(word.bits)) {
          slots_[slot].writable[64 * word.index + bit] = false;
        }
      }
      // The guest writes pages before the answer to this call arrives.
      while (Below(3) == 0) Write(slot, Below(kPages));
    } while (Below(4) == 0);
    if (mistake_ == Mistake::kCopyBeforeClear) return;
    for (uint64_t i = 0; i < kWords; ++i) owner_.cleared[slot][i] |= mask[i];
  }

  void CopyPages(uint32_t slot, const Mask& mask) {
    for (uint64_t page = 0; page < kPages; ++page) {
      if (!Has(mask, page)) continue;
      owner_.on_its_way.push_back({slot, page, slots_[slot].memory[page]});
    }
  }
  void Copy() {
    for (uint32_t slot = 0; slot < kSlots; ++slot) {
      CopyPages(slot, owner_.cleared[slot]);
    }
    owner_.cleared = NoPages();
  }

  void ArriveAll(std::vector<Sent>& all) {
    for (const Sent& sent : all) {
      slots_[sent.slot].destination[sent.page] = sent.contents;
    }
    all.clear();
  }
  void Arrive() { ArriveAll(owner_.on_its_way); }
  void ArriveLate() { ArriveAll(late_); }

  bool NothingToArrive() const {
    return owner_.on_its_way.empty() && owner_.cleared == NoPages();
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

  // Acknowledges some of the pages whose copies have arrived. Other pages may
  // still be on their way, or not be copied yet.
  void AcknowledgePages(uint32_t slot) {
    if (owner_.epoch == 0 || slots_[slot].open == nullptr) return;
    Mask mask(kWords);
    for (uint64_t& word : mask) word = uint64_t{random_()} << 32 | random_();
    if (mistake_ != Mistake::kAcknowledgeBeforeArrival) {
      for (uint64_t i = 0; i < kWords; ++i) {
        mask[i] &= ~owner_.cleared[slot][i];
      }
      for (const Sent& sent : owner_.on_its_way) {
        if (sent.slot != slot) continue;
        mask[sent.page / 64] &= ~(uint64_t{1} << sent.page % 64);
      }
    }
    // Sometimes acknowledges only pages that were cleared before the last seal.
    const uint64_t epoch = owner_.epoch - (owner_.epoch > 1 ? Below(2) : 0);
    const absl::StatusOr<AcknowledgeResult> result =
        log_->AcknowledgePages(Call(), epoch, slot, 0, mask);
    ASSERT_TRUE(result.ok()) << result.status();
    acknowledged_by_name_ += static_cast<int>(result->acknowledged_page_count);
  }

  // The owner dies. Some of its copies arrive. The destination refuses the rest
  // once the next owner has told it to.
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
    for (uint32_t slot = 0; slot < kSlots; ++slot) {
      if (slots_[slot].open == nullptr) continue;
      for (uint64_t page = 0; page < kPages; ++page) {
        if (slots_[slot].memory[page] == slots_[slot].destination[page] ||
            log_->IsUndelivered(slot, page)) {
          continue;
        }
        return NameOf(slot, page) + " is in no set, and differs";
      }
    }
    std::string wrong;
    const auto note = [&](const std::string& fault) { wrong = fault; };
    log_->AuditSets(note);
    log_->AuditEpochs(note);
    return wrong;
  }

  std::mt19937 random_;
  const Mistake mistake_;
  MonotonicTime now_ = MonotonicTime::FromNanos(1'000'000'000);
  uint8_t keys_ = 0;
  uint8_t former_key_ = 0;
  bool guest_stands_ = false;
  int takeovers_ = 0;
  int acknowledged_ = 0;
  int acknowledged_by_name_ = 0;
  int joins_ = 0;

  std::array<Slot, kSlots> slots_;
  std::unique_ptr<DirtyLog> log_;
  Owner owner_;
  std::vector<Sent> late_;
};

TEST(DirtyLogModelTest, OwnersThatDieAndTakeOverLoseNoWrite) {
  int takeovers = 0;
  int acknowledged = 0;
  int by_name = 0;
  int joins = 0;
  for (uint32_t seed = 1; seed <= 200; ++seed) {
    World world(seed, Mistake::kNone);
    ASSERT_EQ(world.Run(1000), "") << "seed " << seed;
    takeovers += world.takeovers();
    acknowledged += world.acknowledged();
    by_name += world.acknowledged_by_name();
    joins += world.joins();
  }
  EXPECT_GT(takeovers, 500) << "the test is about them";
  EXPECT_GT(acknowledged, 5'000);
  EXPECT_GT(by_name, 5'000);
  EXPECT_GT(joins, 200);
}

class MistakeTest : public ::testing::TestWithParam<Mistake> {};

// The model can find lost writes: it finds those of each mistake.
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
