// Page-modification logging: the processor logs dirty pages itself.

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/dirty/dirty_log_state.h"
#include "mmu_core/dirty/dirty_ring.h"
#include "mmu_core/dirty/pml_buffer.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/tdp_test_util.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/tlb/vcpu_gate.h"
#include "mmu_core/vm/logging/dirty_rings.h"
#include "mmu_core/vm/logging/kvm_dirty_log.h"
#include "mmu_core/vm/vm.h"

namespace mmu::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr uint64_t kPages = 1024;  // of slot 0

Vcpu& VcpuOf(Vm& vm, int vcpu = 0) { return *vm.state().vcpus[vcpu]; }
int Buffered(Vm& vm, int vcpu = 0) { return VcpuOf(vm, vcpu).pml()->count(); }
uint64_t FaultsOf(const Vm& vm) { return vm.VcpuStats()[0].pf_taken; }

// The open and sealed pages of slot 0. The query makes no vCPU exit.
std::vector<uint64_t> Marked(Vm& vm) {
  const std::shared_ptr<SlotLog> log = vm.state().dirty_log.FindSlot(0);
  std::vector<uint64_t> words(log->word_count());
  log->OrOpenInto(0, absl::MakeSpan(words));
  log->OrSealedInto(0, absl::MakeSpan(words));
  return PagesOf(words);
}

std::unique_ptr<Vm> Logging(std::unique_ptr<Vm> vm,
                            const DirtyLogConfig& config = {}) {
  EXPECT_TRUE(StartLog(*vm, config, nullptr).ok());
  return vm;
}

// The first `mapped` pages have small leafs, and the log is on.
std::unique_ptr<Vm> LoggingVm(uint64_t mapped, uint32_t ring_entries = 0) {
  auto vm = MakePmlVm({Slot(0, 0, kPages * kPageSize)}, 1, ring_entries);
  Touch(*vm, GfnRange::Of(Gfn(0), mapped));
  return Logging(std::move(vm));
}

ClearResult SealAndClear(Vm& vm) {
  uint64_t epoch = 0;
  const std::vector<uint64_t> pages = SealAndList(vm, 0, &epoch);
  const absl::StatusOr<ClearResult> result =
      ClearAndDeliver(vm, 0, epoch, 0, kPages, MaskOf(kPages, pages), nullptr);
  EXPECT_TRUE(result.ok()) << result.status();
  return *result;
}

// A vCPU in guest mode on its own thread. It has written to one page. Then it
// reads another page all the time, which needs no exit, or it computes: it
// accesses memory only when it was asked to exit.
class RunningGuest {
 public:
  enum class Then { kReads, kComputes };

  RunningGuest(Vm& vm, uint64_t written_page, uint64_t read_page,
               Then then = Then::kReads)
      : thread_([&vm, written_page, read_page, then, this] {
          Vcpu& vcpu = VcpuOf(vm);
          vcpu.EnterGuest();
          Read(vm, read_page * kPageSize);
          Write(vm, written_page * kPageSize, 7);
          wrote_.store(true);
          while (!stop_.load()) {
            if (then == Then::kReads ||
                (vcpu.gate().pending_requests() & kExitGuest) != 0) {
              Read(vm, read_page * kPageSize);
            }
            std::this_thread::yield();
          }
          vcpu.ExitGuest();
        }) {
    while (!wrote_.load()) std::this_thread::yield();
  }
  ~RunningGuest() {
    stop_.store(true);
    thread_.join();
  }
  RunningGuest(const RunningGuest&) = delete;
  RunningGuest& operator=(const RunningGuest&) = delete;

 private:
  std::atomic<bool> wrote_{false};
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

// --- VMs with PML, and VMs without ---

struct MatrixCase {
  EntryFormat format;
  VmConfig::AdBits ad_bits;
  VmConfig::Pml pml;
  int entries;  // -1: refused
};

class PmlMatrixTest : public ::testing::TestWithParam<MatrixCase> {};

INSTANTIATE_TEST_SUITE_P(
    Options, PmlMatrixTest,
    ::testing::Values(MatrixCase{EntryFormat::kEpt, VmConfig::AdBits::kOn,
                                 VmConfig::Pml::kYes, 512},
                      MatrixCase{EntryFormat::kEpt, VmConfig::AdBits::kOn,
                                 VmConfig::Pml::kNo, 0},
                      MatrixCase{EntryFormat::kEpt, VmConfig::AdBits::kOff,
                                 VmConfig::Pml::kNo, 0},
                      MatrixCase{EntryFormat::kEpt, VmConfig::AdBits::kOff,
                                 VmConfig::Pml::kYes, -1},
                      MatrixCase{EntryFormat::kNpt, VmConfig::AdBits::kOn,
                                 VmConfig::Pml::kNo, 0},
                      MatrixCase{EntryFormat::kNpt, VmConfig::AdBits::kOn,
                                 VmConfig::Pml::kYes, -1}));

// Covers: DL-32
TEST_P(PmlMatrixTest, WithoutPmlWritesAreLoggedThroughW) {
  VmConfig config;
  config.format = GetParam().format;
  config.ad_bits = GetParam().ad_bits;
  config.pml = GetParam().pml;
  config.tlb = PreciseTlbs();
  config.memslots = {Slot(0, 0, 2 * kMiB)};
  absl::StatusOr<std::unique_ptr<Vm>> made = Vm::Create(config);
  if (GetParam().entries < 0) {
    EXPECT_EQ(DetailOf(made.status()).reason, Reason::kInvalidMmuOption);
    EXPECT_EQ(DetailOf(made.status()).field, "pml");
    return;
  }
  ASSERT_TRUE(made.ok()) << made.status();
  Vm& vm = **made;
  EXPECT_EQ(vm.state().cpu_dirty_log_entries(),
            static_cast<uint32_t>(GetParam().entries));
  Write(vm, 0x3000);
  ASSERT_TRUE(StartLog(vm, {}, nullptr).ok());
  const SpteFormat& format = vm.state().tdp.format();
  const auto check = [&](const char* when) {
    const Spte spte = SpteOf(vm.state(), Gfn(3));
    const bool by_pml = GetParam().entries != 0;
    EXPECT_EQ(spte.IsWritable(), by_pml) << when;
    EXPECT_TRUE(format.IsMmuWritable(spte)) << when;
    EXPECT_TRUE(!by_pml || !format.IsDirty(spte)) << when;
  };
  check("after the start");
  const uint64_t faults = FaultsOf(vm);
  Write(vm, 0x3000, 2);
  EXPECT_EQ(FaultsOf(vm), faults + (GetParam().entries == 0 ? 1 : 0));
  uint64_t epoch = 0;
  EXPECT_THAT(SealAndList(vm, 0, &epoch), ElementsAre(3));
  ASSERT_TRUE(
      ClearAndDeliver(vm, 0, epoch, 0, 512, MaskOf(512, {3}), nullptr).ok());
  check("after the clear");
  EXPECT_EQ(AuditFindings(vm), "");
}

// --- The buffer and its exits ---

// Covers: DL-30, TST-42
TEST(PmlTest, TheWriteThatFindsNoRoomExitsFirst) {
  auto vm = LoggingVm(600);
  Vcpu& vcpu = VcpuOf(*vm);
  vcpu.EnterGuest();
  for (uint64_t page = 0; page < 512; ++page) {
    Write(*vm, page * kPageSize);
    ASSERT_EQ(Buffered(*vm), static_cast<int>(page) + 1);
  }
  EXPECT_THAT(Marked(*vm), IsEmpty()) << "nothing made the vCPU exit";
  const uint64_t faults = FaultsOf(*vm);
  EXPECT_EQ(Write(*vm, 599 * kPageSize), AccessOutcome::kDone);
  EXPECT_EQ(Buffered(*vm), 1);
  EXPECT_THAT(Marked(*vm), SizeIs(512));
  EXPECT_EQ(FaultsOf(*vm), faults) << "an exit, but no page fault";
  EXPECT_TRUE(vcpu.gate().in_guest());
  vcpu.ExitGuest();
  EXPECT_THAT(Marked(*vm), SizeIs(513));
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: DL-30, TST-42
TEST(PmlTest, OnlyAWriteThatSetsDIsNoted) {
  auto vm = LoggingVm(4);
  Vcpu& vcpu = VcpuOf(*vm);
  vcpu.EnterGuest();
  Read(*vm, 0);
  EXPECT_EQ(Buffered(*vm), 0);
  Write(*vm, 0x1008);
  Write(*vm, 0x1010);
  vcpu.tlb().FlushAll();
  Write(*vm, 0x1018);
  EXPECT_EQ(Buffered(*vm), 1);
  vcpu.ExitGuest();
  EXPECT_THAT(Marked(*vm), ElementsAre(1));
}

// A ring shows the order.
// Covers: DL-31
TEST(PmlTest, EveryExitDrainsTheBufferOldestFirstBeforeAnythingElse) {
  auto vm = LoggingVm(8, /*ring_entries=*/1024);
  Vcpu& vcpu = VcpuOf(*vm);
  vcpu.EnterGuest();
  for (const uint64_t page : {5, 2, 7}) Write(*vm, page * kPageSize);
  EXPECT_EQ(Buffered(*vm), 3);
  EXPECT_EQ(vcpu.dirty_ring()->used(), 0u);
  Write(*vm, 20 * kPageSize);  // not mapped: a fault, which marks as well
  EXPECT_EQ(Buffered(*vm), 0);
  std::vector<uint64_t> pages;
  vcpu.dirty_ring()->ForEach(
      [&](DirtyGfn page) { pages.push_back(page.offset); });
  EXPECT_THAT(pages, ElementsAre(5, 2, 7, 20));
  // The vCPU handles a request at an exit, too, so this drains the buffer as
  // well.
  Write(*vm, 3 * kPageSize);
  vm->state().tlb.Flush(FlushScope::kVm, FlushReason::kZap, nullptr);
  Read(*vm, 3 * kPageSize);
  EXPECT_EQ(Buffered(*vm), 0);
  EXPECT_EQ(vcpu.dirty_ring()->used(), 5u);
  vcpu.ExitGuest();
}

using Pages = std::vector<uint64_t>;
struct Get {
  const char* name;
  Pages (*pages)(Vm& vm);
};

class PmlGetTest : public ::testing::TestWithParam<Get> {};

INSTANTIATE_TEST_SUITE_P(
    Calls, PmlGetTest,
    ::testing::Values(
        Get{"Seal", [](Vm& vm) { return SealAndList(vm, 0); }},
        Get{"Peek",
            [](Vm& vm) {
              std::vector<uint64_t> words(kPages / 64);
              EXPECT_TRUE(ReadLog(vm, 0, 0, 0, absl::MakeSpan(words)).ok());
              return PagesOf(words);
            }},
        Get{"LegacyGet",
            [](Vm& vm) {
              return PagesOf(*GetAndClearDirtyLog(vm.state(), 0, nullptr));
            }},
        Get{"ManualGet",
            [](Vm& vm) { return PagesOf(*CopyDirtyLog(vm.state(), 0)); }},
        Get{"Clear",
            [](Vm& vm) {
              const Pages all(kPages / 64, ~uint64_t{0});
              const absl::StatusOr<ClearResult> result =
                  ClearBitmap(vm.state(), 0, 0, kPages, all, nullptr);
              EXPECT_EQ(result->cleared_page_count, 1u);
              return Pages{5};
            }}),
    [](const auto& tested) { return std::string(tested.param.name); });

// Covers: DL-31, DL-10
TEST_P(PmlGetTest, ItMakesRunningVcpusExitAndThenSeesWhatTheyWrote) {
  auto vm = LoggingVm(8);
  {
    RunningGuest guest(*vm, /*written_page=*/5, /*read_page=*/2);
    EXPECT_THAT(GetParam().pages(*vm), ElementsAre(5));
  }
  EXPECT_EQ(AuditFindings(*vm), "");
}

TEST(PmlTest, ASealCountsTheVcpusItMadeExit) {
  auto vm = LoggingVm(8);
  MmuCost cost;
  ASSERT_TRUE(SealLog(*vm, 0, &cost).ok());
  EXPECT_EQ(cost.vcpus_kicked_count, 0) << "none runs";
  RunningGuest guest(*vm, 5, 2);
  ASSERT_TRUE(SealLog(*vm, 0, &cost).ok());
  EXPECT_EQ(cost.vcpus_kicked_count, 1);
  EXPECT_EQ(cost.tlb_flush_count, 0);
}

TEST(PmlTest, ACountOfAllSlotsMakesAVcpuExitOnce) {
  auto vm = MakePmlVm({Slot(0, 0, 2 * kMiB), Slot(1, kGiB, 2 * kMiB)}, 2);
  Touch(*vm, GfnRange::Of(Gfn(0), 8));
  ASSERT_TRUE(StartLog(*vm).ok());
  MmuCost cost;
  RunningGuest guest(*vm, 5, 2);
  const std::vector<SlotUndelivered> counts = vm->CountUndeliveredBySlot(&cost);
  ASSERT_EQ(counts.size(), 2u);
  EXPECT_EQ(counts[0].slot, 0u);
  EXPECT_EQ(counts[0].counts.open, 1u);
  EXPECT_EQ(counts[1].counts.open, 0u);
  EXPECT_EQ(cost.vcpus_kicked_count, 1);
}

// --- On and off ---

// Covers: DL-09
TEST(PmlTest, TheFirstAndTheLastSlotThatLogsSwitchAllCpus) {
  auto vm = MakePmlVm({Slot(0, 0, 2 * kMiB), Slot(1, kGiB, 2 * kMiB)}, 2);
  const auto asked = [&](int vcpu) {
    return (VcpuOf(*vm, vcpu).gate().pending_requests() & kUpdateCpuDirtyLog) !=
           0;
  };
  const auto on = [&](int vcpu) {
    Read(*vm, 0, vcpu);
    return VcpuOf(*vm, vcpu).cpu_dirty_log_on();
  };
  EXPECT_FALSE(asked(0));
  EXPECT_FALSE(on(0));

  DirtyLogConfig config;
  config.slots = {0};
  ASSERT_TRUE(StartLog(*vm, config, nullptr).ok());
  EXPECT_TRUE(asked(0) && asked(1)) << "0 -> 1";
  EXPECT_TRUE(on(0) && on(1));
  ASSERT_TRUE(vm->SetMemslot(Slot(2, 2 * kGiB, 2 * kMiB)).ok());
  EXPECT_FALSE(asked(0) || asked(1)) << "1 -> 2";

  ASSERT_TRUE(vm->DeleteMemslot(2, Undelivered::kDiscard).ok());
  EXPECT_FALSE(asked(0) || asked(1)) << "2 -> 1";
  EXPECT_TRUE(on(0) && on(1));
  ASSERT_TRUE(
      StopLog(*vm, RecoverOnStop::kNo, Undelivered::kDiscard, nullptr).ok());
  EXPECT_TRUE(asked(0) && asked(1)) << "1 -> 0";
  EXPECT_FALSE(on(0) || on(1));
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: DL-09
TEST(PmlTest, ASlotThatIsDeletedCountsNoMore) {
  auto vm = MakePmlVm({Slot(0, 0, 2 * kMiB), Slot(1, kGiB, 2 * kMiB)});
  DirtyLogConfig config;
  config.slots = {1};
  ASSERT_TRUE(StartLog(*vm, config, nullptr).ok());
  Read(*vm, 0);
  EXPECT_TRUE(VcpuOf(*vm).cpu_dirty_log_on());
  ASSERT_TRUE(vm->SetMemslot(Slot(1, kGiB, 0)).ok());
  Read(*vm, 0);
  EXPECT_FALSE(VcpuOf(*vm).cpu_dirty_log_on());
}

TEST(PmlTest, WhileNoSlotLogsNothingIsNoted) {
  auto vm = LoggingVm(4);
  ASSERT_TRUE(
      StopLog(*vm, RecoverOnStop::kNo, Undelivered::kDiscard, nullptr).ok());
  VcpuOf(*vm).EnterGuest();
  Write(*vm, 0x1000);
  EXPECT_EQ(AllMappings(vm->state())[1], (Mapping{1, Level::k4K, "rwad"}));
  EXPECT_EQ(Buffered(*vm), 0);
  VcpuOf(*vm).ExitGuest();
}

TEST(PmlTest, PagesOfSlotsThatDoNotLogAreDropped) {
  auto vm = MakePmlVm({Slot(0, 0, 2 * kMiB), Slot(1, kGiB, 2 * kMiB)});
  Touch(*vm, GfnRange::Of(Gfn(kGiB / kPageSize), 4));
  DirtyLogConfig config;
  config.slots = {1};
  vm = Logging(std::move(vm), config);
  // Clears D in slot 1's pages, and leaves only slot 0 logging.
  ASSERT_TRUE(
      StopLog(*vm, RecoverOnStop::kNo, Undelivered::kDiscard, nullptr).ok());
  config.slots = {0};
  vm = Logging(std::move(vm), config);
  VcpuOf(*vm).EnterGuest();
  Write(*vm, kGiB);
  EXPECT_EQ(Buffered(*vm), 1);
  VcpuOf(*vm).ExitGuest();
  EXPECT_THAT(SealAndList(*vm, 0), IsEmpty());
  EXPECT_EQ(vm->VcpuStats()[0].dirty_pages, 0u);
}

// --- Switching on, clearing ---

// Covers: DL-02
TEST(PmlTest, StartTakesDFromAllLeafsAndWFromHugeOnes) {
  auto vm = MakePmlVm(
      {Slot(0, 0, 2 * kMiB), Slot(1, 2 * kMiB, 4 * kMiB, Level::k2M)});
  Write(*vm, 0x1000);
  Write(*vm, 2 * kMiB);
  Write(*vm, 4 * kMiB);
  const uint64_t flushes = FlushesOf(*vm);
  DirtyLogConfig config;
  config.slots = {0, 1};
  config.split = SplitPolicy::kNone;
  ASSERT_TRUE(StartLog(*vm, config, nullptr).ok());
  EXPECT_EQ(FlushesOf(*vm), flushes + 2) << "one for each slot";
  EXPECT_THAT(AllMappings(vm->state()),
              ElementsAre(Mapping{1, Level::k4K, "rwa"},
                          Mapping{512, Level::k2M, "rma"},
                          Mapping{1024, Level::k2M, "rma"}));
  Write(*vm, 0x1000);
  Write(*vm, 2 * kMiB + 0x3000);
  EXPECT_THAT(SealAndList(*vm, 0), ElementsAre(1));
  EXPECT_THAT(SealAndList(*vm, 1), ElementsAre(3));
  EXPECT_EQ(LevelOf(vm->state(), Gfn(515)), Level::k4K);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: DL-02
TEST(PmlTest, EagerSplittingComesFirstSoThatNoPageNeedsAFault) {
  auto vm = MakePmlVm({Slot(0, 0, kPages * kPageSize, Level::k2M)});
  Write(*vm, 0);
  Write(*vm, 2 * kMiB);
  DirtyLogConfig config;
  config.split = SplitPolicy::kEager;
  vm = Logging(std::move(vm), config);
  const uint64_t faults = FaultsOf(*vm);
  Touch(*vm, GfnRange::Of(Gfn(100), 600));
  EXPECT_EQ(FaultsOf(*vm), faults);
  EXPECT_THAT(SealAndList(*vm, 0), SizeIs(600));
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: DL-15
TEST(PmlTest, AClearedPageLosesDAndIsNotedAgainWithoutAFault) {
  auto vm = LoggingVm(8);
  Write(*vm, 0x5000);
  EXPECT_EQ(SealAndClear(*vm).cleared_page_count, 1u);
  EXPECT_EQ(AllMappings(vm->state())[5], (Mapping{5, Level::k4K, "rwa"}));
  const uint64_t faults = FaultsOf(*vm);
  Write(*vm, 0x5000, 2);
  EXPECT_EQ(FaultsOf(*vm), faults);
  EXPECT_THAT(SealAndList(*vm, 0), ElementsAre(5));
  EXPECT_EQ(AuditFindings(*vm), "");
}

// The vCPU has cached that D is set. Without the clear's flush, its next write
// would be in no log.
// Covers: DL-11
TEST(PmlTest, ACachedDirtyBitDoesNotSurviveTheClear) {
  auto vm = LoggingVm(8);
  Vcpu& vcpu = VcpuOf(*vm);
  Write(*vm, 0x5000);
  uint64_t epoch = 0;
  SealAndList(*vm, 0, &epoch);
  ASSERT_TRUE(vcpu.tlb().Lookup(PageNumber(5))->dirty_set);
  {
    MmuWriteLocked lock(vm->state().mmu_lock, LockOp::kClear);
    EXPECT_TRUE(vm->state().tdp.ClearDirtyMasked(lock, 0, Gfn(0),
                                                 uint64_t{1} << 5, nullptr));
  }
  EXPECT_THAT(AuditFindings(*vm), HasSubstr("takes page 0x5 for dirty"));
  vcpu.tlb().FlushAll();
  EXPECT_EQ(AuditFindings(*vm), "");
  Write(*vm, 0x5000, 2);
  EXPECT_EQ(SealAndClear(*vm).cleared_page_count, 1u);
  Write(*vm, 0x5000, 3);
  EXPECT_THAT(SealAndList(*vm, 0), ElementsAre(5));
}

// Covers: DL-15
TEST(PmlTest, AHugePageOfAnInitiallySetLogIsProtectedByItsFirstClear) {
  auto vm = MakePmlVm({Slot(0, 0, kPages * kPageSize, Level::k2M)});
  Write(*vm, 0);
  Write(*vm, 2 * kMiB);
  DirtyLogConfig config;
  config.initially_set = InitiallySet::kYes;
  config.split = SplitPolicy::kNone;
  vm = Logging(std::move(vm), config);
  EXPECT_THAT(AllMappings(vm->state()),
              ElementsAre(Mapping{0, Level::k2M, "rwad"},
                          Mapping{512, Level::k2M, "rwad"}));
  uint64_t epoch = 0;
  EXPECT_THAT(SealAndList(*vm, 0, &epoch), SizeIs(kPages));
  ASSERT_TRUE(
      ClearAndDeliver(*vm, 0, epoch, 0, 64, MaskOf(64, {3}), nullptr).ok());
  EXPECT_THAT(AllMappings(vm->state()),
              ElementsAre(Mapping{0, Level::k2M, "rad"},
                          Mapping{512, Level::k2M, "rwad"}));
  Write(*vm, 0x3000);
  EXPECT_THAT(Marked(*vm), SizeIs(kPages)) << "3 is dirty again";
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: DL-34
TEST(PmlTest, APageThatAFaultMapsWritableIsMarkedOnceAndNotNoted) {
  auto vm = LoggingVm(0, /*ring_entries=*/1024);
  Vcpu& vcpu = VcpuOf(*vm);
  vcpu.EnterGuest();
  Write(*vm, 0x5000);
  EXPECT_EQ(AllMappings(vm->state()),
            (std::vector<Mapping>{{5, Level::k4K, "rwad"}}));
  EXPECT_EQ(Buffered(*vm), 0);
  vcpu.ExitGuest();
  EXPECT_EQ(vcpu.dirty_ring()->used(), 1u);
}

// --- Slots and rings ---

// A move keeps the log, so it must also keep the pages in the PML buffers. They
// are named by the gfns that the slot has before the move.
// Covers: DL-31
TEST(PmlTest, WhatWasWrittenBeforeAMoveIsInTheLogAfterIt) {
  auto vm = LoggingVm(8);
  {
    RunningGuest guest(*vm, /*written_page=*/5, /*read_page=*/2,
                       RunningGuest::Then::kComputes);
    ASSERT_TRUE(vm->SetMemslot(Slot(0, kGiB, kPages * kPageSize)).ok());
  }
  EXPECT_THAT(SealAndList(*vm, 0), ElementsAre(5));
}

// Covers: DL-31
TEST(PmlTest, AStopCountsThePagesInTheBuffersAsLost) {
  auto vm = LoggingVm(8);
  RunningGuest guest(*vm, /*written_page=*/5, /*read_page=*/2,
                     RunningGuest::Then::kComputes);
  const auto stopped =
      StopLog(*vm, RecoverOnStop::kNo, Undelivered::kDiscard, nullptr);
  ASSERT_TRUE(stopped.ok()) << stopped.status();
  EXPECT_EQ(stopped->discarded, UndeliveredCounts{.open = 1});
}

// Covers: DL-40
TEST(PmlTest, ARingHasRoomForAWholeBuffer) {
  VmConfig config;
  config.pml = VmConfig::Pml::kYes;
  config.dirty_ring_entries = 512;
  const absl::Status refused = Vm::Create(config).status();
  EXPECT_EQ(DetailOf(refused).reason, Reason::kInvalidMmuOption);
  EXPECT_EQ(DetailOf(refused).kvm_errno, EINVAL);
  auto vm = MakePmlVm({Slot(0, 0, kPages * kPageSize)}, 1, 1024);
  EXPECT_EQ(VcpuOf(*vm).dirty_ring()->soft_limit(), 1024u - 64 - 512);
}

// Covers: DL-42
TEST(PmlTest, AVcpuThatFillsItsRingByDrainingWaitsForRoom) {
  auto vm = LoggingVm(kPages, /*ring_entries=*/1024);
  Vcpu& vcpu = VcpuOf(*vm);
  vcpu.EnterGuest();
  for (uint64_t page = 0; page < 512; ++page) {
    ASSERT_EQ(Write(*vm, page * kPageSize), AccessOutcome::kDone);
  }
  EXPECT_EQ(vcpu.dirty_ring()->used(), 0u);
  // The exit drains the buffer into the ring, which then exceeds its limit of
  // 448.
  EXPECT_EQ(Write(*vm, 600 * kPageSize), AccessOutcome::kDirtyRingFull);
  EXPECT_EQ(vcpu.dirty_ring()->used(), 512u);
  EXPECT_EQ(vm->VcpuStats()[0].ring_full_exits, 1);
  vcpu.ExitGuest();
  EXPECT_EQ(SealAndClear(*vm).cleared_page_count, 512u);
  uint64_t word = 5;
  EXPECT_EQ(
      vcpu.ContinueAccess(Gpa(600 * kPageSize), AccessKind::kWrite, &word),
      AccessOutcome::kDone);
  EXPECT_THAT(SealAndList(*vm, 0), ElementsAre(600));
  EXPECT_EQ(AuditFindings(*vm), "");
}

// An exit for another reason fills the ring, too.
// Covers: DL-42
TEST(PmlTest, AVcpuWhoseExitFillsItsRingDoesNotEnterAgain) {
  auto vm = LoggingVm(kPages, /*ring_entries=*/1024);
  Vcpu& vcpu = VcpuOf(*vm);
  vcpu.EnterGuest();
  for (uint64_t page = 0; page < 500; ++page) {
    ASSERT_EQ(Write(*vm, page * kPageSize), AccessOutcome::kDone);
  }
  vcpu.ExitGuest();
  EXPECT_EQ(vcpu.dirty_ring()->used(), 500u);
  EXPECT_EQ(AuditFindings(*vm), "");
  EXPECT_EQ(Read(*vm, 0), AccessOutcome::kDirtyRingFull);
}

// --- The auditor ---

TEST(PmlTest, TheAuditorMissesAPageThatIsDirtyAndInNoLog) {
  auto vm = LoggingVm(8);
  EXPECT_EQ(AuditFindings(*vm), "");
  SpteSlot& entry = EntryOf(*vm, Gfn(5), Level::k4K);
  entry.Store(vm->state().tdp.format().WithDirty(entry.Load()));
  EXPECT_THAT(AuditFindings(*vm), HasSubstr("INV-5: gfn 0x5"));
}

}  // namespace
}  // namespace mmu::testing
