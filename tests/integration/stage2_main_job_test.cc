// The main job of a migration controller on stage-2 tables: with each granule,
// FEAT_BBM level and three chunk sizes, the guest's memory and its copy end
// byte-equal.

#include <cstdint>
#include <memory>
#include <optional>
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
#include "tests/integration/metrics_text.h"

namespace mmud::integration {
namespace {

using client::SplitWhen;

constexpr int64_t kKiB = int64_t{1} << 10;

// A processor, a guest, and what a split of the guest's memory costs.
struct Processor {
  int64_t granule_bytes = 0;
  int32_t bbm_level = 0;
  int64_t chunk_bytes = 0;
  int64_t memory_bytes = 0;
  v1::PageSize host_page_size = v1::PAGE_SIZE_1G;
  int64_t split_1g = 0;
  int64_t split_2m = 0;  // of the smallest blocks
  int64_t breaks = 0;    // each with its invalidation
  SplitWhen split = SplitWhen::kAhead;
  // FEAT_HAFDBS, both of its parts, and FEAT_TLBIRANGE.
  bool has_options = false;
};

// Two blocks of 32 MiB, or one of 512 MiB.
Processor Large(int64_t granule_bytes, int64_t chunk_bytes) {
  Processor processor;
  processor.granule_bytes = granule_bytes;
  processor.chunk_bytes = chunk_bytes;
  processor.memory_bytes = granule_bytes == 16 * kKiB ? 64 * kMiB : 512 * kMiB;
  processor.split_2m = granule_bytes == 16 * kKiB ? 2 : 1;
  processor.breaks = processor.split_2m;
  return processor;
}

std::vector<Processor> Processors() {
  const std::vector<Processor> chunks = {
      {.granule_bytes = 4 * kKiB,
       .chunk_bytes = 4 * kKiB,
       .memory_bytes = 64 * kMiB,
       .host_page_size = v1::PAGE_SIZE_2M,
       .split_2m = 32,
       .breaks = 32},
      // The block of 1 GiB becomes 512 blocks first.
      {.granule_bytes = 4 * kKiB,
       .chunk_bytes = 2 * kMiB,
       .memory_bytes = kGiB,
       .split_1g = 1,
       .split_2m = 512,
       .breaks = 513},
      // There are tables to split it down to pages at once.
      {.granule_bytes = 4 * kKiB,
       .chunk_bytes = kGiB,
       .memory_bytes = kGiB,
       .split_1g = 1,
       .split_2m = 512,
       .breaks = 1},
      // Without a chunk a split on request goes block by block.
      Large(16 * kKiB, 0),
      Large(16 * kKiB, 16 * kKiB),
      Large(16 * kKiB, 32 * kMiB),
      Large(64 * kKiB, 0),
      Large(64 * kKiB, 64 * kKiB),
      Large(64 * kKiB, 512 * kMiB),
  };
  std::vector<Processor> all;
  for (const int32_t bbm_level : {0, 2}) {
    for (Processor processor : chunks) {
      processor.bbm_level = bbm_level;
      all.push_back(processor);
      // The clears split with the largest chunk of each granule, or not at all.
      const bool is_largest = processor.chunk_bytes >= 32 * kMiB;
      if (processor.chunk_bytes != 0 && !is_largest) continue;
      processor.split = SplitWhen::kByClear;
      all.push_back(processor);
      if (!is_largest) continue;
      processor.has_options = true;
      all.push_back(processor);
    }
  }
  return all;
}

std::string NameOf(const Processor& processor) {
  return absl::StrCat(
      "Granule", processor.granule_bytes / kKiB, "KBbm", processor.bbm_level,
      "Chunk", processor.chunk_bytes / kKiB, "K",
      processor.split == SplitWhen::kAhead ? "Ahead" : "ByClear",
      processor.has_options ? "Hafdbs" : "");
}

void PrintTo(const Processor& processor, std::ostream* os) {
  *os << NameOf(processor);
}

double Splits(const Metrics& metrics, const std::string& from,
              const std::string& trigger) {
  return metrics.Sum("mmud_huge_page_splits_total",
                     {absl::StrCat("from=\"", from, "\""),
                      absl::StrCat("trigger=\"", trigger, "\"")});
}

client::ControllerOptions OptionsFor(const Processor& processor) {
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
  options.split = processor.split;
  // Blocks, and memory on small host pages.
  options.memslots.resize(2);
  options.memslots[0].set_size_bytes(processor.memory_bytes);
  options.memslots[0].set_host_page_size(processor.host_page_size);
  options.memslots[1].set_slot(1);
  options.memslots[1].set_gpa_bytes(2 * kGiB + 64 * kKiB);
  options.memslots[1].set_size_bytes(8 * kMiB);
  return options;
}

struct Outcome {
  client::MigrationReport report;
  Metrics metrics;
};

// Migrates a guest, and checks what is so for each processor.
void Migrate(const Processor& processor, std::optional<Outcome>& outcome) {
  Daemon daemon;
  const absl::StatusOr<std::unique_ptr<client::Client>> client =
      client::Client::Connect(daemon.address());
  ASSERT_TRUE(client.ok()) << client.status();
  client::ControllerObserver observer;
  client::ReferenceController controller(client->get(), OptionsFor(processor),
                                         &observer);
  const absl::StatusOr<client::MigrationReport> report = controller.Run();
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_TRUE(report->equal) << client::Verdict(*report);
  EXPECT_EQ(Guest(daemon.client(), "vms/alpha").Audit(), "");
  EXPECT_GT(report->young_page_count, 0) << "stage 2 was aged";
  const absl::StatusOr<Metrics> metrics = ParseMetrics(daemon.MetricsText());
  ASSERT_TRUE(metrics.ok()) << metrics.status();
  outcome = Outcome{*report, *metrics};
  ASSERT_TRUE(controller.Delete().ok());
}

class Stage2MainJobTest : public ::testing::TestWithParam<Processor> {};

// Covers: ARM-28
TEST_P(Stage2MainJobTest, MemoryAndItsCopyAreEqual) {
  const Processor& processor = GetParam();
  std::optional<Outcome> outcome;
  ASSERT_NO_FATAL_FAILURE(Migrate(processor, outcome));
  const client::MigrationReport& report = outcome->report;
  const Metrics& metrics = outcome->metrics;
  const double breaks =
      metrics.Sum("mmud_tlb_flushes_total", {"reason=\"bbm\""});
  if (processor.split == SplitWhen::kAhead) {
    EXPECT_EQ(report.splits.split_1g_count(), processor.split_1g);
    EXPECT_EQ(report.splits.split_2m_count(), processor.split_2m);
    EXPECT_EQ(report.split_cost.tlb_flush_count(), processor.breaks);
    // Nothing is left to split for clears and writes.
    EXPECT_EQ(breaks, static_cast<double>(processor.breaks));
  } else {
    // How many blocks a write splits before the clear does depends on the race
    // of the two, but not that each split has its break. One that goes down two
    // levels counts the smaller blocks as well.
    const double by_fault =
        Splits(metrics, "1g", "fault") + Splits(metrics, "2m", "fault");
    const double clear_1g = Splits(metrics, "1g", "clear");
    const double clear_2m = Splits(metrics, "2m", "clear");
    EXPECT_EQ(breaks, by_fault + clear_1g + clear_2m -
                          (processor.chunk_bytes == kGiB ? 512 * clear_1g : 0));
    EXPECT_GT(breaks, 0);
    if (processor.chunk_bytes == 0) {
      EXPECT_EQ(clear_1g + clear_2m, 0);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Processors, Stage2MainJobTest,
                         ::testing::ValuesIn(Processors()),
                         [](const auto& row) { return NameOf(row.param); });

}  // namespace
}  // namespace mmud::integration
