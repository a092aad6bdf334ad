#include "client/mmuctl/context.h"

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <istream>
#include <memory>
#include <ostream>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "client/mmu_client/channel.h"
#include "client/mmu_client/client.h"
#include "client/mmu_client/client_options.h"
#include "client/text/error_text.h"
#include "client/text/message_json.h"
#include "google/protobuf/message.h"
#include "nlohmann/json.hpp"
#include "proto/mmud/v1/default_address.h"

namespace mmud::client {

Context::Context(std::istream* in, std::ostream* out, std::ostream* err,
                 ProgressStyle progress)
    : address(v1::kDefaultAddress),
      in_(in),
      out_(out),
      err_(err),
      progress_(progress) {}

absl::StatusOr<Client*> Context::client() {
  if (client_ == nullptr) {
    // Nothing was sent yet, so the error is one of the command line.
    if (const auto target = ParseAddress(address); !target.ok()) {
      return UsageError(absl::StrCat(
          "--address (or MMUD_ADDRESS): ", target.status().message(),
          ", for example ", v1::kDefaultAddress, " or localhost:9443"));
    }
    ClientOptions options;
    if (timeout > absl::ZeroDuration()) options.all_deadlines = timeout;
    // A person waits for the command, so it soon gives up if no daemon answers.
    options.retry.max_attempts = 4;
    absl::StatusOr<std::unique_ptr<Client>> client =
        Client::Connect(address, std::move(options));
    if (!client.ok()) return client.status();
    client_ = *std::move(client);
  }
  return client_.get();
}

std::string Context::CommandLine(absl::string_view rest) const {
  return absl::StrCat(CommandStart(), " ", rest);
}

std::string Context::CommandStart() const {
  const char* environment = std::getenv("MMUD_ADDRESS");
  const absl::string_view usual =
      environment != nullptr ? environment : v1::kDefaultAddress;
  return address == usual ? "mmuctl"
                          : absl::StrCat("mmuctl --address ", address);
}

absl::Status Context::Print(const google::protobuf::Message& message,
                            const std::string& text) {
  if (!json) return Print(Json(), text);
  const absl::StatusOr<Json> rendered = MessageToJson(message);
  if (!rendered.ok()) return rendered.status();
  return Print(*rendered, text);
}

absl::Status Context::Print(const Json& rendered, const std::string& text) {
  errno = 0;
  out() << (json ? JsonText(rendered) : text) << std::flush;
  if (out().good()) return absl::OkStatus();
  const int error = errno;
  return absl::DataLossError(absl::StrCat(
      "cannot write to standard output",
      error != 0 ? absl::StrCat(": ", std::strerror(error)) : "",
      "; write it to a file or to a program that reads all of it"));
}

std::unique_ptr<Progress> Context::NewProgress(std::string title) {
  return std::make_unique<Progress>(
      err_, quiet || json ? ProgressStyle::kQuiet : progress_,
      std::move(title));
}

}  // namespace mmud::client
