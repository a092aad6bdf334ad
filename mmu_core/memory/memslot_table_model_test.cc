// Runs random requests on MemslotTable and on a list of slots that implements
// the rules without sets, swaps or indexes.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <ostream>
#include <random>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/memory/region_request.h"
#include "mmu_core/memory/region_test_util.h"
#include "mmu_core/sync/rcu.h"

namespace mmu {
namespace {

constexpr int kSpaces = 2;
constexpr uint32_t kIds = 12;
constexpr uint64_t kGfns = 600;  // small enough that requests collide

struct ModelSlot {
  int as_id;
  uint32_t id;
  uint64_t gfn;
  uint64_t npages;
  uint64_t hva;
  uint32_t flags;

  friend bool operator==(const ModelSlot&, const ModelSlot&) = default;
  friend std::ostream& operator<<(std::ostream& os, const ModelSlot& s) {
    return os << "{as " << s.as_id << " id " << s.id << " gfn " << s.gfn << "+"
              << s.npages << " hva " << std::hex << s.hva << std::dec
              << " flags " << s.flags << "}";
  }
};

struct Model {
  std::vector<ModelSlot> slots;
  uint64_t generation[kSpaces] = {0, 1};

  // The reason of the error, if it is one.
  Reason Set(const RegionRequest& r) {
    if (r.as_id() >= kSpaces) return Reason::kInvalidSlot;
    auto old = std::find_if(slots.begin(), slots.end(), [&](const auto& s) {
      return s.as_id == r.as_id() && s.id == r.id();
    });
    const uint64_t gfn = r.base_gfn().value();
    if (r.size_bytes == 0) {
      if (old == slots.end()) return Reason::kMemslotNotFound;
      slots.erase(old);
      generation[r.as_id()] += 4;
      return Reason::kNone;
    }
    if (old != slots.end()) {
      if (old->hva != r.userspace_addr.value() || old->npages != r.npages() ||
          ((old->flags ^ r.flags) & kMemslotReadonly) != 0) {
        return Reason::kMemslotImmutable;
      }
      if (old->gfn == gfn) {
        if (old->flags == r.flags) return Reason::kNone;
        old->flags = r.flags;
        generation[r.as_id()] += 2;
        return Reason::kNone;
      }
    }
    for (const ModelSlot& s : slots) {
      if (s.as_id != r.as_id() || s.id == r.id()) continue;
      if (gfn < s.gfn + s.npages && s.gfn < gfn + r.npages()) {
        return Reason::kRegionOverlap;
      }
    }
    if (gfn + r.npages() - 1 > kTestMaxGfn) return Reason::kGpaOutOfRange;
    if (old != slots.end()) {
      old->gfn = gfn;
      old->flags = r.flags;
      generation[r.as_id()] += 4;
    } else {
      slots.push_back({r.as_id(), r.id(), gfn, r.npages(),
                       r.userspace_addr.value(), r.flags});
      generation[r.as_id()] += 2;
    }
    return Reason::kNone;
  }
};

ModelSlot Describe(const Memslot& slot) {
  return {slot.as_id,  slot.id,          slot.base_gfn.value(),
          slot.npages, slot.hva.value(), slot.flags};
}

class Requests {
 public:
  explicit Requests(uint32_t seed) : random_(seed) {}

  RegionRequest Next(const Model& model) {
    const uint32_t slot =
        Below(kIds) | (Below(20) == 0 ? 2u << 16 : Below(kSpaces) << 16);
    RegionRequest request = Region(slot, Below(kGfns), 1 + Below(60), Below(4));
    if (Below(50) == 0) request.gpa = ToGpa(Gfn(kTestMaxGfn - Below(60)));
    // Half of the time, vary a slot that exists.
    if (!model.slots.empty() && Below(2) == 0) {
      const ModelSlot& old =
          model.slots[Below(static_cast<uint32_t>(model.slots.size()))];
      request.slot = old.id | static_cast<uint32_t>(old.as_id) << 16;
      request.size_bytes = old.npages << kPageShift;
      request.userspace_addr = Hva(old.hva);
      if (Below(3) == 0) request.gpa = ToGpa(Gfn(old.gfn));
      request.flags = (old.flags & kMemslotReadonly) | Below(2);
      if (Below(8) == 0) request.flags ^= kMemslotReadonly;
      if (Below(8) == 0) request.userspace_addr += kPageSize;
    }
    if (Below(4) == 0) request.size_bytes = 0;
    return request;
  }

 private:
  uint32_t Below(uint32_t n) {
    return std::uniform_int_distribution<uint32_t>(0, n - 1)(random_);
  }

  std::mt19937 random_;
};

void Compare(const TestTable& t, const Model& model) {
  uint64_t pages = 0;
  int logging = 0;
  for (int as_id = 0; as_id < kSpaces; ++as_id) {
    RcuReadGuard reader;
    const MemslotSet& set = t.table.Active(as_id);
    std::vector<ModelSlot> expected;
    for (const ModelSlot& s : model.slots) {
      if (s.as_id == as_id) expected.push_back(s);
    }
    std::sort(expected.begin(), expected.end(),
              [](const auto& a, const auto& b) { return a.gfn < b.gfn; });
    std::vector<ModelSlot> actual;
    for (const Memslot* slot : set.slots()) {
      actual.push_back(Describe(*slot));
      EXPECT_EQ(slot->dirty_bitmap != nullptr, slot->dirty_log_enabled());
      EXPECT_EQ(set.FindById(slot->id), slot);
    }
    ASSERT_EQ(actual, expected);
    ASSERT_EQ(set.generation(), model.generation[as_id]);

    for (uint64_t gfn = 0; gfn < kGfns + 64; ++gfn) {
      auto it = std::find_if(expected.begin(), expected.end(),
                             [&](const ModelSlot& s) {
                               return s.gfn <= gfn && gfn < s.gfn + s.npages;
                             });
      const Memslot* slot = set.FindByGfn(Gfn(gfn));
      ASSERT_EQ(slot != nullptr, it != expected.end()) << gfn;
      if (slot != nullptr) {
        ASSERT_EQ(slot->HvaOf(Gfn(gfn)).value(),
                  it->hva + ((gfn - it->gfn) << kPageShift));
      }
    }
    for (const ModelSlot& s : expected) {
      pages += s.npages;
      logging += (s.flags & kMemslotLogDirtyPages) != 0 ? 1 : 0;
    }
  }
  ASSERT_EQ(t.table.total_pages(), pages);
  ASSERT_EQ(t.table.logging_slots(), logging);
}

class MemslotTableModelTest : public testing::TestWithParam<uint32_t> {};

// Covers: SLOT-10, SLOT-11, SLOT-12, SLOT-25, SLOT-26, SLOT-29, TRM-02
TEST_P(MemslotTableModelTest, TableAgreesWithAListOfSlots) {
  TestTable t;
  Model model;
  Requests requests(GetParam());
  int accepted = 0;
  for (int step = 0; step < 1500; ++step) {
    SCOPED_TRACE(testing::Message() << "step " << step);
    const RegionRequest request = requests.Next(model);
    const Reason expected = model.Set(request);
    const absl::Status status = t.Set(request);
    ASSERT_EQ(DetailOf(status).reason, expected) << status;
    ASSERT_EQ(status.ok(), expected == Reason::kNone);
    if (expected == Reason::kNone) ++accepted;
    Compare(t, model);
    if (HasFatalFailure()) return;
  }
  EXPECT_GT(accepted, 300);
}

INSTANTIATE_TEST_SUITE_P(Seeds, MemslotTableModelTest,
                         testing::Values(1u, 2u, 3u, 20u));

}  // namespace
}  // namespace mmu
