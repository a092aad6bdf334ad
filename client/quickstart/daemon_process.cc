#include "client/quickstart/daemon_process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "client/mmu_client/client.h"
#include "mmu_core/base/clock.h"

namespace mmud::client {
namespace {

constexpr absl::Duration kStartTimeout = absl::Seconds(30);
constexpr absl::Duration kStopTimeout = absl::Seconds(20);
constexpr absl::Duration kPollInterval = absl::Milliseconds(20);

std::string ReadFile(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

std::string ViewExit(int wait_status) {
  if (WIFSIGNALED(wait_status)) {
    return absl::StrCat("was ended by signal ", WTERMSIG(wait_status));
  }
  return absl::StrCat("exited with code ", WEXITSTATUS(wait_status));
}

}  // namespace

DaemonProcess::DaemonProcess(std::string directory)
    : directory_(std::move(directory)) {}

absl::StatusOr<std::unique_ptr<DaemonProcess>> DaemonProcess::Start(
    const std::string& program, std::vector<std::string> flags) {
  if (access(program.c_str(), X_OK) != 0) {
    return absl::NotFoundError(
        absl::StrCat(program, " cannot be run: ", std::strerror(errno)));
  }
  std::string directory =
      (std::filesystem::temp_directory_path() / "mmud.XXXXXX").string();
  if (mkdtemp(directory.data()) == nullptr) {
    return absl::InternalError(
        absl::StrCat(directory, ": ", std::strerror(errno)));
  }
  std::unique_ptr<DaemonProcess> daemon(new DaemonProcess(directory));
  if (absl::Status status = daemon->Spawn(program, std::move(flags));
      !status.ok()) {
    return status;
  }
  if (absl::Status status = daemon->WaitUntilServing(kStartTimeout);
      !status.ok()) {
    return status;
  }
  return daemon;
}

absl::Status DaemonProcess::Spawn(const std::string& program,
                                  std::vector<std::string> flags) {
  std::vector<std::string> arguments = {
      program, absl::StrCat("--listen=", address()),
      absl::StrCat("--port_file=", directory_, "/ports"),
      "--metrics_address=127.0.0.1:0"};
  for (std::string& flag : flags) arguments.push_back(std::move(flag));
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  const int log =
      open(log_path().c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  if (log < 0) {
    return absl::InternalError(
        absl::StrCat(log_path(), ": ", std::strerror(errno)));
  }
  const pid_t parent = getpid();
  pid_ = fork();
  if (pid_ == 0) {
    // A process group of its own keeps Ctrl-C away from the daemon: this
    // program gets the signal and ends the daemon. The daemon must also not
    // outlive this program.
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent) _exit(1);
    dup2(log, STDOUT_FILENO);
    dup2(log, STDERR_FILENO);
    execv(program.c_str(), argv.data());
    _exit(127);
  }
  close(log);
  if (pid_ < 0) {
    return absl::InternalError(absl::StrCat("fork: ", std::strerror(errno)));
  }
  return absl::OkStatus();
}

absl::Status DaemonProcess::WaitUntilServing(absl::Duration timeout) {
  ClientOptions options;
  options.retry.max_attempts = 4;
  const absl::StatusOr<std::unique_ptr<Client>> client =
      Client::Connect(address(), options);
  if (!client.ok()) return client.status();
  const mmu::MonotonicTime deadline = mmu::MonotonicTime::Now() + timeout;
  while (true) {
    if (!Running()) {
      return absl::InternalError(absl::StrCat(
          "mmud ", ViewExit(wait_status_), " before it served:\n", LogTail()));
    }
    const auto health = (*client)->health().Check("");
    if (health.ok() &&
        health->status() == grpc::health::v1::HealthCheckResponse::SERVING) {
      return absl::OkStatus();
    }
    if (mmu::MonotonicTime::Now() > deadline) {
      return absl::InternalError(
          absl::StrCat("mmud does not serve:\n", LogTail()));
    }
    absl::SleepFor(kPollInterval);
  }
}

DaemonProcess::~DaemonProcess() {
  if (Running()) {
    kill(pid_, SIGTERM);
    const mmu::MonotonicTime deadline =
        mmu::MonotonicTime::Now() + kStopTimeout;
    while (Running() && mmu::MonotonicTime::Now() < deadline)
      absl::SleepFor(kPollInterval);
    if (Running()) {
      kill(pid_, SIGKILL);
      waitpid(pid_, &wait_status_, 0);
    }
  }
  std::error_code ignored;
  std::filesystem::remove_all(directory_, ignored);
}

bool DaemonProcess::Running() {
  if (pid_ < 0) return false;
  if (waitpid(pid_, &wait_status_, WNOHANG) == 0) return true;
  pid_ = -1;
  return false;
}

std::string DaemonProcess::address() const {
  return absl::StrCat("unix:", directory_, "/mmud.sock");
}

std::string DaemonProcess::log_path() const {
  return absl::StrCat(directory_, "/mmud.log");
}

std::string DaemonProcess::metrics_address() const {
  std::istringstream ports(ReadFile(absl::StrCat(directory_, "/ports")));
  const std::string prefix = "metrics=";
  for (std::string line; std::getline(ports, line);) {
    if (absl::StartsWith(line, prefix)) {
      return absl::StrCat("http://127.0.0.1:", line.substr(prefix.size()),
                          "/metrics");
    }
  }
  return "";
}

std::string DaemonProcess::LogTail() const {
  constexpr size_t kTailBytes = 2000;
  const std::string log = ReadFile(log_path());
  if (log.size() <= kTailBytes) return log;
  return log.substr(log.find('\n', log.size() - kTailBytes) + 1);
}

}  // namespace mmud::client
