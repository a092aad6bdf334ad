// Switching dirty logs on: the pages that are split and protected, and the
// settings that are refused.

#include <sys/resource.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/dirty/dirty_log_calls.h"
#include "mmu_core/paging/table_pool.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/dirty_log_test_util.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/vm/vm_state.h"

namespace mmu {
namespace {

using ::mmu::testing::AllMappings;
using ::mmu::testing::AuditFindings;
using ::mmu::testing::Config;
using ::mmu::testing::ErrorOf;
using ::mmu::testing::ErrorText;
using ::mmu::testing::Flushes;
using ::mmu::testing::kAllSet;
using ::mmu::testing::kEager;
using ::mmu::testing::kGiB;
using ::mmu::testing::kMiB;
using ::mmu::testing::kPages2M;
using ::mmu::testing::kPlain;
using ::mmu::testing::LevelOf;
using ::mmu::testing::MakeVm;
using ::mmu::testing::MakeVmFrom;
using ::mmu::testing::Mapping;
using ::mmu::testing::Read;
using ::mmu::testing::SealAndList;
using ::mmu::testing::Slot;
using ::mmu::testing::SpteOf;
using ::mmu::testing::StartLog;
using ::mmu::testing::StopLog;
using ::mmu::testing::TestStart;
using ::mmu::testing::Write;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

// Limits the address space to `more_bytes` more, for its lifetime.
class AddressSpaceLimit {
 public:
  explicit AddressSpaceLimit(uint64_t more_bytes) {
    MMU_CHECK(getrlimit(RLIMIT_AS, &before_) == 0);
    unsigned long pages = 0;
    std::FILE* file = std::fopen("/proc/self/statm", "r");
    MMU_CHECK(file != nullptr && std::fscanf(file, "%lu", &pages) == 1);
    std::fclose(file);
    rlimit limit = before_;
    limit.rlim_cur = pages * kPageSize + more_bytes;
    MMU_CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
  }
  ~AddressSpaceLimit() { setrlimit(RLIMIT_AS, &before_); }

 private:
  rlimit before_;
};

TEST(StartDirtyLogTest, WithoutMemoryForTheLastSlotNoneIsSwitched) {
  // The log of each slot takes a little over 3 GiB of address space.
  constexpr uint64_t kVast = kMaxMemslotPages * kPageSize;
  constexpr auto kNothing = BackingKind::kMetadataOnly;
  auto vm = MakeVm({Slot(0, 0, kVast, Level::k4K, kNothing),
                    Slot(1, uint64_t{1} << 44, kVast, Level::k4K, kNothing)});
  Write(*vm, 0x1000);
  absl::Status status;
  {
    AddressSpaceLimit limit(4608 * kMiB);
    status = StartLog(*vm, kPlain, nullptr);
  }
  EXPECT_EQ(ErrorOf(status),
            ErrorText(absl::StatusCode::kResourceExhausted,
                      Reason::kResourceExhaustedMemory, "slots", ENOMEM));
  EXPECT_THAT(status.message(), HasSubstr("slot 1"));
  EXPECT_FALSE(vm->LogsDirtyPages());
  for (const MemslotInfo& slot : vm->Memslots()) {
    EXPECT_FALSE(slot.dirty_log_enabled) << slot.config.slot;
  }
  EXPECT_TRUE(SpteOf(vm->state(), Gfn(1)).IsWritable());
  EXPECT_EQ(Flushes(*vm), 0u);
  EXPECT_EQ(AuditFindings(*vm), "");
  // With memory the start succeeds.
  ASSERT_TRUE(StartLog(*vm, kPlain, nullptr).ok());
  EXPECT_THAT(vm->FindDirtyLog()->state.slots, SizeIs(2));
}

// Covers: DL-02, TLB-05, TDP-65
TEST(StartDirtyLogTest, EagerSplitsThenProtectsAndFlushesOnce) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB, Level::k2M)});
  Write(*vm, 0);
  Read(*vm, 2 * kMiB);
  MmuCost cost;
  const DirtyLogStart start = TestStart(kEager);
  const absl::StatusOr<StartResult> started = vm->StartDirtyLog(start, &cost);
  ASSERT_TRUE(started.ok()) << started.status();
  EXPECT_EQ(started->split_2m_count, 2u);
  EXPECT_EQ(started->split_1g_count, 0u);
  EXPECT_EQ(cost.tlb_flush_count, 1);
  EXPECT_EQ(Flushes(*vm), 1u);
  const VmStatsSnapshot stats = vm->Stats();
  EXPECT_EQ(stats.pages_2m, 0u);
  EXPECT_EQ(stats.pages_4k, 2 * kPages2M);
  for (const Mapping& m : AllMappings(vm->state())) {
    ASSERT_EQ(m.flags.find('w'), std::string::npos) << m;
    ASSERT_NE(m.flags.find('m'), std::string::npos) << m;
  }
  EXPECT_EQ(vm->Stats().Splits(Level::k2M, SplitTrigger::kEager), 2u);
  const absl::StatusOr<StartResult> again = vm->StartDirtyLog(start, nullptr);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->log.state.id, start.id);
  EXPECT_EQ(again->split_2m_count, 0u) << "repeated";
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: DL-02, DL-16
TEST(StartDirtyLogTest, WithoutASplitPolicyPagesStayHugeButNotWritable) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB, Level::k2M)});
  Write(*vm, 0);
  MmuCost cost;
  ASSERT_TRUE(StartLog(*vm, kPlain, &cost).ok());
  EXPECT_THAT(AllMappings(vm->state()),
              ElementsAre(Mapping{0, Level::k2M, "rmad"}));
  EXPECT_EQ(cost.tlb_flush_count, 1);
}

// KVM flushes where nothing is mapped yet, too.
// Covers: DL-02
TEST(StartDirtyLogTest, ItFlushesOnceOnEveryMmu) {
  for (const MmuMode mode :
       {MmuMode::kTdp, MmuMode::kTdpShadow, MmuMode::kShadow, MmuMode::kNested,
        MmuMode::kStage2}) {
    VmConfig config;
    config.mmu = mode;
    if (mode == MmuMode::kShadow) config.format = EntryFormat::kNpt;
    config.memslots = {Slot(0, 0, 4 * kMiB, Level::k2M)};
    auto vm = MakeVmFrom(config);
    MmuCost cost;
    ASSERT_TRUE(StartLog(*vm, kEager, &cost).ok());
    EXPECT_EQ(cost.tlb_flush_count, 1) << static_cast<int>(mode);
  }
}

// The policy is read when a log starts: one VM first splits nothing, and then
// splits all.
// Covers: DL-07
TEST(StartDirtyLogTest, WithoutASplitPolicyAPageIsSplitByAWriteToItAlone) {
  auto vm = MakeVm({Slot(0, 0, 6 * kMiB, Level::k2M)});
  for (const uint64_t gpa : {0 * kMiB, 2 * kMiB, 4 * kMiB}) Write(*vm, gpa);
  const auto splits = [&](SplitTrigger trigger) {
    return vm->Stats().Splits(Level::k2M, trigger);
  };
  ASSERT_TRUE(StartLog(*vm, kPlain, nullptr).ok());
  Read(*vm, 2 * kMiB);
  uint64_t epoch = 0;
  EXPECT_THAT(SealAndList(*vm, 0, &epoch), IsEmpty());
  EXPECT_EQ(vm->Stats().pages_2m, 3u);
  EXPECT_EQ(vm->Stats().pages_4k, 0u);

  Write(*vm, 2 * kMiB + 5 * kPageSize);
  EXPECT_EQ(LevelOf(vm->state(), Gfn(0)), Level::k2M);
  EXPECT_EQ(LevelOf(vm->state(), Gfn(kPages2M)), Level::k4K);
  EXPECT_EQ(LevelOf(vm->state(), Gfn(2 * kPages2M)), Level::k2M);
  EXPECT_EQ(splits(SplitTrigger::kFault), 1u);
  EXPECT_EQ(splits(SplitTrigger::kEager), 0u);
  EXPECT_THAT(SealAndList(*vm, 0, &epoch), ElementsAre(kPages2M + 5));
  EXPECT_EQ(AuditFindings(*vm), "");
  ASSERT_TRUE(StopLog(*vm, RecoverOnStop::kYes).ok());
  ASSERT_EQ(vm->Stats().pages_2m, 3u);

  ASSERT_TRUE(StartLog(*vm, kEager, nullptr).ok());
  EXPECT_EQ(vm->Stats().pages_2m, 0u);
  EXPECT_EQ(vm->Stats().pages_4k, 3 * kPages2M);
  EXPECT_EQ(splits(SplitTrigger::kFault), 1u);
  EXPECT_EQ(splits(SplitTrigger::kEager), 3u);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: DL-02, TLB-05
TEST(StartDirtyLogTest, TheFlushIsIssuedEvenIfNothingWasProtected) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB, Level::k2M)});
  MmuCost cost;
  ASSERT_TRUE(StartLog(*vm, kPlain, &cost).ok());
  EXPECT_EQ(cost.tlb_flush_count, 1);
}

// Covers: DL-04, SLOT-51
TEST(StartDirtyLogTest, InitiallySetTouchesNothingAndReportsEveryPage) {
  auto vm = MakeVm({Slot(0, 0, 2 * kMiB + 100 * kPageSize, Level::k2M)});
  Write(*vm, 0);
  const std::vector<Mapping> before = AllMappings(vm->state());
  MmuCost cost;
  ASSERT_TRUE(StartLog(*vm, kAllSet, &cost).ok());
  EXPECT_EQ(cost.tlb_flush_count, 0);
  EXPECT_EQ(cost.sptes_visited_count, 0);
  EXPECT_EQ(AllMappings(vm->state()), before);
  EXPECT_THAT(SealAndList(*vm, 0), SizeIs(kPages2M + 100));
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: DL-03, TLB-05
TEST(StartDirtyLogTest, AStaleWritableTranslationIsNotUsedAfterwards) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB, Level::k2M)});
  Write(*vm, 0x1000);
  ASSERT_NE(vm->state().vcpus[0]->tlb().Lookup(PageNumber(1)), nullptr);
  ASSERT_TRUE(StartLog(*vm, kPlain, nullptr).ok());
  Write(*vm, 0x1000);
  EXPECT_THAT(SealAndList(*vm, 0), ElementsAre(1));
}

// Covers: DL-01
TEST(StartDirtyLogTest, AReadOnlySlotIsLoggedWithoutAnyWork) {
  MemslotConfig readonly = Slot(0, 0, 4 * kMiB, Level::k2M);
  readonly.mode = MemslotConfig::Mode::kReadOnly;
  auto vm = MakeVm({readonly});
  Read(*vm, 0);
  DirtyLogConfig named = kEager;
  named.slots = {0};
  MmuCost cost;
  ASSERT_TRUE(StartLog(*vm, named, &cost).ok());
  EXPECT_EQ(cost.tlb_flush_count, 0);
  EXPECT_EQ(vm->Stats().pages_2m, 1u);
  EXPECT_THAT(SealAndList(*vm, 0), IsEmpty());
}

// Covers: TDP-63
TEST(StartDirtyLogTest, WithoutMemoryForTablesPagesStayHugeAndProtected) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB, Level::k2M)});
  Write(*vm, 0);
  RcuBarrier();
  TablePool& pool = TablePool::Process();
  pool.SetMaxTables(pool.tables_out());
  ASSERT_TRUE(StartLog(*vm, kEager, nullptr).ok());
  pool.SetMaxTables(0);
  EXPECT_THAT(AllMappings(vm->state()),
              ElementsAre(Mapping{0, Level::k2M, "rmad"}));
  Write(*vm, 0x5000);
  EXPECT_THAT(SealAndList(*vm, 0), ElementsAre(5));
}

TEST(StartDirtyLogTest, OnlyTheSlotsNamedAreLogged) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB), Slot(1, kGiB, 4 * kMiB)});
  DirtyLogConfig config = kPlain;
  config.slots = {1};
  ASSERT_TRUE(StartLog(*vm, config, nullptr).ok());
  EXPECT_EQ(vm->state().slots.logging_slots(), 1);
  ASSERT_THAT(vm->FindDirtyLog()->state.slots, SizeIs(1));
  EXPECT_EQ(vm->FindDirtyLog()->state.slots[0].slot, 1u);
  for (const MemslotInfo& info : vm->Memslots()) {
    EXPECT_EQ(info.dirty_log_enabled, info.config.slot == 1);
  }
}

TEST(StartDirtyLogTest, TheSameSettingsAgainChangeNothing) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB)});
  ASSERT_TRUE(StartLog(*vm, kPlain, nullptr).ok());
  Write(*vm, 0x3000);
  MmuCost cost;
  ASSERT_TRUE(StartLog(*vm, kPlain, &cost).ok());
  EXPECT_EQ(cost.tlb_flush_count, 0);
  EXPECT_THAT(SealAndList(*vm, 0), ElementsAre(3));
}

TEST(StartDirtyLogTest, BadRequestsSayWhyAndStartNothing) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB), Slot(1, kGiB, 4 * kMiB)});
  DirtyLogConfig unknown = kPlain;
  unknown.slots = {0, 9};
  EXPECT_EQ(ErrorOf(StartLog(*vm, unknown, nullptr)),
            ErrorText(absl::StatusCode::kNotFound, Reason::kMemslotNotFound,
                      "slot", ENOENT));
  EXPECT_EQ(ErrorOf(StartLog(
                *vm, Config(InitiallySet::kYes, SplitPolicy::kEager), nullptr)),
            ErrorText(absl::StatusCode::kInvalidArgument,
                      Reason::kInvalidSplitPolicy, "split", 0));
  EXPECT_EQ(
      ErrorOf(StartLog(*vm, Config(InitiallySet::kNo, SplitPolicy::kOnClear),
                       nullptr)),
      ErrorText(absl::StatusCode::kInvalidArgument, Reason::kInvalidSplitPolicy,
                "split", 0));
  EXPECT_EQ(vm->state().slots.logging_slots(), 0);
  // These settings are refused before the start is tried.
  for (const DirtyLogConfig& bad :
       {unknown, Config(InitiallySet::kYes, SplitPolicy::kEager)}) {
    EXPECT_EQ(vm->CheckDirtyLogStart(TestStart(bad)).status(),
              vm->StartDirtyLog(TestStart(bad), nullptr).status());
  }

  DirtyLogConfig one = kPlain;
  one.slots = {1};
  ASSERT_TRUE(StartLog(*vm, one, nullptr).ok());
  // Starts that differ from the first: in settings, in slots, in the owner.
  DirtyLogStart others = TestStart(one);
  others.claim.key.bytes[0] = 'o';
  others.claim.owner = "other";
  for (const absl::Status& status :
       {StartLog(*vm, kAllSet), StartLog(*vm, kPlain),
        vm->StartDirtyLog(others, nullptr).status()}) {
    EXPECT_EQ(ErrorOf(status),
              ErrorText(absl::StatusCode::kAlreadyExists,
                        Reason::kDirtyLogActive, "vm", EEXIST));
    EXPECT_EQ(DetailOf(status).metadata.at("owner"), "test");
  }
  EXPECT_EQ(vm->state().slots.logging_slots(), 1);
}

TEST(StartDirtyLogTest, AllMeansThoseThatCanBeWrittenAndThereMustBeOne) {
  MemslotConfig rom = Slot(1, kGiB, 4 * kMiB);
  rom.mode = MemslotConfig::Mode::kReadOnly;
  auto vm = MakeVm({rom});
  EXPECT_EQ(ErrorOf(StartLog(*vm, kPlain, nullptr)),
            ErrorText(absl::StatusCode::kNotFound, Reason::kMemslotNotFound,
                      "slots", ENOENT));
  EXPECT_EQ(vm->state().slots.logging_slots(), 0);
  EXPECT_EQ(vm->CheckDirtyLogStart(TestStart(kPlain)).status(),
            vm->StartDirtyLog(TestStart(kPlain), nullptr).status());
  ASSERT_TRUE(vm->SetMemslot(Slot(0, 0, 4 * kMiB)).ok());
  ASSERT_TRUE(StartLog(*vm, kPlain, nullptr).ok());
  ASSERT_THAT(vm->FindDirtyLog()->state.slots, SizeIs(1));
  EXPECT_EQ(vm->FindDirtyLog()->state.slots[0].slot, 0u);
  ASSERT_TRUE(StopLog(*vm).ok());
  DirtyLogConfig named = kPlain;
  named.slots = {0, 1};
  ASSERT_TRUE(StartLog(*vm, named, nullptr).ok());
  EXPECT_THAT(vm->FindDirtyLog()->state.slots, SizeIs(2));
}

}  // namespace
}  // namespace mmu
