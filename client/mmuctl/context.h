// The context of every command of mmuctl: the global flags, the connection, the
// output streams.

#ifndef CLIENT_MMUCTL_CONTEXT_H_
#define CLIENT_MMUCTL_CONTEXT_H_

#include <functional>
#include <iosfwd>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "client/mmu_client/client.h"
#include "client/text/error_text.h"
#include "client/text/message_json.h"
#include "client/text/progress.h"
#include "google/protobuf/message.h"

namespace mmud::client {

// Thread-compatible.
class Context {
 public:
  // The streams must outlive this object. `progress` is the style in which
  // progress is shown on `err`.
  Context(std::istream* in, std::ostream* out, std::ostream* err,
          ProgressStyle progress);

  // Global flags, set while the command line is parsed.
  std::string address;
  bool json = false;
  bool quiet = false;
  absl::Duration timeout = absl::ZeroDuration();  // zero: the defaults

  // The action of the command line. Called after the whole line was parsed, and
  // after `before_action`.
  std::function<absl::Status()> action;
  // Resolves arguments that only the daemon knows. The command ends with the
  // first error.
  std::vector<std::function<absl::Status()>> before_action;
  // Exit code of a command that succeeded with a bad result.
  ExitCode exit_code = kExitOk;
  // The signal that ended a failed command early; 0: none. The exit code is
  // then the one that shells use for the signal.
  int signal = 0;

  std::istream& in() { return *in_; }
  std::ostream& out() { return *out_; }
  std::ostream& err() { return *err_; }

  // The connection, made with the first call. A usage error for a bad
  // --address.
  absl::StatusOr<Client*> client();

  // A command line for people to copy: `mmuctl`, --address with this daemon
  // unless the environment names it, and `rest`.
  std::string CommandLine(absl::string_view rest) const;
  // The beginning of such a line, without `rest`.
  std::string CommandStart() const;

  // Writes `message` as JSON with --json, otherwise the text. An error if it
  // cannot be written.
  absl::Status Print(const google::protobuf::Message& message,
                     const std::string& text);
  absl::Status Print(const Json& json, const std::string& text);

  // A progress display with a title. It shows nothing with --quiet or --json,
  // where standard error has only an error's object or nothing.
  std::unique_ptr<Progress> NewProgress(std::string title);

 private:
  std::istream* const in_;
  std::ostream* const out_;
  std::ostream* const err_;
  const ProgressStyle progress_;
  std::unique_ptr<Client> client_;
};

}  // namespace mmud::client

#endif  // CLIENT_MMUCTL_CONTEXT_H_
