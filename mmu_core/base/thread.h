// Making threads. A host has only so many (RLIMIT_NPROC, the pids of a control
// group, memory for stacks), and whoever asks for one too many shall hear so
// and go on; std::thread by itself ends the program.

#ifndef MMU_CORE_BASE_THREAD_H_
#define MMU_CORE_BASE_THREAD_H_

#include <cstdint>
#include <functional>
#include <string_view>
#include <thread>

#include "absl/status/statusor.h"

namespace mmu {

// A thread that runs `body`. UNAVAILABLE THREADS_EXHAUSTED, errno EAGAIN, if
// the host makes none, RESOURCE_EXHAUSTED RESOURCE_EXHAUSTED_MEMORY without
// memory for it; then `body` was not and will not be run.
absl::StatusOr<std::thread> MakeThread(std::function<void()> body);

// The same for a thread that a program cannot begin without: if there is none
// it says so on stderr, naming `purpose`, and exits with code 1.
std::thread MakeThreadOrExit(std::string_view purpose,
                             std::function<void()> body);

// For tests: from now on only `count` more threads can be made here; negative:
// as many as the host makes. Thread-safe.
void LimitThreads(int64_t count);

}  // namespace mmu

#endif  // MMU_CORE_BASE_THREAD_H_
