// Random numbers that are the same on every machine for a seed.
//
// std::mt19937_64 is specified to the bit. The standard library's distributions
// are not; the functions here are.

#ifndef MMU_CORE_GUEST_RANDOM_H_
#define MMU_CORE_GUEST_RANDOM_H_

#include <cstdint>
#include <random>

#include "absl/numeric/int128.h"

namespace mmu {

using Rng = std::mt19937_64;

// Spreads every bit of `x` over all 64 bits; a bijection. Turns neighbouring
// numbers into unrelated seeds.
constexpr uint64_t MixBits(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// Uniform in [0, n); off by less than n / 2^64. REQUIRES: n > 0.
inline uint64_t UniformBelow(Rng& rng, uint64_t n) {
  return absl::Uint128High64(absl::uint128(rng()) * n);
}

// Uniform in [0, 1), a multiple of 2^-53.
inline double UniformUnit(Rng& rng) {
  return static_cast<double>(rng() >> 11) * 0x1.0p-53;
}

}  // namespace mmu

#endif  // MMU_CORE_GUEST_RANDOM_H_
