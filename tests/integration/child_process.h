// A program that a test runs.

#ifndef TESTS_INTEGRATION_CHILD_PROCESS_H_
#define TESTS_INTEGRATION_CHILD_PROCESS_H_

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace mmud::integration {

// One process in a process group of its own, with its output in files. It is
// killed when this object is destroyed, and when the test dies.
// Thread-compatible.
class ChildProcess {
 public:
  // Starts `arguments[0]`. The output goes to the files `output_prefix` +
  // ".out" and ".err". Fails the program if there is no such executable.
  ChildProcess(const std::vector<std::string>& arguments,
               const std::string& output_prefix);
  ~ChildProcess();
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  pid_t pid() const { return pid_; }

  // Sends the signal; does nothing if the process has ended.
  void Signal(int number) const;

  // Waits for the process's end. Returns its exit code, or minus the signal
  // that ended it; nullopt if it still runs after `timeout`.
  std::optional<int> Wait(absl::Duration timeout);
  bool running() { return !Wait(absl::ZeroDuration()).has_value(); }

  std::string Out() const;
  std::string Err() const;

 private:
  const std::string output_prefix_;
  pid_t pid_ = -1;
  std::optional<int> exit_;
};

// The result of a program that ran to its end.
struct ProgramResult {
  int exit_code = 0;
  std::string out;
  std::string err;
};

// Runs a program to its end; kills it after a minute.
ProgramResult RunProgram(const std::vector<std::string>& arguments,
                         const std::string& output_prefix);

// The whole file; empty if there is none.
std::string ReadFile(const std::string& path);
void WriteFile(const std::string& path, const std::string& contents);

// A new directory with a path short enough for Unix sockets. It is removed with
// its contents when this object is destroyed.
class ScratchDirectory {
 public:
  ScratchDirectory();
  ~ScratchDirectory();
  ScratchDirectory(const ScratchDirectory&) = delete;
  ScratchDirectory& operator=(const ScratchDirectory&) = delete;

  const std::string& path() const { return path_; }
  std::string File(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

}  // namespace mmud::integration

#endif  // TESTS_INTEGRATION_CHILD_PROCESS_H_
