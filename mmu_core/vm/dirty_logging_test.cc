// Dirty logging of whole slots: switching on and off, the epoch protocol, and
// KVM's own calls beside it.

#include "mmu_core/vm/dirty_logging.h"

#include <sys/resource.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/guest/pattern.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/memory/region_request.h"
#include "mmu_core/paging/table_pool.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/testing/lock_trace.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/region_hooks.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/vm/vm_state.h"
#include "mmu_core/vm/workload.h"

namespace mmu {
namespace {

using ::mmu::testing::AllMappings;
using ::mmu::testing::AuditFindings;
using ::mmu::testing::LevelOf;
using ::mmu::testing::MakePmlVm;
using ::mmu::testing::MakeRingVm;
using ::mmu::testing::MakeVm;
using ::mmu::testing::MakeVmFrom;
using ::mmu::testing::Mapping;
using ::mmu::testing::MaskOf;
using ::mmu::testing::PagesOf;
using ::mmu::testing::Read;
using ::mmu::testing::SealAndList;
using ::mmu::testing::Slot;
using ::mmu::testing::SpteOf;
using ::mmu::testing::Touch;
using ::mmu::testing::Write;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kGiB = uint64_t{1} << 30;
constexpr uint64_t kPages2M = 512;

DirtyLogConfig Config(InitiallySet initially_set, SplitPolicy split) {
  DirtyLogConfig config;
  config.initially_set = initially_set;
  config.split = split;
  return config;
}

const DirtyLogConfig kPlain = Config(InitiallySet::kNo, SplitPolicy::kNone);
const DirtyLogConfig kEager = Config(InitiallySet::kNo, SplitPolicy::kEager);
const DirtyLogConfig kAllSet = Config(InitiallySet::kYes, SplitPolicy::kNone);
const DirtyLogConfig kAllSetSplit =
    Config(InitiallySet::kYes, SplitPolicy::kOnClear);

bool IsError(const absl::Status& status, absl::StatusCode code,
             const std::string& reason, const std::string& field,
             int kvm_errno) {
  const ErrorDetail detail = DetailOf(status);
  EXPECT_EQ(status.code(), code) << status;
  EXPECT_EQ(detail.reason, reason) << status;
  EXPECT_EQ(detail.field, field) << status;
  EXPECT_EQ(detail.kvm_errno, kvm_errno) << status;
  return true;
}

uint64_t Flushes(const Vm& vm) { return vm.Stats().remote_tlb_flush_requests; }

// As long as it lives, only so much more address space can be had.
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

// --- Switching on ---

TEST(StartDirtyLogTest, WithoutMemoryForTheLastSlotNoneIsSwitched) {
  // The bitmaps of each take a little over 1 GiB of addresses.
  constexpr uint64_t kVast = kMaxMemslotPages * kPageSize;
  constexpr auto kNothing = BackingKind::kMetadataOnly;
  auto vm = MakeVm({Slot(0, 0, kVast, Level::k4K, kNothing),
                    Slot(1, uint64_t{1} << 44, kVast, Level::k4K, kNothing)});
  Write(*vm, 0x1000);
  absl::Status status;
  {
    AddressSpaceLimit limit(1536 * kMiB);
    status = vm->StartDirtyLog(kPlain, nullptr);
  }
  EXPECT_TRUE(IsError(status, absl::StatusCode::kResourceExhausted,
                      "RESOURCE_EXHAUSTED_MEMORY", "slots", ENOMEM));
  EXPECT_THAT(status.message(), HasSubstr("slot 1"));
  EXPECT_THAT(vm->DirtyLogs(), IsEmpty());
  for (const MemslotInfo& slot : vm->Memslots()) {
    EXPECT_FALSE(slot.dirty_log_enabled) << slot.config.slot;
  }
  EXPECT_TRUE(SpteOf(vm->state(), Gfn(1)).IsWritable());
  EXPECT_EQ(Flushes(*vm), 0u);
  EXPECT_EQ(AuditFindings(*vm), "");
  // And it works once there is memory.
  ASSERT_TRUE(vm->StartDirtyLog(kPlain, nullptr).ok());
  EXPECT_THAT(vm->DirtyLogs(), SizeIs(2));
}

// Covers: DL-02, TLB-05, TDP-65
TEST(StartDirtyLogTest, EagerSplitsThenProtectsAndFlushesOnce) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB, Level::k2M)});
  Write(*vm, 0);
  Read(*vm, 2 * kMiB);
  MmuCost cost;
  ASSERT_TRUE(vm->StartDirtyLog(kEager, &cost).ok());
  EXPECT_EQ(cost.tlb_flush_count, 1);
  EXPECT_EQ(Flushes(*vm), 1u);
  const VmStatsSnapshot stats = vm->Stats();
  EXPECT_EQ(stats.pages_2m, 0u);
  EXPECT_EQ(stats.pages_4k, 2 * kPages2M);
  for (const Mapping& m : AllMappings(vm->state())) {
    ASSERT_EQ(m.flags.find('w'), std::string::npos) << m;
    ASSERT_NE(m.flags.find('m'), std::string::npos) << m;
  }
  EXPECT_EQ(vm->Metrics().splits[0][static_cast<int>(SplitTrigger::kEager)],
            2u);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: DL-07, DL-02, DL-16
TEST(StartDirtyLogTest, WithoutASplitPolicyPagesStayHugeButNotWritable) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB, Level::k2M)});
  Write(*vm, 0);
  MmuCost cost;
  ASSERT_TRUE(vm->StartDirtyLog(kPlain, &cost).ok());
  EXPECT_THAT(AllMappings(vm->state()),
              ElementsAre(Mapping{0, Level::k2M, "rmad"}));
  EXPECT_EQ(cost.tlb_flush_count, 1);
}

// Covers: DL-02, TLB-05
TEST(StartDirtyLogTest, TheFlushIsIssuedEvenIfNothingWasProtected) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB, Level::k2M)});
  MmuCost cost;
  ASSERT_TRUE(vm->StartDirtyLog(kPlain, &cost).ok());
  EXPECT_EQ(cost.tlb_flush_count, 1);
}

// Covers: DL-04, SLOT-51
TEST(StartDirtyLogTest, InitiallySetTouchesNothingAndReportsEveryPage) {
  auto vm = MakeVm({Slot(0, 0, 2 * kMiB + 100 * kPageSize, Level::k2M)});
  Write(*vm, 0);
  const std::vector<Mapping> before = AllMappings(vm->state());
  MmuCost cost;
  ASSERT_TRUE(vm->StartDirtyLog(kAllSet, &cost).ok());
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
  ASSERT_NE(vm->state().vcpus[0]->tlb().Lookup(Gfn(1)), nullptr);
  ASSERT_TRUE(vm->StartDirtyLog(kPlain, nullptr).ok());
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
  ASSERT_TRUE(vm->StartDirtyLog(named, &cost).ok());
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
  ASSERT_TRUE(vm->StartDirtyLog(kEager, nullptr).ok());
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
  ASSERT_TRUE(vm->StartDirtyLog(config, nullptr).ok());
  EXPECT_EQ(vm->state().slots.logging_slots(), 1);
  ASSERT_THAT(vm->DirtyLogs(), SizeIs(1));
  EXPECT_EQ(vm->DirtyLogs()[0].slot, 1u);
  for (const MemslotInfo& info : vm->Memslots()) {
    EXPECT_EQ(info.dirty_log_enabled, info.config.slot == 1);
  }
}

TEST(StartDirtyLogTest, TheSameSettingsAgainChangeNothing) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB)});
  ASSERT_TRUE(vm->StartDirtyLog(kPlain, nullptr).ok());
  Write(*vm, 0x3000);
  MmuCost cost;
  ASSERT_TRUE(vm->StartDirtyLog(kPlain, &cost).ok());
  EXPECT_EQ(cost.tlb_flush_count, 0);
  EXPECT_THAT(SealAndList(*vm, 0), ElementsAre(3));
}

TEST(StartDirtyLogTest, BadRequestsSayWhyAndStartNothing) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB), Slot(1, kGiB, 4 * kMiB)});
  DirtyLogConfig unknown = kPlain;
  unknown.slots = {0, 9};
  IsError(vm->StartDirtyLog(unknown, nullptr), absl::StatusCode::kNotFound,
          "MEMSLOT_NOT_FOUND", "slot", ENOENT);
  IsError(vm->StartDirtyLog(Config(InitiallySet::kYes, SplitPolicy::kEager),
                            nullptr),
          absl::StatusCode::kInvalidArgument, "INVALID_SPLIT_POLICY", "split",
          EINVAL);
  IsError(vm->StartDirtyLog(Config(InitiallySet::kNo, SplitPolicy::kOnClear),
                            nullptr),
          absl::StatusCode::kInvalidArgument, "INVALID_SPLIT_POLICY", "split",
          EINVAL);
  EXPECT_EQ(vm->state().slots.logging_slots(), 0);

  DirtyLogConfig one = kPlain;
  one.slots = {1};
  ASSERT_TRUE(vm->StartDirtyLog(one, nullptr).ok());
  // Slot 0 could be started, slot 1 cannot: neither is touched.
  IsError(vm->StartDirtyLog(kAllSet, nullptr), absl::StatusCode::kAlreadyExists,
          "DIRTY_LOG_ACTIVE", "slots", EEXIST);
  EXPECT_EQ(vm->state().slots.logging_slots(), 1);
}

TEST(StartDirtyLogTest, AllMeansThoseThatCanBeWrittenAndThereMustBeOne) {
  MemslotConfig rom = Slot(1, kGiB, 4 * kMiB);
  rom.mode = MemslotConfig::Mode::kReadOnly;
  auto vm = MakeVm({rom});
  IsError(vm->StartDirtyLog(kPlain, nullptr), absl::StatusCode::kNotFound,
          "MEMSLOT_NOT_FOUND", "slots", ENOENT);
  EXPECT_EQ(vm->state().slots.logging_slots(), 0);
  ASSERT_TRUE(vm->SetMemslot(Slot(0, 0, 4 * kMiB)).ok());
  ASSERT_TRUE(vm->StartDirtyLog(kPlain, nullptr).ok());
  ASSERT_THAT(vm->DirtyLogs(), SizeIs(1));
  EXPECT_EQ(vm->DirtyLogs()[0].slot, 0u);
  DirtyLogConfig named = kPlain;
  named.slots = {1};
  ASSERT_TRUE(vm->StartDirtyLog(named, nullptr).ok());
  EXPECT_THAT(vm->DirtyLogs(), SizeIs(2));
}

// --- What is logged ---

// Covers: DL-08
TEST(DirtyLoggingTest, AWriteToAProtectedHugePageSplitsItInPlace) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB, Level::k2M)});
  Write(*vm, 0);
  ASSERT_TRUE(vm->StartDirtyLog(kPlain, nullptr).ok());
  Write(*vm, 7 * kPageSize);
  const VmStatsSnapshot stats = vm->Stats();
  EXPECT_EQ(stats.pages_2m, 0u);
  EXPECT_EQ(stats.pages_4k, kPages2M) << "siblings stay mapped";
  EXPECT_TRUE(SpteOf(vm->state(), Gfn(7)).IsWritable());
  EXPECT_FALSE(SpteOf(vm->state(), Gfn(8)).IsWritable());
  const uint64_t taken = vm->VcpuStats()[0].pf_taken;
  Read(*vm, 8 * kPageSize);
  EXPECT_EQ(vm->VcpuStats()[0].pf_taken, taken);
  EXPECT_THAT(SealAndList(*vm, 0), ElementsAre(7));
  EXPECT_EQ(vm->Metrics().splits[0][static_cast<int>(SplitTrigger::kFault)],
            1u);
}

// Covers: DL-18
TEST(DirtyLoggingTest, AReadThatMapsAPageMarksItOnceAndLaterReadsDoNot) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB)});
  ASSERT_TRUE(vm->StartDirtyLog(kPlain, nullptr).ok());
  Read(*vm, 0x3000);
  uint64_t epoch = 0;
  EXPECT_THAT(SealAndList(*vm, 0, &epoch), ElementsAre(3));
  ASSERT_TRUE(
      vm->ClearDirtyLog(0, epoch, 0, 1024, MaskOf(1024, {3}), nullptr).ok());
  Read(*vm, 0x3000);
  EXPECT_THAT(SealAndList(*vm, 0), IsEmpty());
}

// Covers: DL-18
TEST(DirtyLoggingTest, AReadOfAPageThatWasSplitEagerlyNeverMarks) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB, Level::k2M)});
  Write(*vm, 0);
  ASSERT_TRUE(vm->StartDirtyLog(kEager, nullptr).ok());
  Touch(*vm, GfnRange::Of(Gfn(0), kPages2M), AccessKind::kRead);
  EXPECT_THAT(SealAndList(*vm, 0), IsEmpty());
}

// Covers: SLOT-53, SLOT-52
TEST(DirtyLoggingTest, OnlyALoggedSlotMarksAndByItsOwnPageNumbers) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB), Slot(1, kGiB, 4 * kMiB)});
  DirtyLogConfig config = kPlain;
  config.slots = {1};
  ASSERT_TRUE(vm->StartDirtyLog(config, nullptr).ok());
  Write(*vm, 0x5000);
  Write(*vm, kGiB + 0x9000);
  EXPECT_THAT(SealAndList(*vm, 1), ElementsAre(9));
  EXPECT_EQ(vm->VcpuStats()[0].dirty_pages, 1u);
}

// Covers: PF-15
TEST(DirtyLoggingTest, AFastFaultMarksThePageAndLeavesTheDirtyBitToHardware) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB)});
  Write(*vm, 0x3000);
  ASSERT_TRUE(vm->StartDirtyLog(kPlain, nullptr).ok());
  Write(*vm, 0x3000);
  EXPECT_EQ(vm->VcpuStats()[0].pf_fast, 1u);
  EXPECT_THAT(SealAndList(*vm, 0), ElementsAre(3));
}

// --- Seal, read, clear ---

TEST(EpochProtocolTest, SealingForgetsNothingUntilItIsCleared) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB)});
  ASSERT_TRUE(vm->StartDirtyLog(kPlain, nullptr).ok());
  Write(*vm, 0x1000);
  EXPECT_THAT(SealAndList(*vm, 0), ElementsAre(1));
  Write(*vm, 0x2000);
  EXPECT_THAT(SealAndList(*vm, 0), ElementsAre(1, 2)) << "merged";
  uint64_t epoch = 0;
  EXPECT_THAT(SealAndList(*vm, 0, &epoch), ElementsAre(1, 2));
  ASSERT_TRUE(
      vm->ClearDirtyLog(0, epoch, 0, 64, MaskOf(64, {1}), nullptr).ok());
  EXPECT_THAT(SealAndList(*vm, 0), ElementsAre(2));
}

TEST(EpochProtocolTest, APeekShowsOpenAndSealedPagesAndClosesNothing) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB)});
  ASSERT_TRUE(vm->StartDirtyLog(kPlain, nullptr).ok());
  Write(*vm, 0x1000);
  uint64_t epoch = 0;
  SealAndList(*vm, 0, &epoch);
  Write(*vm, 0x2000);
  std::vector<uint64_t> words(16);
  ASSERT_TRUE(vm->ReadDirtyLog(0, 0, 0, absl::MakeSpan(words)).ok());
  EXPECT_THAT(PagesOf(words), ElementsAre(1, 2));
  ASSERT_TRUE(vm->ReadDirtyLog(0, epoch, 0, absl::MakeSpan(words)).ok());
  EXPECT_THAT(PagesOf(words), ElementsAre(1));
  EXPECT_EQ(vm->DirtyLogs()[0].open_epoch, epoch + 1);
}

// Covers: DL-24, DL-12
TEST(EpochProtocolTest, AClearCountsWhatWasSetAndTouchesNothingElse) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB)});
  ASSERT_TRUE(vm->StartDirtyLog(kPlain, nullptr).ok());
  Touch(*vm, GfnRange::Of(Gfn(0), 3));
  uint64_t epoch = 0;
  SealAndList(*vm, 0, &epoch);
  MmuCost cost;
  auto cleared =
      vm->ClearDirtyLog(0, epoch, 0, 128, MaskOf(128, {0, 1, 70}), &cost);
  ASSERT_TRUE(cleared.ok()) << cleared.status();
  EXPECT_EQ(cleared->cleared_page_count, 2u);
  EXPECT_EQ(cleared->already_clean_page_count, 1u);
  EXPECT_EQ(cost.tlb_flush_count, 1);
  EXPECT_FALSE(SpteOf(vm->state(), Gfn(0)).IsWritable());
  EXPECT_FALSE(SpteOf(vm->state(), Gfn(1)).IsWritable());
  EXPECT_TRUE(SpteOf(vm->state(), Gfn(2)).IsWritable());

  // Again: nothing was set, so nothing is protected and nobody flushes.
  MmuCost again;
  cleared =
      vm->ClearDirtyLog(0, epoch, 0, 128, MaskOf(128, {0, 1, 70}), &again);
  ASSERT_TRUE(cleared.ok());
  EXPECT_EQ(cleared->cleared_page_count, 0u);
  EXPECT_EQ(again.tlb_flush_count, 0);
  EXPECT_EQ(again.max_lock_hold, absl::ZeroDuration());
}

// Covers: DL-11, TLB-05
TEST(EpochProtocolTest, AStaleWritableTranslationFaultsAfterAClear) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB)});
  ASSERT_TRUE(vm->StartDirtyLog(kPlain, nullptr).ok());
  Write(*vm, 0x1000, 1);
  uint64_t epoch = 0;
  SealAndList(*vm, 0, &epoch);
  Write(*vm, 0x1000, 2);  // through the TLB, in no newer epoch
  ASSERT_TRUE(
      vm->ClearDirtyLog(0, epoch, 0, 64, MaskOf(64, {1}), nullptr).ok());
  Write(*vm, 0x1000, 3);
  EXPECT_THAT(SealAndList(*vm, 0), ElementsAre(1));
}

TEST(EpochProtocolTest, WrongEpochsAreRefusedAndNothingChanges) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB)});
  ASSERT_TRUE(vm->StartDirtyLog(kPlain, nullptr).ok());
  Write(*vm, 0x1000);
  uint64_t first = 0;
  SealAndList(*vm, 0, &first);
  uint64_t second = 0;
  SealAndList(*vm, 0, &second);
  ASSERT_EQ(second, first + 1);
  std::vector<uint64_t> words(16);
  IsError(vm->ReadDirtyLog(0, first, 0, absl::MakeSpan(words)),
          absl::StatusCode::kAborted, "EPOCH_SUPERSEDED", "epoch", 0);
  IsError(vm->ReadDirtyLog(0, second + 1, 0, absl::MakeSpan(words)),
          absl::StatusCode::kNotFound, "EPOCH_UNKNOWN", "epoch", 0);
  for (const uint64_t epoch : {uint64_t{0}, first, second + 1}) {
    IsError(
        vm->ClearDirtyLog(0, epoch, 0, 64, MaskOf(64, {1}), nullptr).status(),
        absl::StatusCode::kAborted, "EPOCH_MISMATCH", "epoch", 0);
  }
  EXPECT_THAT(SealAndList(*vm, 0), ElementsAre(1));
}

TEST(EpochProtocolTest, ReadsOutsideTheSlotAreRefused) {
  auto vm = MakeVm({Slot(0, 0, 100 * kPageSize)});
  ASSERT_TRUE(vm->StartDirtyLog(kPlain, nullptr).ok());
  std::vector<uint64_t> two(2);
  std::vector<uint64_t> three(3);
  EXPECT_TRUE(vm->ReadDirtyLog(0, 0, 0, absl::MakeSpan(two)).ok());
  EXPECT_TRUE(vm->ReadDirtyLog(0, 0, 128, absl::Span<uint64_t>()).ok());
  IsError(vm->ReadDirtyLog(0, 0, 0, absl::MakeSpan(three)),
          absl::StatusCode::kOutOfRange, "INVALID_RANGE", "range", 0);
  IsError(vm->ReadDirtyLog(0, 0, 64, absl::MakeSpan(two)),
          absl::StatusCode::kOutOfRange, "INVALID_RANGE", "range", 0);
  IsError(vm->ReadDirtyLog(0, 0, 1, absl::MakeSpan(two)),
          absl::StatusCode::kOutOfRange, "INVALID_RANGE", "range", 0);
}

TEST(EpochProtocolTest, SlotsThatDoNotLogOrDoNotExistAreToldApart) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB)});
  std::vector<uint64_t> words(1);
  const auto all = [&](uint32_t slot) {
    return std::vector<absl::Status>{
        vm->SealDirtyLog(slot, nullptr).status(),
        vm->ReadDirtyLog(slot, 0, 0, absl::MakeSpan(words)),
        vm->ClearDirtyLog(slot, 1, 0, 64, words, nullptr).status(),
        vm->StopDirtyLog({slot}, Vm::Recover::kNo, Vm::Unacked::kRefuse,
                         nullptr)
            .status()};
  };
  for (const absl::Status& status : all(0)) {
    IsError(status, absl::StatusCode::kFailedPrecondition, "DIRTY_LOG_OFF",
            "slot", ENOENT);
  }
  for (const absl::Status& status : all(5)) {
    IsError(status, absl::StatusCode::kNotFound, "MEMSLOT_NOT_FOUND", "slot",
            ENOENT);
  }
}

// --- The range rules of a clear ---

struct RangeCase {
  uint64_t slot_pages;
  uint64_t first_page;
  uint64_t page_count;
  size_t words;
  std::string reason;  // "" is fine
  std::string field;
};

// Covers: DL-20, DL-21, DL-22, DL-23
TEST(ClearRangeTest, FollowsTheRulesOfSixtyFourPages) {
  const std::vector<RangeCase> cases = {
      {100, 0, 100, 2, "", ""},
      {100, 64, 36, 1, "", ""},
      {100, 0, 64, 1, "", ""},
      {100, 0, 36, 1, "UNALIGNED_CLEAR", "size_bytes"},
      {100, 1, 64, 1, "UNALIGNED_CLEAR", "start_gpa_bytes"},
      {100, 63, 0, 0, "UNALIGNED_CLEAR", "start_gpa_bytes"},
      {100, 64, 64, 1, "INVALID_RANGE", "size_bytes"},
      {100, 128, 0, 0, "INVALID_RANGE", "size_bytes"},
      {100, 0, 101, 2, "INVALID_RANGE", "size_bytes"},
      {128, 128, 0, 0, "", ""},
      {128, 0, 0, 0, "", ""},
      {128, 64, ~uint64_t{0}, 1, "INVALID_RANGE", "size_bytes"},
      {128, ~uint64_t{63}, 64, 1, "INVALID_RANGE", "size_bytes"},
      {128, 0, 128, 1, "INVALID_BITMAP", "bitmap"},
      {128, 0, 128, 3, "INVALID_BITMAP", "bitmap"},
      {128, 0, 0, 1, "INVALID_BITMAP", "bitmap"},
  };
  for (const RangeCase& c : cases) {
    SCOPED_TRACE(::testing::Message() << c.slot_pages << " pages: "
                                      << c.first_page << "+" << c.page_count);
    auto vm = MakeVm({Slot(0, 0, c.slot_pages * kPageSize)});
    ASSERT_TRUE(vm->StartDirtyLog(kPlain, nullptr).ok());
    Touch(*vm, GfnRange::Of(Gfn(0), c.slot_pages));
    uint64_t epoch = 0;
    const std::vector<uint64_t> dirty = SealAndList(*vm, 0, &epoch);
    const std::vector<uint64_t> mask(c.words, ~uint64_t{0});
    const absl::StatusOr<ClearResult> cleared =
        vm->ClearDirtyLog(0, epoch, c.first_page, c.page_count, mask, nullptr);
    if (c.reason.empty()) {
      ASSERT_TRUE(cleared.ok()) << cleared.status();
      EXPECT_EQ(cleared->cleared_page_count, c.page_count);
    } else {
      IsError(cleared.status(), absl::StatusCode::kInvalidArgument, c.reason,
              c.field, EINVAL);
      EXPECT_EQ(SealAndList(*vm, 0), dirty);
    }
  }
}

// Covers: DL-20
TEST(ClearRangeTest, AnUnalignedStartIsSeenBeforeTheMissingSlot) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB)});
  IsError(vm->ClearDirtyLog(77, 1, 5, 64, {}, nullptr).status(),
          absl::StatusCode::kInvalidArgument, "UNALIGNED_CLEAR",
          "start_gpa_bytes", EINVAL);
  IsError(ClearBitmap(vm->state(), 77, 5, 64, {}, nullptr).status(),
          absl::StatusCode::kInvalidArgument, "UNALIGNED_CLEAR",
          "start_gpa_bytes", EINVAL);
}

// Covers: DL-23
TEST(ClearRangeTest, BitZeroOfTheMaskIsTheFirstPageOfTheRange) {
  auto vm = MakeVm({Slot(0, kGiB, 4 * kMiB)});
  ASSERT_TRUE(vm->StartDirtyLog(kPlain, nullptr).ok());
  Touch(*vm, GfnRange::Of(Gfn(kGiB >> kPageShift), 200));
  uint64_t epoch = 0;
  SealAndList(*vm, 0, &epoch);
  ASSERT_TRUE(
      vm->ClearDirtyLog(0, epoch, 128, 64, MaskOf(64, {3}), nullptr).ok());
  const std::vector<uint64_t> left = SealAndList(*vm, 0);
  EXPECT_THAT(left, SizeIs(199));
  EXPECT_THAT(left, ::testing::Not(::testing::Contains(131)));
}

// --- Splitting and protecting huge pages by a clear ---

// Covers: DL-26, DL-15
TEST(ClearSplitTest, ClearingOnePageSplitsItsHugePageAndNoOther) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB, Level::k2M)});
  Write(*vm, 0);
  Write(*vm, 2 * kMiB);
  ASSERT_TRUE(vm->StartDirtyLog(kAllSetSplit, nullptr).ok());
  uint64_t epoch = 0;
  SealAndList(*vm, 0, &epoch);
  const auto cleared =
      vm->ClearDirtyLog(0, epoch, 64, 64, MaskOf(64, {9}), nullptr);
  ASSERT_TRUE(cleared.ok());
  EXPECT_EQ(cleared->split_2m_count, 1u);
  EXPECT_EQ(cleared->split_1g_count, 0u);
  EXPECT_EQ(LevelOf(vm->state(), Gfn(600)), Level::k2M);
  EXPECT_TRUE(SpteOf(vm->state(), Gfn(600)).IsWritable());
  EXPECT_EQ(vm->Stats().pages_4k, kPages2M);
  EXPECT_FALSE(SpteOf(vm->state(), Gfn(73)).IsWritable());
  EXPECT_TRUE(SpteOf(vm->state(), Gfn(74)).IsWritable()) << "still dirty";
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: DL-26
TEST(ClearSplitTest, AOneGigabytePageIsSplitAlongThePathOnly) {
  auto vm = MakeVm({Slot(0, 0, kGiB, Level::k1G)});
  Write(*vm, 0);
  ASSERT_EQ(vm->Stats().pages_1g, 1u);
  ASSERT_TRUE(vm->StartDirtyLog(kAllSetSplit, nullptr).ok());
  uint64_t epoch = 0;
  SealAndList(*vm, 0, &epoch);
  const auto cleared =
      vm->ClearDirtyLog(0, epoch, 0, 64, MaskOf(64, {0}), nullptr);
  ASSERT_TRUE(cleared.ok());
  EXPECT_EQ(cleared->split_1g_count, 1u);
  EXPECT_EQ(cleared->split_2m_count, 1u);
  EXPECT_EQ(vm->Stats().pages_1g, 0u);
  EXPECT_EQ(vm->Stats().pages_2m, 511u);
  EXPECT_EQ(vm->Stats().pages_4k, kPages2M);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: DL-15, TLB-06
TEST(ClearSplitTest, WithoutSplittingTheHugePageIsProtectedForGood) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB, Level::k2M)});
  Write(*vm, 0);
  ASSERT_TRUE(vm->StartDirtyLog(kAllSet, nullptr).ok());
  uint64_t epoch = 0;
  SealAndList(*vm, 0, &epoch);
  MmuCost cost;
  ASSERT_TRUE(vm->ClearDirtyLog(0, epoch, 0, 64, MaskOf(64, {5}), &cost).ok());
  // "r": neither W nor MMU-writable, so the fast fault leaves it alone.
  EXPECT_THAT(AllMappings(vm->state()),
              ElementsAre(Mapping{0, Level::k2M, "rad"}));
  // Once for the lost MMU-writable bit, before the lock was dropped, and once
  // for the small pages, afterwards.
  EXPECT_EQ(cost.tlb_flush_count, 2);
  Write(*vm, 6 * kPageSize);
  EXPECT_EQ(vm->VcpuStats()[0].pf_fast, 0u);
  EXPECT_EQ(vm->Stats().pages_4k, kPages2M);
  Write(*vm, 5 * kPageSize);
  EXPECT_THAT(SealAndList(*vm, 0), ::testing::Contains(5));
  EXPECT_EQ(AuditFindings(*vm), "");
}

// The slot begins 32 pages below a 2 MiB boundary, in the guest and in the
// host, so its words lie across the boundaries between huge pages. Covers:
// DL-15
TEST(ClearSplitTest, AWordAcrossTwoHugePagesProtectsBoth) {
  auto vm = MakeVm({});
  VmState& state = vm->state();
  const auto backing = state.memory.Allocate({.kind = BackingKind::kAnonymous,
                                              .size_bytes = 16 * kMiB,
                                              .host_page_level = Level::k2M});
  ASSERT_TRUE(backing.ok());
  constexpr uint64_t kOffset = 2 * kMiB - 32 * kPageSize;
  RegionRequest request;
  request.gpa = Gpa(kOffset);
  request.size_bytes = 8 * kMiB;
  request.userspace_addr = (*backing)->hva() + kOffset;
  request.backing = *backing;
  {
    MutexLock lock(state.slots.slots_lock);
    RegionHooks hooks(state, nullptr);
    ASSERT_TRUE(state.slots.SetRegion(request, hooks).ok());
  }
  Write(*vm, ToGpa(Gfn(1000)).value());
  Write(*vm, ToGpa(Gfn(1040)).value());
  ASSERT_EQ(vm->Stats().pages_2m, 2u);
  ASSERT_TRUE(vm->StartDirtyLog(kAllSet, nullptr).ok());
  uint64_t epoch = 0;
  SealAndList(*vm, 0, &epoch);
  const std::vector<uint64_t> both = {1000 - 480, 1040 - 480};
  ASSERT_EQ(both[0] / 64, both[1] / 64) << "one word";
  ASSERT_TRUE(
      vm->ClearDirtyLog(0, epoch, 0, 1024, MaskOf(1024, both), nullptr).ok());
  EXPECT_THAT(AllMappings(vm->state()),
              ElementsAre(Mapping{512, Level::k2M, "rad"},
                          Mapping{1024, Level::k2M, "rad"}));
}

// Covers: DL-16
TEST(ClearSplitTest, WithoutInitiallySetAClearLeavesHugePagesAlone) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB, Level::k2M)});
  Write(*vm, 0);
  Write(*vm, 2 * kMiB);
  ASSERT_TRUE(vm->StartDirtyLog(kPlain, nullptr).ok());
  Write(*vm, 5 * kPageSize);
  uint64_t epoch = 0;
  SealAndList(*vm, 0, &epoch);
  const std::vector<uint64_t> all(16, ~uint64_t{0});
  const auto cleared = vm->ClearDirtyLog(0, epoch, 0, 1024, all, nullptr);
  ASSERT_TRUE(cleared.ok());
  EXPECT_EQ(cleared->cleared_page_count, 1u);
  EXPECT_EQ(cleared->split_2m_count, 0u);
  EXPECT_EQ(vm->Stats().pages_2m, 1u);
}

// --- Epochs of one log after the other ---

// A client that sealed an epoch and was away while the log was stopped and
// started again must not clear what the new log has seen.
TEST(EpochNumbersTest, AnEpochOfAnOlderLogIsNoEpochOfTheNext) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB)});
  ASSERT_TRUE(vm->StartDirtyLog(kPlain, nullptr).ok());
  Write(*vm, 0x3000);
  uint64_t old_epoch = 0;
  SealAndList(*vm, 0, &old_epoch);
  EXPECT_EQ(old_epoch, 1u);
  ASSERT_TRUE(
      vm->StopDirtyLog({}, Vm::Recover::kNo, Vm::Unacked::kDiscard, nullptr)
          .ok());
  ASSERT_TRUE(vm->StartDirtyLog(kPlain, nullptr).ok());
  const auto clear = [&](uint64_t epoch) {
    return DetailOf(vm->ClearDirtyLog(0, epoch, 0, 64, MaskOf(64, {3}), nullptr)
                        .status())
        .reason;
  };
  // Before and after the first seal of the new log.
  EXPECT_EQ(vm->DirtyLogs()[0].sealed_epoch, 0u);
  for (uint64_t epoch = 0; epoch <= vm->DirtyLogs()[0].open_epoch; ++epoch) {
    EXPECT_EQ(clear(epoch), "EPOCH_MISMATCH") << epoch;
  }
  Write(*vm, 0x3000);
  uint64_t epoch = 0;
  EXPECT_THAT(SealAndList(*vm, 0, &epoch), ElementsAre(3));
  EXPECT_GT(epoch, old_epoch + 1);
  EXPECT_EQ(clear(old_epoch), "EPOCH_MISMATCH");
  std::vector<uint64_t> words(16);
  EXPECT_EQ(
      DetailOf(vm->ReadDirtyLog(0, old_epoch, 0, absl::MakeSpan(words))).reason,
      "EPOCH_SUPERSEDED");
  EXPECT_THAT(SealAndList(*vm, 0, &epoch), ElementsAre(3)) << "still there";
  EXPECT_EQ(clear(epoch), "");
}

TEST(ClearResultTest, BitsPastTheEndOfTheSlotAreNotCounted) {
  auto vm = MakeVm({Slot(0, 0, 10 * kPageSize)});
  ASSERT_TRUE(vm->StartDirtyLog(kPlain, nullptr).ok());
  Write(*vm, 0x3000);
  uint64_t epoch = 0;
  SealAndList(*vm, 0, &epoch);
  const std::vector<uint64_t> all = {~uint64_t{0}};
  const auto cleared = vm->ClearDirtyLog(0, epoch, 0, 10, all, nullptr);
  ASSERT_TRUE(cleared.ok());
  EXPECT_EQ(cleared->cleared_page_count, 1u);
  EXPECT_EQ(cleared->already_clean_page_count, 9u);
}

// --- KVM's own calls ---

// Covers: DL-10, DL-11, DL-12
TEST(KvmCallsTest, LegacyGetTakesProtectsAndFlushes) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB)});
  ASSERT_TRUE(vm->StartDirtyLog(kPlain, nullptr).ok());
  Write(*vm, 0x3000, 1);
  MmuCost cost;
  auto words = GetAndClearDirtyLog(vm->state(), 0, &cost);
  ASSERT_TRUE(words.ok());
  EXPECT_THAT(PagesOf(*words), ElementsAre(3));
  EXPECT_EQ(cost.tlb_flush_count, 1);
  // The translation that was cached may not be written through any more.
  Write(*vm, 0x3000, 2);
  EXPECT_THAT(PagesOf(*GetAndClearDirtyLog(vm->state(), 0, nullptr)),
              ElementsAre(3));
  MmuCost idle;
  EXPECT_THAT(PagesOf(*GetAndClearDirtyLog(vm->state(), 0, &idle)), IsEmpty());
  EXPECT_EQ(idle.tlb_flush_count, 0);
}

// Covers: DL-13, DL-25
TEST(KvmCallsTest, ManualGetCopiesAndOnlyClearClears) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB)});
  ASSERT_TRUE(vm->StartDirtyLog(kPlain, nullptr).ok());
  Write(*vm, 0x3000);
  Write(*vm, 0x4000);
  const uint64_t flushes = Flushes(*vm);
  EXPECT_THAT(PagesOf(*CopyDirtyLog(vm->state(), 0)), ElementsAre(3, 4));
  EXPECT_THAT(PagesOf(*CopyDirtyLog(vm->state(), 0)), ElementsAre(3, 4));
  EXPECT_EQ(Flushes(*vm), flushes);
  EXPECT_TRUE(SpteOf(vm->state(), Gfn(3)).IsWritable());
  const auto cleared =
      ClearBitmap(vm->state(), 0, 0, 64, MaskOf(64, {3, 9}), nullptr);
  ASSERT_TRUE(cleared.ok());
  EXPECT_EQ(cleared->cleared_page_count, 1u);
  EXPECT_FALSE(SpteOf(vm->state(), Gfn(3)).IsWritable());
  EXPECT_THAT(PagesOf(*CopyDirtyLog(vm->state(), 0)), ElementsAre(4));
}

// Covers: DL-14
TEST(KvmCallsTest, InitiallySetHoldsForSlotsEnabledLaterOnly) {
  auto vm = MakeVm({Slot(0, 0, 64 * kPageSize), Slot(1, kGiB, 64 * kPageSize)});
  DirtyLogConfig first = kPlain;
  first.slots = {0};
  ASSERT_TRUE(vm->StartDirtyLog(first, nullptr).ok());
  DirtyLogConfig second = kAllSet;
  second.slots = {1};
  ASSERT_TRUE(vm->StartDirtyLog(second, nullptr).ok());
  EXPECT_THAT(PagesOf(*CopyDirtyLog(vm->state(), 0)), IsEmpty());
  EXPECT_THAT(PagesOf(*CopyDirtyLog(vm->state(), 1)), SizeIs(64));
}

// Covers: DL-14
TEST(KvmCallsTest, ManualProtectTakesItsTwoBitsAndReplacesTheValueBefore) {
  auto vm = MakeVm({Slot(0, 0, 64 * kPageSize), Slot(1, kGiB, 64 * kPageSize),
                    Slot(2, 2 * kGiB, 64 * kPageSize)});
  VmState& state = vm->state();
  for (const auto& [bits, flags] : std::vector<std::pair<uint64_t, uint32_t>>{
           {2, 0}, {4, 0}, {7, 0}, {1, 1}}) {
    IsError(EnableManualProtect(state, bits, flags),
            absl::StatusCode::kInvalidArgument, "INVALID_DIRTY_LOG_MODE",
            "bits", EINVAL);
  }
  const auto dirty_after_enable = [&](uint32_t id) {
    MutexLock lock(state.slots.slots_lock);
    const Memslot& slot = *state.slots.Active(0).FindById(id);
    RegionRequest request;
    request.slot = id;
    request.flags = kMemslotLogDirtyPages;
    request.gpa = ToGpa(slot.base_gfn);
    request.size_bytes = slot.npages << kPageShift;
    request.userspace_addr = slot.hva;
    RegionHooks hooks(state, nullptr);
    EXPECT_TRUE(state.slots.SetRegion(request, hooks).ok());
    return state.slots.Active(0).FindById(id)->dirty_bitmap->CountDirty();
  };
  ASSERT_TRUE(EnableManualProtect(state, 3, 0).ok());
  EXPECT_EQ(dirty_after_enable(0), 64u);
  ASSERT_TRUE(EnableManualProtect(state, 1, 0).ok());
  EXPECT_EQ(dirty_after_enable(1), 0u);
  ASSERT_TRUE(EnableManualProtect(state, 3, 0).ok());
  ASSERT_TRUE(EnableManualProtect(state, 0, 0).ok());
  EXPECT_EQ(dirty_after_enable(2), 0u);
}

TEST(KvmCallsTest, WithoutALogThereIsNothingToGet) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB)});
  const std::vector<uint64_t> mask(1);
  for (const uint32_t slot : {0u, 9u}) {
    for (const absl::Status& status :
         {GetAndClearDirtyLog(vm->state(), slot, nullptr).status(),
          CopyDirtyLog(vm->state(), slot).status(),
          ClearBitmap(vm->state(), slot, 0, 64, mask, nullptr).status()}) {
      EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
      EXPECT_EQ(DetailOf(status).kvm_errno, ENOENT);
    }
  }
}

// --- Switching off ---

// Covers: DL-06, TDP-52
TEST(StopDirtyLogTest, HugePagesComeBackIfAskedFor) {
  auto vm = MakeVm(
      {Slot(0, 0, 8 * kMiB, Level::k2M), Slot(1, kGiB, kGiB, Level::k1G)});
  Touch(*vm, GfnRange::Of(Gfn(0), 2048));
  Write(*vm, kGiB);
  ASSERT_TRUE(vm->StartDirtyLog(kEager, nullptr).ok());
  ASSERT_EQ(vm->Stats().pages_2m, 0u);
  const auto stopped =
      vm->StopDirtyLog({}, Vm::Recover::kYes, Vm::Unacked::kRefuse, nullptr);
  ASSERT_TRUE(stopped.ok()) << stopped.status();
  EXPECT_EQ(stopped->recovered_2m_count, 4u);
  EXPECT_EQ(stopped->recovered_1g_count, 1u);
  EXPECT_EQ(vm->Stats().pages_2m, 4u);
  EXPECT_EQ(vm->Stats().pages_1g, 1u);
  EXPECT_EQ(vm->Stats().pages_4k, 0u);
  EXPECT_THAT(vm->DirtyLogs(), IsEmpty());
  EXPECT_EQ(AuditFindings(*vm), "");
}

// There what is small goes, and the next access maps it huge.
// Covers: DL-06, SHD-82
TEST(StopDirtyLogTest, AStageOfShadowPagesCountsTheSameHugePages) {
  VmConfig config;
  config.mmu = MmuMode::kTdpShadow;
  config.memslots = {Slot(0, 0, 8 * kMiB, Level::k2M),
                     Slot(1, kGiB, kGiB, Level::k1G)};
  auto vm = MakeVmFrom(config);
  ASSERT_TRUE(vm->StartDirtyLog(kPlain, nullptr).ok());
  Touch(*vm, GfnRange::Of(Gfn(0), 2048));
  Write(*vm, kGiB);
  Write(*vm, kGiB + 5 * kMiB);
  const auto stopped =
      vm->StopDirtyLog({}, Vm::Recover::kYes, Vm::Unacked::kDiscard, nullptr);
  ASSERT_TRUE(stopped.ok()) << stopped.status();
  EXPECT_EQ(stopped->recovered_2m_count, 4u);
  EXPECT_EQ(stopped->recovered_1g_count, 1u);
  EXPECT_EQ(vm->Metrics().recoveries[0], 4u);
  EXPECT_EQ(vm->Metrics().recoveries[1], 1u);
  EXPECT_EQ(vm->Stats().pages_4k, 0u);
  Write(*vm, 0);
  Write(*vm, kGiB + 5 * kMiB);
  EXPECT_EQ(vm->Stats().pages_2m, 1u);
  EXPECT_EQ(vm->Stats().pages_1g, 1u);
  EXPECT_EQ(vm->Stats().pages_4k, 0u);
  const auto again = vm->RecoverHugePages({}, nullptr);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->to_2m_count + again->to_1g_count, 0u);
  EXPECT_EQ(AuditFindings(*vm), "");
}

TEST(StopDirtyLogTest, OtherwisePagesStaySmallAndAreWritableAgain) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB, Level::k2M)});
  Write(*vm, 0);
  ASSERT_TRUE(vm->StartDirtyLog(kEager, nullptr).ok());
  ASSERT_TRUE(
      vm->StopDirtyLog({}, Vm::Recover::kNo, Vm::Unacked::kRefuse, nullptr)
          .ok());
  EXPECT_EQ(vm->Stats().pages_4k, kPages2M);
  Write(*vm, 9 * kPageSize, 4);
  EXPECT_TRUE(SpteOf(vm->state(), Gfn(9)).IsWritable());
  EXPECT_EQ(AuditFindings(*vm), "");
}

TEST(StopDirtyLogTest, UnackedPagesAreThrownAwayOnlyOnRequest) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB)});
  ASSERT_TRUE(vm->StartDirtyLog(kPlain, nullptr).ok());
  Write(*vm, 0x1000);
  SealAndList(*vm, 0);
  const auto refused =
      vm->StopDirtyLog({}, Vm::Recover::kNo, Vm::Unacked::kRefuse, nullptr);
  IsError(refused.status(), absl::StatusCode::kFailedPrecondition,
          "UNACKED_EPOCH", "slots", EBUSY);
  EXPECT_THAT(std::string(refused.status().message()),
              HasSubstr("discard_unacked"));
  EXPECT_THAT(SealAndList(*vm, 0), ElementsAre(1));
  const auto stopped =
      vm->StopDirtyLog({}, Vm::Recover::kNo, Vm::Unacked::kDiscard, nullptr);
  ASSERT_TRUE(stopped.ok());
  EXPECT_EQ(stopped->discarded_page_count, 1u);
}

// Pages of the open epoch are as much of a loss as sealed ones, wherever they
// are noted: in a bitmap, a ring, or a CPU's own log.
TEST(StopDirtyLogTest, OpenPagesAreRefusedAndCountedLikeSealedOnes) {
  const std::vector<MemslotConfig> slots = {Slot(0, 0, 4 * kMiB),
                                            Slot(1, kGiB, 4 * kMiB)};
  const auto expect = [](std::unique_ptr<Vm> vm, const char* kind) {
    SCOPED_TRACE(kind);
    ASSERT_TRUE(vm->StartDirtyLog(kPlain, nullptr).ok());
    Write(*vm, 0x1000);
    Write(*vm, 0x2000);
    SealAndList(*vm, 0);
    Write(*vm, 0x2000, 2);  // sealed as well
    Write(*vm, 0x7000);
    Write(*vm, kGiB);
    EXPECT_EQ(vm->CountUnackedPages(), 4u);
    IsError(
        vm->StopDirtyLog({1}, Vm::Recover::kNo, Vm::Unacked::kRefuse, nullptr)
            .status(),
        absl::StatusCode::kFailedPrecondition, "UNACKED_EPOCH", "slots", EBUSY);
    const absl::Status refused =
        vm->StopDirtyLog({}, Vm::Recover::kNo, Vm::Unacked::kRefuse, nullptr)
            .status();
    EXPECT_THAT(std::string(refused.message()),
                HasSubstr("slot 0 has 3 dirty pages that were not cleared, 2 "
                          "of them sealed"));
    EXPECT_THAT(vm->DirtyLogs(), SizeIs(2)) << "nothing has ended";
    const auto stopped =
        vm->StopDirtyLog({}, Vm::Recover::kNo, Vm::Unacked::kDiscard, nullptr);
    ASSERT_TRUE(stopped.ok());
    EXPECT_EQ(stopped->discarded_page_count, 4u);
    EXPECT_EQ(vm->CountUnackedPages(), 0u);
    EXPECT_EQ(AuditFindings(*vm), "");
  };
  expect(MakeVm(slots), "bitmap");
  expect(MakeRingVm(slots, 256), "ring");
  expect(MakePmlVm(slots), "pml");
  expect(MakePmlVm(slots, 1, 1024), "pml and ring");
}

TEST(StopDirtyLogTest, ADeletionIsRefusedAndCountsAsAStopDoes) {
  const auto expect = [](std::unique_ptr<Vm> vm) {
    ASSERT_TRUE(vm->StartDirtyLog(kPlain, nullptr).ok());
    Write(*vm, 0x1000);
    SealAndList(*vm, 0);
    Write(*vm, 0x2000);
    IsError(vm->DeleteMemslot(0, Vm::Unacked::kRefuse).status(),
            absl::StatusCode::kFailedPrecondition, "UNACKED_EPOCH", "name",
            EBUSY);
    EXPECT_EQ(vm->CountUnackedPages(), 2u);
    const auto lost = vm->DeleteMemslot(0, Vm::Unacked::kDiscard);
    ASSERT_TRUE(lost.ok()) << lost.status();
    EXPECT_EQ(*lost, 2u);
    EXPECT_THAT(vm->DirtyLogs(), IsEmpty());
    IsError(vm->DeleteMemslot(0, Vm::Unacked::kRefuse).status(),
            absl::StatusCode::kNotFound, "MEMSLOT_NOT_FOUND", "slot", EINVAL);
  };
  expect(MakeVm({Slot(0, 0, 4 * kMiB)}));
  expect(MakeRingVm({Slot(0, 0, 4 * kMiB)}, 256));
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB), Slot(1, kGiB, 4 * kMiB)});
  ASSERT_TRUE(vm->StartDirtyLog(kPlain, nullptr).ok());
  Write(*vm, 0x1000);
  const auto clean = vm->DeleteMemslot(1, Vm::Unacked::kRefuse);
  ASSERT_TRUE(clean.ok()) << "another slot's pages are no reason";
  EXPECT_EQ(*clean, 0u);
}

// A stop that must not lose anything looks at the log and then ends it: no vCPU
// may write in between. Here they read, so that nothing gets dirty.
TEST(StopDirtyLogTest, VcpusStandStillFromTheLookAtTheLogToItsEnd) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB)}, 2);
  Touch(*vm, GfnRange::Of(Gfn(0), 1024));
  ASSERT_TRUE(vm->StartDirtyLog(kPlain, nullptr).ok());
  PatternSpec spec;
  spec.kind = PatternSpec::Kind::kUniform;
  spec.write_fraction = 0;
  WorkloadOptions options;
  for (int i = 0; i < 2; ++i) {
    options.sources.push_back(MakePattern(spec, vm->GuestSpace(), i, 2));
  }
  ASSERT_TRUE(vm->StartWorkload(std::move(options)).ok());
  const auto accesses = [&] { return vm->Metrics().vcpus.accesses; };
  while (accesses() == 0) std::this_thread::yield();
  bool looked = false;
  int in_guest = 0;
  int looks = 0;
  {
    testing::LockTrace trace([&](const testing::LockTrace::Event& event) {
      looked |= event.point == HookPoint::kCountToSwitch;
      if (!looked || event.point == HookPoint::kUnlock) return;
      ++looks;
      for (const auto& vcpu : vm->state().vcpus) {
        in_guest += vcpu->gate().in_guest();
      }
    });
    ASSERT_TRUE(
        vm->StopDirtyLog({}, Vm::Recover::kNo, Vm::Unacked::kRefuse, nullptr)
            .ok());
  }
  EXPECT_GT(looks, 1);
  EXPECT_EQ(in_guest, 0);
  const uint64_t before = accesses();
  while (accesses() == before) std::this_thread::yield();  // they go on
  vm->StopWorkload();
}

TEST(StopDirtyLogTest, AllMeansThoseThatLogAndSomeMust) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB), Slot(1, kGiB, 4 * kMiB)});
  DirtyLogConfig config = kPlain;
  config.slots = {1};
  ASSERT_TRUE(vm->StartDirtyLog(config, nullptr).ok());
  EXPECT_TRUE(
      vm->StopDirtyLog({}, Vm::Recover::kNo, Vm::Unacked::kRefuse, nullptr)
          .ok());
  IsError(vm->StopDirtyLog({}, Vm::Recover::kNo, Vm::Unacked::kRefuse, nullptr)
              .status(),
          absl::StatusCode::kFailedPrecondition, "DIRTY_LOG_OFF", "slots",
          ENOENT);
}

TEST(StopDirtyLogTest, ALogStartedAgainBeginsAnew) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB)});
  ASSERT_TRUE(vm->StartDirtyLog(kPlain, nullptr).ok());
  Write(*vm, 0x1000);
  ASSERT_TRUE(
      vm->StopDirtyLog({}, Vm::Recover::kNo, Vm::Unacked::kDiscard, nullptr)
          .ok());
  ASSERT_TRUE(vm->StartDirtyLog(kPlain, nullptr).ok());
  EXPECT_THAT(SealAndList(*vm, 0), IsEmpty());
  Write(*vm, 0x1000);
  EXPECT_THAT(SealAndList(*vm, 0), ElementsAre(1));
}

}  // namespace
}  // namespace mmu
