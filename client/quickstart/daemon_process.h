// An mmud process that this program starts and ends.

#ifndef CLIENT_QUICKSTART_DAEMON_PROCESS_H_
#define CLIENT_QUICKSTART_DAEMON_PROCESS_H_

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace mmud::client {

// Thread-compatible.
class DaemonProcess {
 public:
  // Starts `program` with `flags`, on a Unix socket in a new directory, and
  // waits until it serves. NOT_FOUND if the program does not exist. INTERNAL
  // with the end of its log if it exits or does not serve in time.
  static absl::StatusOr<std::unique_ptr<DaemonProcess>> Start(
      const std::string& program, std::vector<std::string> flags);

  // Asks the daemon to end (SIGTERM), then kills it, and removes the directory.
  ~DaemonProcess();
  DaemonProcess(const DaemonProcess&) = delete;
  DaemonProcess& operator=(const DaemonProcess&) = delete;

  // "unix:/tmp/mmud.x/mmud.sock".
  std::string address() const;
  // "http://127.0.0.1:9090/metrics"; "" if the daemon did not report it.
  std::string metrics_address() const;
  std::string log_path() const;
  pid_t pid() const { return pid_; }

  // False once the daemon has ended.
  bool Running();
  // The last lines of its log.
  std::string LogTail() const;

 private:
  explicit DaemonProcess(std::string directory);

  absl::Status Spawn(const std::string& program,
                     std::vector<std::string> flags);
  absl::Status WaitUntilServing(absl::Duration timeout);

  const std::string directory_;
  pid_t pid_ = -1;  // -1 before it was started and after it was waited for
  int wait_status_ = 0;
};

}  // namespace mmud::client

#endif  // CLIENT_QUICKSTART_DAEMON_PROCESS_H_
