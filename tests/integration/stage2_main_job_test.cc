// The main job of a migration controller on stage-2 tables: with each granule,
// FEAT_BBM level and three chunk sizes, the guest's memory and its copy end
// byte-equal.

#include <cstdint>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "client/migration_report.h"
#include "client/mmu_client/client.h"
#include "client/reference_controller.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmud/v1/vm_service.pb.h"
#include "tests/integration/daemon.h"
#include "tests/integration/guest.h"

namespace mmud::integration {
namespace {

constexpr int64_t kKiB = int64_t{1} << 10;

struct Processor {
  int64_t granule_bytes = 0;
  int32_t bbm_level = 0;
  int64_t chunk_bytes = 0;
  // FEAT_HAFDBS, both of its parts, and FEAT_TLBIRANGE.
  bool has_options = false;
};

std::vector<Processor> Processors() {
  struct Granule {
    int64_t bytes;
    std::vector<int64_t> chunks;
  };
  const std::vector<Granule> granules = {
      {4 * kKiB, {4 * kKiB, 2 * kMiB, kGiB}},
      {16 * kKiB, {0, 16 * kKiB, 32 * kMiB}},
      {64 * kKiB, {0, 64 * kKiB, 512 * kMiB}}};
  std::vector<Processor> all;
  for (const Granule& granule : granules) {
    for (const int32_t bbm_level : {0, 2}) {
      for (const int64_t chunk : granule.chunks) {
        all.push_back({granule.bytes, bbm_level, chunk, false});
      }
      all.push_back({granule.bytes, bbm_level, granule.chunks.back(), true});
    }
  }
  return all;
}

std::string NameOf(const Processor& processor) {
  return absl::StrCat("Granule", processor.granule_bytes / kKiB, "KBbm",
                      processor.bbm_level, "Chunk",
                      processor.chunk_bytes / kKiB, "K",
                      processor.has_options ? "Hafdbs" : "");
}

void PrintTo(const Processor& processor, std::ostream* os) {
  *os << NameOf(processor);
}

class Stage2MainJobTest : public ::testing::TestWithParam<Processor> {};

// Covers: ARM-28
TEST_P(Stage2MainJobTest, MemoryAndItsCopyAreEqual) {
  const Processor& processor = GetParam();
  Daemon daemon;
  const absl::StatusOr<std::unique_ptr<client::Client>> client =
      client::Client::Connect(daemon.address());
  ASSERT_TRUE(client.ok()) << client.status();

  client::ControllerOptions options;
  options.vm_id = "alpha";
  options.trace_name = "sort.trace";
  options.accesses_per_second_per_vcpu = 200'000;
  options.pacing = client::Pacing::kNone;
  v1::Stage2Mmu& stage2 = *options.vm.mutable_stage2();
  stage2.set_granule_bytes(processor.granule_bytes);
  stage2.set_bbm_level(processor.bbm_level);
  stage2.set_eager_split_chunk_bytes(processor.chunk_bytes);
  if (processor.has_options) {
    stage2.set_hardware_access_flag(v1::FEATURE_ON);
    stage2.set_hardware_dirty_state(v1::FEATURE_ON);
    stage2.set_tlbi_range(v1::FEATURE_ON);
  }
  // As much as the smallest block of the largest granule, and a part of one.
  options.memslots.resize(2);
  options.memslots[0].set_size_bytes(512 * kMiB);
  options.memslots[0].set_host_page_size(v1::PAGE_SIZE_1G);
  options.memslots[1].set_slot(1);
  options.memslots[1].set_gpa_bytes(kGiB + 64 * kKiB);
  options.memslots[1].set_size_bytes(8 * kMiB);

  client::ControllerObserver observer;
  client::ReferenceController controller(client->get(), options, &observer);
  const absl::StatusOr<client::MigrationReport> report = controller.Run();
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_TRUE(report->equal) << client::Verdict(*report);
  EXPECT_EQ(Guest(daemon.client(), "vms/alpha").Audit(), "");
  ASSERT_TRUE(controller.Delete().ok());
}

INSTANTIATE_TEST_SUITE_P(Processors, Stage2MainJobTest,
                         ::testing::ValuesIn(Processors()),
                         [](const auto& info) { return NameOf(info.param); });

}  // namespace
}  // namespace mmud::integration
