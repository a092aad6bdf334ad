// /metrics, /healthz and /readyz over HTTP, on one port.
//
// One thread serves all connections and waits for none of them, so that what
// the clients of /metrics do (connect and say nothing, send half a request,
// read slowly, come in hundreds) keeps nobody from hearing of the daemon's
// health. A server with a thread per connection cannot promise that. The text
// of /metrics is made on another thread.

#ifndef SERVER_HTTP_SERVER_H_
#define SERVER_HTTP_SERVER_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "prometheus/collectable.h"
#include "server/http_request.h"
#include "server/listen_address.h"
#include "server/rpc/worker_pool.h"

namespace mmud {

// Serves from Start to destruction. Thread-safe.
class HttpServer {
 public:
  // Beyond so many connections the oldest of the peer that has most is closed
  // for a new one.
  static constexpr size_t kMaxConnections = 64;

  // Why no new work is taken, as /readyz shall say; "" if it is.
  using Unready = std::function<std::string()>;

  // `address` is HOST:PORT; port 0 takes a free one. INVALID_ARGUMENT, or
  // UNAVAILABLE if it cannot listen there. `metrics` outlives the server.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(
      const std::string& address, const prometheus::Collectable& metrics,
      Unready unready);
  ~HttpServer();

  int port() const { return address_.port; }

 private:
  using Clock = std::chrono::steady_clock;

  // States: reading -> (making ->) writing -> closing. Each has a deadline of
  // its own; who misses it is closed.
  enum class State : uint8_t { kReading, kMaking, kWriting, kClosing };
  struct Connection {
    uint64_t id;
    int fd;
    std::string peer;
    State state = State::kReading;
    Clock::time_point deadline;
    bool head_only = false;
    std::string bytes;  // read so far, then what is to be written
    size_t written = 0;
  };
  using Connections = std::list<Connection>;  // in the order of arrival

  HttpServer(ListenAddress address, int listen_fd,
             const prometheus::Collectable& metrics, Unready unready);

  void Run();
  void Wake();
  void Accept();
  void MakeRoom();
  // Each returns false if the connection is over.
  bool Read(Connection& connection);
  bool Answer(Connection& connection, const HttpRequest& request);
  bool Write(Connection& connection);
  void TakeMade();
  void Close(Connections::iterator connection);

  const ListenAddress address_;
  const int listen_fd_;
  const int wake_fd_;  // an eventfd
  const prometheus::Collectable& metrics_;
  const Unready unready_;

  // Of the thread.
  Connections connections_;
  uint64_t last_id_ = 0;
  bool can_accept_ = true;  // false: no descriptor was free a moment ago

  absl::Mutex mu_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  // Answers that were made: by connection.
  std::vector<std::pair<uint64_t, std::string>> made_ ABSL_GUARDED_BY(mu_);

  std::unique_ptr<WorkerPool> makers_ = std::make_unique<WorkerPool>(1);
  std::thread thread_;
};

}  // namespace mmud

#endif  // SERVER_HTTP_SERVER_H_
