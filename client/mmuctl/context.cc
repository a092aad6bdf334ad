#include "client/mmuctl/context.h"

#include <memory>
#include <ostream>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/mmu_client/client.h"
#include "client/mmu_client/client_options.h"
#include "google/protobuf/message.h"
#include "google/protobuf/util/json_util.h"

namespace mmud::client {

Context::Context(std::ostream* out, std::ostream* err, ProgressStyle progress)
    : out_(out), err_(err), progress_(progress) {}

absl::StatusOr<Client*> Context::client() {
  if (client_ == nullptr) {
    ClientOptions options;
    if (timeout > absl::ZeroDuration()) options.all_deadlines = timeout;
    // A person waits: give up soon when nobody answers.
    options.retry.max_attempts = 4;
    absl::StatusOr<std::unique_ptr<Client>> client =
        Client::Connect(address, std::move(options));
    if (!client.ok()) return client.status();
    client_ = *std::move(client);
  }
  return client_.get();
}

absl::StatusOr<std::string> ToJson(const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = true;
  options.always_print_primitive_fields = true;
  options.preserve_proto_field_names = true;
  std::string json;
  const auto status =
      google::protobuf::util::MessageToJsonString(message, &json, options);
  if (!status.ok()) return absl::InternalError(status.ToString());
  return json;
}

absl::Status Context::Print(const google::protobuf::Message& message,
                            const std::string& text) {
  if (!json) {
    out() << text << std::flush;
    return absl::OkStatus();
  }
  absl::StatusOr<std::string> rendered = ToJson(message);
  if (!rendered.ok()) return rendered.status();
  out() << *rendered << std::flush;
  return absl::OkStatus();
}

std::unique_ptr<Progress> Context::NewProgress(std::string title) {
  return std::make_unique<Progress>(
      err_, quiet ? ProgressStyle::kQuiet : progress_, std::move(title));
}

}  // namespace mmud::client
