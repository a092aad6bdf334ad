#include "trace/valgrind_process.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "absl/memory/memory.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace mmud::trace {
namespace {

// The descriptor of the pipe in the child. valgrind moves it, so that the
// program does not see it.
constexpr int kLogFd = 3;

bool IsExecutableFile(const std::string& path) {
  struct stat stat = {};
  return ::stat(path.c_str(), &stat) == 0 && S_ISREG(stat.st_mode) &&
         access(path.c_str(), X_OK) == 0;
}

}  // namespace

absl::StatusOr<std::string> FindProgram(const std::string& name) {
  if (name.find('/') != std::string::npos) {
    if (IsExecutableFile(name)) return name;
    return absl::NotFoundError(
        absl::StrCat("'", name, "' is not an executable file"));
  }
  const char* const path = std::getenv("PATH");
  if (path != nullptr && !name.empty()) {
    for (absl::string_view folder : absl::StrSplit(path, ':')) {
      std::string file = absl::StrCat(folder.empty() ? "." : folder, "/", name);
      if (IsExecutableFile(file)) return file;
    }
  }
  return absl::NotFoundError(
      absl::StrCat("there is no program '", name, "' in PATH"));
}

absl::StatusOr<std::unique_ptr<ValgrindProcess>> ValgrindProcess::Start(
    const std::string& valgrind, const std::string& program,
    const std::vector<std::string>& args) {
  std::vector<std::string> words = {valgrind,
                                    "--tool=lackey",
                                    "--trace-mem=yes",
                                    "--basic-counts=no",
                                    "--trace-children=no",
                                    absl::StrCat("--log-fd=", kLogFd),
                                    "--",
                                    program};
  words.insert(words.end(), args.begin() + 1, args.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);

  int pipe_fds[2];
  if (pipe2(pipe_fds, O_CLOEXEC) != 0) {
    return absl::ErrnoToStatus(errno, "cannot create a pipe");
  }
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, pipe_fds[1], kLogFd);
  pid_t pid = -1;
  const int error_number = posix_spawn(&pid, valgrind.c_str(), &actions,
                                       nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  close(pipe_fds[1]);
  if (error_number != 0) {
    close(pipe_fds[0]);
    return absl::ErrnoToStatus(error_number,
                               absl::StrCat("cannot start '", valgrind, "'"));
  }
  return absl::WrapUnique(new ValgrindProcess(pid, pipe_fds[0]));
}

ValgrindProcess::ValgrindProcess(pid_t pid, int pipe_fd)
    : pipe_fd_(pipe_fd), pid_(pid) {}

ValgrindProcess::~ValgrindProcess() {
  if (pid_ != -1) {
    Kill();
    Wait();
  }
  close(pipe_fd_);
}

absl::StatusOr<size_t> ValgrindProcess::Read(char* buffer, size_t size) {
  while (true) {
    const ssize_t got = read(pipe_fd_, buffer, size);
    if (got >= 0) return static_cast<size_t>(got);
    if (errno != EINTR) {
      return absl::ErrnoToStatus(errno, "cannot read valgrind's output");
    }
  }
}

void ValgrindProcess::Kill() {
  if (pid_ != -1) kill(pid_, SIGKILL);
}

ValgrindProcess::Exit ValgrindProcess::Wait() {
  int wait_status = 0;
  while (waitpid(pid_, &wait_status, 0) < 0 && errno == EINTR) {
  }
  pid_ = -1;
  Exit exit;
  if (WIFEXITED(wait_status)) exit.exit_code = WEXITSTATUS(wait_status);
  if (WIFSIGNALED(wait_status)) exit.term_signal = WTERMSIG(wait_status);
  return exit;
}

}  // namespace mmud::trace
