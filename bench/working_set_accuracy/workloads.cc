#include "bench/working_set_accuracy/workloads.h"

#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "mmu_core/base/check.h"
#include "mmu_core/guest/access_source.h"
#include "mmu_core/guest/gpa_space.h"
#include "mmu_core/guest/guest_access.h"
#include "mmu_core/guest/page_permutation.h"
#include "mmu_core/guest/pattern.h"
#include "mmu_core/guest/pattern_spec.h"
#include "mmu_core/guest/trace_replay.h"
#include "trace/trace_reader.h"

namespace mmu::bench {
namespace {

class IdleSource final : public AccessSource {
 public:
  bool Next(GuestAccess*) override { return false; }
};

AccuracyWorkload Pattern(const std::string& name, PatternSpec::Kind kind) {
  PatternSpec spec;
  spec.kind = kind;
  spec.hot_fraction = kHotFraction;
  return {.name = name, .pattern = spec, .trace_path = ""};
}

AccuracyWorkload Trace(const std::string& name, const std::string& traces) {
  return {.name = name,
          .pattern = std::nullopt,
          .trace_path = absl::StrCat(traces, "/", name, ".trace")};
}

}  // namespace

AccuracyWorkload HotCold() {
  return Pattern("hot/cold", PatternSpec::Kind::kHotCold);
}

AccuracyWorkload DriftingHotCold() {
  AccuracyWorkload workload =
      Pattern("hot/cold, drifting", PatternSpec::Kind::kHotCold);
  workload.pattern->drift_pages_per_million_accesses = 20'000;
  return workload;
}

AccuracyWorkload Zipf() { return Pattern("zipf", PatternSpec::Kind::kZipf); }

std::vector<AccuracyWorkload> AllWorkloads(const std::string& traces) {
  return {HotCold(),
          DriftingHotCold(),
          Zipf(),
          Pattern("uniform", PatternSpec::Kind::kUniform),
          {.name = "idle", .pattern = std::nullopt, .trace_path = ""},
          Trace("sort", traces),
          Trace("sqlite3", traces),
          Trace("gzip", traces)};
}

absl::StatusOr<std::unique_ptr<AccessSource>> OpenWorkload(
    const AccuracyWorkload& workload, const GpaSpace& space) {
  if (workload.pattern.has_value()) {
    return MakePattern(*workload.pattern, space, /*vcpu_index=*/0,
                       /*vcpu_count=*/1);
  }
  if (workload.trace_path.empty()) return std::make_unique<IdleSource>();
  auto reader = mmud::trace::TraceReader::Open(workload.trace_path);
  if (!reader.ok()) return reader.status();
  TraceReplayOptions options;
  options.repeat_count = 0;
  return std::make_unique<TraceReplaySource>(*std::move(reader), space,
                                             options);
}

std::vector<bool> HotByDesign(const AccuracyWorkload& workload, uint64_t pages,
                              uint64_t accesses) {
  MMU_CHECK(workload.pattern.has_value());
  const PatternSpec& spec = *workload.pattern;
  const auto hot_pages = static_cast<uint64_t>(
      std::round(kHotFraction * static_cast<double>(pages)));
  std::vector<bool> hot(pages);
  if (spec.kind == PatternSpec::Kind::kZipf) {
    const PagePermutation order(pages, spec.seed);
    for (uint64_t i = 0; i < hot_pages; ++i) hot[order.At(i)] = true;
    return hot;
  }
  MMU_CHECK(spec.kind == PatternSpec::Kind::kHotCold);
  const uint64_t start =
      accesses * spec.drift_pages_per_million_accesses / 1'000'000;
  for (uint64_t i = 0; i < hot_pages; ++i) hot[(start + i) % pages] = true;
  return hot;
}

}  // namespace mmu::bench
