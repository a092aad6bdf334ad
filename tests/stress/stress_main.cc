// The stress program: tests/stress/README.md.

#include <cstdint>
#include <cstdio>
#include <string>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "mmu_core/testing/fault_injection.h"
#include "tests/stress/stress_round.h"

ABSL_FLAG(double, minutes, 1, "How long to go on.");
ABSL_FLAG(double, round_seconds, 2, "How long one VM lives.");
ABSL_FLAG(uint64_t, seed, 0,
          "Seed of the first round; each later one has the next. 0: from the "
          "clock.");
ABSL_FLAG(uint64_t, drop_mark, 0,
          "In each migration lose the so-manieth mark of a page that was dirty "
          "and cleared before, to see that it is noticed. 0: none.");

namespace mmu::stress {
namespace {

void PrintSummary(int64_t rounds, const RoundResult& sum) {
  std::printf("\n%-14s %12s\n", "operation", "times");
  for (int i = 0; i < kOperations; ++i) {
    const std::string name(ToString(static_cast<Operation>(i)));
    std::printf("%-14s %12lu\n", name.c_str(), sum.done[i]);
  }
  std::printf(
      "\n%ld rounds, %lu accesses, %lu faults, %lu remote flushes, %lu pages "
      "compared\n",
      rounds, sum.accesses, sum.faults, sum.flushes, sum.pages_compared);
}

int Main() {
  uint64_t seed = absl::GetFlag(FLAGS_seed);
  if (seed == 0) seed = static_cast<uint64_t>(absl::ToUnixSeconds(absl::Now()));
  const absl::Time begin = absl::Now();
  const absl::Time end =
      begin + absl::Minutes(1) * absl::GetFlag(FLAGS_minutes);
  absl::Time next_report = begin;
  RoundResult sum;
  int64_t rounds = 0;
  for (; absl::Now() < end; ++seed) {
    RoundConfig config = RandomRound(
        seed, absl::Seconds(1) * absl::GetFlag(FLAGS_round_seconds));
    config.drop_mark = absl::GetFlag(FLAGS_drop_mark);
    const RoundResult result = RunRound(config);
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
      return 1;
    }
    if (absl::Now() >= next_report) {
      std::printf("%s  round %ld, %s: well\n",
                  absl::FormatDuration(
                      absl::Trunc(absl::Now() - begin, absl::Seconds(1)))
                      .c_str(),
                  rounds, Describe(config).c_str());
      std::fflush(stdout);
      next_report = absl::Now() + absl::Seconds(30);
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
