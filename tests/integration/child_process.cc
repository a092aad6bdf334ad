#include "tests/integration/child_process.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>
#include <system_error>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "mmu_core/base/clock.h"

extern char** environ;

namespace mmud::integration {
namespace {

constexpr absl::Duration kPoll = absl::Milliseconds(2);

[[noreturn]] void Die(const std::string& what, int error) {
  std::fprintf(stderr, "%s: %s\n", what.c_str(), std::strerror(error));
  std::abort();
}

}  // namespace

ChildProcess::ChildProcess(const std::vector<std::string>& arguments,
                           const std::string& output_prefix)
    : output_prefix_(output_prefix) {
  // setpriv replaces itself by the program. It makes the kernel kill the
  // program if the test dies without ending it.
  std::vector<std::string> line = {"/usr/bin/setpriv", "--pdeathsig", "KILL"};
  line.insert(line.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& argument : line) argv.push_back(argument.data());
  argv.push_back(nullptr);

  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
  constexpr int kFlags = O_WRONLY | O_CREAT | O_TRUNC | O_APPEND;
  posix_spawn_file_actions_addopen(&files, 1, (output_prefix + ".out").c_str(),
                                   kFlags, 0600);
  posix_spawn_file_actions_addopen(&files, 2, (output_prefix + ".err").c_str(),
                                   kFlags, 0600);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
  posix_spawnattr_setpgroup(&attributes, 0);
  const int error =
      posix_spawn(&pid_, argv[0], &files, &attributes, argv.data(), environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&files);
  if (error != 0) Die(argv[0], error);
}

ChildProcess::~ChildProcess() {
  Signal(SIGKILL);
  if (!exit_.has_value()) waitpid(pid_, nullptr, 0);
}

void ChildProcess::Signal(int number) const {
  if (!exit_.has_value()) kill(pid_, number);
}

std::optional<int> ChildProcess::Wait(absl::Duration timeout) {
  const mmu::MonotonicTime deadline = mmu::MonotonicTime::Now() + timeout;
  while (!exit_.has_value()) {
    int status = 0;
    if (waitpid(pid_, &status, WNOHANG) == pid_) {
      exit_ = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
    } else if (mmu::MonotonicTime::Now() >= deadline) {
      break;
    } else {
      absl::SleepFor(kPoll);
    }
  }
  return exit_;
}

std::string ChildProcess::Out() const {
  return ReadFile(output_prefix_ + ".out");
}
std::string ChildProcess::Err() const {
  return ReadFile(output_prefix_ + ".err");
}

ProgramResult RunProgram(const std::vector<std::string>& arguments,
                         const std::string& output_prefix) {
  ChildProcess child(arguments, output_prefix);
  const std::optional<int> exit_code = child.Wait(absl::Minutes(4));
  return {exit_code.value_or(-1), child.Out(), child.Err()};
}

std::string ReadFile(const std::string& path) {
  std::stringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

void WriteFile(const std::string& path, const std::string& contents) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << contents;
  if (!file.flush()) Die(path, EIO);
}

ScratchDirectory::ScratchDirectory() : path_("/tmp/mmud-test-XXXXXX") {
  if (mkdtemp(path_.data()) == nullptr) Die(path_, errno);
}

ScratchDirectory::~ScratchDirectory() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

}  // namespace mmud::integration
