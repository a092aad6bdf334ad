// The size of the pieces in which stage-2 blocks are split ahead of the guest's
// writes, changed by UpdateVm.

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "mmud/v1/split_service.grpc.pb.h"
#include "mmud/v1/vm_service.grpc.pb.h"
#include "tests/integration/daemon.h"
#include "tests/integration/guest.h"
#include "tests/integration/metrics_text.h"
#include "tests/integration/test_client.h"

namespace mmud::integration {
namespace {

using SplitStub = v1::SplitService::Stub;

constexpr int64_t kGibs = 4;          // of the guest's memory
constexpr int64_t kBlocksOf2M = 512;  // of a GiB

class Stage2ChunkTest : public ::testing::Test {
 protected:
  // A VM with these options of Stage2Mmu. Its memory is mapped by the largest
  // blocks and has no contents.
  Guest MakeGuest(const std::string& stage2) {
    const RawResult made = daemon_.client().CallText(
        "mmud.v1.VmService/CreateVm",
        absl::StrCat("vm_id: 'alpha' vm { stage2 { ", stage2,
                     " } memslots { size_bytes: ", kGibs * kGiB,
                     " backing: MEMORY_BACKING_METADATA_ONLY "
                     "host_page_size: PAGE_SIZE_1G } }"));
    EXPECT_TRUE(made.status.ok()) << made.status.error_message();
    const Guest guest(daemon_.client(), "vms/alpha");
    guest.ReadWords(kGibs * kGiB, kGiB);
    return guest;
  }

  Result<v1::UpdateVmResponse> SetChunk(int64_t bytes) {
    v1::UpdateVmRequest request;
    request.mutable_vm()->set_name("vms/alpha");
    request.mutable_vm()->mutable_stage2()->set_eager_split_chunk_bytes(bytes);
    request.mutable_update_mask()->add_paths("stage2.eager_split_chunk_bytes");
    return daemon_.client().Call(&v1::VmService::Stub::UpdateVm, request);
  }

  v1::SplitMetadata MetadataOf(const std::string& operation) {
    return Unpack<v1::SplitMetadata>(
        daemon_.client().GetOperation(operation).metadata());
  }

  double Metric(const std::string& series) {
    const absl::StatusOr<Metrics> metrics = ParseMetrics(daemon_.MetricsText());
    EXPECT_TRUE(metrics.ok()) << metrics.status();
    return metrics->Value(series);
  }
  // TLB flushes between break and make, and their invalidations by address.
  double Breaks() {
    return Metric(
        "mmud_tlb_flushes_total{mmu=\"stage2\",reason=\"bbm\","
        "scope=\"range\"}");
  }
  double InvalidationsByIpa() {
    return Metric("mmud_tlbi_operations_total{operation=\"ipas2e1is\"}");
  }

  Daemon daemon_;
};

// A GiB takes one invalidation by a chunk of 1 GiB. By chunks of 2 MiB it takes
// one as a block of 1 GiB, and one for each of its blocks of 2 MiB.
int64_t BreaksOfAGib(int64_t chunk_bytes) {
  return chunk_bytes == kGiB ? 1 : 1 + kBlocksOf2M;
}

// The split is paused after its first step. That takes the first GiB, or on a
// slow machine a part of it.
// Covers: ARM-24
TEST_F(Stage2ChunkTest, APausedSplitGoesOnWithTheNewChunk) {
  const TestClient& client = daemon_.client();
  for (const int64_t first : {2 * kMiB, kGiB}) {
    const int64_t second = first == kGiB ? 2 * kMiB : kGiB;
    SCOPED_TRACE(absl::StrCat("first by ", first));
    const Guest guest =
        MakeGuest(absl::StrCat("eager_split_chunk_bytes: ", first));
    EXPECT_EQ(guest.Get().mapped_pages().pages_1g_count(), kGibs);
    const double breaks = Breaks();
    const double by_ipa = InvalidationsByIpa();
    v1::SplitHugePagesRequest request;
    request.mutable_throttle()->set_chunk_bytes(kGiB);
    request.mutable_throttle()->mutable_max_lock_hold()->set_seconds(1);
    request.mutable_throttle()->mutable_min_pause()->set_seconds(10);
    const std::string name = guest.StartSplit(request);
    ASSERT_TRUE(Eventually([&] { return MetadataOf(name).done_bytes() > 0; }));
    // It waits for its throttle. Paused, it needs no throttle any more.
    v1::PauseSplitRequest pause;
    pause.set_operation(name);
    client.Must(&SplitStub::PauseSplit, pause);
    v1::UpdateSplitRequest at_once;
    at_once.set_operation(name);
    at_once.mutable_throttle()->mutable_min_pause()->set_seconds(0);
    client.Must(&SplitStub::UpdateSplit, at_once);
    ASSERT_TRUE(Eventually(
        [&] { return MetadataOf(name).state() == v1::SPLIT_STATE_PAUSED; }));
    const v1::SplitMetadata paused = MetadataOf(name);
    const int64_t gibs = paused.splits().split_1g_count();
    const int64_t blocks = paused.splits().split_2m_count();
    ASSERT_EQ(gibs, 1);
    const int64_t done = first == kGiB ? gibs : gibs + blocks;
    EXPECT_EQ(paused.cost().tlb_flush_count(), done);
    EXPECT_EQ(Breaks() - breaks, done);
    EXPECT_EQ(InvalidationsByIpa() - by_ipa, done);

    const auto changed = SetChunk(second);
    ASSERT_TRUE(changed.status.ok()) << changed.status.error_message();
    EXPECT_EQ(changed.response.vm().stage2().eager_split_chunk_bytes(), second);
    EXPECT_EQ(Breaks() - breaks, done) << "the split stands still";

    v1::ResumeSplitRequest resume;
    resume.set_operation(name);
    client.Must(&SplitStub::ResumeSplit, resume);
    const auto response =
        Unpack<v1::SplitHugePagesResponse>(client.WaitDone(name).response());
    EXPECT_EQ(response.splits().split_1g_count(), kGibs);
    EXPECT_EQ(response.splits().split_2m_count(), kGibs * kBlocksOf2M);
    const int64_t all = done + (kGibs - gibs) * BreaksOfAGib(second) +
                        gibs * kBlocksOf2M - blocks;
    EXPECT_EQ(response.cost().tlb_flush_count(), all);
    EXPECT_EQ(Breaks() - breaks, all);
    EXPECT_EQ(InvalidationsByIpa() - by_ipa, all);
    EXPECT_EQ(guest.Get().mapped_pages().pages_4k_count(),
              kGibs * kGiB / kPage);
    EXPECT_EQ(guest.Audit(), "");

    v1::DeleteVmRequest remove;
    remove.set_name(guest.name());
    client.Must(&v1::VmService::Stub::DeleteVm, remove);
  }
}

// Covers: ARM-21
TEST_F(Stage2ChunkTest, AWrongChunkIsRefusedAndNothingChanges) {
  struct Row {
    int64_t bytes;
    const char* mentions;
  };
  const Guest guest =
      MakeGuest("granule_bytes: 65536 eager_split_chunk_bytes: 536870912");
  const std::string before = guest.Get().etag();
  for (const Row& row :
       {Row{-1,
            "is -1; it must be 0, which splits nothing ahead, or the size of a "
            "page or block of the granule"},
        Row{4096, "is 4096; with granules of 64 KiB it must be 0"},
        Row{2 * kMiB, "size of a page or block, 65536, 536870912"},
        Row{kGiB, "is 1073741824; with granules of 64 KiB it must be 0"}}) {
    SCOPED_TRACE(row.bytes);
    const grpc::Status refused = SetChunk(row.bytes).status;
    EXPECT_EQ(refused.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
    const ErrorFacts facts = FactsOf(refused);
    EXPECT_EQ(facts.reason, "INVALID_MMU_OPTION");
    EXPECT_EQ(facts.field, "vm.stage2.eager_split_chunk_bytes");
    EXPECT_EQ(facts.violated_field, facts.field);
    EXPECT_TRUE(absl::StrContains(refused.error_message(), row.mentions))
        << refused.error_message();
    EXPECT_EQ(guest.Get().stage2().eager_split_chunk_bytes(), 512 * kMiB);
  }
  EXPECT_EQ(guest.Get().etag(), before);
  for (const int64_t bytes : {int64_t{0}, int64_t{65536}, 512 * kMiB}) {
    EXPECT_EQ(SetChunk(bytes).response.vm().stage2().eager_split_chunk_bytes(),
              bytes);
  }
}

}  // namespace
}  // namespace mmud::integration
