// A fuzz target: code that reads input from outside, and what holds for every
// input. Two programs feed it: libfuzzer_main.cc searches for inputs,
// replay_main.cc runs the corpus.

#ifndef TESTS_FUZZ_TARGET_H_
#define TESTS_FUZZ_TARGET_H_

#include <cstdlib>
#include <iostream>
#include <string>
#include <string_view>
#include <vector>

#include "tests/fuzz/mutation.h"

namespace mmud::fuzz {

// Ends the program, which saves the input, unless `condition` holds. `text` is
// streamed and says what was found.
#define FUZZ_CHECK(condition, text)                                            \
  do {                                                                         \
    if (!(condition)) {                                                        \
      std::cerr << __FILE__ << ":" << __LINE__ << ": " #condition ": " << text \
                << std::endl; /* NOLINT(bugprone-macro-paren) */               \
      std::abort();                                                            \
    }                                                                          \
  } while (false)

// A valid input, from which the corpus begins. A value.
struct Seed {
  std::string name;  // of its file: a-z, 0-9 and '_'
  std::string bytes;
};

// A value.
struct Target {
  // Runs one input; the program ends if something is wrong. Keeps nothing that
  // changes what a later input does.
  void (*run)(std::string_view input);
  std::vector<Seed> (*seeds)();
  // Changes an input in a way that knows its form, for example its checksums.
  std::string (*mutate)(std::string input, Random& random) = MutateBytes;
};

// The target of this program. Each target's library defines it.
Target ThisTarget();

}  // namespace mmud::fuzz

#endif  // TESTS_FUZZ_TARGET_H_
