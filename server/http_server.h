// /metrics, /healthz and /readyz over HTTP, on one port.
//
// GNU libmicrohttpd speaks HTTP; this class decides which connections are kept,
// and for how long. One thread serves all connections and waits for none of
// them. So no client of /metrics (one that connects and sends nothing, sends
// half a request, reads slowly, or opens hundreds of connections) keeps another
// client from the daemon's health. A server with a thread per connection cannot
// promise that. Another thread makes the text of /metrics, once for all clients
// that asked before it began: clients that ask and leave cannot have it made
// for each of them one after the other.

#ifndef SERVER_HTTP_SERVER_H_
#define SERVER_HTTP_SERVER_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "mmu_core/base/mutex.h"
#include "prometheus/collectable.h"
#include "server/config/listen_address.h"
#include "server/http_response.h"
#include "server/rpc/worker_pool.h"

struct MHD_Connection;
struct MHD_Daemon;

namespace mmud {

// Maximum time of each part of a connection; the connection is then closed,
// even if it is in use.
struct HttpTimes {
  std::chrono::milliseconds read{5000};     // the whole head of the request
  std::chrono::milliseconds make{60'000};   // metrics wait for the locks of VMs
  std::chrono::milliseconds write{10'000};  // the whole answer
};

// Serves from Start to destruction. Thread-safe.
class HttpServer {
 public:
  // Beyond this number, a new connection replaces the oldest connection of the
  // peer that has most.
  static constexpr size_t kMaxConnections = 64;

  // Returns the reason, for /readyz, why the daemon takes no new work; "" if it
  // takes new work.
  using Unready = std::function<std::string()>;

  // `address` is HOST:PORT; port 0 takes a free one. INVALID_ARGUMENT, or
  // UNAVAILABLE if it cannot listen there. `metrics` outlives the server.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(
      const std::string& address, const prometheus::Collectable& metrics,
      Unready unready, const HttpTimes& times = {});
  ~HttpServer();

  int port() const { return address_.port; }

 private:
  using Clock = std::chrono::steady_clock;

  struct Connection {
    uint64_t id;
    MHD_Connection* mhd;
    int fd;  // libmicrohttpd closes it
    std::string peer;
    Clock::time_point deadline;
    int calls = 0;           // number of calls of AnswerMetrics
    bool suspended = false;  // until its metrics are made
    bool over = false;       // shut down; libmicrohttpd is about to notice
    HttpResponse made;
  };

  HttpServer(ListenAddress address, int listen_fd,
             const prometheus::Collectable& metrics, Unready unready,
             const HttpTimes& times);

  void Run();
  void Wake();
  // Maximum wait of poll, in milliseconds.
  int WaitMs(bool can_accept) const;
  // Accepts waiting connections, a limited number in one call. False: no
  // descriptor is free.
  bool Accept();
  // Closes one connection. False if there is no connection to close.
  bool MakeRoom();
  void End(Connection& connection);
  void EndOverdue();
  void TakeMade();

  // Callbacks of libmicrohttpd, made in MHD_run and MHD_add_connection.
  void Opened(MHD_Connection* mhd, void** context);
  void Closed(const Connection* connection);
  // Each returns false if the connection is to be closed without an answer.
  bool Answer(Connection& connection, absl::string_view method,
              absl::string_view path);
  bool AnswerMetrics(Connection& connection);
  bool Send(Connection& connection, unsigned int code,
            const HttpResponse& what);
  absl::Status StartMaking(const Connection& connection);
  // Makes metrics as long as a connection wants some.
  void Make();

  const ListenAddress address_;
  const int listen_fd_;
  const int wake_fd_;  // an eventfd
  const prometheus::Collectable& metrics_;
  const Unready unready_;
  const HttpTimes times_;

  // Used only by the thread.
  MHD_Daemon* daemon_ = nullptr;
  std::list<Connection> connections_;  // in the order of arrival
  uint64_t last_id_ = 0;

  mmu::Mutex mu_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  // The connections that wait for metrics, and whether they want them
  // compressed.
  std::map<uint64_t, bool> wanted_ ABSL_GUARDED_BY(mu_);
  bool making_ ABSL_GUARDED_BY(mu_) = false;  // Make runs, or is about to
  // The finished answers, by connection.
  std::vector<std::pair<uint64_t, HttpResponse>> made_ ABSL_GUARDED_BY(mu_);

  std::unique_ptr<WorkerPool> makers_ = std::make_unique<WorkerPool>(1);
  std::thread thread_;
};

}  // namespace mmud

#endif  // SERVER_HTTP_SERVER_H_
