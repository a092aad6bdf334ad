// A daemon with one VM, vms/alpha, whose working set mmuctl asks for in tests.

#ifndef CLIENT_MMUCTL_FAKE_AGING_TEST_UTIL_H_
#define CLIENT_MMUCTL_FAKE_AGING_TEST_UTIL_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "client/mmu_client/test_socket.h"
#include "client/mmuctl/run_line_test_util.h"
#include "google/longrunning/operations.grpc.pb.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server.h"
#include "grpcpp/server_builder.h"
#include "mmud/v1/aging_service.grpc.pb.h"
#include "mmud/v1/error_reasons.pb.h"
#include "mmud/v1/vm_service.grpc.pb.h"

namespace mmud::client {

// Answers each call at once, and keeps the requests for the test. Until a
// generation is created, the working set has none.
class FakeAging final : public v1::AgingService::Service,
                        public v1::VmService::Service,
                        public google::longrunning::Operations::Service {
 public:
  FakeAging() {
    address_ = NewTestAddress();
    grpc::ServerBuilder builder;
    builder.AddListeningPort(address_, grpc::InsecureServerCredentials());
    builder.RegisterService(static_cast<v1::AgingService::Service*>(this));
    builder.RegisterService(static_cast<v1::VmService::Service*>(this));
    builder.RegisterService(
        static_cast<google::longrunning::Operations::Service*>(this));
    server_ = builder.BuildAndStart();
    ager.set_vm("vms/alpha");
    ager.mutable_settings()->set_cpu_percent(2);
    ager.mutable_settings()->mutable_min_interval()->set_seconds(1);
    ager.mutable_settings()->mutable_max_interval()->set_seconds(60);
  }
  ~FakeAging() override { server_->Shutdown(); }

  grpc::Status ListMemslots(grpc::ServerContext*,
                            const v1::ListMemslotsRequest*,
                            v1::ListMemslotsResponse* response) override {
    response->add_memslots()->set_size_bytes(memory_bytes);
    return grpc::Status::OK;
  }

  grpc::Status CreateGeneration(
      grpc::ServerContext*, const v1::CreateGenerationRequest* request,
      google::longrunning::Operation* operation) override {
    generation = *request;
    operation->set_name("operations/1f9619ff-8b86-4d01-b42d-00cf4fc964ff");
    AddGeneration();
    return grpc::Status::OK;
  }

  // The generation has ended by now, or was cancelled.
  grpc::Status WaitOperation(
      grpc::ServerContext*,
      const google::longrunning::WaitOperationRequest* request,
      google::longrunning::Operation* operation) override {
    operation->set_name(request->name());
    operation->set_done(true);
    v1::GenerationMetadata metadata;
    metadata.set_vm("vms/alpha");
    metadata.mutable_running_time()->set_nanos(2'000'000);
    metadata.mutable_cpu_time()->set_nanos(1'000'000);
    metadata.set_total_bytes(1 << 20);
    metadata.set_done_bytes(1 << 20);
    *metadata.mutable_generation() = working_set.generations(0);
    if (cancelled) {
      metadata.mutable_generation()->set_incomplete(true);
      operation->mutable_error()->set_code(grpc::StatusCode::CANCELLED);
      operation->mutable_error()->set_message("it was cancelled");
    } else {
      operation->mutable_response()->PackFrom(working_set.generations(0));
    }
    operation->mutable_metadata()->PackFrom(metadata);
    return grpc::Status::OK;
  }

  grpc::Status GetWorkingSet(grpc::ServerContext*,
                             const v1::GetWorkingSetRequest* request,
                             v1::GetWorkingSetResponse* response) override {
    reading = *request;
    if (working_set.generations().empty() || readings_left == 0) {
      return NoGeneration();
    }
    --readings_left;
    *response->mutable_working_set() = working_set;
    if (request->heat_map_unit() == v1::PAGE_SIZE_UNSPECIFIED) {
      response->mutable_working_set()->clear_heat_maps();
    }
    return grpc::Status::OK;
  }

  // Pages of two ranges: the one with the number n has n pages of 4 KiB and
  // was young in generation 2 - n, if there is one.
  grpc::Status ListHotRanges(grpc::ServerContext*,
                             const v1::ListHotRangesRequest* request,
                             v1::ListHotRangesResponse* response) override {
    hot = *request;
    int number = request->page_token().empty()
                     ? 0
                     : static_cast<int>(request->page_token().size());
    for (int i = 0; i < 2 && number < 5; ++i, ++number) {
      v1::HotRange& range = *response->add_ranges();
      range.mutable_extent()->set_gpa_bytes(number * 0x10000);
      range.mutable_extent()->set_size_bytes((number + 1) * 4096);
      range.set_generation(number < 2 ? 2 - number : 0);
    }
    if (number < 5) response->set_next_page_token(std::string(number, 'x'));
    response->set_newest_generation(2);
    return grpc::Status::OK;
  }

  grpc::Status ForgetWorkingSet(grpc::ServerContext*,
                                const v1::ForgetWorkingSetRequest* request,
                                v1::ForgetWorkingSetResponse*) override {
    forgotten = request->vm();
    return grpc::Status::OK;
  }

  grpc::Status GetAger(grpc::ServerContext*, const v1::GetAgerRequest* request,
                       v1::GetAgerResponse* response) override {
    ager.set_vm(request->vm());
    *response->mutable_ager() = ager;
    return grpc::Status::OK;
  }

  grpc::Status UpdateAger(grpc::ServerContext*,
                          const v1::UpdateAgerRequest* request,
                          v1::UpdateAgerResponse* response) override {
    ager_update = *request;
    ager.mutable_settings()->MergeFrom(request->settings());
    *response->mutable_ager() = ager;
    return grpc::Status::OK;
  }

  // One more generation, which found four of eight pages young. Each is ten
  // seconds older than the next one.
  void AddGeneration() {
    v1::WorkingSet before = working_set;
    working_set.Clear();
    working_set.set_vm("vms/alpha");
    v1::Generation& newest = *working_set.add_generations();
    newest.set_sequence(before.generations_size() + 1);
    newest.mutable_since_end();
    newest.set_young_page_count(4);
    newest.set_examined_page_count(8);
    v1::AgeBin& bin = *working_set.add_bins();
    bin.set_generation(newest.sequence());
    bin.mutable_min_age();
    bin.set_page_count(4);
    bin.set_size_bytes(4 * 4096);
    for (v1::Generation& older : *before.mutable_generations()) {
      older.mutable_since_end()->set_seconds(older.since_end().seconds() + 10);
    }
    for (v1::AgeBin& older : *before.mutable_bins()) {
      older.mutable_min_age()->set_seconds(older.min_age().seconds() + 10);
      older.set_page_count(2);
      older.set_size_bytes(2 * 4096);
    }
    if (!before.bins().empty()) {
      bin.mutable_max_age()->set_seconds(10);
    }
    working_set.mutable_generations()->MergeFrom(before.generations());
    working_set.mutable_bins()->MergeFrom(before.bins());
    working_set.set_never_young_page_count(2);
    working_set.mutable_staleness();
    v1::WorkingSetSize& window = *working_set.add_windows();
    window.mutable_window()->set_seconds(60);
    window.set_size_bytes(6 * 4096);
    v1::HeatMap& map = *working_set.add_heat_maps();
    map.mutable_extent()->set_size_bytes(8 * 4096);
    map.set_unit(v1::PAGE_SIZE_4K);
    map.set_ages({0, 0, 0, 0, 1, 1, '\x80', '\x80'});
  }

  Result Run(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"--address", address_});
    return RunLine(std::move(arguments));
  }

  int64_t memory_bytes = 8 * 4096;
  v1::WorkingSet working_set;
  int readings_left = 1000;  // NO_GENERATION afterwards
  bool cancelled = false;
  v1::Ager ager;

  v1::CreateGenerationRequest generation;
  v1::GetWorkingSetRequest reading;
  v1::ListHotRangesRequest hot;
  v1::UpdateAgerRequest ager_update;
  std::string forgotten;

 private:
  static grpc::Status NoGeneration() {
    google::rpc::Status status;
    status.set_code(grpc::StatusCode::FAILED_PRECONDITION);
    google::rpc::ErrorInfo info;
    info.set_reason(v1::ErrorReason_Name(v1::NO_GENERATION));
    info.set_domain("mmud");
    status.add_details()->PackFrom(info);
    google::rpc::ResourceInfo resource;
    resource.set_resource_name("vms/alpha");
    status.add_details()->PackFrom(resource);
    return grpc::Status(grpc::StatusCode::FAILED_PRECONDITION,
                        "vms/alpha has no generation",
                        status.SerializeAsString());
  }

  std::string address_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace mmud::client

#endif  // CLIENT_MMUCTL_FAKE_AGING_TEST_UTIL_H_
