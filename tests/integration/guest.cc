#include "tests/integration/guest.h"

#include <algorithm>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_join.h"
#include "gtest/gtest.h"
#include "mmud/v1/debug_service.grpc.pb.h"
#include "tests/integration/daemon.h"

namespace mmud::integration {
namespace {

using WorkloadStub = lab::v1::WorkloadService::Stub;

// Adds ascending pages as extents.
template <typename AddExtent>
void AddExtents(const PageSet& pages, const AddExtent& add) {
  for (auto it = pages.begin(); it != pages.end();) {
    const int64_t first = *it;
    int64_t end = first;
    while (it != pages.end() && *it == end) {
      ++it;
      ++end;
    }
    v1::Extent* extent = add();
    extent->set_gpa_bytes(first * kPage);
    extent->set_size_bytes((end - first) * kPage);
  }
}

void AddPages(const v1::DirtyLogChunk& chunk, PageSet* pages) {
  const int64_t first = chunk.gpa_bytes() / kPage;
  for (size_t byte = 0; byte < chunk.bitmap().size(); ++byte) {
    for (int bit = 0; bit < 8; ++bit) {
      if ((chunk.bitmap()[byte] >> bit & 1) != 0) {
        pages->insert(first + static_cast<int64_t>(byte) * 8 + bit);
      }
    }
  }
  for (const v1::Extent& extent : chunk.extents().extents()) {
    const int64_t start = extent.gpa_bytes() / kPage;
    for (int64_t i = 0; i < extent.size_bytes() / kPage; ++i) {
      pages->insert(start + i);
    }
  }
}

}  // namespace

v1::Memslot MakeSlot(int64_t size_bytes, v1::MemoryBacking backing,
                     v1::PageSize host_page_size) {
  v1::Memslot slot;
  slot.set_size_bytes(size_bytes);
  slot.set_backing(backing);
  slot.set_host_page_size(host_page_size);
  return slot;
}

Guest::Guest(const TestClient& client, const std::string& id,
             const std::vector<v1::Memslot>& slots, int vcpu_count)
    : client_(client), name_("vms/" + id) {
  v1::CreateVmRequest request;
  request.set_vm_id(id);
  request.mutable_vm()->mutable_tdp();
  request.mutable_vm()->set_vcpu_count(vcpu_count);
  for (const v1::Memslot& slot : slots) {
    *request.mutable_vm()->add_memslots() = slot;
  }
  client.Must(&v1::VmService::Stub::CreateVm, request);
}

v1::Vm Guest::Get() const {
  v1::GetVmRequest request;
  request.set_name(name_);
  return client_.Must(&v1::VmService::Stub::GetVm, request).vm();
}

std::string Guest::Start(const lab::v1::Workload& workload) const {
  lab::v1::StartWorkloadRequest request;
  request.set_vm(name_);
  *request.mutable_workload() = workload;
  return client_.Must(&WorkloadStub::StartWorkload, request).workload().name();
}

lab::v1::Workload Guest::AwaitEnd(const std::string& workload) const {
  lab::v1::GetWorkloadRequest request;
  request.set_name(workload);
  lab::v1::Workload seen;
  EXPECT_TRUE(Eventually([&] {
    seen = client_.Must(&WorkloadStub::GetWorkload, request).workload();
    return seen.state() != lab::v1::WORKLOAD_STATE_RUNNING;
  })) << seen.ShortDebugString();
  return seen;
}

lab::v1::Workload Guest::LastWorkload() const {
  lab::v1::ListWorkloadsRequest request;
  request.set_vm(name_);
  const lab::v1::ListWorkloadsResponse list =
      client_.Must(&WorkloadStub::ListWorkloads, request);
  return list.workloads().empty() ? lab::v1::Workload() : list.workloads(0);
}

void Guest::Sweep(int64_t page_count, int64_t stride_bytes,
                  double writes) const {
  lab::v1::Workload workload;
  workload.set_vcpu_count(1);
  lab::v1::AccessPattern* pattern = workload.mutable_pattern();
  pattern->mutable_sequential()->set_stride_bytes(stride_bytes);
  pattern->set_write_fraction(writes);
  pattern->mutable_extent()->set_size_bytes(page_count * kPage);
  workload.set_access_count(
      std::max<int64_t>(1, page_count * kPage / stride_bytes));
  const lab::v1::Workload end = RunToEnd(workload);
  EXPECT_EQ(end.state(), lab::v1::WORKLOAD_STATE_COMPLETED)
      << end.ShortDebugString();
}

void Guest::WritePages(int64_t page_count, int64_t step) const {
  Sweep(page_count, step * kPage, 1.0);
}

void Guest::ReadWords(int64_t size_bytes, int64_t stride_bytes) const {
  Sweep(size_bytes / kPage, stride_bytes, 0.0);
}

std::string Guest::StartRandomWrites(int64_t seed) const {
  lab::v1::Workload workload;
  workload.mutable_pattern()->mutable_uniform();
  workload.mutable_pattern()->set_write_fraction(0.5);
  workload.set_seed(seed);
  return Start(workload);
}

std::string Guest::StartFewWrites(int64_t seed) const {
  lab::v1::Workload workload;
  workload.mutable_pattern()->mutable_uniform();
  workload.mutable_pattern()->set_write_fraction(1);
  workload.set_max_accesses_per_second(300);
  workload.set_seed(seed);
  return Start(workload);
}

lab::v1::Workload Guest::StopWorkload() const {
  lab::v1::StopWorkloadRequest request;
  request.set_name(LastWorkload().name());
  return client_.Must(&WorkloadStub::StopWorkload, request).workload();
}

void Guest::PauseVcpus() const {
  v1::PauseVcpusRequest request;
  request.set_vm(name_);
  request.mutable_max_duration()->set_seconds(3600);
  client_.Must(&v1::VmService::Stub::PauseVcpus, request);
}

std::string Guest::BeginDirtyLog(v1::StartDirtyLogRequest request) const {
  ReadWords(Get().memory_size_bytes(), 2 * kMiB);
  request.set_vm(name_);
  request.mutable_throttle()->set_max_pages_per_second(1);
  return client_.Must(&v1::DirtyLogService::Stub::StartDirtyLog, request)
      .name();
}

v1::StartDirtyLogResponse Guest::StartDirtyLog(
    v1::StartDirtyLogRequest request) const {
  request.set_vm(name_);
  if (request.owner().empty()) request.set_owner(kOwner);
  if (request.owner_token().empty()) request.set_owner_token(kOwnerToken);
  const google::longrunning::Operation operation = client_.WaitDone(
      client_.Must(&v1::DirtyLogService::Stub::StartDirtyLog, request).name());
  v1::StartDirtyLogResponse response;
  EXPECT_TRUE(operation.response().UnpackTo(&response))
      << operation.ShortDebugString();
  return response;
}

v1::DirtyLog Guest::GetDirtyLog() const {
  v1::GetDirtyLogRequest request;
  request.set_vm(name_);
  return client_.Must(&v1::DirtyLogService::Stub::GetDirtyLog, request)
      .dirty_log();
}

Harvest Guest::Seal() const {
  v1::SealDirtyLogRequest seal;
  seal.set_vm(name_);
  seal.set_owner_token(kOwnerToken);
  seal.set_acknowledged_epoch(GetDirtyLog().sealed_epoch());
  const v1::SealDirtyLogResponse sealed =
      client_.Must(&v1::DirtyLogService::Stub::SealDirtyLog, seal);
  v1::ReadDirtyPagesRequest read;
  read.set_log_id(sealed.log_id());
  read.set_epoch(sealed.epoch());
  Harvest harvest = Read(read);
  for (const v1::SealedSlot& slot : sealed.slots()) {
    harvest.fresh_page_count += slot.fresh_page_count();
    harvest.merged_page_count += slot.merged_page_count();
  }
  return harvest;
}

Harvest Guest::Read(const v1::ReadDirtyPagesRequest& request,
                    const std::function<bool()>& more) const {
  v1::ReadDirtyPagesRequest named = request;
  named.set_vm(name_);
  grpc::ClientContext context;
  SetTimeout(kCallTimeout, &context);
  v1::DirtyLogService::Stub stub(client_.channel());
  const auto reader = stub.ReadDirtyPages(&context, named);
  Harvest harvest;
  v1::ReadDirtyPagesResponse response;
  while (reader->Read(&response)) {
    if (response.has_header()) {
      harvest.log_id = response.header().log_id();
      harvest.epoch = response.header().epoch();
    } else if (response.has_chunk()) {
      const v1::DirtyLogChunk& chunk = response.chunk();
      ++harvest.chunks;
      harvest.next.set_slot(chunk.slot());
      harvest.next.set_gpa_bytes(chunk.gpa_bytes() + chunk.size_bytes());
      AddPages(chunk, &harvest.pages);
    } else {
      harvest.complete = response.trailer().chunk_count() == harvest.chunks &&
                         response.trailer().dirty_page_count() ==
                             static_cast<int64_t>(harvest.pages.size());
    }
    if (!more()) context.TryCancel();
  }
  harvest.status = reader->Finish();
  return harvest;
}

Result<v1::ClearDirtyLogResponse> Guest::Clear(int64_t epoch,
                                               const PageSet& pages) const {
  const v1::Vm vm = Get();
  v1::ClearDirtyLogRequest request;
  request.set_vm(name_);
  request.set_owner_token(kOwnerToken);
  request.set_epoch(epoch);
  v1::SlotPages* named = request.mutable_pages();
  named->set_slot(vm.memslots(0).slot());
  named->set_start_gpa_bytes(vm.memslots(0).gpa_bytes());
  named->set_size_bytes(vm.memslots(0).size_bytes());
  v1::ExtentList* extents = named->mutable_extents();
  AddExtents(pages, [extents] { return extents->add_extents(); });
  return client_.Call(&v1::DirtyLogService::Stub::ClearDirtyLog, request);
}

Result<v1::AcknowledgePagesResponse> Guest::Acknowledge(int64_t epoch) const {
  v1::AcknowledgePagesRequest request;
  request.set_vm(name_);
  request.set_owner_token(kOwnerToken);
  request.set_epoch(epoch);
  return client_.Call(&v1::DirtyLogService::Stub::AcknowledgePages, request);
}

void Guest::Copy(const PageSet& pages, std::string* copy) const {
  if (pages.empty()) return;
  v1::ReadPagesRequest request;
  request.set_vm(name_);
  AddExtents(pages, [&request] { return request.add_extents(); });
  grpc::ClientContext context;
  SetTimeout(kCallTimeout, &context);
  v1::GuestMemoryService::Stub stub(client_.channel());
  const auto reader = stub.ReadPages(&context, request);
  v1::ReadPagesResponse response;
  int64_t copied = 0;
  bool complete = false;
  while (reader->Read(&response)) {
    complete = response.has_trailer();
    const char* data = response.chunk().data().data();
    for (const v1::Extent& extent : response.chunk().data_extents()) {
      const auto size = static_cast<size_t>(extent.size_bytes());
      copy->replace(static_cast<size_t>(extent.gpa_bytes()), size, data, size);
      data += size;
      copied += extent.size_bytes() / kPage;
    }
    for (const v1::Extent& extent : response.chunk().zero_extents()) {
      const auto size = static_cast<size_t>(extent.size_bytes());
      copy->replace(static_cast<size_t>(extent.gpa_bytes()), size, size, '\0');
      copied += extent.size_bytes() / kPage;
    }
  }
  const grpc::Status status = reader->Finish();
  EXPECT_TRUE(status.ok() && complete) << status.error_message();
  EXPECT_EQ(copied, static_cast<int64_t>(pages.size()));
}

std::string Guest::ReadAll(int64_t size_bytes) const {
  PageSet pages;
  for (int64_t i = 0; i < size_bytes / kPage; ++i) pages.insert(pages.end(), i);
  std::string memory(static_cast<size_t>(size_bytes), '?');
  Copy(pages, &memory);
  return memory;
}

std::string Guest::StartSplit(v1::SplitHugePagesRequest request) const {
  request.set_vm(name_);
  return client_.Must(&v1::SplitService::Stub::SplitHugePages, request).name();
}

std::string Guest::StartLongOperation() const {
  ReadWords(Get().memory_size_bytes(), 2 * kMiB);
  v1::SplitHugePagesRequest request;
  request.mutable_throttle()->set_max_pages_per_second(1);
  return StartSplit(request);
}

void Guest::ExpectThatAMigrationCopiesAll(int64_t size_bytes) const {
  std::string copy(static_cast<size_t>(size_bytes), '\0');
  // A quarter of the pages is written all the time, so that writes occur during
  // every step of a round. The other pages are written so rarely that a lost
  // page is not written again before the end.
  lab::v1::Workload workload;
  workload.mutable_pattern()->set_write_fraction(0.5);
  workload.mutable_pattern()->mutable_hot_cold()->set_hot_fraction(0.25);
  workload.mutable_pattern()->mutable_hot_cold()->set_hot_access_fraction(
      0.999);
  workload.set_seed(7);
  Start(workload);
  const auto round = [&] {
    const Harvest harvest = Seal();
    EXPECT_TRUE(harvest.complete) << harvest.status.error_message();
    EXPECT_TRUE(Clear(harvest.epoch, harvest.pages).status.ok());
    Copy(harvest.pages, &copy);
    EXPECT_TRUE(Acknowledge(harvest.epoch).status.ok());
    return harvest.pages.size();
  };
  EXPECT_TRUE(Eventually([&] { return round() > 0; }));
  for (int i = 0; i < 5; ++i) round();
  PauseVcpus();
  round();
  EXPECT_EQ(round(), 0u);
  const std::string memory = ReadAll(size_bytes);
  EXPECT_TRUE(memory == copy);
  EXPECT_NE(memory.find_first_not_of('\0'), std::string::npos);
  EXPECT_EQ(Audit(), "");
}

std::string Guest::Audit() const {
  v1::RunAuditRequest request;
  request.set_vm(name_);
  return absl::StrJoin(
      client_.Must(&v1::DebugService::Stub::RunAudit, request).violations(),
      "\n");
}

}  // namespace mmud::integration
