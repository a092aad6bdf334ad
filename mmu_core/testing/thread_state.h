// Whether another thread of the test waits.

#ifndef MMU_CORE_TESTING_THREAD_STATE_H_
#define MMU_CORE_TESTING_THREAD_STATE_H_

#include <sys/types.h>

#include <cstddef>
#include <fstream>
#include <string>

namespace mmu::testing {

// Whether the thread `tid` (gettid) of this process sleeps in the kernel, for
// example for a mutex or a futex (state S of proc(5)). False if it has ended.
inline bool IsAsleep(pid_t tid) {
  std::ifstream file("/proc/self/task/" + std::to_string(tid) + "/stat");
  std::string line;
  std::getline(file, line);
  // The thread's name, in parentheses, may contain anything.
  const size_t end_of_name = line.rfind(')');
  return end_of_name != std::string::npos && line.size() > end_of_name + 2 &&
         line[end_of_name + 2] == 'S';
}

}  // namespace mmu::testing

#endif  // MMU_CORE_TESTING_THREAD_STATE_H_
