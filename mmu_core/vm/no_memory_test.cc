// Whichever allocation of a change fails, the VM stays as it was. The same
// change succeeds when there is memory again (SLOT-14).

#include <sys/resource.h>

#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <limits>
#include <memory>
#include <ostream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "gtest/gtest.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/level.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/dirty/dirty_log.h"
#include "mmu_core/dirty/dirty_log_calls.h"
#include "mmu_core/dirty/log_owner.h"
#include "mmu_core/guest/access_source.h"
#include "mmu_core/guest/guest_access.h"
#include "mmu_core/guest/hypervisor/l1_hypervisor.h"
#include "mmu_core/guest/kernel/guest_cpu.h"
#include "mmu_core/paging/shadow_page.h"
#include "mmu_core/paging/table_pool.h"
#include "mmu_core/rmap/pte_list_desc.h"
#include "mmu_core/rmap/pte_list_pool.h"
#include "mmu_core/shadow/object_pool.h"
#include "mmu_core/shadow/shadow_caches.h"
#include "mmu_core/shadow/shadow_mmu.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/failing_allocations.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/run/guest_processor.h"
#include "mmu_core/vm/run/l1_processor.h"
#include "mmu_core/vm/run/workload.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/vm/vm_state.h"

namespace mmu::testing {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kGiB = uint64_t{1} << 30;

struct Kind {
  const char* name;
  MmuMode mmu = MmuMode::kTdp;
  EntryFormat format = EntryFormat::kEpt;
  uint32_t ring_entries = 0;
  VmConfig::Pml pml = VmConfig::Pml::kNo;
  VmConfig::SlotZap slot_zap = VmConfig::SlotZap::kAll;
  enum class L2 : uint8_t { kNo, kYes } l2 = L2::kNo;  // whether L2 has run

  friend std::ostream& operator<<(std::ostream& os, const Kind& kind) {
    return os << kind.name;
  }
};

VmConfig ConfigOf(const Kind& kind) {
  VmConfig config;
  config.mmu = kind.mmu;
  config.format = kind.format;
  config.pml = kind.pml;
  config.slot_zap = kind.slot_zap;
  if (kind.mmu == MmuMode::kStage2) {
    config.stage2.eager_split_chunk_bytes = 2 * kMiB;
  }
  config.dirty_ring_entries = kind.ring_entries;
  if (kind.ring_entries != 0) {
    config.companion_bitmap = VmConfig::CompanionBitmap::kYes;
  }
  config.memslots = {Slot(0, 0, 32 * kMiB, Level::k2M),
                     Slot(1, kGiB, 4 * kMiB, Level::k2M)};
  config.memslots.back().backing = BackingKind::kMemfd;
  return config;
}

// A VM whose guest has written to some pages.
class Subject {
 public:
  explicit Subject(const Kind& kind) : vm_(MakeVmFrom(ConfigOf(kind))) {
    switch (kind.mmu) {
      case MmuMode::kTdp:
      case MmuMode::kTdpShadow:
      case MmuMode::kStage2:
        break;
      case MmuMode::kShadow: {
        // With paging off, direct shadow pages map the guest's memory.
        for (const uint64_t gpa : {uint64_t{0}, 5 * kMiB, kGiB}) {
          GuestAccesses(gpa, AccessKind::kWrite, 7);
        }
        return;
      }
      case MmuMode::kNested:
        if (kind.l2 == Kind::L2::kYes) RunL2();
        break;
    }
    for (const uint64_t gpa : {uint64_t{0x1000}, 31 * kMiB, kGiB}) {
      Write(*vm_, gpa, 7);
    }
  }

  Vm& vm() { return *vm_; }

  // Checks that the guest finds slot 1 where it was, with its contents. The
  // vCPU has no cached translation, and one of the pages was never mapped.
  void ExpectSlot1Translates() {
    vm_->state().vcpus[0]->ReleaseRoot();
    {
      RcuReadGuard rcu;
      const Memslot* slot =
          vm_->state().slots.Active(0).FindByGfn(ToGfn(Gpa(kGiB)));
      ASSERT_NE(slot, nullptr);
      ASSERT_FALSE(slot->invalid()) << "an access would wait for its end";
    }
    EXPECT_EQ(GuestAccesses(kGiB, AccessKind::kRead), 7u);
    const uint64_t unused = kGiB + 2 * kMiB;
    GuestAccesses(unused, AccessKind::kWrite, 8);
    EXPECT_EQ(GuestAccesses(unused, AccessKind::kRead), 8u);
  }

  // All state that a change of a slot, or of its log, can change.
  std::string State() {
    std::string state;
    for (const MemslotInfo& slot : vm_->Memslots()) {
      absl::StrAppend(&state, "slot ", slot.config.slot, " at ",
                      slot.config.gpa.value(), " ", slot.config.size_bytes, " ",
                      static_cast<int>(slot.config.backing), " ",
                      slot.generation, " ", slot.dirty_log_enabled, "; ");
    }
    if (const auto log = vm_->FindDirtyLog(); log.has_value()) {
      absl::StrAppend(
          &state, "log ", log->state.open_epoch, " of ", log->state.owner,
          " since ",
          absl::FormatDuration(log->state.owner_since - log->state.start),
          ", in flight ", log->state.epochs_in_flight.size(), "; ");
      for (const SlotLogState& slot : log->state.slots) {
        absl::StrAppend(&state, "slot ", slot.slot, " ", slot.sealed_page_count,
                        " ", slot.in_flight_page_count, "; ");
      }
    }
    const VmStatsSnapshot stats = vm_->Stats();
    absl::StrAppend(&state, stats.pages_4k, " ", stats.pages_2m, " ",
                    stats.table_pages, " ", stats.mmu_shadow_pages, " ",
                    stats.shadow_page_limit, " ", stats.guest_memory_bytes, " ",
                    vm_->state().slots.logging_slots(), " ",
                    vm_->state().logging_slots.load(), "; ");
    for (const Mapping& mapping : AllMappings(vm_->state())) {
      absl::StrAppend(&state, mapping.gfn, " ", ToInt(mapping.level), " ",
                      mapping.flags, "; ");
    }
    return state;
  }

 private:
  // One access by the guest. Returns the word that was read or written.
  uint64_t GuestAccesses(uint64_t gpa, AccessKind kind, uint64_t word = 0) {
    Vcpu& vcpu = *vm_->state().vcpus[0];
    if (vm_->config().mmu == MmuMode::kShadow) {
      GuestPageFault fault;
      EXPECT_EQ(GuestProcessor(vcpu).Access(
                    Gva(gpa), 8, kind, Privilege::kSupervisor, &word, &fault),
                GuestCpu::Outcome::kDone);
    } else {
      EXPECT_EQ(vcpu.Access(Gpa(gpa), kind, &word), AccessOutcome::kDone);
    }
    return word;
  }
  void RunL2() {
    cpu_ = std::make_unique<L1Processor>(*vm_->state().vcpus[0], Level::k512G);
    l1_ = std::make_unique<L1Hypervisor>(*cpu_, vm_->GuestSpace(),
                                         L1HypervisorOptions());
    EXPECT_TRUE(l1_->Boot().ok());
    uint64_t word = 1;
    EXPECT_TRUE(l1_->Access(Gpa(0), AccessKind::kWrite, &word).ok());
  }

  std::unique_ptr<Vm> vm_;
  std::unique_ptr<L1Processor> cpu_;
  std::unique_ptr<L1Hypervisor> l1_;
};

// Only every kStep-th allocation fails where each try needs its own VM. Without
// sanitizers each allocation fails; with them each try takes several times as
// long.
#ifdef MMU_SANITIZED
constexpr uint64_t kStep = 7;
#else
constexpr uint64_t kStep = 1;
#endif

// The first allocation that fails. It differs between kinds, so that they do
// not all skip the same allocations.
uint64_t FirstTry(const Kind& kind) {
  return 1 + std::string_view(kind.name).size() % kStep;
}

using Change = std::function<absl::Status(Vm&)>;
using Check = std::function<void(Subject&)>;

// The contents of the pools, which all VMs share, during a change.
enum class Pools {
  kWarm,     // mostly enough
  kCold,     // empty, so they allocate more
  kAtLimit,  // no table, and the limit forbids more
};

// Puts the pools into this state for its lifetime, and empties the stocks of
// `vm`.
class PoolsAs {
 public:
  PoolsAs(Pools pools, Vm& vm) {
    if (pools == Pools::kWarm) return;
    {
      MutexLock lock(vm.state().slots.slots_lock);
      vm.state().operation_tables.Clear();
      if (ShadowMmu* const shadow = vm.state().shadow.get()) {
        ShadowCaches& caches = shadow->split_caches();
        caches.tables.Clear();
        caches.states.Clear();
        caches.lists.Clear();
      }
    }
    RcuBarrier();
    if (pools == Pools::kAtLimit) {
      pool_.tables.SetMaxTables(pool_.tables.tables_out());
      return;
    }
    // A pool that cannot grow returns all that it has.
    constexpr int kAll = std::numeric_limits<int>::max();
    const auto without_growth = [](auto take) {
      const Attempt attempt = FailOneAllocation(1, [&] {
        take();
        return absl::OkStatus();
      });
      EXPECT_TRUE(attempt.failed);
    };
    without_growth([&] { tables_ = pool_.tables.Take(kAll).head; });
    without_growth([&] { states_ = pool_.states.Take(kAll).head; });
    without_growth([&] { lists_ = pool_.lists.Take(kAll).head; });
  }
  ~PoolsAs() {
    pool_.tables.SetMaxTables(0);
    pool_.tables.Return(tables_);
    ObjectPool::Return(states_);
    PteListPool::Return(lists_);
  }
  PoolsAs(const PoolsAs&) = delete;
  PoolsAs& operator=(const PoolsAs&) = delete;

 private:
  const ShadowPools pool_ = ShadowPools::Process();
  ShadowPage* tables_ = nullptr;
  FreeObject* states_ = nullptr;
  PteListDesc* lists_ = nullptr;
};

// Makes each allocation of `change` fail, each in its own VM. Returns their
// number, or up to kStep - 1 more. Calls `refused`, if given, whenever the
// change was refused.
uint64_t FailEach(const Kind& kind, const Change& before, const Change& change,
                  Pools pools = Pools::kWarm, const Check& refused = nullptr) {
  for (uint64_t n = FirstTry(kind);; n += kStep) {
    SCOPED_TRACE(n);
    Subject subject(kind);
    Vm& vm = subject.vm();
    EXPECT_TRUE(before(vm).ok());
    const PoolsAs those(pools, vm);
    const std::string state = subject.State();
    const Attempt attempt = FailOneAllocation(n, [&] { return change(vm); });
    if (attempt.failed && !attempt.status.ok()) {
      EXPECT_EQ(attempt.status.code(), absl::StatusCode::kResourceExhausted);
      EXPECT_EQ(DetailOf(attempt.status).reason,
                Reason::kResourceExhaustedMemory);
      EXPECT_EQ(DetailOf(attempt.status).kvm_errno, ENOMEM);
      EXPECT_EQ(subject.State(), state);
      EXPECT_EQ(AuditFindings(vm), "");
      if (refused) refused(subject);
      const absl::Status again = change(vm);
      EXPECT_TRUE(again.ok()) << again;
    } else {
      EXPECT_TRUE(attempt.status.ok()) << attempt.status;
    }
    EXPECT_NE(subject.State(), state);
    EXPECT_EQ(AuditFindings(vm), "");
    if (!attempt.failed) return n - 1;
    if (::testing::Test::HasFailure()) return n;
  }
}

// Makes each allocation of a `change` fail that is refused for `reason` if no
// allocation fails. Returns their number, or up to kStep - 1 more.
uint64_t FailEachOfARefusal(const Kind& kind, const Change& before,
                            const Change& change, Reason reason) {
  for (uint64_t n = FirstTry(kind);; n += kStep) {
    SCOPED_TRACE(n);
    Subject subject(kind);
    Vm& vm = subject.vm();
    EXPECT_TRUE(before(vm).ok());
    const std::string state = subject.State();
    const Attempt attempt = FailOneAllocation(n, [&] { return change(vm); });
    const Reason told = DetailOf(attempt.status).reason;
    EXPECT_TRUE(told == reason ||
                (attempt.failed && told == Reason::kResourceExhaustedMemory))
        << attempt.status;
    EXPECT_EQ(subject.State(), state);
    EXPECT_EQ(AuditFindings(vm), "");
    if (!attempt.failed) return n - 1;
    if (::testing::Test::HasFailure()) return n;
  }
}

class NoMemoryTest : public ::testing::TestWithParam<Kind> {};
class NoMemoryPoolTest : public ::testing::TestWithParam<Kind> {};

absl::Status Nothing(Vm&) { return absl::OkStatus(); }

absl::Status StartEager(Vm& vm) {
  DirtyLogConfig config;
  config.split = SplitPolicy::kEager;
  return StartLog(vm, config, nullptr);
}

absl::Status StopAll(Vm& vm) {
  return StopLog(vm, RecoverOnStop::kYes, Undelivered::kDiscard, nullptr)
      .status();
}

// Covers: SLOT-14
TEST_P(NoMemoryTest, ASlotIsMadeAsAWholeOrNotAtAll) {
  for (const BackingKind backing :
       {BackingKind::kAnonymous, BackingKind::kMemfd,
        BackingKind::kMetadataOnly}) {
    SCOPED_TRACE(static_cast<int>(backing));
    // The backing, the slot, and the three indexes of a set need memory.
    EXPECT_GT(FailEach(GetParam(), Nothing,
                       [backing](Vm& vm) {
                         return vm.SetMemslot(
                             Slot(2, 2 * kGiB, 8 * kMiB, Level::k2M, backing));
                       }),
              8u);
  }
}

// Makes each allocation of `change`, of which there are more than
// `allocations`, fail. Whenever slot 1 is not changed, the guest must still be
// able to use it. With sanitizers too few allocations fail to require that one
// of the failures ends in a refusal.
void ExpectChangedOrTranslated(const Kind& kind, const Change& change,
                               uint64_t allocations) {
  for (const Change& before : {Change(Nothing), Change(StartEager)}) {
    uint64_t refusals = 0;
    EXPECT_GT(FailEach(kind, before, change, Pools::kWarm,
                       [&](Subject& subject) {
                         ++refusals;
                         subject.ExpectSlot1Translates();
                       }),
              allocations);
    if (kStep == 1) {
      EXPECT_GT(refusals, 0u);
    }
  }
}

// Covers: SLOT-14
TEST_P(NoMemoryTest, ASlotMovesOrStaysWithItsMappings) {
  ExpectChangedOrTranslated(
      GetParam(),
      [](Vm& vm) {
        return vm.SetMemslot(
            Slot(1, 3 * kGiB, 4 * kMiB, Level::k2M, BackingKind::kMemfd));
      },
      8);
}

// Covers: SLOT-14
TEST_P(NoMemoryTest, ASlotIsDeletedOrStaysWithItsMappings) {
  ExpectChangedOrTranslated(
      GetParam(), [](Vm& vm) { return vm.SetMemslot(Slot(1, 0, 0)); }, 5);
}

// A log with undelivered pages; with rings, these have entries.
absl::Status StartAndWrite(Vm& vm) {
  DirtyLogConfig config;
  config.initially_set = InitiallySet::kYes;
  absl::Status status = StartLog(vm, config);
  if (vm.config().mmu == MmuMode::kTdp ||
      vm.config().mmu == MmuMode::kTdpShadow) {
    for (uint64_t page = 0; page < 8; ++page) {
      Write(vm, kGiB + page * kPageSize, 9);
    }
  }
  return status;
}

// Covers: SLOT-14
TEST_P(NoMemoryTest, ARefusalOfAnEndNeedsNoMemoryOrSaysSo) {
  EXPECT_GT(FailEachOfARefusal(
                GetParam(), StartAndWrite,
                [](Vm& vm) {
                  return vm.DeleteMemslot(1, Undelivered::kRefuse).status();
                },
                Reason::kUndeliveredPages),
            0u);
  EXPECT_GT(FailEachOfARefusal(
                GetParam(), StartAndWrite,
                [](Vm& vm) {
                  return StopLog(vm, RecoverOnStop::kNo, Undelivered::kRefuse)
                      .status();
                },
                Reason::kUndeliveredPages),
            0u);
}

// A log with pages in flight, and with pages that are sealed and not cleared.
absl::Status StartAndClear(Vm& vm) {
  absl::Status status = StartAndWrite(vm);
  if (!status.ok()) return status;
  const absl::StatusOr<SealedSlot> seal = SealLog(vm, 1);
  if (!seal.ok()) return seal.status();
  const std::vector<uint64_t> first_pages = {0xf};
  return ClearLog(vm, 1, seal->epoch, 0, 64, first_pages).status();
}

// A takeover that fails leaves the log to its owner, and a takeover that
// succeeds does not fail afterwards: the answer, which contains the owner's
// long name, allocates before the takeover is done.
// Covers: SLOT-14
TEST_P(NoMemoryTest, ALogIsHandedOverOrStaysWithItsOwner) {
  LogClaim claim = TestClaim();
  claim.key.bytes[0] ^= 1;
  claim.owner = std::string(200, 'b');
  EXPECT_GT(FailEach(GetParam(), StartAndClear,
                     [&](Vm& vm) {
                       const absl::StatusOr<DirtyLogView> log =
                           vm.AcquireDirtyLog(claim, absl::nullopt,
                                              LogOwner::Force::kYes,
                                              TestCall().now);
                       DirtyLog& now = vm.state().dirty_log.Get()->log;
                       if (log.ok()) {
                         EXPECT_EQ(log->state.owner, claim.owner);
                         EXPECT_EQ(log->state.epochs_in_flight.size(), 0u);
                       } else {
                         EXPECT_TRUE(now.Admit(TestCall()).ok());
                         EXPECT_EQ(now.CountUndelivered(1).in_flight, 4u);
                       }
                       return log.status();
                     }),
            4u);
}

// A refusal needs no memory for its error, or its error says that there is no
// memory.
// Covers: SLOT-14
TEST_P(NoMemoryTest, ARefusalOfAChangeNeedsNoMemoryOrSaysSo) {
  const MemslotConfig onto_another =
      Slot(2, 2 * kMiB, 4 * kMiB, Level::k2M, BackingKind::kMetadataOnly);
  const MemslotConfig moved =
      Slot(1, 2 * kMiB, 4 * kMiB, Level::k2M, BackingKind::kMemfd);
  const MemslotConfig larger =
      Slot(1, kGiB, 8 * kMiB, Level::k2M, BackingKind::kMemfd);
  const auto refused = [&](const Change& before, const Change& change,
                           Reason reason) {
    SCOPED_TRACE(reason);
    EXPECT_GT(FailEachOfARefusal(GetParam(), before, change, reason), 0u);
  };
  const auto set = [](const MemslotConfig& slot) {
    return [slot](Vm& vm) { return vm.SetMemslot(slot); };
  };
  refused(Nothing, set(onto_another), Reason::kRegionOverlap);
  refused(Nothing, set(moved), Reason::kRegionOverlap);
  refused(Nothing, set(larger), Reason::kMemslotImmutable);
  refused(Nothing, set(Slot(77, 0, 0)), Reason::kMemslotNotFound);
  refused(
      StartEager,
      [](Vm& vm) { return vm.RecoverHugePages({}, nullptr).status(); },
      Reason::kDirtyLogActive);
  const auto start = [](const DirtyLogConfig& log) {
    return [of = TestStart(log)](Vm& vm) {
      return vm.StartDirtyLog(of, nullptr).status();
    };
  };
  DirtyLogConfig of_none;
  of_none.slots = {77};
  refused(Nothing, start(of_none), Reason::kMemslotNotFound);
  DirtyLogConfig on_clear;
  on_clear.split = SplitPolicy::kOnClear;
  refused(Nothing, start(on_clear), Reason::kInvalidSplitPolicy);
  VmConfig config = ConfigOf(GetParam());
  config.memslots.push_back(onto_another);
  refused(
      Nothing, [config](Vm&) { return Vm::Create(config).status(); },
      Reason::kRegionOverlap);
  refused(StartEager, start({}), Reason::kDirtyLogActive);
  refused(
      StartEager,
      [](Vm& vm) {
        LogCall call = TestCall();
        call.key.bytes[0] ^= 1;
        return vm.SealDirtyLog(call, 0, nullptr).status();
      },
      Reason::kLogOwned);
}

// Covers: SLOT-14
TEST_P(NoMemoryTest, AnEndThatDiscardsIsOneOrIsNot) {
  EXPECT_GT(
      FailEach(GetParam(), StartAndWrite,
               [](Vm& vm) {
                 return vm.DeleteMemslot(1, Undelivered::kDiscard).status();
               }),
      5u);
  EXPECT_GT(FailEach(GetParam(), StartAndWrite, StopAll), 5u);
}

// Covers: SLOT-14
TEST_P(NoMemoryTest, AllSlotsLogOrNoneDoes) {
  EXPECT_GT(FailEach(GetParam(), Nothing, StartEager), 10u);
  EXPECT_GT(FailEach(GetParam(), Nothing,
                     [](Vm& vm) {
                       DirtyLogConfig config;
                       config.initially_set = InitiallySet::kYes;
                       return StartLog(vm, config, nullptr);
                     }),
            10u);
  EXPECT_GT(FailEach(GetParam(), StartEager, StopAll), 5u);
}

// After the slots log, the start splits huge pages, which needs tables. If
// there are none, the start succeeds nevertheless.
// Covers: SLOT-14, SHD-81
TEST_P(NoMemoryPoolTest, ALogThatIsStartedIsSoWhateverItsSplitFinds) {
  EXPECT_GT(FailEach(GetParam(), Nothing, StartEager, Pools::kCold), 10u);
  EXPECT_GT(FailEach(GetParam(), Nothing, StartEager, Pools::kAtLimit), 10u);
}

TEST_P(NoMemoryPoolTest, HugePagesAreRecoveredOrTheCallIsRefused) {
  EXPECT_GT(
      FailEach(
          GetParam(),
          [](Vm& vm) {
            const absl::Status status = StartEager(vm);
            if (!status.ok()) return status;
            return StopLog(vm, RecoverOnStop::kNo, Undelivered::kDiscard)
                .status();
          },
          [](Vm& vm) { return vm.RecoverHugePages({}, nullptr).status(); }),
      0u);
}

// A vCPU that must load a new root finds no memory for it. Its access fails
// with the reason, and the next access loads the root.
TEST(NoMemoryVcpuTest, ARootIsLoadedOrTheAccessSaysWhyNot) {
  std::unique_ptr<Vm> vm = MakeVmFrom(ConfigOf({.name = "tdp"}));
  EXPECT_EQ(Write(*vm, 0, 7), AccessOutcome::kDone);
  uint64_t refused = 0;
  for (uint64_t n = 1;; ++n) {
    SCOPED_TRACE(n);
    {
      MutexLock lock(vm->state().slots.slots_lock);
      vm->state().mmus.FastZapAll(LockOp::kZap, nullptr);
    }
    AccessOutcome outcome = AccessOutcome::kDone;
    const Attempt attempt = FailOneAllocation(n, [&] {
      outcome = Write(*vm, 0, 7);
      return absl::OkStatus();
    });
    if (outcome != AccessOutcome::kDone) {
      ++refused;
      EXPECT_TRUE(attempt.failed);
      EXPECT_EQ(outcome, AccessOutcome::kError);
      EXPECT_EQ(DetailOf(vm->state().vcpus[0]->status()).reason,
                Reason::kResourceExhaustedMemory);
    }
    EXPECT_EQ(Write(*vm, 0, 7), AccessOutcome::kDone);
    EXPECT_EQ(AuditFindings(*vm), "");
    if (!attempt.failed || HasFailure()) break;
  }
  EXPECT_GT(refused, 0u);
}

// Covers: SLOT-14
TEST_P(NoMemoryTest, AVmIsMadeAsAWholeOrNotAtAll) {
  const VmConfig config = ConfigOf(GetParam());
  RcuBarrier();
  const uint64_t tables = TablePool::Process().tables_out();
  for (uint64_t n = FirstTry(GetParam());; n += kStep) {
    SCOPED_TRACE(n);
    std::unique_ptr<Vm> vm;
    const Attempt attempt = FailOneAllocation(n, [&] {
      absl::StatusOr<std::unique_ptr<Vm>> made = Vm::Create(config);
      if (made.ok()) vm = *std::move(made);
      return made.status();
    });
    if (!attempt.failed) {
      EXPECT_TRUE(attempt.status.ok()) << attempt.status;
      EXPECT_GT(n, 30u);
      break;
    }
    if (vm != nullptr) continue;
    EXPECT_EQ(DetailOf(attempt.status).reason,
              Reason::kResourceExhaustedMemory);
    RcuBarrier();
    EXPECT_EQ(TablePool::Process().tables_out(), tables);
    if (HasFailure()) return;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Kinds, NoMemoryTest,
    ::testing::Values(Kind{.name = "tdp"},
                      Kind{.name = "tdp_slot_zap",
                           .slot_zap = VmConfig::SlotZap::kSlot},
                      Kind{.name = "tdp_rings", .ring_entries = 1024},
                      Kind{.name = "tdp_pml", .pml = VmConfig::Pml::kYes},
                      Kind{.name = "tdp_shadow", .mmu = MmuMode::kTdpShadow},
                      Kind{.name = "stage2", .mmu = MmuMode::kStage2},
                      Kind{.name = "shadow",
                           .mmu = MmuMode::kShadow,
                           .format = EntryFormat::kNpt},
                      Kind{.name = "nested", .mmu = MmuMode::kNested},
                      Kind{.name = "nested_with_l2",
                           .mmu = MmuMode::kNested,
                           .l2 = Kind::L2::kYes}),
    [](const auto& param) { return std::string(param.param.name); });

// One kind for each MMU that splits.
INSTANTIATE_TEST_SUITE_P(
    Kinds, NoMemoryPoolTest,
    ::testing::Values(Kind{.name = "tdp"},
                      Kind{.name = "stage2", .mmu = MmuMode::kStage2},
                      Kind{.name = "nested_with_l2",
                           .mmu = MmuMode::kNested,
                           .l2 = Kind::L2::kYes}),
    [](const auto& param) { return std::string(param.param.name); });

// A source whose accesses end with an error that is not the guest's or the
// host's fault.
class BrokenSource : public AccessSource {
 public:
  bool Next(GuestAccess*) override { return false; }
  absl::Status status() const override {
    return absl::DataLossError("it ends in the middle");
  }
};

// Runs a workload on BrokenSource. Returns the reason of its error.
Reason ReasonOfBrokenWorkload(Vm& vm) {
  WorkloadOptions options;
  options.sources.push_back(std::make_unique<BrokenSource>());
  EXPECT_TRUE(vm.StartWorkload(std::move(options)).ok());
  EXPECT_TRUE(vm.WaitWorkload(absl::Minutes(2)));
  EXPECT_FALSE(vm.Workload()->error.ok());
  return DetailOf(vm.Workload()->error).reason;
}

// A deletion that is refused for lack of memory removes nothing, so a later
// failure of the guest keeps its own reason. After a deletion that succeeds,
// the guest counts as lost.
TEST(NoMemoryGuestTest, AGuestIsNotLostToADeletionThatWasRefused) {
  VmConfig config;
  config.mmu = MmuMode::kShadow;
  config.format = EntryFormat::kNpt;
  config.memslots = {Slot(0, 0, 32 * kMiB), Slot(1, kGiB, 4 * kMiB)};
  std::unique_ptr<Vm> vm = MakeVmFrom(config);
  EXPECT_EQ(ReasonOfBrokenWorkload(*vm), Reason::kNone)
      << "the guest has booted";
  uint64_t refused = 0;
  for (uint64_t n = 1;; ++n) {
    SCOPED_TRACE(n);
    const Attempt attempt =
        FailOneAllocation(n, [&] { return vm->SetMemslot(Slot(1, 0, 0)); });
    if (attempt.status.ok()) break;
    ++refused;
    ASSERT_EQ(ReasonOfBrokenWorkload(*vm), Reason::kNone);
  }
  EXPECT_GT(refused, 5u);
  EXPECT_EQ(ReasonOfBrokenWorkload(*vm), Reason::kGuestLost);
}

uint64_t AddressSpaceBytes() {
  uint64_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  return pages * kPageSize;
}

// A VM of direct shadow pages. The address space has room for all but the rmaps
// of a third slot. Exits with 0 if the VM continues as before.
void SetASlotWithoutAddressSpace() {
  VmConfig config;
  config.mmu = MmuMode::kTdpShadow;
  config.memslots = {Slot(0, 0, 4 * kMiB), Slot(1, kGiB, 4 * kMiB)};
  std::unique_ptr<Vm> vm = MakeVmFrom(config);
  Write(*vm, 0x1000, 9);
  const rlimit limit = {AddressSpaceBytes() + kGiB, RLIM_INFINITY};
  if (setrlimit(RLIMIT_AS, &limit) != 0) std::exit(2);
  // A slot of 1 TiB needs 2.5 GiB of rmaps.
  const absl::Status status = vm->SetMemslot(Slot(
      2, 2048 * kGiB, 1024 * kGiB, Level::k4K, BackingKind::kMetadataOnly));
  if (DetailOf(status).reason != Reason::kResourceExhaustedMemory) std::exit(3);
  if (vm->Memslots().size() != 2) std::exit(4);
  if (ReadValue(*vm, 0x1000) != 9) std::exit(5);
  if (Write(*vm, kGiB, 1) != AccessOutcome::kDone) std::exit(6);
  if (!vm->SetMemslot(Slot(0, 0, 0)).ok()) std::exit(7);
  if (!vm->SetMemslot(Slot(2, 0, kMiB)).ok()) std::exit(8);
  if (Write(*vm, 0x1000, 1) != AccessOutcome::kDone) std::exit(9);
  std::exit(AuditFindings(*vm).empty() ? 0 : 10);
}

// Covers: SLOT-14
TEST(NoMemoryDeathTest, SlotsStayWhenOneMoreFindsNoRoomForItsRmaps) {
#ifdef MMU_SANITIZED
  GTEST_SKIP() << "sanitizers need address space of their own";
#endif
  EXPECT_EXIT(SetASlotWithoutAddressSpace(), ::testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace mmu::testing
