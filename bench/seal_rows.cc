// Measures the cost of sealing an epoch, reading its pages and acknowledging
// them.

#include <algorithm>
#include <bit>
#include <memory>
#include <random>
#include <vector>

#include "absl/types/span.h"
#include "bench/guest_tables.h"
#include "bench/harness.h"
#include "bench/rows.h"
#include "benchmark/benchmark.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/dirty/dirty_bitmap.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/testing/dirty_log.h"

namespace mmu::bench {
namespace {

using ::mmu::testing::ReadLog;
using ::mmu::testing::SealAndList;
using ::mmu::testing::SealLog;
using ::mmu::testing::StartLog;

// The number of words read from a log at a time: the pages of a GiB.
constexpr uint64_t kChunkWords = PagesPer(Level::k1G) / 64;

// The limit is measured with the processor's own instruction.
#if defined(__x86_64__)
__attribute__((target("popcnt")))
#endif
uint64_t
CountBits(absl::Span<const uint64_t> words) {
  uint64_t count = 0;
  for (const uint64_t word : words) count += std::popcount(word);
  return count;
}

// The step of an epoch that is timed.
enum class Step : uint8_t { kSealAndRead, kAcknowledge };

// Runs an epoch of a log of 64 GiB from its seal to its acknowledgement. About
// one page in `one_in` is dirty, in aligned runs of `run` pages. Value: the
// time of `step`. Limit: counts the bits of one bitmap.
Measured OfAnEpoch(const Effort& effort, Step step, uint64_t one_in,
                   uint64_t run) {
  const uint64_t pages = effort.Scale(64 * PagesPer(Level::k1G));
  const std::unique_ptr<Vm> vm = MakeVm(pages << kPageShift, Level::k4K);
  VmState& state = vm->state();
  BENCH_CHECK(StartLog(*vm, {}, nullptr).ok());
  DirtyBitmap* bitmap = nullptr;
  {
    MutexLock lock(state.slots.slots_lock);
    bitmap = state.slots.Active(0).FindById(0)->dirty_bitmap.get();
  }
  std::mt19937_64 random(1);
  std::vector<uint64_t> words(pages / 64);
  for (uint64_t page = 0; page < pages; page += run) {
    if (random() % one_in != 0) continue;
    for (uint64_t p = page; p < page + run; ++p) {
      words[p / 64] |= uint64_t{1} << (p % 64);
    }
  }
  const uint64_t dirty = CountBits(words);

  std::vector<uint64_t> chunk(kChunkWords);
  const auto read = [&](uint64_t epoch, uint64_t first_page) {
    BENCH_CHECK(ReadLog(*vm, 0, epoch, first_page, absl::MakeSpan(chunk)).ok());
    benchmark::DoNotOptimize(chunk.data());
    benchmark::ClobberMemory();
  };
  const auto epoch = [&] {
    for (uint64_t i = 0; i < words.size(); ++i) bitmap->MarkWord(i, words[i]);
    testing::SealedSlot result;
    const double seal_nanos = Nanos([&] {
      result = *SealLog(*vm, 0, nullptr);
      for (uint64_t page = 0; page < pages; page += PagesPer(Level::k1G)) {
        read(result.epoch, page);
      }
    });
    BENCH_CHECK(result.dirty_page_count == dirty);
    for (uint64_t page = 0; page < pages; page += PagesPer(Level::k1G)) {
      read(result.epoch, page);
      BENCH_CHECK(
          std::equal(chunk.begin(), chunk.end(), words.begin() + page / 64));
    }
    // Nothing is mapped, so there is nothing to protect.
    BENCH_CHECK(
        vm->state()
            .dirty_log.Get()
            ->log.TakeIntoFlight(testing::TestCall(), 0, result.epoch, 0, words)
            .ok());
    uint64_t delivered = 0;
    const double acknowledge_nanos = Nanos([&] {
      delivered = vm->AcknowledgePages(testing::TestCall(), result.epoch)
                      ->acknowledged_page_count;
    });
    BENCH_CHECK(delivered == dirty);
    // The acknowledgement leaves the set of in-flight pages in the processor's
    // caches. No seal uses that set, so read the sealed set once more before
    // the next seal is timed.
    for (uint64_t page = 0; page < pages; page += PagesPer(Level::k1G)) {
      read(result.epoch, page);
    }
    return (step == Step::kSealAndRead ? seal_nanos : acknowledge_nanos) / 1e6;
  };
  const auto popcount = [&] {
    uint64_t count = 0;
    const double nanos = Nanos([&] {
      count = CountBits(words);
      benchmark::DoNotOptimize(count);
    });
    BENCH_CHECK(count == dirty);
    return nanos / 1e6;
  };
  const Pair pair = Alternate(effort, epoch, popcount);
  return {.unit = "ms", .value = pair.value, .limit = pair.limit};
}

Benchmark EpochRow(const char* name, Step step, double goal, uint64_t one_in,
                   uint64_t run) {
  return {name, goal, Goal::kAtMost, [=](const Effort& effort) {
            return OfAnEpoch(effort, step, one_in, run);
          }};
}

}  // namespace

// Dirty pages at random places are the worst case: at 1 %, half of all words
// have a bit set. Real guests dirty neighbouring pages, as in the rows with
// runs.
std::vector<Benchmark> SealRows() {
  constexpr Step kSeal = Step::kSealAndRead;
  constexpr Step kAcknowledge = Step::kAcknowledge;
  return {EpochRow("seal_sparse_0.1pct", kSeal, 0.2, 1000, 1),
          EpochRow("seal_sparse_1pct", kSeal, 1, 100, 1),
          EpochRow("seal_sparse_10pct", kSeal, 1, 10, 1),
          EpochRow("seal_runs_0.1pct", kSeal, 0.2, 1000, 64),
          EpochRow("seal_runs_1pct", kSeal, 1, 100, 64),
          EpochRow("seal_runs_10pct", kSeal, 1, 10, 64),
          EpochRow("acknowledge_sparse_1pct", kAcknowledge, 10, 100, 1),
          EpochRow("acknowledge_runs_1pct", kAcknowledge, 1, 100, 64)};
}

}  // namespace mmu::bench
