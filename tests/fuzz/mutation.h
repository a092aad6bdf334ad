// Random changes of inputs that know nothing of their form.

#ifndef TESTS_FUZZ_MUTATION_H_
#define TESTS_FUZZ_MUTATION_H_

#include <cstddef>
#include <cstdint>
#include <random>
#include <string>

namespace mmud::fuzz {

// The same sequence on every machine.
using Random = std::mt19937_64;

// A number in [0, limit). REQUIRES: limit > 0.
inline uint64_t Below(Random& random, uint64_t limit) {
  return random() % limit;
}

// Inputs do not grow beyond this.
inline constexpr size_t kMaxInputBytes = 16 << 10;

// Changes, inserts, removes, repeats or cuts off bytes at one to four places.
std::string MutateBytes(std::string input, Random& random);

}  // namespace mmud::fuzz

#endif  // TESTS_FUZZ_MUTATION_H_
