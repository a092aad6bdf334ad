// Accepts connections and passes them on. gRPC's own listener gives up for ever
// if the process has no descriptor left; this one waits for one.

#ifndef SERVER_CONNECTION_ACCEPTOR_H_
#define SERVER_CONNECTION_ACCEPTOR_H_

#include <functional>
#include <thread>
#include <vector>

#include "server/log/limited_log.h"
#include "server/rpc/open_connections.h"

namespace mmud {

// Works on a thread of its own from construction to destruction. While there
// are as many connections as allowed, or no descriptor is free, new connections
// wait in the kernel's queue.
class ConnectionAcceptor {
 public:
  struct Listener {
    int fd;  // listens and does not block; the acceptor closes it
    // Takes over a connection: the first argument is the listener's descriptor,
    // the second the connection's.
    std::function<void(int, int)> take;
  };

  // `connections` and `log` outlive this.
  ConnectionAcceptor(std::vector<Listener> listeners,
                     OpenConnections& connections, LimitedLog& log);
  ~ConnectionAcceptor();
  ConnectionAcceptor(const ConnectionAcceptor&) = delete;
  ConnectionAcceptor& operator=(const ConnectionAcceptor&) = delete;

 private:
  void Run();
  // Accepts all waiting connections. False: no descriptor or no room for
  // another.
  bool Accept(const Listener& listener);

  const std::vector<Listener> listeners_;
  OpenConnections& connections_;
  LimitedLog& log_;
  const int stop_fd_;        // an eventfd
  std::string why_no_room_;  // the thread's; last reason of Accept
  std::thread thread_;
};

}  // namespace mmud

#endif  // SERVER_CONNECTION_ACCEPTOR_H_
