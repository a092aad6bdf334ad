#include "mmu_core/guest/hypervisor/smp_l2_program.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/status/statusor.h"
#include "mmu_core/base/format.h"

namespace mmu {
namespace {

// More than an access needs, also if other processors undo them.
constexpr int kMaxGrants = 256;

// The errors with which L1 refuses an operation that is not possible now.
absl::Status UnlessRefused(const absl::Status& status) {
  return absl::IsFailedPrecondition(status) ? absl::OkStatus() : status;
}

}  // namespace

SmpL2Program::SmpL2Program(L1Cpu& cpu, SmpL2Shared& shared, int index)
    : shared_(shared),
      index_(index),
      neighbour_((index + 1) % shared.options.cpus),
      hypervisor_(cpu, shared.l1, index),
      random_(MixBits(shared.options.seed * 64 + static_cast<uint64_t>(index))),
      knowledge_(static_cast<size_t>(shared.options.guests)) {
  for (Knowledge& guest : knowledge_) {
    guest.own.resize(shared.options.pages);
    guest.neighbour.resize(shared.options.pages);
  }
}

absl::Status SmpL2Program::Step() {
  if (absl::Status s = Change(); !s.ok()) return s;
  if (Due(shared_.options.steps_per_switch)) {
    guest_ = static_cast<int>(
        UniformBelow(random_, static_cast<uint64_t>(shared_.options.guests)));
  }
  hypervisor_.Select(guest_);
  const uint64_t page = UniformBelow(random_, shared_.options.pages);
  switch (UniformBelow(random_, 8)) {
    case 0:
    case 1:
    case 2:
    case 3:
      return WriteOwn(page);
    case 4:
    case 5:
      return ReadOwn(guest_, page);
    default:
      return ReadNeighbour(page);
  }
}

Gpa SmpL2Program::SelectAnyPage() {
  const SmpL2Options& options = shared_.options;
  const int guest = static_cast<int>(UniformBelow(
      random_, static_cast<uint64_t>(options.guests + options.other_guests)));
  hypervisor_.Select(guest);
  if (guest < options.guests) {
    return PageAt(UniformBelow(random_, options.pages));
  }
  return Gpa(UniformBelow(random_, options.other_pages) * kPageSize);
}

absl::Status SmpL2Program::Change() {
  const SmpL2Options& options = shared_.options;
  const auto any_guest = [&] {
    return static_cast<int>(
        UniformBelow(random_, static_cast<uint64_t>(options.guests)));
  };
  const auto any_page = [&] { return UniformBelow(random_, options.pages); };
  absl::Status status;
  if (Due(options.steps_per_unmap)) status = Unmap(any_guest(), any_page());
  if (status.ok() && Due(options.steps_per_free_table)) {
    status = FreeTable(any_guest(), any_page());
  }
  if (status.ok() && Due(options.steps_per_protect)) {
    status = Forbid(SelectAnyPage());
  }
  if (status.ok() && Due(options.steps_per_remap)) {
    const Gpa page = SelectAnyPage();
    status = hypervisor_.Remap(page);
  }
  if (status.ok() && Due(options.steps_per_promote)) {
    status = Promote(SelectAnyPage());
  }
  if (status.ok() && Due(options.steps_per_demote)) {
    const Gpa page = SelectAnyPage();
    status = UnlessRefused(hypervisor_.Demote(page));
  }
  if (status.ok() && Due(options.steps_per_take_dirty)) {
    status = TakeDirty(any_guest());
  }
  return status;
}

absl::Status SmpL2Program::Unmap(int guest, uint64_t page) {
  std::atomic<uint64_t>& stamp = HistoryOf(guest, page).stamp;
  uint64_t before = stamp.load();
  // Another processor unmaps it already.
  if (!L2PageHistory::IsKept(before) ||
      !stamp.compare_exchange_strong(before, before + 1)) {
    return absl::OkStatus();
  }
  L2WriteProtection& protection = HistoryOf(guest, page).protection;
  hypervisor_.Select(guest);
  protection.BeginGrant();
  const absl::Status status = hypervisor_.Unmap(PageAt(page), kPageSize);
  protection.EndGrant();
  stamp.store(before + 2);
  return status;
}

absl::Status SmpL2Program::FreeTable(int guest, uint64_t page) {
  if (absl::Status s = Unmap(guest, page); !s.ok()) return s;
  hypervisor_.Select(guest);
  return UnlessRefused(hypervisor_.FreeTable(PageAt(page)));
}

template <typename Fn>
void SmpL2Program::ForEachProtection(Gpa nested, uint64_t bytes, const Fn& fn) {
  const SmpL2Options& options = shared_.options;
  const int guest = hypervisor_.selected();
  if (guest >= options.guests) return;
  for (uint64_t page = 0; page < options.pages; ++page) {
    const Gpa at = PageAt(page);
    if (nested <= at && at < nested + bytes) {
      fn(HistoryOf(guest, page).protection);
    }
  }
}

absl::Status SmpL2Program::Forbid(Gpa nested) {
  L2WriteProtection* protection = nullptr;
  ForEachProtection(nested, kPageSize,
                    [&](L2WriteProtection& one) { protection = &one; });
  std::optional<uint64_t> begun;
  if (protection != nullptr) begun = protection->BeginProtect();
  // After BeginProtect: a page that is unmapped from now on counts as granted.
  if (begun.has_value() && !hypervisor_.FrameOf(nested).ok()) begun.reset();
  const absl::Status status = hypervisor_.Protect(
      nested, kPageSize,
      UniformBelow(random_, 2) == 0 ? L1Hypervisor::Rights::kReadExec
                                    : L1Hypervisor::Rights::kRead);
  if (status.ok() && begun.has_value()) protection->EndProtect(*begun);
  return status;
}

absl::Status SmpL2Program::Promote(Gpa nested) {
  const Gpa region = ToGpa(RoundDown(ToGfn(nested), Level::k2M));
  const uint64_t bytes = BytesPer(Level::k2M);
  ForEachProtection(region, bytes,
                    [](L2WriteProtection& one) { one.BeginGrant(); });
  absl::Status status =
      hypervisor_.Protect(region, bytes, L1Hypervisor::Rights::kAll);
  if (status.ok()) status = UnlessRefused(hypervisor_.Promote(region));
  ForEachProtection(region, bytes,
                    [](L2WriteProtection& one) { one.EndGrant(); });
  return status;
}

absl::Status SmpL2Program::TakeDirty(int guest) {
  L2GuestHistory& history = shared_.histories[static_cast<size_t>(guest)];
  if (history.takes_log.exchange(true)) return absl::OkStatus();
  const absl::Cleanup done = [&history] { history.takes_log.store(false); };
  struct Before {
    uint64_t stamp = 0;
    uint64_t ended = 0;
  };
  std::vector<Before> before;
  for (const L2PageHistory& page : history.pages) {
    // In this order: if the stamp is the same afterwards, these writes ended in
    // these contents.
    const uint64_t stamp = page.stamp.load();
    before.push_back({.stamp = stamp, .ended = page.ended.load()});
  }
  hypervisor_.Select(guest);
  const absl::StatusOr<std::vector<Gfn>> dirty = hypervisor_.TakeDirty();
  if (!dirty.ok()) return dirty.status();
  for (uint64_t i = 0; i < history.pages.size(); ++i) {
    L2PageHistory& page = history.pages[i];
    const uint64_t stamp = page.stamp.load();
    const bool kept = stamp == page.logged_stamp && stamp == before[i].stamp &&
                      L2PageHistory::IsKept(stamp);
    const bool is_dirty =
        std::binary_search(dirty->begin(), dirty->end(), ToGfn(PageAt(i)));
    if (kept && !is_dirty && before[i].ended > page.logged) {
      return absl::DataLossError(
          Format("L1's dirty log of L2 guest %d lacks page %d, which was "
                 "written",
                 guest, i));
    }
    if (kept && !is_dirty) continue;
    page.logged = page.begun.load();
    page.logged_stamp = stamp;
  }
  return absl::OkStatus();
}

absl::Status SmpL2Program::Access(uint64_t page, int cpu, AccessKind kind,
                                  uint64_t* word) {
  const int guest = hypervisor_.selected();
  L2WriteProtection& protection = HistoryOf(guest, page).protection;
  for (int grants = 0;; ++grants) {
    const uint64_t begun = protection.BeginWrite();
    absl::Status status = hypervisor_.Access(WordAt(page, cpu), kind, word);
    if (status.ok() && kind == AccessKind::kWrite &&
        protection.WasReadOnly(begun)) {
      return absl::DataLossError(
          Format("processor %d writes to page %d of L2 guest %d, which is "
                 "read-only",
                 index_, page, guest));
    }
    // Another processor may take the permission away again meanwhile.
    if (!absl::IsPermissionDenied(status) || grants == kMaxGrants) {
      return status;
    }
    protection.BeginGrant();
    status = hypervisor_.Protect(PageAt(page), kPageSize,
                                 L1Hypervisor::Rights::kAll);
    protection.EndGrant();
    if (!status.ok()) return status;
  }
}

absl::Status SmpL2Program::WriteOwn(uint64_t page) {
  L2PageHistory& history = HistoryOf(guest_, page);
  uint64_t value = ValueOf(index_, ++last_number_);
  const uint64_t before = history.stamp.load();
  history.begun.fetch_add(1);
  const absl::Status status = Access(page, index_, AccessKind::kWrite, &value);
  history.ended.fetch_add(1);
  const bool kept =
      history.stamp.load() == before && L2PageHistory::IsKept(before);
  knowledge_[static_cast<size_t>(guest_)].own[page] = {
      .known = kept, .stamp = before, .value = value};
  return status;
}

absl::Status SmpL2Program::ReadOwn(int guest, uint64_t page) {
  const L2PageHistory& history = HistoryOf(guest, page);
  const Word& own = knowledge_[static_cast<size_t>(guest)].own[page];
  uint64_t value = 0;
  const uint64_t before = history.stamp.load();
  if (absl::Status s = Access(page, index_, AccessKind::kRead, &value);
      !s.ok()) {
    return s;
  }
  if (!own.known || !L2PageHistory::IsKept(before) ||
      history.stamp.load() != before) {
    return absl::OkStatus();
  }
  const uint64_t expected = own.stamp == before ? own.value : 0;
  if (value == expected) return absl::OkStatus();
  return absl::DataLossError(Format(
      "processor %d reads 0x%x in its own word of page %d of L2 guest %d, "
      "and not 0x%x",
      index_, value, page, guest, expected));
}

absl::Status SmpL2Program::ReadNeighbour(uint64_t page) {
  const L2PageHistory& history = HistoryOf(guest_, page);
  Word& seen = knowledge_[static_cast<size_t>(guest_)].neighbour[page];
  uint64_t value = 0;
  const uint64_t before = history.stamp.load();
  if (absl::Status s = Access(page, neighbour_, AccessKind::kRead, &value);
      !s.ok()) {
    return s;
  }
  if (!L2PageHistory::IsKept(before) || history.stamp.load() != before) {
    return absl::OkStatus();
  }
  const uint64_t least = seen.stamp == before ? seen.value : 0;
  const bool is_theirs =
      value == 0 || value >> 40 == ValueOf(neighbour_, 0) >> 40;
  if (!is_theirs || value < least) {
    return absl::DataLossError(
        Format("processor %d reads 0x%x in the word of processor %d of page %d "
               "of L2 guest %d, after 0x%x",
               index_, value, neighbour_, page, guest_, least));
  }
  seen = {.known = true, .stamp = before, .value = value};
  return absl::OkStatus();
}

absl::Status SmpL2Program::Verify() {
  for (int guest = 0; guest < shared_.options.guests; ++guest) {
    hypervisor_.Select(guest);
    for (uint64_t page = 0; page < shared_.options.pages; ++page) {
      if (absl::Status s = ReadOwn(guest, page); !s.ok()) return s;
    }
  }
  return absl::OkStatus();
}

}  // namespace mmu
