// The program of long model runs: tests/model/README.md.

#include <sys/resource.h>

#include <cstdint>
#include <cstdio>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/time/time.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/guest/random.h"
#include "mmu_core/testing/fault_injection.h"
#include "mmu_core/testing/mmu_mode_names.h"
#include "tests/model/file_digest.h"
#include "tests/model/model_config.h"
#include "tests/model/operation.h"
#include "tests/model/progress.h"
#include "tests/model/run_operations.h"

ABSL_FLAG(uint64_t, operations, 1'000'000,
          "How many operations all shards together do.");
ABSL_FLAG(uint64_t, seed, 1, "Seed of the whole run.");
ABSL_FLAG(std::string, shard, "0/1",
          "i/n: do the i-th (from 0) of n parts of the run.");
ABSL_FLAG(std::string, mmu, "",
          "tdp, tdp_shadow, shadow, nested or stage2. Empty: as the seed of "
          "each block says.");
ABSL_FLAG(std::string, state, "",
          "File that keeps the progress. If it exists, the run continues where "
          "it was. Empty: none.");
ABSL_FLAG(bool, restart, false, "Begin anew, whatever --state has.");
ABSL_FLAG(double, minutes, 0,
          "Stop after the block that ends after so many minutes. 0: do not.");
ABSL_FLAG(uint64_t, block_operations, 20'000,
          "Operations of one block, which has a VM of its own.");
ABSL_FLAG(uint64_t, check_every, 2'000,
          "Compare all of a VM after so many operations, and at the end of a "
          "block.");
ABSL_FLAG(int64_t, block, -1,
          "Do only the block with this number, to repeat a difference.");
ABSL_FLAG(double, minimise_seconds, 120,
          "How long to look for a shorter sequence after a difference. 0: do "
          "not, and print none.");
ABSL_FLAG(uint64_t, drop_mark, 0,
          "Lose the so-manieth mark of a page that was dirty and cleared "
          "before, in each block, to see that it is noticed. 0: none.");
ABSL_FLAG(bool, forget_invalidations, false,
          "Let the guest believe that it has invalidated translations, to see "
          "that it is noticed.");

namespace mmu::testing {
namespace {

constexpr int kDone = 0;
constexpr int kDiffers = 1;
constexpr int kWrongUse = 2;
constexpr int kTimeOver = 3;

double CpuSeconds() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

// Blocks are numbered over all shards: shard i of n does those with k % n == i.
// So the blocks of a run do not depend on the number of shards.
uint64_t SeedOfBlock(uint64_t seed, uint64_t block) {
  return MixBits(MixBits(seed) + block) >> 16;
}

class ModelRun {
 public:
  ModelRun(Progress progress, absl::optional<MmuMode> mmu)
      : progress_(std::move(progress)), mmu_(mmu) {
    options_.check_every = absl::GetFlag(FLAGS_check_every);
    if (absl::GetFlag(FLAGS_forget_invalidations)) {
      options_.mistakes.guest = GuestMistake::kForgetsToInvalidate;
    }
  }

  int RunAll() {
    const MonotonicTime begin = MonotonicTime::Now();
    const double minutes = absl::GetFlag(FLAGS_minutes);
    const ShardOfRun& run = progress_.run;
    MonotonicTime next_report = begin;
    for (;;) {
      const uint64_t block = progress_.blocks_done * run.shards + run.shard;
      if (block * run.block_operations >= absl::GetFlag(FLAGS_operations)) {
        return End(kDone, "all operations are done, no difference");
      }
      if (minutes > 0 &&
          MonotonicTime::Now() - begin > absl::Minutes(1) * minutes) {
        return End(kTimeOver, "the time is over, no difference so far");
      }
      if (!RunBlock(block)) return End(kDiffers, "a difference was found");
      ++progress_.blocks_done;
      const std::string file = absl::GetFlag(FLAGS_state);
      if (!file.empty()) {
        if (absl::Status s = WriteProgress(file, progress_); !s.ok()) {
          std::fprintf(stderr, "%s\n", s.ToString().c_str());
          return kWrongUse;
        }
      }
      if (MonotonicTime::Now() >= next_report) {
        PrintCount();
        next_report = MonotonicTime::Now() + absl::Seconds(30);
      }
    }
  }

  int RunOne(uint64_t block) {
    return RunBlock(block) ? End(kDone, "no difference")
                           : End(kDiffers, "a difference was found");
  }

 private:
  // False: there was a difference, which is printed.
  bool RunBlock(uint64_t block) {
    const ShardOfRun& run = progress_.run;
    const uint64_t seed = SeedOfBlock(run.seed, block);
    const ModelConfig config = RandomModelConfig(seed, mmu_);
    const std::vector<Operation> operations =
        RandomOperations(seed, run.block_operations, config);
    ArmDropOneMark(absl::GetFlag(FLAGS_drop_mark));
    const double begin = CpuSeconds();
    const std::optional<Difference> found =
        FindDifference(operations, config, options_);
    const auto mode = static_cast<size_t>(config.vm.mmu);
    progress_.operations[mode] +=
        found.has_value() ? found->step + 1 : operations.size();
    progress_.cpu_seconds[mode] += CpuSeconds() - begin;
    if (!found.has_value()) return true;
    Report(block, config, operations, *found);
    return false;
  }

  void Report(uint64_t block, const ModelConfig& config,
              const std::vector<Operation>& operations,
              const Difference& found) {
    const std::string mark = DroppedMark();
    std::printf("\nDIFFERENCE in block %lu, %s\n  step %zu: %s\n", block,
                Describe(config).c_str(), found.step, found.problem.c_str());
    if (!mark.empty()) {
      std::printf("  (the mark of %s was dropped on purpose)\n", mark.c_str());
    }
    std::printf(
        "  again: model_run --seed=%lu --block=%lu%s%s", progress_.run.seed,
        block,
        absl::StrCat(" --block_operations=", progress_.run.block_operations)
            .c_str(),
        mmu_.has_value() ? absl::StrCat(" --mmu=", progress_.run.mmu).c_str()
                         : "");
    std::printf("\nshortening it, for at most %.0f s\n",
                absl::GetFlag(FLAGS_minimise_seconds));
    std::fflush(stdout);
    // A dropped mark is the nth of one sequence: another has others.
    if (absl::GetFlag(FLAGS_drop_mark) != 0 ||
        absl::GetFlag(FLAGS_minimise_seconds) <= 0) {
      return;
    }
    RunOptions options = options_;
    const std::vector<Operation> fewest =
        Minimise(operations, config, options,
                 absl::Seconds(1) * absl::GetFlag(FLAGS_minimise_seconds));
    options.check_every = 1;
    std::string text = RunOperations(fewest, config, options);
    if (text.empty()) text = RunOperations(fewest, config, options_);
    std::printf("%s\n", text.c_str());
  }

  void PrintCount() const {
    std::printf("seed %lu, shard %lu/%lu: %lu blocks, %lu operations\n",
                progress_.run.seed, progress_.run.shard, progress_.run.shards,
                progress_.blocks_done, progress_.AllOperations());
    std::fflush(stdout);
  }

  int End(int code, const char* how) const {
    std::printf("\n%-12s %16s %16s\n", "MMU", "OPERATIONS", "PER CPU SECOND");
    for (size_t i = 0; i < Progress::kModes; ++i) {
      const uint64_t n = progress_.operations[i];
      if (n == 0) continue;
      std::printf("%-12s %16lu %16.0f\n", ToString(static_cast<MmuMode>(i)), n,
                  static_cast<double>(n) / progress_.cpu_seconds[i]);
    }
    std::printf("%-12s %16lu\n", "all", progress_.AllOperations());
    PrintCount();
    std::printf("%s\n", how);
    return code;
  }

  Progress progress_;
  const absl::optional<MmuMode> mmu_;
  RunOptions options_;
};

// Reads the flags. False: one is wrong, which was printed.
bool ReadFlags(ShardOfRun* run, absl::optional<MmuMode>* mmu) {
  run->seed = absl::GetFlag(FLAGS_seed);
  run->mmu = absl::GetFlag(FLAGS_mmu);
  run->block_operations = absl::GetFlag(FLAGS_block_operations);
  if (!run->mmu.empty()) {
    *mmu = ParseMmuMode(run->mmu);
    if (!mmu->has_value()) {
      std::fprintf(stderr, "--mmu=%s: no such mode\n", run->mmu.c_str());
      return false;
    }
  }
  const std::string shard = absl::GetFlag(FLAGS_shard);
  const std::vector<std::string> parts = absl::StrSplit(shard, '/');
  if (parts.size() != 2 || !absl::SimpleAtoi(parts[0], &run->shard) ||
      !absl::SimpleAtoi(parts[1], &run->shards) || run->shard >= run->shards) {
    std::fprintf(stderr, "--shard=%s: give i/n, i from 0 to n - 1\n",
                 shard.c_str());
    return false;
  }
  if (run->block_operations == 0 || absl::GetFlag(FLAGS_check_every) == 0) {
    std::fprintf(stderr,
                 "--block_operations and --check_every are at least 1\n");
    return false;
  }
  return true;
}

// Continues what --state has. False: it belongs to something else, which was
// printed.
bool Continue(const std::string& file, Progress* progress) {
  const absl::StatusOr<std::string> binary = DigestOfFile("/proc/self/exe");
  if (!binary.ok()) {
    std::fprintf(stderr, "%s\n", binary.status().ToString().c_str());
    return false;
  }
  progress->binary = *binary;
  if (absl::GetFlag(FLAGS_restart)) return true;
  const absl::StatusOr<Progress> kept = ReadProgress(file);
  if (absl::IsNotFound(kept.status())) return true;
  if (!kept.ok()) {
    std::fprintf(stderr, "%s\n", kept.status().ToString().c_str());
    return false;
  }
  if (kept->run != progress->run) {
    std::fprintf(stderr,
                 "--state=%s is of another run: seed, shard, mmu or "
                 "block_operations differ\n",
                 file.c_str());
    return false;
  }
  // A sum of operations says something about one program only.
  if (kept->binary != *binary) {
    std::fprintf(stderr,
                 "--state=%s is of another program: the binary that wrote it "
                 "has the digest %s, this one has %s; give another --state "
                 "(run_shards: --dir), or begin anew with --restart\n",
                 file.c_str(), kept->binary.c_str(), binary->c_str());
    return false;
  }
  *progress = *kept;
  return true;
}

int Main() {
  Progress progress;
  absl::optional<MmuMode> mmu;
  if (!ReadFlags(&progress.run, &mmu)) return kWrongUse;
  if (const int64_t block = absl::GetFlag(FLAGS_block); block >= 0) {
    return ModelRun(progress, mmu).RunOne(static_cast<uint64_t>(block));
  }
  const std::string file = absl::GetFlag(FLAGS_state);
  if (!file.empty() && !Continue(file, &progress)) return kWrongUse;
  return ModelRun(progress, mmu).RunAll();
}

}  // namespace
}  // namespace mmu::testing

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage(
      "runs random operations on VMs of all kinds and compares them with a "
      "flat model.\n\n"
      "  model_run --operations=10000000 --seed=7\n"
      "  model_run --operations=1000000000 --shard=0/2 --state=/tmp/model.0\n"
      "  model_run --seed=7 --block=12345    one block again\n\n"
      "The run is cut into blocks. Each has a seed that follows from --seed "
      "and its number, and a VM of its own. With --state a run that was "
      "killed continues with the block in which it was killed. run_shards "
      "starts a process per core.\n\n"
      "Exit code 0: all operations are done. 1: a difference was found; the "
      "command that repeats it and a short sequence are printed. 2: a flag is "
      "wrong. 3: the time is over.");
  absl::ParseCommandLine(argc, argv);
  return mmu::testing::Main();
}
