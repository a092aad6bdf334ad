#include "tests/stress/stress_round.h"

#include <atomic>
#include <cstring>
#include <memory>
#include <mutex>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "mmu_core/base/check.h"
#include "mmu_core/paging/table_pool.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/testing/fault_injection.h"
#include "mmu_core/vm/dirty_rings.h"
#include "mmu_core/vm/host_notifier.h"
#include "mmu_core/vm/nx_parameters.h"
#include "mmu_core/vm/split_job.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/vm/vm_state.h"
#include "tests/stress/changing_regions.h"
#include "tests/stress/stressed_guest.h"

namespace mmu::stress {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kGiB = uint64_t{1} << 30;

// Slot 0: stable and migrated. Slot 1: stable and not, its log goes on and off.
// Slots 2 and 3: come, move and go.
constexpr uint64_t kMigratedPages = 4096;
constexpr uint64_t kOtherPages = 2048;
constexpr int kPhases = 4;
constexpr Gfn kChangingStart(4 * kGiB / kPageSize);
// Each changing slot is in one of two regions of its own, or nowhere.
constexpr int kPlaces = 2;

class Round {
 public:
  explicit Round(const RoundConfig& config) : config_(config) {}

  RoundResult Run() {
    const uint64_t tables = TablePool::Process().tables_out();
    MakeVm();
    if (!failed()) RunThreads();
    if (vm_ != nullptr) {
      Audit();
      const VmStatsSnapshot stats = vm_->Stats();
      result_.flushes = stats.remote_tlb_flush;
      for (const VcpuStatsSnapshot& vcpu : vm_->VcpuStats()) {
        result_.faults += vcpu.pf_taken;
      }
    }
    vm_.reset();
    RcuBarrier();
    if (const uint64_t left = TablePool::Process().tables_out();
        left != tables) {
      Fail(absl::StrFormat("%d tables were not given back", left - tables));
    }
    return result_;
  }

 private:
  MemslotConfig SlotConfig(uint32_t id, Gfn start, uint64_t pages) const {
    MemslotConfig slot;
    slot.slot = id;
    slot.gpa = ToGpa(start);
    slot.size_bytes = pages * kPageSize;
    slot.backing = id % 2 == 0 ? BackingKind::kAnonymous : BackingKind::kMemfd;
    slot.host_page_level = config_.host_page_level;
    return slot;
  }

  void MakeVm() {
    VmConfig config;
    config.format = config_.format;
    config.ad_bits =
        config_.ad_bits ? VmConfig::AdBits::kOn : VmConfig::AdBits::kOff;
    config.pml = config_.pml ? VmConfig::Pml::kYes : VmConfig::Pml::kNo;
    config.root_levels = config_.root_levels;
    config.vcpu_count = config_.vcpus;
    config.dirty_ring_entries = config_.dirty_ring_entries;
    config.mmio_caching = config_.mmio_caching;
    config.slot_zap = config_.slot_zap;
    config.memslots = {SlotConfig(0, Gfn(0), kMigratedPages),
                       SlotConfig(1, Gfn(kMigratedPages), kOtherPages)};
    if (config_.nx_huge_pages) {
      Must("switch the NX mitigation on", nx_.SetNxHugePages("force"));
    }
    absl::StatusOr<std::unique_ptr<Vm>> vm = Vm::Create(config, nx_);
    Must("create the VM", vm.status());
    if (vm.ok()) vm_ = *std::move(vm);
  }

  void RunThreads() {
    const GuestSpaces spaces = {
        .stable = GfnRange::Of(Gfn(0), kMigratedPages + kOtherPages),
        .changing = &regions_};
    StressedGuest guest(*vm_, spaces, config_.seed);
    guest_ = &guest;
    // The auditor needs everybody to stand still, so it comes between phases.
    for (int phase = 0; phase < kPhases && well(); ++phase) {
      RunPhase(static_cast<uint64_t>(phase));
      Audit();
    }
    if (!guest.violation().empty()) Fail(guest.violation());
    result_.accesses = guest.access_count();
    result_.emulated = guest.emulated_count();
    result_.pre_faults = guest.pre_fault_count();
    result_.ring_full = guest.ring_full_count();
    guest_ = nullptr;
  }

  void RunPhase(uint64_t phase) {
    const absl::Time end = absl::Now() + config_.duration / kPhases;
    std::vector<std::thread> threads;
    using Step = void (Round::*)(std::mt19937_64&);
    uint64_t salt = 0;
    for (const Step step : {&Round::Migrate, &Round::Disturb, &Round::Disturb,
                            &Round::ChangeSlots}) {
      ++salt;
      threads.emplace_back([this, salt, phase, step, end] {
        std::mt19937_64 random((config_.seed * kPhases + phase) * 16 + salt);
        while (absl::Now() < end && well()) (this->*step)(random);
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
  bool well() const { return !failed() && guest_->violation().empty(); }

  // --- The migration of slot 0 ---

  void Migrate(std::mt19937_64& random) {
    // Not each lost mark does harm: a zap or an unmap makes the page fault, and
    // so be marked, again. One per migration does soon.
    if (config_.drop_mark != 0) testing::ArmDropOneMark(config_.drop_mark);
    DirtyLogConfig config;
    config.slots = {0};
    config.initially_set =
        random() % 2 == 0 ? InitiallySet::kYes : InitiallySet::kNo;
    config.split =
        config.initially_set == InitiallySet::kYes
            ? (random() % 2 == 0 ? SplitPolicy::kOnClear : SplitPolicy::kNone)
            : (random() % 2 == 0 ? SplitPolicy::kEager : SplitPolicy::kNone);
    SkipFlushOf(FlushReason::kWriteProtect);
    if (!Must("start the log", vm_->StartDirtyLog(config, nullptr))) return;
    std::vector<std::byte> copy(kMigratedPages * kPageSize);
    for (uint64_t page = 0; page < kMigratedPages; ++page) Copy(page, copy);
    const int rounds = 1 + static_cast<int>(random() % 6);
    for (int i = 0; i < rounds && !failed(); ++i) Harvest(copy);
    {
      PausedGuest paused(*this);
      Harvest(copy);
      Compare(copy);
    }
    Must("stop the log",
         vm_->StopDirtyLog(
                {0}, random() % 2 == 0 ? Vm::Recover::kYes : Vm::Recover::kNo,
                Vm::Unacked::kDiscard, nullptr)
             .status());
    Count(Operation::kMigrate);
  }

  // Of what follows, if that is the flush to be skipped.
  void SkipFlushOf(FlushReason reason) {
    if (config_.skip_flush == reason) testing::ArmSkipOneFlush(reason, 1);
  }

  void Harvest(std::vector<std::byte>& copy) {
    const absl::StatusOr<SealResult> seal = vm_->SealDirtyLog(0, nullptr);
    if (!Must("seal", seal.status())) return;
    std::vector<uint64_t> words(kMigratedPages / 64);
    if (!Must("read the log",
              vm_->ReadDirtyLog(0, seal->epoch, 0, absl::MakeSpan(words)))) {
      return;
    }
    SkipFlushOf(FlushReason::kClearDirty);
    if (!Must("clear the log",
              vm_->ClearDirtyLog(0, seal->epoch, 0, kMigratedPages, words,
                                 nullptr)
                  .status())) {
      return;
    }
    for (uint64_t page = 0; page < kMigratedPages; ++page) {
      if ((words[page / 64] >> (page % 64) & 1) != 0) Copy(page, copy);
    }
    Count(Operation::kHarvest);
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
  }

  // --- Everything else that may happen meanwhile ---

  GfnRange RandomRange(std::mt19937_64& random) const {
    const uint64_t start = random() % (kMigratedPages + kOtherPages);
    return GfnRange::Of(Gfn(start),
                        1 + random() % (kMigratedPages + kOtherPages - start));
  }

  void Disturb(std::mt19937_64& random) {
    switch (random() % 11) {
      case 0:
        return Split(random);
      case 1:
        // Slot 0 may log or not; refused if it does.
        static_cast<void>(
            vm_->RecoverHugePages({RandomRange(random)}, nullptr));
        return Count(Operation::kRecover);
      case 2:
      case 3:
        Must("age", vm_->Age(RandomRange(random),
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
      default:
        return ClearOther();
    }
  }

  void Split(std::mt19937_64& random) {
    SplitRequest request;
    request.ranges = {RandomRange(random)};
    request.order =
        random() % 2 == 0 ? SplitOrder::kAscending : SplitOrder::kDescending;
    request.target = random() % 4 == 0 ? Level::k2M : Level::k4K;
    request.throttle.max_lock_hold =
        absl::Microseconds(10 + static_cast<int>(random() % 200));
    const absl::StatusOr<std::shared_ptr<SplitJob>> job =
        SplitJob::Create(*vm_, request);
    if (!Must("make a split", job.status())) return;
    Must("split", (*job)->Run());
    Count(Operation::kSplit);
  }

  void Zap(std::mt19937_64& random) {
    VmState& state = vm_->state();
    const GfnRange range = GfnRange::Of(
        Gfn(random() % (kMigratedPages + kOtherPages)), 1 + random() % 600);
    MmuWriteLocked lock(state.mmu_lock, LockOp::kZap);
    state.tdp.ZapLeafs(
        lock, 0, range,
        random() % 2 == 0 ? RootFilter::kValid : RootFilter::kAll,
        FlushReason::kZap, nullptr);
    Count(Operation::kZap);
  }

  // The host takes whole pages of its own: it splits a huge one before it takes
  // part of it. They come back as they were. While they are away nobody may
  // write to them, through whatever translation.
  void Invalidate(std::mt19937_64& random) {
    VmState& state = vm_->state();
    HvaRange range;
    {
      RcuReadGuard rcu;
      const Memslot* slot = state.slots.Active(0).FindById(random() % 2);
      // No slot is so large that a page of 1 GiB would be mapped.
      const uint64_t unit =
          config_.host_page_level == Level::k4K ? 1 : PagesPer(Level::k2M);
      const uint64_t units = slot->npages / unit;
      const uint64_t first = random() % units;
      const uint64_t count = 1 + random() % (units - first);
      range = {slot->hva + first * unit * kPageSize,
               slot->hva + (first + count) * unit * kPageSize};
    }
    SkipFlushOf(FlushReason::kNotifier);
    InvalidateRangeStart(state, range,
                         random() % 2 == 0 ? MayYield::kYes : MayYield::kNo);
    const uint64_t before = SumOfGuestWords(range);
    if (random() % 4 == 0) {
      std::this_thread::sleep_for(std::chrono::microseconds(random() % 100));
    }
    const uint64_t after = SumOfGuestWords(range);
    InvalidateRangeEnd(state, range);
    // The words only grow.
    if (before != after) Fail("a page was written while the host had it");
    if (random() % 2 == 0) ClearYoung(state, range);
    Count(Operation::kInvalidate);
  }

  // Of any pages, also of a part of a huge one.
  void Protect(std::mt19937_64& random) {
    VmState& state = vm_->state();
    HvaRange range;
    {
      RcuReadGuard rcu;
      const Memslot* slot = state.slots.Active(0).FindById(random() % 2);
      const uint64_t first = random() % slot->npages;
      const uint64_t count = 1 + random() % (slot->npages - first);
      range = {slot->hva + first * kPageSize,
               slot->hva + (first + count) * kPageSize};
    }
    // Another thread would make writable what this one watches.
    const std::lock_guard<std::mutex> lock(protect_mu_);
    SetHostAccess(state, range, HostAccess::kReadOnly);
    const uint64_t before = SumOfGuestWords(range);
    if (random() % 4 == 0) {
      std::this_thread::sleep_for(std::chrono::microseconds(random() % 100));
    }
    const uint64_t after = SumOfGuestWords(range);
    SetHostAccess(state, range, HostAccess::kReadWrite);
    if (before != after)
      Fail("a page was written while the host had it read-only");
    Count(Operation::kProtect);
  }

  // Over all words that the vCPUs write to.
  uint64_t SumOfGuestWords(HvaRange range) const {
    uint64_t sum = 0;
    for (Hva page = range.start; page < range.end; page += kPageSize) {
      auto* words = reinterpret_cast<uint64_t*>(page.value());
      for (int i = 0; i < config_.vcpus; ++i) {
        sum +=
            std::atomic_ref<uint64_t>(words[i]).load(std::memory_order_relaxed);
      }
    }
    return sum;
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
    // Each switch zaps everything; something shall be there.
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

  void LogOther(std::mt19937_64& random) {
    // Whether it is on is known to nobody for sure: both threads do this.
    DirtyLogConfig config;
    config.slots = {1};
    config.split = random() % 2 == 0 ? SplitPolicy::kEager : SplitPolicy::kNone;
    if (random() % 2 == 0) {
      static_cast<void>(vm_->StartDirtyLog(config, nullptr));
    } else {
      static_cast<void>(vm_->StopDirtyLog(
          {1}, random() % 2 == 0 ? Vm::Recover::kYes : Vm::Recover::kNo,
          Vm::Unacked::kDiscard, nullptr));
    }
    Count(Operation::kLogOther);
  }

  void ClearOther() {
    const absl::StatusOr<SealResult> seal = vm_->SealDirtyLog(1, nullptr);
    if (!seal.ok()) return;
    const std::vector<uint64_t> all(kOtherPages / 64, ~uint64_t{0});
    static_cast<void>(
        vm_->ClearDirtyLog(1, seal->epoch, 0, kOtherPages, all, nullptr));
    Count(Operation::kClearOther);
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
    // Each deletion empties all tables; something shall be in them.
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
    Must(what, vm_->SetMemslot(
                   SlotConfig(2 + static_cast<uint32_t>(which), range.start,
                              place != kNowhere ? range.pages() : 0)));
    using State = ChangingRegions::State;
    if (from != kNowhere) regions_.End(region(from), State::kNothing);
    if (place != kNowhere) regions_.End(region(place), State::kMemory);
    place_[which] = place;
  }

  // --- Judging ---

  class PausedGuest {
   public:
    explicit PausedGuest(Round& round) : round_(round), lock_(round.pause_mu_) {
      if (round_.guest_ != nullptr) round_.guest_->Pause();
    }
    ~PausedGuest() {
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
  std::unique_ptr<Vm> vm_;
  StressedGuest* guest_ = nullptr;
  ChangingRegions regions_{kChangingStart};
  // Of the thread that changes slots: the places of slots 2 and 3.
  static constexpr int kNowhere = -1;
  std::array<int, 2> place_ = {kNowhere, kNowhere};
  std::mutex pause_mu_;
  std::mutex protect_mu_;
  std::mutex mu_;  // result_
  RoundResult result_;
  std::atomic<bool> failed_{false};
};

}  // namespace

std::string_view ToString(Operation operation) {
  switch (operation) {
    case Operation::kMigrate:
      return "migrate";
    case Operation::kHarvest:
      return "harvest";
    case Operation::kSplit:
      return "split";
    case Operation::kRecover:
      return "recover";
    case Operation::kAge:
      return "age";
    case Operation::kZap:
      return "zap";
    case Operation::kInvalidate:
      return "host unmap";
    case Operation::kProtect:
      return "host protect";
    case Operation::kResetRings:
      return "reset rings";
    case Operation::kChangeNx:
      return "change NX";
    case Operation::kLogOther:
      return "log on/off";
    case Operation::kClearOther:
      return "clear";
    case Operation::kSlotCreate:
      return "slot create";
    case Operation::kSlotDelete:
      return "slot delete";
    case Operation::kSlotMove:
      return "slot move";
    case Operation::kAudit:
      return "audit";
  }
  return "?";
}

RoundConfig RandomRound(uint64_t seed, absl::Duration duration) {
  std::mt19937_64 random(seed);
  RoundConfig config;
  config.seed = seed;
  config.duration = duration;
  config.format = random() % 2 == 0 ? EntryFormat::kEpt : EntryFormat::kNpt;
  config.root_levels = random() % 4 == 0 ? 5 : 4;
  constexpr std::array<Level, 4> kLevels = {Level::k2M, Level::k2M, Level::k4K,
                                            Level::k1G};
  config.host_page_level = kLevels[random() % 4];
  config.vcpus = 1 + static_cast<int>(random() % 4);
  config.ad_bits = config.format == EntryFormat::kNpt || random() % 3 != 0;
  constexpr std::array<uint32_t, 6> kRings = {0, 0, 0, 256, 1024, 4096};
  config.dirty_ring_entries = kRings[random() % kRings.size()];
  config.nx_huge_pages = random() % 3 == 0;
  if (random() % 8 == 0) config.mmio_caching = VmConfig::MmioCaching::kNo;
  if (random() % 2 == 0) config.slot_zap = VmConfig::SlotZap::kSlot;
  config.pml =
      config.format == EntryFormat::kEpt && config.ad_bits && random() % 2 == 0;
  // A ring that a CPU's log goes into has room for all of it.
  if (config.pml && config.dirty_ring_entries == 256) {
    config.dirty_ring_entries = 1024;
  }
  return config;
}

std::string Describe(const RoundConfig& config) {
  const int level = static_cast<int>(config.host_page_level);
  return absl::StrFormat(
      "seed %d: %s%s%s, %d levels, host pages of %s, %d vCPUs, %s%s%s%s",
      config.seed, config.format == EntryFormat::kEpt ? "EPT" : "NPT",
      config.ad_bits ? "" : " without A/D bits", config.pml ? " and PML" : "",
      config.root_levels,
      level == 1   ? "4K"
      : level == 2 ? "2M"
                   : "1G",
      config.vcpus,
      config.dirty_ring_entries == 0
          ? "bitmaps"
          : absl::StrCat("rings of ", config.dirty_ring_entries),
      config.mmio_caching == VmConfig::MmioCaching::kYes ? ""
                                                         : ", no MMIO SPTEs",
      config.nx_huge_pages ? ", NX huge pages" : "",
      config.slot_zap == VmConfig::SlotZap::kAll ? "" : ", slots zapped alone");
}

void RoundResult::Add(const RoundResult& other) {
  if (violation.empty()) violation = other.violation;
  for (int i = 0; i < kOperations; ++i) done[i] += other.done[i];
  accesses += other.accesses;
  faults += other.faults;
  flushes += other.flushes;
  pages_compared += other.pages_compared;
  emulated += other.emulated;
  pre_faults += other.pre_faults;
  ring_full += other.ring_full;
}

RoundResult RunRound(const RoundConfig& config) { return Round(config).Run(); }

}  // namespace mmu::stress
