#include "mmu_core/guest/kernel/fake_guest_cpu.h"

#include "mmu_core/base/check.h"
#include "mmu_core/guest_paging/guest_walk.h"

namespace mmu::testing {
namespace {

constexpr auto kBy = FlatMemory::By::kPageWalk;

uint64_t PageOf(Gva gva) { return gva.value() >> kPageShift; }

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
    const auto key = std::make_pair(cr3_.value(), PageOf(gva));
    auto it = tlb_.find(key);
    const auto allows = [&](const Translation& t) {
      return (privilege == Privilege::kSupervisor || t.user) &&
             (kind != AccessKind::kWrite || (t.write && t.dirty));
    };
    if (it == tlb_.end() || !allows(it->second)) {
      // A fault invalidates the processor's translation of the page.
      if (it != tlb_.end()) tlb_.erase(it);
      const std::optional<Translation> walked =
          Walk(gva, kind, privilege, fault);
      if (!walked.has_value()) return Outcome::kFault;
      it = tlb_.insert({key, *walked}).first;
    }
    gpa = it->second.page + (gva.value() & kPageMask);
  }
  if (kind == AccessKind::kWrite) {
    memory_.Store(gpa, size_bytes, *word, FlatMemory::By::kSoftware);
  } else {
    *word = memory_.Load(gpa, size_bytes, FlatMemory::By::kSoftware);
  }
  return Outcome::kDone;
}

std::optional<FakeGuestCpu::Translation> FakeGuestCpu::Walk(
    Gva gva, AccessKind kind, Privilege privilege, GuestPageFault* fault) {
  const PagingGeometry& g = *geometry_;
  Translation result = {
      .page = {}, .write = true, .user = true, .dirty = true, .large = false};
  uint64_t code = kind == AccessKind::kWrite ? kPferrWrite : 0;
  if (privilege == Privilege::kUser) code |= kPferrUser;
  if (kind == AccessKind::kExec) code |= kPferrFetch;
  const auto refuse = [&](uint64_t more) {
    *fault = {.address = gva, .error_code = code | more};
    return std::nullopt;
  };
  Gpa table = cr3_;
  for (int level = g.levels;; --level) {
    const int index = g.IndexOf(gva, level);
    const Gpa where = table + static_cast<uint64_t>(index * g.entry_bytes);
    const bool cached = level == 3 && g.levels == 3;
    uint64_t entry = cached ? pdptes_[static_cast<size_t>(index)]
                            : memory_.Load(where, g.entry_bytes, kBy);
    if ((entry & gpte::kPresent) == 0) return refuse(0);
    if (cached && (entry & (gpte::kWrite | gpte::kUser)) != 0) {
      return refuse(kPferrPresent | kPferrReserved);
    }
    if (!cached) {
      result.write &= (entry & gpte::kWrite) != 0;
      result.user &= (entry & gpte::kUser) != 0;
    }
    const bool leaf = level == 1 || (!cached && (entry & gpte::kPageSize) != 0);
    if (leaf) {
      if (privilege == Privilege::kUser && !result.user) {
        return refuse(kPferrPresent);
      }
      if (kind == AccessKind::kWrite && !result.write) {
        return refuse(kPferrPresent);
      }
      entry |= gpte::kAccessed;
      if (kind == AccessKind::kWrite) entry |= gpte::kDirty;
      memory_.Store(where, g.entry_bytes, entry, kBy);
      const uint64_t offset = gva.value() & (g.BytesPerEntry(level) - 1);
      if ((entry & gpte::kAddress & (g.BytesPerEntry(level) - 1)) != 0) {
        return refuse(kPferrPresent | kPferrReserved);
      }
      result.large = level > 1;
      result.dirty = (entry & gpte::kDirty) != 0;
      result.page = Gpa((entry & gpte::kAddress) + (offset & ~kPageMask));
      return result;
    }
    if (!cached) {
      memory_.Store(where, g.entry_bytes, entry | gpte::kAccessed, kBy);
    }
    table = Gpa(entry & gpte::kAddress);
  }
}

void FakeGuestCpu::EnablePaging(const PagingGeometry& geometry, Gpa cr3) {
  geometry_ = &geometry;
  LoadCr3(cr3, Cr3Load::kFlush);
}

void FakeGuestCpu::LoadCr3(Gpa cr3, Cr3Load how) {
  cr3_ = cr3;
  if (geometry_->levels == 3) {
    pdptes_.clear();
    for (uint64_t i = 0; i < 4; ++i) {
      pdptes_.push_back(memory_.Load(cr3 + 8 * i, 8, kBy));
    }
  }
  if (how == Cr3Load::kKeep) return;
  const auto from = tlb_.lower_bound({cr3.value(), 0});
  const auto to = tlb_.lower_bound({cr3.value() + 1, 0});
  tlb_.erase(from, to);
}

void FakeGuestCpu::Invlpg(Gva gva) {
  // Invalidates a large page as a whole, otherwise only the 4 KiB page.
  const uint64_t bytes = geometry_->LargePageBytes();
  const uint64_t first = (gva.value() & ~(bytes - 1)) >> kPageShift;
  for (uint64_t page = first; page < first + bytes / kPageSize; ++page) {
    const auto it = tlb_.find({cr3_.value(), page});
    if (it != tlb_.end() && (it->second.large || page == PageOf(gva))) {
      tlb_.erase(it);
    }
  }
}

}  // namespace mmu::testing
