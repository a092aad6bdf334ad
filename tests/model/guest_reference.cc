#include "tests/model/guest_reference.h"

#include <algorithm>

namespace mmu::testing {

GuestReference::GuestReference(const GuestFormat& format, int vcpus)
    : format_(format),
      vcpus_(vcpus),
      leafs_(kPoolPages * kPagesPerRegion),
      pending_(
          static_cast<size_t>(vcpus * kSpaces * kRegions * kPagesPerRegion)) {}

ModelTranslation GuestReference::Combine(const ModelLink& link,
                                         const ModelLeaf& leaf,
                                         int index) const {
  switch (link.kind) {
    case ModelLink::Kind::kNone:
      return {};
    case ModelLink::Kind::kLarge:
      return {.present = true,
              .page = link.page + PageInRegion(format_, index),
              .rights = link.rights,
              .table = 0};
    case ModelLink::Kind::kTable:
      break;
  }
  if (!leaf.present) return {};
  return {.present = true,
          .page = leaf.page,
          .rights = link.rights & leaf.rights,
          .table = link.page};
}

ModelTranslation GuestReference::Current(const Place& place) const {
  const ModelLink& now = link(place.space, place.region);
  return Combine(now,
                 now.kind == ModelLink::Kind::kTable
                     ? LeafAt(now.page, place.index)
                     : ModelLeaf(),
                 place.index);
}

void GuestReference::SetLink(int space, int region, const ModelLink& link) {
  ModelLink& now = links_[IndexOf(space, region)];
  for (int vcpu = 0; vcpu < vcpus_ && now.kind != ModelLink::Kind::kNone;
       ++vcpu) {
    for (int i = 0; i < kPagesPerRegion; ++i) {
      auto& old = pending_[IndexOf(vcpu, Place{space, region, i})].links;
      if (std::find(old.begin(), old.end(), now) == old.end()) {
        old.push_back(now);
      }
    }
  }
  now = link;
}

std::vector<Place> GuestReference::PlacesOf(uint64_t table, int index) const {
  const auto links_table = [table](const ModelLink& link) {
    return link.kind == ModelLink::Kind::kTable && link.page == table;
  };
  std::vector<Place> places;
  for (int space = 0; space < kSpaces; ++space) {
    for (int region = 0; region < kRegions; ++region) {
      const Place place = {space, region, index};
      bool may_use = links_table(link(space, region));
      for (int vcpu = 0; vcpu < vcpus_ && !may_use; ++vcpu) {
        const auto& old = pending_[IndexOf(vcpu, place)].links;
        may_use = std::any_of(old.begin(), old.end(), links_table);
      }
      if (may_use) places.push_back(place);
    }
  }
  return places;
}

void GuestReference::SetLeaf(uint64_t table, int index, const ModelLeaf& leaf) {
  ModelLeaf& now = LeafAt(table, index);
  for (const Place& place : PlacesOf(table, index)) {
    if (!now.present) break;
    for (int vcpu = 0; vcpu < vcpus_; ++vcpu) {
      auto& old = pending_[IndexOf(vcpu, place)].leafs;
      const bool known =
          std::any_of(old.begin(), old.end(), [&](const OldLeaf& one) {
            return one.table == table && one.leaf == now;
          });
      if (!known) old.push_back({table, now});
    }
  }
  now = leaf;
}

GuestReference::Candidates GuestReference::CandidatesOf(
    int vcpu, const Place& place) const {
  const Pending& pending = pending_[IndexOf(vcpu, place)];
  Candidates candidates;
  const auto add = [&](const ModelLink& link) {
    if (link.kind != ModelLink::Kind::kTable) {
      candidates.push_back(Combine(link, {}, place.index));
      return;
    }
    candidates.push_back(
        Combine(link, LeafAt(link.page, place.index), place.index));
    for (const OldLeaf& old : pending.leafs) {
      if (old.table != link.page) continue;
      candidates.push_back(Combine(link, old.leaf, place.index));
    }
  };
  add(link(place.space, place.region));
  for (const ModelLink& old : pending.links) add(old);
  return candidates;
}

void GuestReference::Invalidated(int vcpu, const Place& place) {
  Pending& pending = pending_[IndexOf(vcpu, place)];
  pending.links.clear();
  pending.leafs.clear();
}

void GuestReference::Invalidated(int vcpu, int space) {
  for (int region = 0; region < kRegions; ++region) {
    for (int i = 0; i < kPagesPerRegion; ++i) {
      Invalidated(vcpu, Place{space, region, i});
    }
  }
}

}  // namespace mmu::testing
