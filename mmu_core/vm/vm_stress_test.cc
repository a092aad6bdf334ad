// Many operations at once: vCPUs run patterns while the log is switched on and
// off, sealed and cleared, and pages are split, recovered, aged and zapped. A
// copy that is kept like that of a migration must equal the guest's memory in
// the end.

#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/guest/pattern.h"
#include "mmu_core/guest/pattern_spec.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/jobs/split_job.h"
#include "mmu_core/vm/vm.h"

namespace mmu {
namespace {

using ::mmu::testing::AuditFindings;
using ::mmu::testing::ClearAndDeliver;
using ::mmu::testing::MakeVm;
using ::mmu::testing::MaskOf;
using ::mmu::testing::SealAndList;
using ::mmu::testing::Slot;
using ::mmu::testing::StartLog;
using ::mmu::testing::StopLog;

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kGiB = uint64_t{1} << 30;
constexpr int kVcpus = 2;
constexpr uint64_t kPages = 8192;  // of slot 0
constexpr absl::Duration kDuration = absl::Seconds(3);

WorkloadOptions Patterns(const Vm& vm, uint64_t seed) {
  WorkloadOptions options;
  for (int i = 0; i < kVcpus; ++i) {
    PatternSpec spec;
    spec.kind =
        i % 2 == 0 ? PatternSpec::Kind::kUniform : PatternSpec::Kind::kHotCold;
    spec.write_fraction = 0.6;
    spec.exec_fraction = 0.1;
    spec.seed = seed;
    options.sources.push_back(MakePattern(spec, vm.GuestSpace(), i, kVcpus));
  }
  return options;
}

// The receiving side of a migration of slot 0.
class Copy {
 public:
  explicit Copy(const Vm& vm) : vm_(vm), bytes_(kPages * kPageSize) {}
  void Take(uint64_t page) {
    ASSERT_TRUE(
        vm_.ReadMemory(Gpa(page * kPageSize), absl::MakeSpan(bytes_).subspan(
                                                  page * kPageSize, kPageSize))
            .ok());
  }
  void TakeAll() {
    for (uint64_t page = 0; page < kPages; ++page) Take(page);
  }
  // The first page that differs from the guest's memory, or kPages.
  uint64_t FirstDifference() const {
    std::vector<std::byte> now(kPages * kPageSize);
    EXPECT_TRUE(vm_.ReadMemory(Gpa(0), absl::MakeSpan(now)).ok());
    for (uint64_t page = 0; page < kPages; ++page) {
      const uint64_t at = page * kPageSize;
      if (std::memcmp(&now[at], &bytes_[at], kPageSize) != 0) return page;
    }
    return kPages;
  }

 private:
  const Vm& vm_;
  std::vector<std::byte> bytes_;
};

// One round in the only right order: seal, clear, copy.
void HarvestRound(Vm& vm, Copy& copy) {
  uint64_t epoch = 0;
  const std::vector<uint64_t> pages = SealAndList(vm, 0, &epoch);
  ASSERT_TRUE(
      ClearAndDeliver(vm, 0, epoch, 0, kPages, MaskOf(kPages, pages), nullptr)
          .ok());
  for (const uint64_t page : pages) copy.Take(page);
}

// Disturbs a migration with other operations until `stop`.
void Disturb(Vm& vm, uint64_t seed, const std::atomic<bool>& stop) {
  std::mt19937_64 random(seed);
  while (!stop.load()) {
    switch (random() % 5) {
      case 0: {
        SplitRequest request;
        request.order = random() % 2 == 0 ? SplitOrder::kAscending
                                          : SplitOrder::kDescending;
        request.throttle.chunk_bytes = int64_t{8} << 20;
        request.throttle.max_lock_hold = absl::Microseconds(20);
        const auto job = SplitJob::Create(vm.state(), request);
        ASSERT_TRUE(job.ok());
        ASSERT_TRUE((*job)->Run().ok());
        break;
      }
      case 1:
        // The call is refused while slot 0 logs. Slot 1 never logs.
        vm.RecoverHugePages({}, nullptr).IgnoreError();
        ASSERT_TRUE(
            vm.RecoverHugePages({GfnRange::Of(Gfn(kGiB >> kPageShift), 2048)},
                                nullptr)
                .ok());
        break;
      case 2:
        ASSERT_TRUE(vm.Age(GfnRange::Of(Gfn(random() % kPages / 2), 4000),
                           AgeMode::kTestAndClear, nullptr)
                        .ok());
        break;
      case 3:
        ASSERT_TRUE(vm.SetMemslot(Slot(9, 4 * kGiB, kMiB)).ok());
        ASSERT_TRUE(vm.SetMemslot(Slot(9, 4 * kGiB, 0)).ok());  // zaps all
        break;
      case 4:
        vm.PauseVcpus();
        vm.ResumeVcpus();
        break;
    }
  }
}

// Covers: STAT-41, TDP-30, DL-10
TEST(VmStressTest, AMigrationAmidEverythingElseLosesNoWrite) {
  auto vm = MakeVm({Slot(0, 0, kPages * kPageSize, Level::k2M),
                    Slot(1, kGiB, 8 * kMiB, Level::k2M)},
                   kVcpus);
  const std::vector<DirtyLogConfig> modes = {
      {{0}, InitiallySet::kNo, SplitPolicy::kNone},
      {{0}, InitiallySet::kNo, SplitPolicy::kEager},
      {{0}, InitiallySet::kYes, SplitPolicy::kNone},
      {{0}, InitiallySet::kYes, SplitPolicy::kOnClear}};
  const MonotonicTime end = MonotonicTime::Now() + kDuration;
  for (uint64_t round = 0; round < modes.size() || MonotonicTime::Now() < end;
       ++round) {
    SCOPED_TRACE(round);
    ASSERT_TRUE(vm->StartWorkload(Patterns(*vm, round)).ok());
    std::atomic<bool> stop{false};
    std::thread disturber([&] { Disturb(*vm, round, stop); });

    Copy copy(*vm);
    ASSERT_TRUE(StartLog(*vm, modes[round % modes.size()], nullptr).ok());
    copy.TakeAll();
    for (int i = 0; i < 8; ++i) HarvestRound(*vm, copy);

    stop.store(true);
    disturber.join();
    vm->StopWorkload();
    HarvestRound(*vm, copy);
    EXPECT_EQ(copy.FirstDifference(), kPages);
    EXPECT_EQ(AuditFindings(*vm), "");
    ASSERT_TRUE(
        StopLog(*vm, round % 3 == 0 ? RecoverOnStop::kNo : RecoverOnStop::kYes,
                Undelivered::kRefuse, nullptr)
            .ok());
    ASSERT_EQ(AuditFindings(*vm), "");
    if (::testing::Test::HasFailure()) return;
  }
}

// Covers: SLOT-25, TDP-33, TDP-34
TEST(VmStressTest, SlotsThatComeAndGoUnderRunningVcpusLeaveSoundTables) {
  auto vm = MakeVm({Slot(0, 0, kPages * kPageSize, Level::k2M),
                    Slot(1, kGiB, 8 * kMiB, Level::k2M)},
                   kVcpus);
  ASSERT_TRUE(vm->StartWorkload(Patterns(*vm, 1)).ok());
  const MonotonicTime end = MonotonicTime::Now() + absl::Seconds(1);
  for (int i = 0; i < 10 || MonotonicTime::Now() < end; ++i) {
    ASSERT_TRUE(vm->SetMemslot(Slot(1, kGiB, 0)).ok());
    ASSERT_TRUE(vm->SetMemslot(Slot(1, kGiB, 8 * kMiB, Level::k2M)).ok());
    ASSERT_TRUE(vm->SetMemslot(Slot(1, 2 * kGiB, 8 * kMiB, Level::k2M)).ok());
    ASSERT_TRUE(vm->SetMemslot(Slot(1, kGiB, 8 * kMiB, Level::k2M)).ok());
    if (i % 8 == 0) {
      ASSERT_EQ(AuditFindings(*vm), "");
    }
  }
  vm->StopWorkload();
  EXPECT_EQ(vm->Workload()->state, WorkloadProgress::State::kStopped);
  EXPECT_EQ(AuditFindings(*vm), "");
}

}  // namespace
}  // namespace mmu
