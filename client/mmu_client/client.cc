#include "client/mmu_client/client.h"

#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "client/mmu_client/caller.h"
#include "client/mmu_client/channel.h"
#include "grpcpp/channel.h"

namespace mmud::client {

absl::StatusOr<std::unique_ptr<Client>> Client::Connect(
    absl::string_view address, ClientOptions options) {
  absl::StatusOr<std::shared_ptr<grpc::Channel>> channel = OpenChannel(address);
  if (!channel.ok()) return channel.status();
  return std::make_unique<Client>(*std::move(channel), std::move(options));
}

Client::Client(std::shared_ptr<grpc::Channel> channel, ClientOptions options)
    : Client(std::make_shared<const Caller>(std::move(channel),
                                            std::move(options))) {}

Client::Client(std::shared_ptr<const Caller> caller)
    : vms_(caller),
      workloads_(caller),
      memory_(caller),
      dirty_log_(caller),
      splits_(caller),
      aging_(caller),
      stats_(caller),
      debug_(caller),
      admin_(caller),
      operations_(caller),
      health_(caller),
      dynamic_(caller) {}

}  // namespace mmud::client
