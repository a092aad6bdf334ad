// The time that the calling thread has spent on a processor.

#ifndef SERVER_BASE_THREAD_CPU_TIME_H_
#define SERVER_BASE_THREAD_CPU_TIME_H_

#include <ctime>

#include "absl/time/time.h"

namespace mmud {

inline absl::Duration ThreadCpuTime() {
  timespec time = {};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return absl::DurationFromTimespec(time);
}

// The pause after which a thread that used `cpu_time` has used `percent` of a
// processor, 1 to 100.
inline absl::Duration PauseForBudget(absl::Duration cpu_time, int percent) {
  return cpu_time * (100 - percent) / percent;
}

}  // namespace mmud

#endif  // SERVER_BASE_THREAD_CPU_TIME_H_
