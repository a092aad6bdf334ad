#include "server/http_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/memory/memory.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "mmu_core/base/check.h"
#include "prometheus/collectable.h"
#include "server/http_request.h"
#include "server/listen_address.h"
#include "server/metrics/metrics_page.h"

namespace mmud {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr size_t kMaxHeadBytes = 16 << 10;
constexpr seconds kReadTime{5};    // for the whole head
constexpr seconds kMakeTime{60};   // metrics wait for the locks of VMs
constexpr seconds kWriteTime{10};  // for the whole answer
constexpr seconds kCloseTime{1};   // for the peer's end of the connection
// How soon a descriptor that became free is noticed.
constexpr milliseconds kWaitForDescriptor{50};

struct Reply {
  int code = 200;
  std::string body;
  std::string content_type = "text/plain; charset=utf-8";
  std::string content_encoding = {};  // empty: none
};

const char* ReasonPhrase(int code) {
  switch (code) {
    case 200:
      return "OK";
    case 400:
      return "Bad Request";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 431:
      return "Request Header Fields Too Large";
    default:
      return "Service Unavailable";
  }
}

// What goes over the wire.
std::string Encode(const Reply& reply, bool head_only) {
  return absl::StrCat("HTTP/1.1 ", reply.code, " ", ReasonPhrase(reply.code),
                      "\r\nContent-Type: ", reply.content_type,
                      "\r\nContent-Length: ", reply.body.size(),
                      reply.content_encoding.empty()
                          ? ""
                          : "\r\nContent-Encoding: " + reply.content_encoding,
                      "\r\nVary: Accept-Encoding",
                      "\r\nCache-Control: no-store\r\nConnection: close"
                      "\r\n\r\n",
                      head_only ? "" : reply.body);
}

Reply Metrics(const prometheus::Collectable& metrics,
              absl::string_view accept_encoding) {
  MetricsPage page = RenderMetrics(metrics, accept_encoding);
  return {200, std::move(page.body), std::move(page.content_type),
          std::move(page.content_encoding)};
}

std::string PeerOf(const sockaddr_storage& address) {
  char text[INET6_ADDRSTRLEN] = "";
  if (address.ss_family == AF_INET6) {
    inet_ntop(AF_INET6,
              &reinterpret_cast<const sockaddr_in6*>(&address)->sin6_addr, text,
              sizeof(text));
  } else {
    inet_ntop(AF_INET,
              &reinterpret_cast<const sockaddr_in*>(&address)->sin_addr, text,
              sizeof(text));
  }
  return text;
}

// Whether the call is to be tried again once poll says so.
bool NotYet() { return errno == EAGAIN || errno == EINTR; }

}  // namespace

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(
    const std::string& address, const prometheus::Collectable& metrics,
    Unready unready) {
  absl::StatusOr<ListenAddress> parsed =
      ParseListenAddress("metrics_address", address);
  if (!parsed.ok()) return parsed.status();
  const absl::StatusOr<int> fd = ListenOnTcp("metrics_address", &*parsed);
  if (!fd.ok()) return fd.status();
  return absl::WrapUnique(
      new HttpServer(*std::move(parsed), *fd, metrics, std::move(unready)));
}

HttpServer::HttpServer(ListenAddress address, int listen_fd,
                       const prometheus::Collectable& metrics, Unready unready)
    : address_(std::move(address)),
      listen_fd_(listen_fd),
      wake_fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      metrics_(metrics),
      unready_(std::move(unready)) {
  MMU_CHECK(wake_fd_ >= 0);
  thread_ = std::thread([this] { Run(); });
}

HttpServer::~HttpServer() {
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
  }
  Wake();
  thread_.join();
  makers_.reset();
  while (!connections_.empty()) Close(connections_.begin());
  close(listen_fd_);
  close(wake_fd_);
}

void HttpServer::Wake() {
  const uint64_t one = 1;
  // Full means: not read yet, so it wakes anyway.
  [[maybe_unused]] const ssize_t written = write(wake_fd_, &one, sizeof(one));
}

void HttpServer::Run() {
  for (;;) {
    std::vector<pollfd> wanted = {
        {wake_fd_, POLLIN, 0},
        {listen_fd_, static_cast<short>(can_accept_ ? POLLIN : 0), 0}};
    Clock::time_point next = Clock::now() + seconds(60);
    if (!can_accept_) next = Clock::now() + kWaitForDescriptor;
    for (const Connection& connection : connections_) {
      short events = POLLIN;
      if (connection.state == State::kMaking) events = 0;
      if (connection.state == State::kWriting) events = POLLOUT;
      wanted.push_back({connection.fd, events, 0});
      next = std::min(next, connection.deadline);
    }
    const auto wait = std::chrono::ceil<milliseconds>(next - Clock::now());
    poll(wanted.data(), wanted.size(),
         static_cast<int>(std::max<int64_t>(wait.count(), 0)));
    {
      absl::MutexLock lock(&mu_);
      if (stopping_) return;
    }
    // The connections of `wanted`, in its order; new ones come behind them.
    size_t index = 2;
    for (auto it = connections_.begin(); index < wanted.size(); ++index) {
      const auto connection = it++;
      bool going = true;
      if (wanted[index].revents != 0) {
        switch (connection->state) {
          case State::kReading:
          case State::kClosing:
            going = Read(*connection);
            break;
          case State::kWriting:
            going = Write(*connection);
            break;
          case State::kMaking:
            going = false;  // the peer left
            break;
        }
      }
      if (!going || Clock::now() >= connection->deadline) Close(connection);
    }
    if (wanted[0].revents != 0) {
      uint64_t count = 0;
      [[maybe_unused]] const ssize_t size =
          read(wake_fd_, &count, sizeof(count));
      TakeMade();
    }
    can_accept_ = true;
    Accept();
  }
}

void HttpServer::Accept() {
  for (;;) {
    sockaddr_storage address = {};
    socklen_t size = sizeof(address);
    const int fd = accept4(listen_fd_, reinterpret_cast<sockaddr*>(&address),
                           &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
      if (errno == EINTR || errno == ECONNABORTED) continue;
      if (errno == EMFILE && !connections_.empty()) {
        MakeRoom();
        continue;
      }
      // Without room for even one it is tried again later.
      can_accept_ = errno == EAGAIN;
      return;
    }
    if (connections_.size() >= kMaxConnections) MakeRoom();
    Connection connection;
    connection.id = ++last_id_;
    connection.fd = fd;
    connection.peer = PeerOf(address);
    connection.deadline = Clock::now() + kReadTime;
    connections_.push_back(std::move(connection));
    if (!Read(connections_.back())) Close(std::prev(connections_.end()));
  }
}

void HttpServer::MakeRoom() {
  std::map<std::string, int> counts;
  for (const Connection& connection : connections_) ++counts[connection.peer];
  const auto most = std::max_element(
      counts.begin(), counts.end(),
      [](const auto& a, const auto& b) { return a.second < b.second; });
  Close(std::find_if(connections_.begin(), connections_.end(),
                     [&most](const Connection& connection) {
                       return connection.peer == most->first;
                     }));
}

bool HttpServer::Read(Connection& connection) {
  char buffer[4096];
  for (;;) {
    const ssize_t size = recv(connection.fd, buffer, sizeof(buffer), 0);
    if (size < 0) return NotYet();
    if (size == 0) return false;
    if (connection.state == State::kClosing) continue;
    connection.bytes.append(buffer, static_cast<size_t>(size));
    HttpRequest request;
    switch (ParseHttpRequest(connection.bytes, &request)) {
      case HttpParse::kDone:
        return Answer(connection, request);
      case HttpParse::kBad:
        connection.bytes = Encode({400, "this is no request of HTTP/1\n"},
                                  connection.head_only);
        return Write(connection);
      case HttpParse::kIncomplete:
        if (connection.bytes.size() <= kMaxHeadBytes) break;
        connection.bytes =
            Encode({431, "the head is too long\n"}, connection.head_only);
        return Write(connection);
    }
  }
}

bool HttpServer::Answer(Connection& connection, const HttpRequest& request) {
  connection.head_only = request.method == "HEAD";
  Reply reply;
  if (request.method != "GET" && !connection.head_only) {
    reply = {405, "only GET and HEAD are served\n"};
  } else if (request.path == "/healthz") {
    reply.body = "ok\n";
  } else if (request.path == "/readyz") {
    const std::string why = unready_();
    reply = why.empty() ? Reply{200, "ready\n"} : Reply{503, why + "\n"};
  } else if (request.path == "/metrics") {
    connection.state = State::kMaking;
    connection.deadline = Clock::now() + kMakeTime;
    makers_->Post([this, id = connection.id, head_only = connection.head_only,
                   accept = request.accept_encoding] {
      std::string bytes = Encode(Metrics(metrics_, accept), head_only);
      {
        absl::MutexLock lock(&mu_);
        made_.emplace_back(id, std::move(bytes));
      }
      Wake();
    });
    return true;
  } else {
    reply = {404, "there are /metrics, /healthz and /readyz\n"};
  }
  connection.bytes = Encode(reply, connection.head_only);
  return Write(connection);
}

bool HttpServer::Write(Connection& connection) {
  if (connection.state != State::kWriting) {
    connection.state = State::kWriting;
    connection.deadline = Clock::now() + kWriteTime;
  }
  while (connection.written < connection.bytes.size()) {
    const ssize_t size =
        send(connection.fd, connection.bytes.data() + connection.written,
             connection.bytes.size() - connection.written, MSG_NOSIGNAL);
    if (size < 0) return NotYet();
    connection.written += static_cast<size_t>(size);
  }
  // Closed at once, with bytes unread, the answer could be lost on its way.
  shutdown(connection.fd, SHUT_WR);
  connection.state = State::kClosing;
  connection.deadline = Clock::now() + kCloseTime;
  return true;
}

void HttpServer::TakeMade() {
  std::vector<std::pair<uint64_t, std::string>> made;
  {
    absl::MutexLock lock(&mu_);
    made.swap(made_);
  }
  for (auto& [id, bytes] : made) {
    const auto connection = std::find_if(
        connections_.begin(), connections_.end(),
        [id = id](const Connection& candidate) { return candidate.id == id; });
    if (connection == connections_.end()) continue;
    connection->bytes = std::move(bytes);
    if (!Write(*connection)) Close(connection);
  }
}

void HttpServer::Close(Connections::iterator connection) {
  close(connection->fd);
  connections_.erase(connection);
}

}  // namespace mmud
