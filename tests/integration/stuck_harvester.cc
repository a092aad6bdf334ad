// A client that seals, reads a few messages, says so and then reads no more:
// stuck_harvester ADDRESS VM.

#include <unistd.h>

#include <cstdio>

#include "grpcpp/grpcpp.h"
#include "mmud/v1/dirty_log_service.grpc.pb.h"

int main(int, char** argv) {
  mmud::v1::DirtyLogService::Stub stub(
      grpc::CreateChannel(argv[1], grpc::InsecureChannelCredentials()));
  mmud::v1::GetDirtyLogRequest request;
  request.set_vm(argv[2]);
  request.set_mode(mmud::v1::GET_DIRTY_LOG_MODE_SEAL);
  request.set_encoding(mmud::v1::DIRTY_LOG_ENCODING_EXTENTS);
  request.set_max_message_bytes(4096);
  grpc::ClientContext context;
  const auto reader = stub.GetDirtyLog(&context, request);
  mmud::v1::GetDirtyLogResponse response;
  for (int i = 0; i < 3; ++i) {
    if (!reader->Read(&response)) return 1;
  }
  std::puts("reading");
  std::fflush(stdout);
  for (;;) pause();
}
