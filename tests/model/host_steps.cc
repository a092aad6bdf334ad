#include "tests/model/host_steps.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/types/optional.h"
#include "absl/types/span.h"
#include "mmu_core/base/error.h"
#include "mmu_core/dirty/slot_log.h"
#include "mmu_core/memory/guest_memory_access.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/paging/tdp_cursor.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/jobs/nx_recovery.h"
#include "mmu_core/vm/jobs/split_job.h"
#include "mmu_core/vm/slots/host_notifier.h"
#include "mmu_core/vm/vcpu/shadow_vcpu.h"
#include "mmu_core/vm/vcpu/stage2_vcpu.h"
#include "mmu_core/vm/vcpu/vcpu.h"
#include "mmu_core/vm/vm_state.h"
#include "tests/model/guest_layout.h"

namespace mmu::testing {
namespace {

// The slots that come and go.
constexpr uint32_t kSlots = 3;
// Accesses by guest-physical address go to the places and to the data of slot 3
// that is mapped by large pages, too.
constexpr uint64_t kAccessed = kWorld + (kGuestPages - kLargeData);

const std::array<DirtyLogConfig, 5> kModes = {{
    {{}, InitiallySet::kNo, SplitPolicy::kNone},
    {{}, InitiallySet::kNo, SplitPolicy::kEager},
    {{}, InitiallySet::kYes, SplitPolicy::kNone},
    {{}, InitiallySet::kYes, SplitPolicy::kOnClear},
    {{}, InitiallySet::kNo, SplitPolicy::kNone},
}};

constexpr std::array<uint64_t, 4> kLimits = {64, 80, 200, 2000};

}  // namespace

HostSteps::HostSteps(Vm& vm, const ModelConfig& config, NxParameters& nx,
                     GuestPort& port, ReferenceModel& model,
                     ModelMemory& memory, OwnerMistake mistake)
    : vm_(vm),
      config_(config),
      nx_(nx),
      port_(port),
      model_(model),
      memory_(memory),
      mistake_(mistake),
      granule_(PagesPerGranule(config.vm)),
      scale_(ScaleOf(config.vm)) {}

void HostSteps::MakeGuestSlot() {
  MakeSlot(kGuestSlot, kGuestBase,
           {kGuestPages, 0, config_.guest_host_level, false});
}

void HostSteps::Step(const Operation& op) {
  using Kind = Operation::Kind;
  const uint64_t page = PageOf(op.a);
  switch (op.kind) {
    case Kind::kRead:
      Access(page, AccessKind::kRead, op.b);
      break;
    case Kind::kWrite:
      Access(page, AccessKind::kWrite, op.b);
      break;
    case Kind::kExec:
      Access(page, AccessKind::kExec, op.b);
      break;
    case Kind::kSweep:
      for (uint64_t i = 0; i < 40; ++i) {
        // Not into the tables, and not past the memory that a guest reaches.
        const uint64_t at = page + i * granule_;
        if (at == kGuestBase || at == kGuestBase + kGuestPages) break;
        Access(at, AccessKind::kWrite, op.b);
      }
      break;
    case Kind::kCreate:
      Create(op.a % kSlots, op.b % kPlaces, op.c);
      break;
    case Kind::kDelete:
      Delete(op.a % kSlots);
      break;
    case Kind::kMove:
      Move(op.a % kSlots, op.b % kPlaces, op.c);
      break;
    case Kind::kStart:
      Start(op.a % (kSlots + 2), op.b);
      break;
    case Kind::kStop:
      Stop(op.b % 2 == 1, op.c % 2 == 1);
      break;
    case Kind::kSeal:
      Seal(op.b % 2 == 1);
      break;
    case Kind::kPeek:
      Peek(op.a % ReferenceModel::kSlots);
      break;
    case Kind::kClear:
      Clear(op.a % ReferenceModel::kSlots, op.b, op.c);
      break;
    case Kind::kCopy:
      Copy(op.a % ReferenceModel::kSlots);
      break;
    case Kind::kAcknowledge:
      Acknowledge(op.a);
      break;
    case Kind::kAckPages:
      AcknowledgePages(op.a, op.b % ReferenceModel::kSlots, op.c);
      break;
    case Kind::kTakeOver:
      TakeOver(op.b % 2 == 1);
      break;
    case Kind::kSplit:
      Split(op.a % kWorld * scale_, op.b, op.c);
      break;
    case Kind::kRecover:
      Recover(op.a % (kSlots + 2));
      break;
    case Kind::kAge:
      Age(op.a, op.b % 2 == 1);
      break;
    case Kind::kDropTlb: {
      const size_t vcpu = op.a % static_cast<uint32_t>(config_.vcpus);
      Vcpu& dropping = *vm_.state().vcpus[vcpu];
      dropping.tlb().DropRandom(op.b);
      if (dropping.stage2() != nullptr) dropping.stage2()->DropRandom(op.b);
      if (dropping.shadow() != nullptr) {
        dropping.shadow()->tlb().DropRandom(op.b);
      }
      break;
    }
    case Kind::kZapAll: {
      MutexLock lock(vm_.state().slots.slots_lock);
      vm_.state().mmus.FastZapAll(LockOp::kZap, nullptr);
      break;
    }
    case Kind::kHostWrite:
      HostWrite(page);
      break;
    case Kind::kHostUnmap:
      HostUnmap(page, op.b % 32 + 1);
      break;
    case Kind::kLimit:
      if (HasShadowPages(config_.vm)) {
        Expect(vm_.SetShadowPageLimit(kLimits[op.a % kLimits.size()], nullptr),
               Reason::kNone);
      }
      break;
    case Kind::kNxHuge:
      SetNxHuge(op.b % 2 == 1);
      break;
    case Kind::kNxRecover:
      RecoverNxHugePages(vm_.state(), op.a % 4);
      break;
    default:
      break;
  }
  Differs("%s", port_.error());
}

uint64_t HostSteps::PageOf(uint32_t a) const {
  const uint64_t page = a % kAccessed;
  const uint64_t scaled = page * scale_ + a / kAccessed % scale_;
  return page < kWorld ? scaled : scaled + kLargeData * scale_;
}

void HostSteps::CheckAll() {
  CheckTables();
  Differs("%s", AuditFindings(vm_));
  CheckCopies();
}

void HostSteps::Expect(const absl::Status& status, Reason reason) {
  if (status.ok() != (reason == Reason::kNone) ||
      DetailOf(status).reason != reason) {
    Differs("expected error '%s', got %s", std::string(ToString(reason)),
            status.ToString());
  }
}

// --- Accesses. ---

void HostSteps::Access(uint64_t page, AccessKind kind, uint32_t vcpu) {
  uint64_t word = memory_.NewValue();
  const uint64_t value = word;
  const int on = static_cast<int>(vcpu % static_cast<uint32_t>(config_.vcpus));
  const AccessOutcome outcome = port_.Access(on, page, kind, &word);
  const bool write = kind == AccessKind::kWrite;
  const uint64_t expected = memory_.WordOf(page);
  const bool emulated =
      expected == kNoMemory || (write && !memory_.IsWritable(page));
  // A guest without a second stage does not see that its access is emulated.
  if (outcome != AccessOutcome::kDone &&
      !(emulated && outcome == AccessOutcome::kEmulated)) {
    Differs("page %d: the access came to %d", page, static_cast<int>(outcome));
    return;
  }
  if (emulated && outcome == AccessOutcome::kDone &&
      config_.vm.mmu != MmuMode::kShadow) {
    Differs("page %d: the access was not emulated", page);
  }
  // A read of a page that the tables of x86 map writable marks it (DL-18). On
  // stage 2 only a write does (ARM-36).
  if (write || !RunsOnStage2(config_.vm)) memory_.Touched(page);
  if (write) {
    memory_.Written(page, value);
  } else if (outcome == AccessOutcome::kDone && word != expected) {
    Differs("page %d reads %d, last written was %d", page, word, expected);
  }
}

// A write by no vCPU, as a device or the host's emulation makes it. With dirty
// rings it is noted in the companion bitmaps; a VM that has none makes no such
// write (DL-46).
void HostSteps::HostWrite(uint64_t page) {
  if (!vm_.state().slots_have_bitmaps()) return;
  GuestMemoryAccess memory(vm_.state().slots, /*as_id=*/0, /*ring=*/nullptr);
  const uint64_t value = memory_.NewValue();
  const GuestWordResult result = memory.CompareExchange(
      Gpa(page << kPageShift), WordSize::k8, memory_.WordOf(page), value);
  const GuestWordResult expected =
      memory_.WordOf(page) == kNoMemory ? GuestWordResult::kNoSlot
      : memory_.IsWritable(page)        ? GuestWordResult::kDone
                                        : GuestWordResult::kReadonly;
  if (result != expected) {
    Differs("page %d: a write past the tables came to %d", page,
            static_cast<int>(result));
  }
  memory_.Written(page, value);
}

// The host takes the pages out of all tables, as it does before it moves them
// elsewhere; their contents stay.
void HostSteps::HostUnmap(uint64_t page, uint64_t pages) {
  const ModelSlot* slot = model_.SlotAt(page);
  if (slot == nullptr) return;
  const uint64_t bytes = std::min(pages, slot->base_page + slot->pages - page)
                         << kPageShift;
  Hva start;
  {
    RcuReadGuard rcu;
    start = vm_.state()
                .slots.Active(/*as_id=*/0)
                .FindByGfn(Gfn(page))
                ->HvaOf(Gfn(page));
  }
  const HvaRange range = {start, start + bytes};
  InvalidateRangeStart(vm_.state(), range, MayYield::kYes);
  InvalidateRangeEnd(vm_.state(), range);
}

// --- Memslots. ---

bool HostSteps::Overlaps(uint32_t id, uint64_t base, uint64_t pages) const {
  bool overlaps = false;
  model_.ForEachSlot([&](uint32_t other_id, const ModelSlot& other) {
    overlaps |= other_id != id && base < other.base_page + other.pages &&
                other.base_page < base + pages;
  });
  return overlaps;
}

MemslotConfig HostSteps::ConfigOf(uint32_t id, const ModelSlot& slot) const {
  MemslotConfig config =
      Slot(id, slot.base_page << kPageShift, slot.pages << kPageShift,
           static_cast<Level>(slot.host_level));
  config.mode = slot.readonly ? MemslotConfig::Mode::kReadOnly
                              : MemslotConfig::Mode::kReadWrite;
  return config;
}

void HostSteps::MakeSlot(uint32_t id, uint64_t base, const Shape& shape) {
  ModelSlot slot;
  slot.base_page = base;
  slot.pages = shape.pages;
  slot.host_level = ToInt(shape.host_level);
  slot.readonly = shape.readonly;
  const bool overlaps = Overlaps(id, slot.base_page, slot.pages);
  Expect(vm_.SetMemslot(ConfigOf(id, slot)),
         overlaps ? Reason::kRegionOverlap : Reason::kNone);
  if (overlaps) return;
  slot.contents.resize(slot.pages);
  slot.copy.resize(slot.pages);
  model_.slot(id) = std::move(slot);
  if (!shape.readonly) model_.JoinLog(*model_.slot(id));
}

void HostSteps::Create(uint32_t id, uint64_t place, uint32_t c) {
  static constexpr std::array<Shape, 6> kShapes = {{
      {1024, 0, Level::k2M, false},
      {700, 0, Level::k2M, false},   // the tail is too small for a huge page
      {1024, 5, Level::k2M, false},  // not aligned to huge pages
      {300, 0, Level::k4K, false},
      {2048, 0, Level::k2M, false},
      {512, 0, Level::k2M, true},
  }};
  if (model_.slot(id).has_value()) return;
  Shape shape = kShapes[c % kShapes.size()];
  shape.pages *= scale_;
  // No block of the larger granules fits into 2 MiB.
  if (granule_ != 1 && shape.host_level == Level::k2M) {
    shape.host_level = Level::k1G;
  }
  MakeSlot(id, place * kPlaceStride * scale_ + shape.offset * granule_, shape);
}

void HostSteps::Delete(uint32_t id) {
  const bool exists = model_.slot(id).has_value();
  model_.slot(id).reset();
  Expect(vm_.SetMemslot(Slot(id, 0, 0)),
         exists ? Reason::kNone : Reason::kMemslotNotFound);
}

void HostSteps::Move(uint32_t id, uint64_t place, uint32_t c) {
  std::optional<ModelSlot>& slot = model_.slot(id);
  if (!slot.has_value()) return;
  const uint64_t base = place * kPlaceStride * scale_ + c % 3 * granule_;
  const bool overlaps = Overlaps(id, base, slot->pages);
  MemslotConfig config = ConfigOf(id, *slot);
  config.gpa = ToGpa(Gfn(base));
  Expect(vm_.SetMemslot(config),
         overlaps ? Reason::kRegionOverlap : Reason::kNone);
  if (overlaps || slot->base_page == base) return;
  slot->base_page = base;
  if (slot->log.has_value()) {
    slot->log->first_epoch = model_.log()->epoch;
    ReferenceModel::Return(*slot->log);
  }
}

// --- The dirty log. ---

void HostSteps::Start(uint32_t id, uint32_t mode) {
  DirtyLogConfig config = kModes[mode % kModes.size()];
  const bool all = id >= ReferenceModel::kSlots;
  if (!all) config.slots = {id};
  std::vector<ModelSlot*> slots;
  model_.ForEachSlot([&](uint32_t slot_id, ModelSlot& slot) {
    // "All slots" means all writable slots.
    if (all ? slot.readonly : slot_id != id) return;
    slots.push_back(&slot);
  });
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
  Expect(vm_.StartDirtyLog(start, nullptr).status(), reason);
  if (reason == Reason::kNone && !model_.log().has_value()) {
    model_.StartLog(slots, config);
  }
}

void HostSteps::Stop(bool recover, bool discard) {
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
  Expect(vm_.StopDirtyLog(stop, nullptr).status(), reason);
  if (reason == Reason::kNone) model_.StopLog();
}

bool HostSteps::SomethingIsDirty() {
  bool dirty = false;
  model_.ForEachSlot([&](uint32_t id, const ModelSlot& slot) {
    dirty |= slot.log.has_value() && !Listed(id, 0).Empty();
  });
  return dirty;
}

ModelLog* HostSteps::LogOf(uint32_t id) {
  std::optional<ModelSlot>& slot = model_.slot(id);
  return slot.has_value() && slot->log.has_value() ? &*slot->log : nullptr;
}

PageSet HostSteps::Listed(uint32_t id, uint64_t epoch) {
  const uint64_t pages = model_.slot(id)->pages;
  std::vector<uint64_t> words((pages + 63) / 64);
  // Pages in dirty rings and companion bitmaps are in no epoch yet.
  if (epoch == 0) Expect(vm_.TakeInNotedPages(), Reason::kNone);
  Expect(ReadLog(vm_, id, epoch, 0, absl::MakeSpan(words)), Reason::kNone);
  return PageSet(pages, words);
}

uint64_t HostSteps::SealedEpoch() const {
  const std::optional<ModelVmLog>& log = model_.log();
  return log.has_value() && log->epoch > log->first_epoch ? log->epoch - 1 : 0;
}

uint64_t HostSteps::EpochBefore(uint32_t before) const {
  const uint64_t newest = SealedEpoch();
  if (newest == 0) return 0;
  return std::max(newest - std::min<uint64_t>(before % 4, newest),
                  model_.log()->first_epoch);
}

void HostSteps::Seal(bool acknowledges) {
  const uint64_t acknowledged =
      acknowledges && model_.MayAcknowledge(SealedEpoch()) ? SealedEpoch() : 0;
  const absl::StatusOr<SealOutcome> seal =
      vm_.SealDirtyLog(Call(), acknowledged, nullptr);
  Expect(seal.status(),
         model_.log().has_value() ? Reason::kNone : Reason::kDirtyLogOff);
  if (!seal.ok() || !model_.log().has_value()) return;
  if (seal->epoch != model_.log()->epoch) Differs("epoch %d", seal->epoch);
  const uint64_t delivered = model_.Acknowledge(acknowledged);
  if (seal->acknowledged_page_count != delivered) {
    Differs("%d pages delivered, %d were in flight",
            seal->acknowledged_page_count, delivered);
  }
  model_.Seal();
  size_t logged = 0;
  model_.ForEachSlot([&](uint32_t id, ModelSlot& slot) {
    if (!slot.log.has_value()) return;
    if (logged >= seal->slots.size() || seal->slots[logged].slot != id) {
      Differs("slot %d was not sealed", id);
      return;
    }
    CheckSealed(id, seal->slots[logged++], *slot.log);
  });
}

void HostSteps::CheckSealed(uint32_t id, const SlotSeal& seal, ModelLog& log) {
  const PageSet sealed = Listed(id, model_.log()->epoch - 1);
  const uint64_t counted = seal.fresh_page_count + seal.merged_page_count;
  if (sealed.Count() != counted) {
    Differs("%d pages sealed, %d listed", counted, sealed.Count());
  }
  CheckBounds(sealed, log.must_sealed, log.may_sealed);
  // From now on exactly the reported pages are left to be cleared.
  log.may_sealed = sealed;
}

void HostSteps::CheckBounds(const PageSet& got, const PageSet& must,
                            const PageSet& may) {
  if (const uint64_t page = must.FirstNotIn(got); page != must.limit()) {
    Differs("page %d was lost", page);
  }
  if (const uint64_t page = got.FirstNotIn(may); page != got.limit()) {
    Differs("page %d is reported and was never touched", page);
  }
}

void HostSteps::Peek(uint32_t id) {
  const ModelLog* log = LogOf(id);
  if (log == nullptr) return;
  PageSet must = log->must_sealed;
  must.Merge(log->must_open);
  PageSet may = log->may_sealed;
  may.Merge(log->may_open);
  for (uint64_t page = 0; page < log->in_flight.size(); ++page) {
    if (log->in_flight[page] == 0) continue;
    must.Insert(page);
    may.Insert(page);
  }
  CheckBounds(Listed(id, 0), must, may);
}

void HostSteps::Clear(uint32_t id, uint32_t first, uint32_t selector) {
  ModelLog* log = LogOf(id);
  if (log == nullptr) return;
  const uint64_t epoch = model_.log()->epoch - 1;
  const bool sealed = log->first_epoch <= epoch;
  const uint64_t pages = model_.slot(id)->pages;
  const uint64_t first_page = first % (pages / 64 + 1) * 64;
  const uint64_t count = pages - std::min(first_page, pages);
  if (count == 0) return;
  std::vector<uint64_t> mask((count + 63) / 64);
  const PageSet before = sealed ? Listed(id, epoch) : PageSet(pages);
  std::vector<uint64_t> expected;
  for (uint64_t i = 0; i < count; ++i) {
    // Select every page, every second page, every third page, and so on.
    if (i % (selector % 4 + 1) != 0) continue;
    mask[i / 64] |= uint64_t{1} << (i % 64);
    if (before.Contains(first_page + i)) expected.push_back(first_page + i);
  }
  Reason reason = Reason::kNone;
  if (!sealed) {
    reason = Reason::kEpochMismatch;
  } else if (model_.OtherEpochsInFlight(epoch) == kMaxEpochsInFlight) {
    reason = Reason::kLimitExceeded;
  }
  const absl::StatusOr<ClearResult> cleared =
      vm_.ClearDirtyLog(Call(), id, epoch, first_page, count, mask, nullptr);
  Expect(cleared.status(), reason);
  if (!cleared.ok()) return;
  if (cleared->cleared_page_count != expected.size()) {
    Differs("%d pages cleared, %d were set", cleared->cleared_page_count,
            expected.size());
  }
  ReferenceModel::Cleared(*log, expected, epoch);
  if (config_.vm.stage2.dirty_state == Stage2Config::DirtyState::kByHardware) {
    // A note in the tables, from before the clear, may have been collected once
    // more since the seal.
    for (const uint64_t page : expected) log->may_open.Insert(page);
  }
  // A look at each of many pages takes long; the auditor looks at all.
  const size_t looks = std::min<size_t>(expected.size(), 16);
  for (size_t i = 0; i < looks; ++i) {
    CheckProtected(model_.slot(id)->base_page + expected[i]);
  }
}

void HostSteps::Copy(uint32_t id) {
  ModelLog* log = LogOf(id);
  if (log == nullptr) return;
  ModelSlot& slot = *model_.slot(id);
  log->uncopied.ForEach([&](uint64_t page) {
    if (memory_.IsInPool(slot.base_page + page)) {
      return CopyPoolPage(slot, page);
    }
    uint64_t word = 0;
    Expect(vm_.ReadMemory(ToGpa(Gfn(slot.base_page + page)),
                          absl::MakeSpan(reinterpret_cast<std::byte*>(&word),
                                         sizeof(word))),
           Reason::kNone);
    slot.copy[page] = word;
  });
  log->uncopied.Clear();
}

// Of a page that may be a table, all words are compared here. The copy is
// correct until the page changes.
void HostSteps::CopyPoolPage(ModelSlot& slot, uint64_t page) {
  std::array<uint64_t, ModelMemory::kWordsPerPage> words;
  Expect(
      vm_.ReadMemory(ToGpa(Gfn(slot.base_page + page)),
                     absl::MakeSpan(reinterpret_cast<std::byte*>(words.data()),
                                    sizeof(words))),
      Reason::kNone);
  const absl::Span<const uint64_t> expected =
      memory_.PoolWords(slot.base_page + page);
  if (!std::equal(words.begin(), words.end(), expected.begin())) {
    Differs("the copy of page %d of slot %d differs", page, kGuestSlot);
  }
  slot.copy[page] = slot.contents[page];
}

void HostSteps::Acknowledge(uint32_t before) {
  const uint64_t epoch = EpochBefore(before);
  if (epoch == 0) return;
  if (mistake_ == OwnerMistake::kNone && !model_.MayAcknowledge(epoch)) return;
  const absl::StatusOr<AcknowledgeResult> result =
      vm_.AcknowledgePages(Call(), epoch);
  Expect(result.status(), Reason::kNone);
  if (!result.ok()) return;
  const uint64_t delivered = model_.Acknowledge(epoch);
  if (result->acknowledged_page_count != delivered) {
    Differs("%d pages delivered, %d were in flight",
            result->acknowledged_page_count, delivered);
  }
}

void HostSteps::AcknowledgePages(uint32_t before, uint32_t id,
                                 uint32_t selector) {
  const uint64_t epoch = EpochBefore(before);
  ModelLog* log = LogOf(id);
  if (epoch == 0 || log == nullptr) return;
  const uint64_t pages = model_.slot(id)->pages;
  const uint64_t first_page = selector % 7 == 0 ? pages / 128 * 64 : 0;
  const uint64_t count = pages - first_page;
  std::vector<uint64_t> mask((count + 63) / 64);
  AcknowledgeResult expected;
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t page = first_page + i;
    if (i % (selector % 4 + 1) != 0) continue;
    if (mistake_ == OwnerMistake::kNone && log->uncopied.Contains(page)) {
      continue;
    }
    mask[i / 64] |= uint64_t{1} << (i % 64);
    if (ReferenceModel::AcknowledgePage(*log, page, epoch)) {
      ++expected.acknowledged_page_count;
    } else if (log->in_flight[page] != 0) {
      ++expected.later_page_count;
    } else {
      ++expected.not_in_flight_page_count;
    }
  }
  const absl::StatusOr<AcknowledgeResult> result =
      vm_.AcknowledgePages(Call(), epoch, id, first_page, count, mask);
  Expect(result.status(), Reason::kNone);
  if (!result.ok()) return;
  if (result->acknowledged_page_count != expected.acknowledged_page_count ||
      result->later_page_count != expected.later_page_count ||
      result->not_in_flight_page_count != expected.not_in_flight_page_count) {
    Differs("%d pages delivered, %d later, %d not in flight; not %d, %d, %d",
            result->acknowledged_page_count, result->later_page_count,
            result->not_in_flight_page_count, expected.acknowledged_page_count,
            expected.later_page_count, expected.not_in_flight_page_count);
  }
}

void HostSteps::TakeOver(bool by_force) {
  if (!model_.log().has_value()) return;
  const LogCall former = Call();
  // The lease began at the end of the start, by the clock: a moment after the
  // operation's time, or long after it if the process was stopped meanwhile.
  if (!by_force) {
    now_ = std::max(now_, MonotonicTime::Now()) + 2 * Claim().lease;
  }
  ++owner_;
  Expect(vm_.AcquireDirtyLog(
                Claim(), absl::nullopt,
                by_force ? LogOwner::Force::kYes : LogOwner::Force::kNo, now_,
                nullptr)
             .status(),
         Reason::kNone);
  Expect(vm_.SealDirtyLog(former, 0, nullptr).status(), Reason::kLogFenced);
  model_.ForEachSlot([](uint32_t, ModelSlot& slot) {
    if (slot.log.has_value()) ReferenceModel::Return(*slot.log);
  });
}

LogClaim HostSteps::Claim() const {
  return {.key = {.bytes = {static_cast<uint8_t>(owner_),
                            static_cast<uint8_t>(owner_ >> 8),
                            static_cast<uint8_t>(owner_ >> 16)}},
          .owner = absl::StrCat("owner ", owner_)};
}

// --- The tables. ---

void HostSteps::Split(uint64_t page, uint32_t b, uint32_t c) {
  SplitRequest request;
  const uint64_t pages = 3000 * scale_;
  request.ranges = {GfnRange::Of(Gfn(page), pages)};
  request.order = b % 2 == 0 ? SplitOrder::kAscending : SplitOrder::kDescending;
  request.throttle.chunk_bytes = (int64_t{2} << 20) << (c % 4);
  if (c % 5 == 0) request.throttle.max_lock_hold = absl::Microseconds(10);
  const auto job = SplitJob::Create(vm_.state(), request);
  if (!job.ok()) {
    Expect(job.status(), Reason::kInvalidRange);
    return;
  }
  const uint64_t flushes = vm_.Stats().flush.remote_tlb_flush_requests;
  Expect((*job)->Run(), Reason::kNone);
  const SplitProgress progress = (*job)->Progress();
  if (progress.done_bytes != progress.total_bytes) Differs("split not done");
  if (HasShadowPages(config_.vm)) return;
  // On stage 2 a split invalidates (ARM-06).
  if (!RunsOnStage2(config_.vm) &&
      vm_.Stats().flush.remote_tlb_flush_requests != flushes) {
    Differs("a split flushed");
  }
  model_.ForEachSlot([&](uint32_t, const ModelSlot& slot) {
    for (uint64_t p = slot.base_page; p < slot.base_page + slot.pages;
         p += 512 * scale_) {
      if (p < page || p >= page + pages) continue;
      if (LevelOf(vm_.state(), Gfn(p)) == Level::k2M) {
        Differs("page %d is huge after a split", p);
      }
    }
  });
}

void HostSteps::Recover(uint32_t id) {
  std::vector<GfnRange> ranges;
  bool logged = false;
  model_.ForEachSlot([&](uint32_t slot_id, const ModelSlot& slot) {
    if (id < ReferenceModel::kSlots && slot_id != id) return;
    logged |= slot.log.has_value();
    ranges.push_back(GfnRange::Of(Gfn(slot.base_page), slot.pages));
  });
  if (ranges.empty()) return;
  Expect(vm_.RecoverHugePages(ranges, nullptr).status(),
         logged ? Reason::kDirtyLogActive : Reason::kNone);
}

void HostSteps::Age(uint32_t a, bool clear) {
  model_.ForEachSlot([&](uint32_t, const ModelSlot& slot) {
    const GfnRange range =
        GfnRange::Of(Gfn(slot.base_page + a % slot.pages), 300 * granule_)
            .Intersect(GfnRange::Of(Gfn(slot.base_page), slot.pages));
    const auto mode = clear ? AgeMode::kTestAndClear : AgeMode::kTest;
    const absl::StatusOr<AgeResult> aged = vm_.Age(range, mode, nullptr);
    Expect(aged.status(), Reason::kNone);
    if (!aged.ok()) return;
    if (PagesOf(aged->young).size() != aged->young_page_count) {
      Differs("%d young pages, the bitmap has others", aged->young_page_count);
    }
    if (clear && vm_.Age(range, mode, nullptr)->young_page_count != 0) {
      Differs("pages are young right after their bits were cleared");
    }
  });
}

void HostSteps::SetNxHuge(bool on) {
  Expect(nx_.SetNxHugePages(on ? "force" : "off"), Reason::kNone);
}

// --- Checks. ---

void HostSteps::CheckCopies() {
  model_.ForEachSlot([&](uint32_t id, const ModelSlot& slot) {
    if (!slot.log.has_value() || slot.contents == slot.copy) return;
    const PageSet undelivered = Listed(id, 0);
    for (uint64_t page = 0; page < slot.pages; ++page) {
      if (slot.contents[page] == slot.copy[page]) continue;
      if (undelivered.Contains(page)) continue;
      Differs("page %d of slot %d is delivered, and its copy is an old one",
              page, id);
    }
  });
}

void HostSteps::CheckProtected(uint64_t page) {
  // With dirty rings, an entry that was noted since the seal tells of a write,
  // too; then the page need not be protected. The auditor knows.
  if (!RunsOnTdp(config_.vm) || vm_.state().has_dirty_rings()) return;
  const Spte spte = SpteOf(vm_.state(), Gfn(page));
  const bool cpu_logs = vm_.state().cpu_dirty_log_entries() != 0 &&
                        !vm_.state().tdp.format().IsDirty(spte);
  if (spte.IsWritable() && !cpu_logs) {
    Differs("page %d was cleared and can be written unnoticed", page);
  }
}

void HostSteps::CheckTables() {
  if (!RunsOnTdp(config_.vm)) return;
  uint64_t small = 0;
  uint64_t huge = 0;
  const std::vector<Mapping> mappings = AllMappings(vm_.state());
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
  // The other MMU of a nested VM has mappings of its own.
  if (HasShadowPages(config_.vm)) return;
  const VmStatsSnapshot stats = vm_.Stats();
  if (stats.pages_4k != small || stats.pages_2m != huge) {
    Differs("pages_4k %d and pages_2m %d, a walk finds %d and %d",
            stats.pages_4k, stats.pages_2m, small, huge);
  }
}

}  // namespace mmu::testing
