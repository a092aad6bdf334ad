#include "bench/working_set_accuracy/accuracy.h"

#include <cstdint>
#include <optional>

namespace mmu::bench {
namespace {

std::optional<double> Part(uint64_t part, uint64_t whole) {
  if (whole == 0) return std::nullopt;
  return static_cast<double>(part) / static_cast<double>(whole);
}

}  // namespace

std::optional<double> Precision(const SetOverlap& overlap) {
  return Part(overlap.both, overlap.measured);
}

std::optional<double> Recall(const SetOverlap& overlap) {
  return Part(overlap.both, overlap.truth);
}

std::optional<double> RelativeError(uint64_t estimate, uint64_t truth) {
  const std::optional<double> part = Part(estimate, truth);
  if (!part.has_value()) return std::nullopt;
  return *part - 1;
}

}  // namespace mmu::bench
