#include "tests/model/guest_steps.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "mmu_core/base/address.h"
#include "mmu_core/guest_paging/guest_entry.h"
#include "mmu_core/guest_paging/guest_walk.h"

namespace mmu::testing {
namespace {

using Kind = Operation::Kind;

// The first page of the pool that ChoosePage takes for data.
constexpr uint64_t kFirstPoolData = kGuestBase + kPoolPages / 2;
constexpr uint64_t kPoolData = 24;

}  // namespace

GuestSteps::GuestSteps(Vm& vm, const ModelConfig& config, GuestPort& port,
                       ModelMemory& memory, GuestMistake mistake)
    : vm_(vm),
      config_(config),
      format_(config),
      port_(port),
      memory_(memory),
      mistake_(mistake),
      reference_(format_, config.vcpus) {
  // Page 0 of the pool is never used: 0 means "no table".
  uses_[0] = PageUse::kData;
}

void GuestSteps::Boot() {
  const bool shadow = config_.vm.mmu == MmuMode::kShadow;
  if (shadow && !MakeDirectMap(0)) return Differs("no room for a direct map");
  for (Space& space : spaces_) {
    if (!MakeSpace(0, &space)) return Differs("no room for the first tables");
  }
  for (int vcpu = 0; vcpu < config_.vcpus; ++vcpu) {
    const int space = vcpu % kSpaces;
    if (shadow) {
      port_.EnablePaging(vcpu, space, SpaceAt(space).root);
    } else {
      port_.LoadSpace(vcpu, space, SpaceAt(space).root, GuestPort::Flush::kYes);
    }
  }
  Differs(port_.error());
}

void GuestSteps::Step(const Operation& op) {
  const int vcpu = VcpuOf(op);
  const int space = static_cast<int>(op.a % kSpaces);
  const int region = static_cast<int>(op.b / kPagesPerRegion % kRegions);
  const Place place = {space, region, static_cast<int>(op.b % kPagesPerRegion)};
  switch (op.kind) {
    case Kind::kUseRead:
    case Kind::kUseWrite:
    case Kind::kUseExec:
      Use(op);
      break;
    case Kind::kMapPage:
      MapPage(vcpu, place, op);
      break;
    case Kind::kUnmapPage:
    case Kind::kProtectPage:
    case Kind::kCleanPage:
      ChangePage(vcpu, place, op);
      break;
    case Kind::kMapLarge:
      MapLarge(vcpu, space, region, op);
      break;
    case Kind::kDemote:
      Demote(vcpu, space, region);
      break;
    case Kind::kShareTable:
      ShareTable(vcpu, space, region, op);
      break;
    case Kind::kProtectLink:
      ProtectLink(vcpu, space, region, op);
      break;
    case Kind::kUnlink:
      SetLink(vcpu, space, region, {}, 0);
      break;
    case Kind::kNewSpace:
      NewSpace(vcpu, space);
      break;
    case Kind::kReclaim:
      Reclaim();
      break;
    case Kind::kInvalidatePage:
      InvalidatePage(vcpu, place);
      break;
    case Kind::kInvalidateSpace:
      LoadSpace(vcpu, space, GuestPort::Flush::kYes);
      break;
    case Kind::kLoadSpace:
      LoadSpace(vcpu, space,
                op.b % 2 == 1 ? GuestPort::Flush::kYes : GuestPort::Flush::kNo);
      break;
    default:
      break;
  }
  Differs(port_.error());
}

// --- Accesses. ---

std::optional<uint64_t> GuestSteps::FaultOf(const ModelTranslation& translation,
                                            AccessKind kind,
                                            Privilege privilege) const {
  const bool write = kind == AccessKind::kWrite;
  const bool fetch = kind == AccessKind::kExec;
  const Rights& rights = translation.rights;
  if (format_.ept()) {
    const bool allowed = write   ? rights.write
                         : fetch ? rights.exec
                                 : rights.read;
    if (translation.present && allowed) return std::nullopt;
    uint64_t code = write   ? kEptViolationWrite
                    : fetch ? kEptViolationFetch
                            : kEptViolationRead;
    if (!translation.present) return code;
    if (rights.read) code |= kEptViolationReadable;
    if (rights.write) code |= kEptViolationWritable;
    if (rights.exec) code |= kEptViolationExecutable;
    return code;
  }
  // For L2 on NPT every access is a user's.
  const bool nested = config_.vm.mmu == MmuMode::kNested;
  const bool user = nested || privilege == Privilege::kUser;
  const bool smep = !nested && config_.smep;
  const bool smap = !nested && config_.smap;
  const bool wp = nested || config_.wp;
  const bool allowed = !(user && !rights.user) && !(fetch && !rights.exec) &&
                       !(write && !rights.write && (user || wp)) &&
                       !(smep && fetch && !user && rights.user) &&
                       !(smap && !fetch && !user && rights.user);
  if (translation.present && allowed) return std::nullopt;
  uint64_t code = translation.present ? kPferrPresent : 0;
  if (write) code |= kPferrWrite;
  if (user) code |= kPferrUser;
  if (fetch && (format_.has_nx() || smep)) code |= kPferrFetch;
  if (nested) code |= kPferrGuestFinal;
  return code;
}

void GuestSteps::Use(const Operation& op) {
  const int vcpu = VcpuOf(op);
  const Place place = {port_.space(vcpu),
                       static_cast<int>(op.b / kPagesPerRegion % kRegions),
                       static_cast<int>(op.b % kPagesPerRegion)};
  const AccessKind kind = op.kind == Kind::kUseRead    ? AccessKind::kRead
                          : op.kind == Kind::kUseWrite ? AccessKind::kWrite
                                                       : AccessKind::kExec;
  const Privilege privilege =
      op.c / 2 % 2 == 0 ? Privilege::kUser : Privilege::kSupervisor;
  uint64_t word = memory_.NewValue();
  const uint64_t value = word;
  const UseOutcome outcome =
      port_.Use(vcpu, AddressOf(format_, place), kind, privilege, &word);
  if (!port_.error().empty()) return;

  GuestReference::Candidates allowed;
  bool may_fault = false;
  for (const ModelTranslation& one : reference_.CandidatesOf(vcpu, place)) {
    const std::optional<uint64_t> code = FaultOf(one, kind, privilege);
    if (!code.has_value()) {
      allowed.push_back(one);
    } else if (*code == outcome.fault_code) {
      may_fault = true;
    }
  }
  const std::string where =
      absl::StrCat("vCPU ", vcpu, ", space ", place.space, ", address ",
                   AddressOf(format_, place) >> kPageShift, " pages: ");
  if (!outcome.done) {
    if (!may_fault) {
      Differs(absl::StrCat(where, "the access faults with code ",
                           outcome.fault_code, ", its tables do not say so"));
    }
    // A fault invalidates what the processor has cached of the address (SDM
    // vol. 3, 4.10.4.1 and 29.4.3.1).
    reference_.Invalidated(vcpu, place);
    return;
  }
  if (allowed.empty()) {
    Differs(absl::StrCat(where, "the access is done, its tables forbid it"));
    return;
  }
  for (const ModelTranslation& one : allowed) memory_.Touched(one.page);
  if (kind == AccessKind::kWrite) {
    AdoptWrite(allowed, value);
  } else {
    CheckRead(allowed, word);
  }
  CheckAccessed(vcpu, place, allowed, kind);
  if (!problem_.empty()) problem_ = absl::StrCat(where, problem_);
}

void GuestSteps::CheckRead(const GuestReference::Candidates& allowed,
                           uint64_t word) {
  for (const ModelTranslation& one : allowed) {
    if (memory_.WordOf(one.page) == word) return;
  }
  Differs(absl::StrCat("reads ", word, ", page ", allowed.front().page, " has ",
                       memory_.WordOf(allowed.front().page),
                       ", and no earlier translation explains it"));
}

void GuestSteps::AdoptWrite(const GuestReference::Candidates& allowed,
                            uint64_t value) {
  if (allowed.size() == 1) {
    return memory_.Written(allowed.front().page, value);
  }
  bool dropped = false;
  for (const ModelTranslation& one : allowed) {
    if (!memory_.IsWritable(one.page)) {
      dropped = true;
    } else if (ReadWord(one.page << kPageShift) == value) {
      return memory_.Written(one.page, value);
    }
  }
  if (!dropped) {
    Differs(absl::StrCat("the write is not in page ", allowed.front().page,
                         " nor in one that was mapped there before"));
  }
}

void GuestSteps::CheckAccessed(int vcpu, const Place& place,
                               const GuestReference::Candidates& allowed,
                               AccessKind kind) {
  if (format_.accessed() == 0) return;
  const bool must = reference_.IsSettled(vcpu, place);
  const uint64_t leaf_bits =
      format_.accessed() | (kind == AccessKind::kWrite ? format_.dirty() : 0);
  const std::vector<EntryAt>& path =
      SpaceAt(place.space).paths[static_cast<size_t>(place.region)];
  const bool large = reference_.link(place.space, place.region).kind ==
                     ModelLink::Kind::kLarge;
  for (const EntryAt& at : path) {
    const bool leaf = large && &at == &path.back();
    CheckEntry(at, leaf ? leaf_bits : format_.accessed(), must);
  }
  for (const ModelTranslation& one : allowed) {
    if (one.table == 0) continue;
    CheckEntry(LeafEntry(one.table, place.index), leaf_bits, must);
  }
}

void GuestSteps::CheckEntry(const EntryAt& at, uint64_t bits, bool must) {
  const uint64_t before = Expected(at);
  if ((before & bits) == bits) return;  // CheckTables compares it
  const uint64_t now = Actual(at);
  const bool agrees =
      must ? now == (before | bits) : (now & ~bits) == (before & ~bits);
  if (!agrees) {
    Differs(
        absl::StrFormat("entry %d of the table at page %d is 0x%x, was "
                        "0x%x, and the access sets 0x%x",
                        at.index, at.table, now, before, bits));
  }
  if (now == before) return;
  const uint64_t byte = at.index * static_cast<uint64_t>(format_.entry_bytes());
  memory_.PoolWritten(at.table, byte / 8,
                      ReadWord((at.table << kPageShift) + byte / 8 * 8));
}

void GuestSteps::CheckTables() {
  std::vector<uint64_t> words(ModelMemory::kWordsPerPage);
  for (uint64_t page = kGuestBase; page < kGuestBase + kPoolPages; ++page) {
    const absl::Status status = vm_.ReadMemory(
        ToGpa(Gfn(page)),
        absl::MakeSpan(reinterpret_cast<std::byte*>(words.data()), kPageSize));
    if (!status.ok()) return Differs(status.ToString());
    const absl::Span<const uint64_t> expected = memory_.PoolWords(page);
    const auto [is, was] =
        std::mismatch(words.begin(), words.end(), expected.begin());
    if (is == words.end()) continue;
    Differs(absl::StrFormat("word %d of page %d is 0x%x, expected 0x%x",
                            is - words.begin(), page, *is, *was));
  }
}

// --- Edits. ---

Rights GuestSteps::ChooseRights(const Operation& op) const {
  // Most entries grant most rights.
  const uint32_t bits = op.c >> 3;
  return format_.Possible({.read = bits % 4 != 0,
                           .write = bits / 4 % 2 == 1 || bits % 3 == 0,
                           .exec = bits / 8 % 2 == 1 || bits % 5 == 0,
                           .user = bits / 16 % 4 != 0});
}

uint64_t GuestSteps::ChoosePage(const Operation& op) {
  const uint32_t pick = op.a / kSpaces;
  const uint32_t from = op.b / (kPagesPerRegion * kRegions) % 4;
  if (from < 2) {
    const uint64_t page = kFirstPoolData + pick % kPoolData;
    if (UseOf(page) == PageUse::kFree) UseOf(page) = PageUse::kData;
    if (UseOf(page) == PageUse::kData) return page;
  }
  if (from == 3) return pick % kPlaces * kPlaceStride + pick / kPlaces % 12;
  return kGuestBase + kLargeData + pick % 32;
}

void GuestSteps::SetLink(int vcpu, int space, int region, const ModelLink& link,
                         uint64_t entry) {
  std::vector<Place> places;
  for (int i = 0; i < kPagesPerRegion; ++i) {
    places.push_back({space, region, i});
  }
  MakeRoom(places);
  const ModelLink old = reference_.link(space, region);
  PutEntry(vcpu, LinkEntry(space, region), entry);
  reference_.SetLink(space, region, link);
  RetireIfUnlinked(old);
}

void GuestSteps::SetLeaf(int vcpu, uint64_t table, int index,
                         const ModelLeaf& leaf, uint64_t entry) {
  MakeRoom(reference_.PlacesOf(table, index));
  PutEntry(vcpu, LeafEntry(table, index), entry);
  reference_.SetLeaf(table, index, leaf);
}

void GuestSteps::MapPage(int vcpu, const Place& place, const Operation& op) {
  ModelLink link = reference_.link(place.space, place.region);
  if (link.kind == ModelLink::Kind::kLarge) return;
  if (link.kind == ModelLink::Kind::kNone) {
    const std::optional<uint64_t> table = NewTable(vcpu);
    if (!table.has_value()) return;
    link = {ModelLink::Kind::kTable, *table, kFullRights};
    SetLink(vcpu, place.space, place.region, link,
            format_.Link(*table, kFullRights));
  }
  const ModelLeaf leaf = {true, ChoosePage(op), ChooseRights(op)};
  SetLeaf(vcpu, link.page, place.index, leaf,
          format_.Leaf(leaf.page, leaf.rights, /*large=*/false));
}

void GuestSteps::ChangePage(int vcpu, const Place& place, const Operation& op) {
  const uint64_t bits = format_.accessed() | format_.dirty();
  ModelLink link = reference_.link(place.space, place.region);
  if (link.kind == ModelLink::Kind::kNone) return;
  if (link.kind == ModelLink::Kind::kLarge) {
    if (op.kind == Kind::kUnmapPage) return;
    const uint64_t old = Expected(LinkEntry(place.space, place.region));
    if (op.kind == Kind::kProtectPage) link.rights = ChooseRights(op);
    SetLink(vcpu, place.space, place.region, link,
            format_.Leaf(link.page, link.rights, /*large=*/true) |
                (op.kind == Kind::kProtectPage ? old & bits : 0));
    return;
  }
  ModelLeaf leaf = reference_.leaf(link.page, place.index);
  if (!leaf.present) return;
  const uint64_t old = Expected(LeafEntry(link.page, place.index));
  if (op.kind == Kind::kUnmapPage) {
    SetLeaf(vcpu, link.page, place.index, {}, 0);
    return;
  }
  if (op.kind == Kind::kProtectPage) leaf.rights = ChooseRights(op);
  SetLeaf(vcpu, link.page, place.index, leaf,
          format_.Leaf(leaf.page, leaf.rights, /*large=*/false) |
              (op.kind == Kind::kProtectPage ? old & bits : 0));
}

void GuestSteps::MapLarge(int vcpu, int space, int region,
                          const Operation& op) {
  const uint32_t pick = op.a / kSpaces;
  ModelLink link = {ModelLink::Kind::kLarge, kGuestBase + kLargeData,
                    ChooseRights(op)};
  if (pick % 3 == 0) {
    link.page = pick / 3 % kPlaces * kPlaceStride;
  } else if (pick % 3 == 1) {
    link.page += format_.large_pages() % kLargeData;
  }
  SetLink(vcpu, space, region, link,
          format_.Leaf(link.page, link.rights, /*large=*/true));
}

// The small pages translate as the large page did.
void GuestSteps::Demote(int vcpu, int space, int region) {
  const ModelLink link = reference_.link(space, region);
  if (link.kind != ModelLink::Kind::kLarge) return;
  const std::optional<uint64_t> table = NewTable(vcpu);
  if (!table.has_value()) return;
  const uint64_t bits = Expected(LinkEntry(space, region)) &
                        (format_.accessed() | format_.dirty());
  for (int i = 0; i < kPagesPerRegion; ++i) {
    const ModelLeaf leaf = {true, link.page + PageInRegion(format_, i),
                            link.rights};
    reference_.InitLeaf(*table, i, leaf);
    PutEntry(vcpu, LeafEntry(*table, i),
             format_.Leaf(leaf.page, leaf.rights, /*large=*/false) | bits);
  }
  SetLink(vcpu, space, region, {ModelLink::Kind::kTable, *table, kFullRights},
          format_.Link(*table, kFullRights));
}

void GuestSteps::ShareTable(int vcpu, int space, int region,
                            const Operation& op) {
  const auto other = static_cast<int>(op.c / 8 % kSpaces);
  const auto of_other = static_cast<int>(op.c / 32 % kRegions);
  ModelLink link = reference_.link(other, of_other);
  if (link.kind != ModelLink::Kind::kTable ||
      link == reference_.link(space, region)) {
    return;
  }
  link.rights = ChooseRights(op);
  SetLink(vcpu, space, region, link, format_.Link(link.page, link.rights));
}

void GuestSteps::ProtectLink(int vcpu, int space, int region,
                             const Operation& op) {
  ModelLink link = reference_.link(space, region);
  if (link.kind != ModelLink::Kind::kTable) return;
  link.rights = ChooseRights(op);
  SetLink(vcpu, space, region, link, format_.Link(link.page, link.rights));
}

// --- Invalidations. ---

void GuestSteps::MakeRoom(const std::vector<Place>& places) {
  for (int vcpu = 0; vcpu < config_.vcpus; ++vcpu) {
    for (const Place& place : places) {
      if (!reference_.HasRoom(vcpu, place)) InvalidatePage(vcpu, place);
    }
  }
}

void GuestSteps::InvalidatePage(int vcpu, const Place& place) {
  if (config_.vm.mmu != MmuMode::kShadow || port_.space(vcpu) != place.space) {
    return LoadSpace(vcpu, place.space, GuestPort::Flush::kYes);
  }
  if (mistake_ != GuestMistake::kForgetsToInvalidate) {
    port_.InvalidatePage(vcpu, AddressOf(format_, place));
  }
  reference_.Invalidated(vcpu, place);
}

void GuestSteps::LoadSpace(int vcpu, int space, GuestPort::Flush flush) {
  const GuestPort::Flush done = mistake_ == GuestMistake::kForgetsToInvalidate
                                    ? GuestPort::Flush::kNo
                                    : flush;
  port_.LoadSpace(vcpu, space, SpaceAt(space).root, done);
  if (config_.vm.mmu == MmuMode::kNested && !format_.ept()) {
    // The ASID was flushed, which all spaces have.
    for (int i = 0; i < kSpaces; ++i) reference_.Invalidated(vcpu, i);
  } else if (flush == GuestPort::Flush::kYes) {
    reference_.Invalidated(vcpu, space);
  }
}

void GuestSteps::Reclaim() {
  std::array<uint64_t, kSpaces> roots;
  for (size_t i = 0; i < roots.size(); ++i) roots[i] = spaces_[i].root;
  for (int vcpu = 0; vcpu < config_.vcpus; ++vcpu) {
    port_.InvalidateAll(vcpu, roots);
    for (int i = 0; i < kSpaces; ++i) reference_.Invalidated(vcpu, i);
  }
  std::array<bool, kPoolPages> mapped{};
  mapped[0] = true;
  for (int space = 0; space < kSpaces; ++space) {
    for (int region = 0; region < kRegions; ++region) {
      const ModelLink& link = reference_.link(space, region);
      if (link.kind != ModelLink::Kind::kTable) continue;
      for (int i = 0; i < kPagesPerRegion; ++i) {
        const ModelLeaf& leaf = reference_.leaf(link.page, i);
        if (leaf.present && IsInPool(leaf.page)) {
          mapped[leaf.page - kGuestBase] = true;
        }
      }
    }
  }
  for (size_t i = 0; i < uses_.size(); ++i) {
    if (uses_[i] == PageUse::kRetired ||
        (uses_[i] == PageUse::kData && !mapped[i])) {
      uses_[i] = PageUse::kFree;
    }
  }
}

// --- Tables. ---

uint64_t GuestSteps::ReadWord(uint64_t gpa_bytes) {
  uint64_t word = 0;
  const absl::Status status = vm_.ReadMemory(
      Gpa(gpa_bytes),
      absl::MakeSpan(reinterpret_cast<std::byte*>(&word), sizeof(word)));
  if (!status.ok()) Differs(status.ToString());
  return word;
}

uint64_t GuestSteps::Expected(const EntryAt& at) const {
  if (format_.entry_bytes() == 8) return memory_.PoolWord(at.table, at.index);
  return memory_.PoolWord(at.table, at.index / 2) >> at.index % 2 * 32 &
         0xffff'ffff;
}

uint64_t GuestSteps::Actual(const EntryAt& at) {
  const uint64_t table = at.table << kPageShift;
  if (format_.entry_bytes() == 8) return ReadWord(table + at.index * 8);
  return ReadWord(table + at.index / 2 * 8) >> at.index % 2 * 32 & 0xffff'ffff;
}

void GuestSteps::PutEntry(int vcpu, const EntryAt& at, uint64_t value) {
  const auto bytes = static_cast<uint64_t>(format_.entry_bytes());
  port_.Store(vcpu, (at.table << kPageShift) + at.index * bytes,
              format_.entry_bytes(), value);
  if (bytes == 8) return memory_.PoolWritten(at.table, at.index, value);
  const uint64_t shift = at.index % 2 * 32;
  const uint64_t rest = memory_.PoolWord(at.table, at.index / 2) &
                        ~(uint64_t{0xffff'ffff} << shift);
  memory_.PoolWritten(at.table, at.index / 2, rest | value << shift);
}

void GuestSteps::PutWord(int vcpu, uint64_t page, size_t word, uint64_t value) {
  port_.Store(vcpu, (page << kPageShift) + word * 8, 8, value);
  memory_.PoolWritten(page, word, value);
}

std::optional<uint64_t> GuestSteps::NewTable(int vcpu) {
  for (size_t i = 0; i < uses_.size(); ++i) {
    next_free_ = (next_free_ + 1) % uses_.size();
    if (uses_[next_free_] != PageUse::kFree) continue;
    uses_[next_free_] = PageUse::kTable;
    const uint64_t page = kGuestBase + next_free_;
    for (size_t word = 0; word < ModelMemory::kWordsPerPage; ++word) {
      if (memory_.PoolWord(page, word) != 0) PutWord(vcpu, page, word, 0);
    }
    for (int index = 0; index < kPagesPerRegion; ++index) {
      reference_.InitLeaf(page, index, {});
    }
    return page;
  }
  return std::nullopt;
}

void GuestSteps::RetireIfUnlinked(const ModelLink& link) {
  if (link.kind != ModelLink::Kind::kTable) return;
  for (int space = 0; space < kSpaces; ++space) {
    for (int region = 0; region < kRegions; ++region) {
      const ModelLink& other = reference_.link(space, region);
      if (other.kind == link.kind && other.page == link.page) return;
    }
  }
  Retire(link.page);
}

// The tables of the direct map below the root. Their entries have Accessed and
// Dirty set, so walks do not change them.
bool GuestSteps::MakeDirectMap(int vcpu) {
  const uint64_t used = format_.accessed() | format_.dirty();
  const Rights kernel = format_.Possible(
      {.read = true, .write = true, .exec = true, .user = false});
  if (format_.levels() == 2) return true;  // the roots have its large pages
  std::optional<uint64_t> table = NewTable(vcpu);
  if (!table.has_value()) return false;
  for (uint64_t page = 0; page < kGuestBase + kGuestPages;
       page += format_.large_pages()) {
    PutEntry(vcpu, {*table, format_.IndexOf(page, 2)},
             format_.Leaf(page, kernel, /*large=*/true) | used);
  }
  for (int level = 3; level < format_.levels(); ++level) {
    const uint64_t below = *table;
    table = NewTable(vcpu);
    if (!table.has_value()) return false;
    PutEntry(vcpu,
             {*table, format_.IndexOf(DirectMap(format_) >> kPageShift, level)},
             format_.Link(below, kernel) | format_.accessed());
  }
  direct_map_ = *table;
  return true;
}

void GuestSteps::PutDirectMap(int vcpu, uint64_t root) {
  const uint64_t first = DirectMap(format_) >> kPageShift;
  const Rights kernel = format_.Possible(
      {.read = true, .write = true, .exec = true, .user = false});
  if (format_.levels() == 2) {
    for (uint64_t page = 0; page < kGuestBase + kGuestPages;
         page += format_.large_pages()) {
      PutEntry(vcpu, {root, format_.IndexOf(first + page, 2)},
               format_.Leaf(page, kernel, /*large=*/true) | format_.accessed() |
                   format_.dirty());
    }
    return;
  }
  PutEntry(vcpu, {root, format_.IndexOf(first, format_.levels())},
           format_.has_pdptes()
               ? format_.Pdpte(direct_map_)
               : format_.Link(direct_map_, kernel) | format_.accessed());
}

bool GuestSteps::MakeSpace(int vcpu, Space* space) {
  const std::optional<uint64_t> root = NewTable(vcpu);
  if (!root.has_value()) return false;
  space->root = *root;
  space->tables = {*root};
  for (int region = 0; region < kRegions; ++region) {
    const uint64_t page = FirstPageOf(format_, region);
    std::vector<EntryAt>& path = space->paths[static_cast<size_t>(region)];
    path.clear();
    uint64_t table = *root;
    for (int level = format_.levels(); level > 2; --level) {
      const EntryAt at = {table, format_.IndexOf(page, level)};
      const bool pdpte = format_.has_pdptes();
      if (!pdpte) path.push_back(at);
      if (Expected(at) == 0) {
        const std::optional<uint64_t> next = NewTable(vcpu);
        if (!next.has_value()) return false;
        space->tables.push_back(*next);
        PutEntry(
            vcpu, at,
            pdpte ? format_.Pdpte(*next) : format_.Link(*next, kFullRights));
      }
      table = (Expected(at) & guest_entry::kAddress) >> kPageShift;
    }
    path.push_back({table, format_.IndexOf(page, 2)});
  }
  if (config_.vm.mmu == MmuMode::kShadow) PutDirectMap(vcpu, *root);
  return true;
}

void GuestSteps::NewSpace(int vcpu, int space) {
  Space made;
  if (!MakeSpace(vcpu, &made)) {
    for (const uint64_t table : made.tables) Retire(table);
    return;
  }
  const Space old = spaces_[static_cast<size_t>(space)];
  for (int region = 0; region < kRegions; ++region) {
    SetLink(vcpu, space, region, {}, 0);
  }
  spaces_[static_cast<size_t>(space)] = made;
  for (int other = 0; other < config_.vcpus; ++other) {
    const int loaded = port_.space(other);
    LoadSpace(other, space, GuestPort::Flush::kYes);
    if (loaded != space) LoadSpace(other, loaded, GuestPort::Flush::kNo);
  }
  for (const uint64_t table : old.tables) Retire(table);
}

}  // namespace mmu::testing
