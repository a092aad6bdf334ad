#include "mmu_core/guest/kernel/fake_guest_cpu.h"

#include "mmu_core/base/check.h"
#include "mmu_core/guest_paging/guest_walk.h"

namespace mmu::testing {
namespace {

constexpr auto kBy = FlatMemory::By::kPageWalk;

uint64_t PageOf(Gva gva) { return gva.value() >> kPageShift; }

// The part of an error code that the access decides.
uint64_t CodeOf(AccessKind kind, Privilege privilege) {
  uint64_t code = kind == AccessKind::kWrite ? kPferrWrite : 0;
  if (privilege == Privilege::kUser) code |= kPferrUser;
  if (kind == AccessKind::kExec) code |= kPferrFetch;
  return code;
}

}  // namespace

GuestCpu::Outcome FakeGuestCpu::Access(Gva gva, int size_bytes, AccessKind kind,
                                       Privilege privilege, uint64_t* word,
                                       GuestPageFault* fault) {
  MMU_CHECK(gva.value() % static_cast<uint64_t>(size_bytes) == 0);
  if (accesses_left_.has_value() && (*accesses_left_)-- == 0) {
    accesses_left_ = 0;
    status_ = absl::ResourceExhaustedError("the host is out of memory");
    return Outcome::kError;
  }
  Gpa gpa(gva.value());
  if (geometry_ != nullptr) {
    const auto key = std::make_pair(pcid_, PageOf(gva));
    auto it = tlb_.find(key);
    const bool user = privilege == Privilege::kUser;
    if (user) last_ = gva;
    if (it != tlb_.end() &&
        ((user && !it->second.user) ||
         (kind == AccessKind::kWrite && !it->second.write))) {
      // The processor does not look whether the tables say the same.
      *fault = {.address = gva,
                .error_code = kPferrPresent | CodeOf(kind, privilege)};
      DropForFault(gva);
      return Outcome::kFault;
    }
    if (it != tlb_.end() && kind == AccessKind::kWrite && !it->second.dirty) {
      tlb_.erase(it);  // walks again, to set Dirty
      it = tlb_.end();
    }
    if (it == tlb_.end()) {
      const std::optional<Translation> walked =
          Walk(gva, kind, privilege, fault);
      if (!walked.has_value()) {
        DropForFault(gva);
        return Outcome::kFault;
      }
      it = tlb_.insert({key, *walked}).first;
    }
    gpa = it->second.page + (gva.value() & kPageMask);
  }
  if (kind == AccessKind::kWrite) {
    memory_->Store(gpa, size_bytes, *word, FlatMemory::By::kSoftware);
  } else {
    *word = memory_->Load(gpa, size_bytes, FlatMemory::By::kSoftware);
  }
  return Outcome::kDone;
}

void FakeGuestCpu::Prefetch(Gva gva) {
  const auto key = std::make_pair(pcid_, PageOf(gva));
  if (tlb_.count(key) != 0) return;
  GuestPageFault ignored;
  const std::optional<Translation> walked =
      Walk(gva, AccessKind::kRead, Privilege::kUser, &ignored);
  if (walked.has_value()) tlb_.insert({key, *walked});
}

const FakeGuestCpu::Upper* FakeGuestCpu::CachedUpper(Gva gva, int level) const {
  const auto it =
      upper_.find({pcid_, level, gva.value() >> geometry_->ShiftOf(level)});
  return it == upper_.end() ? nullptr : &it->second;
}

std::optional<FakeGuestCpu::Translation> FakeGuestCpu::Walk(
    Gva gva, AccessKind kind, Privilege privilege, GuestPageFault* fault) {
  const PagingGeometry& g = *geometry_;
  const auto refuse = [&](uint64_t more) {
    *fault = {.address = gva, .error_code = CodeOf(kind, privilege) | more};
    return std::nullopt;
  };
  // The walk begins below the lowest entry that is cached.
  int level = g.levels;
  Upper above = {.table = cr3_, .write = true, .user = true};
  for (int cached = 2; cached <= g.levels; ++cached) {
    if (const Upper* upper = CachedUpper(gva, cached); upper != nullptr) {
      above = *upper;
      level = cached - 1;
      break;
    }
  }
  for (;; --level) {
    const int index = g.IndexOf(gva, level);
    const Gpa where =
        above.table + static_cast<uint64_t>(index * g.entry_bytes);
    const bool pdpte = g.LoadsPdptes() && level == 3;
    uint64_t entry = pdpte ? pdptes_[static_cast<size_t>(index)]
                           : memory_->Load(where, g.entry_bytes, kBy);
    if ((entry & gpte::kPresent) == 0) return refuse(0);
    if (pdpte && (entry & (gpte::kWrite | gpte::kUser)) != 0) {
      return refuse(kPferrPresent | kPferrReserved);
    }
    if (!pdpte) {
      above.write &= (entry & gpte::kWrite) != 0;
      above.user &= (entry & gpte::kUser) != 0;
    }
    const bool leaf = level == 1 || (!pdpte && (entry & gpte::kPageSize) != 0);
    if (leaf) {
      if (privilege == Privilege::kUser && !above.user) {
        return refuse(kPferrPresent);
      }
      if (kind == AccessKind::kWrite && !above.write) {
        return refuse(kPferrPresent);
      }
      entry |= gpte::kAccessed;
      if (kind == AccessKind::kWrite) entry |= gpte::kDirty;
      memory_->Store(where, g.entry_bytes, entry, kBy);
      const uint64_t offset = gva.value() & (g.BytesPerEntry(level) - 1);
      if ((entry & gpte::kAddress & (g.BytesPerEntry(level) - 1)) != 0) {
        return refuse(kPferrPresent | kPferrReserved);
      }
      return Translation{
          .page = Gpa((entry & gpte::kAddress) + (offset & ~kPageMask)),
          .write = above.write,
          .user = above.user,
          .dirty = (entry & gpte::kDirty) != 0,
          .large = level > 1};
    }
    above.table = Gpa(entry & gpte::kAddress);
    if (pdpte) continue;
    memory_->Store(where, g.entry_bytes, entry | gpte::kAccessed, kBy);
    upper_[{pcid_, level, gva.value() >> g.ShiftOf(level)}] = above;
  }
}

void FakeGuestCpu::EnablePaging(const PagingGeometry& geometry, Gpa cr3) {
  MMU_CHECK(tlb_.empty() && upper_.empty());
  geometry_ = &geometry;
  LoadCr3(cr3, 0, Cr3Load::kFlush);
}

void FakeGuestCpu::LoadCr3(Gpa cr3, Pcid pcid, Cr3Load how) {
  MMU_CHECK(pcid <= kMaxPcid);
  MMU_CHECK(geometry_->HasPcids() || (pcid == 0 && how == Cr3Load::kFlush));
  cr3_ = cr3;
  pcid_ = pcid;
  if (geometry_->LoadsPdptes()) {
    pdptes_.clear();
    for (uint64_t i = 0; i < 4; ++i) {
      pdptes_.push_back(memory_->Load(cr3 + 8 * i, 8, kBy));
    }
  }
  if (how == Cr3Load::kFlush) DropContext(pcid);
  Refill();
}

void FakeGuestCpu::Invlpg(Gva gva) {
  DropPage(pcid_, gva);
  DropAllUpper(pcid_);
  Refill();
}

void FakeGuestCpu::InvalidatePcid(Invpcid what, Pcid pcid, Gva gva) {
  MMU_CHECK(geometry_->HasPcids() && pcid <= kMaxPcid);
  switch (what) {
    case Invpcid::kAddress:
      DropPage(pcid, gva);
      DropUpper(pcid, gva);
      break;
    case Invpcid::kSingleContext:
      DropContext(pcid);
      break;
    case Invpcid::kAllContexts:
      tlb_.clear();
      upper_.clear();
  }
  Refill();
}

bool FakeGuestCpu::Relax() {
  MMU_CHECK(on_relax_ != nullptr);
  if (on_relax_()) return true;
  status_ = absl::CancelledError("the guest is to stop");
  return false;
}

void FakeGuestCpu::DropForFault(Gva gva) {
  tlb_.erase({pcid_, PageOf(gva)});
  DropUpper(pcid_, gva);
}

void FakeGuestCpu::DropPage(Pcid pcid, Gva gva) {
  // A large page goes as a whole, otherwise only the 4 KiB page.
  const uint64_t bytes = geometry_->LargePageBytes();
  const uint64_t first = (gva.value() & ~(bytes - 1)) >> kPageShift;
  for (uint64_t page = first; page < first + bytes / kPageSize; ++page) {
    const auto it = tlb_.find({pcid, page});
    if (it != tlb_.end() && (it->second.large || page == PageOf(gva))) {
      tlb_.erase(it);
    }
  }
}

void FakeGuestCpu::DropUpper(Pcid pcid, Gva gva) {
  for (int level = 2; level <= geometry_->levels; ++level) {
    upper_.erase({pcid, level, gva.value() >> geometry_->ShiftOf(level)});
  }
}

void FakeGuestCpu::DropAllUpper(Pcid pcid) {
  upper_.erase(upper_.lower_bound({pcid, 0, 0}),
               upper_.lower_bound({static_cast<Pcid>(pcid + 1), 0, 0}));
}

void FakeGuestCpu::DropContext(Pcid pcid) {
  tlb_.erase(tlb_.lower_bound({pcid, 0}),
             tlb_.lower_bound({static_cast<Pcid>(pcid + 1), 0}));
  DropAllUpper(pcid);
}

std::set<Gfn> FakeGuestCpu::ReachableTables() const {
  std::set<Gfn> tables;
  for (const auto& [key, upper] : upper_) {
    if (std::get<0>(key) == pcid_) tables.insert(ToGfn(upper.table));
  }
  return tables;
}

std::set<Gfn> FakeGuestCpu::ReachableUserPages() const {
  std::set<Gfn> pages;
  for (const auto& [key, translation] : tlb_) {
    if (key.first == pcid_ && translation.user) {
      pages.insert(ToGfn(translation.page));
    }
  }
  return pages;
}

bool FakeGuestCpu::CachesLarge(Gva gva) const {
  const auto it = tlb_.find({pcid_, PageOf(gva)});
  return it != tlb_.end() && it->second.large;
}

}  // namespace mmu::testing
