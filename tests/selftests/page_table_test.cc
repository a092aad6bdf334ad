// Several vCPUs access one region in three phases, as in KVM's
// kvm_page_table_test. First mappings are created. Then they are updated while
// the region logs dirty pages, so they are split and write-protected. At last
// logging stops and mappings are merged to huge pages. Memory always has the
// values that the guest wrote.

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/vm/vm_state.h"

namespace mmu {
namespace {

using ::mmu::testing::AuditFindings;
using ::mmu::testing::MakeVm;
using ::mmu::testing::SealAndList;
using ::mmu::testing::Slot;
using ::mmu::testing::StartLog;
using ::mmu::testing::StopLog;
using ::testing::SizeIs;
using ::testing::TestWithParam;
using ::testing::Values;

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kGiB = uint64_t{1} << 30;
constexpr uint64_t kBytes = 16 * kMiB;
constexpr uint64_t kPages = kBytes / kPageSize;
constexpr int kVcpus = 3;

// All vCPUs use the same pages: word i of each page belongs to vCPU i.
uint64_t GpaOf(uint64_t page, int vcpu) {
  return kGiB + page * kPageSize + 8 * vcpu;
}
uint64_t ValueOf(uint64_t phase, uint64_t page, int vcpu) {
  return phase << 32 | page << 8 | vcpu;
}

class PageTableTest : public TestWithParam<Level> {
 protected:
  PageTableTest() : vm_(MakeVm({Slot(0, kGiB, kBytes, GetParam())}, kVcpus)) {}

  // In every page each vCPU reads the value that it wrote in the phase before,
  // then writes. All vCPUs run at once.
  void RunPhase(uint64_t phase) {
    std::atomic<int> ready{0};
    std::vector<std::thread> vcpus;
    for (int i = 0; i < kVcpus; ++i) {
      vcpus.emplace_back([&, i] {
        Vcpu& vcpu = *vm_->state().vcpus[i];
        ready.fetch_add(1);
        while (ready.load() < kVcpus) std::this_thread::yield();
        for (uint64_t page = 0; page < kPages; ++page) {
          uint64_t word = 0;
          const Gpa gpa(GpaOf(page, i));
          ASSERT_EQ(vcpu.Access(gpa, AccessKind::kRead, &word),
                    AccessOutcome::kDone);
          ASSERT_EQ(word, phase == 1 ? 0 : ValueOf(phase - 1, page, i));
          word = ValueOf(phase, page, i);
          ASSERT_EQ(vcpu.Access(gpa, AccessKind::kWrite, &word),
                    AccessOutcome::kDone);
        }
      });
    }
    for (std::thread& vcpu : vcpus) vcpu.join();
    ExpectContents(phase);
    EXPECT_EQ(AuditFindings(*vm_), "");
  }

  // Verifies memory from the host's side.
  void ExpectContents(uint64_t phase) {
    for (uint64_t page = 0; page < kPages; ++page) {
      std::vector<uint64_t> words(kVcpus);
      ASSERT_TRUE(vm_->ReadMemory(Gpa(GpaOf(page, 0)),
                                  absl::MakeSpan(reinterpret_cast<std::byte*>(
                                                     words.data()),
                                                 words.size() * 8))
                      .ok());
      for (int i = 0; i < kVcpus; ++i) {
        ASSERT_EQ(words[i], ValueOf(phase, page, i)) << page;
      }
    }
  }

  // Verifies that only pages of this size map the region.
  void ExpectMappedBy(Level level) {
    const VmStatsSnapshot stats = vm_->Stats();
    EXPECT_EQ(stats.pages_4k, level == Level::k4K ? kPages : 0);
    EXPECT_EQ(stats.pages_2m, level == Level::k2M ? kPages / 512 : 0);
  }

  std::unique_ptr<Vm> vm_;
};

INSTANTIATE_TEST_SUITE_P(HostPages, PageTableTest,
                         Values(Level::k4K, Level::k2M), [](const auto& level) {
                           return level.param == Level::k4K ? "Small" : "Huge";
                         });

// Covers: TST-12
TEST_P(PageTableTest, MappingsAreCreatedUpdatedAndAdjustedOverTheSameContents) {
  RunPhase(1);
  ExpectMappedBy(GetParam());

  ASSERT_TRUE(StartLog(*vm_, {}, nullptr).ok());
  RunPhase(2);
  ExpectMappedBy(Level::k4K);
  EXPECT_THAT(SealAndList(*vm_, 0), SizeIs(kPages)) << "each page was written";

  ASSERT_TRUE(
      StopLog(*vm_, RecoverOnStop::kYes, Undelivered::kDiscard, nullptr).ok());
  RunPhase(3);
  ExpectMappedBy(GetParam());
}

// The phases follow each other while the vCPUs run.
// Covers: TST-12
TEST_P(PageTableTest, ContentsStayWhilePhasesChangeUnderTheGuest) {
  std::atomic<bool> stop{false};
  std::vector<std::thread> vcpus;
  for (int i = 0; i < kVcpus; ++i) {
    vcpus.emplace_back([&, i] {
      Vcpu& vcpu = *vm_->state().vcpus[i];
      vcpu.EnterGuest();
      for (uint64_t pass = 1; !stop.load(); ++pass) {
        for (uint64_t page = 0; page < kPages; ++page) {
          uint64_t word = 0;
          const Gpa gpa(GpaOf(page, i));
          ASSERT_EQ(vcpu.Access(gpa, AccessKind::kRead, &word),
                    AccessOutcome::kDone);
          ASSERT_EQ(word, pass == 1 ? 0 : ValueOf(pass - 1, page, i));
          word = ValueOf(pass, page, i);
          ASSERT_EQ(vcpu.Access(gpa, AccessKind::kWrite, &word),
                    AccessOutcome::kDone);
        }
      }
      vcpu.ExitGuest();
    });
  }
  DirtyLogConfig eager;
  eager.split = SplitPolicy::kEager;
  for (int i = 0; i < 10; ++i) {
    ASSERT_TRUE(
        StartLog(*vm_, i % 2 == 0 ? eager : DirtyLogConfig(), nullptr).ok());
    std::this_thread::yield();
    ASSERT_TRUE(
        StopLog(*vm_, RecoverOnStop::kYes, Undelivered::kDiscard, nullptr)
            .ok());
  }
  stop.store(true);
  for (std::thread& vcpu : vcpus) vcpu.join();
  EXPECT_EQ(AuditFindings(*vm_), "");
}

}  // namespace
}  // namespace mmu
