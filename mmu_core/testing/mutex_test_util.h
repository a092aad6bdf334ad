// Whether some thread holds a Mutex, for tests of what is called under it.

#ifndef MMU_CORE_TESTING_MUTEX_TEST_UTIL_H_
#define MMU_CORE_TESTING_MUTEX_TEST_UTIL_H_

#include <thread>

#include "mmu_core/base/mutex.h"

namespace mmu::testing {

// Returns whether a thread holds `mutex`. Another thread tries the mutex,
// because the caller may be the holder. The answer is certain only while no
// other thread takes or releases the mutex.
inline bool IsHeld(Mutex& mutex) {
  bool held = true;
  std::thread([&] {
    if (!mutex.TryLock()) return;
    held = false;
    mutex.Unlock();
  }).join();
  return held;
}

}  // namespace mmu::testing

#endif  // MMU_CORE_TESTING_MUTEX_TEST_UTIL_H_
