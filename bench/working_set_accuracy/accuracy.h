// How far a measured set of pages, or its size, is from the true one.

#ifndef BENCH_WORKING_SET_ACCURACY_ACCURACY_H_
#define BENCH_WORKING_SET_ACCURACY_ACCURACY_H_

#include <cstdint>
#include <optional>

namespace mmu::bench {

// Numbers of pages: of the measured set, of the true set, and of those in both.
// The numbers of several pairs of sets may be added up. A value.
struct SetOverlap {
  uint64_t measured = 0;
  uint64_t truth = 0;
  uint64_t both = 0;

  void Count(bool is_measured, bool is_true) {
    measured += is_measured;
    truth += is_true;
    both += is_measured && is_true;
  }
  friend bool operator==(const SetOverlap&, const SetOverlap&) = default;
};

// The part of the measured pages that are true ones, from 0 to 1. Nothing if
// nothing was measured: a claim that was not made is neither right nor wrong.
std::optional<double> Precision(const SetOverlap& overlap);

// The part of the true pages that were measured, from 0 to 1. Nothing if there
// are no true pages.
std::optional<double> Recall(const SetOverlap& overlap);

// (estimate - truth) / truth: below 0 if the estimate is too low. Nothing if
// the truth is 0.
std::optional<double> RelativeError(uint64_t estimate, uint64_t truth);

// The mean of the values that there are. A value.
class Mean {
 public:
  void Add(std::optional<double> value) {
    if (!value.has_value()) return;
    sum_ += *value;
    ++count_;
  }
  // Nothing if there was no value.
  std::optional<double> Get() const {
    if (count_ == 0) return std::nullopt;
    return sum_ / static_cast<double>(count_);
  }

 private:
  double sum_ = 0;
  uint64_t count_ = 0;
};

}  // namespace mmu::bench

#endif  // BENCH_WORKING_SET_ACCURACY_ACCURACY_H_
