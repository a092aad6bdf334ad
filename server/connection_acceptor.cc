#include "server/connection_acceptor.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/thread.h"
#include "server/log/logging.h"

namespace mmud {
namespace {

// How soon a free descriptor is noticed.
constexpr int kWaitForRoomMs = 50;

}  // namespace

ConnectionAcceptor::ConnectionAcceptor(std::vector<Listener> listeners,
                                       OpenConnections& connections,
                                       LimitedLog& log)
    : listeners_(std::move(listeners)),
      connections_(connections),
      log_(log),
      stop_fd_(eventfd(0, EFD_CLOEXEC)) {
  MMU_CHECK(stop_fd_ >= 0);
  thread_ = mmu::MakeThreadOrExit("connections", [this] { Run(); });
}

ConnectionAcceptor::~ConnectionAcceptor() {
  const uint64_t one = 1;
  MMU_CHECK(write(stop_fd_, &one, sizeof(one)) == sizeof(one));
  thread_.join();
  for (const Listener& listener : listeners_) close(listener.fd);
  close(stop_fd_);
}

void ConnectionAcceptor::Run() {
  bool had_room = true;
  for (;;) {
    std::vector<pollfd> wanted = {{stop_fd_, POLLIN, 0}};
    // A listener without room would be ready in every poll.
    if (had_room) {
      for (const Listener& listener : listeners_) {
        wanted.push_back({listener.fd, POLLIN, 0});
      }
    }
    poll(wanted.data(), wanted.size(), had_room ? -1 : kWaitForRoomMs);
    if (wanted[0].revents != 0) return;
    bool has_room = true;
    for (const Listener& listener : listeners_) {
      has_room = Accept(listener) && has_room;
    }
    if (had_room && !has_room) {
      log_.Write(
          "connections", LogLevel::kWarning,
          "no room for another connection: new ones wait until one is closed",
          {{"reason", why_no_room_},
           {"connections", absl::StrCat(connections_.Use().used)},
           {"limit", absl::StrCat(connections_.Use().limit)}});
    }
    had_room = has_room;
  }
}

bool ConnectionAcceptor::Accept(const Listener& listener) {
  for (;;) {
    if (connections_.full()) {
      why_no_room_ = "as many as may be are open";
      return false;
    }
    const int fd =
        accept4(listener.fd, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
      connections_.Add(fd);
      listener.take(listener.fd, fd);
      continue;
    }
    switch (errno) {
      case EAGAIN:
        return true;
      case EINTR:
      case ECONNABORTED:
        continue;
      default:
        // Mostly EMFILE. After any error, accept is tried again after a while.
        why_no_room_ = absl::StrCat("accept4: ", std::strerror(errno));
        return false;
    }
  }
}

}  // namespace mmud
