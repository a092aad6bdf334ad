#include "mmu_core/guest/kernel/page_tables.h"

#include "mmu_core/base/check.h"

namespace mmu {

bool GuestPageTables::Create() {
  root_ = NewTable();
  return root_.has_value();
}

GuestPte GuestPageTables::FindAt(Gva gva, int level) {
  Gfn table = *root_;
  for (int at = geometry_.levels;; --at) {
    const GuestPte pte = Read(table, at, geometry_.IndexOf(gva, at));
    if (at == level || !pte.present() || pte.leaf()) return pte;
    table = pte.gfn();
  }
}

bool GuestPageTables::Set(Gva gva, int level, uint64_t value) {
  while (memory_.status().ok()) {
    // Walk down to the entry, adding missing tables.
    Gfn table = *root_;
    int at = geometry_.levels;
    GuestPte pte = Read(table, at, geometry_.IndexOf(gva, at));
    while (at > level && pte.present()) {
      if (pte.leaf()) return false;
      table = pte.gfn();
      --at;
      pte = Read(table, at, geometry_.IndexOf(gva, at));
    }
    if (at == level) {
      Store(pte, value);
      return true;
    }
    const std::optional<Gfn> below = NewTable();
    if (!below.has_value()) return false;
    uint64_t link = ToGpa(*below).value() | gpte::kPresent;
    // Table entries grant all rights; only leafs restrict.
    if (geometry_.HasPermissions(at)) link |= gpte::kWrite | gpte::kUser;
    Store(pte, link);
  }
  return false;
}

void GuestPageTables::Store(const GuestPte& pte, uint64_t value) {
  if (!geometry_.HasPermissions(pte.level)) ++pdpte_changes_;
  memory_.Store(pte.where, geometry_.entry_bytes, value);
}

bool GuestPageTables::SplitLarge(const GuestPte& pte) {
  if (pte.level != 2 || !pte.leaf()) return false;
  const std::optional<Gfn> table = NewTable();
  if (!table.has_value()) return false;
  for (int i = 0; i < geometry_.EntriesPerTable(); ++i) {
    memory_.Store(
        ToGpa(*table) + static_cast<uint64_t>(i * geometry_.entry_bytes),
        geometry_.entry_bytes,
        (pte.value & ~gpte::kPageSize) + static_cast<uint64_t>(i) * kPageSize);
  }
  Store(pte, ToGpa(*table).value() | gpte::kPresent | gpte::kWrite |
                 gpte::kUser | gpte::kAccessed);
  return true;
}

void GuestPageTables::ShareFrom(const GuestPageTables& other, Gva from) {
  const int top = geometry_.levels;
  for (int i = geometry_.IndexOf(from, top); i < geometry_.TopEntries(); ++i) {
    GuestPte pte = Read(*root_, top, i);
    const uint64_t offset = static_cast<uint64_t>(i * geometry_.entry_bytes);
    Store(pte, memory_.Load(other.root() + offset, geometry_.entry_bytes));
  }
}

void GuestPageTables::ForEachLeaf(
    Gva end, absl::FunctionRef<void(Gva, const GuestPte&)> fn) {
  Visit(*root_, geometry_.levels, Gva(0), end, fn, [](const GuestPte&) {});
}

void GuestPageTables::Destroy(Gva end) {
  Visit(
      *root_, geometry_.levels, Gva(0), end, [](Gva, const GuestPte&) {},
      [this](const GuestPte& pte) { frames_.Drop(pte.gfn()); });
  frames_.Drop(*root_);
  root_.reset();
}

GuestPte GuestPageTables::Read(Gfn table, int level, int index) {
  GuestPte pte;
  pte.where =
      ToGpa(table) + static_cast<uint64_t>(index * geometry_.entry_bytes);
  pte.level = level;
  pte.value = memory_.Load(pte.where, geometry_.entry_bytes);
  return pte;
}

void GuestPageTables::Visit(
    Gfn table, int level, Gva start, Gva end,
    absl::FunctionRef<void(Gva, const GuestPte&)> leaf,
    absl::FunctionRef<void(const GuestPte&)> table_after) {
  const int entries = level == geometry_.levels ? geometry_.TopEntries()
                                                : geometry_.EntriesPerTable();
  Gva gva = start;
  for (int i = 0; i < entries && gva < end;
       ++i, gva += geometry_.BytesPerEntry(level)) {
    const GuestPte pte = Read(table, level, i);
    if (!pte.present()) continue;
    if (pte.leaf()) {
      leaf(gva, pte);
    } else {
      Visit(pte.gfn(), level - 1, gva, end, leaf, table_after);
      table_after(pte);
    }
  }
}

std::optional<Gfn> GuestPageTables::NewTable() {
  const std::optional<FrameAllocator::Frame> frame = frames_.Allocate();
  if (!frame.has_value()) return std::nullopt;
  if (frame->recycled) memory_.ZeroPage(frame->gfn);
  return frame->gfn;
}

}  // namespace mmu
