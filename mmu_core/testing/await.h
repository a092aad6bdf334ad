// Waits for other threads in tests, that end.

#ifndef MMU_CORE_TESTING_AWAIT_H_
#define MMU_CORE_TESTING_AWAIT_H_

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>

namespace mmu::testing {

// Longer than any step of a test takes, also on a machine with other work.
inline constexpr std::chrono::seconds kPatience(60);

// Waits until `is_true()`. If that takes longer than kPatience, prints `what`
// and ends the program: a broken rule shows as a failure, not as a hang.
template <typename Fn>
void Await(const char* what, const Fn& is_true) {
  const auto end = std::chrono::steady_clock::now() + kPatience;
  while (!is_true()) {
    if (std::chrono::steady_clock::now() > end) {
      std::fprintf(stderr, "waited in vain for this: %s\n", what);
      std::abort();
    }
    std::this_thread::yield();
  }
}

}  // namespace mmu::testing

#endif  // MMU_CORE_TESTING_AWAIT_H_
