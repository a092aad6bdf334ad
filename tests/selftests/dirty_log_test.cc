// A guest writes the number of the current round to random pages while the
// log is harvested. After each harvest:
//  1. every page that the guest wrote since the harvest before is reported, and
//  2. every reported page was written in this round or the one before.
//
// Run by itself, the test takes the options of KVM's test. The guest mode -m is
// missing, since this guest accesses memory by guest-physical address:
//
//   -c N  entries of a dirty ring, a power of two (512)
//   -i N  rounds (32)
//   -I N  milliseconds that the guest writes in each round, at least (0)
//   -p N  address of the memory, in bytes, a multiple of 2 MiB (0)
//   -M X  dirty-log, clear-log, dirty-ring, epochs or all (all)
//
// Each mode is run with and without page-modification logging.

#include "mmu_core/testing/dirty_log.h"

#include <atomic>
#include <cstdint>
#include <iostream>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/guest/random.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/vm.h"
#include "tests/selftests/log_harvester.h"

namespace mmu {
namespace {

using ::mmu::testing::AuditFindings;
using ::mmu::testing::Harvest;
using ::mmu::testing::LogMode;
using ::mmu::testing::MakePmlVm;
using ::mmu::testing::MakeRingVm;
using ::mmu::testing::MakeVm;
using ::mmu::testing::Slot;
using ::mmu::testing::StartLog;
using ::mmu::testing::Touch;
using ::mmu::testing::UsesRing;
using ::mmu::testing::Write;
using ::testing::Combine;
using ::testing::TestWithParam;
using ::testing::Values;

constexpr uint64_t kPages = 4096;

struct Options {
  uint32_t ring_entries = 512;
  uint64_t rounds = 32;
  int64_t interval_ms = 0;
  uint64_t start_gpa = 0;
  std::string log_mode = "all";
};
Options options;

bool Wanted(LogMode mode) {
  const std::string& name = options.log_mode;
  switch (mode) {
    case LogMode::kGet:
      return name == "all" || name == "dirty-log";
    case LogMode::kClear:
      return name == "all" || name == "clear-log";
    case LogMode::kRing:
      return name == "all" || name == "dirty-ring";
    case LogMode::kEpochs:
    case LogMode::kRingEpochs:
      return name == "all" || name == "epochs";
  }
  return false;
}

using Param = std::tuple<LogMode, SplitPolicy, VmConfig::Pml>;

class DirtyLogTest : public TestWithParam<Param> {
 protected:
  static DirtyLogConfig ConfigOf(SplitPolicy split) {
    return {
        {},
        split == SplitPolicy::kOnClear ? InitiallySet::kYes : InitiallySet::kNo,
        split};
  }
};

std::string NameOf(const ::testing::TestParamInfo<Param>& info) {
  constexpr const char* kSplits[] = {"NoSplit", "Eager", "OnClear"};
  std::ostringstream mode;
  mode << std::get<0>(info.param);
  return absl::StrCat(
      mode.str(), kSplits[static_cast<int>(std::get<1>(info.param))],
      std::get<2>(info.param) == VmConfig::Pml::kYes ? "Pml" : "");
}

INSTANTIATE_TEST_SUITE_P(
    Modes, DirtyLogTest,
    Combine(Values(LogMode::kGet, LogMode::kClear, LogMode::kEpochs,
                   LogMode::kRing, LogMode::kRingEpochs),
            Values(SplitPolicy::kNone, SplitPolicy::kEager,
                   SplitPolicy::kOnClear),
            Values(VmConfig::Pml::kNo, VmConfig::Pml::kYes)),
    NameOf);

// The guest from the test's view: the last round in which it wrote each page.
// The write of round r to page p is complete once WroteIn(p) >= r.
class Guest {
 public:
  explicit Guest(Vm& vm) : vm_(vm), last_round_(kPages) {
    thread_ = std::thread([this] { Run(); });
  }
  ~Guest() {
    stop_.store(true);
    thread_.join();
  }

  void BeginRound(uint64_t round) {
    const uint64_t writes = writes_.load();
    round_.store(round);
    // The guest writes for some time in each round, or until its ring is full.
    const MonotonicTime until =
        MonotonicTime::Now() + absl::Milliseconds(options.interval_ms);
    while ((writes_.load() < writes + 500 && !ring_full_.load()) ||
           MonotonicTime::Now() < until) {
      std::this_thread::yield();
    }
  }
  // The round of the last completed write to `page`.
  uint64_t WroteIn(uint64_t page) const { return last_round_[page].load(); }
  // The page of a write that may be in progress.
  uint64_t busy_page() const { return busy_.load(); }

 private:
  void Run() {
    Rng random(42);
    // The guest never exits by itself.
    vm_.state().vcpus[0]->EnterGuest();
    while (!stop_.load()) {
      const uint64_t page = random() % kPages;
      uint64_t round = round_.load();
      busy_.store(page);
      if (!WriteOrStop(options.start_gpa + page * kPageSize + 8, &round)) break;
      last_round_[page].store(round);
      writes_.fetch_add(1);
    }
    vm_.state().vcpus[0]->ExitGuest();
  }

  // Writes the number of the round. Waits while the ring is full, which may
  // make the round a later one. False: the guest was stopped and nothing was
  // written.
  bool WriteOrStop(uint64_t gpa, uint64_t* round) {
    if (Write(vm_, gpa, *round) == AccessOutcome::kDone) return true;
    ring_full_.store(true);
    Vcpu& vcpu = *vm_.state().vcpus[0];
    do {
      vcpu.ExitGuest();
      if (stop_.load()) return false;
      std::this_thread::yield();
      *round = round_.load();  // the write belongs to the present round
      vcpu.EnterGuest();
    } while (vcpu.ContinueAccess(Gpa(gpa), AccessKind::kWrite, round) !=
             AccessOutcome::kDone);
    ring_full_.store(false);
    return true;
  }

  Vm& vm_;
  std::vector<std::atomic<uint64_t>> last_round_;
  std::atomic<bool> ring_full_{false};
  std::atomic<uint64_t> round_{1};
  std::atomic<uint64_t> writes_{0};
  std::atomic<uint64_t> busy_{0};
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

uint64_t Contents(const Vm& vm, uint64_t page) {
  uint64_t word = 0;
  EXPECT_TRUE(
      vm.ReadMemory(Gpa(options.start_gpa + page * kPageSize + 8),
                    absl::MakeSpan(reinterpret_cast<std::byte*>(&word), 8))
          .ok());
  return word;
}

// Covers: TST-02, SLOT-52, DL-10
TEST_P(DirtyLogTest, EveryWriteIsReportedAndNothingElse) {
  const auto [mode, split, pml] = GetParam();
  if (!Wanted(mode)) GTEST_SKIP() << "-M " << options.log_mode;
  if (mode == LogMode::kRing && split == SplitPolicy::kOnClear) {
    // With rings alone the harvester cannot see that all pages start dirty.
    GTEST_SKIP() << "needs a bitmap";
  }
  const std::vector<MemslotConfig> slots = {
      Slot(0, options.start_gpa, kPages * kPageSize, Level::k2M)};
  const uint32_t ring_entries = UsesRing(mode) ? options.ring_entries : 0;
  // The ring must have room for a processor's page-modification log.
  auto vm = pml == VmConfig::Pml::kYes
                ? MakePmlVm(slots, 1, ring_entries == 0 ? 0 : 2 * ring_entries)
            : UsesRing(mode) ? MakeRingVm(slots, ring_entries)
                             : MakeVm(slots);
  Touch(*vm, GfnRange::Of(ToGfn(Gpa(options.start_gpa)), kPages));
  for (uint64_t page = 0; page < kPages; ++page) {
    Write(*vm, options.start_gpa + page * kPageSize + 8, 0);
  }
  ASSERT_TRUE(StartLog(*vm, ConfigOf(split), nullptr).ok());
  // With initially_set every page is dirty once.
  std::vector<uint64_t> first = Harvest(*vm, 0, mode);
  EXPECT_EQ(first.size(), split == SplitPolicy::kOnClear ? kPages : 0u);

  // The copy that a migration would make.
  std::vector<uint64_t> copy(kPages, 0);
  {
    Guest guest(*vm);
    for (uint64_t round = 2; round < options.rounds + 2; ++round) {
      guest.BeginRound(round);
      std::vector<uint64_t> written(kPages);
      for (uint64_t page = 0; page < kPages; ++page) {
        written[page] = guest.WroteIn(page);
      }
      for (const uint64_t page : Harvest(*vm, 0, mode)) {
        copy[page] = Contents(*vm, page);
        // The page may be reported if its write of the round before was in
        // progress during the harvest before. Writes of older rounds may not be
        // reported. When the page was copied, the write may have marked the
        // page but not stored its value.
        if (copy[page] + 1 >= round) continue;
        while (guest.busy_page() == page && guest.WroteIn(page) + 1 < round) {
          std::this_thread::yield();
        }
        ASSERT_GE(Contents(*vm, page) + 1, round)
            << "page " << page << " is reported in round " << round
            << " and was not written";
      }
      // The copy now has every value that was written before the harvest.
      for (uint64_t page = 0; page < kPages; ++page) {
        ASSERT_GE(copy[page], written[page]) << "page " << page << " is lost";
      }
    }
  }
  // The guest has stopped. One more harvest completes the copy.
  for (const uint64_t page : Harvest(*vm, 0, mode)) {
    copy[page] = Contents(*vm, page);
  }
  for (uint64_t page = 0; page < kPages; ++page) {
    ASSERT_EQ(copy[page], Contents(*vm, page)) << "page " << page << " is lost";
  }
  EXPECT_TRUE(Harvest(*vm, 0, mode).empty());
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Reads `-X value` pairs. False: an argument is none of these.
bool ReadOptions(const std::vector<std::string>& arguments) {
  for (size_t i = 0; i + 1 < arguments.size(); i += 2) {
    const std::string& name = arguments[i];
    const std::string& value = arguments[i + 1];
    const bool good =
        name == "-c"   ? absl::SimpleAtoi(value, &options.ring_entries)
        : name == "-i" ? absl::SimpleAtoi(value, &options.rounds)
        : name == "-I" ? absl::SimpleAtoi(value, &options.interval_ms)
        : name == "-p" ? absl::SimpleAtoi(value, &options.start_gpa)
                       : name == "-M";
    if (!good) return false;
    if (name == "-M") options.log_mode = value;
  }
  return arguments.size() % 2 == 0;
}

}  // namespace
}  // namespace mmu

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  if (!mmu::ReadOptions({argv + 1, argv + argc})) {
    std::cerr << "options: -c entries -i rounds -I ms -p address -M mode\n";
    return 2;
  }
  return RUN_ALL_TESTS();
}
