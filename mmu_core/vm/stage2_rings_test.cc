// Dirty rings of VMs on stage-2 tables. An entry names a page of 4 KiB, so the
// first write to a granule makes an entry for each of its pages, and a reset
// protects whole granules.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/dirty/dirty_log_types.h"
#include "mmu_core/dirty/dirty_ring.h"
#include "mmu_core/stage2/any_granule.h"
#include "mmu_core/stage2/s2_page.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/core/stage2_leaf_sizes.h"
#include "mmu_core/vm/core/vm_config.h"
#include "mmu_core/vm/logging/dirty_rings.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/vm/vm_state.h"

namespace mmu {
namespace {

using ::mmu::testing::AuditFindings;
using ::mmu::testing::ClearAndDeliver;
using ::mmu::testing::LevelOf;
using ::mmu::testing::MakeVmFrom;
using ::mmu::testing::MaskOf;
using ::mmu::testing::Read;
using ::mmu::testing::ReadValue;
using ::mmu::testing::SealAndList;
using ::mmu::testing::Slot;
using ::mmu::testing::StartLog;
using ::mmu::testing::Write;

constexpr uint32_t kEntries = 256;
constexpr uint64_t kSoftLimit = kEntries - DirtyRing::kReservedEntries;
constexpr uint64_t kGranules = 1024;  // of slot 0

DirtyRing& RingOf(Vm& vm, int vcpu = 0) {
  return *vm.state().vcpus[static_cast<size_t>(vcpu)]->dirty_ring();
}

// Reads the ring of vCPU 0 like user space, and marks its entries as collected.
std::vector<DirtyGfn> Collect(Vm& vm) {
  std::vector<DirtyGfn> pages;
  RingOf(vm).Collect([&](DirtyGfn page) { pages.push_back(page); });
  return pages;
}

uint64_t Reset(Vm& vm) {
  const absl::StatusOr<uint64_t> count = ResetDirtyRings(
      vm.state(), [] { return false; }, nullptr);
  EXPECT_TRUE(count.ok()) << count.status();
  return count.value_or(0);
}

// Continues a write of vCPU `vcpu` that met a full ring.
AccessOutcome Continue(Vm& vm, uint64_t gpa, uint64_t value, int vcpu = 0) {
  return vm.state().vcpus[static_cast<size_t>(vcpu)]->ContinueAccess(
      Gpa(gpa), AccessKind::kWrite, &value);
}

bool IsWritable(Vm& vm, uint64_t gfn) {
  bool writable = false;
  WithGranule(vm.state().config.stage2.granule_bytes, [&]<typename G>() {
    RcuReadGuard rcu;
    for (S2Cursor<G> c = vm.state().stage2->of<G>().CursorOver(
             GfnRange::Of(Gfn(gfn), 1), Level{1});
         c.Valid(); c.Next()) {
      if (c.IsPresentLeaf()) writable = c.old_spte().IsWritable();
    }
  });
  return writable;
}

// The first word of a page as a migration copies it.
uint64_t WordOf(Vm& vm, uint64_t page) {
  uint64_t word = 0;
  EXPECT_TRUE(vm.ReadMemory(Gpa(page * kPageSize),
                            absl::MakeSpan(reinterpret_cast<std::byte*>(&word),
                                           sizeof(word)))
                  .ok());
  return word;
}

std::vector<uint64_t> UpTo(uint64_t last) {
  std::vector<uint64_t> numbers(last + 1);
  std::iota(numbers.begin(), numbers.end(), uint64_t{0});
  return numbers;
}

// The parameter is the size of a granule.
class Stage2RingsTest : public ::testing::TestWithParam<uint32_t> {
 protected:
  uint64_t granule() const { return GetParam(); }
  // The pages of 4 KiB of a granule.
  uint64_t per_granule() const { return GetParam() / kPageSize; }
  uint64_t pages() const { return kGranules * per_granule(); }

  VmConfig Config() const {
    VmConfig config;
    config.mmu = MmuMode::kStage2;
    config.stage2.granule_bytes = GetParam();
    config.dirty_ring_entries = kEntries;
    return config;
  }
  std::unique_ptr<Vm> LoggingVm(int vcpus = 1) const {
    VmConfig config = Config();
    config.vcpu_count = vcpus;
    config.memslots = {Slot(0, 0, kGranules * granule())};
    auto vm = MakeVmFrom(config);
    EXPECT_TRUE(StartLog(*vm).ok());
    return vm;
  }

  // The pages of these granules.
  std::vector<uint64_t> PagesIn(const std::vector<uint64_t>& granules) const {
    std::vector<uint64_t> in;
    for (const uint64_t g : granules) {
      for (uint64_t i = 0; i < per_granule(); ++i) {
        in.push_back(g * per_granule() + i);
      }
    }
    return in;
  }
  // The entries that writes to these granules make, in this order.
  std::vector<DirtyGfn> EntriesOf(const std::vector<uint64_t>& granules) const {
    std::vector<DirtyGfn> entries;
    for (const uint64_t page : PagesIn(granules)) entries.push_back({0, page});
    return entries;
  }

  // Writes to granule after granule until the vCPU must stay out of the guest.
  // Returns the number of the granule whose write is not done yet. To granule n
  // it writes n + 1.
  uint64_t WriteUntilFull(Vm& vm) const {
    uint64_t at = 0;
    while (Write(vm, at * granule(), at + 1) == AccessOutcome::kDone) ++at;
    return at;
  }
};

INSTANTIATE_TEST_SUITE_P(Granules, Stage2RingsTest,
                         ::testing::Values(4096u, 16384u, 65536u),
                         [](const auto& row) {
                           return std::to_string(row.param / 1024) + "KiB";
                         });

TEST_P(Stage2RingsTest, AWriteMakesAnEntryForEachPageOfItsGranule) {
  auto vm = LoggingVm();
  // To the last page of granule 5.
  ASSERT_EQ(Write(*vm, 6 * granule() - kPageSize, 1), AccessOutcome::kDone);
  EXPECT_EQ(RingOf(*vm).used(), per_granule());
  EXPECT_EQ(Collect(*vm), EntriesOf({5}));
  // The granule is writable, and reads make nothing dirty.
  ASSERT_EQ(Write(*vm, 5 * granule(), 2), AccessOutcome::kDone);
  ASSERT_EQ(Read(*vm, 7 * granule()), AccessOutcome::kDone);
  EXPECT_EQ(RingOf(*vm).used(), per_granule());
  ASSERT_EQ(Write(*vm, 3 * granule(), 3), AccessOutcome::kDone);
  EXPECT_EQ(Collect(*vm), EntriesOf({3}));
  EXPECT_EQ(Reset(*vm), 2 * per_granule());
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: DL-42
TEST_P(Stage2RingsTest, TheVcpuStaysOutOfTheGuestFromTheSoftLimitOn) {
  auto vm = LoggingVm();
  const uint64_t last = WriteUntilFull(*vm);
  // The access that found the ring full has filled the last entries.
  EXPECT_EQ(last + 1, kSoftLimit / per_granule());
  EXPECT_EQ(RingOf(*vm).used(), kSoftLimit);
  const auto again = [&] { return Continue(*vm, last * granule(), last + 1); };
  EXPECT_EQ(again(), AccessOutcome::kDirtyRingFull);
  EXPECT_EQ(Read(*vm, 0), AccessOutcome::kDirtyRingFull) << "reads as well";
  EXPECT_EQ(vm->state().vcpus[0]->stats().ring_full_exits.Get(), 3);
  EXPECT_EQ(Collect(*vm), EntriesOf(UpTo(last)));
  EXPECT_EQ(again(), AccessOutcome::kDirtyRingFull) << "nothing is free yet";
  EXPECT_EQ(Reset(*vm), kSoftLimit);
  EXPECT_EQ(again(), AccessOutcome::kDone);
  EXPECT_EQ(Collect(*vm), EntriesOf({last}));
  EXPECT_EQ(ReadValue(*vm, last * granule()), last + 1);
  EXPECT_EQ(Reset(*vm), per_granule());
  EXPECT_EQ(AuditFindings(*vm), "");
}

// One entry is free below the limit. A write takes it, and the rest of its
// granule's entries from the reserve.
// Covers: DL-42
TEST_P(Stage2RingsTest, TheReserveHasRoomForTheRestOfAGranule) {
  auto vm = LoggingVm();
  const uint64_t last = WriteUntilFull(*vm);
  RingOf(*vm).entry(0).flags.fetch_or(DirtyRing::kCollected);
  EXPECT_EQ(Reset(*vm), 1u);
  EXPECT_EQ(Continue(*vm, last * granule(), last + 1), AccessOutcome::kDone);
  EXPECT_EQ(RingOf(*vm).used(), kSoftLimit - 1);
  const uint64_t next = last + 1;
  EXPECT_EQ(Write(*vm, next * granule(), 7), AccessOutcome::kDirtyRingFull);
  EXPECT_EQ(RingOf(*vm).used(), kSoftLimit - 1 + per_granule());
  std::vector<DirtyGfn> left = EntriesOf(UpTo(next));
  left.erase(left.begin());
  EXPECT_EQ(Collect(*vm), left) << "no entry is lost";
  EXPECT_EQ(Reset(*vm), left.size());
  EXPECT_EQ(Continue(*vm, next * granule(), 7), AccessOutcome::kDone);
  EXPECT_EQ(ReadValue(*vm, next * granule()), 7u);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: DL-43
TEST_P(Stage2RingsTest, AResetOfOneEntryProtectsItsGranule) {
  auto vm = LoggingVm();
  for (const uint64_t g : {1, 2}) {
    ASSERT_EQ(Write(*vm, g * granule(), g), AccessOutcome::kDone);
  }
  RingOf(*vm).entry(0).flags.fetch_or(DirtyRing::kCollected);
  EXPECT_EQ(Reset(*vm), 1u);
  for (const uint64_t page : PagesIn({1})) {
    EXPECT_FALSE(IsWritable(*vm, page)) << page;
  }
  EXPECT_TRUE(IsWritable(*vm, 2 * per_granule()));
  // The TLB had granule 1 writable. The next write must fault nevertheless.
  ASSERT_EQ(Write(*vm, granule(), 3), AccessOutcome::kDone);
  std::vector<DirtyGfn> entries = EntriesOf({1, 2, 1});
  entries.erase(entries.begin());
  EXPECT_EQ(Collect(*vm), entries);
  const uint64_t flushes = vm->Stats().flush.remote_tlb_flush_requests;
  EXPECT_EQ(Reset(*vm), entries.size());
  EXPECT_EQ(vm->Stats().flush.remote_tlb_flush_requests, flushes + 1);
  EXPECT_FALSE(IsWritable(*vm, per_granule()));
  EXPECT_FALSE(IsWritable(*vm, 2 * per_granule()));
  ASSERT_EQ(Write(*vm, 2 * granule(), 4), AccessOutcome::kDone);
  EXPECT_EQ(Collect(*vm), EntriesOf({2}));
  EXPECT_EQ(Reset(*vm), per_granule());
  EXPECT_EQ(AuditFindings(*vm), "");
}

TEST_P(Stage2RingsTest, ASealHarvestsAndAClearResets) {
  auto vm = LoggingVm();
  for (const uint64_t g : {5, 9}) {
    ASSERT_EQ(Write(*vm, g * granule(), g), AccessOutcome::kDone);
  }
  uint64_t epoch = 0;
  EXPECT_EQ(SealAndList(*vm, 0, &epoch), PagesIn({5, 9}));
  EXPECT_EQ(RingOf(*vm).used(), 2 * per_granule()) << "collected, not free";
  EXPECT_TRUE(IsWritable(*vm, 5 * per_granule()));
  ASSERT_EQ(Write(*vm, 11 * granule(), 11), AccessOutcome::kDone);
  // A clear of one page resets all that was collected.
  const absl::StatusOr<ClearResult> cleared = ClearAndDeliver(
      *vm, 0, epoch, 0, pages(), MaskOf(pages(), {5 * per_granule()}), nullptr);
  ASSERT_TRUE(cleared.ok()) << cleared.status();
  EXPECT_EQ(cleared->cleared_page_count, 1u);
  EXPECT_EQ(RingOf(*vm).used(), per_granule());
  EXPECT_FALSE(IsWritable(*vm, 5 * per_granule()));
  EXPECT_FALSE(IsWritable(*vm, 9 * per_granule()));
  EXPECT_TRUE(IsWritable(*vm, 11 * per_granule()));
  // The other pages stay in their epoch.
  std::vector<uint64_t> left = PagesIn({5, 9, 11});
  left.erase(left.begin());
  EXPECT_EQ(SealAndList(*vm, 0), left);
  ASSERT_EQ(Write(*vm, 6 * granule() - kPageSize, 6), AccessOutcome::kDone);
  EXPECT_EQ(SealAndList(*vm, 0), PagesIn({5, 9, 11}));
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Of a block, too, only the granule that is written becomes dirty, whether the
// block is split ahead or by the write.
TEST_P(Stage2RingsTest, AWriteToABlockMakesEntriesForItsGranuleAlone) {
  const uint64_t block = Stage2LeafSizes(GetParam())[1];
  for (const SplitPolicy split : {SplitPolicy::kNone, SplitPolicy::kEager}) {
    const bool eager = split == SplitPolicy::kEager;
    SCOPED_TRACE(eager ? "eager" : "by the write");
    VmConfig config = Config();
    config.stage2.eager_split_chunk_bytes = eager ? block : 0;
    config.memslots = {Slot(0, 0, block, Level::k1G)};
    auto vm = MakeVmFrom(config);
    ASSERT_EQ(Write(*vm, 0, 1), AccessOutcome::kDone);
    ASSERT_EQ(LevelOf(vm->state(), Gfn(0)), Level{2});
    DirtyLogConfig log;
    log.split = split;
    ASSERT_TRUE(StartLog(*vm, log).ok());
    EXPECT_EQ(LevelOf(vm->state(), Gfn(0)), eager ? Level{1} : Level{2});
    EXPECT_EQ(RingOf(*vm).used(), 0u);
    ASSERT_EQ(Write(*vm, 3 * granule(), 3), AccessOutcome::kDone);
    EXPECT_EQ(LevelOf(vm->state(), Gfn(3 * per_granule())), Level{1});
    EXPECT_EQ(ReadValue(*vm, 0), 1u);
    EXPECT_EQ(Collect(*vm), EntriesOf({3}));
    EXPECT_EQ(Reset(*vm), per_granule());
    EXPECT_FALSE(IsWritable(*vm, 3 * per_granule()));
    EXPECT_EQ(AuditFindings(*vm), "");
  }
}

// The rings of two vCPUs fill up again and again. A round of harvest, clear and
// copy makes room.
// Covers: DL-45
TEST_P(Stage2RingsTest, ACopyByRoundsHasEveryWrite) {
  auto vm = LoggingVm(/*vcpus=*/2);
  std::vector<uint64_t> contents(pages());
  std::vector<uint64_t> copy(pages());
  const auto round = [&] {
    uint64_t epoch = 0;
    const std::vector<uint64_t> dirty = SealAndList(*vm, 0, &epoch);
    ASSERT_TRUE(ClearAndDeliver(*vm, 0, epoch, 0, pages(),
                                MaskOf(pages(), dirty), nullptr)
                    .ok());
    for (const uint64_t page : dirty) copy[page] = WordOf(*vm, page);
  };
  std::mt19937_64 random(7);
  int full = 0;
  for (int i = 0; i < 3000; ++i) {
    const uint64_t page = random() % pages();
    const int vcpu = static_cast<int>(random() % 2);
    const uint64_t gpa = page * kPageSize;
    contents[page] = random();
    AccessOutcome outcome = Write(*vm, gpa, contents[page], vcpu);
    if (outcome == AccessOutcome::kDirtyRingFull) {
      ++full;
      round();
      outcome = Continue(*vm, gpa, contents[page], vcpu);
    }
    ASSERT_EQ(outcome, AccessOutcome::kDone) << "write " << i;
  }
  EXPECT_GE(full, 4);
  round();
  EXPECT_TRUE(copy == contents);
  EXPECT_EQ(AuditFindings(*vm), "");
}

}  // namespace
}  // namespace mmu
