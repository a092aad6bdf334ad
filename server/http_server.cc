#include "server/http_server.h"

#include <microhttpd.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <iterator>
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
#include "mmu_core/base/check.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/base/thread.h"
#include "prometheus/collectable.h"
#include "server/config/listen_address.h"
#include "server/http_response.h"
#include "server/metrics/metrics_page.h"

namespace mmud {
namespace {

using std::chrono::milliseconds;

// Memory of a connection, for the heads of its request and answer.
constexpr size_t kConnectionBytes = 16 << 10;
// How soon a free descriptor is noticed.
constexpr milliseconds kWaitForDescriptor{50};
constexpr milliseconds kLongestWait{60'000};

std::string PeerOf(MHD_Connection* mhd) {
  const sockaddr* address =
      MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CLIENT_ADDRESS)
          ->client_addr;
  char host[NI_MAXHOST] = "";
  getnameinfo(address,
              address->sa_family == AF_INET6 ? sizeof(sockaddr_in6)
                                             : sizeof(sockaddr_in),
              host, sizeof(host), nullptr, 0, NI_NUMERICHOST);
  return host;
}

}  // namespace

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(
    const std::string& address, const prometheus::Collectable& metrics,
    Unready unready, const HttpTimes& times) {
  absl::StatusOr<ListenAddress> parsed =
      ParseListenAddress("metrics_address", address);
  if (!parsed.ok()) return parsed.status();
  const absl::StatusOr<int> fd = ListenOnTcp("metrics_address", &*parsed);
  if (!fd.ok()) return fd.status();
  return absl::WrapUnique(new HttpServer(*std::move(parsed), *fd, metrics,
                                         std::move(unready), times));
}

// Connections are accepted here, not in libmicrohttpd. Without a descriptor,
// libmicrohttpd would wait until one of its connections ends or, if it has
// none, spin; and it closes no connection for another one. Its own timeout
// counts from the last byte, so that a client that sends a byte now and then
// would keep its place for ever.
HttpServer::HttpServer(ListenAddress address, int listen_fd,
                       const prometheus::Collectable& metrics, Unready unready,
                       const HttpTimes& times)
    : address_(std::move(address)),
      listen_fd_(listen_fd),
      wake_fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      metrics_(metrics),
      unready_(std::move(unready)),
      times_(times) {
  MMU_CHECK(wake_fd_ >= 0);
  const MHD_AccessHandlerCallback answer =
      [](void* self, MHD_Connection* mhd, const char* path, const char* method,
         const char* /*version*/, const char* /*upload*/, size_t* upload_size,
         void** /*context*/) {
        *upload_size = 0;  // a body is ignored
        auto* connection = static_cast<Connection*>(
            MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT)
                ->socket_context);
        return static_cast<HttpServer*>(self)->Answer(*connection, method, path)
                   ? MHD_YES
                   : MHD_NO;
      };
  const MHD_NotifyConnectionCallback notify =
      [](void* self, MHD_Connection* mhd, void** context,
         MHD_ConnectionNotificationCode code) {
        auto* server = static_cast<HttpServer*>(self);
        if (code == MHD_CONNECTION_NOTIFY_STARTED) {
          server->Opened(mhd, context);
        } else {
          server->Closed(static_cast<const Connection*>(*context));
        }
      };
  daemon_ = MHD_start_daemon(
      MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET | MHD_ALLOW_SUSPEND_RESUME, 0,
      nullptr, nullptr, answer, this, MHD_OPTION_NOTIFY_CONNECTION, notify,
      this, MHD_OPTION_CONNECTION_LIMIT,
      static_cast<unsigned int>(kMaxConnections),
      MHD_OPTION_CONNECTION_MEMORY_LIMIT, kConnectionBytes, MHD_OPTION_END);
  MMU_CHECK(daemon_ != nullptr);
  thread_ = mmu::MakeThreadOrExit("HTTP", [this] { Run(); });
}

HttpServer::~HttpServer() {
  {
    mmu::MutexLock lock(mu_);
    stopping_ = true;
    wanted_.clear();
  }
  Wake();
  thread_.join();
  // libmicrohttpd must have no suspended connection when it stops.
  for (Connection& connection : connections_) End(connection);
  MHD_run(daemon_);
  MHD_stop_daemon(daemon_);
  makers_.reset();
  close(listen_fd_);
  close(wake_fd_);
}

void HttpServer::Wake() {
  const uint64_t one = 1;
  // If the eventfd is full, it was not read yet, so the thread wakes anyway.
  [[maybe_unused]] const ssize_t written = write(wake_fd_, &one, sizeof(one));
}

void HttpServer::Run() {
  const int mhd_fd =
      MHD_get_daemon_info(daemon_, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;
  bool can_accept = true;
  for (;;) {
    pollfd wanted[] = {
        {wake_fd_, POLLIN, 0},
        {mhd_fd, POLLIN, 0},
        {listen_fd_, static_cast<short>(can_accept ? POLLIN : 0), 0}};
    poll(wanted, std::size(wanted), WaitMs(can_accept));
    {
      mmu::MutexLock lock(mu_);
      if (stopping_) return;
    }
    uint64_t count = 0;
    [[maybe_unused]] const ssize_t size = read(wake_fd_, &count, sizeof(count));
    TakeMade();
    EndOverdue();
    MHD_run(daemon_);
    can_accept = Accept();
  }
}

int HttpServer::WaitMs(bool can_accept) const {
  MHD_UNSIGNED_LONG_LONG pending = 0;  // without timeouts, only ever "now"
  if (MHD_get_timeout(daemon_, &pending) == MHD_YES) return 0;
  const Clock::time_point now = Clock::now();
  Clock::time_point next =
      now + (can_accept ? kLongestWait : kWaitForDescriptor);
  for (const Connection& connection : connections_) {
    if (!connection.over) next = std::min(next, connection.deadline);
  }
  const auto wait = std::chrono::ceil<milliseconds>(next - now);
  return static_cast<int>(std::max<int64_t>(wait.count(), 0));
}

bool HttpServer::Accept() {
  // Limits one round: clients that connect as fast as they are accepted would
  // keep the thread from all other work, including its end.
  for (size_t i = 0; i < kMaxConnections; ++i) {
    sockaddr_storage address = {};
    socklen_t size = sizeof(address);
    const int fd = accept4(listen_fd_, reinterpret_cast<sockaddr*>(&address),
                           &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
      if (errno == EINTR || errno == ECONNABORTED) continue;
      if (errno == EMFILE && MakeRoom()) continue;
      // If there is no room even for one connection, accept is tried again
      // later.
      return errno == EAGAIN;
    }
    if (connections_.size() >= kMaxConnections) MakeRoom();
    // Closes `fd` on failure.
    MHD_add_connection(daemon_, fd, reinterpret_cast<sockaddr*>(&address),
                       size);
  }
  return true;
}

bool HttpServer::MakeRoom() {
  std::map<std::string, int> counts;
  for (const Connection& connection : connections_) {
    if (!connection.over) ++counts[connection.peer];
  }
  if (counts.empty()) return false;
  const auto most = std::max_element(
      counts.begin(), counts.end(),
      [](const auto& a, const auto& b) { return a.second < b.second; });
  End(*std::find_if(connections_.begin(), connections_.end(),
                    [&most](const Connection& connection) {
                      return !connection.over && connection.peer == most->first;
                    }));
  MHD_run(daemon_);  // closes the connection
  return true;
}

void HttpServer::End(Connection& connection) {
  connection.over = true;
  shutdown(connection.fd, SHUT_RDWR);
  if (connection.suspended) {
    connection.suspended = false;
    MHD_resume_connection(connection.mhd);
  }
  mmu::MutexLock lock(mu_);
  wanted_.erase(connection.id);
}

void HttpServer::EndOverdue() {
  const Clock::time_point now = Clock::now();
  for (Connection& connection : connections_) {
    if (!connection.over && now >= connection.deadline) End(connection);
  }
}

void HttpServer::Opened(MHD_Connection* mhd, void** context) {
  Connection connection;
  connection.id = ++last_id_;
  connection.mhd = mhd;
  connection.fd =
      MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD)
          ->connect_fd;
  connection.peer = PeerOf(mhd);
  connection.deadline = Clock::now() + times_.read;
  connections_.push_back(std::move(connection));
  *context = &connections_.back();
}

void HttpServer::Closed(const Connection* connection) {
  {
    mmu::MutexLock lock(mu_);
    wanted_.erase(connection->id);
  }
  connections_.remove_if([connection](const Connection& candidate) {
    return &candidate == connection;
  });
}

bool HttpServer::Answer(Connection& connection, absl::string_view method,
                        absl::string_view path) {
  if (connection.over) return false;
  if (method != MHD_HTTP_METHOD_GET && method != MHD_HTTP_METHOD_HEAD) {
    return Send(connection, MHD_HTTP_METHOD_NOT_ALLOWED,
                TextResponse("only GET and HEAD are served\n"));
  }
  if (path == "/healthz") {
    return Send(connection, MHD_HTTP_OK, TextResponse("ok\n"));
  }
  if (path == "/readyz") {
    const std::string why = unready_();
    return why.empty() ? Send(connection, MHD_HTTP_OK, TextResponse("ready\n"))
                       : Send(connection, MHD_HTTP_SERVICE_UNAVAILABLE,
                              TextResponse(why + "\n"));
  }
  if (path == "/metrics") return AnswerMetrics(connection);
  return Send(connection, MHD_HTTP_NOT_FOUND,
              TextResponse(
                  "not found; the paths are /metrics, /healthz and /readyz\n"));
}

bool HttpServer::AnswerMetrics(Connection& connection) {
  if (connection.made != nullptr) {
    return Send(connection, MHD_HTTP_OK, connection.made);
  }
  // A connection that waited for bytes when it was suspended is read when it is
  // resumed, and is closed without an answer if its client sends no more. So it
  // is suspended only in the third call. The first call comes before the body
  // of the request, the second after it. If the connection has no answer then,
  // the third call follows, and the connection waits for nothing but the
  // answer.
  switch (++connection.calls) {
    case 1:
      connection.deadline = Clock::now() + times_.make;
      if (const absl::Status status = StartMaking(connection); !status.ok()) {
        return Send(connection, MHD_HTTP_SERVICE_UNAVAILABLE,
                    TextResponse(absl::StrCat(status.message(), "\n")));
      }
      return true;
    case 2:
      return true;
    default:
      connection.suspended = true;
      MHD_suspend_connection(connection.mhd);
      return true;
  }
}

bool HttpServer::Send(Connection& connection, unsigned int code,
                      const HttpResponse& what) {
  connection.deadline = Clock::now() + times_.write;
  return MHD_queue_response(connection.mhd, code, what.get()) == MHD_YES;
}

absl::Status HttpServer::StartMaking(const Connection& connection) {
  const char* value = MHD_lookup_connection_value(
      connection.mhd, MHD_HEADER_KIND, MHD_HTTP_HEADER_ACCEPT_ENCODING);
  const bool gzip = AcceptsGzip(value == nullptr ? "" : value);
  {
    mmu::MutexLock lock(mu_);
    wanted_[connection.id] = gzip;
    if (making_) return absl::OkStatus();
    making_ = true;
  }
  absl::Status posted = makers_->Post([this] { Make(); });
  if (!posted.ok()) {
    mmu::MutexLock lock(mu_);
    wanted_.erase(connection.id);
    making_ = false;
  }
  return posted;
}

void HttpServer::Make() {
  for (;;) {
    std::map<uint64_t, bool> wanted;
    {
      mmu::MutexLock lock(mu_);
      wanted.swap(wanted_);
      making_ = !wanted.empty();
      if (!making_) return;
    }
    HttpResponse responses[2];  // plain, compressed
    for (const auto& [id, gzip] : wanted) {
      HttpResponse& response = responses[gzip ? 1 : 0];
      if (response != nullptr) continue;
      MetricsPage page = RenderMetrics(metrics_, gzip ? "gzip" : "");
      response = MakeHttpResponse(std::move(page.body), page.content_type,
                                  page.content_encoding);
    }
    {
      mmu::MutexLock lock(mu_);
      for (const auto& [id, gzip] : wanted) {
        made_.emplace_back(id, responses[gzip ? 1 : 0]);
      }
    }
    Wake();
  }
}

void HttpServer::TakeMade() {
  std::vector<std::pair<uint64_t, HttpResponse>> made;
  {
    mmu::MutexLock lock(mu_);
    made.swap(made_);
  }
  for (auto& [id, response] : made) {
    const auto connection = std::find_if(
        connections_.begin(), connections_.end(),
        [id = id](const Connection& candidate) { return candidate.id == id; });
    if (connection == connections_.end() || connection->over) continue;
    connection->made = std::move(response);
    if (connection->made == nullptr) {
      End(*connection);
    } else if (connection->suspended) {
      connection->suspended = false;
      MHD_resume_connection(connection->mhd);
    }
  }
}

}  // namespace mmud
