#include "bench/rmap_aging_perf.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <numeric>
#include <optional>
#include <ostream>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "bench/harness.h"
#include "bench/scenario.h"
#include "bench/shadow_guest.h"
#include "mmu_core/aging/aging.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/mmu/yield_point.h"
#include "mmu_core/shadow/shadow_age.h"
#include "mmu_core/shadow/shadow_links.h"
#include "mmu_core/shadow/shadow_mmu.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/stats/mmu_counters.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/sync/spin.h"

namespace mmu::bench {

const char kRmapAgingPerfHelp[] =
    "mmu_bench --scenario rmap_aging_perf [OPTIONS]\n"
    "\n"
    "A thread ages an L2 guest, 64 pages per call, while vCPUs zap pages and\n"
    "fault them in again: medians of the runs.\n"
    "\n"
    "  -i N  runs of each line (5)\n"
    "  -t N  milliseconds of each run (1000)\n"
    "  -v N  vCPUs in the last lines (4)\n";

namespace {

constexpr uint64_t kBatch = 64;  // pages of one call that ages, and of one zap
constexpr uint64_t kBatches = 128;  // of each half of the memory
constexpr uint64_t kBytes = 2 * kBatches * kBatch * kPageSize;
// The number of pages that one fault maps, by prefetching (SHD-53).
constexpr uint64_t kBlock = 8;
constexpr uint64_t kStepsPerBatch = 1 + kBatch / kBlock;

enum class Ager : uint8_t {
  kNone,
  kApart,  // as kRmap, but in pages that no vCPU zaps
  kRmap,
  kMmuLock,
};
const char* ToString(Ager ager) {
  switch (ager) {
    case Ager::kNone:
      return "none";
    case Ager::kApart:
      return "apart";
    case Ager::kRmap:
      return "rmap";
    case Ager::kMmuLock:
      return "mmu_lock";
  }
  __builtin_unreachable();
}

// The wall times of one kind of call, in nanoseconds.
class Times {
 public:
  // Calls `fn`, which returns how often it found an rmap locked.
  template <typename Fn>
  void Add(Fn fn) {
    const int64_t begin = MonotonicNanos();
    const uint64_t waits = fn();
    nanos_.push_back(MonotonicNanos() - begin);
    if (waits == 0) return;
    ++waited_;
    longest_wait_ = std::max(longest_wait_, nanos_.back());
  }
  void Add(const Times& other) {
    nanos_.insert(nanos_.end(), other.nanos_.begin(), other.nanos_.end());
    waited_ += other.waited_;
    longest_wait_ = std::max(longest_wait_, other.longest_wait_);
  }
  uint64_t count() const { return nanos_.size(); }
  double SumNanos() const {
    return std::accumulate(nanos_.begin(), nanos_.end(), 0.0);
  }
  double Micros(double quantile) {
    const auto at =
        nanos_.begin() +
        static_cast<int64_t>(quantile * static_cast<double>(count() - 1));
    std::nth_element(nanos_.begin(), at, nanos_.end());
    return static_cast<double>(*at) / 1e3;
  }
  // The calls that waited for an rmap, and the longest of them.
  uint64_t waited() const { return waited_; }
  double LongestWaitMicros() const {
    return static_cast<double>(longest_wait_) / 1e3;
  }

 private:
  std::vector<int64_t> nanos_;
  uint64_t waited_ = 0;
  int64_t longest_wait_ = 0;
};

// L1 maps all memory of L2 with 4K pages. vCPUs zap and fault in the lower
// half.
class Contention {
 public:
  explicit Contention(int vcpus)
      : vcpus_(vcpus),
        guest_(ShadowGuest::Kind::kEpt, kBytes, Level::k4K, std::max(vcpus, 1)),
        slot_(guest_.data_slot()),
        age_(Parts()) {
    for (uint64_t at = 0; at < kBytes; at += kPageSize) {
      guest_.Map(at, ShadowGuest::kData + at);
    }
    guest_.Start();
    for (uint64_t at = 0; at < kBytes; at += kPageSize) {
      guest_.Access(at, AccessKind::kWrite);
    }
    for (int vcpu = 1; vcpu < vcpus; ++vcpu) {
      guest_.Access(0, AccessKind::kWrite, 0, vcpu);
    }
    CheckAllMapped();
  }

  void Run(Ager ager, std::chrono::milliseconds duration) {
    std::atomic<bool> stop{false};
    std::vector<Times> steps(vcpus_);
    std::vector<std::thread> threads;
    for (int vcpu = 0; vcpu < vcpus_; ++vcpu) {
      threads.emplace_back([&, vcpu] {
        // Each vCPU has batches of its own.
        uint64_t batch = vcpu;
        do {
          Renew(batch, vcpu, steps[vcpu]);
          batch += vcpus_;
          if (batch >= kBatches) batch = vcpu;
        } while (!stop.load());
      });
    }
    if (ager != Ager::kNone) {
      threads.emplace_back([&] {
        const uint64_t first = ager == Ager::kApart ? kBatches : 0;
        uint64_t i = 0;
        do {
          AgeBatch(first + i % kBatches, ager);
          ++i;
        } while (!stop.load());
      });
    }
    std::this_thread::sleep_for(duration);
    stop.store(true);
    for (std::thread& thread : threads) thread.join();
    for (const Times& of_vcpu : steps) steps_.Add(of_vcpu);
    CheckAllMapped();
  }

  Times& calls() { return calls_; }  // of the ager
  Times& steps() { return steps_; }  // of all vCPUs

 private:
  // The guest's address of page 0 of the batch.
  static uint64_t AddressOf(uint64_t batch) {
    return batch * kBatch << kPageShift;
  }
  GfnRange PagesOf(uint64_t batch) const {
    return GfnRange::Of(guest_.data().start + batch * kBatch, kBatch);
  }
  void CheckAllMapped() {
    BENCH_CHECK(guest_.Leafs(Level::k4K) == 2 * kBatches * kBatch);
  }
  // Zaps the pages and faults them in again. Each zap and each fault is a step.
  void Renew(uint64_t batch, int vcpu, Times& steps) {
    const std::atomic<uint64_t>& waits =
        guest_.mmu().parts().counters.rmap_lock_contended;
    steps.Add([&] {
      // Of the threads that count here, only the holder of mmu_lock locks
      // rmaps.
      MmuWriteLocked lock(guest_.state().mmu_lock, LockOp::kZap);
      const uint64_t before = waits.load();
      BENCH_CHECK(guest_.mmu().unmap().ZapLeafs(lock, slot_, PagesOf(batch),
                                                FlushReason::kZap, nullptr,
                                                MayYield::kNo));
      return waits.load() - before;
    });
    for (uint64_t page = 0; page < kBatch; page += kBlock) {
      const uint64_t address = AddressOf(batch) + (page << kPageShift);
      // No wait: a fault adds to an empty rmap, which is not locked.
      steps.Add([&] {
        guest_.Fault(address, AccessKind::kWrite, vcpu);
        return uint64_t{0};
      });
    }
  }
  void AgeBatch(uint64_t batch, Ager ager) {
    AgeResult result = AgeResult::For(PagesOf(batch));
    result.mapped.resize(result.young.size());
    calls_.Add([&] {
      std::optional<MmuWriteLocked> lock;
      if (ager == Ager::kMmuLock) {
        lock.emplace(guest_.state().mmu_lock, LockOp::kAge);
      }
      RcuReadGuard rcu;
      const uint64_t before = counters_.rmap_lock_contended.load();
      age_.Age(slot_, PagesOf(batch), PagesOf(batch), AgeMode::kTestAndClear,
               result, nullptr);
      return counters_.rmap_lock_contended.load() - before;
    });
  }
  // The MMU's own, but its waits are counted apart from those of the vCPUs.
  ShadowParts Parts() {
    const ShadowParts& parts = guest_.mmu().parts();
    return {parts.format, parts.format_without_ad, parts.vm, parts.tlb,
            counters_};
  }

  const int vcpus_;
  ShadowGuest guest_;
  const Memslot& slot_;
  MmuCounters counters_;
  const ShadowAge age_;
  Times calls_;
  Times steps_;
};

// The figures of one run.
using Figures = std::vector<double>;

constexpr char kAgerTable[] =
    "ager: one call for 64 pages, us\n"
    "vCPUs ager       ns/page      p50      p99    p99.9      max    waits  "
    "longest\n";
Figures OfAger(Times& calls) {
  BENCH_CHECK(calls.count() > 0);
  return {calls.SumNanos() / static_cast<double>(calls.count() * kBatch),
          calls.Micros(0.5),
          calls.Micros(0.99),
          calls.Micros(0.999),
          calls.Micros(1),
          static_cast<double>(calls.waited()),
          calls.LongestWaitMicros()};
}

constexpr char kVcpuTable[] =
    "vCPUs: one fault or zap, us\n"
    "vCPUs ager      pages/us      p50      p99    p99.9      max    waits  "
    "longest\n";
Figures OfVcpus(Times& steps, double nanos) {
  BENCH_CHECK(steps.count() > 0);
  return {static_cast<double>(steps.count() / kStepsPerBatch * kBatch) / nanos *
              1e3,
          steps.Micros(0.5),
          steps.Micros(0.99),
          steps.Micros(0.999),
          steps.Micros(1),
          static_cast<double>(steps.waited()),
          steps.LongestWaitMicros()};
}

// A line of a table: the median of each column.
std::string Line(int vcpus, Ager ager, const std::vector<Figures>& runs) {
  std::string line = absl::StrFormat("%5d %-8s", vcpus, ToString(ager));
  for (size_t column = 0; column < runs[0].size(); ++column) {
    std::vector<double> values;
    for (const Figures& run : runs) values.push_back(run[column]);
    const double median = Median(std::move(values));
    const bool whole = median >= 100 || median == std::floor(median);
    const int decimals = whole ? 0 : median < 1 ? 2 : 1;
    absl::StrAppendFormat(&line, " %*.*f", column == 0 ? 9 : 8, decimals,
                          median);
  }
  return line + "\n";
}

}  // namespace

absl::StatusOr<RmapAgingPerfOptions> ParseRmapAgingPerf(
    absl::Span<const std::string> args) {
  RmapAgingPerfOptions o;
  const absl::Status status = ParseScenario(
      "rmap_aging_perf", args,
      {FlagOption('h', &o.help), NumberOption('i', 1, 1000, &o.repetitions),
       NumberOption('t', 1, 60'000, &o.milliseconds),
       NumberOption('v', 1, kBatches, &o.max_vcpus)});
  if (!status.ok()) return status;
  return o;
}

absl::Status RunRmapAgingPerf(const RmapAgingPerfOptions& options,
                              std::ostream& out) {
  std::string vcpu_table = kVcpuTable;
  out << kAgerTable;
  for (const int vcpus : std::set<int>{0, 1, options.max_vcpus}) {
    for (const Ager ager :
         {Ager::kNone, Ager::kApart, Ager::kRmap, Ager::kMmuLock}) {
      if (vcpus == 0 && (ager == Ager::kNone || ager == Ager::kApart)) continue;
      std::vector<Figures> of_ager;
      std::vector<Figures> of_vcpus;
      for (int i = 0; i < options.repetitions; ++i) {
        Contention contention(vcpus);
        const double nanos = WallNanos([&] {
          contention.Run(ager, std::chrono::milliseconds(options.milliseconds));
        });
        if (ager != Ager::kNone) of_ager.push_back(OfAger(contention.calls()));
        if (vcpus != 0) of_vcpus.push_back(OfVcpus(contention.steps(), nanos));
      }
      if (!of_ager.empty()) out << Line(vcpus, ager, of_ager) << std::flush;
      if (!of_vcpus.empty()) vcpu_table += Line(vcpus, ager, of_vcpus);
    }
  }
  out << "\n" << vcpu_table;
  return absl::OkStatus();
}

}  // namespace mmu::bench
