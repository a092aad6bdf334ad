// Thread creation that reports failure. A host limits the number of threads
// (RLIMIT_NPROC, a control group's pids, memory for stacks). At the limit
// std::thread alone ends the program; these functions return an error to the
// caller.

#ifndef MMU_CORE_BASE_THREAD_H_
#define MMU_CORE_BASE_THREAD_H_

#include <cstdint>
#include <functional>
#include <string_view>
#include <thread>

#include "absl/status/statusor.h"

namespace mmu {

// Makes a thread that runs `body`. UNAVAILABLE THREADS_EXHAUSTED, errno EAGAIN,
// if the host refuses the thread; RESOURCE_EXHAUSTED RESOURCE_EXHAUSTED_MEMORY
// if there is no memory for it. After an error `body` never runs.
absl::StatusOr<std::thread> MakeThread(std::function<void()> body);

// The same for a thread that a program needs in order to start: on failure it
// prints an error with `purpose` on stderr and exits with code 1.
std::thread MakeThreadOrExit(std::string_view purpose,
                             std::function<void()> body);

// For tests: allows only `count` more threads to be made by these functions;
// negative removes the limit. Thread-safe.
void LimitThreads(int64_t count);

}  // namespace mmu

#endif  // MMU_CORE_BASE_THREAD_H_
