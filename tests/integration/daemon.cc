#include "tests/integration/daemon.h"

#include <arpa/inet.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"

namespace mmud::integration {
namespace {

std::string Runfile(const std::string& path) {
  const char* sources = std::getenv("TEST_SRCDIR");
  const char* workspace = std::getenv("TEST_WORKSPACE");
  if (sources == nullptr || workspace == nullptr) return path;
  return absl::StrCat(sources, "/", workspace, "/", path);
}

int PortIn(const std::string& ports, absl::string_view key) {
  for (absl::string_view line : absl::StrSplit(ports, '\n')) {
    int port = 0;
    if (absl::ConsumePrefix(&line, absl::StrCat(key, "=")) &&
        absl::SimpleAtoi(line, &port)) {
      return port;
    }
  }
  return 0;
}

}  // namespace

std::string MmudPath() { return Runfile("server/mmud"); }
std::string MmuctlPath() { return Runfile("client/mmuctl/mmuctl"); }
std::string SteppedWallClockPath() {
  return Runfile("tests/integration/libstepped_wall_clock.so");
}
std::string TracesDirectory() { return Runfile("traces"); }

HttpReply HttpGet(int port, const std::string& path) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  std::string answer;
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address),
              sizeof(address)) == 0) {
    const std::string request =
        absl::StrCat("GET ", path, " HTTP/1.0\r\nHost: localhost\r\n\r\n");
    if (write(fd, request.data(), request.size()) ==
        static_cast<ssize_t>(request.size())) {
      char buffer[1 << 16];
      ssize_t size = 0;
      while ((size = read(fd, buffer, sizeof(buffer))) > 0) {
        answer.append(buffer, static_cast<size_t>(size));
      }
    }
  }
  close(fd);
  HttpReply reply;
  const size_t body = answer.find("\r\n\r\n");
  if (body == std::string::npos) return reply;
  reply.code = std::atoi(answer.c_str() + answer.find(' ') + 1);
  reply.body = answer.substr(body + 4);
  return reply;
}

Daemon::Daemon(const std::vector<std::string>& flags)
    : Daemon(std::make_shared<ScratchDirectory>(), flags) {}

std::unique_ptr<Daemon> Daemon::OnSocketOf(const Daemon& other) {
  return std::unique_ptr<Daemon>(new Daemon(other.directory_, {}));
}

Daemon::Daemon(std::shared_ptr<ScratchDirectory> directory,
               const std::vector<std::string>& flags)
    : directory_(std::move(directory)),
      address_("unix:" + directory_->File("mmud.sock")) {
  const std::string ports = directory_->File("ports");
  unlink(ports.c_str());
  std::vector<std::string> line = {MmudPath(),
                                   "--listen=" + address_,
                                   "--metrics-address=127.0.0.1:0",
                                   "--port-file=" + ports,
                                   "--trace-dir=" + TracesDirectory(),
                                   "--enable-debug-service"};
  line.insert(line.end(), flags.begin(), flags.end());
  process_ = std::make_unique<ChildProcess>(line, directory_->File("mmud"));
  // The port file is written once the daemon serves.
  const bool serves = Eventually(
      [&] { return !ReadFile(ports).empty() || !process_->running(); });
  metrics_port_ = PortIn(ReadFile(ports), "metrics");
  grpc_port_ = PortIn(ReadFile(ports), "grpc");
  if (!serves || metrics_port_ == 0) {
    std::fprintf(stderr, "mmud does not serve:\n%s\n", process_->Err().c_str());
    std::abort();
  }
  client_ = std::make_unique<TestClient>(address_);
}

Daemon::~Daemon() {
  // The log may explain an unexpected end of the daemon.
  if (!process_->running() || ::testing::Test::HasFailure()) {
    std::fprintf(stderr, "log of mmud:\n%s\n", process_->Err().c_str());
  }
}

std::string Daemon::MetricsText() const {
  return HttpGet(metrics_port_, "/metrics").body;
}

int64_t Daemon::ResidentBytes() const {
  const std::vector<std::string> sizes = absl::StrSplit(
      ReadFile(absl::StrCat("/proc/", process_->pid(), "/statm")), ' ');
  int64_t pages = 0;
  if (sizes.size() < 2 || !absl::SimpleAtoi(sizes[1], &pages)) return 0;
  return pages * sysconf(_SC_PAGESIZE);
}

std::optional<int> Daemon::Terminate(absl::Duration timeout) {
  process_->Signal(SIGTERM);
  return process_->Wait(timeout);
}

}  // namespace mmud::integration
