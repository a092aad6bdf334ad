// A client that reads a few messages of a sealed epoch, reports this and then
// reads no more: stuck_harvester ADDRESS VM.

#include <unistd.h>

#include <cstdio>

#include "grpcpp/grpcpp.h"
#include "mmud/v1/dirty_log_service.grpc.pb.h"
#include "tests/integration/guest.h"

int main(int, char** argv) {
  mmud::v1::DirtyLogService::Stub stub(
      grpc::CreateChannel(argv[1], grpc::InsecureChannelCredentials()));
  mmud::v1::SealDirtyLogRequest seal;
  seal.set_vm(argv[2]);
  seal.set_owner_token(mmud::integration::kOwnerToken);
  mmud::v1::SealDirtyLogResponse sealed;
  {
    grpc::ClientContext context;
    if (!stub.SealDirtyLog(&context, seal, &sealed).ok()) return 1;
  }
  mmud::v1::ReadDirtyPagesRequest request;
  request.set_vm(argv[2]);
  request.set_log_id(sealed.log_id());
  request.set_epoch(sealed.epoch());
  request.set_encoding(mmud::v1::DIRTY_LOG_ENCODING_EXTENTS);
  request.set_max_message_bytes(4096);
  grpc::ClientContext context;
  const auto reader = stub.ReadDirtyPages(&context, request);
  mmud::v1::ReadDirtyPagesResponse response;
  for (int i = 0; i < 3; ++i) {
    if (!reader->Read(&response)) return 1;
  }
  std::puts("reading");
  std::fflush(stdout);
  for (;;) pause();
}
