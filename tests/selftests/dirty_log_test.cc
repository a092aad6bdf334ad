// A guest writes the number of the current round to random pages while the
// log is harvested. After each harvest:
//  1. whatever the guest wrote since the harvest before is reported, and
//  2. whatever is reported was written in this round or the one before.

#include <atomic>
#include <cstdint>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/guest/random.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/vm.h"
#include "tests/selftests/log_harvester.h"

namespace mmu {
namespace {

using ::mmu::testing::AuditFindings;
using ::mmu::testing::Harvest;
using ::mmu::testing::LogMode;
using ::mmu::testing::MakeVm;
using ::mmu::testing::Slot;
using ::mmu::testing::Touch;
using ::mmu::testing::Write;
using ::testing::Combine;
using ::testing::TestWithParam;
using ::testing::Values;

constexpr uint64_t kPages = 4096;

using Param = std::tuple<LogMode, SplitPolicy>;

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
  return absl::StrCat(mode.str(),
                      kSplits[static_cast<int>(std::get<1>(info.param))]);
}

INSTANTIATE_TEST_SUITE_P(Modes, DirtyLogTest,
                         Combine(Values(LogMode::kGet, LogMode::kClear,
                                        LogMode::kEpochs),
                                 Values(SplitPolicy::kNone, SplitPolicy::kEager,
                                        SplitPolicy::kOnClear)),
                         NameOf);

// The guest as the test sees it: which round it wrote to which page last.
// Round r of page p is done once WroteIn(p) >= r can be read.
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
    // The guest does some work in each round.
    while (writes_.load() < writes + 500) std::this_thread::yield();
  }
  // The round of the last completed write to `page`.
  uint64_t WroteIn(uint64_t page) const { return last_round_[page].load(); }
  // The page that a write may be under way to.
  uint64_t busy_page() const { return busy_.load(); }

 private:
  void Run() {
    Rng random(42);
    while (!stop_.load()) {
      const uint64_t page = random() % kPages;
      const uint64_t round = round_.load();
      busy_.store(page);
      Write(vm_, page * kPageSize + 8, round);
      last_round_[page].store(round);
      writes_.fetch_add(1);
    }
  }

  Vm& vm_;
  std::vector<std::atomic<uint64_t>> last_round_;
  std::atomic<uint64_t> round_{1};
  std::atomic<uint64_t> writes_{0};
  std::atomic<uint64_t> busy_{0};
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

uint64_t Contents(const Vm& vm, uint64_t page) {
  uint64_t word = 0;
  EXPECT_TRUE(
      vm.ReadMemory(Gpa(page * kPageSize + 8),
                    absl::MakeSpan(reinterpret_cast<std::byte*>(&word), 8))
          .ok());
  return word;
}

// Covers: TST-02, SLOT-52, DL-10
TEST_P(DirtyLogTest, EveryWriteIsReportedAndNothingElse) {
  const auto [mode, split] = GetParam();
  auto vm = MakeVm({Slot(0, 0, kPages * kPageSize, Level::k2M)});
  Touch(*vm, GfnRange::Of(Gfn(0), kPages));
  for (uint64_t page = 0; page < kPages; ++page) {
    Write(*vm, page * kPageSize + 8, 0);
  }
  ASSERT_TRUE(vm->StartDirtyLog(ConfigOf(split), nullptr).ok());
  // With initially_set everything is dirty once.
  std::vector<uint64_t> first = Harvest(*vm, 0, mode);
  EXPECT_EQ(first.size(), split == SplitPolicy::kOnClear ? kPages : 0u);

  // What a migration would have.
  std::vector<uint64_t> copy(kPages, 0);
  {
    Guest guest(*vm);
    for (uint64_t round = 2; round < 34; ++round) {
      guest.BeginRound(round);
      std::vector<uint64_t> written(kPages);
      for (uint64_t page = 0; page < kPages; ++page) {
        written[page] = guest.WroteIn(page);
      }
      for (const uint64_t page : Harvest(*vm, 0, mode)) {
        copy[page] = Contents(*vm, page);
        // A page whose write of the round before was under way during the
        // harvest before may be reported now; older ones may not. Before the
        // copy the write may have marked and not stored yet.
        if (copy[page] + 1 >= round) continue;
        while (guest.busy_page() == page && guest.WroteIn(page) + 1 < round) {
          std::this_thread::yield();
        }
        ASSERT_GE(Contents(*vm, page) + 1, round)
            << "page " << page << " is reported in round " << round
            << " and was not written";
      }
      // Whatever was written before the harvest is in the copy now.
      for (uint64_t page = 0; page < kPages; ++page) {
        ASSERT_GE(copy[page], written[page]) << "page " << page << " is lost";
      }
    }
  }
  // The guest has stopped: one more harvest, and the copy is complete.
  for (const uint64_t page : Harvest(*vm, 0, mode)) {
    copy[page] = Contents(*vm, page);
  }
  for (uint64_t page = 0; page < kPages; ++page) {
    ASSERT_EQ(copy[page], Contents(*vm, page)) << "page " << page << " is lost";
  }
  EXPECT_TRUE(Harvest(*vm, 0, mode).empty());
  EXPECT_EQ(AuditFindings(*vm), "");
}

}  // namespace
}  // namespace mmu
