#include "tests/model/operations.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/types/optional.h"
#include "absl/types/span.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/dirty/dirty_log_calls.h"
#include "mmu_core/dirty/dirty_log_state.h"
#include "mmu_core/dirty/log_owner.h"
#include "mmu_core/dirty/slot_log.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/paging/tdp_cursor.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/jobs/split_job.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/vm/vm_state.h"
#include "tests/model/reference_model.h"

namespace mmu::testing {
namespace {

constexpr uint32_t kSlots = 3;
constexpr uint32_t kPlaces = 5;
constexpr uint64_t kPlaceStride = 4096;  // pages: 16 MiB
constexpr uint64_t kWorld = kPlaces * kPlaceStride;

struct Shape {
  uint64_t pages;
  uint64_t offset;  // from the place, in pages
  Level host_level;
  bool readonly;
};
constexpr std::array<Shape, 6> kShapes = {{
    {1024, 0, Level::k2M, false},
    {700, 0, Level::k2M, false},   // the tail is too small for a huge page
    {1024, 5, Level::k2M, false},  // not aligned to huge pages
    {300, 0, Level::k4K, false},
    {2048, 0, Level::k2M, false},
    {512, 0, Level::k2M, true},
}};

const std::array<DirtyLogConfig, 5> kModes = {{
    {{}, InitiallySet::kNo, SplitPolicy::kNone},
    {{}, InitiallySet::kNo, SplitPolicy::kEager},
    {{}, InitiallySet::kYes, SplitPolicy::kNone},
    {{}, InitiallySet::kYes, SplitPolicy::kOnClear},
    {{}, InitiallySet::kNo, SplitPolicy::kNone},
}};

constexpr std::array<const char*, Operation::kKinds> kNames = {
    "kRead", "kWrite",       "kExec",     "kSweep",    "kCreate", "kDelete",
    "kMove", "kStart",       "kStop",     "kSeal",     "kPeek",   "kClear",
    "kCopy", "kAcknowledge", "kAckPages", "kTakeOver", "kSplit",  "kRecover",
    "kAge",  "kDropTlb",     "kZapAll"};

bool Subset(const std::set<uint64_t>& a, const std::set<uint64_t>& b) {
  return std::includes(b.begin(), b.end(), a.begin(), a.end());
}

class Comparison {
 public:
  Comparison(int vcpus, VmConfig::Pml pml, Mistake mistake)
      : vcpus_(vcpus),
        mistake_(mistake),
        vm_(pml == VmConfig::Pml::kYes ? MakePmlVm({}, vcpus)
                                       : MakeVm({}, vcpus)) {}

  // Performs one operation. Returns "", or the difference from the model.
  std::string Step(const Operation& op) {
    using Kind = Operation::Kind;
    problem_.clear();
    switch (op.kind) {
      case Kind::kRead:
        Access(op.a % kWorld, AccessKind::kRead, op.b);
        break;
      case Kind::kWrite:
        Access(op.a % kWorld, AccessKind::kWrite, op.b);
        break;
      case Kind::kExec:
        Access(op.a % kWorld, AccessKind::kExec, op.b);
        break;
      case Kind::kSweep:
        for (uint64_t i = 0; i < 40; ++i) {
          Access((op.a + i) % kWorld, AccessKind::kWrite, op.b);
        }
        break;
      case Kind::kCreate:
        Create(op.a % kSlots, op.b % kPlaces, kShapes[op.c % kShapes.size()]);
        break;
      case Kind::kDelete:
        Delete(op.a % kSlots);
        break;
      case Kind::kMove:
        Move(op.a % kSlots, op.b % kPlaces, op.c);
        break;
      case Kind::kStart:
        Start(op.a % (kSlots + 1), kModes[op.b % kModes.size()]);
        break;
      case Kind::kStop:
        Stop(op.b % 2 == 1, op.c % 2 == 1);
        break;
      case Kind::kSeal:
        Seal(op.b % 2 == 1);
        break;
      case Kind::kPeek:
        Peek(op.a % kSlots);
        break;
      case Kind::kClear:
        Clear(op.a % kSlots, op.b, op.c);
        break;
      case Kind::kCopy:
        Copy(op.a % kSlots);
        break;
      case Kind::kAcknowledge:
        Acknowledge(op.a);
        break;
      case Kind::kAckPages:
        AcknowledgePages(op.a, op.b % kSlots, op.c);
        break;
      case Kind::kTakeOver:
        TakeOver(op.b % 2 == 1);
        break;
      case Kind::kSplit:
        Split(op.a % kWorld, op.b, op.c);
        break;
      case Kind::kRecover:
        Recover(op.a % (kSlots + 1));
        break;
      case Kind::kAge:
        Age(op.a, op.b % 2 == 1);
        break;
      case Kind::kDropTlb:
        vm_->state().vcpus[op.a % vcpus_]->tlb().DropRandom(op.b);
        break;
      case Kind::kZapAll: {
        MutexLock lock(vm_->state().slots.slots_lock);
        vm_->state().tdp.FastZapAll(nullptr);
        break;
      }
    }
    if (problem_.empty()) CheckTables();
    if (problem_.empty()) problem_ = AuditFindings(*vm_);
    if (problem_.empty()) CheckCopies();
    return problem_;
  }

 private:
  template <typename... Args>
  void Differs(const absl::FormatSpec<Args...>& format, const Args&... args) {
    if (problem_.empty()) problem_ = absl::StrFormat(format, args...);
  }

  void Expect(const absl::Status& status, Reason reason) {
    if (status.ok() != (reason == Reason::kNone) ||
        DetailOf(status).reason != reason) {
      Differs("expected error '%s', got %s", std::string(ToString(reason)),
              status.ToString());
    }
  }

  void Access(uint64_t page, AccessKind kind, uint32_t vcpu) {
    uint64_t word = ++stamp_;
    const uint64_t value = word;
    const AccessOutcome outcome = vm_->state().vcpus[vcpu % vcpus_]->Access(
        ToGpa(Gfn(page)), kind, &word);
    ModelSlot* slot = model_.SlotAt(page);
    const bool write = kind == AccessKind::kWrite;
    const bool emulated = slot == nullptr || (write && slot->readonly);
    if (outcome !=
        (emulated ? AccessOutcome::kEmulated : AccessOutcome::kDone)) {
      Differs("page %d: the access came to %d", page,
              static_cast<int>(outcome));
      return;
    }
    if (emulated) return;
    const uint64_t in_slot = page - slot->base_page;
    if (!slot->readonly) ReferenceModel::Touched(*slot, in_slot);
    if (write) {
      ReferenceModel::Written(*slot, in_slot, value);
    } else if (const uint64_t written = slot->WordOf(in_slot);
               word != written) {
      Differs("page %d reads %d, last written was %d", page, word, written);
    }
  }

  bool Overlaps(uint32_t id, uint64_t base, uint64_t pages) const {
    for (const auto& [other_id, other] : model_.slots()) {
      if (other_id != id && base < other.base_page + other.pages &&
          other.base_page < base + pages) {
        return true;
      }
    }
    return false;
  }

  MemslotConfig ConfigOf(uint32_t id, const ModelSlot& slot) const {
    MemslotConfig config =
        Slot(id, slot.base_page << kPageShift, slot.pages << kPageShift,
             static_cast<Level>(slot.host_level));
    config.mode = slot.readonly ? MemslotConfig::Mode::kReadOnly
                                : MemslotConfig::Mode::kReadWrite;
    return config;
  }

  void Create(uint32_t id, uint64_t place, const Shape& shape) {
    if (model_.slots().count(id) != 0) return;
    ModelSlot slot;
    slot.base_page = place * kPlaceStride + shape.offset;
    slot.pages = shape.pages;
    slot.host_level = ToInt(shape.host_level);
    slot.readonly = shape.readonly;
    const bool overlaps = Overlaps(id, slot.base_page, slot.pages);
    Expect(vm_->SetMemslot(ConfigOf(id, slot)),
           overlaps ? Reason::kRegionOverlap : Reason::kNone);
    if (overlaps) return;
    model_.slots()[id] = slot;
    if (!slot.readonly) model_.JoinLog(model_.slots()[id]);
  }

  void Delete(uint32_t id) {
    const auto it = model_.slots().find(id);
    const bool exists = it != model_.slots().end();
    if (exists) {
      model_.slots().erase(it);
    }
    Expect(vm_->SetMemslot(Slot(id, 0, 0)),
           exists ? Reason::kNone : Reason::kMemslotNotFound);
  }

  void Move(uint32_t id, uint64_t place, uint32_t c) {
    const auto it = model_.slots().find(id);
    if (it == model_.slots().end()) return;
    ModelSlot moved = it->second;
    moved.base_page = place * kPlaceStride + c % 3;
    const bool overlaps = Overlaps(id, moved.base_page, moved.pages);
    Expect(vm_->SetMemslot(ConfigOf(id, moved)),
           overlaps ? Reason::kRegionOverlap : Reason::kNone);
    if (overlaps) return;
    const bool moves = it->second.base_page != moved.base_page;
    it->second.base_page = moved.base_page;
    if (moves && it->second.log.has_value()) {
      it->second.log->first_epoch = model_.log()->epoch;
      ReferenceModel::Return(*it->second.log);
    }
  }

  void Start(uint32_t id, DirtyLogConfig config) {
    if (id < kSlots) config.slots = {id};
    std::vector<ModelSlot*> slots;
    for (auto& [slot_id, slot] : model_.slots()) {
      // "All slots" means all writable slots.
      if (id < kSlots ? slot_id != id : slot.readonly) continue;
      slots.push_back(&slot);
    }
    Reason reason = Reason::kNone;
    if (model_.log().has_value()) {
      const DirtyLogConfig& started = model_.log()->config;
      if (started.slots != config.slots ||
          started.initially_set != config.initially_set ||
          started.split != config.split) {
        reason = Reason::kDirtyLogActive;
      }
    } else if (slots.empty()) {
      reason = Reason::kMemslotNotFound;
    }
    DirtyLogStart start = TestStart(config);
    start.claim = Claim();
    start.now = now_;
    Expect(vm_->StartDirtyLog(start, nullptr).status(), reason);
    if (reason == Reason::kNone && !model_.log().has_value()) {
      model_.StartLog(slots, config);
    }
  }

  void Stop(bool recover, bool discard) {
    Reason reason = Reason::kNone;
    if (!model_.log().has_value()) {
      reason = Reason::kDirtyLogOff;
    } else if (!discard && SomethingIsDirty()) {
      reason = Reason::kUndeliveredPages;
    }
    const DirtyLogStop stop = {
        .by = Call(),
        .undelivered = discard ? Undelivered::kDiscard : Undelivered::kRefuse,
        .recover = recover ? RecoverOnStop::kYes : RecoverOnStop::kNo};
    Expect(vm_->StopDirtyLog(stop, nullptr).status(), reason);
    if (reason == Reason::kNone) model_.StopLog();
  }

  bool SomethingIsDirty() {
    for (const auto& [id, slot] : model_.slots()) {
      if (slot.log.has_value() && !Listed(id, 0).empty()) return true;
    }
    return false;
  }

  ModelLog* LogOf(uint32_t id) {
    const auto it = model_.slots().find(id);
    if (it == model_.slots().end() || !it->second.log.has_value()) {
      return nullptr;
    }
    return &*it->second.log;
  }

  std::set<uint64_t> Listed(uint32_t id, uint64_t epoch) {
    std::vector<uint64_t> words((model_.slots()[id].pages + 63) / 64);
    Expect(ReadLog(*vm_, id, epoch, 0, absl::MakeSpan(words)), Reason::kNone);
    const std::vector<uint64_t> pages = PagesOf(words);
    return {pages.begin(), pages.end()};
  }

  // The newest epoch that was sealed in this log; 0 if there is none.
  uint64_t SealedEpoch() const {
    const std::optional<ModelVmLog>& log = model_.log();
    return log.has_value() && log->epoch > log->first_epoch ? log->epoch - 1
                                                            : 0;
  }

  void Seal(bool acknowledges) {
    const uint64_t acknowledged =
        acknowledges && model_.MayAcknowledge(SealedEpoch()) ? SealedEpoch()
                                                             : 0;
    const absl::StatusOr<SealOutcome> seal =
        vm_->SealDirtyLog(Call(), acknowledged, nullptr);
    Expect(seal.status(),
           model_.log().has_value() ? Reason::kNone : Reason::kDirtyLogOff);
    if (!seal.ok()) return;
    if (seal->epoch != model_.log()->epoch) Differs("epoch %d", seal->epoch);
    const uint64_t delivered = model_.Acknowledge(acknowledged);
    if (seal->acknowledged_page_count != delivered) {
      Differs("%d pages delivered, %d were in flight",
              seal->acknowledged_page_count, delivered);
    }
    model_.Seal();
    size_t logged = 0;
    for (auto& [id, slot] : model_.slots()) {
      if (!slot.log.has_value()) continue;
      if (logged >= seal->slots.size() || seal->slots[logged].slot != id) {
        Differs("slot %d was not sealed", id);
        return;
      }
      CheckSealed(id, seal->slots[logged++], *slot.log);
    }
  }

  void CheckSealed(uint32_t id, const SlotSeal& seal, ModelLog& log) {
    const std::set<uint64_t> sealed = Listed(id, model_.log()->epoch - 1);
    const uint64_t counted = seal.fresh_page_count + seal.merged_page_count;
    if (sealed.size() != counted) {
      Differs("%d pages sealed, %d listed", counted, sealed.size());
    }
    CheckBounds(sealed, log.must_sealed, log.may_sealed);
    // From now on exactly the reported pages are left to be cleared.
    log.may_sealed = sealed;
  }

  void CheckBounds(const std::set<uint64_t>& got,
                   const std::set<uint64_t>& must,
                   const std::set<uint64_t>& may) {
    if (!Subset(must, got)) {
      for (const uint64_t page : must) {
        if (got.count(page) == 0) Differs("page %d was lost", page);
      }
    }
    if (!Subset(got, may)) {
      for (const uint64_t page : got) {
        if (may.count(page) == 0) {
          Differs("page %d is reported and was never touched", page);
        }
      }
    }
  }

  void Peek(uint32_t id) {
    const ModelLog* log = LogOf(id);
    if (log == nullptr) return;
    std::set<uint64_t> must = log->must_sealed;
    must.insert(log->must_open.begin(), log->must_open.end());
    std::set<uint64_t> may = log->may_sealed;
    may.insert(log->may_open.begin(), log->may_open.end());
    for (const auto& [page, epoch] : log->in_flight) {
      must.insert(page);
      may.insert(page);
    }
    CheckBounds(Listed(id, 0), must, may);
  }

  void Clear(uint32_t id, uint32_t first, uint32_t selector) {
    ModelLog* log = LogOf(id);
    if (log == nullptr) return;
    const uint64_t epoch = model_.log()->epoch - 1;
    const bool sealed = log->first_epoch <= epoch;
    const uint64_t pages = model_.slots()[id].pages;
    const uint64_t first_page = first % (pages / 64 + 1) * 64;
    const uint64_t count = pages - first_page;
    std::vector<uint64_t> mask((count + 63) / 64);
    std::set<uint64_t> before;
    if (sealed) before = Listed(id, epoch);
    std::vector<uint64_t> expected;
    for (uint64_t i = 0; i < count; ++i) {
      // Select every page, every second page, every third page, and so on.
      if (i % (selector % 4 + 1) != 0) continue;
      mask[i / 64] |= uint64_t{1} << (i % 64);
      if (before.count(first_page + i) != 0) expected.push_back(first_page + i);
    }
    Reason reason = Reason::kNone;
    if (!sealed) {
      reason = Reason::kEpochMismatch;
    } else if (model_.OtherEpochsInFlight(epoch) == kMaxEpochsInFlight) {
      reason = Reason::kLimitExceeded;
    }
    const absl::StatusOr<ClearResult> cleared =
        vm_->ClearDirtyLog(Call(), id, epoch, first_page, count, mask, nullptr);
    Expect(cleared.status(), reason);
    if (!cleared.ok()) return;
    if (cleared->cleared_page_count != expected.size()) {
      Differs("%d pages cleared, %d were set", cleared->cleared_page_count,
              expected.size());
    }
    ReferenceModel::Cleared(*log, expected, epoch);
    for (const uint64_t page : expected) {
      CheckProtected(model_.slots()[id].base_page + page);
    }
  }

  // Copies all pages that the owner has cleared to the destination.
  void Copy(uint32_t id) {
    ModelLog* log = LogOf(id);
    if (log == nullptr) return;
    ModelSlot& slot = model_.slots()[id];
    for (const uint64_t page : log->uncopied) {
      uint64_t word = 0;
      Expect(vm_->ReadMemory(ToGpa(Gfn(slot.base_page + page)),
                             absl::MakeSpan(reinterpret_cast<std::byte*>(&word),
                                            sizeof(word))),
             Reason::kNone);
      slot.copy[page] = word;
    }
    log->uncopied.clear();
  }

  // The epoch that is `before` epochs older than the newest sealed one; 0 if
  // there is none.
  uint64_t EpochBefore(uint32_t before) const {
    const uint64_t newest = SealedEpoch();
    if (newest == 0) return 0;
    return std::max(newest - std::min<uint64_t>(before % 4, newest),
                    model_.log()->first_epoch);
  }

  void Acknowledge(uint32_t before) {
    const uint64_t epoch = EpochBefore(before);
    if (epoch == 0) return;
    if (mistake_ == Mistake::kNone && !model_.MayAcknowledge(epoch)) return;
    const absl::StatusOr<AcknowledgeResult> result =
        vm_->AcknowledgePages(Call(), epoch);
    Expect(result.status(), Reason::kNone);
    if (!result.ok()) return;
    const uint64_t delivered = model_.Acknowledge(epoch);
    if (result->acknowledged_page_count != delivered) {
      Differs("%d pages delivered, %d were in flight",
              result->acknowledged_page_count, delivered);
    }
  }

  // Acknowledges all copied pages, or every second, every third, ... of them.
  // Some of these were cleared in a later epoch or not at all, which the log
  // must detect.
  void AcknowledgePages(uint32_t before, uint32_t id, uint32_t selector) {
    const uint64_t epoch = EpochBefore(before);
    ModelLog* log = LogOf(id);
    if (epoch == 0 || log == nullptr) return;
    const uint64_t pages = model_.slots()[id].pages;
    const uint64_t first_page = selector % 7 == 0 ? pages / 128 * 64 : 0;
    const uint64_t count = pages - first_page;
    std::vector<uint64_t> mask((count + 63) / 64);
    AcknowledgeResult expected;
    for (uint64_t i = 0; i < count; ++i) {
      const uint64_t page = first_page + i;
      if (i % (selector % 4 + 1) != 0) continue;
      if (mistake_ == Mistake::kNone && log->uncopied.count(page) != 0)
        continue;
      mask[i / 64] |= uint64_t{1} << (i % 64);
      if (ReferenceModel::AcknowledgePage(*log, page, epoch)) {
        ++expected.acknowledged_page_count;
      } else if (log->in_flight.count(page) != 0) {
        ++expected.later_page_count;
      } else {
        ++expected.not_in_flight_page_count;
      }
    }
    const absl::StatusOr<AcknowledgeResult> result =
        vm_->AcknowledgePages(Call(), epoch, id, first_page, count, mask);
    Expect(result.status(), Reason::kNone);
    if (!result.ok()) return;
    if (result->acknowledged_page_count != expected.acknowledged_page_count ||
        result->later_page_count != expected.later_page_count ||
        result->not_in_flight_page_count != expected.not_in_flight_page_count) {
      Differs("%d pages delivered, %d later, %d not in flight; not %d, %d, %d",
              result->acknowledged_page_count, result->later_page_count,
              result->not_in_flight_page_count,
              expected.acknowledged_page_count, expected.later_page_count,
              expected.not_in_flight_page_count);
    }
  }

  // The next owner has another key and does not know which pages the dead owner
  // copied.
  void TakeOver(bool by_force) {
    if (!model_.log().has_value()) return;
    const LogCall former = Call();
    // The lease began at the end of the start, a moment after the operation's
    // time.
    if (!by_force) now_ += 2 * Claim().lease;
    ++owner_;
    Expect(vm_->AcquireDirtyLog(
                  Claim(), absl::nullopt,
                  by_force ? LogOwner::Force::kYes : LogOwner::Force::kNo, now_,
                  nullptr)
               .status(),
           Reason::kNone);
    Expect(vm_->SealDirtyLog(former, 0, nullptr).status(), Reason::kLogFenced);
    for (auto& [id, slot] : model_.slots()) {
      if (slot.log.has_value()) ReferenceModel::Return(*slot.log);
    }
  }

  LogClaim Claim() const {
    return {.key = {.bytes = {static_cast<uint8_t>(owner_),
                              static_cast<uint8_t>(owner_ >> 8)}},
            .owner = absl::StrCat("owner ", owner_)};
  }
  LogCall Call() const { return {.key = Claim().key, .now = now_}; }

  // Verifies that each page whose copy differs from the guest's page is in the
  // log.
  void CheckCopies() {
    for (auto& [id, slot] : model_.slots()) {
      if (!slot.log.has_value()) continue;
      std::vector<uint64_t> differing;
      for (const auto& [page, word] : slot.contents) {
        const auto copy = slot.copy.find(page);
        if (copy == slot.copy.end() || copy->second != word) {
          differing.push_back(page);
        }
      }
      if (differing.empty()) continue;
      const std::set<uint64_t> undelivered = Listed(id, 0);
      for (const uint64_t page : differing) {
        if (undelivered.count(page) != 0) continue;
        Differs("page %d of slot %d is delivered, and its copy is an old one",
                page, id);
      }
    }
  }

  void CheckProtected(uint64_t page) {
    const Spte spte = SpteOf(vm_->state(), Gfn(page));
    const bool cpu_logs = vm_->state().cpu_dirty_log_entries() != 0 &&
                          !vm_->state().tdp.format().IsDirty(spte);
    if (spte.IsWritable() && !cpu_logs) {
      Differs("page %d was cleared and can be written unnoticed", page);
    }
  }

  void Split(uint64_t page, uint32_t b, uint32_t c) {
    SplitRequest request;
    request.ranges = {GfnRange::Of(Gfn(page), 3000)};
    request.order =
        b % 2 == 0 ? SplitOrder::kAscending : SplitOrder::kDescending;
    request.throttle.chunk_bytes = (int64_t{2} << 20) << (c % 4);
    if (c % 5 == 0) request.throttle.max_lock_hold = absl::Microseconds(10);
    const auto job = SplitJob::Create(vm_->state(), request);
    if (!job.ok()) {
      Expect(job.status(), Reason::kInvalidRange);
      return;
    }
    const uint64_t flushes = vm_->Stats().flush.remote_tlb_flush_requests;
    Expect((*job)->Run(), Reason::kNone);
    const SplitProgress progress = (*job)->Progress();
    if (progress.done_bytes != progress.total_bytes) Differs("split not done");
    if (vm_->Stats().flush.remote_tlb_flush_requests != flushes) {
      Differs("a split flushed");
    }
    for (const auto& [id, slot] : model_.slots()) {
      for (uint64_t p = slot.base_page; p < slot.base_page + slot.pages;
           p += 512) {
        if (p < page || p >= page + 3000) continue;
        if (LevelOf(vm_->state(), Gfn(p)) == Level::k2M) {
          Differs("page %d is huge after a split", p);
        }
      }
    }
  }

  void Recover(uint32_t id) {
    std::vector<GfnRange> ranges;
    bool logged = false;
    for (const auto& [slot_id, slot] : model_.slots()) {
      if (id < kSlots && slot_id != id) continue;
      logged |= slot.log.has_value();
      ranges.push_back(GfnRange::Of(Gfn(slot.base_page), slot.pages));
    }
    if (ranges.empty()) return;
    Expect(vm_->RecoverHugePages(ranges, nullptr).status(),
           logged ? Reason::kDirtyLogActive : Reason::kNone);
  }

  void Age(uint32_t a, bool clear) {
    for (const auto& [id, slot] : model_.slots()) {
      const GfnRange range =
          GfnRange::Of(Gfn(slot.base_page + a % slot.pages), 300)
              .Intersect(GfnRange::Of(Gfn(slot.base_page), slot.pages));
      const auto mode = clear ? AgeMode::kTestAndClear : AgeMode::kTest;
      const absl::StatusOr<AgeResult> aged = vm_->Age(range, mode, nullptr);
      Expect(aged.status(), Reason::kNone);
      if (!aged.ok()) return;
      if (PagesOf(aged->young).size() != aged->young_page_count) {
        Differs("%d young pages, the bitmap has others",
                aged->young_page_count);
      }
      if (clear && vm_->Age(range, mode, nullptr)->young_page_count != 0) {
        Differs("pages are young right after their bits were cleared");
      }
    }
  }

  // Verifies that every leaf maps the page of its slot and is not larger than
  // allowed, and that the page counts are right. The auditor verifies this and
  // more by other means.
  void CheckTables() {
    uint64_t small = 0;
    uint64_t huge = 0;
    const std::vector<Mapping> mappings = AllMappings(vm_->state());
    RcuReadGuard rcu;
    for (const Mapping& m : mappings) {
      ++(m.level == Level::k4K ? small : huge);
      ModelSlot* slot = model_.SlotAt(m.gfn);
      if (slot == nullptr) {
        Differs("page %d is mapped and in no slot", m.gfn);
        return;
      }
      if (ToInt(m.level) > slot->host_level ||
          m.gfn + PagesPer(m.level) > slot->base_page + slot->pages) {
        Differs("page %d is mapped at level %d", m.gfn, ToInt(m.level));
      }
      const bool writable = m.flags.find('w') != std::string::npos;
      if (writable && slot->readonly) Differs("page %d is read-only", m.gfn);
      if (writable && m.level > Level::k4K && slot->log.has_value() &&
          model_.log()->config.initially_set == InitiallySet::kNo) {
        Differs("page %d is huge and writable in a logged slot", m.gfn);
      }
    }
    const VmStatsSnapshot stats = vm_->Stats();
    if (stats.pages_4k != small || stats.pages_2m != huge) {
      Differs("pages_4k %d and pages_2m %d, a walk finds %d and %d",
              stats.pages_4k, stats.pages_2m, small, huge);
    }
  }

  const int vcpus_;
  const Mistake mistake_;
  std::unique_ptr<Vm> vm_;
  ReferenceModel model_;
  uint64_t stamp_ = 0;
  uint32_t owner_ = 1;
  MonotonicTime now_ = MonotonicTime::Now();
  std::string problem_;
};

}  // namespace

std::string ToString(const Operation& op) {
  return absl::StrFormat("{Operation::Kind::%s, %d, %d, %d},",
                         kNames[static_cast<int>(op.kind)], op.a, op.b, op.c);
}

std::ostream& operator<<(std::ostream& os, const Operation& op) {
  return os << ToString(op);
}

std::string RunOperations(const std::vector<Operation>& operations, int vcpus,
                          VmConfig::Pml pml, Mistake mistake) {
  Comparison comparison(vcpus, pml, mistake);
  for (size_t i = 0; i < operations.size(); ++i) {
    const std::string problem = comparison.Step(operations[i]);
    if (problem.empty()) continue;
    std::string report =
        absl::StrCat(problem, "\nafter step ", i, " of RunOperations({\n");
    for (size_t j = 0; j <= i; ++j) {
      absl::StrAppend(&report, "    ", ToString(operations[j]), "\n");
    }
    return absl::StrCat(
        report, "}, ", vcpus,
        pml == VmConfig::Pml::kYes ? ", VmConfig::Pml::kYes)" : ")");
  }
  return "";
}

}  // namespace mmu::testing
