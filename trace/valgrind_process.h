// A program that runs under valgrind's lackey, and the pipe with its accesses.

#ifndef TRACE_VALGRIND_PROCESS_H_
#define TRACE_VALGRIND_PROCESS_H_

#include <sys/types.h>

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace mmud::trace {

// Finds the executable file for `name` by the rules of the shell: `name` is a
// path if it has a slash, otherwise the first match in PATH counts. NOT_FOUND
// if there is none.
absl::StatusOr<std::string> FindProgram(const std::string& name);

// The destructor kills a process that still runs. Thread-compatible.
class ValgrindProcess {
 public:
  // How a process ended.
  struct Exit {
    int exit_code = -1;   // -1 unless it exited
    int term_signal = 0;  // 0 unless a signal ended it
  };

  // Starts `program` (a path) with `args` (args[0] included).
  static absl::StatusOr<std::unique_ptr<ValgrindProcess>> Start(
      const std::string& valgrind, const std::string& program,
      const std::vector<std::string>& args);
  ~ValgrindProcess();
  ValgrindProcess(const ValgrindProcess&) = delete;
  ValgrindProcess& operator=(const ValgrindProcess&) = delete;

  // Blocks until there is output. Returns 0 at the end of the output.
  absl::StatusOr<size_t> Read(char* buffer, size_t size);

  void Kill();

  // Waits for the end of the process. To be called once.
  Exit Wait();

 private:
  ValgrindProcess(pid_t pid, int pipe_fd);

  const int pipe_fd_;
  pid_t pid_;  // -1 after Wait
};

}  // namespace mmud::trace

#endif  // TRACE_VALGRIND_PROCESS_H_
