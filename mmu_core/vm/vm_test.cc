#include "mmu_core/vm/vm.h"

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/guest/pattern.h"
#include "mmu_core/paging/table_pool.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/hold_clock.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/vm_state.h"

namespace mmu {
namespace {

using ::mmu::testing::AuditFindings;
using ::mmu::testing::ClearAndDeliver;
using ::mmu::testing::LevelOf;
using ::mmu::testing::MakeVm;
using ::mmu::testing::MaskOf;
using ::mmu::testing::Read;
using ::mmu::testing::ReadValue;
using ::mmu::testing::SealAndList;
using ::mmu::testing::Slot;
using ::mmu::testing::StartLog;
using ::mmu::testing::StillHoldClock;
using ::mmu::testing::StopLog;
using ::mmu::testing::Touch;
using ::mmu::testing::Write;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kGiB = uint64_t{1} << 30;

TEST(VmTest, WrittenValuesAreReadBackOverEveryPageSize) {
  auto vm = MakeVm({Slot(0, 0, 8 * kMiB, Level::k4K),
                    Slot(1, kGiB, 8 * kMiB, Level::k2M),
                    Slot(2, 2 * kGiB, kGiB, Level::k1G)});
  for (const uint64_t gpa : {uint64_t{0x1008}, kGiB + 0x5000, 2 * kGiB + 16}) {
    EXPECT_EQ(Write(*vm, gpa, gpa + 7), AccessOutcome::kDone);
    EXPECT_EQ(ReadValue(*vm, gpa), gpa + 7);
  }
  const VmStatsSnapshot stats = vm->Stats();
  EXPECT_EQ(stats.pages_4k, 1u);
  EXPECT_EQ(stats.pages_2m, 1u);
  EXPECT_EQ(stats.pages_1g, 1u);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: SLOT-41, SLOT-42, SLOT-44
TEST(VmTest, EachWholeHugePageOfASlotIsMappedAsOneWhereverTheSlotBegins) {
  for (const BackingKind backing :
       {BackingKind::kAnonymous, BackingKind::kMemfd,
        BackingKind::kMetadataOnly}) {
    auto vm =
        MakeVm({Slot(0, kMiB, 4 * kMiB, Level::k2M, backing),
                Slot(1, kGiB / 2, 2 * kGiB, Level::k1G, backing),
                Slot(2, 8 * kGiB + kPageSize, kGiB, Level::k4K, backing)});
    // At the ends of the slot, where a huge page would stick out, pages are
    // small.
    Write(*vm, kMiB, 1);
    Write(*vm, 5 * kMiB - kPageSize, 2);
    Write(*vm, 2 * kMiB + kPageSize, 3);
    EXPECT_EQ(LevelOf(vm->state(), ToGfn(Gpa(kMiB))), Level::k4K);
    EXPECT_EQ(LevelOf(vm->state(), ToGfn(Gpa(5 * kMiB - kPageSize))),
              Level::k4K);
    EXPECT_EQ(LevelOf(vm->state(), ToGfn(Gpa(2 * kMiB))), Level::k2M);
    Write(*vm, kGiB / 2, 4);
    Write(*vm, kGiB + 5 * kMiB, 5);
    EXPECT_EQ(LevelOf(vm->state(), ToGfn(Gpa(kGiB / 2))), Level::k2M);
    EXPECT_EQ(LevelOf(vm->state(), ToGfn(Gpa(kGiB))), Level::k1G);
    Write(*vm, 8 * kGiB + kPageSize, 6);
    EXPECT_EQ(LevelOf(vm->state(), ToGfn(Gpa(8 * kGiB + kPageSize))),
              Level::k4K);
    if (backing != BackingKind::kMetadataOnly) {
      EXPECT_EQ(ReadValue(*vm, kMiB), 1u);
      EXPECT_EQ(ReadValue(*vm, 5 * kMiB - kPageSize), 2u);
      EXPECT_EQ(ReadValue(*vm, 2 * kMiB + kPageSize), 3u);
      EXPECT_EQ(ReadValue(*vm, kGiB / 2), 4u);
      EXPECT_EQ(ReadValue(*vm, kGiB + 5 * kMiB), 5u);
      EXPECT_EQ(ReadValue(*vm, 8 * kGiB + kPageSize), 6u);
      std::vector<std::byte> page(8);
      ASSERT_TRUE(
          vm->ReadMemory(Gpa(kGiB + 5 * kMiB), absl::MakeSpan(page)).ok());
      EXPECT_EQ(page[0], std::byte{5});
    }
    EXPECT_EQ(AuditFindings(*vm), "");
  }
}

TEST(VmTest, ASealedPageIsClearedOnceAndFaultsAgain) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB, Level::k2M)});
  Touch(*vm, GfnRange::Of(Gfn(0), 1024));
  ASSERT_TRUE(StartLog(*vm, {}, nullptr).ok());
  EXPECT_THAT(SealAndList(*vm, 0), IsEmpty());

  Write(*vm, 5 * kPageSize);
  Write(*vm, 700 * kPageSize);
  uint64_t epoch = 0;
  EXPECT_THAT(SealAndList(*vm, 0, &epoch), ElementsAre(5, 700));

  MmuCost cost;
  const auto mask = MaskOf(1024, {5, 700, 701});
  auto cleared = ClearAndDeliver(*vm, 0, epoch, 0, 1024, mask, &cost);
  ASSERT_TRUE(cleared.ok()) << cleared.status();
  EXPECT_EQ(cleared->cleared_page_count, 2u);
  EXPECT_EQ(cleared->already_clean_page_count, 1u);
  EXPECT_EQ(cost.tlb_flush_count, 1);

  // The TLB has no stale translation, so the write faults and marks its page.
  Write(*vm, 700 * kPageSize);
  EXPECT_THAT(SealAndList(*vm, 0), ElementsAre(700));
  EXPECT_EQ(AuditFindings(*vm), "");
}

TEST(VmTest, TwoVcpusRunAPatternWhileItsPagesAreHarvested) {
  auto vm = MakeVm({Slot(0, 0, 64 * kMiB, Level::k2M)}, 2);
  PatternSpec spec;
  spec.kind = PatternSpec::Kind::kUniform;
  spec.write_fraction = 0.5;
  spec.access_count = 200000;
  WorkloadOptions options;
  for (int i = 0; i < 2; ++i) {
    options.sources.push_back(MakePattern(spec, vm->GuestSpace(), i, 2));
  }
  ASSERT_TRUE(StartLog(*vm, {}, nullptr).ok());
  ASSERT_TRUE(vm->StartWorkload(std::move(options)).ok());
  uint64_t harvested = 0;
  while (!vm->WaitWorkload(absl::Milliseconds(2))) {
    uint64_t epoch = 0;
    const auto pages = SealAndList(*vm, 0, &epoch);
    harvested += pages.size();
    const auto mask = MaskOf(16384, pages);
    ASSERT_TRUE(ClearAndDeliver(*vm, 0, epoch, 0, 16384, mask, nullptr).ok());
  }
  EXPECT_EQ(AuditFindings(*vm), "");
  const auto progress = vm->Workload();
  ASSERT_TRUE(progress.ok());
  EXPECT_EQ(progress->state, WorkloadProgress::State::kDone);
  EXPECT_EQ(progress->stats.accesses, 400000u);
  EXPECT_GT(harvested, 0u);
}

// --- Errors name the reason and the field, and change nothing ---

void ExpectError(const absl::Status& status, absl::StatusCode code,
                 Reason reason, const std::string& field, int kvm_errno) {
  EXPECT_EQ(status.code(), code) << status;
  EXPECT_EQ(DetailOf(status).reason, reason) << status;
  EXPECT_EQ(DetailOf(status).field, field) << status;
  EXPECT_EQ(DetailOf(status).kvm_errno, kvm_errno) << status;
}

TEST(VmErrorsTest, AVmNeedsVcpusLevelsAndAPageSizeThatExist) {
  const auto create = [](auto change) {
    VmConfig config;
    change(config);
    return Vm::Create(config).status();
  };
  for (const int count : {0, -1, kMaxVcpus + 1}) {
    ExpectError(create([&](VmConfig& c) { c.vcpu_count = count; }),
                absl::StatusCode::kInvalidArgument, Reason::kInvalidVcpuCount,
                "vcpu_count", EINVAL);
  }
  for (const int levels : {0, 3, 6}) {
    ExpectError(create([&](VmConfig& c) { c.root_levels = levels; }),
                absl::StatusCode::kInvalidArgument, Reason::kInvalidMmuOption,
                "root_levels", EINVAL);
  }
  ExpectError(create([](VmConfig& c) { c.max_page_level = Level::k512G; }),
              absl::StatusCode::kInvalidArgument, Reason::kInvalidMmuOption,
              "max_page_level", EINVAL);
  ExpectError(create([](VmConfig& c) {
                c.memslots = {Slot(0, 0, kMiB), Slot(1, kMiB / 2, kMiB)};
              }),
              absl::StatusCode::kInvalidArgument, Reason::kRegionOverlap,
              "memslots[1].gpa", EEXIST);
}

TEST(VmErrorsTest, FiveLevelsReachFurtherThanFour) {
  VmConfig config;
  config.root_levels = 5;
  config.memslots = {Slot(0, uint64_t{1} << 50, 4 * kMiB, Level::k2M)};
  const auto vm = Vm::Create(config);
  ASSERT_TRUE(vm.ok()) << vm.status();
  EXPECT_EQ(Write(**vm, (uint64_t{1} << 50) + 8, 5), AccessOutcome::kDone);
  EXPECT_EQ(ReadValue(**vm, (uint64_t{1} << 50) + 8), 5u);
  EXPECT_EQ(AuditFindings(**vm), "");
  config.root_levels = 4;
  EXPECT_EQ(DetailOf(Vm::Create(config).status()).reason,
            Reason::kGpaOutOfRange);
}

TEST(VmErrorsTest, AnIdThatNoSlotCanHaveIsRefused) {
  auto vm = MakeVm({});
  for (const uint32_t id : {32764u, 65535u, 65536u, ~0u}) {
    ExpectError(vm->SetMemslot(Slot(id, 0, kMiB)),
                absl::StatusCode::kInvalidArgument, Reason::kInvalidSlot,
                "slot", EINVAL);
  }
  for (const int space : {-1, 2, 70000}) {
    MemslotConfig config = Slot(0, 0, kMiB);
    config.address_space = space;
    ExpectError(vm->SetMemslot(config), absl::StatusCode::kInvalidArgument,
                Reason::kInvalidSlot, "slot", EINVAL);
  }
  EXPECT_THAT(vm->Memslots(), IsEmpty());
  EXPECT_TRUE(vm->SetMemslot(Slot(32763, 0, kMiB)).ok());
}

// A refused request must not allocate its memory first.
TEST(VmErrorsTest, ARefusedSlotTakesNoHostMemory) {
  // Pages of 1 GiB: the frame number depends on the gpa.
  auto vm = MakeVm({Slot(0, 0, kMiB, Level::k1G)});
  const auto first_frame = [](Vm& of) {
    RcuReadGuard rcu;
    const Memslot* slot = of.state().slots.Active(0).FindById(1);
    return slot->backing->base_pfn();
  };
  // A frame number is given out only once, so it shows how many were taken
  // before.
  for (const uint64_t gpa : {uint64_t{0}, uint64_t{1} << 60}) {
    EXPECT_FALSE(vm->SetMemslot(Slot(1, gpa, uint64_t{1} << 40)).ok());
  }
  ASSERT_TRUE(vm->SetMemslot(Slot(1, kGiB, kMiB, Level::k1G)).ok());
  auto other =
      MakeVm({Slot(0, 0, kMiB, Level::k1G), Slot(1, kGiB, kMiB, Level::k1G)});
  EXPECT_EQ(first_frame(*vm), first_frame(*other));
}

TEST(VmErrorsTest, ASlotKeepsItsSizeAndMode) {
  auto vm = MakeVm({Slot(0, 0, kMiB)});
  MemslotConfig readonly = Slot(0, 0, kMiB);
  readonly.mode = MemslotConfig::Mode::kReadOnly;
  EXPECT_EQ(DetailOf(vm->SetMemslot(readonly)).reason,
            Reason::kMemslotImmutable);
  EXPECT_EQ(DetailOf(vm->SetMemslot(Slot(0, 0, 2 * kMiB))).reason,
            Reason::kMemslotImmutable);
  EXPECT_TRUE(vm->SetMemslot(Slot(0, 0, kMiB)).ok()) << "as it is already";
  EXPECT_EQ(vm->Memslots().at(0).config.size_bytes, kMiB);
}

TEST(VmErrorsTest, MemoryIsReadInWholeWordsAndOnlyWhereThereIsAny) {
  auto vm =
      MakeVm({Slot(0, 0, kMiB), Slot(1, kMiB, kMiB),
              Slot(2, kGiB, kMiB, Level::k4K, BackingKind::kMetadataOnly)});
  Write(*vm, kMiB - 8, 1);
  Write(*vm, kMiB, 2);
  std::vector<uint64_t> words(2);
  const auto read = [&](uint64_t gpa, size_t bytes) {
    return vm->ReadMemory(
        Gpa(gpa),
        absl::MakeSpan(reinterpret_cast<std::byte*>(words.data()), bytes));
  };
  EXPECT_TRUE(read(kMiB - 8, 16).ok()) << "across two slots";
  EXPECT_THAT(words, ElementsAre(1, 2));
  EXPECT_TRUE(read(0, 0).ok());
  ExpectError(read(4, 8), absl::StatusCode::kInvalidArgument,
              Reason::kUnaligned, "gpa", EINVAL);
  ExpectError(read(8, 12), absl::StatusCode::kInvalidArgument,
              Reason::kUnaligned, "gpa", EINVAL);
  ExpectError(read(2 * kMiB - 8, 16), absl::StatusCode::kOutOfRange,
              Reason::kGpaOutOfRange, "gpa", 0);
  ExpectError(read(kGiB, 8), absl::StatusCode::kFailedPrecondition,
              Reason::kNoContents, "gpa", 0);
  const GfnRange empty = GfnRange::Of(Gfn(kGiB >> kPageShift), 1);
  EXPECT_TRUE(vm->CheckContents({GfnRange::Of(Gfn(0), 512)}).ok());
  ExpectError(vm->CheckContents({GfnRange::Of(Gfn(0), 1), empty}),
              absl::StatusCode::kFailedPrecondition, Reason::kNoContents,
              "ranges", 0);
}

TEST(VmErrorsTest, RecoveryAndAgingStayInsideTheSlots) {
  auto vm = MakeVm({Slot(0, 0, kMiB), Slot(1, kGiB, kMiB)});
  struct Bad {
    GfnRange range;
    Reason reason;
  };
  for (const auto& [range, reason] :
       std::vector<Bad>{{GfnRange::Of(Gfn(0), 0), Reason::kInvalidRange},
                        {GfnRange{Gfn(9), Gfn(3)}, Reason::kInvalidRange},
                        {GfnRange::Of(Gfn(0), 257), Reason::kGpaOutOfRange},
                        {GfnRange::Of(Gfn(256), 1), Reason::kGpaOutOfRange},
                        {GfnRange{Gfn(0), Gfn((kGiB >> kPageShift) + 5)},
                         Reason::kGpaOutOfRange}}) {
    ExpectError(vm->Age(range, AgeMode::kTest, nullptr).status(),
                absl::StatusCode::kOutOfRange, reason, "range", 0);
    ExpectError(vm->RecoverHugePages({range}, nullptr).status(),
                absl::StatusCode::kOutOfRange, reason, "range", 0);
  }
}

// Covers: TDP-52
TEST(VmErrorsTest, PagesOfALoggedSlotAreNotRecovered) {
  auto vm = MakeVm(
      {Slot(0, 0, 4 * kMiB, Level::k2M), Slot(1, kGiB, 4 * kMiB, Level::k2M)});
  Write(*vm, kGiB);
  DirtyLogConfig config;
  config.slots = {1};
  config.split = SplitPolicy::kEager;
  ASSERT_TRUE(StartLog(*vm, config, nullptr).ok());
  ExpectError(vm->RecoverHugePages({}, nullptr).status(),
              absl::StatusCode::kFailedPrecondition, Reason::kDirtyLogActive,
              "ranges", EBUSY);
  EXPECT_EQ(vm->Stats().pages_2m, 0u);
  EXPECT_TRUE(vm->RecoverHugePages({GfnRange::Of(Gfn(0), 1024)}, nullptr).ok());
}

// --- Recovery and aging ---

// Covers: TDP-52, TDP-54
TEST(VmTest, OneSmallPageIsRecoveredToAWholeHugeOneWithOneFlush) {
  const StillHoldClock clock;
  auto vm = MakeVm({Slot(0, 0, 12 * kMiB, Level::k2M)});
  ASSERT_TRUE(StartLog(*vm, {}, nullptr).ok());
  // One small page in each of 6 huge pages, which is too little work to end a
  // hold.
  for (uint64_t at = 0; at < 12; at += 2) Write(*vm, at * kMiB + 0x5000, at);
  ASSERT_TRUE(
      StopLog(*vm, RecoverOnStop::kNo, Undelivered::kDiscard, nullptr).ok());
  ASSERT_EQ(vm->Stats().pages_4k, 6u);
  MmuCost cost;
  const auto recovered = vm->RecoverHugePages({}, &cost);
  ASSERT_TRUE(recovered.ok());
  EXPECT_EQ(recovered->to_2m_count, 6u);
  EXPECT_EQ(vm->Stats().pages_4k, 0u);
  EXPECT_EQ(vm->Stats().pages_2m, 6u);
  EXPECT_EQ(cost.tlb_flush_count, 1);
  EXPECT_EQ(ReadValue(*vm, 10 * kMiB + 0x5000), 10u);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: AGE-17
TEST(VmTest, AHugePageAgesAsOne) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB, Level::k2M)});
  Write(*vm, 0);
  const GfnRange some = GfnRange::Of(Gfn(100), 64);
  auto aged = vm->Age(some, AgeMode::kTestAndClear, nullptr);
  ASSERT_TRUE(aged.ok());
  EXPECT_EQ(aged->young_page_count, 64u);
  EXPECT_THAT(aged->young, ElementsAre(~uint64_t{0}));
  // The Accessed bit of the whole huge page was cleared.
  aged = vm->Age(GfnRange::Of(Gfn(0), 1024), AgeMode::kTest, nullptr);
  EXPECT_EQ(aged->young_page_count, 0u);
  EXPECT_EQ(aged->old_page_count, 512u) << "what nothing maps is not old";
}

// Covers: AGE-13
TEST(VmTest, AgingTakesNoLockAndATestChangesNothing) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB)});
  Touch(*vm, GfnRange::Of(Gfn(0), 8));
  // Ageing does not wait, although another thread holds the lock in write mode.
  MmuWriteLocked lock(vm->state().mmu_lock, LockOp::kZap);
  MmuCost cost;
  for (int i = 0; i < 2; ++i) {
    const auto aged = vm->Age(GfnRange::Of(Gfn(0), 64), AgeMode::kTest, &cost);
    EXPECT_EQ(aged->young_page_count, 8u);
    EXPECT_THAT(aged->young, ElementsAre(0xff));
  }
  EXPECT_EQ(cost.tlb_flush_count, 0);
  EXPECT_EQ(cost.lock_wait, absl::ZeroDuration());
  EXPECT_EQ(cost.max_lock_hold, absl::ZeroDuration());
}

// Covers: TDP-36, STAT-41
TEST(VmTest, EveryPageOfADeadVmIsGone) {
  RcuBarrier();
  const uint64_t before = TablePool::Process().tables_out();
  {
    auto vm = MakeVm({Slot(0, 0, 8 * kMiB), Slot(1, kGiB, kGiB, Level::k1G)});
    Touch(*vm, GfnRange::Of(Gfn(0), 2048));
    Write(*vm, kGiB);
    EXPECT_GT(TablePool::Process().tables_out(), before);
  }
  RcuBarrier();
  EXPECT_EQ(TablePool::Process().tables_out(), before);
}

// Covers: TRM-06, SLOT-13
TEST(VmConfigTest, NoSlotReachesAboveWhatTheHostCanAddress) {
  const auto slot_at_end_of = [](int levels, int host_bits, int end_bits,
                                 uint64_t pages_above) {
    VmConfig config;
    config.root_levels = levels;
    config.host_address_bits = host_bits;
    const uint64_t end = uint64_t{1} << end_bits;
    config.memslots = {
        Slot(0, end - 4 * kPageSize + pages_above * kPageSize, 4 * kPageSize)};
    return DetailOf(Vm::Create(config).status());
  };
  struct Case {
    int levels, host_bits, end_bits;
  };
  for (const Case& c : {Case{4, 0, 46}, Case{4, 39, 39}, Case{4, 52, 48},
                        Case{5, 0, 52}, Case{5, 50, 50}}) {
    EXPECT_EQ(slot_at_end_of(c.levels, c.host_bits, c.end_bits, 0).reason,
              Reason::kNone);
    const ErrorDetail above =
        slot_at_end_of(c.levels, c.host_bits, c.end_bits, 1);
    EXPECT_EQ(above.reason, Reason::kGpaOutOfRange) << c.end_bits;
    EXPECT_EQ(above.kvm_errno, EINVAL);
  }
}

// Covers: SLOT-13
TEST(VmConfigTest, OnStage2NoSlotReachesAboveTheIpaSize) {
  VmConfig config;
  config.mmu = MmuMode::kStage2;
  config.stage2.ipa_bits = 36;
  const uint64_t end = uint64_t{1} << 36;
  config.memslots = {Slot(0, end - kMiB, kMiB)};
  const auto vm = Vm::Create(config);
  ASSERT_TRUE(vm.ok()) << vm.status();
  const ErrorDetail above = DetailOf((*vm)->SetMemslot(Slot(1, end, kMiB)));
  EXPECT_EQ(above.reason, Reason::kGpaOutOfRange);
  EXPECT_EQ(above.kvm_errno, EFAULT);
}

}  // namespace
}  // namespace mmu
