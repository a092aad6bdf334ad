#include "mmu_core/guest/zipf_sampler.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "mmu_core/base/check.h"

namespace mmu {
namespace {

// (e^t - 1) / t and log(1 + t) / t, continuous at t = 0: so an exponent of 1 or
// close to it needs no special case.
double ExpRatio(double t) {
  return std::abs(t) > 1e-8 ? std::expm1(t) / t : 1 + t / 2;
}
double LogRatio(double t) {
  return std::abs(t) > 1e-8 ? std::log1p(t) / t : 1 - t / 2;
}

}  // namespace

ZipfSampler::ZipfSampler(uint64_t count, double exponent)
    : count_(static_cast<double>(count)), exponent_(exponent) {
  MMU_CHECK(count > 0);
  MMU_CHECK(exponent > 0 && exponent <= 10);
  area_low_ = Integral(1.5) - 1;
  area_high_ = Integral(count_ + 0.5);
  shortcut_ = 2 - InverseIntegral(Integral(2.5) - Density(2));
}

double ZipfSampler::Integral(double x) const {
  const double log_x = std::log(x);
  return ExpRatio((1 - exponent_) * log_x) * log_x;
}

double ZipfSampler::InverseIntegral(double y) const {
  const double t = std::max(-1.0, y * (1 - exponent_));
  return std::exp(LogRatio(t) * y);
}

double ZipfSampler::Density(double x) const {
  return std::exp(-exponent_ * std::log(x));
}

uint64_t ZipfSampler::Sample(Rng& rng) const {
  while (true) {
    const double area =
        area_high_ + UniformUnit(rng) * (area_low_ - area_high_);
    const double x = InverseIntegral(area);
    const double rank = std::clamp(std::floor(x + 0.5), 1.0, count_);
    if (rank - x <= shortcut_ || area >= Integral(rank + 0.5) - Density(rank)) {
      return static_cast<uint64_t>(rank) - 1;
    }
  }
}

}  // namespace mmu
