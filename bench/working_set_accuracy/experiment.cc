#include "bench/working_set_accuracy/experiment.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "bench/working_set_accuracy/page_history.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/guest/access_source.h"
#include "mmu_core/guest/gpa_space.h"
#include "mmu_core/guest/guest_access.h"
#include "mmu_core/working_set/generation_age.h"

namespace mmu::bench {
namespace {

// One run, interval by interval.
class Run {
 public:
  Run(const Experiment& experiment, absl::Span<const Tracker> trackers,
      std::unique_ptr<AccessSource> source)
      : experiment_(experiment),
        trackers_(trackers),
        source_(std::move(source)),
        truth_(experiment.pages) {
    for (const Tracker& tracker : trackers) {
      vms_.push_back(
          std::make_unique<TrackedVm>(tracker.staleness, experiment.pages));
    }
    result_.trackers.resize(trackers.size());
  }

  absl::StatusOr<ExperimentResult> All() {
    const uint64_t interval = experiment_.accesses_per_generation;
    MMU_CHECK(experiment_.first_access >= kMaxWindow * interval);
    Take(experiment_.first_access - kMaxWindow * interval);
    for (uint32_t i = 0; i < kMaxWindow; ++i) MakeInterval();
    for (uint64_t i = 0; i < experiment_.measured_accesses / interval; ++i) {
      MakeInterval();
      Compare();
    }
    if (!source_->status().ok()) return source_->status();
    return std::move(result_);
  }

 private:
  // Takes accesses from the source; an idle guest has none.
  void Take(uint64_t count) {
    accesses_.clear();
    GuestAccess access;
    while (accesses_.size() < count && source_->Next(&access)) {
      accesses_.push_back(access);
    }
    taken_ += accesses_.size();
  }

  void MakeInterval() {
    Take(experiment_.accesses_per_generation);
    for (const GuestAccess& access : accesses_) {
      truth_.Access(access.address_bytes >> kPageShift);
    }
    truth_.EndInterval();
    for (size_t i = 0; i < vms_.size(); ++i) {
      for (const GuestAccess& access : accesses_) vms_[i]->Access(access);
      vms_[i]->MakeGeneration(trackers_[i].scope);
    }
  }

  void Compare() {
    std::vector<bool> design;
    if (experiment_.design == Experiment::Design::kKnown) {
      design = HotByDesign(experiment_.workload, experiment_.pages, taken_);
    }
    std::array<uint64_t, kWindows.size()> accessed;
    for (size_t w = 0; w < kWindows.size(); ++w) {
      accessed[w] = truth_.CountWithin(kWindows[w]);
      result_.accessed_pages[w].Add(static_cast<double>(accessed[w]));
    }
    for (size_t i = 0; i < vms_.size(); ++i) {
      TrackerAccuracy& accuracy = result_.trackers[i];
      const TrackedVm& vm = *vms_[i];
      const std::vector<GenerationAge> ages = vm.Ages();
      for (size_t page = 0; page < ages.size(); ++page) {
        accuracy.hot.Count(ages[page] == 0, truth_.AccessedWithin(page, 1));
      }
      accuracy.examined.Add(static_cast<double>(vm.totals().mapped_pages) /
                            static_cast<double>(experiment_.pages));
      const std::vector<uint64_t> estimates = vm.WorkingSetPages(kWindows);
      for (size_t w = 0; w < kWindows.size(); ++w) {
        accuracy.working_set[w].Add(RelativeError(estimates[w], accessed[w]));
        for (size_t page = 0; page < design.size(); ++page) {
          accuracy.by_design[w].Count(ages[page] < kWindows[w], design[page]);
        }
      }
    }
  }

  const Experiment& experiment_;
  const absl::Span<const Tracker> trackers_;
  const std::unique_ptr<AccessSource> source_;
  PageHistory truth_;
  std::vector<std::unique_ptr<TrackedVm>> vms_;
  std::vector<GuestAccess> accesses_;  // of the last interval
  uint64_t taken_ = 0;
  ExperimentResult result_;
};

}  // namespace

absl::StatusOr<ExperimentResult> RunExperiment(
    const Experiment& experiment, absl::Span<const Tracker> trackers) {
  absl::StatusOr<GpaSpace> space =
      GpaSpace::Create({GfnRange::Of(Gfn(0), experiment.pages)});
  if (!space.ok()) return space.status();
  absl::StatusOr<std::unique_ptr<AccessSource>> source =
      OpenWorkload(experiment.workload, *space);
  if (!source.ok()) return source.status();
  return Run(experiment, trackers, *std::move(source)).All();
}

}  // namespace mmu::bench
