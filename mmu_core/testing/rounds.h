// The number of rounds of a stress test.

#ifndef MMU_CORE_TESTING_ROUNDS_H_
#define MMU_CORE_TESTING_ROUNDS_H_

#include <chrono>

namespace mmu::testing {

// Counts the rounds of a stress test in which one thread waits for another. It
// allows the requested number of rounds. It allows fewer if each round takes
// long, because the other thread lost its processor to other work or to a
// sanitizer, but always at least one in twenty. Externally synchronised:
// belongs to the thread that counts.
class Rounds {
 public:
  explicit Rounds(int wanted) : wanted_(wanted) {}

  // Returns true if one more round is to be done, and counts it.
  bool Next() {
    if (done_ >= wanted_) return false;
    if (done_ >= wanted_ / 20 &&
        std::chrono::steady_clock::now() - begin_ > kEnough) {
      return false;
    }
    ++done_;
    return true;
  }
  int done() const { return done_; }

 private:
  static constexpr std::chrono::seconds kEnough{5};

  const int wanted_;
  const std::chrono::steady_clock::time_point begin_ =
      std::chrono::steady_clock::now();
  int done_ = 0;
};

}  // namespace mmu::testing

#endif  // MMU_CORE_TESTING_ROUNDS_H_
