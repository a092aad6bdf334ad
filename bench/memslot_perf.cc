#include "bench/memslot_perf.h"

#include <algorithm>
#include <array>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "bench/memslot_area.h"
#include "bench/scenario.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/level.h"
#include "mmu_core/memory/region_request.h"
#include "mmu_core/vm/core/vm_config.h"

namespace mmu::bench {
namespace {

constexpr uint64_t kPages = MemslotArea::kPages;

// Whether the host checks contents, too.
enum class HostChecks : uint8_t { kNo, kYes };

// The steps of one run of a sub-test. `n` is the number of the iteration, from
// 1.
struct SubTest {
  const char* name;
  absl::Status (*prepare)(MemslotArea& area);
  absl::Status (*iterate)(MemslotArea& area, uint64_t n, HostChecks checks);
  absl::Status (*finish)(MemslotArea& area);
};

absl::Status Nothing(MemslotArea&) { return absl::OkStatus(); }

absl::Status HostFinds(MemslotArea& area, uint64_t first, uint64_t end,
                       uint64_t value) {
  for (uint64_t page = first; page < end; ++page) {
    const uint64_t found = area.Word(page).load(std::memory_order_relaxed);
    if (found != value) {
      return absl::DataLossError(
          absl::StrFormat("memslot_perf: the host finds 0x%x in page %d where "
                          "0x%x was written",
                          found, page, value));
    }
  }
  return absl::OkStatus();
}

// The guest writes all pages of [first, end), which were unmapped before. Then
// the host unmaps them, `unit` pages at a time.
absl::Status WriteAndUnmap(MemslotArea& area, uint64_t first, uint64_t end,
                           uint64_t unit, uint64_t n, HostChecks checks) {
  absl::Status status = area.ReadAndWrite(first, end, 0, n);
  if (status.ok() && checks == HostChecks::kYes) {
    status = HostFinds(area, first, end, n);
  }
  for (uint64_t at = first; at < end; at += unit) {
    area.Unmap(at, std::min(at + unit, end));
  }
  return status;
}

// The guest maps the two halves of the area by writing to them, one after the
// other.
absl::Status Map(MemslotArea& area, uint64_t n, HostChecks checks) {
  absl::Status status = WriteAndUnmap(area, 0, kPages / 2, kPages, n, checks);
  if (!status.ok()) return status;
  return WriteAndUnmap(area, kPages / 2, kPages, kPages, n, checks);
}

absl::Status UnmapAtOnce(MemslotArea& area, uint64_t n, HostChecks checks) {
  return WriteAndUnmap(area, 0, kPages, kPages, n, checks);
}

absl::Status UnmapChunked(MemslotArea& area, uint64_t n, HostChecks checks) {
  return WriteAndUnmap(area, 0, kPages, PagesPer(Level::k2M), n, checks);
}

absl::Status MoveThereAndBack(MemslotArea& area, uint64_t, HostChecks) {
  absl::Status status = area.MoveLastSlot(MemslotArea::Place::kElsewhere);
  if (status.ok()) status = area.MoveLastSlot(MemslotArea::Place::kInArea);
  return status;
}

uint64_t LastSlot(const MemslotArea& area) {
  return (area.slots() - 1) * area.pages_per_slot();
}

absl::Status CountInMovedSlot(MemslotArea& area) {
  area.StartCounting(LastSlot(area), kPages, MemslotArea::MayMiss::kYes);
  return absl::OkStatus();
}

absl::Status CountBesideMovedSlot(MemslotArea& area) {
  area.StartCounting(0, std::min(LastSlot(area), area.pages_per_slot()),
                     MemslotArea::MayMiss::kNo);
  return absl::OkStatus();
}

absl::Status StopCounting(MemslotArea& area) { return area.StopCounting(); }

// The guest reads the values that the host wrote, then the host reads those
// that the guest wrote.
absl::Status ReadWrite(MemslotArea& area, uint64_t n, HostChecks) {
  for (uint64_t page = 0; page < kPages; ++page) {
    area.Word(page).store(2 * n, std::memory_order_relaxed);
  }
  absl::Status status = area.ReadAndWrite(0, kPages, 2 * n, 2 * n + 1);
  if (status.ok()) status = HostFinds(area, 0, kPages, 2 * n + 1);
  return status;
}

constexpr std::array<SubTest, 6> kTests = {{
    {"map", Nothing, Map, Nothing},
    {"unmap", Nothing, UnmapAtOnce, Nothing},
    {"unmap chunked", Nothing, UnmapChunked, Nothing},
    {"move active area", CountInMovedSlot, MoveThereAndBack, StopCounting},
    {"move inactive area", CountBesideMovedSlot, MoveThereAndBack,
     StopCounting},
    {"RW", Nothing, ReadWrite, Nothing},
}};

struct Best {
  absl::Duration time = absl::InfiniteDuration();
  uint64_t iterations = 0;
};

class Run {
 public:
  Run(const MemslotPerfOptions& options, std::ostream& out)
      : options_(options), out_(out) {}

  absl::Status All() {
    for (int i = options_.first_test; i <= options_.last_test; ++i) {
      out_ << "Testing " << kTests[i].name << " performance with "
           << options_.runs << " runs, "
           << absl::ToInt64Seconds(options_.length) << " seconds each\n"
           << std::flush;
      Best best;
      for (int run = 0; run < options_.runs; ++run) {
        absl::Status status = Once(kTests[i], &best);
        if (!status.ok()) return status;
      }
      out_ << "Best runtime result was " << Seconds(best.time)
           << " per iteration (with " << best.iterations << " iterations)\n";
    }
    out_ << "Best slot setup time for the whole test area was "
         << Seconds(best_setup_) << "\n";
    return absl::OkStatus();
  }

 private:
  absl::Status Once(const SubTest& test, Best* best) {
    absl::StatusOr<std::unique_ptr<MemslotArea>> made;
    const uint64_t slots = options_.slots == -1
                               ? std::min<uint64_t>(kUserMemslots, kPages)
                               : options_.slots;
    const absl::Duration setup = Timed([&] {
      made = MemslotArea::Create(slots, options_.disable_quirk
                                            ? VmConfig::SlotZap::kSlot
                                            : VmConfig::SlotZap::kAll);
    });
    if (!made.ok()) return made.status();
    MemslotArea& area = **made;
    if (options_.verbose) {
      out_ << area.slots() << " slots of " << area.pages_per_slot()
           << " pages\n";
    }
    uint64_t n = 0;
    absl::Status status = test.prepare(area);
    const MonotonicTime begin = MonotonicTime::Now();
    absl::Duration took;
    while (status.ok() && took < options_.length) {
      status = test.iterate(
          area, ++n,
          options_.debug_checks ? HostChecks::kYes : HostChecks::kNo);
      took = MonotonicTime::Now() - begin;
    }
    const absl::Status finished = test.finish(area);
    if (status.ok()) status = finished;
    if (!status.ok()) return status;

    const absl::Duration each = took / static_cast<int64_t>(n);
    out_ << "Test took " << Seconds(setup) << " for slot setup + "
         << Seconds(took) << " all iterations\n"
         << "Done " << n << " iterations, avg " << Seconds(each) << " each\n"
         << std::flush;
    if (each < best->time) *best = {each, n};
    best_setup_ = std::min(best_setup_, setup);
    return absl::OkStatus();
  }

  const MemslotPerfOptions& options_;
  std::ostream& out_;
  absl::Duration best_setup_ = absl::InfiniteDuration();
};

}  // namespace

const char kMemslotPerfHelp[] =
    "mmu_bench --scenario memslot_perf [OPTIONS]\n"
    "\n"
    "The sub-tests of KVM's memslot_perf_test, with its options and its "
    "lines,\n"
    "in 32 MiB of memory.\n"
    "\n"
    "  -v     tell how the memory is cut into slots\n"
    "  -d     the host checks contents too (not for benchmarking)\n"
    "  -q     a moved slot takes its own mappings along, not all of the VM's\n"
    "  -s N   memslots, or -1 for as many as there can be (512)\n"
    "  -f N   the first sub-test (0)\n"
    "  -e N   the last sub-test (5)\n"
    "  -l N   seconds per sub-test (5)\n"
    "  -r N   runs per sub-test (1)\n"
    "\n"
    "0 map, 1 unmap, 2 unmap chunked, 3 move active area, 4 move inactive "
    "area, 5 RW\n";

absl::StatusOr<MemslotPerfOptions> ParseMemslotPerf(
    absl::Span<const std::string> args) {
  MemslotPerfOptions o;
  int64_t seconds = absl::ToInt64Seconds(o.length);
  constexpr int kLast = static_cast<int>(kTests.size()) - 1;
  absl::Status status =
      ParseScenario("memslot_perf", args,
                    {
                        FlagOption('d', &o.debug_checks),
                        NumberOption('e', 0, kLast, &o.last_test),
                        NumberOption('f', 0, kLast, &o.first_test),
                        FlagOption('h', &o.help),
                        NumberOption('l', 1, 86400, &seconds),
                        FlagOption('q', &o.disable_quirk),
                        NumberOption('r', 1, 1'000'000, &o.runs),
                        NumberOption('s', -1, kPages, &o.slots),
                        FlagOption('v', &o.verbose),
                    });
  if (status.ok() && (o.slots == 0 || o.slots == 1)) {
    status = BadOption("memslot_perf: -s", absl::StrCat(o.slots),
                       absl::StrCat("-1 or a number from 2 to ", kPages));
  }
  if (status.ok() && o.first_test > o.last_test) {
    status = BadOption("memslot_perf: -f", absl::StrCat(o.first_test),
                       absl::StrCat("at most -e ", o.last_test));
  }
  if (!status.ok()) return status;
  o.length = absl::Seconds(seconds);
  return o;
}

absl::Status RunMemslotPerf(const MemslotPerfOptions& options,
                            std::ostream& out) {
  return Run(options, out).All();
}

}  // namespace mmu::bench
