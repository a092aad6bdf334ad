#include "tests/stress/stress_round.h"

#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "mmu_core/aging/aging.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/guest/gpa_space.h"
#include "mmu_core/paging/table_budget.h"
#include "mmu_core/rmap/slot_rmaps.h"
#include "mmu_core/shadow/shadow_pages.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/fault_injection.h"
#include "mmu_core/vm/core/noted_pages.h"
#include "mmu_core/vm/core/nx_parameters.h"
#include "mmu_core/vm/core/stage2_leaf_sizes.h"
#include "mmu_core/vm/core/vm_config.h"
#include "mmu_core/vm/jobs/generation_scan.h"
#include "mmu_core/vm/jobs/split_job.h"
#include "mmu_core/vm/jobs/throttle.h"
#include "mmu_core/vm/logging/dirty_rings.h"
#include "mmu_core/vm/slots/host_notifier.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/vm/vm_state.h"
#include "mmu_core/working_set/working_set_snapshot.h"
#include "tests/stress/changing_regions.h"
#include "tests/stress/device.h"
#include "tests/stress/guest_threads.h"
#include "tests/stress/nested_guest.h"
#include "tests/stress/paged_guest.h"
#include "tests/stress/round_config.h"
#include "tests/stress/round_result.h"
#include "tests/stress/round_vm.h"
#include "tests/stress/stressed_guest.h"

namespace mmu::stress {
namespace {

using ::mmu::testing::ReadLog;

constexpr uint64_t kGiB = uint64_t{1} << 30;

constexpr int kPhases = 4;
// Slots 2 and 3 come, move and go. Each is in one of two regions of its own, or
// nowhere.
constexpr Gfn kChangingStart(4 * kGiB / kPageSize);
constexpr int kPlaces = 2;

class Round {
 public:
  explicit Round(const RoundConfig& config) : config_(config) {}

  RoundResult Run() {
    const uint64_t tables = TableBudget::Process().Snapshot().in_use;
    unsyncs_before_ = testing::Unsyncs();
    faults_before_ = InjectedFaults();
    MakeVm();
    if (!failed()) RunThreads();
    if (vm_ != nullptr) {
      Audit();
      const VmStatsSnapshot stats = vm_->Stats();
      result_.flushes = stats.flush.remote_tlb_flush;
      result_.unsyncs = testing::Unsyncs() - unsyncs_before_;
      result_.pte_writes = stats.mmu_pte_write;
      result_.recycled = stats.mmu_recycled;
      if (config_.mmu == MmuMode::kNested) {
        // The shadow MMU serves nested guests only.
        result_.nested_zapped = stats.mmu_shadow_zapped;
        result_.nested_recycled =
            stats.mmu_recycled - recycled_by_changes_.load();
        result_.nested_unlinked = stats.mmu_pde_zapped;
      }
      if (config_.mmu == MmuMode::kStage2) result_.stage2 = OfStage2(stats);
      for (const VcpuStatsSnapshot& vcpu : vm_->VcpuStats()) {
        result_.faults += vcpu.pf_taken;
      }
    }
    device_.reset();
    vm_.reset();
    RcuBarrier();
    if (const uint64_t left = TableBudget::Process().Snapshot().in_use;
        left != tables) {
      Fail(absl::StrFormat("%d tables were not given back", left - tables));
    }
    return result_;
  }

 private:
  void MakeVm() {
    if (config_.nx_huge_pages) {
      Must("switch the NX mitigation on", nx_.SetNxHugePages("force"));
    }
    absl::StatusOr<std::unique_ptr<Vm>> vm = Vm::Create(VmOf(config_), nx_);
    Must("create the VM", vm.status());
    if (!vm.ok()) return;
    vm_ = *std::move(vm);
    if (config_.has_device()) {
      device_ = std::make_unique<Device>(vm_->state().slots, DevicePages());
    }
  }

  static Stage2Result OfStage2(const VmStatsSnapshot& stats) {
    const auto splits = [&stats](SplitTrigger trigger) {
      return stats.Splits(Level::k2M, trigger) +
             stats.Splits(Level::k1G, trigger);
    };
    return {.conflict_aborts = stats.vcpus.tlb_conflict_aborts,
            .split_by_faults = splits(SplitTrigger::kFault),
            .split_eagerly = splits(SplitTrigger::kEager),
            .split_for_clears = splits(SplitTrigger::kClear),
            .split_on_request = splits(SplitTrigger::kRequest),
            .recovered = stats.recoveries[0] + stats.recoveries[1]};
  }

  // Guests that write whole pages, such as tables, leave these pages alone.
  GfnRange DevicePages() const {
    const Gfn end(kMigratedPages);
    return {config_.has_programs() ? end - kDevicePages : Gfn(0), end};
  }

  void RunThreads() {
    const GuestSpaces spaces = {
        .stable = GfnRange::Of(Gfn(0), kMigratedPages + kOtherPages),
        .huge = config_.has_huge_range() ? kHugeRange : GfnRange(),
        .huge_every = config_.only_huge_range_has_blocks() ? 4u : 32u,
        .changing = &regions_};
    std::unique_ptr<GuestThreads> guest;
    NestedGuest* nested = nullptr;
    const GpaSpace stable = ProgramSpace(spaces.stable);
    if (config_.mmu == MmuMode::kNested && config_.smp == Smp::kYes) {
      auto one = std::make_unique<NestedGuest>(*vm_, stable, config_);
      nested = one.get();
      guest = std::move(one);
    } else if (config_.has_programs()) {
      guest = std::make_unique<PagedGuest>(
          *vm_, stable, config_.seed,
          config_.smp == Smp::kYes ? PagedGuest::Kernels::kOneForAll
                                   : PagedGuest::Kernels::kOnePerVcpu);
    } else {
      guest = std::make_unique<StressedGuest>(*vm_, spaces, config_.seed);
    }
    guest_ = guest.get();
    // The auditor needs all threads to stand still, so it runs between phases.
    for (int phase = 0; phase < kPhases && well(); ++phase) {
      RunPhase(static_cast<uint64_t>(phase));
      Audit();
      // The injected fault did no harm.
      faults_before_ = InjectedFaults();
    }
    guest->Stop();
    if (!guest->violation().empty()) Fail(guest->violation());
    if (nested != nullptr) result_.nested = nested->result();
    result_.accesses = guest->access_count();
    result_.emulated = guest->emulated_count();
    result_.pre_faults = guest->pre_fault_count();
    result_.ring_full = guest->ring_full_count();
    guest_ = nullptr;
  }

  // The memory of a guest with programs.
  GpaSpace ProgramSpace(GfnRange stable) const {
    if (device_ == nullptr || !config_.has_programs()) {
      return GpaSpace::Create({stable}).value();
    }
    return GpaSpace::Create({{stable.start, DevicePages().start},
                             {DevicePages().end, stable.end}})
        .value();
  }

  void RunPhase(uint64_t phase) {
    const MonotonicTime end = MonotonicTime::Now() + config_.duration / kPhases;
    std::vector<std::thread> threads;
    using Step = void (Round::*)(std::mt19937_64&);
    uint64_t salt = 0;
    std::vector<Step> steps = {&Round::Migrate, &Round::Disturb,
                               &Round::Disturb, &Round::ChangeSlots,
                               &Round::MakeGeneration};
    if (device_ != nullptr) steps.push_back(&Round::DeviceWrite);
    for (const Step step : steps) {
      ++salt;
      threads.emplace_back([this, salt, phase, step, end] {
        std::mt19937_64 random((config_.seed * kPhases + phase) * 16 + salt);
        while (MonotonicTime::Now() < end && well()) (this->*step)(random);
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
  // Whether the phase may go on. It ends at once when a fault was injected, so
  // that the auditor sees what the fault has left: later operations might make
  // up for it.
  bool well() const {
    return !failed() && guest_->violation().empty() &&
           InjectedFaults() == faults_before_;
  }
  static uint64_t InjectedFaults() {
    return testing::DroppedMarks() + testing::SkippedFlushes() +
           testing::SkippedUnsyncs();
  }

  // --- The migration of slot 0 ---

  void Migrate(std::mt19937_64& random) {
    // A fault may do no harm: after a zap or an unmap the next write to a page
    // whose mark was lost faults and marks it again. So each migration has one,
    // and the phase ends at it (well).
    if (config_.drop_mark != 0) testing::ArmDropOneMark(config_.drop_mark);
    if (config_.skip_unsync) testing::ArmSkipOneUnsync(1);
    DirtyLogConfig config;
    // In half of the migrations slot 0 starts its log alone: the flush for slot
    // 1 would make up for a missing flush of slot 0.
    if (random() % 2 == 0) {
      config.slots = {0};
    } else {
      config.slots = {0, 1};
    }
    config.initially_set =
        random() % 2 == 0 ? InitiallySet::kYes : InitiallySet::kNo;
    config.split =
        config.initially_set == InitiallySet::kYes
            ? (random() % 2 == 0 ? SplitPolicy::kOnClear : SplitPolicy::kNone)
            : (random() % 2 == 0 ? SplitPolicy::kEager : SplitPolicy::kNone);
    // The pages of 1 GiB of the host are then blocks of stage 2.
    if (config_.only_huge_range_has_blocks() && random() % 2 == 0) {
      config.slots.push_back(kHugeSlot);
    }
    SkipFlushOf(FlushReason::kWriteProtect);
    SkipFlushOf(FlushReason::kBbm);
    DirtyLogStart start = testing::TestStart(config);
    start.claim.key = Owner().key;
    start.now = MonotonicTime::Now();
    if (!Must("start the log", vm_->StartDirtyLog(start, nullptr).status())) {
      return;
    }
    std::vector<std::byte> copy(kMigratedPages * kPageSize);
    for (uint64_t page = 0; page < kMigratedPages; ++page) Copy(page, copy);
    const int rounds = 1 + static_cast<int>(random() % 6);
    for (int i = 0; i < rounds && !failed(); ++i) Harvest(copy, random);
    {
      PausedGuest paused(*this);
      Harvest(copy, random);
      Compare(copy);
    }
    Must("stop the log",
         vm_->StopDirtyLog({.by = Owner(),
                            .undelivered = Undelivered::kDiscard,
                            .recover = random() % 2 == 0 ? RecoverOnStop::kYes
                                                         : RecoverOnStop::kNo},
                           nullptr)
             .status());
    Count(Operation::kMigrate);
  }

  // Skips the next flush of `reason`, if the configuration says so.
  void SkipFlushOf(FlushReason reason) {
    if (config_.skip_flush == reason) testing::ArmSkipOneFlush(reason, 1);
  }

  LogCall Owner() const {
    const uint32_t key = owner_.load(std::memory_order_relaxed);
    LogCall call;
    call.now = MonotonicTime::Now();
    for (int i = 0; i < 4; ++i) {
      call.key.bytes[i] = static_cast<uint8_t>(key >> (8 * i));
    }
    return call;
  }

  // Harvests once. Sometimes the owner dies between its clear and its copy;
  // then another owner takes over and harvests.
  void Harvest(std::vector<std::byte>& copy, std::mt19937_64& random) {
    bool dies = random() % 4 == 0;
    do {
      const absl::StatusOr<SealOutcome> seal =
          vm_->SealDirtyLog(Owner(), /*acknowledged_epoch=*/0, nullptr);
      if (!Must("seal", seal.status())) return;
      std::vector<uint64_t> words(kMigratedPages / 64);
      if (!Must("read the log",
                ReadLog(*vm_, 0, seal->epoch, 0, absl::MakeSpan(words)))) {
        return;
      }
      SeeCounters();
      SkipFlushOf(FlushReason::kClearDirty);
      if (!Must("clear the log",
                vm_->ClearDirtyLog(Owner(), 0, seal->epoch, 0, kMigratedPages,
                                   words, nullptr)
                    .status())) {
        return;
      }
      if (dies) {
        LogClaim claim = testing::TestClaim();
        owner_.fetch_add(1, std::memory_order_relaxed);
        claim.key = Owner().key;
        if (!Must("take over the log",
                  vm_->AcquireDirtyLog(claim, absl::nullopt,
                                       LogOwner::Force::kYes,
                                       MonotonicTime::Now())
                      .status())) {
          return;
        }
        continue;
      }
      for (uint64_t page = 0; page < kMigratedPages; ++page) {
        if ((words[page / 64] >> (page % 64) & 1) != 0) Copy(page, copy);
      }
      if (!Acknowledge(seal->epoch, words, random)) return;
    } while (std::exchange(dies, false));
    Count(Operation::kHarvest);
  }

  // Acknowledges the copied pages of `words`: the whole epoch, or two or three
  // masks of pages.
  bool Acknowledge(uint64_t epoch, const std::vector<uint64_t>& words,
                   std::mt19937_64& random) {
    if (random() % 2 == 0) {
      return Must("acknowledge",
                  vm_->AcknowledgePages(Owner(), epoch).status());
    }
    std::vector<uint64_t> left = words;
    const uint64_t masks = 2 + random() % 2;
    for (uint64_t i = 1; i <= masks; ++i) {
      std::vector<uint64_t> mask = left;
      for (size_t word = 0; word < mask.size(); ++word) {
        if (i != masks) mask[word] &= random();
        left[word] &= ~mask[word];
      }
      if (!Must("acknowledge pages", vm_->AcknowledgePages(Owner(), epoch, 0, 0,
                                                           kMigratedPages, mask)
                                         .status())) {
        return false;
      }
    }
    // Acknowledge the pages that ClearOther took into flight. This fails if
    // slot 1 does not log.
    static_cast<void>(vm_->AcknowledgePages(
        Owner(), epoch, 1, 0, kOtherPages,
        std::vector<uint64_t>(kOtherPages / 64, ~uint64_t{0})));
    return true;
  }

  void Copy(uint64_t page, std::vector<std::byte>& copy) {
    Must("read memory", vm_->ReadMemory(Gpa(page * kPageSize),
                                        absl::MakeSpan(copy).subspan(
                                            page * kPageSize, kPageSize)));
  }

  void Compare(const std::vector<std::byte>& copy) {
    std::vector<std::byte> now(copy.size());
    for (uint64_t page = 0; page < kMigratedPages; ++page) Copy(page, now);
    result_.pages_compared += kMigratedPages;
    for (uint64_t page = 0; page < kMigratedPages; ++page) {
      const uint64_t at = page * kPageSize;
      if (std::memcmp(&copy[at], &now[at], kPageSize) == 0) continue;
      Fail(absl::StrFormat("lost dirty page: page %d of slot 0 differs", page));
      return;
    }
    if (device_ == nullptr) return;
    if (const std::string lost = device_->CheckCopy(copy); !lost.empty()) {
      Fail(lost);
    }
  }

  // --- Other operations during a migration ---

  GfnRange RandomRange(std::mt19937_64& random) const {
    const uint64_t start = random() % (kMigratedPages + kOtherPages);
    return GfnRange::Of(Gfn(start),
                        1 + random() % (kMigratedPages + kOtherPages - start));
  }

  // Sometimes the range where a page of 1 GiB may be mapped.
  GfnRange RandomOrHugeRange(std::mt19937_64& random) const {
    if (config_.has_huge_range() && random() % 8 == 0) return kHugeRange;
    return RandomRange(random);
  }

  // Ages all memory, as an ager does without a pause. What it finds depends on
  // the other threads; the auditor verifies what it leaves behind.
  void MakeGeneration(std::mt19937_64& random) {
    const GenerationOptions options = {
        .fast_only = random() % 2 == 0 ? FastOnly::kNo : FastOnly::kYes,
        .scope =
            random() % 8 == 0 ? ScanScope::kLookAround : ScanScope::kEveryPage};
    const auto scan = vm_->BeginGeneration(options);
    Must("begin a generation", scan.status());
    if (!scan.ok()) return;
    while (!(*scan)->done() && well()) {
      Must("go on with a generation", (*scan)->Next());
    }
    const GenerationTotals& totals = (*scan)->totals();
    if (totals.young_pages > totals.mapped_pages) {
      Fail(absl::StrFormat("%d pages are young and %d mapped",
                           totals.young_pages, totals.mapped_pages));
    }
    if (random() % 64 == 0) vm_->ForgetWorkingSet();
    Count(Operation::kGeneration);
  }

  void Disturb(std::mt19937_64& random) {
    // A guest with programs does more work per access, so give it time.
    if (config_.has_programs()) {
      std::this_thread::sleep_for(std::chrono::microseconds(random() % 4000));
    }
    switch (random() % 13) {
      case 0:
        return Split(random);
      case 1:
        // Recovery is refused while slot 0 logs.
        static_cast<void>(
            vm_->RecoverHugePages({RandomOrHugeRange(random)}, nullptr));
        return Count(Operation::kRecover);
      case 2:
      case 3:
        Must("age", vm_->Age(RandomOrHugeRange(random),
                             random() % 2 == 0 ? AgeMode::kTest
                                               : AgeMode::kTestAndClear,
                             nullptr)
                        .status());
        return Count(Operation::kAge);
      case 4:
        return Zap(random);
      case 5:
        return LogOther(random);
      case 6:
        return Invalidate(random);
      case 7:
        return ResetRings(random);
      case 8:
        return ChangeNx(random);
      case 9:
        return Protect(random);
      case 10:
        return ZapAll(random);
      case 11:
        return config_.mmu == MmuMode::kStage2 ? ChangeChunk(random)
                                               : ChangeLimit(random);
      default:
        return ClearOther(random);
    }
  }

  // Some of these make the split wait for less than a millisecond per step.
  static Throttle RandomThrottle(std::mt19937_64& random) {
    Throttle throttle;
    throttle.max_lock_hold =
        absl::Microseconds(10 + static_cast<int>(random() % 200));
    switch (random() % 16) {
      case 0:
        throttle.min_pause = absl::Microseconds(100);
        break;
      case 1:
        throttle.max_pages_per_second = 1'000'000;
        break;
      case 2:
        throttle.max_flushes_per_second = 10'000;
        break;
      case 3:
        throttle.max_vcpu_stall_ratio = 0.5;
        break;
      default:
        break;
    }
    return throttle;
  }

  void Split(std::mt19937_64& random) {
    SplitRequest request;
    const GfnRange range = RandomOrHugeRange(random);
    request.ranges = {range};
    request.order =
        random() % 2 == 0 ? SplitOrder::kAscending : SplitOrder::kDescending;
    // 1 GiB of pages of 4 KiB would take the whole round.
    const bool blocks_only =
        range == kHugeRange && !config_.only_huge_range_has_blocks();
    request.target = blocks_only || random() % 4 == 0 ? Level::k2M : Level::k4K;
    request.throttle = RandomThrottle(random);
    const absl::StatusOr<std::shared_ptr<SplitJob>> job =
        SplitJob::Create(vm_->state(), request);
    if (!Must("make a split", job.status())) return;
    Must("split", (*job)->Run());
    Count(Operation::kSplit);
  }

  void Zap(std::mt19937_64& random) {
    VmState& state = vm_->state();
    const GfnRange range = GfnRange::Of(
        Gfn(random() % (kMigratedPages + kOtherPages)), 1 + random() % 600);
    if (state.stage2 != nullptr ||
        (state.shadow != nullptr && random() % 2 == 0)) {
      ZapGfnRange(state, 0, range);
      return Count(Operation::kZap);
    }
    MmuWriteLocked lock(state.mmu_lock, LockOp::kZap);
    state.tdp.ZapLeafs(
        lock, 0, range,
        random() % 2 == 0 ? RootFilter::kValid : RootFilter::kAll,
        FlushReason::kZap, nullptr);
    Count(Operation::kZap);
  }

  void ZapAll(std::mt19937_64& random) {
    if (random() % 16 != 0) return;  // let the tables fill first
    VmState& state = vm_->state();
    MutexLock lock(state.slots.slots_lock);
    state.mmus.FastZapAll(LockOp::kZap, nullptr);
    Count(Operation::kZapAll);
  }

  void ChangeLimit(std::mt19937_64& random) {
    VmState& state = vm_->state();
    if (state.shadow == nullptr || random() % 8 != 0) return;
    const uint64_t before = vm_->Stats().mmu_recycled;
    Must("change the limit",
         vm_->SetShadowPageLimit(ShadowPages::kMinLimit +
                                     random() % (random() % 2 == 0 ? 64 : 2000),
                                 nullptr));
    // Faults may have recycled some of them.
    recycled_by_changes_ += vm_->Stats().mmu_recycled - before;
    Count(Operation::kChangeLimit);
  }

  void ChangeChunk(std::mt19937_64& random) {
    const std::vector<uint64_t> sizes =
        Stage2LeafSizes(config_.stage2.granule_bytes);
    const uint64_t chunk = random() % (sizes.size() + 1);
    Must("change the chunk",
         vm_->SetEagerSplitChunk(chunk == 0 ? 0 : sizes[chunk - 1]));
    Count(Operation::kChangeChunk);
  }

  // The host takes whole pages of its own: it splits a huge page before it
  // takes a part of it. The pages come back unchanged. Meanwhile no vCPU may
  // write to them through any translation.
  void Invalidate(std::mt19937_64& random) {
    VmState& state = vm_->state();
    HvaRange range;
    {
      RcuReadGuard rcu;
      const Memslot* slot = state.slots.Active(0).FindById(random() % 2);
      // Neither slot is large enough for a mapping of 1 GiB.
      const uint64_t unit = config_.host_page_level == Level::k4K
                                ? config_.host_pages()
                                : PagesPer(Level::k2M);
      const uint64_t units = slot->npages / unit;
      const uint64_t first = random() % units;
      const uint64_t count = 1 + random() % (units - first);
      range = {slot->hva + first * unit * kPageSize,
               slot->hva + (first + count) * unit * kPageSize};
    }
    SkipFlushOf(FlushReason::kNotifier);
    InvalidateRangeStart(state, range,
                         random() % 2 == 0 ? MayYield::kYes : MayYield::kNo);
    const bool written = WritesGoTo(range, random);
    InvalidateRangeEnd(state, range);
    if (written) Fail("a page was written while the host had it");
    if (random() % 2 == 0) ClearYoung(state, range);
    Count(Operation::kInvalidate);
  }

  // The range may contain any pages, also a part of a huge page.
  void Protect(std::mt19937_64& random) {
    VmState& state = vm_->state();
    HvaRange range;
    {
      RcuReadGuard rcu;
      const Memslot* slot = state.slots.Active(0).FindById(random() % 2);
      const uint64_t unit = config_.host_pages();
      const uint64_t units = slot->npages / unit;
      const uint64_t first = random() % units;
      const uint64_t count = 1 + random() % (units - first);
      range = {slot->hva + first * unit * kPageSize,
               slot->hva + (first + count) * unit * kPageSize};
    }
    // Without the lock another thread could make pages writable that this one
    // watches.
    const std::lock_guard<std::mutex> lock(protect_mu_);
    SetHostAccess(state, range, HostAccess::kReadOnly);
    const bool written = WritesGoTo(range, random);
    SetHostAccess(state, range, HostAccess::kReadWrite);
    if (written) Fail("a page was written while the host had it read-only");
    Count(Operation::kProtect);
  }

  // Whether vCPUs write to a range, now or in the next moments.
  bool WritesGoTo(HvaRange range, std::mt19937_64& random) const {
    const std::vector<uint64_t> before = GuestWords(range);
    if (random() % 4 == 0) {
      const uint64_t micros = config_.has_programs() ? 4000 : 100;
      std::this_thread::sleep_for(std::chrono::microseconds(random() % micros));
    }
    const std::vector<uint64_t> after = GuestWords(range);
    if (!config_.has_programs()) return before != after;
    // The MMU emulates a write to a page that contains a shadowed table of the
    // guest. Such a write uses the host's own mapping, so these pages are left
    // out. But a vCPU may be in the middle of such a write to a page that has
    // stopped being shadowed meanwhile, so each vCPU may change one word.
    int changed = 0;
    for (size_t i = 0; i < before.size(); ++i) {
      changed += before[i] != after[i] && before[i] != kShadowed &&
                 after[i] != kShadowed &&
                 (IsProgramWord(before[i]) || IsProgramWord(after[i]));
    }
    return changed > config_.vcpus;
  }

  // The words in the range that vCPUs write to. A word in a page with a
  // shadowed table is kShadowed.
  static constexpr uint64_t kShadowed = ~uint64_t{0};
  std::vector<uint64_t> GuestWords(HvaRange range) const {
    RcuReadGuard rcu;
    const Memslot* slot = nullptr;
    for (const uint32_t id : {0, 1}) {
      const Memslot* const one = vm_->state().slots.Active(0).FindById(id);
      if (one->hva <= range.start &&
          range.end <= one->hva + one->npages * kPageSize) {
        slot = one;
      }
    }
    MMU_CHECK(slot != nullptr);
    const SlotRmaps* const rmaps = slot->shadow_rmaps();
    const uint64_t first = config_.has_programs() ? kFirstProgramWord : 0;
    const uint64_t count = config_.has_programs()
                               ? kProgramWords
                               : static_cast<uint64_t>(config_.vcpus);
    std::vector<uint64_t> all;
    for (Hva page = range.start; page < range.end; page += kPageSize) {
      const Gfn gfn = slot->base_gfn + (page - slot->hva) / kPageSize;
      const bool shadowed = config_.has_programs() && rmaps != nullptr &&
                            rmaps->IsWriteTracked(gfn);
      auto* words = reinterpret_cast<uint64_t*>(page.value());
      for (uint64_t i = 0; i < count; ++i) {
        all.push_back(shadowed ? kShadowed
                               : std::atomic_ref<uint64_t>(words[first + i])
                                     .load(std::memory_order_relaxed));
      }
    }
    return all;
  }

  void ResetRings(std::mt19937_64& random) {
    if (!vm_->state().has_dirty_rings()) return;
    if (random() % 2 == 0) HarvestDirtyRings(vm_->state());
    uint64_t left = 1 + random() % 2000;
    Must("reset the rings",
         ResetDirtyRings(
             vm_->state(), [&left] { return --left == 0; }, nullptr)
             .status());
    Count(Operation::kResetRings);
  }

  void ChangeNx(std::mt19937_64& random) {
    if (!config_.nx_huge_pages) return;
    // Each switch zaps all mappings, so let the tables fill first.
    if (random() % 16 == 0) {
      Must("switch the NX mitigation",
           nx_.SetNxHugePages(random() % 4 == 0 ? "off" : "force"));
    }
    NxRecoverySettings recovery;
    recovery.ratio = 1 + static_cast<uint32_t>(random() % 8);
    recovery.period = absl::Milliseconds(1 + random() % 20);
    nx_.SetRecovery(recovery);
    Count(Operation::kChangeNx);
  }

  // A caller that does not own the log may read it, but changes nothing.
  void LogOther(std::mt19937_64& random) {
    // An owner's key is zero in the bytes that this key sets.
    const LogCall stranger = {.key = {.bytes = {0, 0, 0, 0, 'x'}},
                              .now = MonotonicTime::Now()};
    const absl::Status refused =
        random() % 2 == 0
            ? vm_->SealDirtyLog(stranger, 0, nullptr).status()
            : vm_->StopDirtyLog(
                     {.by = stranger, .undelivered = Undelivered::kDiscard},
                     nullptr)
                  .status();
    if (refused.ok()) Fail("a stranger changed the log");
    std::vector<uint64_t> words(kMigratedPages / 64);
    static_cast<void>(ReadLog(*vm_, 0, 0, 0, absl::MakeSpan(words)));
    Count(Operation::kLogOther);
  }

  // The owner clears a slot that is not migrated, during its own harvest.
  void ClearOther(std::mt19937_64& random) {
    const absl::optional<DirtyLogView> log = vm_->FindDirtyLog();
    if (!log.has_value()) return;
    const std::vector<uint64_t> all(kOtherPages / 64, ~uint64_t{0});
    static_cast<void>(vm_->ClearDirtyLog(Owner(), 1, log->state.sealed_epoch, 0,
                                         kOtherPages, all, nullptr));
    if (config_.only_huge_range_has_blocks()) {
      // A word of pages, whose block is split for it.
      const uint64_t first = random() % (kHugeRange.pages() / 64) * 64;
      static_cast<void>(vm_->ClearDirtyLog(Owner(), kHugeSlot,
                                           log->state.sealed_epoch, first, 64,
                                           {~uint64_t{0}}, nullptr));
    }
    Count(Operation::kClearOther);
  }

  void DeviceWrite(std::mt19937_64& random) {
    if (const std::string wrong = device_->Write(random); !wrong.empty()) {
      Fail(wrong);
    }
    Count(Operation::kDeviceWrite);
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 2000));
  }

  void ChangeSlots(std::mt19937_64& random) {
    const int which = static_cast<int>(random() % place_.size());
    const int place = static_cast<int>(random() % kPlaces);
    switch (random() % 3) {
      case 0:
        if (place_[which] != kNowhere) break;
        PutSlot("create a slot", which, place);
        Count(Operation::kSlotCreate);
        break;
      case 1:
        if (place_[which] == kNowhere) break;
        PutSlot("move a slot", which, place);
        Count(Operation::kSlotMove);
        break;
      default:
        if (place_[which] == kNowhere) break;
        PutSlot("delete a slot", which, kNowhere);
        Count(Operation::kSlotDelete);
    }
    // Each deletion zaps all tables, so let them fill first.
    std::this_thread::sleep_for(std::chrono::milliseconds(random() % 20));
  }

  void PutSlot(const char* what, int which, int place) {
    const int from = place_[which];
    if (from == place) return;
    const auto region = [which](int p) { return which * kPlaces + p; };
    if (from != kNowhere) regions_.Begin(region(from));
    if (place != kNowhere) regions_.Begin(region(place));
    const GfnRange range =
        regions_.range(region(place != kNowhere ? place : from));
    Must(what, vm_->SetMemslot(SlotOf(config_, 2 + static_cast<uint32_t>(which),
                                      range.start,
                                      place != kNowhere ? range.pages() : 0)));
    using State = ChangingRegions::State;
    if (from != kNowhere) regions_.End(region(from), State::kNothing);
    if (place != kNowhere) regions_.End(region(place), State::kMemory);
    place_[which] = place;
  }

  // --- Checks ---

  class PausedGuest {
   public:
    explicit PausedGuest(Round& round) : round_(round), lock_(round.pause_mu_) {
      if (round_.guest_ != nullptr) round_.guest_->Pause();
      if (round_.device_ != nullptr) round_.device_->Hold();
    }
    ~PausedGuest() {
      if (round_.device_ != nullptr) round_.device_->Release();
      if (round_.guest_ != nullptr) round_.guest_->Resume();
    }

   private:
    Round& round_;
    std::lock_guard<std::mutex> lock_;
  };

  void Audit() {
    PausedGuest paused(*this);
    const AuditReport report = vm_->Audit();
    for (const std::string& finding : report.violations) {
      Fail(absl::StrCat("audit: ", finding));
    }
    Count(Operation::kAudit);
    SeeCounters();
  }

  void SeeCounters() {
    const VmStatsSnapshot stats = vm_->Stats();
    const std::lock_guard<std::mutex> lock(mu_);
    result_.moved.See(stats);
  }

  bool Must(const char* what, const absl::Status& status) {
    if (!status.ok()) Fail(absl::StrCat(what, ": ", status.ToString()));
    return status.ok();
  }
  void Fail(const std::string& text) {
    const std::lock_guard<std::mutex> lock(mu_);
    if (result_.violation.empty()) result_.violation = text;
    failed_.store(true);
  }
  bool failed() const { return failed_.load(); }
  void Count(Operation operation) {
    const std::lock_guard<std::mutex> lock(mu_);
    ++result_.done[static_cast<int>(operation)];
  }

  const RoundConfig config_;
  NxParameters nx_{ItlbMultihit::kYes};
  // The number of the log's owner. Each takeover increments it.
  std::atomic<uint32_t> owner_ = 1;
  std::unique_ptr<Vm> vm_;
  std::unique_ptr<Device> device_;  // null if there is none
  GuestThreads* guest_ = nullptr;
  ChangingRegions regions_{kChangingStart};
  // Used by the thread that changes slots: the places of slots 2 and 3.
  static constexpr int kNowhere = -1;
  std::array<int, 2> place_ = {kNowhere, kNowhere};
  uint64_t unsyncs_before_ = 0;
  uint64_t faults_before_ = 0;  // InjectedFaults when the phase began
  // Shadow pages recycled while the limit was changed.
  std::atomic<uint64_t> recycled_by_changes_{0};
  std::mutex pause_mu_;
  std::mutex protect_mu_;
  std::mutex mu_;  // guards result_
  RoundResult result_;
  std::atomic<bool> failed_{false};
};

}  // namespace

RoundResult RunRound(const RoundConfig& config) { return Round(config).Run(); }

}  // namespace mmu::stress
