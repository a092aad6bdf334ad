// Whole VMs on stage-2 tables: what a guest reads and what its dirty log says,
// for every granule, FEAT_BBM level, chunk size and kind of Access flag.

#include <cstdint>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/level.h"
#include "mmu_core/paging/table_budget.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/core/stage2_leaf_sizes.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/vm/vm_state.h"

namespace mmu {
namespace {

using ::mmu::testing::AuditFindings;
using ::mmu::testing::ClearAndDeliver;
using ::mmu::testing::MakeVmFrom;
using ::mmu::testing::MaskOf;
using ::mmu::testing::SealAndList;
using ::mmu::testing::Slot;
using ::mmu::testing::StartLog;
using ::mmu::testing::StopLog;

constexpr uint64_t kMiB = uint64_t{1} << 20;

struct Row {
  uint32_t granule_bytes;
  int bbm_level;
  int chunk;  // 0: off; else the number of a leaf size
  Stage2Config::AccessFlag access_flag;
};

std::vector<Row> Rows() {
  using Af = Stage2Config::AccessFlag;
  std::vector<Row> rows;
  for (const uint32_t granule : {4096u, 16384u, 65536u}) {
    for (const int bbm : {0, 2}) {
      const int sizes = static_cast<int>(Stage2LeafSizes(granule).size());
      for (int chunk = 0; chunk <= sizes; ++chunk) {
        rows.push_back({granule, bbm, chunk,
                        chunk % 2 == 0 ? Af::kByFault : Af::kByHardware});
      }
    }
  }
  return rows;
}

std::string NameOf(const Row& row) {
  return "Granule" + std::to_string(row.granule_bytes / 1024) + "KBbm" +
         std::to_string(row.bbm_level) + "Chunk" + std::to_string(row.chunk);
}

class Stage2VmTest : public ::testing::TestWithParam<Row> {
 protected:
  // A block of the granule, and a bit more.
  uint64_t MemoryBytes() const {
    const std::vector<uint64_t> sizes =
        Stage2LeafSizes(GetParam().granule_bytes);
    return sizes[1] + 4 * kMiB;
  }
  uint64_t pages() const { return MemoryBytes() / kPageSize; }

  std::unique_ptr<Vm> Make() {
    VmConfig config;
    config.mmu = MmuMode::kStage2;
    config.stage2.granule_bytes = GetParam().granule_bytes;
    config.stage2.bbm_level = GetParam().bbm_level;
    config.stage2.access_flag = GetParam().access_flag;
    config.stage2.tlbi_range = GetParam().chunk % 2 == 0
                                   ? Stage2Config::TlbiRange::kNo
                                   : Stage2Config::TlbiRange::kYes;
    if (GetParam().chunk != 0) {
      config.stage2.eager_split_chunk_bytes = Stage2LeafSizes(
          GetParam().granule_bytes)[static_cast<size_t>(GetParam().chunk) - 1];
    }
    config.vcpu_count = 2;
    config.memslots = {Slot(0, 0, MemoryBytes(), Level::k1G)};
    return MakeVmFrom(config);
  }
};

INSTANTIATE_TEST_SUITE_P(All, Stage2VmTest, ::testing::ValuesIn(Rows()),
                         [](const auto& row) { return NameOf(row.param); });

// The guest reads what it wrote, and each page that it wrote is in the log with
// all pages of its granule, and no other page is.
// Covers: ARM-28, ARM-36
TEST_P(Stage2VmTest, TheLogHasTheGranulesThatTheGuestWrote) {
  const uint64_t tables = TableBudget::Process().Snapshot().in_use;
  auto vm = Make();
  std::mt19937_64 random(7);
  std::vector<uint64_t> contents(pages());
  std::set<uint64_t> written;
  const uint64_t granule = GetParam().granule_bytes / kPageSize;
  const auto run = [&](int accesses) {
    for (int i = 0; i < accesses; ++i) {
      const uint64_t page = random() % pages();
      const int vcpu = static_cast<int>(random() % 2);
      if (random() % 4 != 0) {
        ASSERT_EQ(testing::ReadValue(*vm, page * kPageSize, vcpu),
                  contents[page])
            << "page " << page;
        continue;
      }
      contents[page] = random();
      ASSERT_EQ(testing::Write(*vm, page * kPageSize, contents[page], vcpu),
                AccessOutcome::kDone)
          << vm->state().vcpus[static_cast<size_t>(vcpu)]->status();
      for (uint64_t p = 0; p < granule; ++p) {
        written.insert(page / granule * granule + p);
      }
    }
    ASSERT_EQ(AuditFindings(*vm), "");
  };
  run(300);
  DirtyLogConfig log;
  log.split = SplitPolicy::kEager;
  ASSERT_TRUE(StartLog(*vm, log, nullptr).ok());
  ASSERT_EQ(AuditFindings(*vm), "");
  for (int pass = 0; pass < 3; ++pass) {
    written.clear();
    run(300);
    uint64_t epoch = 0;
    const std::vector<uint64_t> dirty = SealAndList(*vm, 0, &epoch);
    EXPECT_EQ(std::set<uint64_t>(dirty.begin(), dirty.end()), written);
    ASSERT_TRUE(ClearAndDeliver(*vm, 0, epoch, 0, pages(),
                                MaskOf(pages(), dirty), nullptr)
                    .ok());
    ASSERT_EQ(AuditFindings(*vm), "");
  }
  ASSERT_TRUE(
      StopLog(*vm, RecoverOnStop::kYes, Undelivered::kDiscard, nullptr).ok());
  run(300);
  for (uint64_t page = 0; page < pages(); page += 17) {
    ASSERT_EQ(testing::ReadValue(*vm, page * kPageSize), contents[page]);
  }
  EXPECT_EQ(AuditFindings(*vm), "");
  vm.reset();
  EXPECT_EQ(TableBudget::Process().Snapshot().in_use, tables);
}

}  // namespace
}  // namespace mmu
