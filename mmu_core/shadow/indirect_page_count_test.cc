#include "mmu_core/shadow/indirect_page_count.h"

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

// Atomics that do nothing but record the operations on them, as steps of the
// thread that is being recorded.
namespace recorded {

using std::memory_order;
using std::memory_order_acq_rel;
using std::memory_order_acquire;
using std::memory_order_relaxed;
using std::memory_order_release;
using std::memory_order_seq_cst;

struct Step {
  enum class Kind : uint8_t { kAdd, kLoad, kFullBarrier } kind = Kind::kAdd;
  const void* place = nullptr;
  uint64_t value = 0;  // that is added
};

std::vector<Step> steps;

// All loads find 0.
template <typename T>
class atomic {  // NOLINT(readability-identifier-naming): as std::atomic
 public:
  explicit atomic(T) {}
  T load(memory_order) const {
    steps.push_back({Step::Kind::kLoad, this});
    return 0;
  }
  void fetch_add(T value, memory_order) {
    steps.push_back({Step::Kind::kAdd, this, value});
  }
  void fetch_sub(T value, memory_order order) { fetch_add(0 - value, order); }
};

inline void atomic_thread_fence(memory_order order) {
  if (order == memory_order_seq_cst) {
    steps.push_back({Step::Kind::kFullBarrier});
  }
}

}  // namespace recorded

// The class under test once more, as mmu_recorded::IndirectPageCount, on these
// atomics.
#undef MMU_CORE_SHADOW_INDIRECT_PAGE_COUNT_H_
#define std recorded
#define mmu mmu_recorded
#include "mmu_core/shadow/indirect_page_count.h"
#undef mmu
#undef std

namespace mmu {
namespace {

using ::recorded::Step;
using Steps = std::vector<Step>;

Steps Record(const std::function<void()>& thread) {
  recorded::steps.clear();
  thread();
  return recorded::steps;
}

Steps WithoutBarriers(Steps steps) {
  std::erase_if(steps, [](const Step& step) {
    return step.kind == Step::Kind::kFullBarrier;
  });
  return steps;
}

// Two threads whose additions become visible later than they are made: a full
// barrier waits until those of its thread are. This is weaker than x86, where
// an addition is a barrier too.
class StoreBuffers {
 public:
  StoreBuffers(Steps one, Steps other)
      : threads_{Thread{std::move(one)}, Thread{std::move(other)}} {}

  // Whether there is an interleaving in which the last load of each thread
  // finds 0.
  bool BothMayMiss() const {
    bool ended = true;
    for (size_t i = 0; i < 2; ++i) {
      const Thread& thread = threads_[i];
      if (thread.visible < thread.next && After(i, &Thread::visible)) {
        return true;
      }
      if (thread.next == thread.steps.size()) continue;
      ended = false;
      if (thread.steps[thread.next].kind == Step::Kind::kFullBarrier &&
          thread.visible < thread.next) {
        continue;
      }
      if (After(i, &Thread::next)) return true;
    }
    return ended && threads_[0].found == 0 && threads_[1].found == 0;
  }

 private:
  struct Thread {
    Steps steps;
    size_t next = 0;     // to be made
    size_t visible = 0;  // the additions before it are visible to all
    uint64_t found = 1;  // by the last load; 1: there was none
  };

  // Whether both may miss if thread `i` now advances at `where`.
  bool After(size_t i, size_t Thread::*where) const {
    StoreBuffers after = *this;
    Thread& thread = after.threads_[i];
    const Step& step = thread.steps[(thread.*where)++];
    if (where == &Thread::next && step.kind == Step::Kind::kLoad) {
      thread.found = after.Load(i, step.place);
    }
    return after.BothMayMiss();
  }

  // What thread `i` finds: its own additions, and the other's visible ones.
  uint64_t Load(size_t i, const void* place) const {
    uint64_t sum = 0;
    for (size_t j = 0; j < 2; ++j) {
      const Thread& thread = threads_[j];
      const size_t end = i == j ? thread.next : thread.visible;
      for (size_t step = 0; step < end; ++step) {
        if (thread.steps[step].place == place) sum += thread.steps[step].value;
      }
    }
    return sum;
  }

  std::array<Thread, 2> threads_;
};

TEST(IndirectPageCountTest, ThereAreAnyFromTheFirstToTheLast) {
  IndirectPageCount pages;
  EXPECT_FALSE(pages.Any());
  pages.Add();
  pages.Add();
  EXPECT_TRUE(pages.Any());
  pages.Remove();
  EXPECT_TRUE(pages.Any());
  pages.Remove();
  EXPECT_FALSE(pages.Any());
}

// Each interleaving of an emulated write and a new page (RACE-32). Without the
// barrier of either side, or with the steps of either side in another order,
// both could miss the other.
// Covers: LCK-06
TEST(IndirectPageCountTest, Race32EitherTheWriterSeesThePageOrThePageTheWrite) {
  mmu_recorded::IndirectPageCount pages;
  recorded::atomic<uint64_t> guest_entry(0);
  const auto store = [&] {
    guest_entry.fetch_add(1, std::memory_order_relaxed);
  };
  const auto load = [&] { guest_entry.load(std::memory_order_relaxed); };
  const Steps writer = Record([&] {
    store();
    EXPECT_FALSE(pages.Any()) << "it was recorded on zeros";
  });
  const Steps new_page = Record([&] {
    pages.Add();
    load();
  });
  EXPECT_FALSE(StoreBuffers(writer, new_page).BothMayMiss());
  EXPECT_TRUE(StoreBuffers(WithoutBarriers(writer), new_page).BothMayMiss());
  EXPECT_TRUE(StoreBuffers(writer, WithoutBarriers(new_page)).BothMayMiss());

  const Steps looks_first = Record([&] {
    pages.Any();
    store();
  });
  const Steps loads_first = Record([&] {
    load();
    pages.Add();
  });
  EXPECT_TRUE(StoreBuffers(looks_first, new_page).BothMayMiss());
  EXPECT_TRUE(StoreBuffers(writer, loads_first).BothMayMiss());
}

}  // namespace
}  // namespace mmu
