// Typed client of GuestMemoryService. proto/mmud/v1/guest_memory_service.proto
// describes the calls and their errors. To copy guest memory with its checksums
// verified use PageReader (page_reader.h).

#ifndef CLIENT_MMU_CLIENT_GUEST_MEMORY_CLIENT_H_
#define CLIENT_MMU_CLIENT_GUEST_MEMORY_CLIENT_H_

#include <memory>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "mmud/v1/guest_memory_service.pb.h"

namespace mmud::client {

class Caller;

// Thread-safe.
class GuestMemoryClient {
 public:
  explicit GuestMemoryClient(std::shared_ptr<const Caller> caller);
  ~GuestMemoryClient();
  GuestMemoryClient(const GuestMemoryClient&) = delete;
  GuestMemoryClient& operator=(const GuestMemoryClient&) = delete;

  // Makes one attempt. Calls `on_message` with each message when it arrives. An
  // error of `on_message` ends the stream and is returned.
  absl::Status ReadPagesOnce(
      const v1::ReadPagesRequest& request,
      absl::FunctionRef<absl::Status(const v1::ReadPagesResponse&)> on_message);

  // Waits between two attempts, as the options of the connection say.
  void Sleep(absl::Duration duration) const;

 private:
  struct Stub;  // of gRPC

  const std::shared_ptr<const Caller> caller_;
  const std::unique_ptr<Stub> stub_;
};

}  // namespace mmud::client

#endif  // CLIENT_MMU_CLIENT_GUEST_MEMORY_CLIENT_H_
