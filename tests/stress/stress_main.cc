// The stress program: tests/stress/README.md.

#include <cstdint>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/testing/fault_injection.h"
#include "mmu_core/testing/mmu_mode_names.h"
#include "tests/stress/round_config.h"
#include "tests/stress/round_result.h"
#include "tests/stress/round_watch.h"
#include "tests/stress/stress_round.h"

ABSL_FLAG(double, minutes, 1, "How long to go on.");
ABSL_FLAG(double, round_seconds, 2, "How long one VM lives.");
ABSL_FLAG(uint64_t, seed, 0,
          "Seed of the first round; each later one has the next. 0: a random "
          "one.");
ABSL_FLAG(uint64_t, drop_mark, 0,
          "In each migration lose the so-manieth mark of a page that was dirty "
          "and cleared before, to see that it is noticed. 0: none.");

ABSL_FLAG(std::string, skip_flush, "",
          "Skip remote flushes: those when a migration's log is switched on "
          "(write_protect), or those of the first break of a block then (bbm), "
          "those of its clears (clear_dirty), or those when the host unmaps "
          "pages (notifier), to see that it is noticed. Empty: none.");
ABSL_FLAG(std::string, ring_entries, "",
          "Entries of the vCPUs' dirty rings, 0 for bitmaps. Empty: as the "
          "seed says.");
ABSL_FLAG(
    std::string, mmu, "",
    "tdp, tdp_shadow, shadow, nested or stage2 (vm/vm_config.h). Empty: as "
    "the seed says.");
ABSL_FLAG(std::string, smp, "",
          "yes: one kernel (--mmu=shadow) or one L1 hypervisor (--mmu=nested) "
          "runs on all vCPUs. no: each vCPU has its own. Empty: as the seed "
          "says.");
ABSL_FLAG(std::string, granule_bytes, "",
          "4096, 16384 or 65536: the granule of stage-2 tables. Empty: as the "
          "seed says.");
ABSL_FLAG(std::string, bbm_level, "",
          "0 or 2: the FEAT_BBM level of a processor with stage-2 tables. "
          "Empty: as the seed says.");
ABSL_FLAG(bool, skip_unsync, false,
          "In each migration let one table of a guest become writable without "
          "a note that its shadow page is unsync, to see that it is noticed.");
ABSL_FLAG(bool, skip_invvpid, false,
          "Leave out each INVVPID of an L1 hypervisor that runs on all vCPUs "
          "(--mmu=nested --smp=yes), to see that it is noticed.");

namespace mmu::stress {
namespace {

// The reasons of the flushes that a round can skip.
constexpr FlushReason kSkippable[] = {
    FlushReason::kWriteProtect, FlushReason::kBbm, FlushReason::kClearDirty,
    FlushReason::kNotifier};

// A round takes less than this many times its length.
constexpr int kManyTimes = 60;

// Returns false if `name` is neither empty nor one of kSkippable.
bool ParseFlushReason(const std::string& name,
                      absl::optional<FlushReason>* reason) {
  if (name.empty()) return true;
  for (const FlushReason skippable : kSkippable) {
    *reason = skippable;
    if (ToString(skippable) == name) return true;
  }
  return false;
}

// Reads a flag that is empty or one of some numbers. Returns false if it is
// neither.
template <typename Number>
bool ParseOneOf(const char* flag, const std::string& text,
                const std::vector<Number>& numbers,
                absl::optional<Number>* chosen) {
  if (text.empty()) return true;
  for (const Number number : numbers) {
    if (absl::StrCat(number) != text) continue;
    *chosen = number;
    return true;
  }
  std::fprintf(stderr, "--%s=%s: give one of %s\n", flag, text.c_str(),
               absl::StrJoin(numbers, ", ").c_str());
  return false;
}

// Reads the flags that choose a part of each round. Returns false if one is
// wrong.
bool ParseChoices(RoundChoices* choices) {
  const std::string mmu = absl::GetFlag(FLAGS_mmu);
  choices->mmu = testing::ParseMmuMode(mmu);
  if (!mmu.empty() && !choices->mmu.has_value()) {
    std::fprintf(stderr,
                 "--mmu=%s: give tdp, tdp_shadow, shadow, nested or stage2\n",
                 mmu.c_str());
    return false;
  }
  const std::string smp = absl::GetFlag(FLAGS_smp);
  if (smp == "yes") choices->smp = Smp::kYes;
  if (smp == "no") choices->smp = Smp::kNo;
  if (!smp.empty() && !choices->smp.has_value()) {
    std::fprintf(stderr, "--smp=%s: give yes or no\n", smp.c_str());
    return false;
  }
  return ParseOneOf<uint32_t>("granule_bytes",
                              absl::GetFlag(FLAGS_granule_bytes),
                              {4096, 16384, 65536}, &choices->granule_bytes) &&
         ParseOneOf<int>("bbm_level", absl::GetFlag(FLAGS_bbm_level), {0, 2},
                         &choices->bbm_level);
}

// Makes the round of `seed` with the values of the flags. Returns false if a
// flag is wrong.
bool MakeConfig(uint64_t seed, RoundConfig* config) {
  RoundChoices choices;
  if (!ParseChoices(&choices)) return false;
  *config = RandomRound(
      seed, absl::Seconds(1) * absl::GetFlag(FLAGS_round_seconds), choices);
  config->skip_unsync = absl::GetFlag(FLAGS_skip_unsync);
  config->skip_invvpid = absl::GetFlag(FLAGS_skip_invvpid);
  config->drop_mark = absl::GetFlag(FLAGS_drop_mark);
  // A TLB that forgets an entry by itself makes up for the fault.
  if (config->skip_unsync || config->skip_invvpid || config->drop_mark != 0 ||
      !absl::GetFlag(FLAGS_skip_flush).empty()) {
    config->tlb = {.flushes = TlbOptions::Flushes::kPrecise,
                   .evictions = TlbOptions::Evictions::kNever,
                   .seed = seed};
  }
  const std::string rings = absl::GetFlag(FLAGS_ring_entries);
  if (!rings.empty() && !absl::SimpleAtoi(rings, &config->dirty_ring_entries)) {
    std::fprintf(stderr, "--ring_entries=%s: give a number\n", rings.c_str());
    return false;
  }
  if (config->dirty_ring_entries != 0) {
    config->stage2.dirty_state = Stage2Config::DirtyState::kByFault;
  }
  const std::string reason = absl::GetFlag(FLAGS_skip_flush);
  if (!ParseFlushReason(reason, &config->skip_flush)) {
    std::fprintf(stderr,
                 "--skip_flush=%s: give write_protect, bbm, clear_dirty or "
                 "notifier\n",
                 reason.c_str());
    return false;
  }
  return true;
}

void PrintSummary(int64_t rounds, const RoundResult& sum) {
  std::printf("\n%-14s %12s\n", "operation", "times");
  for (int i = 0; i < kOperations; ++i) {
    const std::string name(ToString(static_cast<Operation>(i)));
    std::printf("%-14s %12lu\n", name.c_str(), sum.done[i]);
  }
  std::printf(
      "\n%ld rounds, %lu accesses, %lu faults, %lu remote flushes, %lu pages "
      "compared, %lu accesses emulated, %lu times mapped ahead, %lu times a "
      "dirty ring was full, %lu shadow pages made unsync, %lu guest PTE "
      "writes, %lu "
      "shadow pages recycled\n",
      rounds, sum.accesses, sum.faults, sum.flushes, sum.pages_compared,
      sum.emulated, sum.pre_faults, sum.ring_full, sum.unsyncs, sum.pte_writes,
      sum.recycled);
  std::printf(
      "nested guests: %lu shadow pages zapped, %lu of them recycled for a "
      "fault, %lu pointers to tables zapped by writes of L1, %lu tables freed "
      "by L1, %lu switches to a kept root, %lu switches to a "
      "missed root, %lu invalidations by L1, %lu of them for another vCPU, %lu "
      "arrivals from another vCPU\n",
      sum.nested_zapped, sum.nested_recycled, sum.nested_unlinked,
      sum.nested.tables_freed, sum.nested.kept_roots, sum.nested.missed_roots,
      sum.nested.invalidations, sum.nested.interrupts, sum.nested.arrivals);
  std::printf(
      "stage 2: %lu TLB conflict aborts, %lu blocks split by faults, %lu "
      "eagerly, %lu for clears, %lu on request, %lu blocks recovered\n",
      sum.stage2.conflict_aborts, sum.stage2.split_by_faults,
      sum.stage2.split_eagerly, sum.stage2.split_for_clears,
      sum.stage2.split_on_request, sum.stage2.recovered);
  const std::vector<std::string> unmoved = sum.moved.Unmoved();
  std::printf("counters that did not move: %s\n",
              unmoved.empty() ? "none" : absl::StrJoin(unmoved, ", ").c_str());
}

int Main() {
  uint64_t seed = absl::GetFlag(FLAGS_seed);
  if (seed == 0) seed = std::random_device()();
  const MonotonicTime begin = MonotonicTime::Now();
  const MonotonicTime end =
      begin + absl::Minutes(1) * absl::GetFlag(FLAGS_minutes);
  MonotonicTime next_report = begin;
  RoundResult sum;
  int64_t rounds = 0;
  for (; MonotonicTime::Now() < end; ++seed) {
    RoundConfig config;
    if (!MakeConfig(seed, &config)) return 2;
    const RoundResult result = [&] {
      const RoundWatch watch(
          kManyTimes * absl::Seconds(1) * absl::GetFlag(FLAGS_round_seconds),
          absl::StrFormat("round %d, %s, --seed=%d", rounds + 1,
                          Describe(config), seed));
      return RunRound(config);
    }();
    sum.Add(result);
    ++rounds;
    if (!result.violation.empty()) {
      PrintSummary(rounds, sum);
      std::printf("\nVIOLATION in round %ld, %s\n  %s\n  again: --seed=%lu\n",
                  rounds, Describe(config).c_str(), result.violation.c_str(),
                  seed);
      if (const std::string mark = testing::DroppedMark(); !mark.empty()) {
        std::printf("  (the mark of %s was dropped on purpose)\n",
                    mark.c_str());
      }
      if (const uint64_t n = testing::SkippedFlushes(); n != 0) {
        std::printf("  (%lu flushes were skipped on purpose)\n", n);
      }
      if (const uint64_t n = testing::SkippedUnsyncs(); n != 0) {
        std::printf("  (%lu unsync marks were skipped on purpose)\n", n);
      }
      return 1;
    }
    if (MonotonicTime::Now() >= next_report) {
      std::printf("%s  round %ld, %s: well\n",
                  absl::FormatDuration(absl::Trunc(MonotonicTime::Now() - begin,
                                                   absl::Seconds(1)))
                      .c_str(),
                  rounds, Describe(config).c_str());
      std::fflush(stdout);
      next_report = MonotonicTime::Now() + absl::Seconds(30);
    }
  }
  PrintSummary(rounds, sum);
  std::printf("no violation\n");
  return 0;
}

}  // namespace
}  // namespace mmu::stress

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage(
      "runs guests whose memory is split, logged, harvested, recovered, aged, "
      "zapped and re-slotted at the same time, and verifies contents, logs and "
      "invariants.\n\n"
      "  stress --minutes=60\n"
      "  stress --seed=12345 --minutes=0.1    one round again\n\n"
      "Exit code 1 and the seed of the round if anything was not as it must "
      "be.");
  absl::ParseCommandLine(argc, argv);
  return mmu::stress::Main();
}
