#include "tests/model/run_operations.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/guest/random.h"
#include "mmu_core/testing/mmu_mode_names.h"

namespace mmu::testing {
namespace {

std::string CodeOf(const ModelConfig& config) {
  if (config.seed == 0) return "the VM of the test";
  std::string mode = ToString(config.vm.mmu);
  return absl::StrCat("RandomModelConfig(", config.seed, ", *ParseMmuMode(\"",
                      mode, "\"))");
}

// Shortens one sequence.
class Minimiser {
 public:
  Minimiser(std::vector<Operation> operations, const ModelConfig& config,
            const RunOptions& options, absl::Duration budget)
      : operations_(std::move(operations)),
        config_(config),
        options_(options),
        end_(MonotonicTime::Now() + budget) {}

  std::vector<Operation> Run() {
    // What is found after the difference does not matter.
    Try(operations_);
    for (size_t chunk = std::max<size_t>(operations_.size() / 2, 1);;
         chunk /= 2) {
      RemoveChunks(chunk);
      if (chunk == 1) break;
    }
    // An operation may be needed only for one that is gone by now.
    RemoveChunks(1);
    ShrinkNumbers();
    return std::move(operations_);
  }

 private:
  // If `shorter` finds a difference, keeps its part up to there.
  bool Try(std::vector<Operation> shorter) {
    if (MonotonicTime::Now() > end_) return false;
    // In a short sequence a difference is found where it arises.
    RunOptions options = options_;
    if (shorter.size() <= kShort) options.check_every = 1;
    const std::optional<Difference> found =
        FindDifference(shorter, config_, options);
    if (!found.has_value()) return false;
    shorter.resize(found->step + 1);
    operations_ = std::move(shorter);
    return true;
  }

  // Removes pieces of `chunk` operations, from the end to the beginning.
  void RemoveChunks(size_t chunk) {
    size_t end = operations_.size();
    while (end > 0) {
      const size_t begin = end - std::min(end, chunk);
      std::vector<Operation> shorter = operations_;
      shorter.erase(shorter.begin() + static_cast<ptrdiff_t>(begin),
                    shorter.begin() + static_cast<ptrdiff_t>(end));
      if (!shorter.empty()) Try(std::move(shorter));
      end = std::min(begin, operations_.size());
    }
  }

  void ShrinkNumbers() {
    for (size_t i = 0; i < operations_.size(); ++i) {
      for (uint32_t Operation::*number :
           {&Operation::a, &Operation::b, &Operation::c}) {
        for (const uint32_t divisor : {0u, 16u, 2u}) {
          const uint32_t old = operations_[i].*number;
          const uint32_t smaller = divisor == 0 ? 0 : old / divisor;
          if (smaller == old) continue;
          std::vector<Operation> simpler = operations_;
          simpler[i].*number = smaller;
          Try(std::move(simpler));
          if (i >= operations_.size()) return;
        }
      }
    }
  }

  static constexpr size_t kShort = 300;

  std::vector<Operation> operations_;
  const ModelConfig config_;
  const RunOptions options_;
  const MonotonicTime end_;
};

}  // namespace

std::optional<Difference> FindDifference(
    const std::vector<Operation>& operations, const ModelConfig& config,
    const RunOptions& options) {
  ModelVm vm(config, options.mistakes);
  for (size_t i = 0; i < operations.size(); ++i) {
    std::string problem = vm.Step(operations[i]);
    const bool check =
        (i + 1) % options.check_every == 0 || i + 1 == operations.size();
    if (problem.empty() && check) problem = vm.CheckAll();
    if (!problem.empty()) return Difference{problem, i};
  }
  return std::nullopt;
}

std::vector<Operation> RandomOperations(uint64_t seed, size_t count,
                                        const ModelConfig& config) {
  Rng rng(MixBits(seed + 1));
  std::vector<Operation> operations;
  operations.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    operations.push_back(RandomOperation(rng, GuestHasTables(config.vm)
                                                  ? GuestTablesUse::kYes
                                                  : GuestTablesUse::kNo));
  }
  return operations;
}

std::vector<Operation> Minimise(std::vector<Operation> operations,
                                const ModelConfig& config,
                                const RunOptions& options,
                                absl::Duration budget) {
  return Minimiser(std::move(operations), config, options, budget).Run();
}

std::string RunOperations(const std::vector<Operation>& operations,
                          const ModelConfig& config,
                          const RunOptions& options) {
  const std::optional<Difference> found =
      FindDifference(operations, config, options);
  if (!found.has_value()) return "";
  std::string report = absl::StrCat(found->problem, "\nafter step ",
                                    found->step, " of RunOperations({\n");
  for (size_t i = 0; i <= found->step; ++i) {
    absl::StrAppend(&report, "    ", ToString(operations[i]), "\n");
  }
  return absl::StrCat(report, "}, ", CodeOf(config), ")\n", Describe(config));
}

}  // namespace mmu::testing
