// Counts the connections of gRPC clients, so that a limit on them leaves
// descriptors for everything else.

#ifndef SERVER_RPC_OPEN_CONNECTIONS_H_
#define SERVER_RPC_OPEN_CONNECTIONS_H_

#include <sys/types.h>

#include <cstdint>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "server/base/budget.h"

namespace mmud {

// Raises the soft limit on descriptors to the hard one. Returns the limit.
int64_t RaiseDescriptorLimit();
// Number of descriptors that this process has open.
int64_t CountDescriptors();

// gRPC does not say when it closes a connection. So each connection is
// remembered by its descriptor and the inode of its socket: if the descriptor
// is closed, or has another inode, the connection is gone. Thread-safe.
class OpenConnections {
 public:
  // Called before connections come. At least 1.
  void SetLimit(int64_t limit);

  // Remembers a connection. Called before other code may close it.
  void Add(int fd);
  // Whether there are as many connections as allowed. Drops closed connections
  // from the count before it returns true.
  bool full();

  // The use of `max_connections`. No connection is ever refused: further ones
  // wait.
  BudgetUse Use() const;

 private:
  struct Connection {
    int fd;
    dev_t device;
    ino_t inode;
  };

  void ForgetClosedLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  int64_t CountLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return static_cast<int64_t>(connections_.size());
  }

  mutable absl::Mutex mu_;
  int64_t limit_ ABSL_GUARDED_BY(mu_) = 1;
  mutable std::vector<Connection> connections_ ABSL_GUARDED_BY(mu_);
};

}  // namespace mmud

#endif  // SERVER_RPC_OPEN_CONNECTIONS_H_
