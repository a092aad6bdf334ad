// Draws ranks by Zipf's law.

#ifndef MMU_CORE_GUEST_ZIPF_SAMPLER_H_
#define MMU_CORE_GUEST_ZIPF_SAMPLER_H_

#include <cstdint>

#include "mmu_core/guest/random.h"

namespace mmu {

// Draws rank r of 0..count-1 with a probability proportional to (r +
// 1)^-exponent, by rejection-inversion (W. Hoermann and G. Derflinger,
// "Rejection-inversion to generate variates from monotone discrete
// distributions", 1996): constant time and no table, for any count.
// absl::zipf_distribution requires an exponent above 1; memory and caches are
// usually modelled with 0.99. A value. Thread-compatible.
class ZipfSampler {
 public:
  // REQUIRES: count > 0, 0 < exponent <= 10.
  ZipfSampler(uint64_t count, double exponent);

  uint64_t Sample(Rng& rng) const;

 private:
  // The integral of x^-exponent from 1 to x, and its inverse.
  double Integral(double x) const;
  double InverseIntegral(double y) const;
  double Density(double x) const;

  double count_;
  double exponent_;
  double area_low_;   // the area at which rank 1 (counted from 1) begins
  double area_high_;  // the area at which the last rank ends
  double shortcut_;   // a candidate this near its rank is always accepted
};

}  // namespace mmu

#endif  // MMU_CORE_GUEST_ZIPF_SAMPLER_H_
